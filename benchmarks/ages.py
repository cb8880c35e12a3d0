"""Can ages be compared? Simulated birds whose change from age to age is known.

python -m benchmarks.ages [--birds 20] [--snippets 4000] [--jobs 1]

Every bird has ten states of eight latents (full covariances) and songs of about 100 snippets. The
states that its ages share are found as a study does; then ages are compared at equal numbers of
snippets (models/hmm/ages.py).
  same        two ages with the same songs' model, one with N snippets and one with three times as
              many: how often do the 95 % intervals overlap?
  stereotypy  four ages with the same states, equally often used, in an order that is stronger from
              age to age: how often are states in use reported as growing?
  growth      four ages that use 4, 6, 8 and 10 of the states: how often is it reported?
The last columns are means over birds, by age: states by BIC of each age alone.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from models.hmm import HmmParams, SongHmm, covariances, restored, search_states
from models.hmm.ages import change, effective_number, predictive_information, states_in_use
from models.hmm.draws import drawn
from models.hmm.em import Songs
from models.hmm.latent_params import LatentParams
from models.hmm.predictive import stationary_probs
from models.hmm.shared import search_shared, with_own_transitions
from models.hmm.simulate import simulate_latents

TRUTH = LatentParams(n_states=10, latent_dim=8, covariance_type="full", stickiness=0.2)
PARAMS = HmmParams(n_states=(2, 40), covariance_type="full", n_restarts=1, held_out_fraction=0.0)
SONG_SNIPPETS = 100
ORDERS = (0.1, 0.4, 0.7, 1.0)
REPERTOIRES = (4, 6, 8, 10)


def bird(kind: str, seed: int, n_snippets: int) -> list[list[np.ndarray]]:
    """Songs of each age."""
    truth = simulate_latents(TRUTH, seed)
    by_chance = np.tile(truth.shares, (TRUTH.n_states, 1))
    chains = {
        "same": [truth.transitions] * 2,
        "stereotypy": [w * truth.transitions + (1 - w) * by_chance for w in ORDERS],
        "growth": [_restricted(truth.transitions, n) for n in REPERTOIRES],
    }[kind]
    sizes = [n_snippets, 3 * n_snippets] if kind == "same" else [n_snippets] * len(chains)
    emissions = truth.model.means_, covariances(truth.model), TRUTH.covariance_type
    return [
        SongHmm.plain(restored(stationary_probs(chain), chain, *emissions)).sample_songs(
            [SONG_SNIPPETS] * (size // SONG_SNIPPETS), 1000 * seed + age
        )[0]
        for age, (chain, size) in enumerate(zip(chains, sizes, strict=True))
    ]


def _restricted(transitions: np.ndarray, n: int) -> np.ndarray:
    """The chain among the first ``n`` states; the others are left at once and never entered."""
    chain = transitions.copy()
    chain[:, n:] = 0
    return chain / chain.sum(1, keepdims=True)


def one_bird(kind: str, seed: int, n_snippets: int) -> dict:
    """What a study would say of one bird."""
    ages = bird(kind, seed, n_snippets)
    found = search_shared(ages, PARAMS, seed)
    n_matched = min(sum(map(len, songs)) for songs in ages)
    order, in_use = [], []
    for age, songs in enumerate(ages):
        some = drawn(songs, n_matched, 100 * seed + age)
        order.append(predictive_information(some, found.model, PARAMS, seed))
        packed = Songs(some, "full")
        posteriors = packed.posteriors(with_own_transitions(found.model, packed, PARAMS).model)
        starts = np.cumsum([0, *packed.lengths[:-1]])
        in_use.append(states_in_use(np.add.reduceat(posteriors, starts), seed))
    return {
        "shared": found.model.n_components,
        "order": order,
        "in_use": in_use,
        "all_snippets": [predictive_information(s, found.model, PARAMS, seed).value for s in ages],
        "alone": [search_states(songs, PARAMS, seed).n_states for songs in ages],
    }


def show(kind: str, birds: list[dict]) -> None:
    """One line of the table."""
    for name, words in (("order", "what order tells, bits"), ("in_use", "states in use")):
        said = [change(one[name][0], one[name][-1]) for one in birds]
        shares = "  ".join(f"{w} {np.mean([s == w for s in said]):4.2f}"
                           for w in ("rises", "falls", "shows no change"))  # fmt: skip
        values = np.mean([[age.value for age in one[name]] for one in birds], axis=0)
        print(f"{kind:11} {words:23} {shares}   by age {np.round(values, 2)}", flush=True)
    alone = np.mean([one["alone"] for one in birds], axis=0)
    shared = np.mean([one["shared"] for one in birds])
    more = np.mean([np.diff(one["all_snippets"][:2]) for one in birds])
    print(f"{kind:11} states: shared {shared:.1f}, of each age alone {np.round(alone, 1)}")
    if kind == "same":
        print(f"{kind:11} without matching, three times the song adds {more:+.3f} bits")
    if kind == "growth":
        truth = []
        for seed in range(len(birds)):
            transitions = simulate_latents(TRUTH, seed).transitions
            truth.append([effective_number(stationary_probs(_restricted(transitions, n)))
                          for n in REPERTOIRES])  # fmt: skip
        print(f"{kind:11} states in use, truth {np.round(np.mean(truth, axis=0), 2)}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--birds", type=int, default=20)
    parser.add_argument("--snippets", type=int, default=4000)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.jobs) as pool:
        for kind in ("same", "stereotypy", "growth"):
            n = args.birds
            show(kind, list(pool.map(one_bird, [kind] * n, range(n), [args.snippets] * n)))


if __name__ == "__main__":
    main()
