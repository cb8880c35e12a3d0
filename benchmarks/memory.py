"""Do states remember what songs remember? Simulated songs of first and second order.

python -m benchmarks.memory [--seeds 10] [--first-seed 100] [--n-snippets 20000]

Songs of latents from a known HMM (models/hmm/simulate.py) are searched as a study does it, and the
states found get memory where BIC and held-out songs ask for it (models/hmm/contexts.py). One row
for each kind of data; numbers are medians over seeds, but for the share of data sets that got
memory. "order" is I(next state; one before | state) in bits of the states of the real songs, and
of songs sampled without and with memory, all named by the same model, with the same bias of counts.
"truth" is what a model of first order cannot know of the chain itself; where the search gives
states twice that differ in what follows them, less is left. One core.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import dataclasses
import time

import numpy as np

from models.hmm import HmmParams, SongHmm, add_memory, search_states
from models.hmm.latent_params import LatentParams
from models.hmm.simulate import simulate_latents

SONG_SNIPPETS = 109  # on average
PARAMS = HmmParams(covariance_type="spherical", n_states=(5, 40))
ROWS = [(order, accuracy) for order in (1, 2) for accuracy in (0.99, 0.86)]
HEADER = (
    "order  acc sets |   K contexts | memory  BIC gain  held-out nats | order: truth   real  plain"
    "  memory | CPU s"
)


def order_bits(paths: list[np.ndarray], n_states: int) -> float:
    """I(next state; one before | state) of states of songs, by counting, in bits."""
    counts = np.zeros((n_states,) * 3)
    for path in paths:
        np.add.at(counts, (path[:-2], path[1:-1], path[2:]), 1)

    def bits(table: np.ndarray) -> float:
        p = table[table > 0] / table.sum()
        return float(-(p * np.log2(p)).sum())

    middle = counts.sum((0, 2))
    return bits(counts.sum(2)) + bits(counts.sum(0)) - bits(middle) - bits(counts)


def one_set(order: int, accuracy: float, n_snippets: int, seed: int) -> dict[str, float]:
    """Both models on one data set."""
    data = LatentParams(
        n_states=10, n_snippets=n_snippets, n_songs=round(n_snippets / SONG_SNIPPETS), order=order,
        separation=accuracy,
    )  # fmt: skip
    made = simulate_latents(data, seed)
    model = search_states(made.songs, PARAMS, seed).model
    assert model is not None
    began = time.process_time()
    found = add_memory(made.songs, model, dataclasses.replace(PARAMS, memory="auto"), seed)
    seconds = time.process_time() - began
    plain = SongHmm.plain(model)
    lengths = [len(z) for z in made.songs]

    def order_of(songs: list[np.ndarray]) -> float:
        return order_bits(plain.states(songs), plain.n_states)

    gained = found.held_out_log_likelihood - found.plain_held_out_log_likelihood
    return {
        "k": model.n_components,
        "contexts": found.song.n_contexts,
        "memory": found.memory != "none",
        "bic": found.plain_bic - found.bic,
        "held_out": gained,
        "truth": made.beyond_first_order_bits,
        "real": order_of(made.songs),
        "plain": order_of(plain.sample_songs(lengths, seed)[0]),
        "sampled": order_of(found.song.sample_songs(lengths, seed)[0]),
        "seconds": seconds,
    }


def main() -> None:
    """Print the table, row by row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--n-snippets", type=int, default=20_000)
    args = parser.parse_args()
    print(HEADER)
    for order, accuracy in ROWS:
        seeds = range(args.first_seed, args.first_seed + args.seeds)
        sets = [one_set(order, accuracy, args.n_snippets, seed) for seed in seeds]
        m = {name: float(np.median([s[name] for s in sets])) for name in sets[0]}
        share = np.mean([s["memory"] for s in sets])
        print(
            f"{order:5} {accuracy:4.2f} {len(sets):4} | {m['k']:3.0f} {m['contexts']:8.0f} | "
            f"{share:6.2f} {m['bic']:9.0f} {m['held_out']:14.3f} | {m['truth']:12.3f} "
            f"{m['real']:6.3f} {m['plain']:6.3f} {m['sampled']:7.3f} | {m['seconds']:5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
