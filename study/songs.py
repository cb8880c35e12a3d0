"""The stage that makes songs to see and hear: real, inverted, reconstructed and sampled.

A song here is a sound. A song model is the HMM of a bird and age, which gives sampled songs.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import ray
import soundfile
from numpy.typing import NDArray

from data_io.files import atomic_dir, digest, write_json
from data_io.phases import spectral_convergence
from data_io.recordings.reading import check_source, read_sound
from data_io.recordings.table import REPORT, SELECTION, BirdAge, Recording, Recordings
from data_io.song_models import SongModel, load_song_model
from data_io.sounding import gain_of
from data_io.spectrogram import (  # noqa: E402
    Spectrogram,
    SpectrogramParams,
    Waveform,
    invert_spectrogram,
    log_spectrogram,
    magnitude_of,
    resample,
)
from models.mdgan.checkpoints import load_decoder
from models.mdgan.encoding import decode_latents, encode_spectrogram
from study.base.console import Console, Progress
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.base.seeds import bird_age_seed
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.decoders.scope import decoder_of, decoder_stage, without_decoder
from study.hmms.song_models import to_song_hmm


def save_spectrogram(
    path: Path, spectrogram: Spectrogram, params: SpectrogramParams, title: str, top: float
) -> None:
    """Draw log(1 + magnitude) [n_freq, n_frames], seconds over kHz, white 0, black ``top``."""
    seconds = spectrogram.shape[1] * params.frame_s
    fig, ax = plt.subplots(figsize=(1.2 + 1.4 * min(seconds, 8.0), 2.4), dpi=100)
    khz = params.sample_rate_hz / 2000
    ax.imshow(
        spectrogram, origin="lower", aspect="auto", cmap="gray_r", vmin=0, vmax=top,
        extent=(0, seconds, 0, khz), interpolation="nearest",
    )  # fmt: skip
    ax.set(xlabel="s", ylabel="kHz")
    ax.set_title(title, parse_math=False)  # a bird may have dollars in its name
    ax.title.set_fontsize(10)
    fig.tight_layout()
    fig.savefig(path)
    plt.close(fig)


PEAK = 0.8  # peak of the real song, as a share of full scale; the others get the same gain
KINDS = {
    "real": "the recording itself, resampled",
    "inverted": "sound found from the real song's spectrogram: what the inversion alone does",
    "reconstruction": "the real song, encoded and decoded; then inverted",
    "sampled": "drawn from the HMM, from anywhere in a song, and decoded; then inverted",
}


def make_songs(
    config: StudyConfig,
    recordings: Recordings,
    data_dir: Path,
    paths: RunPaths,
    tasks: TaskRunner,
    console: Console,
) -> None:
    """Write songs/<bird>/<age>/{real,inverted,reconstruction,sampled}.{png,wav} and song.json.

    A bird and age without a song model has no sampled song; without a decoder it has no songs.
    """
    missing = without_decoder(config, paths, recordings)
    of_bird_age = recordings.used.by_bird_age()
    bird_ages = [bird_age for bird_age in of_bird_age if bird_age not in missing]
    progress = Progress(console, len(bird_ages), "birds and ages with songs")
    with atomic_dir(paths.songs) as folder:
        tasks.run(
            lambda bird_age: _songs_of.remote(
                config, _to_show(of_bird_age[bird_age]), data_dir, paths, folder
            ),
            bird_ages,
            lambda bird_age, result: progress.advance(),
            lambda bird_age: f"Songs of {bird_age[0]} at {bird_age[1]}",
        )


def _to_show(recordings: Recordings) -> Recording:
    """The longest recording of the report side; else of those held out; else of all."""
    sides = (recordings.on(REPORT), recordings.on(SELECTION), recordings)
    return max(next(side for side in sides if len(side)), key=lambda r: (r.n_frames, r.path))


@ray.remote(num_cpus=1)
def _songs_of(
    config: StudyConfig, recording: Recording, data_dir: Path, paths: RunPaths, folder: Path
) -> None:
    bird, age = recording.bird, recording.age
    out = folder / bird / age
    out.mkdir(parents=True, exist_ok=True)  # a worker that died may have made it before
    params = config.spectrogram
    encoder, generator, facts = load_decoder(decoder_of(config, paths, bird, age))
    check_source(data_dir, recording)
    waveform = resample(*read_sound(data_dir, recording, config.data.channel), params)
    gain = gain_of(recording.reference_level or None, params)
    whole = log_spectrogram(waveform, params.sample_rate_hz, params, gain)
    start, n_frames = _loudest_window(whole, round(config.songs.seconds / params.frame_s))
    real = np.ascontiguousarray(whole[:, start : start + n_frames])
    hop = config.snippets.hop
    z = encode_spectrogram(encoder, real, facts["shape"]["n_frames"], hop=hop)
    pictures = {"real": real, "reconstruction": decode_latents(generator, z, n_frames, hop=hop)}
    seed = bird_age_seed(config.seed, (bird, age))
    if (paths.hmm / bird / f"{age}.npz").exists():
        model, _ = load_song_model(paths.hmm, bird, age)
        sampled = sample_z(model, len(z), seed)
        pictures["sampled"] = decode_latents(generator, sampled, n_frames, hop=hop)
    at = slice(start * params.hop_length, (start + n_frames) * params.hop_length)
    n_iter = config.songs.griffin_lim_iterations
    sounds, convergence = inversions(pictures, params, n_iter, seed, gain)
    sounds["real"] = waveform[at]
    # The high-pass has acted on it already.
    whole_band = dataclasses.replace(params, highpass_hz=0.0)
    pictures["inverted"] = log_spectrogram(
        sounds["inverted"], params.sample_rate_hz, whole_band, gain
    )
    loudness = PEAK / float(np.abs(sounds["real"]).max() or 1.0)
    top = float(np.quantile(real, 0.999)) or 1.0
    for kind, picture in pictures.items():
        save_spectrogram(out / f"{kind}.png", picture, params, f"{bird}, {age}: {kind}", top)
        sound = np.clip(loudness * sounds[kind], -1, 1)
        soundfile.write(out / f"{kind}.wav", sound, params.sample_rate_hz, subtype="PCM_16")
    facts = {
        "recording": recording.path,
        "split": recording.split,
        "start_s": start * params.frame_s,
        "seconds": n_frames * params.frame_s,
        "gain": loudness,
        "spectrogram_gain": gain,
        "kinds": {kind: KINDS[kind] for kind in KINDS if kind in pictures},
        "inversion": "phases by phase-gradient heap integration, then "
        f"{n_iter} iterations of Griffin-Lim",
        "spectral_convergence": convergence,
        "sample_seed": seed,
        "seen_as_black": top,
    }
    write_json(out / "song.json", facts)


def inversions(
    pictures: dict[str, Spectrogram], params: SpectrogramParams, n_iter: int, seed: int, gain: float
) -> tuple[dict[str, Waveform], dict[str, float | None]]:
    """Sounds of spectrograms, and how near they come.

    Args:
        pictures: by kind of song, log(1 + gain * magnitude) [n_freq, n_frames]; one is "real".
        params: of the spectrograms.
        n_iter: iterations of Griffin-Lim.
        seed: of phases where there is next to no sound.
        gain: of the spectrograms; it is undone.

    Returns:
        Sounds by kind, with that of the real spectrogram as "inverted"; and by kind the spectral
        convergence (`data_io.phases`), None where a picture holds no sound at all.
    """
    sounds, convergence = {}, {}
    for kind, picture in pictures.items():
        name = "inverted" if kind == "real" else kind
        sounds[name] = invert_spectrogram(picture, params, n_iter, seed, gain)
        wanted = magnitude_of(picture, gain)
        distance = spectral_convergence(sounds[name], wanted, params.hop_length)
        convergence[name] = None if math.isnan(distance) else distance
    return sounds, convergence


def sample_z(model: SongModel, n_snippets: int, seed: int) -> NDArray[np.float32]:
    """Sample a sequence of latents [n_snippets, latent_dim] from a song model; not whitened.

    It begins anywhere in a song, as the real one does, which is cut out of a recording.
    """
    (whitened,), _ = to_song_hmm(model).sample_songs([n_snippets], seed)
    return (whitened * model.whitening_std + model.whitening_mean).astype(np.float32)


def _loudest_window(spectrogram: Spectrogram, n_frames: int) -> tuple[int, int]:
    """First frame and length of the loudest stretch, so that the picture shows song."""
    total = spectrogram.shape[1]
    if total <= n_frames:
        return 0, total
    loudness = np.cumsum(np.r_[0.0, spectrogram.sum(0, dtype=np.float64)])
    return int(np.argmax(loudness[n_frames:] - loudness[:-n_frames])), n_frames


def song_files(paths: RunPaths, bird_age: BirdAge) -> dict[str, Any]:
    """Picture and sound of a bird and age, by kind of song; only kinds that exist."""
    folder = paths.songs / bird_age[0] / bird_age[1]
    return {
        kind: (folder / f"{kind}.png", folder / f"{kind}.wav")
        for kind in KINDS
        if (folder / f"{kind}.png").exists()
    }


def _needs(study: Study) -> dict[str, Any]:
    decoders = decoder_stage(study.config.decoders.scope)
    return study.depends_on("recordings", decoders, "hmm", songs=study.config.songs)


def _run(study: Study) -> StageResult:
    make_songs(
        study.config, study.recordings, study.data_dir, study.paths, study.tasks, study.console
    )
    return StageResult([study.paths.songs], digest(study.ledger.done["hmm"].digest))


SONGS = Stage("songs", needs=_needs, run=_run)
