"""Does silence stay silent? A decoder that learns silence as song, beside decoders that do not.

python -m benchmarks.silence --data DIR --bird G402 [--snippets 100000] [--seeds 1] [--noise]

All learn the same recordings without adversary, and are measured on all snippets of these: the
variance of latents within silent (no frame holds sound) over that within sounding snippets (more
than half of the frames do); states of a hidden Markov model with full covariances, and those of
them most of whose snippets are silent; and on held-out recordings L1 over that of a PCA with as
many dimensions, of all snippets, of those with sound, of silent ones, and of each bird. Latents
are whitened by one mean and spread; the states are those of the first bird. Without --data:
simulated birds.

--noise adds white noise 50 dB below the reference level of its bird and age (the RMS that a quarter
of the sounding frames passes) to every recording, and does all again: the states that hold sound
should be as many as before.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from benchmarks.aviary_faults import KINDS, LATENT_DIM, N_STATES, Encoded, encoded
from benchmarks.material import Loaded, Material, load, material_of, trained
from benchmarks.reconstruction import decoded, held_out_groups
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from models.hmm import select_n_states
from models.mdgan.params import MdganParams

RECIPES: dict[str, dict[str, object]] = {
    "uniform": {"minibatch": "uniform"},
    "uniform, lambda_prior 10 (0.5.0)": {"minibatch": "uniform", "lambda_prior": 10.0},
    "balanced, silence apart": {"lambda_silence": 0.0},
    "  lambda_silence 1": {"lambda_silence": 1.0},
    "  lambda_silence 10, the default": {"lambda_silence": 10.0},
    "  the default, lambda_prior 10": {"lambda_prior": 10.0},
    "  lambda_silence 100": {"lambda_silence": 100.0},
    "  silent_share 0.1": {"silent_share": 0.1},
    "  silent_share 0.4": {"silent_share": 0.4},
}
NOISE_DB = -50.0


@dataclass(frozen=True)
class Row:
    """What one decoder makes of silence.

    Attributes:
        variance: of latents, within silent over within sounding snippets.
        n_silent: states most of whose snippets are silent.
        n_states: all states.
        ratios: L1 over PCA's of held-out snippets: all, those with sound, silent ones, each bird.
    """

    variance: float
    n_silent: int
    n_states: int
    ratios: dict[str, float]

    def __str__(self) -> str:
        ratios = " ".join(f"{ratio:>{max(len(n), 7)}.3f}" for n, ratio in self.ratios.items())
        n_sounding = self.n_states - self.n_silent
        return f"{self.variance:9.4f} {self.n_silent:7} {n_sounding:9} {ratios}"


def states_of(recordings: list[Encoded], seed: int) -> tuple[int, int]:
    """Number of silent states, and of all."""
    kept = [one for one in recordings if len(one.z)]
    found = select_n_states([one.z for one in kept], KINDS[1], N_STATES, seed)
    if found.model is None:
        raise SystemExit(f"No number of states was found: {found.reason}.")
    states = found.model.predict(
        np.concatenate([one.z for one in kept]), [len(one.z) for one in kept]
    )
    share = np.concatenate([one.sound_share for one in kept])
    of_each = [share[states == k] for k in range(len(found.model.means_))]
    return sum(len(s) > 0 and (s == 0).mean() > 0.5 for s in of_each), len(of_each)


def variance_ratio(recordings: list[Encoded]) -> float:
    """Variance of latents within silent snippets over that within sounding ones."""
    z = np.concatenate([one.z for one in recordings])
    share = np.concatenate([one.sound_share for one in recordings])
    return float(z[share == 0].var(0).mean() / z[share > 0.5].var(0).mean())


def ratios(on: Material, ours: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """L1 over PCA's: all, with sound, silent, each bird; ``ours`` is x and x_hat by bird."""
    errors, sounding = [], sound_shares(on)
    for bird, (x, x_hat) in ours.items():
        x_pca = on.reference.pca_decode(on.reference.pca_scores(x, LATENT_DIM))
        pair = [(x - other).abs().mean((1, 2, 3)) for other in (x_hat, x_pca)]
        errors.append((torch.stack(pair, 1), torch.from_numpy(sounding[bird] > 0)))
    both, has_sound = (torch.cat(part) for part in zip(*errors, strict=True))
    parts = {"all": both, "sound": both[has_sound], "silence": both[~has_sound]}
    parts |= {bird: pair for bird, (pair, _) in zip(ours, errors, strict=True)}
    return {name: float(part[:, 0].sum() / part[:, 1].sum()) for name, part in parts.items()}


