"""Trainings whose numbers are known beforehand, and what a search of them must come to.

`curve_of` says what a training with these parameters and this seed reports, and how it ends. The
code that is tested sees it through `study.search.trial.run_trial`; `expected` works out from it,
trial after trial in the order of their numbers, what the table of trials must hold.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from models.mdgan.training import CollapsedError, TrainingFailedError, TrainingReport
from models.metrics.evaluation import COLLAPSED_OBJECTIVE

DATA = SimpleNamespace(sha256="data")
DIVERGED, COLLAPSED = "a loss is nan: training has diverged", "decoded snippets do not vary"


@dataclass(frozen=True)
class Curve:
    """What a training reports.

    Attributes:
        values: the objective by report, the first one first.
        ends_after: reports before it ends itself; None where it comes to its end.
        is_diverging: how it then ends: diverged, or else collapsed.
        flat_from: first report whose decoder has collapsed; beyond the last where none has.
    """

    values: list[float]
    ends_after: int | None
    is_diverging: bool
    flat_from: int

    def metrics(self, report):
        """Those of a report."""
        value, is_flat = self.values[report - 1], report >= self.flat_from
        return {
            "train/loss": 2 * value,
            "valid/objective": COLLAPSED_OBJECTIVE if is_flat else value,
            "valid/recon_l1": round(11 - value, 4),
            "valid/collapsed": float(is_flat),
            "valid/spread": 0.01 if is_flat else 0.5,
        }

    def ranked_by(self, report, objective):
        """What trials are compared by."""
        metrics = self.metrics(report)
        return COLLAPSED_OBJECTIVE if metrics["valid/collapsed"] else metrics[objective]


def curve_of(params, seed, n_reports):
    """What the training of these parameters and this seed reports."""
    rng = random.Random(f"{sorted(params.items())} {seed}")
    level = rng.uniform(1, 6)
    values = [level * (1 + 0.6**i * rng.uniform(0.5, 1)) for i in range(n_reports)]
    values = [round(value, rng.choice([0, 4])) for value in values]  # some are equal
    kind = rng.random()
    ends_after = rng.randrange(n_reports) if kind < 0.2 else None
    flat_from = rng.randint(1, n_reports) if 0.2 < kind < 0.3 else n_reports + 1
    return Curve(values, ends_after, kind < 0.1, flat_from)


class PretendModel:
    """An MDGAN that learns nothing; what it has seen is in its checkpoints."""

    def __init__(self, params, data, seed, device):
        self.params, self.seed, self.snippets_seen = params, seed, 0


def sampled(params, space):
    """Those parameters that are searched."""
    return {name: getattr(params, name) for name in space}


class PretendTraining:
    """In place of what `study.search.trial` trains with.

    Args:
        space: names of the parameters that are searched.
        before_report: called before each report; may raise what ends a training.
    """

    def __init__(self, space, before_report):
        self._space = space
        self._before_report = before_report

    def train_on(self, model, data, seed, gpus, on_progress):
        """Report as the curve says."""
        n = model.params.n_reports
        curve = curve_of(sampled(model.params, self._space), seed, n)
        first = model.snippets_seen // model.params.report_every + 1
        for report in range(
            first if model.snippets_seen < model.params.n_snippets else n + 1, n + 1
        ):
            self._before_report()
            if curve.ends_after == report - 1:
                if curve.is_diverging:
                    raise TrainingFailedError(DIVERGED)
                raise CollapsedError(COLLAPSED)
            model.snippets_seen = seen_at(model.params, report)
            rows = [{"bird": "b1", "age": "60", "valid/recon_l1": curve.values[report - 1]}]
            on_progress(TrainingReport(report, model.snippets_seen, curve.metrics(report), rows))

    def save_training(self, model, folder, facts):
        """Write what `load_training` checks."""
        content = {"seen": model.snippets_seen, "seed": model.seed,
                   "params": sampled(model.params, self._space)}  # fmt: skip
        (folder / "training.json").write_text(json.dumps(content), "utf-8")
        return {}

    def load_training(self, model, folder, sha256):
        """Go on from a checkpoint, which must be one of this very training."""
        content = json.loads((folder / "training.json").read_text("utf-8"))
        assert content["seed"] == model.seed
        assert content["params"] == sampled(model.params, self._space)
        model.snippets_seen = content["seen"]


def save_decoder(model, folder, facts):
    """Write the files that `study.search.tables.keep_best` copies."""
    made_of = json.dumps({"seed": model.seed, "seen": model.snippets_seen})
    for name in ("encoder.safetensors", "generator.safetensors", "model.json"):
        (folder / name).write_text(made_of, "utf-8")
    return {}


def load_decoder(folder: Path):
    """Raise where a file of a decoder is missing or is another report's."""
    names = ("encoder.safetensors", "generator.safetensors", "model.json")
    if len({(folder / name).read_text("utf-8") for name in names}) > 1:
        raise ValueError(f"{folder} is made of two decoders")


def seen_at(params, report):
    """Snippets seen by a report."""
    return params.n_snippets if report == params.n_reports else report * params.report_every


@dataclass(frozen=True)
class Expected:
    """What the table must say of a trial, and MLflow must have.

    Attributes:
        status: of the trial.
        reports: that count, with metrics; of a training that ended itself they are not its last.
    """

    status: str
    reports: list[int]


def expected(config, specs):
    """How each of a search's trials ends, by number, whatever came first and whoever was killed."""
    n_reports, rungs, report = config.mdgan.n_reports, [], config.search.grace_reports
    while config.search.stops_early and report < n_reports:
        rungs.append(report)
        report *= config.search.reduction_factor
    found, seen = {}, {rung: [] for rung in rungs}  # of each rung: who came there, with its value
    for spec in sorted(specs, key=lambda spec: spec.number):
        curve = curve_of(spec.params, spec.seed, n_reports)
        n = n_reports if curve.ends_after is None else curve.ends_after
        status = (
            "completed" if n == n_reports else ("failed" if curve.is_diverging else "collapsed")
        )
        for rung in (rung for rung in rungs if rung <= n):
            value = curve.ranked_by(rung, config.search.objective)
            weak = seen[rung] and value > np.quantile(
                [one for one, _ in seen[rung]], 1 / config.search.reduction_factor
            )
            groups = {(name, spec.params[name]) for name in config.search.kept_choices}
            leads = any(
                value < min((one for one, others in seen[rung] if group in others), default=np.inf)
                for group in groups
            )
            seen[rung].append((value, groups))
            if weak and not leads:
                n, status = rung, "stopped"
                break
        if status in ("completed", "stopped") and curve.flat_from <= n:
            status = "collapsed"
        found[spec.number] = Expected(status, list(range(1, n + 1)))
    return found
