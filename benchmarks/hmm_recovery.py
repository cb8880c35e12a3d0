"""Is the number of states that BIC chooses the true one? Simulated HMMs, many seeds.

python -m benchmarks.hmm_recovery [--seeds 50] [--rows NAME ...] [--no-judge]

Every data set is a Gaussian HMM in 16 dimensions, its means drawn at random and then moved apart
until the true model itself names the right state of a given share of snippets (Bayes accuracy).
Sides: the merge search as a study does it (it knows nothing of the truth), and a judge: a grid of
every number of states within 3 of the truth, each the best of three starts. The judge's grid is
kinder to it than a full one: outside it can only be wrong. One row per kind of data; shares are of
data sets. Uses all cores.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hmmlearn import hmm

from models.hmm.criteria import bic, count_free_params
from models.hmm.em import Songs, run_em
from models.hmm.fitting import restart_fit
from models.hmm.params import HmmParams
from models.hmm.search import search_states
from models.hmm.starts import new_model

D = 16
JUDGE_WIDTH = 3  # numbers of states to either side of the truth
PARAMS = HmmParams(covariance_type="spherical", n_states=(5, 60), max_n_states=120)


@dataclass(frozen=True)
class Row:
    """A kind of data."""

    name: str
    n_states: int
    n_snippets: int
    accuracy: float
    is_uneven: bool = False
    noise: str = "normal"


ROWS = [
    Row("K 5, N 5,000, separated", 5, 5_000, 0.99),
    Row("K 10, N 5,000, separated", 10, 5_000, 0.99),
    Row("K 20, N 20,000, separated", 20, 20_000, 0.99),
    Row("K 10, N 20,000, overlap a little", 10, 20_000, 0.86),
    Row("K 20, N 20,000, overlap a little", 20, 20_000, 0.86),
    Row("K 10, N 5,000, separated, uneven", 10, 5_000, 0.99, True),
    Row("K 20, N 20,000, separated, uneven", 20, 20_000, 0.99, True),
    Row("K 10, N 5,000, overlap", 10, 5_000, 0.86),
    Row("K 10, N 5,000, overlap much", 10, 5_000, 0.75),
    Row("K 10, N 1,000, separated", 10, 1_000, 0.99),
    Row("K 10, N 20,000, t(4) noise", 10, 20_000, 0.99, noise="t"),
    Row("K 10, N 20,000, AR(0.8) noise", 10, 20_000, 0.99, noise="ar"),
]


def simulate(row: Row, seed: int) -> tuple[list[np.ndarray], hmm.GaussianHMM, float, int]:
    """Songs, the true model, its accuracy, and the snippets of the rarest state."""
    rng = np.random.default_rng([seed, row.n_states, row.n_snippets])
    k = row.n_states
    onward = rng.dirichlet(np.full(k, 0.5), k)
    if row.is_uneven:
        onward *= np.geomspace(1, 1 / 30, k)[rng.permutation(k)] + 1e-9
        onward /= onward.sum(1, keepdims=True)
    transitions = 0.5 * np.eye(k) + 0.5 * onward
    directions = rng.standard_normal((k, D))
    states, noise = [], []
    left = row.n_snippets
    cumulative = transitions.cumsum(1)
    while left:
        n = min(1 + int(rng.gamma(4, 27)), left)
        left -= n
        states.append(_path(cumulative, int(rng.integers(k)), rng.random(n)))
        noise.append(_noise(row.noise, n, rng))
    truth = hmm.GaussianHMM(k, "spherical")
    truth.startprob_, truth.transmat_ = np.full(k, 1 / k), transitions
    truth.covars_ = np.ones(k)
    low, high = 0.0, 5.0
    for _ in range(12):
        apart = (low + high) / 2
        songs = [apart * directions[s] + e for s, e in zip(states, noise, strict=True)]
        truth.means_ = apart * directions
        found = _accuracy(songs, states, truth)
        low, high = (apart, high) if found < row.accuracy else (low, apart)
    rarest = int(np.bincount(np.concatenate(states), minlength=k).min())
    return songs, truth, found, rarest


def _path(cumulative: np.ndarray, first: int, uniform: np.ndarray) -> np.ndarray:
    path = np.empty(len(uniform), dtype=np.int64)
    path[0] = first
    for t in range(1, len(path)):
        path[t] = min(np.searchsorted(cumulative[path[t - 1]], uniform[t]), len(cumulative) - 1)
    return path


def _noise(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "t":
        return rng.standard_t(4, (n, D)) / np.sqrt(2)  # variance 1
    white = rng.standard_normal((n, D))
    if kind == "ar":
        for t in range(1, n):
            white[t] = 0.8 * white[t - 1] + 0.6 * white[t]
    return white


def _in_songs(truth: hmm.GaussianHMM, songs: Songs):
    model = new_model(truth.n_components, D, PARAMS)
    model.startprob_, model.transmat_ = truth.startprob_.copy(), truth.transmat_.copy()
    model.means_ = truth.means_ - songs.centre
    model.covars_ = np.ones(truth.n_components)
    return model


def _accuracy(sequences, states, truth) -> float:
    songs = Songs(sequences[:40], "spherical")
    named = songs.posteriors(_in_songs(truth, songs)).argmax(1)
    return float((named == np.concatenate(states[:40])).mean())


def one_set(row: Row, seed: int, with_judge: bool) -> dict:
    """Both sides on one data set."""
    sequences, truth, accuracy, rarest = simulate(row, seed)
    songs = Songs(sequences, "spherical")
    own = run_em(songs, _in_songs(truth, songs), PARAMS, 200)
    own_bic = bic(own.log_likelihood, count_free_params(own, PARAMS), songs.n_snippets)
    began = time.process_time()
    search = search_states(sequences, PARAMS, seed)
    merge_seconds = time.process_time() - began
    out = {
        "row": row.name, "seed": seed, "accuracy": accuracy, "rarest": rarest,
        "merge": search.n_states, "merge_bic": search.selection.best.bic - own_bic,
        "merge_seconds": merge_seconds, "chosen_by": search.chosen_by,
        "n_effective": search.n_effective,
    }  # fmt: skip
    if with_judge:
        began = time.process_time()
        best = None
        lowest = max(1, row.n_states - JUDGE_WIDTH)
        for k in range(lowest, row.n_states + JUDGE_WIDTH + 1):
            for restart in range(3):
                fit, _ = restart_fit(songs, k, restart, seed * 1000 + restart, "grid", PARAMS)
                if fit.has_model and (best is None or fit.bic < best.bic):
                    best = fit
        out |= {"judge": best.n_states, "judge_bic": best.bic - own_bic}
        out["judge_seconds"] = time.process_time() - began
    return out


def show(row: Row, sets: list[dict]) -> None:
    """One line of the table."""

    def share(values, within):
        return np.mean([abs(v - row.n_states) <= within for v in values])

    def side(name):
        if name not in sets[0]:
            return f"{'-':>27}"
        values = [s[name] for s in sets]
        seconds = np.mean([s[f"{name}_seconds"] for s in sets])
        return (f"{share(values, 0):5.2f} {share(values, 1):5.2f} {np.mean(values):6.1f} "
                f"{seconds:6.1f} s")  # fmt: skip

    others = "  ".join(
        f"{np.mean([s['chosen_by'].get(c, np.nan) for s in sets]):5.1f}"
        for c in ("aic", "icl", "bic_effective", "held_out_log_likelihood")
    )
    lower = np.mean([s["merge_bic"] <= s.get("judge_bic", np.inf) + 1 for s in sets])
    print(
        f"{row.name:34} {len(sets):4} {np.mean([s['accuracy'] for s in sets]):5.2f} "
        f"{int(np.median([s['rarest'] for s in sets])):6} | {side('merge')} | {side('judge')} | "
        f"{lower:5.2f} | {others}",
        flush=True,
    )


def main() -> None:
    """Print the table, row by row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--rows", nargs="*", type=int, default=list(range(len(ROWS))))
    parser.add_argument("--no-judge", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="also write every data set's result here")
    args = parser.parse_args()
    print(
        "exact: share with the true K; +-1: within one of it; K: mean; lower: share of sets where"
    )
    print("the merge search's BIC is at least as low as the judge's; then mean K by other criteria")
    print(f"{'data':34} sets   acc rarest | {'merge: exact +-1 K CPU':27} | "
          f"{'judge: exact +-1 K CPU':27} | lower |   AIC    ICL  BICeff held-out")  # fmt: skip
    everything = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for number in args.rows:
            row = ROWS[number]
            n = args.seeds
            sets = list(pool.map(one_set, [row] * n, range(n), [not args.no_judge] * n))
            everything += sets
            show(row, sets)
    if args.json:
        args.json.write_text(json.dumps(everything))


if __name__ == "__main__":
    main()
