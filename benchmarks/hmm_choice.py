"""Are covariances, the confidence set and the criteria right? Simulated HMMs, many seeds.

python -m benchmarks.hmm_choice [--seeds 20] [--rows NUMBER ...] [--jobs N]

Every row is songs of latents of 16 dimensions from a known HMM (models/hmm/simulate.py), searched
as a study does it. Shares are of data sets: in which BIC chose the true covariances and the true
number of states, and in which the 95 % set holds the true number. Where noise overlaps or drifts,
the model is wrong, and the table shows what each criterion makes of it. The first line of the
output says which BLAS ran.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_info

from models.hmm import HmmParams, search_states
from models.hmm.latent_params import LatentParams
from models.hmm.simulate import simulate_latents

PARAMS = HmmParams(n_states=(2, 40))


@dataclass(frozen=True)
class Row:
    """A kind of data, and the share of a snippet that is new."""

    name: str
    data: LatentParams
    new_share: float = 1.0


def _row(name: str, n_states: int, n_snippets: int, new_share: float = 1.0, **others) -> Row:
    data = LatentParams(
        **({"n_states": n_states, "n_snippets": n_snippets, "n_songs": round(n_snippets / 109),
            "separation": 0.99} | others)
    )  # fmt: skip
    return Row(f"{name}, K {n_states}, N {n_snippets:,}", data, new_share)


ROWS = [
    _row("full", 8, 20_000, covariance_type="full"),
    _row("diagonal", 8, 20_000, covariance_type="diag"),
    _row("spherical", 10, 5_000),
    _row("spherical, uneven", 10, 5_000, rarest=1 / 30),
    _row("spherical, overlap a little", 10, 20_000, separation=0.86),
    _row("full, shorter", 5, 4_000, covariance_type="full"),
    _row("AR(0.8) noise", 10, 20_000, ar=0.8),
    _row("noise of 4 overlapping snippets, taken as 1/4 new", 10, 20_000, 0.25, overlap=4),
    _row("noise of 4 overlapping snippets, taken as all new", 10, 20_000, 1.0, overlap=4),
]


def one_set(row: Row, seed: int) -> dict:
    """The search of one data set."""
    songs = simulate_latents(row.data, seed).songs
    began = time.process_time()
    found = search_states(songs, PARAMS, seed, None, row.new_share)
    return {
        "kind": found.model.covariance_type, "n_states": found.n_states,
        "set": found.n_states_set, "chosen_by": found.chosen_by, "at_limit": found.at_limit,
        "one_se": found.held_out_se_n_states, "seconds": time.process_time() - began,
    }  # fmt: skip


def show(row: Row, sets: list[dict]) -> None:
    """One line of the table."""
    truth = row.data.n_states
    expected = "full" if row.data.covariance_type == "full" else "diag"
    kind = np.mean([s["kind"] == expected for s in sets])
    exact = np.mean([s["n_states"] == truth for s in sets])
    covered = np.mean([truth in s["set"] for s in sets])
    width = np.median([len(s["set"]) for s in sets])
    others = " ".join(
        f"{np.mean([s['chosen_by'].get(c, np.nan) for s in sets]):6.1f}"
        for c in ("bic", "aic", "icl", "bic_effective", "held_out_log_likelihood")
    )
    one_se = np.mean([s["one_se"] for s in sets])
    seconds = np.mean([s["seconds"] for s in sets])
    print(f"{row.name:62} {len(sets):4} | {kind:5.2f} {exact:5.2f} | {covered:5.2f} {width:5.1f} | "
          f"{others} {one_se:6.1f} | {seconds:6.1f}", flush=True)  # fmt: skip


def main() -> None:
    """Print the table, row by row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", nargs="*", type=int, default=list(range(len(ROWS))))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    blas = {one.get("architecture", one["internal_api"]) for one in threadpool_info()}
    print(
        f"BLAS {sorted(blas)}, OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}"
    )
    print(f"{'data':62} sets |  kind exact | cover width |    BIC    AIC    ICL BICeff   held"
          " one se |  CPU s")  # fmt: skip
    with ProcessPoolExecutor(args.jobs) as pool:
        for number in args.rows:
            row = ROWS[number]
            show(row, list(pool.map(one_set, [row] * args.seeds, range(args.seeds))))


if __name__ == "__main__":
    main()
