"""Which sampler, and which early stopping, finds the best trial for the least training? A replay.

    python -m benchmarks.hpo_replay                                  # replays hpo_table.parquet
    python -m benchmarks.hpo_replay --make OUT.parquet --data DIR    # trains the table anew

The table (`benchmarks.hpo_table`) holds the curves of small trainings all over a search space, on
simulated and on real birds. A search is replayed on it: a sampler proposes a point of the space,
the nearest point of the table that was not tried yet answers with its curve, and is told to the
sampler as its own. Trials follow one another. A search sees the curves of one seed, as a study does
(half of the searches see either one). How good a point truly is, is the mean of its ends over both
seeds. A search has found the best when one of the trials that would be trained again with fresh
seeds (`study.search.selection.candidates`) is truly within 1 % of the best point of the table.

Samplers and rungs are those of a study; "today" is the sampler of version 0.5.0, for which latent
sizes had no order. The first table is Kendall's tau of each report with the end, of the same seed
and of the other one (the last number of that row is all that a seed can tell of another). The
second has, for each sampler and rule of stopping: whole trainings whose snippets are spent until
the best is found (median over the searches; inf beyond MOST_SPENT), the share of searches that find
it, and how far the truly best candidate lies above the best point, after EARLY whole trainings.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from scipy import stats
from scipy.stats import qmc

from benchmarks.hpo_table import N_POINTS, SPACE, make, read
from models.metrics.evaluation import COLLAPSED_OBJECTIVE
from study.config.search import SearchConfig, SelectionConfig
from study.search.distributions import distribution, from_optuna, to_optuna
from study.search.rungs import Rungs, rung_reports
from study.search.samplers import propose_by_gp, sampler, sampler_seed
from study.search.selection import candidates

ROOT = Path(__file__).resolve().parent
MOST_SPENT = 48  # whole trainings, those of the preset `full`
EARLY = 12
TODAYS_STARTUP = 10  # random trials of version 0.5.0
WITHIN = 1.01
SELECTION = SelectionConfig()
OPTUNA_SPACE = {name: distribution(entry) for name, entry in SPACE.items()}
Array = NDArray[np.float64]
Point = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The curves of one material.

    Attributes:
        points: parameters of each point.
        places: [n_points, n_parameters] of each point in the unit cube.
        curves: [n_seeds, n_points, n_reports] the objective.
        truth: [n_points] mean of the ends over the seeds.
    """

    points: list[Point]
    places: Array
    curves: Array
    truth: Array

    @classmethod
    def of(cls, points: list[Point], curves: Array) -> "Table":
        """The table of points and their curves."""
        places = np.array([place(point) for point in points])
        return cls(points, places, curves, curves[:, :, -1].mean(0))

    @property
    def n_reports(self) -> int:
        """Reports of a whole training."""
        return self.curves.shape[2]


class Rule(NamedTuple):
    """A rule of early stopping: reports at which trials are compared, and how many go on."""

    name: str
    rungs: list[int]
    factor: int


class Found(NamedTuple):
    """How a search went.

    Attributes:
        cost: whole trainings until it found the best; inf where it did not.
        excess: of its truly best candidate over the best point, after EARLY whole trainings.
    """

    cost: float
    excess: float


def place(point: Point) -> Array:
    """Where a point lies in the unit cube: logarithms, and places of ordered choices."""
    found = []
    for name, entry in SPACE.items():
        if entry.choice is not None:
            found.append(to_optuna(entry, point[name]) / (len(entry.values) - 1))
        else:
            low, high = np.log(entry.bounds)
            found.append((np.log(point[name]) - low) / (high - low))
    return np.array(found)


class Proposals:
    """A sampler of a study, or random or Sobol points; told what the table answered."""

    def __init__(self, name: str, n_startup: int, seed: int):
        self._name, self._seed, self._number = name, seed, 0
        self._random = np.random.default_rng(seed)
        self._sobol = qmc.Sobol(len(SPACE), scramble=True, rng=seed)
        self._search = SearchConfig(
            sampler="gp" if name == "gp" else "tpe",
            space=SPACE,
            n_startup_trials=TODAYS_STARTUP if name == "today" else n_startup,
        )
        self._study = optuna.create_study()
        self._space = OPTUNA_SPACE
        if name == "today":
            unordered = {n: e.choice for n, e in SPACE.items() if e.choice is not None}
            self._space = OPTUNA_SPACE | {
                n: CategoricalDistribution(values) for n, values in unordered.items()
            }

    def next(self) -> Array:
        """A place in the unit cube."""
        self._number += 1
        if self._name == "random":
            return self._random.random(len(SPACE))
        if self._name == "sobol":
            return self._sobol.random(1)[0]
        seed = sampler_seed(self._seed, self._number)
        if self._name == "gp":
            told = propose_by_gp(self._study, self._space, self._search, seed)
        else:
            self._study.sampler = sampler(self._search, seed)
            asked = self._study.ask(self._space)
            self._study.tell(asked, state=TrialState.FAIL)  # the point that answers is told below
            told = asked.params
        if self._name == "today":
            return place(told)
        return place({name: from_optuna(SPACE[name], value) for name, value in told.items()})

    def tell(self, point: Point, report: int, value: float, is_stopped: bool) -> None:
        """A trial ended, or was stopped at ``report``, with ``value``."""
        params = {name: to_optuna(SPACE[name], point[name]) for name in SPACE}
        known: dict[str, Any] = {
            "params": dict(point) if self._name == "today" else params,
            "distributions": self._space,
            "value": value,
            "constraints": {"collapsed": 1.0 if value >= COLLAPSED_OBJECTIVE else -1.0},
        }
        if is_stopped:
            known |= {"state": TrialState.PRUNED, "intermediate_values": {report: value}}
        self._study.add_trial(create_trial(**known))


