"""Early stopping on simulated learning curves: what is trained in vain, and what is missed.

    python -m benchmarks.stopping
    python -m benchmarks.stopping --seeds 200

A trial's true curve is a power law, level + rise * report^-speed, over 30 reports; what it reports
has noise. Levels are normal around that of its latent size (8, 16, 32: larger is better by half a
standard deviation), rises and speeds vary; larger sizes learn more slowly, and so do trials that
end low, so that curves cross. A
second kind of curve has a late effect: after report 27 (90 % of the training, where adversarial
terms come in) every trial moves by a number of its own. Trials take different times for a report.
Every rule sees the same 48 trials. Ray's is its own class, AsyncHyperBandScheduler.

Columns: reports trained in all, as a share of those without stopping; in vain, the share that
stopped trials trained past the rung that stopped them; regret, the true final level of the best
trial that completed (as reported) above the best of all 48, in standard deviations of final levels;
per size, the same within each latent size; without, latent sizes without a completed trial.
"""

import argparse
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent

import numpy as np
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from study.search.rungs import Rungs, rung_reports

N_TRIALS, N_REPORTS, LATE = 48, 30, 27
SIZES = (8, 16, 32)
NOISE = 0.15  # standard deviation of a report, in those of levels
Array = NDArray[np.float64]
# Given trial, report and value: whether the trial stops.
Stopper = Callable[[int, int, float], bool]


@dataclass(frozen=True)
class Curves:
    """Simulated trials.

    Attributes:
        sizes: latent size [n_trials].
        true: [n_trials, n_reports].
        reported: [n_trials, n_reports], with noise.
        seconds: of each report [n_trials, n_reports].
    """

    sizes: NDArray[np.int64]
    true: Array
    reported: Array
    seconds: Array


def simulate(seed: int, has_late_effect: bool) -> Curves:
    """The trials of one search."""
    rng = np.random.default_rng(seed)
    size = rng.integers(len(SIZES), size=N_TRIALS)
    worse = rng.normal(size=N_TRIALS)
    level = worse - 0.5 * size
    rise = rng.lognormal(2.0, 0.5, N_TRIALS)
    speed = rng.lognormal(0.2 - 0.2 * size + 0.3 * worse, 0.4)
    report = np.arange(1, N_REPORTS + 1)
    true = level[:, None] + rise[:, None] * report ** -speed[:, None]
    if has_late_effect:
        true[:, LATE:] += rng.normal(size=(N_TRIALS, 1))
    reported = true + NOISE * rng.normal(size=true.shape)
    pace = rng.lognormal(0, 0.3, (N_TRIALS, 1)) * rng.lognormal(0, 0.1, true.shape)
    return Curves(np.array(SIZES)[size], true, reported, pace)


class Ordered:
    """Our rungs; ``keeps`` says whether each latent size keeps a trial."""

    def __init__(self, curves: Curves, reports: list[int], factor: int, keeps: bool):
        self.rungs = Rungs(reports, factor)
        if keeps:
            for number, size in enumerate(curves.sizes):
                self.rungs.enter(number, [int(size)])

    def __call__(self, number: int, report: int, value: float) -> bool:
        """Take in a report."""
        self.rungs.add(number, report, value)
        return self.rungs.counts_up_to(number)[1]

    def counted(self, number: int, n_trained: int) -> int:
        """Reports of a trial that count."""
        last, is_stopped = self.rungs.counts_up_to(number)
        return last if is_stopped and last is not None else n_trained


class Rays:
    """Ray's ASHA."""

    def __init__(self, first: int, factor: int):
        self.scheduler = AsyncHyperBandScheduler(
            "report", "value", "min", max_t=N_REPORTS, grace_period=first, reduction_factor=factor
        )
        self.trials: dict[int, SimpleNamespace] = {}

    def __call__(self, number: int, report: int, value: float) -> bool:
        """Take in a report."""
        if number not in self.trials:
            self.trials[number] = SimpleNamespace(trial_id=str(number))
            self.scheduler.on_trial_add(None, self.trials[number])
        result = {"report": report, "value": value}
        action = self.scheduler.on_trial_result(None, self.trials[number], result)
        return bool(action == TrialScheduler.STOP) and report < N_REPORTS

    def counted(self, number: int, n_trained: int) -> int:
        """All that was trained: a decision is made with the report."""
        return n_trained