def sound_shares(on: Material) -> dict[str, np.ndarray]:
    """Share of frames with sound of each held-out snippet, by bird, as `held_out_groups` has it."""
    as_spectrograms = [
        one._replace(spectrogram=one.has_sound[None].astype("f4")) for one in on.loaded
    ]
    groups = held_out_groups(replace(on, loaded=as_spectrograms), "bird")
    return {bird: share.mean((1, 2, 3)).numpy() for bird, share in groups.items()}


def measured(on: Material, params: MdganParams, seed: int) -> Row:
    """Train one decoder and look at its silence."""
    model, _ = trained(params, on, seed)
    recordings = encoded(model, on.loaded)
    groups = held_out_groups(on, "bird")
    ours = {bird: (x, decoded(model, x)) for bird, x in groups.items()}
    found = ratios(on, ours)
    birds = sorted({one.bird for one in recordings})
    # States of one bird only: each has its own HMM.
    n_silent, n_states = states_of([one for one in recordings if one.bird == birds[0]], seed)
    return Row(variance_ratio(recordings), n_silent, n_states, found)


def noisy(root: Path, loaded: list[Loaded], into: Path, seed: int) -> None:
    """Write the recordings again, with noise `NOISE_DB` below the level of their bird and age."""
    rng = np.random.default_rng(seed)
    for recording, _, _ in loaded:
        path = root / recording.path
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        rms = recording.reference_level * 10 ** (NOISE_DB / 20)
        noise = rms * rng.standard_normal(samples.shape, dtype=np.float32)
        to = into / recording.path
        to.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(to, samples + noise, rate, subtype="FLOAT")


def show(
    loaded: list[Loaded], recipes: dict[str, dict[str, object]], n_snippets: int, seeds: int
) -> None:
    """Print one line per recipe and seed."""
    names = ["all", "sound", "silence", *sorted({one.recording.bird for one in loaded})]
    columns = " ".join(f"{name:>7}" for name in names)
    print(f"{'':31} {'seed':>4}  variance  silent  sounding {columns}", flush=True)
    for seed in range(seeds):
        on = material_of(loaded, seed)
        for name, changes in recipes.items():
            params = MdganParams(
                latent_dim=LATENT_DIM, adversarial_from=1.0, n_snippets=n_snippets, n_reports=1,
                **changes,
            )  # type: ignore[arg-type]  # fmt: skip
            print(f"{name:31} {seed:4} {measured(on, params, seed)}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: simulated birds")
    parser.add_argument("--bird", help="only this one")
    parser.add_argument("--snippets", type=int, default=100_000, help="seen in each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[""], help="recipes whose name has this in it")
    parser.add_argument("--noise", action="store_true", help="and all again with noise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipes = {n: c for n, c in RECIPES.items() if any(part in n for part in args.only)}
    with tempfile.TemporaryDirectory() as folder:
        root = args.data or Path(folder) / "aviary"
        if args.data is None:
            simulate_aviary(root, AviaryParams(), 0)
        loaded = load(root, args.bird)
        share = np.concatenate([one.has_sound for one in loaded]).mean()
        print(
            f"{len(loaded)} recordings, {100 * share:.0f} % of frames hold sound; latent size "
            f"{LATENT_DIM}, {args.snippets:,} snippets; L1/PCA of held-out song"
        )
        show(loaded, recipes, args.snippets, args.seeds)
        if args.noise:
            noisy(root, loaded, Path(folder) / "noisy", 0)
            print(f"\nwith white noise {NOISE_DB:g} dB from the reference level")
            show(load(Path(folder) / "noisy", args.bird), recipes, args.snippets, args.seeds)


if __name__ == "__main__":
    main()
