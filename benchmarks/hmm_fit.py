"""One EM iteration of a Gaussian HMM: ours against hmmlearn's two implementations and dynamax.

python -m benchmarks.hmm_fit          20,000 snippets of 16 latents; about 5 minutes
python -m benchmarks.hmm_fit --all    100,000 snippets and 32 latents too; about 40 minutes

All on the same data, from the same start, in float64 on one core. Times are CPU times, as other
jobs may run beside. Those of ours and of hmmlearn are of a whole `fit` divided by its iterations,
20 of ours (few fits take fewer), so that what is done once per fit is in them; each is the shortest
of several fits. dynamax, where it is installed, is timed without its compilation, and on songs
cut to equal lengths, as it takes no others.

Beside them stands the lowest possible time: the floating-point operations of the matrix products
of one iteration, at the rate of products of n_states columns that stay in the cache, measured in
the same run.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded
if hasattr(os, "sched_setaffinity"):  # for dynamax, that listens to none of these
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable

import hmmlearn
import numpy as np
from hmmlearn import hmm
from threadpoolctl import threadpool_info

from models.hmm.gaussian import GaussianHMM

STATES = (10, 30, 100)
SONG = 108  # snippets, on average
BUDGET = 6.0  # seconds: a fit that takes less is timed again
COLUMNS = (
    "snippets", "latents", "covariance", "states",
    "hmmlearn log, ms", "hmmlearn scaling, ms", "dynamax, ms", "ours, ms",
    "x log", "x scaling", "x dynamax",
    "product, Gflop/s", "lowest, ms", "share of it", "difference of log L",
)  # fmt: skip


def songs(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """``n`` snippets of ``d`` latents of twenty kinds, songs end to end, and their lengths."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < n:
        lengths.append(min(1 + int(rng.gamma(4, SONG / 4)), n - sum(lengths)))
    kinds = rng.normal(0, 1.5, (20, d))
    states = (rng.integers(20, size=n).cumsum() // 3) % 20
    return kinds[states] + rng.standard_normal((n, d)), lengths


def started(cls: type, X: np.ndarray, kind: str, k: int, n_iter: int, implementation: str):
    """A model with a start of its own, the same for every class."""
    n, d = X.shape
    rng = np.random.default_rng(1)
    model = cls(k, kind, n_iter=n_iter, tol=-np.inf, init_params="", implementation=implementation)
    if kind == "full":
        model.covars_prior, model.covars_weight = 0.01 * np.eye(d), d + 2
    model.n_features = d
    model.startprob_ = rng.dirichlet(np.ones(k))
    model.transmat_ = rng.dirichlet(np.ones(k), k)
    model.means_ = X[rng.choice(n, k, replace=False)]
    shapes = {"diag": np.full((k, d), 3.0), "full": np.tile(3 * np.eye(d), (k, 1, 1))}
    model.covars_ = shapes[kind]
    return model


def shortest(run: Callable[[], object], budget: float = BUDGET) -> float:
    """Seconds of the fastest of as many runs as ``budget`` seconds allow, at least one."""
    times: list[float] = []
    while sum(times) < budget:
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return min(times)


def seconds_per_iteration(
    cls: type, X: np.ndarray, lengths: list[int], kind: str, k: int, n_iter: int, log: str
) -> tuple[float, np.ndarray]:
    """Seconds of a fit per iteration, and the log-likelihoods of its iterations."""
    history: list[float] = []

    def fit() -> float:
        model = started(cls, X, kind, k, n_iter, log)
        begun = time.process_time()
        model.fit(X, lengths)
        history[:] = model.monitor_.history
        return time.process_time() - begun

    fits = [fit()]
    while sum(fits) < BUDGET:
        fits.append(fit())
    return min(fits) / n_iter, np.array(history)


def dynamax_seconds(X: np.ndarray, kind: str, k: int) -> tuple[float, float]:
    """Seconds of an iteration of dynamax; difference to our log-likelihood; NaN if not there."""
    if importlib.util.find_spec("dynamax") is None:
        return np.nan, 0.0
    import jax
    from dynamax.hidden_markov_model import DiagonalGaussianHMM
    from dynamax.hidden_markov_model import GaussianHMM as FullGaussianHMM

    jax.config.update("jax_enable_x64", True)
    n, d = X.shape
    batch = X[: n // SONG * SONG].reshape(-1, SONG, d)
    ours = started(GaussianHMM, X, kind, k, 1, "log")
    probabilities = {"initial_probs": ours.startprob_, "transition_matrix": ours.transmat_}
    if kind == "diag":
        theirs = DiagonalGaussianHMM(k, d)
        spread = {"emission_scale_diags": np.sqrt(ours._covars_)}
    else:
        theirs = FullGaussianHMM(k, d)
        spread = {"emission_covariances": ours._covars_}
    params, props = theirs.initialize(emission_means=ours.means_, **probabilities, **spread)
    params = jax.tree_util.tree_map(jax.numpy.asarray, params)
    iterate = jax.jit(lambda p: theirs.fit_em(p, props, batch, num_iters=2, verbose=False))
    log_l = float(jax.vmap(functools.partial(theirs.marginal_log_prob, params))(batch).sum())
    jax.block_until_ready(iterate(params))  # compiles
    seconds = shortest(lambda: jax.block_until_ready(iterate(params))) / 2
    our_log_l = ours.score(batch.reshape(-1, d), [SONG] * len(batch))
    return seconds, abs(our_log_l - log_l) / abs(log_l)


def gigaflops(k: int) -> float:
    """Rate of [1000, k] times [k, k] in float64, the same arrays again and again."""
    rng = np.random.default_rng(0)
    a, b, out = rng.random((1000, k)), rng.random((k, k)), np.empty((1000, k))
    n_products = 1 + int(1e8 / a.size / k)

    def products() -> None:
        for _ in range(n_products):
            np.matmul(a, b, out=out)

    return 2e-9 * a.size * k * n_products / shortest(products, budget=1.0)


def flops(n: int, d: int, kind: str, k: int) -> float:
    """Operations of the matrix products of one iteration.

    Densities and sums of features, [n, n_features] with [n_features, k] each; forward, backward
    and transitions, [n, k] with [k, k] each.
    """
    n_features = 2 * d if kind == "diag" else d + d * (d + 1) // 2
    return 2.0 * n * k * (2 * n_features + 3 * k)


def row(n: int, d: int, kind: str, k: int) -> list[str]:
    """One line of the table."""
    X, lengths = songs(n, d)
    started(GaussianHMM, X, kind, k, 1, "log").fit(X, lengths)  # compiles
    ours, our_history = seconds_per_iteration(GaussianHMM, X, lengths, kind, k, 20, "log")
    dynamax, difference = dynamax_seconds(X, kind, k)
    others = []
    for implementation in ("log", "scaling"):
        n_iter = 3 if n * k <= 600_000 else 1
        seconds, history = seconds_per_iteration(
            hmm.GaussianHMM, X, lengths, kind, k, n_iter, implementation
        )
        others.append(seconds)
        difference = max(difference, np.abs(our_history[:n_iter] / history - 1).max())
    rate = gigaflops(k)
    lowest = flops(n, d, kind, k) / rate / 1e9
    milliseconds = [f"{1e3 * s:,.1f}" for s in (*others, dynamax, ours)]
    ratios = [f"{s / ours:.1f}" for s in (*others, dynamax)]
    cells = [f"{n:,}", str(d), kind, str(k), *milliseconds, *ratios, f"{rate:.0f}"]
    cells += [f"{1e3 * lowest:.1f}", f"{lowest / ours:.0%}", f"{difference:.0e}"]
    return ["-" if cell == "nan" else cell for cell in cells]


def main() -> None:
    """Print one line per size, covariance type and number of states."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="all sizes")
    parser.add_argument("--states", type=int, nargs="+", default=STATES, help="numbers of states")
    options = parser.parse_args()
    sizes = [(n, d) for n in (20_000, 100_000) for d in (16, 32)]
    if not options.all:
        sizes = sizes[:1]
    np.seterr(under="ignore")
    architectures = sorted({i.get("architecture", "?") for i in threadpool_info()})
    print(f"numpy {np.__version__}, hmmlearn {hmmlearn.__version__}, BLAS kernels {architectures}")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for n, d in sizes:
        for kind in ("diag", "full"):
            for k in options.states:
                print("| " + " | ".join(row(n, d, kind, k)) + " |", flush=True)


if __name__ == "__main__":
    main()
