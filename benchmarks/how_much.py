"""Does the advice on how much song is enough hold? Known truths, and a study's own answer.

python -m benchmarks.how_much [--rows NAME ...]
python study/how_much_song.py RUN --seeds 25 && python -m benchmarks.how_much --run RUN

Latents with a known truth: of each kind of bird, five sets of recordings that share nothing, each
with its own held-out songs and five subsamples, as five laboratories would have them. Each set
gives the advice of `birdsong how-much` from its own songs alone. The truth is exact: what a fitted
model lacks is the log-likelihood of 100,000 fresh snippets under the true model less that under the
fitted one; the true answer is the same rule on these differences, averaged over all sets. The last
columns say how far off each set is, in its own standard errors, and what is still lacking at the
minutes that it calls enough. With t noise the true model is only the nearest Gaussian one, which
models of more states surpass: what they lack falls below 0.

A study: the subsamples of curves.parquet in groups of five, each group's advice beside that of all.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_io.store import read_table
from models.hmm import HmmParams, search_states
from models.hmm.em import Songs
from models.hmm.latent_params import LatentParams
from models.hmm.predictive import song_likelihoods
from models.hmm.simulate import simulate_latents
from study.base.paths import RunPaths
from study.how_much.advice import Advice, Curve, advise, enough_at
from study.how_much.amounts import Amount, Song, amounts
from study.how_much.fan_out import CURVES
from study.how_much.tables import by_amount, curve_of

SNIPPET_MINUTES = 0.064 / 60
N_SETS, N_SUBSAMPLES = 5, 5
N_HELD_OUT, N_FRESH = 15, 920  # songs; each set has held-out ones of its own
MEAN_LENGTH = 110
SEED = 0


@dataclass(frozen=True)
class Row:
    """A kind of bird."""

    name: str
    latents: LatentParams
    params: HmmParams
    n_fitted: int  # songs of each set


def _row(name: str, n_fitted: int, covariance_type: str = "diag", **latents) -> Row:
    params = HmmParams(n_states=(3, 60), covariance_type=covariance_type, n_restarts=2)
    n_songs = N_SETS * (n_fitted + N_HELD_OUT) + N_FRESH
    known = LatentParams(
        n_songs=n_songs,
        n_snippets=n_songs * MEAN_LENGTH,
        covariance_type=covariance_type,
        **latents,
    )
    return Row(name, known, params, n_fitted)


ROWS = [
    _row("K 8, separated", 60, n_states=8, separation=0.99),
    _row("K 20, overlap a little", 120, n_states=20, separation=0.9),
    _row("K 20, silence 44 %", 120, n_states=20, silence_share=0.44, n_silent=3),
    _row("K 10, full covariances", 120, "full", n_states=10),
    _row("K 10, t(4) noise", 60, n_states=10, t_df=4.0),
]


@lru_cache(maxsize=1)
def simulated(row: Row):
    """Songs of all sets, and the truth."""
    return simulate_latents(row.latents, SEED)


def set_of(row: Row, number: int) -> tuple[list, list, list]:
    """Songs to fit, songs to hold out, and fresh ones."""
    songs = simulated(row).songs
    first = number * (row.n_fitted + N_HELD_OUT)
    held_out = first + row.n_fitted
    return songs[first:held_out], songs[held_out : held_out + N_HELD_OUT], songs[-N_FRESH:]


def song_of_set(fitted: list) -> Song:
    """The songs to fit as `amounts` takes them; all of it counts as sound."""
    n_snippets = np.array([len(song) for song in fitted])
    minutes = SNIPPET_MINUTES * n_snippets
    names = tuple(map(str, range(len(fitted))))
    return Song(("set", ""), names, ("held out",), minutes, minutes, n_snippets, 1.0)


def fit(row: Row, number: int, amount: Amount) -> tuple[np.ndarray, int, float, float]:
    """One fit: held-out nats by song, number of states, bits, nats per snippet that it lacks."""
    fitted, held_out, fresh = set_of(row, number)
    kind = row.params.covariance_type
    model = search_states([fitted[i] for i in amount.chosen], row.params, amount.subsample).model
    found = song_likelihoods(Songs(held_out, kind), model)
    truth = simulated(row).model
    fresh_songs = Songs(fresh, kind)
    of_truth, of_model = (song_likelihoods(fresh_songs, one).per_snippet for one in (truth, model))
    lacking = of_truth - of_model
    return found.in_order, model.n_components, found.predictive_information, lacking


def run_row(row: Row, pool: ProcessPoolExecutor) -> None:
    """Fit all sets of a kind of bird, and print what is true and what each says."""
    plans = []
    for number in range(N_SETS):
        song = song_of_set(set_of(row, number)[0])
        plans.append([amounts(song, row.params, number, s) for s in range(N_SUBSAMPLES)])
    n_amounts = min(len(of_subsample) for plan in plans for of_subsample in plan)
    work = [(row, number, of_subsample[halvings]) for halvings in range(n_amounts)
            for number, plan in enumerate(plans) for of_subsample in plan]  # fmt: skip
    results = iter(list(pool.map(fit, *zip(*work, strict=True))))
    shape = (n_amounts, N_SETS, N_SUBSAMPLES)
    found = np.empty(shape, dtype=object)
    minutes = np.empty(shape)
    for place in np.ndindex(*shape):
        halvings, number, subsample = place
        found[place] = next(results)
        song = song_of_set(set_of(row, number)[0])
        chosen = list(plans[number][subsample][halvings].chosen)
        minutes[place] = song.sound_minutes[chosen].sum()
    found, minutes = found[::-1], minutes[::-1]  # from the smallest amount to all
    lacking = np.vectorize(lambda one: one[3])(found)
    true = true_answer(minutes, lacking)
    show_curve(row, minutes, found, lacking)
    for number in range(N_SETS):
        nats = np.array([[one[0] for one in of_amount] for of_amount in found[:, number]])
        lengths = np.array([len(song) for song in set_of(row, number)[1]])
        states = np.vectorize(lambda one: float(one[1]))(found[:, number])
        curve = Curve(("set", str(number)), minutes[:, number].T, nats.swapaxes(0, 1), lengths,
                      states.T, 1.0)  # fmt: skip
        advice = advise(curve)
        left = "-"
        if advice.minutes is not None:
            x, y = np.log2(minutes.mean((1, 2))), lacking.mean((1, 2))
            left = f"{np.interp(math.log2(advice.minutes), x, y):.2f}"
        print(f"  set {number}: {in_words(advice)}; {distance(advice, true)}; lacking there {left}",
              flush=True)  # fmt: skip


def true_answer(minutes: np.ndarray, lacking: np.ndarray) -> float:
    """The minutes that the rule gives on what models truly lack; infinite where never enough."""
    log_minutes = np.log2(minutes)
    doublings = np.diff(log_minutes, axis=0)
    gains = (-np.diff(lacking, axis=0) / doublings).mean((1, 2))
    return 2.0 ** enough_at(log_minutes[:-1].mean((1, 2)), gains)


def show_curve(row: Row, minutes: np.ndarray, found: np.ndarray, lacking: np.ndarray) -> None:
    """Print means over sets and subsamples, and the true answer."""
    truth = simulated(row)
    bits = truth.predictive_information_bits
    print(f"{row.name}: Bayes accuracy {truth.accuracy:.2f}, the states tell {bits:.2f} bits")
    print("  minutes  snippets  states   bits  lacking +- sd of sets, nats per snippet")
    for i in range(len(minutes)):
        of_sets = lacking[i].mean(1)
        n = minutes[i].mean() / SNIPPET_MINUTES
        states, bits = (np.mean([one[k] for one in found[i].ravel()]) for k in (1, 2))
        print(f"  {minutes[i].mean():7.2f}  {n:8.0f}  {states:6.1f}  {bits:5.2f}  "
              f"{of_sets.mean():7.3f} +- {of_sets.std(ddof=1):.3f}")  # fmt: skip
    print(f"  the true answer: {true_answer(minutes, lacking):.2f} minutes", flush=True)


def in_words(advice: Advice) -> str:
    """The numbers of an advice."""
    last = f"last doubling {advice.gains[-1]:.3f} +- {advice.gain_errors[-1]:.3f}"
    if advice.minutes is None:
        return f"more than {advice.from_minutes[-1]:.2f}, {last}"
    return f"{advice.minutes:.2f} ({advice.low:.2f} to {advice.high:.2f}), {last}"


def distance(advice: Advice, true: float) -> str:
    """How far an advice is from ``true`` minutes, in standard errors of its logarithm."""
    if math.isinf(true):
        return "right" if math.isinf(advice.high) else "wrong: it is never enough"
    if advice.minutes is None:
        return "wrong: it is enough before" if true < advice.low else "within its range"
    if advice.low <= true <= advice.high:
        return "within one standard error"
    end = advice.low if true < advice.low else advice.high
    error = abs(math.log(advice.minutes / end))
    return f"off by {abs(math.log(advice.minutes / true)) / max(error, 1e-9):.1f} standard errors"


def run_study(run: Path) -> None:
    """Print the advice of each group of subsamples of a study, beside that of all."""
    rows = read_table(RunPaths(run).how_much / "curves.parquet", schema=CURVES).to_pylist()
    numbers = sorted({row["subsample"] for row in rows})
    groups = [numbers[i : i + N_SUBSAMPLES] for i in range(0, len(numbers), N_SUBSAMPLES)]
    halved = {bird_age: found for bird_age, found in by_amount(rows).items() if len(found) > 1}
    if not halved:
        sys.exit(f"no bird and age in {run} has song enough to be halved: there is no advice")
    for bird_age, of_all in halved.items():
        of_all_groups = advise(curve_of(bird_age, of_all))
        true = of_all_groups.minutes or math.inf
        print(f"{bird_age[0]} at {bird_age[1]}: all {len(numbers)}: {in_words(of_all_groups)}")
        for group in groups:
            own = [[row for row in amount if row["subsample"] in group] for amount in of_all]
            advice = advise(curve_of(bird_age, own))
            off = abs(advice.gains[-1] - of_all_groups.gains[-1]) / advice.gain_errors[-1]
            print(f"  subsamples {group[0]} to {group[-1]}: {in_words(advice)}; "
                  f"{distance(advice, true)}; last gain off by {off:.1f} standard errors; "
                  f"states {advice.n_states[0]:.1f} to {advice.n_states[1]:.1f}")  # fmt: skip


def main() -> None:
    """Print a block for each kind of bird, or of each bird and age of a study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=[row.name for row in ROWS])
    parser.add_argument("--run", type=Path)
    args = parser.parse_args()
    if args.run:
        run_study(args.run)
        return
    np.seterr(under="ignore")
    with ProcessPoolExecutor() as pool:
        for row in ROWS:
            if row.name in args.rows:
                run_row(row, pool)


if __name__ == "__main__":
    main()
