"""Is the number of states that BIC chooses the true one? Simulated HMMs, many seeds.

python -m benchmarks.hmm_recovery [--seeds 50] [--rows NUMBER ...] [--no-judge]

Every data set is songs of latents of 16 dimensions from a known HMM (models/hmm/simulate.py). Its
means are drawn at random and then moved apart until the true model itself names the right state of
a given share of snippets (Bayes accuracy). Fits have spherical covariances where the row names no
others. Sides: the merge search as a study does it (it knows nothing of the truth), and a judge: a
grid of every number of states within 3 of the truth, each the best of three starts. The judge's
grid is kinder to it than a full one: outside it can only be wrong. One row per kind of data;
shares are of data sets. Uses all cores.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.hmm.criteria import bic, count_free_params
from models.hmm.em import Songs, run_em
from models.hmm.fitting import restart_fit
from models.hmm.gaussian import GaussianHMM
from models.hmm.latent_params import LatentParams
from models.hmm.params import CovarianceType, Emissions, HmmParams
from models.hmm.search import search_states
from models.hmm.simulate import simulate_latents
from models.hmm.starts import new_model

JUDGE_WIDTH = 3  # numbers of states to either side of the truth
SONG_SNIPPETS = 109  # on average
PARAMS = HmmParams(covariance_type="spherical", n_states=(5, 60), max_n_states=120)


@dataclass(frozen=True)
class Row:
    """A kind of data, and the covariances and emissions that are fitted to it."""

    name: str
    data: LatentParams
    fitted: CovarianceType = "spherical"
    emissions: Emissions = "gaussian"


def data_row(
    name: str, n_states: int, n_snippets: int, accuracy: float,
    fitted: CovarianceType = "spherical", emissions: Emissions = "gaussian", **others,
) -> Row:  # fmt: skip
    """What a line of the table is about; ``others`` are fields of LatentParams."""
    data = LatentParams(
        n_states=n_states, n_snippets=n_snippets, n_songs=round(n_snippets / SONG_SNIPPETS),
        separation=accuracy, **others,
    )  # fmt: skip
    return Row(f"K {n_states}, N {n_snippets:,}, {name}", data, fitted, emissions)


FULL = {"covariance_type": "full", "n_states": 8, "n_snippets": 20_000, "accuracy": 0.99}
SILENT = {"silence_share": 0.45, "n_silent": 2}
ROWS = [
    data_row("separated", 5, 5_000, 0.99),
    data_row("separated", 10, 5_000, 0.99),
    data_row("separated", 20, 20_000, 0.99),
    data_row("overlap a little", 10, 20_000, 0.86),
    data_row("overlap a little", 20, 20_000, 0.86),
    data_row("separated, uneven", 10, 5_000, 0.99, rarest=1 / 30),
    data_row("separated, uneven", 20, 20_000, 0.99, rarest=1 / 30),
    data_row("overlap", 10, 5_000, 0.86),
    data_row("overlap much", 10, 5_000, 0.75),
    data_row("separated", 10, 1_000, 0.99),
    data_row("t(4) noise", 10, 20_000, 0.99, t_df=4),
    data_row("AR(0.8) noise", 10, 20_000, 0.99, ar=0.8),
    data_row("t(4) noise, student_t", 10, 20_000, 0.99, emissions="student_t", t_df=4),
    data_row("AR(0.8) noise, student_t", 10, 20_000, 0.99, emissions="student_t", ar=0.8),
    data_row("full, fitted by full", fitted="full", **FULL),
    data_row("full, fitted by diag", fitted="diag", **FULL),
    data_row("silence 0.45", 10, 20_000, 0.99, **SILENT),
    data_row("second order", 10, 20_000, 0.99, order=2),
    data_row("silence 0.45, overlap a little", 10, 20_000, 0.86, **SILENT),
    data_row("second order, overlap a little", 10, 20_000, 0.86, order=2),
]


def _in_songs(truth: GaussianHMM, songs: Songs, params: HmmParams) -> GaussianHMM:
    """The truth, centred as ``songs`` and with the priors of ``params``."""
    model = new_model(truth.n_components, songs.latent_dim, params)
    model.startprob_, model.transmat_ = truth.startprob_.copy(), truth.transmat_.copy()
    model.means_ = truth.means_ - songs.centre
    model.covars_ = np.array(truth._covars_)
    return model


def _own_bic(truth: GaussianHMM, sequences: list[np.ndarray]) -> float:
    """BIC of the fit that begins at the truth, with its own kind of covariances."""
    params = replace(PARAMS, covariance_type=truth.covariance_type)
    songs = Songs(sequences, truth.covariance_type)
    own = run_em(songs, _in_songs(truth, songs, params), params, 200)
    return bic(own.log_likelihood, count_free_params(own, params), songs.n_snippets)


def one_set(row: Row, seed: int, with_judge: bool) -> dict:
    """Both sides on one data set."""
    params = replace(PARAMS, covariance_type=row.fitted, emissions=row.emissions)
    found = simulate_latents(row.data, seed)
    sequences, n_states = found.songs, row.data.n_states
    rarest = int(np.bincount(np.concatenate(found.states), minlength=n_states).min())
    own_bic = _own_bic(found.model, sequences)
    began = time.process_time()
    search = search_states(sequences, params, seed)
    merge_seconds = time.process_time() - began
    out = {
        "row": row.name, "seed": seed, "accuracy": found.accuracy, "rarest": rarest,
        "merge": search.n_states, "merge_bic": search.selection.best.bic - own_bic,
        "merge_seconds": merge_seconds, "chosen_by": search.chosen_by,
        "n_effective": search.n_effective,
    }  # fmt: skip
    if with_judge:
        began = time.process_time()
        best, songs = None, Songs(sequences, row.fitted)
        for k in range(max(1, n_states - JUDGE_WIDTH), n_states + JUDGE_WIDTH + 1):
            for restart in range(3):
                fit, _ = restart_fit(songs, k, restart, seed * 1000 + restart, "grid", params)
                if fit.has_model and (best is None or fit.bic < best.bic):
                    best = fit
        out |= {"judge": best.n_states, "judge_bic": best.bic - own_bic}
        out["judge_seconds"] = time.process_time() - began
    return out


def show(row: Row, sets: list[dict]) -> None:
    """One line of the table."""

    def share(values, within):
        return np.mean([abs(v - row.data.n_states) <= within for v in values])

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
        f"{row.name:44} {len(sets):4} {np.mean([s['accuracy'] for s in sets]):5.2f} "
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
    print(f"{'data':44} sets   acc rarest | {'merge: exact +-1 K CPU':27} | "
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
