"""Songs that the finished HMM sings: the recipe of 0.5.0 beside today's, heard by the same ears.

    python -m benchmarks.songs --data DIR --bird G402
    python -m benchmarks.songs                        two birds of the aviary

Recipe 0.5.0: no level, no high-pass, minibatches drawn evenly over all frames, latents pulled to
the prior (10), the adversary in the last tenth, HMMs with diagonal covariances. Recipe now: the
defaults of this version. Each trains a decoder (16 latents), fits an HMM to the latents of the
training recordings of every bird and age (number of states by BIC), and samples songs in the
steady state, three times as many as the held-out ones (selection and report side). Frechet distance
over single snippets and over windows of 4, coverage over windows. "own": heard in the recipe's own
spectrograms and features. "today's": what 0.5.0 decodes is brought to today's spectrograms (gain
and high-pass of the bird and age, exactly) and compared there. "real": training songs against
held-out ones.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.aviary_faults import RECIPES
from benchmarks.material import N_FRAMES, SPECTROGRAM, Loaded, Material, load, material_of, trained
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.recordings.table import BirdAge, Recording
from data_io.sounding import gain_of
from data_io.spectrogram import SpectrogramParams, highpass_weights, levelled, magnitude_of
from models.hmm import sample_latents, select_n_states
from models.hmm.params import CovarianceType
from models.hmm.predictive import stationary_probs
from models.mdgan.encoding import cut_snippets, decode_latents, encode_spectrogram
from models.mdgan.params import MdganParams
from models.metrics.held_out import HeldOut
from models.metrics.held_out_songs import HeldOutSong

LATENT_DIM = 16
N_STATES = (3, 60)
TIMES = 3  # snippets of sampled song for each held-out one
BEFORE: dict[str, Any] = {
    "minibatch": "uniform", "lambda_silence": 0.0, "lambda_prior": 10.0, "adversarial_from": 0.9,
    "gan_loss": "paper",
}  # fmt: skip
KINDS: tuple[CovarianceType, ...] = ("diag", "full")
Array = NDArray[np.float64]
# Number of states, figures in own and in today's spectrograms, by bird and age, by covariances.
Sung = dict[str, dict[BirdAge, tuple[int, list[float], list[float]]]]
Snippets = NDArray[np.float32]


class Ears:
    """Held-out songs of one bird and age in today's spectrograms, and what they are compared by."""

    def __init__(self, on: Material, bird_age: BirdAge):
        own = [one for one in on.loaded if _key(one) == bird_age]
        held = [one for one in own if one.recording.split != "training"]
        self.reference = on.reference
        self.lengths = [one.spectrogram.shape[1] // N_FRAMES for one in held]
        snippets = snippets_of([one.spectrogram for one in held])
        self.snippets = HeldOut(on.reference, torch.from_numpy(snippets))
        self.song = HeldOutSong(on.reference, self.snippets.raw_features, self.lengths)
        training = [one.spectrogram for one in own if one.recording.split == "training"]
        self.real = self.hear(snippets_of(training), [s.shape[1] // N_FRAMES for s in training])

    def hear(self, snippets: Snippets, lengths: Sequence[int]) -> list[float]:
        """Frechet distance of snippets, of windows, and coverage of songs end to end."""
        features = self.reference.features(torch.from_numpy(snippets))
        of_snippets = self.snippets.features_of(torch.from_numpy(snippets))
        return [
            self.snippets.frechet(of_snippets),
            self.song.frechet(features, lengths),
            self.song.coverage(features, lengths),
        ]


def _key(one: Loaded) -> BirdAge:
    return one.recording.bird, one.recording.age


def snippets_of(spectrograms: Sequence[NDArray[np.float32]]) -> Snippets:
    """Whole snippets [n, 1, n_freq, n_frames] of recordings, end to end."""
    parts = [cut_snippets(s[:, : s.shape[1] // N_FRAMES * N_FRAMES], N_FRAMES)
             for s in spectrograms]  # fmt: skip
    return np.ascontiguousarray(np.concatenate(parts)[:, None], np.float32)


def sing(
    on: Material,
    spectrogram: SpectrogramParams,
    params: MdganParams,
    own_ears: dict[BirdAge, Ears],
    ears: dict[BirdAge, Ears],
    seed: int,
) -> Sung:
    """Train, fit, sample, and hear the songs of every bird and age."""
    model, _ = trained(params, on, seed)
    encoder, generator = model.kept("encoder"), model.kept("generator")
    found: Sung = {kind: {} for kind in KINDS}
    training = [one for one in on.loaded if one.recording.split == "training"]
    z_of = [encode_spectrogram(encoder, one.spectrogram, N_FRAMES) for one in training]
    everything = np.concatenate(z_of).astype(np.float64)
    mean, std = everything.mean(0), everything.std(0)
    for bird_age, heard in ears.items():
        own = [(z - mean) / std for one, z in zip(training, z_of, strict=True)
               if _key(one) == bird_age]  # fmt: skip
        recording = next(one.recording for one in training if _key(one) == bird_age)
        for kind in KINDS:
            chosen = select_n_states(own, kind, N_STATES, seed)
            assert chosen.model is not None
            chosen.model.startprob_ = stationary_probs(chosen.model.transmat_)
            songs = []
            for number, length in enumerate(heard.lengths * TIMES):
                z = sample_latents(chosen.model, length, 1000 * seed + number)[0] * std + mean
                songs.append(decode_latents(generator, z))
            lengths = heard.lengths * TIMES
            as_today = [today(song, recording, spectrogram) for song in songs]
            found[kind][bird_age] = (
                chosen.n_states or 0,
                own_ears[bird_age].hear(snippets_of(songs), lengths),
                heard.hear(snippets_of(as_today), lengths),
            )
    return found


def today(
    decoded: NDArray[np.float32], one: Recording, made_by: SpectrogramParams
) -> NDArray[np.float32]:
    """The spectrogram [n_freq, n_frames] as today's parameters would have made it."""
    if made_by == SPECTROGRAM:
        return decoded
    weights = highpass_weights(SPECTROGRAM)[:, None]
    magnitude = magnitude_of(decoded, gain_of(one.reference_level, made_by)) * weights
    return levelled(magnitude, gain_of(one.reference_level, SPECTROGRAM))


def show(own_ears: dict[str, dict[BirdAge, Ears]], found: dict[str, Sung]) -> None:
    """Print figures by recipe, kind of covariances, bird and age; then means and their ratios."""
    print(f"{'':31} {'':6} | own: snippets, windows, coverage | today's")
    names = [(recipe, kind) for recipe, sung in found.items() for kind in sung]
    means = {name: np.zeros((2, 3)) for name in names}
    for bird, age in own_ears["now"]:
        for recipe, ears in own_ears.items():
            print(f"{bird:10} {age:>10} {recipe:6}, real   | {row(ears[bird, age].real)}")
        for recipe, kind in names:
            n_states, *figures = found[recipe][kind][bird, age]
            print(f"{'':21} {recipe:6} {kind:5} {n_states:3} | " + " | ".join(map(row, figures)))
            means[recipe, kind] += np.array(figures) / len(own_ears["now"])
    print("mean over birds and ages")
    for (recipe, kind), both in means.items():
        ratios = both / means["0.5.0", "diag"]
        print(f"{'':21} {recipe:6} {kind:5}     | " + " | ".join(row(list(one)) for one in both))
        print(f"{'over 0.5.0, diag':>37} | " + " | ".join(row(list(one)) for one in ratios))


def row(figures: Sequence[float]) -> str:
    """Figures of `Ears.hear`."""
    return "{:9.4f} {:8.4f} {:9.2f}".format(*figures)


def main() -> None:
    """Print a table by bird and age, and the ratio of the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: an aviary")
    parser.add_argument("--bird", help="the only one to use")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each simulated day")
    parser.add_argument("--snippets", type=int, default=200_000, help="seen in each training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}")
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder) / "aviary"
        if options.data is None:
            simulate_aviary(root, AviaryParams(n_birds=2, minutes=options.minutes), options.seed)
        materials = {
            name: material_of(load(root, options.bird, spectrogram), options.seed)
            for name, spectrogram in RECIPES.items()
        }
    network = MdganParams(
        latent_dim=LATENT_DIM, n_snippets=options.snippets, n_reports=1, monitor=False
    )
    recipes = {"0.5.0": replace(network, **BEFORE), "now": network}
    with_held_out = {_key(o) for o in materials["now"].loaded if o.recording.split != "training"}
    ears = {
        name: {key: Ears(on, key) for key in sorted(with_held_out)}
        for name, on in materials.items()
    }
    show(ears, {
        name: sing(materials[name], RECIPES[name], params, ears[name], ears["now"], options.seed)
        for name, params in recipes.items()
    })  # fmt: skip


if __name__ == "__main__":
    main()
