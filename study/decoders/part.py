"""The training of one decoder of a bird, or of a bird and age.

It is measured against the study's one reference, on held-out snippets of its own: its Frechet
distances are to the song of all birds, and so larger than those of the trials.
"""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_io.recordings import BirdAge, Recording, data_hash
from models.mdgan.checkpoints import load_decoder, save_decoder
from models.mdgan.model import Mdgan
from models.mdgan.training import Progress, TrainingFailedError
from models.metrics.reference import Reference
from study.base.paths import RunPaths
from study.base.seeds import bird_age_seed
from study.config.tree import DecoderScope, StudyConfig
from study.decoders.scope import ALL_AGES, decoder_part
from study.training.data import TrialData, choose_held_out, load_side
from study.training.train import too_like, train_on

# What a training hands on to that of the next age: weights, no optimizers and no random numbers.
_HANDED_ON = ("nets", "averaged")


@dataclass(frozen=True)
class Part:
    """What one decoder is trained on.

    Attributes:
        of: bird and age; the age is empty where the decoder serves all ages.
        recordings: of both sides of the split.
        n_snippets: consecutive ones in the recordings for training.
    """

    of: BirdAge
    recordings: list[Recording]
    n_snippets: int

    @property
    def words(self) -> str:
        """The part, for a person."""
        bird, age = self.of
        return bird if age == ALL_AGES else f"{bird} at {age}"


@dataclass
class Trained:
    """What came of one decoder.

    Attributes:
        row: of decoders.parquet. ``age`` is empty where the decoder serves all ages; ``status`` is
            ok, no_held_out, too_few_snippets, failed or collapsed; ``started_from`` is the age
            whose weights it began with, empty for new ones; ``n_recordings`` and ``n_snippets`` are
            those of training.
        reports: metrics by snippets seen.
    """

    row: dict[str, Any]
    reports: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether there is a decoder."""
        return bool(self.row["status"] == "ok")


def decoder_row(part: Part, status: str, reason: str, started_from: str = "") -> dict[str, Any]:
    """What is known of a decoder before its training, as in decoders.parquet."""
    return {
        "bird": part.of[0],
        "age": part.of[1],
        "status": status,
        "reason": reason,
        "started_from": started_from,
        "n_recordings": sum(r.split == "train" for r in part.recordings),
        "n_snippets": part.n_snippets,
    }


def load_part(config: StudyConfig, part: Part, paths: RunPaths, reference: Reference) -> TrialData:
    """Load frames of a part, and fixed held-out snippets of its own."""
    pool, held_out = (
        load_side(config, part.recordings, paths, split) for split in ("train", "valid")
    )
    rng = np.random.default_rng(bird_age_seed(config.seed, part.of))
    choice = choose_held_out(config, held_out, rng)
    return TrialData(pool, held_out.crops(choice), reference, data_hash(part.recordings))


def start_from(model: Mdgan, before: Mdgan) -> None:
    """Give ``model`` the weights of ``before``; optimizers, schedule and seeds stay its own."""
    learned = before.state_dict()
    handed_on = {name: learned[name] for name in _HANDED_ON if name in learned}
    model.load_state_dict({**model.state_dict(), **handed_on})


def train_part(model: Mdgan, data: TrialData, part: Part, seed: int, started_from: str) -> Trained:
    """Train a model to the end of its budget; the row says where it diverged or collapsed."""
    reports: dict[int, dict[str, float]] = {}
    status, reason = "ok", ""
    started = time.monotonic()

    def keep(report: Progress) -> None:
        reports[report.snippets_seen] = report.metrics

    try:
        train_on(model, data, seed, keep)
    except TrainingFailedError as error:
        status, reason = error.status, str(error)
    last = reports[max(reports)] if reports else {}
    if status == "ok" and last["valid/collapsed"]:
        status, reason = "collapsed", too_like(last)
    row = decoder_row(part, status, reason, started_from)
    row |= {"snippets_seen": model.snippets_seen, "seconds": time.monotonic() - started}
    # What is no finite number has no place in JSON, and means "not known" in a table.
    row |= {name: value if math.isfinite(value) else None
            for name, value in last.items() if name.startswith("valid/")}  # fmt: skip
    return Trained(row, reports)


def save_part(model: Mdgan, trained: Trained, folder: Path, scope: DecoderScope) -> None:
    """Write a decoder to <bird>/ or <bird>/<age>/, and its hashes to its row."""
    row = trained.row
    out = folder.joinpath(*decoder_part(scope, row["bird"], row["age"]))
    out.mkdir(parents=True, exist_ok=True)  # a worker that died may have written it before
    metrics = {name: value for name, value in row.items() if name.startswith("valid/")}
    named = {name: row[name] for name in ("bird", "age", "started_from", "snippets_seen")}
    params = dataclasses.asdict(model.params)
    save_decoder(model, out, {"scope": scope, **named, "params": params, "metrics": metrics})
    _, _, facts = load_decoder(out)  # what is kept can be opened
    for name in ("encoder", "generator"):
        row[f"{name}_sha256"] = facts["sha256"][f"{name}.safetensors"]