def run(curves: Curves, stopper: Ordered | Rays, at_once: int) -> Array:
    """Reports trained and reports that count, of each trial [n_trials, 2]."""
    trained = np.zeros(N_TRIALS, int)
    waiting = list(range(N_TRIALS))[::-1]
    events: list[tuple[float, int]] = []

    def begin(now: float) -> None:
        if waiting:
            number = waiting.pop()
            heapq.heappush(events, (now + curves.seconds[number, 0], number))

    for _ in range(at_once):
        begin(0.0)
    while events:
        now, number = heapq.heappop(events)
        trained[number] += 1
        report = int(trained[number])
        is_stopped = stopper(number, report, float(curves.reported[number, report - 1]))
        if is_stopped or report == N_REPORTS:
            if isinstance(stopper, Ordered):
                stopper.rungs.end(number)
            begin(now)
        else:
            heapq.heappush(events, (now + curves.seconds[number, report], number))
    return np.array([[n, stopper.counted(i, n)] for i, n in enumerate(trained)], float)


def regret(curves: Curves, is_whole: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    """How far the best that completed ends above the best; nan where none completed."""
    final = curves.true[:, -1]
    known = np.flatnonzero(is_whole & among)
    if not len(known):
        return np.nan
    chosen = known[np.argmin(curves.reported[known, -1])]
    return float((final[chosen] - final[among].min()) / final.std())


def judged(curves: Curves, counts: Array) -> list[float]:
    """Share trained, share in vain, regret, mean regret per size, sizes without a trial."""
    trained, counted = counts.T
    is_whole = counted == N_REPORTS
    every = np.ones(N_TRIALS, bool)
    each = [regret(curves, is_whole, curves.sizes == size) for size in np.unique(curves.sizes)]
    known = [one for one in each if not np.isnan(one)]
    return [
        trained.sum() / (N_TRIALS * N_REPORTS),
        (trained - counted).sum() / (N_TRIALS * N_REPORTS),
        regret(curves, is_whole, every),
        float(np.mean(known)),
        float(len(each) - len(known)),
    ]


def rules(curves: Curves) -> dict[str, Ordered | Rays]:
    """Every rule that is compared."""

    def ours(first: int, factor: int, keeps: bool) -> Ordered:
        return Ordered(curves, rung_reports(first, factor, N_REPORTS), factor, keeps)

    return {
        "none stopped": Ordered(curves, [], 3, False),
        "Ray's ASHA, 3, 9, 27": Rays(3, 3),
        "ours, 3, 9, 27": ours(3, 3, False),
        "ours, 3, 9, 27, sizes kept": ours(3, 3, True),
        "ours, 6, 18, sizes kept": ours(6, 3, True),
        "one rung at 3": Ordered(curves, [3], 3, False),
        "one rung at 3, sizes kept": Ordered(curves, [3], 3, True),
        "one rung at 10, sizes kept": Ordered(curves, [10], 3, True),
        "one rung at 28, sizes kept": Ordered(curves, [28], 3, True),
    }


def crossings(curves: Curves, report: int) -> float:
    """Share of pairs of trials whose order at ``report`` is not that at the end."""
    early, final = curves.true[:, report - 1], curves.true[:, -1]
    i, j = np.triu_indices(N_TRIALS, 1)
    return float(np.mean((early[i] < early[j]) != (final[i] < final[j])))


def main() -> None:
    """Print one table for each kind of curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    for has_late_effect in (False, True):
        searches = [simulate(seed, has_late_effect) for seed in range(options.seeds)]
        shares = ", ".join(
            f"{np.mean([crossings(one, report) for one in searches]):.0%} after report {report}"
            for report in (3, 9, 27)
        )
        kind = "with an effect that comes after report 27" if has_late_effect else "power laws"
        print(f"\n{kind}, {options.seeds} searches; pairs of trials that cross: {shares}")
        print(f"{'rule':34}{'at once':>8}{'trained':>9}{'in vain':>9}{'regret':>8}{'+-':>6}"
              f"{'per size':>10}{'without':>9}")  # fmt: skip
        for name in rules(searches[0]):
            for at_once in (1, 8, 32):
                found = np.array(
                    [judged(one, run(one, rules(one)[name], at_once)) for one in searches]
                )
                trained, in_vain, lost, per_size, without = np.nanmean(found, axis=0)
                error = np.nanstd(found[:, 2]) / np.sqrt(len(found))
                print(f"{name:34}{at_once:8}{trained:9.0%}{in_vain:9.1%}{lost:8.2f}{error:6.2f}"
                      f"{per_size:10.2f}{without:9.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
