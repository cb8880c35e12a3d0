"""The number of states of one bird and age: the merge search against hmmlearn's grid, in one run.

    python -m benchmarks.hmm_select
    python -m benchmarks.hmm_select --states 4 --accuracy 0.99 --snippets 2000 --most 10

20,000 snippets of 16 latents, numbers of states from 5 to 100, diagonal covariances, one core.
The other side is the usual way: nine numbers of states, five k-means starts each, the lowest BIC.
Its fits are done with our kernels, which give hmmlearn's numbers to 1e-9, to count their
iterations and to know their BIC; each iteration is then charged what hmmlearn's `scaling` takes for
it, measured here on a few. Our side is charged everything: packing, all fits, and the second merge
path that gives the held-out log-likelihoods, which the grid does without.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import time

import numpy as np
from hmmlearn import hmm

from benchmarks.hmm_recovery import data_row
from models.hmm import select_n_states
from models.hmm.em import Songs, run_em
from models.hmm.fit import Origin
from models.hmm.fitting import fit_from
from models.hmm.params import HmmParams
from models.hmm.simulate import simulate_latents
from models.hmm.starts import kmeans_start

GRID = (5, 10, 15, 20, 30, 40, 60, 80, 100)
N_STARTS = 5
PARAMS = HmmParams(covariance_type="diag", n_iter=100)


def hmmlearn_seconds(songs: Songs, n_states: int) -> float:
    """CPU seconds of one iteration of hmmlearn's ``scaling``: the quickest of three."""
    start = kmeans_start(songs, n_states, 0, PARAMS)
    model = hmm.GaussianHMM(n_states, "diag", n_iter=1, init_params="", implementation="scaling")
    quickest = np.inf
    for _ in range(3):
        model.n_features = songs.latent_dim
        model.startprob_, model.transmat_ = start.startprob_.copy(), start.transmat_.copy()
        model.means_, model.covars_ = start.means_.copy(), np.array(start._covars_)
        began = time.process_time()
        model.fit(songs.X, songs.lengths)
        quickest = min(quickest, time.process_time() - began)
    return quickest


def main() -> None:
    """Print the grid, the search, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=20)
    parser.add_argument("--accuracy", type=float, default=0.95)
    parser.add_argument("--snippets", type=int, default=20_000)
    parser.add_argument("--most", type=int, default=max(GRID), help="states that are tried")
    args = parser.parse_args()
    np.seterr(under="ignore")
    made = simulate_latents(data_row("", args.states, args.snippets, args.accuracy).data, seed=0)
    sequences = made.songs
    rarest = np.bincount(np.concatenate(made.states), minlength=args.states).min()
    print(f"{args.states} true states, Bayes accuracy {made.accuracy:.2f}, rarest {rarest}")
    songs = Songs(sequences, "diag")
    run_em(songs, kmeans_start(songs, 5, 0, PARAMS), PARAMS, 2)  # compiles

    began = time.process_time()
    search = select_n_states(sequences, "diag", (5, args.most), seed=0)
    ours = time.process_time() - began
    # In the units of the grid: the search scales latents by one number and back.
    our_bic = search.selection.best.bic
    print(f"merge search: {search.n_states} states, BIC {our_bic:,.0f}, {len(search.fits)} fits, "
          f"{ours:.1f} s CPU", flush=True)  # fmt: skip

    print("grid: states  iterations of 5 starts  ms of hmmlearn  seconds  best BIC")
    theirs, with_ours, best = 0.0, 0.0, (np.inf, 0)
    for k in [k for k in GRID if k <= args.most]:
        n_iter, lowest = 0, np.inf
        began = time.process_time()
        for seed in range(N_STARTS):
            fit, _ = fit_from(
                songs, k, lambda k=k, s=seed: kmeans_start(songs, k, s, PARAMS),
                Origin("grid", "k-means", seed), PARAMS,
            )  # fmt: skip
            n_iter += fit.n_iter + 1
            lowest = min(lowest, fit.bic)
        with_ours += time.process_time() - began
        each = hmmlearn_seconds(songs, k)
        theirs += n_iter * each
        best = min(best, (lowest, k))
        print(f"{k:12}  {n_iter:22}  {1e3 * each:14,.0f}  {n_iter * each:7,.0f}  {lowest:,.0f}",
              flush=True)  # fmt: skip
    print(f"grid by hmmlearn scaling {theirs:,.0f} s (with our kernels {with_ours:,.0f} s): "
          f"{best[1]} states, BIC {best[0]:,.0f}")  # fmt: skip
    print(f"CPU, grid / merge search: {theirs / ours:,.0f} times "
          f"(with our kernels {with_ours / ours:.1f})")  # fmt: skip
    print(f"BIC, merge search - grid: {our_bic - best[0]:,.0f}")


if __name__ == "__main__":
    main()