def replay(table: Table, proposals: Proposals, rule: Rule, seed: int) -> Found:
    """One search over the table, which sees the curves of ``seed``."""
    seen, best = table.curves[seed], table.truth.min()
    rungs = Rungs(rule.rungs, rule.factor)
    is_free = np.ones(len(seen), bool)
    rows: list[dict[str, Any]] = []
    spent, excess = 0.0, float("nan")
    while is_free.any() and spent < MOST_SPENT:
        number = len(rows)
        far = np.square(table.places - proposals.next()).sum(1)
        point = int(np.argmin(np.where(is_free, far, np.inf)))
        is_free[point] = False
        rungs.enter(number, [table.points[point]["latent_dim"]])
        report, is_stopped = 0, False
        while report < table.n_reports and not is_stopped:
            report += 1
            rungs.add(number, report, float(seen[point, report - 1]))
            is_stopped = rungs.counts_up_to(number)[1]
        rungs.end(number)
        spent += report / table.n_reports
        value = float(seen[point, report - 1])
        proposals.tell(table.points[point], report, value, is_stopped)
        rows.append({"number": number, "point": point, "metric": value,
                     "status": "stopped" if is_stopped else "completed",
                     "latent_dim": table.points[point]["latent_dim"]})  # fmt: skip
        chosen = candidates(rows, SELECTION, "metric")
        truly = min((table.truth[row["point"]] for row in chosen), default=np.inf)
        if spent <= EARLY or np.isnan(excess):
            excess = truly / best - 1
        if truly <= WITHIN * best:
            # What it finds until EARLY stays found.
            return Found(spent, min(excess, truly / best - 1) if spent <= EARLY else excess)
    return Found(float("inf"), excess)


def rules(n_reports: int) -> list[Rule]:
    """The rules that are compared."""
    return [
        Rule("none stopped", [], 3),
        *(Rule(f"ordered ASHA from {at}", rung_reports(at, 3, n_reports), 3) for at in (1, 2, 3)),
        *(Rule(f"one rung at {at}, best third", [at], 3) for at in (1, 2, 3, 5)),
        Rule("one rung at 3, best half", [3], 2),
    ]


def taus(table: Table) -> Array:
    """Kendall's tau of each report with the end [2, n_reports]: same seed, other seed."""
    n = len(table.curves)
    return np.array(
        [
            [
                np.mean([
                    stats.kendalltau(table.curves[s, :, r], table.curves[(s + other) % n, :, -1])[0]
                    for s in range(n)
                ])
                for r in range(table.n_reports)
            ]
            for other in (0, 1)
        ]
    )  # fmt: skip


def main(path: Path, n_searches: int, names: list[str], n_startup: int, only: str) -> None:
    """Print the tables."""
    for material, found in read(path).items():
        table = Table.of(found["points"], found["curves"])
        noise = np.diff(table.curves[:, :, -1], axis=0).std() / 2**0.5
        n_within = int((table.truth <= WITHIN * table.truth.min()).sum())
        print(f"\n{material}: {len(table.points)} points, best {table.truth.min():.4f}, median "
              f"{np.median(table.truth):.4f}; {n_within} within 1 %; standard deviation over "
              f"points {table.truth.std():.4f}, between seeds {noise:.4f}")  # fmt: skip
        print("tau of report 1, 2, ... with the end")
        for words, row in zip(("of the same seed", "of the other seed"), taus(table), strict=True):
            print(f"  {words:18}" + " ".join(f"{tau:5.2f}" for tau in row))
        print(f"{'sampler':8}{'stopping':28}{'searches':>9}{'trainings':>10}{'+-':>5}{'found':>7}"
              f"{f'above after {EARLY}':>16}")  # fmt: skip
        for name in names:
            for rule in rules(table.n_reports):
                if only in rule.name:
                    show(table, name, rule, n_searches, n_startup)


def show(table: Table, name: str, rule: Rule, n_searches: int, n_startup: int) -> None:
    """Print a row of the second table."""
    every = [
        replay(table, Proposals(name, n_startup, i), rule, i % len(table.curves))
        for i in range(n_searches)
    ]
    costs = np.sort([one.cost for one in every])
    low, high = costs[[int(0.5 * n_searches - 0.5 * n_searches**0.5), n_searches // 2]]
    error = high - low if np.isfinite(high) else np.inf
    excess = np.mean([one.excess for one in every])
    print(f"{name:8}{rule.name:28}{n_searches:9}{np.median(costs):10.1f}{error:5.1f}"
          f"{np.isfinite(costs).mean():7.0%}{excess:16.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, nargs="?", default=ROOT / "hpo_table.parquet")
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--samplers", nargs="+", default=["today", "random", "sobol", "tpe", "gp"])
    parser.add_argument("--startup", type=int, default=SearchConfig().n_startup_trials)
    parser.add_argument("--only", default="", help="rules of stopping whose name holds this")
    parser.add_argument("--make", type=Path, help="train the table anew, to this Parquet file")
    parser.add_argument("--data", type=Path, help="folder of recordings, for --make")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, for --make")
    parser.add_argument("--points", type=int, default=N_POINTS, help="of the space, for --make")
    parser.add_argument("--as-study", action="store_true", help="the objective of a study")
    args = parser.parse_args()
    if args.make is None:
        main(args.table, args.searches, args.samplers, args.startup, args.only)
    elif args.data is None:
        sys.exit("--make needs --data, a folder of recordings.")
    else:
        make(args.make, args.data, args.jobs, args.points, args.as_study)
