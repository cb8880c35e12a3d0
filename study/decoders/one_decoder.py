"""The training of one decoder: of a bird, or of a bird and age.

The study's one reference measures it, on held-out snippets of its own bird. So its Frechet
distances are distances to the snippets of all birds, and are larger than the trials' distances.
"""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_io.recordings.table import SELECTION, TRAINING, BirdAge, Recordings, data_hash
from models.mdgan.checkpoints import load_decoder, save_decoder
from models.mdgan.model import Mdgan
from models.mdgan.training import TrainingFailedError, TrainingReport
from models.metrics.reference import Reference
from study.base.paths import RunPaths
from study.config.tree import DecoderScope, StudyConfig
from study.decoders.scope import ALL_AGES, decoder_key
from study.training.data import TrialData, load_side, songs_beside
from study.training.train import too_like, train_on

# A training hands these on to the next age: weights, no optimizers and no random numbers.
_HANDED_ON = ("nets", "averaged")


@dataclass(frozen=True)
class DecoderPlan:
    """Whom one decoder serves, and the recordings that it is trained and measured on.

    Attributes:
        bird_age: bird and age; the age is empty if the decoder serves all ages.
        recordings: of both sides of the split.
        n_snippets: consecutive snippets in the training recordings.
        n_held_out: the same in the recordings that it is measured on.
    """

    bird_age: BirdAge
    recordings: Recordings
    n_snippets: int
    n_held_out: int

    @property
    def name(self) -> str:
        """Bird, or bird and age, as a person reads it."""
        bird, age = self.bird_age
        return bird if age == ALL_AGES else f"{bird} at {age}"


@dataclass
class Trained:
    """The outcome of one decoder's training.

    Attributes:
        row: of decoders.parquet. ``age`` is empty if the decoder serves all ages; ``status`` is
            ok, no_held_out, too_few_snippets, failed or collapsed; ``started_from`` is the age
            whose weights it began with, empty for new weights; ``n_recordings`` and ``n_snippets``
            count training recordings and their snippets.
        reports: metrics by snippets seen, and ``reported_at`` (seconds of `time.time`).
    """

    row: dict[str, Any]
    reports: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether there is a decoder."""
        return bool(self.row["status"] == "ok")


def decoder_row(
    plan: DecoderPlan, status: str, reason: str, started_from: str = ""
) -> dict[str, Any]:
    """The columns of decoders.parquet that are known before a decoder is trained."""
    return {
        "bird": plan.bird_age[0],
        "age": plan.bird_age[1],
        "status": status,
        "reason": reason,
        "started_from": started_from,
        "n_recordings": len(plan.recordings.on(TRAINING)),
        "n_snippets": plan.n_snippets,
    }


def load_data(
    config: StudyConfig, plan: DecoderPlan, paths: RunPaths, reference: Reference
) -> TrialData:
    """Load the frames of a decoder's recordings, and fixed held-out songs of them."""
    pool = load_side(config, plan.recordings, paths, TRAINING)
    songs = songs_beside(config, pool, plan.recordings, paths, SELECTION)
    return TrialData(pool, songs, reference, data_hash(plan.recordings))


def start_from(model: Mdgan, before: Mdgan) -> None:
    """Give ``model`` the weights of ``before``; it keeps its own optimizers, schedule and seeds."""
    learned = before.state_dict()
    handed_on = {name: learned[name] for name in _HANDED_ON if name in learned}
    model.load_state_dict({**model.state_dict(), **handed_on})


def train_decoder(
    model: Mdgan, data: TrialData, plan: DecoderPlan, seed: int, gpus: float, started_from: str
) -> Trained:
    """Train a model to the end of its budget; the row says if it diverged or collapsed."""
    reports: dict[int, dict[str, float]] = {}
    status, reason = "ok", ""
    started = time.monotonic()

    def keep(report: TrainingReport) -> None:
        reports[report.snippets_seen] = {**report.metrics, "reported_at": time.time()}

    try:
        train_on(model, data, seed, gpus, keep)
    except TrainingFailedError as error:
        status, reason = error.status, str(error)
    last = reports[max(reports)] if reports else {}
    if status == "ok" and last["valid/collapsed"]:
        status, reason = "collapsed", too_like(last)
    row = decoder_row(plan, status, reason, started_from)
    row |= {"snippets_seen": model.snippets_seen, "seconds": time.monotonic() - started}
    # JSON has no place for a number that is not finite; in a table it means "not known".
    row |= {name: value if math.isfinite(value) else None
            for name, value in last.items() if name.startswith("valid/")}  # fmt: skip
    return Trained(row, reports)


def save_trained(model: Mdgan, trained: Trained, folder: Path, scope: DecoderScope) -> None:
    """Write a decoder to <bird>/ or <bird>/<age>/, and its hashes to its row."""
    row = trained.row
    out = folder.joinpath(*decoder_key(scope, row["bird"], row["age"]))
    out.mkdir(parents=True, exist_ok=True)  # a worker that died may have written it before
    metrics = {name: value for name, value in row.items() if name.startswith("valid/")}
    named = {name: row[name] for name in ("bird", "age", "started_from", "snippets_seen")}
    params = dataclasses.asdict(model.params)
    save_decoder(model, out, {"scope": scope, **named, "params": params, "metrics": metrics})
    _, _, facts = load_decoder(out)  # a decoder that is kept can be opened
    for name in ("encoder", "generator"):
        row[f"{name}_sha256"] = facts["sha256"][f"{name}.safetensors"]
