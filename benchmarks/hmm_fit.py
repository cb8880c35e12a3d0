"""One EM iteration of a Gaussian HMM: ours against hmmlearn's two implementations, in one run.

python benchmarks/hmm_fit.py

20,000 snippets of 16 latents in songs of about 108, one thread, float64. Times are of `fit`, all
its iterations counted, so that what ours does once per fit is in them.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
from hmmlearn import hmm
from threadpoolctl import threadpool_info

from models.gaussian_hmm import GaussianHMM

N, D = 20_000, 16
CASES = [("diag", 10), ("diag", 30), ("diag", 100), ("full", 30), ("full", 100)]


def songs(seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Snippets of twenty kinds, songs end to end, and the songs' lengths."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < N:
        lengths.append(min(1 + int(rng.gamma(4, 27)), N - sum(lengths)))
    kinds = rng.normal(0, 1.5, (20, D))
    states = (rng.integers(20, size=N).cumsum() // 3) % 20
    return kinds[states] + rng.standard_normal((N, D)), lengths


def seconds_per_iteration(cls: type, X: np.ndarray, lengths: list[int], kind: str, n_states: int,
                          n_iter: int, implementation: str) -> tuple[float, float]:  # fmt: skip
    """Seconds of a fit per iteration, and the log-likelihood before its last M-step."""
    rng = np.random.default_rng(1)
    model = cls(n_states, kind, n_iter=n_iter, tol=-np.inf, init_params="",
                implementation=implementation)  # fmt: skip
    if kind == "full":
        model.covars_prior, model.covars_weight = 0.01 * np.eye(D), D + 2
    model.n_features = D
    model.startprob_ = rng.dirichlet(np.ones(n_states))
    model.transmat_ = rng.dirichlet(np.ones(n_states), n_states)
    model.means_ = X[rng.choice(N, n_states, replace=False)]
    shapes = {"diag": np.full((n_states, D), 3.0), "full": np.tile(3 * np.eye(D), (n_states, 1, 1))}
    model.covars_ = shapes[kind]
    started = time.perf_counter()
    model.fit(X, lengths)
    return (time.perf_counter() - started) / n_iter, model.monitor_.history[0]


def main() -> None:
    """Print one line per covariance type and number of states."""
    np.seterr(under="ignore")
    X, lengths = songs()
    kernels = {i.get("architecture") for i in threadpool_info() if i["internal_api"] == "openblas"}
    print(f"numpy {np.__version__}, BLAS kernels {', '.join(map(str, kernels))}; ms per iteration")
    print("type  states  hmmlearn log  scaling    ours  x log  x scaling  difference of log L")
    for kind, k in CASES:
        ours_once = (GaussianHMM, X, lengths, kind, k, 10, "log")
        seconds_per_iteration(*ours_once)  # compiles
        ours, log_l = min(seconds_per_iteration(*ours_once) for _ in range(3))
        n = 3 if k < 100 else 1
        log, theirs = seconds_per_iteration(hmm.GaussianHMM, X, lengths, kind, k, n, "log")
        scaling, _ = seconds_per_iteration(hmm.GaussianHMM, X, lengths, kind, k, n, "scaling")
        print(
            f"{kind:4}  {k:6}  {1e3 * log:12,.1f}  {1e3 * scaling:7,.1f}  {1e3 * ours:6.1f}  "
            f"{log / ours:5.1f}  {scaling / ours:9.1f}  {abs(log_l - theirs) / abs(theirs):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
