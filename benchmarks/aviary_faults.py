"""Faults that real song showed, on the aviary, where the truth is known.

    python -m benchmarks.aviary_faults [--minutes 4] [--snippets 200000] [--seed 0]

Both recipes read the same five simulated birds at four ages, train one decoder (latent size 16) and
fit hidden Markov models with diagonal and with full covariances. Recipe 0.5.0: no level, no
high-pass. Recipe now: the defaults of this version. One table for each fault:

1. birds: does a quiet bird decode to nothing? L1 against a PCA of the bird's own, with as many
   dimensions; and decoded over real magnitude, summed over the frames that hold sound
2. silence: variance of latents within silent over that within sounding snippets, and the states
   most of whose snippets are silent
3. minutes: number of states of a bird that does not change, by the number of snippets
4. ages: number of states and entropy of the transitions, at one number of snippets, beside the
   entropy rate that was planted

Nothing is asserted: it is the yardstick that later versions are measured by.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from benchmarks.material import N_FRAMES, Loaded, load, material_of, trained
from data_io.aviary.birds import hatch
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.spectrogram import SpectrogramParams
from models.hmm import StatesFound, select_n_states
from models.hmm.params import CovarianceType
from models.hmm.predictive import stationary_probs
from models.mdgan.encoding import cut_snippets, decode_latents, encode_spectrogram
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams

RECIPES = {
    "0.5.0": SpectrogramParams(highpass_hz=0.0, level="none"),
    "now": SpectrogramParams(),
}
LATENT_DIM = 16
N_STATES = (3, 60)
KINDS: tuple[CovarianceType, ...] = ("diag", "full")
UNCHANGING = "sim4"
GAINS_DB = (-40.0, 0.0)  # public recordings differ tenfold and more
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Encoded:
    """A recording as the decoder sees it.

    Attributes:
        bird, age: of it.
        spectrogram: [n_freq, n_frames].
        has_sound: [n_frames].
        sound_share: [n_snippets] share of frames that hold sound.
        z: [n_snippets, latent_dim], whitened.
        decoded: [n_freq, n_frames].
    """

    bird: str
    age: str
    spectrogram: NDArray[np.float32]
    has_sound: NDArray[np.bool_]
    sound_share: Array
    z: Array
    decoded: NDArray[np.float32]


def encoded(model: Mdgan, loaded: list[Loaded]) -> list[Encoded]:
    """All recordings through encoder and generator; latents divided by their spread."""
    found = []
    for recording, spectrogram, has_sound in loaded:
        z = encode_spectrogram(model.kept("encoder"), spectrogram, N_FRAMES)
        decoded = decode_latents(model.kept("generator"), z, spectrogram.shape[1])
        share = cut_snippets(has_sound[None].astype(np.float32), N_FRAMES).mean((1, 2))
        found.append(
            Encoded(recording.bird, recording.age, spectrogram, has_sound, share, z, decoded)
        )
    z = np.concatenate([one.z for one in found])
    mean, spread = z.mean(0), z.std(0)
    return [
        Encoded(o.bird, o.age, o.spectrogram, o.has_sound, o.sound_share,
                ((o.z - mean) / spread).astype(np.float64), o.decoded) for o in found
    ]  # fmt: skip


def show_birds(recordings: list[Encoded], gains_db: dict[str, float]) -> None:
    """Table 1."""
    print(f"{'bird':6} {'gain, dB':>9} {'L1/PCA':>7} {'decoded/real':>13}")
    for bird, gain_db in gains_db.items():
        own = [one for one in recordings if one.bird == bird]
        x = np.concatenate([cut_snippets(one.spectrogram, N_FRAMES) for one in own])
        x_hat = np.concatenate([cut_snippets(one.decoded, N_FRAMES) for one in own])
        flat = x.reshape(len(x), -1)
        pca = PCA(LATENT_DIM, svd_solver="randomized", random_state=0).fit(flat)
        x_pca = np.maximum(pca.inverse_transform(pca.transform(flat)), 0).reshape(x.shape)
        ratio = np.abs(x - x_hat).mean() / np.abs(x - x_pca).mean()
        real, ours = (
            sum(np.expm1(getattr(one, name)[:, one.has_sound]).sum() for one in own)
            for name in ("spectrogram", "decoded")
        )
        print(f"{bird:6} {gain_db:9.1f} {ratio:7.2f} {ours / real:13.2f}")


def show_silence(recordings: list[Encoded], n: int, seed: int) -> None:
    """Table 2: each bird at its last age."""
    print(f"{'bird':6} {'var silent/sounding':>20}  {'silent of all states: diag':>27} {'full':>9}")
    for bird in sorted({one.bird for one in recordings}):
        ages = sorted({one.age for one in recordings if one.bird == bird}, key=int)
        own = [one for one in recordings if (one.bird, one.age) == (bird, ages[-1])]
        z = np.concatenate([one.z for one in own])
        share = np.concatenate([one.sound_share for one in own])
        ratio = z[share == 0].var(0).mean() / z[share > 0.5].var(0).mean()
        cells = []
        for kind in KINDS:
            found = fitted([one.z for one in own], n, kind, seed)
            states = found.model.predict(z, [len(one.z) for one in own])
            shares = [share[states == k] for k in range(found.n_states)]
            silent = sum(len(s) > 0 and (s == 0).mean() > 0.5 for s in shares)
            cells.append(f"{silent} of {found.n_states}")
        print(f"{bird:6} {ratio:20.3f}  {cells[0]:>27} {cells[1]:>9}", flush=True)


def show_minutes(recordings: list[Encoded], seed: int) -> None:
    """Table 3: all ages of the bird that does not change."""
    own = [one.z for one in recordings if one.bird == UNCHANGING]
    np.random.default_rng(seed).shuffle(own)
    total = sum(map(len, own))
    sizes = [n for n in (500, 1000, 2000, 4000, 8000) if n < total]
    print(f"{UNCHANGING}, snippets  " + " ".join(f"{n:6,}" for n in sizes))
    for kind in KINDS:
        states = [fitted(own, n, kind, seed).n_states for n in sizes]
        print(f"states, {kind:9}" + " ".join(f"{k:6}" for k in states), flush=True)


def show_ages(recordings: list[Encoded], params: AviaryParams, n: int, seed: int) -> None:
    """Table 4."""
    print(f"{n:,} snippets at each age; entropies in bits per transition, planted: per syllable")
    names = "".join(f" {f'K, {kind}':>8} {'entropy':>8}" for kind in KINDS)
    print(f"{'bird':6} {'role':11} {'age':>4} {'planted':>8}{names}")
    for bird in sorted({one.bird for one in recordings}):
        of_truth = hatch(params, seed, bird)
        for age in sorted({one.age for one in recordings if one.bird == bird}, key=int):
            own = [one.z for one in recordings if (one.bird, one.age) == (bird, age)]
            cells = ""
            for kind in KINDS:
                found = fitted(own, n, kind, seed)
                cells += f" {found.n_states:8} {transition_entropy(found):8.2f}"
            planted = of_truth.chain(int(age)).entropy_rate()
            print(f"{bird:6} {of_truth.role:11} {age:>4} {planted:8.2f}{cells}", flush=True)


def fitted(sequences: list[Array], n: int, kind: CovarianceType, seed: int) -> StatesFound:
    """The number of states of the first ``n`` snippets."""
    kept, left = [], n
    for z in sequences:
        if left > 0:
            kept.append(z[:left])
            left -= len(z)
    return select_n_states(kept, kind, N_STATES, seed)


def transition_entropy(found: StatesFound) -> float:
    """Entropy of the next state given the state, in bits, in the steady state."""
    matrix = found.model.transmat_
    steady = stationary_probs(matrix)
    logs = np.log2(np.where(matrix > 0, matrix, 1.0))
    return float(-(steady[:, None] * matrix * logs).sum())


def main() -> None:
    """Print the tables of each recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="of each bird and age")
    parser.add_argument("--snippets", type=int, default=200_000, help="seen in each training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    params = AviaryParams(n_birds=5, minutes=options.minutes, gain_db=GAINS_DB)
    gains_db = {
        name: hatch(params, options.seed, name).gain_db
        for name in (f"sim{number}" for number in range(1, 6))
    }
    print(
        f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}, seed {options.seed}"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "aviary"
        simulate_aviary(root, params, options.seed)
        for name, spectrogram in RECIPES.items():
            on = material_of(load(root, None, spectrogram), options.seed)
            network = MdganParams(
                latent_dim=LATENT_DIM, n_snippets=options.snippets, n_reports=1, monitor=False
            )
            model, _ = trained(network, on, options.seed)
            recordings = encoded(model, on.loaded)
            n = int(0.9 * options.minutes * 60 / (N_FRAMES * spectrogram.frame_s))
            print(f"\nrecipe {name}, latent size {LATENT_DIM}, {options.snippets:,} snippets\n")
            show_birds(recordings, gains_db)
            print()
            show_silence(recordings, n, options.seed)
            print()
            show_minutes(recordings, options.seed)
            print()
            show_ages(recordings, params, n, options.seed)


if __name__ == "__main__":
    main()
