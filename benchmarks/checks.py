"""Do songs of the finished model pass for the bird's? Checks on simulated and on real birds.

    python -m benchmarks.checks                               simulated latents, 5,000 snippets
    python -m benchmarks.checks --n-snippets 20000            the same, more song
    python -m benchmarks.checks --data DIR --bird G402        a real bird, by hop and memory
    python -m benchmarks.checks --aviary                      the same for a bird of the aviary

Simulated latents, K 10: songs of first order should pass every check and get no memory; songs of
second order should fail the check of order without memory, and pass it with contexts.

A bird: a decoder of 16 latents is trained, then for each hop the number of states is searched and
the model gets its memory. Sounds, gaps: Wasserstein distance of durations in ms, sampled songs (as
long as the real ones, one set) to the real ones. Seam: step from frame to frame where snippets
meet by the mean step; 1 is none. Coverage: of held-out songs, by single snippets and by windows of
4. Below each row its checks; the baseline of the AUC (windows) is that of halves of the real songs.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.material import N_FRAMES, SPECTROGRAM, Loaded, load, material_of, trained
from benchmarks.songs import Ears, snippets_of
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.song_measures import SongMeasures, measure_song
from data_io.sounding import gain_of
from models.checks.compare import UNLIKE, Check, apart
from models.checks.params import ChecksParams
from models.checks.songs import check_latents, check_sounds
from models.checks.statistics import quantiles
from models.hmm import HmmParams, search_states
from models.hmm.contexts import add_memory
from models.hmm.latent_params import LatentParams
from models.hmm.simulate import simulate_latents
from models.hmm.song_hmm import SongHmm
from models.mdgan.encoding import decode_latents, encode_spectrogram
from models.mdgan.params import MdganParams

LATENT_DIM = 16
MEMORIES = ("none", "auto")
SONG_SNIPPETS = 109  # of simulated songs, on average
Array = NDArray[np.float64]
Spectrogram = NDArray[np.float32]


def simulated(seeds: Sequence[int], n_snippets: int) -> None:
    """Print, by order of the truth and memory of the model, the share of seeds that pass."""
    print(f"{len(seeds)} seeds from {seeds[0]}, {n_snippets:,} snippets")
    print("truth    memory  has memory  median contexts  passes all  fails order  unlike the bird")
    for order in (1, 2):
        n_contexts: dict[str, list[int]] = {memory: [] for memory in MEMORIES}
        remembers, passed = Counter[str](), Counter[str]()
        failed: dict[str, Counter[str]] = {memory: Counter() for memory in MEMORIES}
        for seed in seeds:
            data = LatentParams(
                order=order, n_snippets=n_snippets, n_songs=round(n_snippets / SONG_SNIPPETS)
            )
            songs = simulate_latents(data, seed).songs
            params = HmmParams(min_recordings=1, covariance_type="diag")
            found = search_states(songs, params, seed)
            assert found.model is not None
            plain = SongHmm.plain(found.model)
            remembered = add_memory(songs, found.model, params, seed).song
            for memory, model in zip(MEMORIES, (plain, remembered), strict=True):
                checks = check_latents(model, songs, 64.0, ChecksParams(), seed)
                unlike = [check.check for check in checks if check.verdict == UNLIKE]
                failed[memory].update(unlike)
                passed[memory] += not unlike
                remembers[memory] += model.n_contexts > model.n_states
                n_contexts[memory].append(model.n_contexts)
        for memory in MEMORIES:
            counts = remembers[memory], passed[memory], failed[memory]["order"]
            has_memory, passes, fails = (n / len(seeds) for n in counts)
            words = ", ".join(f"{check} {n}" for check, n in failed[memory].items() if n)
            print(
                f"order {order} {memory:>7} {has_memory:11.2f} "
                f"{np.median(n_contexts[memory]):16.0f} {passes:11.2f} {fails:12.2f}  {words}",
                flush=True,
            )


class Bird:
    """One bird and age with its decoder, and what sampled songs are compared with."""

    def __init__(self, loaded: list[Loaded], n_snippets: int, seed: int):
        on = material_of(loaded, seed)
        network = MdganParams(
            latent_dim=LATENT_DIM, n_snippets=n_snippets, n_reports=1, monitor=False
        )
        model, _ = trained(network, on, seed)
        self.encoder, self.generator = model.kept("encoder"), model.kept("generator")
        self.songs = [one for one in loaded if one.spectrogram.shape[1] >= 4 * N_FRAMES]
        first = self.songs[0].recording
        level = first.reference_level
        self.level = level * gain_of(level, SPECTROGRAM)
        self.ears = Ears(on, (first.bird, first.age))
        self.real = self.heard([one.spectrogram for one in self.songs])

    def heard(self, songs: Sequence[Spectrogram]) -> list[SongMeasures]:
        """What is measured of each song."""
        return [measure_song(song, SPECTROGRAM, self.level) for song in songs]

    def at_hop(self, hop: int, n_states: tuple[int, int], seed: int, checks: ChecksParams) -> None:
        """Print a row for each memory, and the checks of the last."""
        z = [encode_spectrogram(self.encoder, one.spectrogram, N_FRAMES, hop=hop)
             for one in self.songs]  # fmt: skip
        everything = np.concatenate(z).astype(np.float64)
        mean, std = everything.mean(0), everything.std(0)
        latents = [(one - mean) / std for one in z]
        fitted = [one for one, song in zip(latents, self.songs, strict=True)
                  if song.recording.split == "training"]  # fmt: skip
        params = HmmParams(n_states=n_states, min_recordings=1)
        new_share = hop / N_FRAMES
        start = time.process_time()
        found = search_states(fitted, params, seed, new_share=new_share)
        searched = time.process_time() - start
        assert found.model is not None
        remembered = add_memory(fitted, found.model, params, seed, new_share)
        models = {"none": SongHmm.plain(found.model), remembered.memory: remembered.song}
        decoded = [decode_latents(self.generator, one, hop=hop) for one in z]
        reconstruction = self.heard(decoded)
        for memory, model in models.items():
            start = time.process_time()
            replicas = [
                [decode_latents(self.generator, (one * std + mean).astype(np.float32), hop=hop)
                 for one in model.sample_songs([len(one) for one in latents], seed + i)[0]]
                for i in range(checks.n_replicas)
            ]  # fmt: skip
            found_checks = check_latents(
                model, latents, 1000 * hop * SPECTROGRAM.frame_s, checks, seed
            )
            found_checks += check_sounds(
                self.real, [self.heard(songs) for songs in replicas], reconstruction,
                1000 * SPECTROGRAM.frame_s, seed,
            )  # fmt: skip
            seconds = time.process_time() - start
            head = f"{hop:3} {memory:>8} {found.model.covariance_type:>5} {found.n_states:4}"
            print(f"{head} {model.n_contexts:9} {self._row(replicas[0], hop)} "
                  f"{searched:7.0f} {seconds:7.0f}", flush=True)  # fmt: skip
            show(found_checks)
        print(f"    reconstruction {'':16} {self._row(decoded, hop)}")

    def _row(self, songs: list[Spectrogram], hop: int) -> str:
        """Distances of durations, seam ratio and coverage."""
        heard = self.heard(songs)
        sounds = apart(quantiles([one.sounds_ms for one in heard]),
                       quantiles([one.sounds_ms for one in self.real]))  # fmt: skip
        gaps = apart(quantiles([one.gaps_ms for one in heard]),
                     quantiles([one.gaps_ms for one in self.real]))  # fmt: skip
        long = [song for song in songs if song.shape[1] >= N_FRAMES]
        snippets, lengths = snippets_of(long), [song.shape[1] // N_FRAMES for song in long]
        features = self.ears.reference.features(torch.from_numpy(snippets))
        windows = self.ears.song.coverage(features, lengths)
        held_out = self.ears.snippets
        alone = held_out.neighbours(held_out.features_of(torch.from_numpy(snippets)))["coverage"]
        seams = seam_ratio(songs, hop)
        return f"{sounds:7.1f} {gaps:5.1f} {seams:5.2f} {alone:5.2f} {windows:7.2f}"


def seam_ratio(songs: Sequence[Spectrogram], hop: int) -> float:
    """Mean step from frame to frame where snippets meet, by the mean of all steps."""
    steps, where = [], []
    for song in songs:
        steps.append(np.abs(np.diff(song, axis=1)).mean(0))
        where.append(np.arange(1, song.shape[1]) % hop == 0)
    all_steps = np.concatenate(steps)
    return float(all_steps[np.concatenate(where)].mean() / all_steps.mean())


def show(checks: Sequence[Check]) -> None:
    """Print each check on a line."""
    for one in checks:
        print(
            f"      {one.check:9} real {one.real:8.3f} replicas {one.replicas:8.3f} distance "
            f"{one.distance:8.3f} outside above {one.outside_above:8.3f} halves "
            f"{one.halves:7.3f} decoder {one.decoder:7.3f} {one.unit:5} {one.verdict}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings")
    parser.add_argument("--bird", help="the only one to use; its first age")
    parser.add_argument("--aviary", action="store_true", help="an adult bird of the aviary")
    parser.add_argument("--seeds", type=int, default=20, help="of simulated latents")
    parser.add_argument("--first-seed", type=int, default=100, help="of simulated latents")
    parser.add_argument("--n-snippets", type=int, default=5_000, help="of simulated latents")
    parser.add_argument("--hops", type=int, nargs="+", default=[16, 8, 4])
    parser.add_argument("--states", type=int, nargs=2, default=[3, 60])
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--snippets", type=int, default=200_000, help="seen in the training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checks = ChecksParams(options.replicas)  # refuses what cannot be, before hours of work
    torch.set_num_threads(1)
    print(f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}")
    if not options.data and not options.aviary:
        first = options.first_seed
        simulated(range(first, first + options.seeds), options.n_snippets)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder)
        if not options.data:
            params = AviaryParams(n_birds=1, ages_dph=(90,), minutes=8.0)
            simulate_aviary(root, params, options.seed)
        loaded = load(root, options.bird)
    first = loaded[0].recording
    bird_age = first.bird, first.age
    loaded = [one for one in loaded if (one.recording.bird, one.recording.age) == bird_age]
    bird = Bird(loaded, options.snippets, options.seed)
    print(f"{bird_age[0]} at {bird_age[1]}, {len(loaded)} recordings")
    print(
        "hop   memory covar    K  contexts  sounds  gaps  seam coverage windows search s checks s"
    )
    for hop in options.hops:
        bird.at_hop(hop, tuple(options.states), options.seed, checks)


if __name__ == "__main__":
    main()
