"""The decoder alone, on arrays, without Ray and without files unless you ask for them.

The item decoder of the method turns latents into items of song; here an item is a snippet of 16
(or 8) frames. `Decoder` holds it together with its encoder. Recordings to latents and back, and to
snippets that no bird has sung, in ten lines:

```python
from pathlib import Path
import soundfile
from data_io.spectrogram import SpectrogramParams, log_spectrogram
from models.decoder import Decoder, MdganParams

paths = sorted(Path("recordings").rglob("*.wav"))
waves = [soundfile.read(path, dtype="float32") for path in paths]
spectrograms = [log_spectrogram(*wave, SpectrogramParams()) for wave in waves]
decoder = Decoder(MdganParams(latent_dim=16))
metrics = decoder.fit(spectrograms[1:], held_out=spectrograms[:1], seed=0, on_progress=print)
z = decoder.encode(spectrograms[0])  # latents [n_snippets, 16], in order
again = decoder.decode(z)  # spectrogram [129, n_snippets * 16]
snippets = decoder.sample(100, seed=1)  # [100, 129, 16], from the prior
decoder.save("decoder")
same = Decoder.load("decoder")
```
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.mdgan.checkpoints import decoder_nets, load_decoder, save_decoder_nets
from models.mdgan.encoding import BATCH, decode_latents, encode_spectrogram
from models.mdgan.frames import Balance, Frames
from models.mdgan.losses import sample_prior
from models.mdgan.model import Mdgan, MdganParams
from models.mdgan.networks import Encoder, Generator
from models.mdgan.shape import N_FREQ
from models.mdgan.tensor_files import sync_folder
from models.mdgan.training import TrainingReport, train
from models.metrics.evaluation import evaluate
from models.metrics.reference import MAX_PCA_DIM, fit_reference
from models.metrics.songs import gather_songs

__all__ = ["Decoder", "MdganParams", "TrainingReport"]

Array = NDArray[np.float32]

N_REFERENCE_SNIPPETS = 8000  # training snippets of the PCA that metrics are compared with
N_EVAL_SNIPPETS = 2000  # held-out snippets that metrics are computed on
FIXED_SEED = 0  # of all that is measured: metrics of trainings with other seeds compare


class Decoder:
    """A decoder of snippets, with its encoder.

    A spectrogram is [129, n_frames_total], log(1 + |STFT|), as `data_io.spectrogram` makes it.

    Args:
        params: of the training.
        n_frames: frames in a snippet.
        device: "cpu" or "cuda".
    """

    def __init__(self, params: MdganParams, n_frames: int = 16, device: str = "cpu"):
        self.params = params
        self.n_frames = n_frames
        self.device = device
        self.shape = params.shape(n_frames)
        self._nets: tuple[Encoder, Generator] | None = None

    def fit(
        self,
        spectrograms: Sequence[Array],
        held_out: Sequence[Array],
        seed: int,
        on_progress: Callable[[TrainingReport], None] | None = None,
        has_sound: Sequence[NDArray[np.bool_]] | None = None,
    ) -> dict[str, float]:
        """Train from new weights, on random snippets of ``spectrograms``.

        Args:
            spectrograms: of the recordings to learn from.
            held_out: spectrograms of other recordings, for the metrics. All count as one bird and
                age.
            seed: of everything random, from 0 to 4294967295.
            on_progress: called at each of ``params.n_reports`` reports. It may raise an error to
                give up; the decoder is then as it was before.
            has_sound: for each of ``spectrograms`` [n_frames_total] whether a frame holds sound, as
                `data_io.sounding.has_sound` tells it. Without it all snippets are taken for
                sounding, and silence is learned as song is.

        Returns:
            The metrics of the last report, see `models.metrics.evaluation.evaluate`.

        Raises:
            ValueError: a spectrogram or the seed cannot be used, or there is none.
            TrainingFailedError: the training diverged.
        """
        seed = _checked_seed(seed)
        balance = Balance.of(self.params, _joined(has_sound, spectrograms), ())
        frames = _frames_of(spectrograms, self.n_frames, "spectrograms", self.device, balance)
        rng = torch.Generator().manual_seed(seed)
        everything = _frames_of(spectrograms, self.n_frames, "spectrograms", "cpu")
        for_reference = everything.sample(N_REFERENCE_SNIPPETS, rng)
        del everything
        learnt_from, measured_on = (
            {("", ""): [s.T for s in _all_checked(given, self.n_frames, name)]}
            for given, name in ((spectrograms, "spectrograms"), (held_out, "held_out"))
        )
        songs = gather_songs(learnt_from, measured_on, self.n_frames, N_EVAL_SNIPPETS, FIXED_SEED)
        n_components = max(MAX_PCA_DIM, self.params.n_components)
        reference = fit_reference(for_reference, songs, FIXED_SEED, n_components)
        model = Mdgan(self.params, self.n_frames, seed, self.device, reference.pca)
        last: dict[str, float] = {}

        def keep(report: TrainingReport) -> None:
            last.update(report.metrics)
            if on_progress is not None:
                on_progress(report)

        train(model, frames, lambda trained: evaluate(trained, reference, songs, FIXED_SEED), keep)
        nets = decoder_nets(model)
        for net in nets:
            net.eval().requires_grad_(False).zero_grad()
        self._nets = nets
        return last

    def encode(self, spectrogram: Array, hop: int | None = None) -> Array:
        """Latents [n_snippets, latent_dim] of a spectrogram [129, n_frames_total], in order.

        Repeats of the last frame fill up the last snippet. ``hop`` is the number of frames from a
        snippet to the next, from 1 to n_frames; None puts them end to end.
        """
        encoder, _ = self._fitted()
        checked = _checked(spectrogram, 1, "spectrogram")
        self._check_hop(hop)
        return encode_spectrogram(encoder, checked, self.n_frames, self.device, hop)

    def decode(self, latents: Array, hop: int | None = None) -> Array:
        """Spectrogram [129, (n_snippets - 1) * hop + n_frames] of latents [n_snippets, latent_dim].

        ``hop`` is that of `encode`: snippets that overlap are added, without seams.
        """
        _, generator = self._fitted()
        self._check_hop(hop)
        z = np.asarray(latents, np.float32)
        if z.ndim != 2 or len(z) == 0 or z.shape[1] != self.params.latent_dim:
            raise ValueError(
                f"latents has the shape {list(z.shape)}: this decoder takes [n_snippets, "
                f"{self.params.latent_dim}], at least one. Give what encode returns."
            )
        _check_finite(z, "latents")
        return decode_latents(generator, z, device=self.device, hop=hop)

    def sample(self, n: int, seed: int) -> Array:
        """``n`` snippets [n, 129, n_frames], decoded from latents drawn from the prior."""
        _, generator = self._fitted()
        if n < 1:
            raise ValueError(f"n is {n}: there is no snippet to sample. Give 1 or more.")
        p = self.params
        rng = torch.Generator().manual_seed(_checked_seed(seed))
        z = sample_prior(n, p.latent_dim, p.prior, p.prior_scale, rng)
        with torch.no_grad():
            # Batch norm keeps other statistics for the prior than for encoded latents.
            parts = [generator(batch.to(self.device), "prior").cpu() for batch in z.split(BATCH)]
        snippets: Array = torch.cat(parts)[:, 0].numpy()
        return snippets

    def save(self, folder: str | Path) -> None:
        """Write encoder, generator and model.json to ``folder``; make a missing folder."""
        folder = Path(folder)
        nets = self._fitted()
        folder.mkdir(parents=True, exist_ok=True)
        save_decoder_nets(*nets, self.shape, folder, {"params": asdict(self.params)})
        sync_folder(folder.parent)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> "Decoder":
        """Read what `save` wrote, or the folder best/ of a study.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the files are not whole, or another version wrote them.
        """
        encoder, generator, content = load_decoder(Path(folder))
        params = content.get("params", {})
        known = {field.name for field in fields(MdganParams)}
        if params.keys() != known:
            raise ValueError(
                f"{Path(folder) / 'model.json'}: its params differ from the params of this version "
                f"by {', '.join(sorted(params.keys() ^ known))}: another version wrote it. "
                "Use that version, or train again."
            )
        decoder = cls(MdganParams(**params), content["shape"]["n_frames"], device)
        decoder._nets = (encoder.to(device), generator.to(device))
        return decoder

    def _check_hop(self, hop: int | None) -> None:
        if hop is not None and not 1 <= hop <= self.n_frames:
            raise ValueError(
                f"hop is {hop}: snippets of {self.n_frames} frames hold every frame with a hop "
                f"from 1 to {self.n_frames}. Give one of these, or None for snippets end to end."
            )

    def _fitted(self) -> tuple[Encoder, Generator]:
        if self._nets is None:
            raise RuntimeError("This decoder has not been trained: call fit first, or use load.")
        return self._nets


def _checked_seed(seed: int) -> int:
    """The seed as an int; refuse one that numpy, scikit-learn or torch would refuse later."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}: give a whole number from 0 to {2**32 - 1}.")
    return int(seed)


def _joined(
    has_sound: Sequence[NDArray[np.bool_]] | None, spectrograms: Sequence[Array]
) -> NDArray[np.bool_]:
    """The answers for all frames end to end; none where nobody told."""
    if has_sound is None:
        return np.zeros(0, np.bool_)
    if len(has_sound) != len(spectrograms):
        raise ValueError(
            f"has_sound is of {len(has_sound)} recordings, and there are {len(spectrograms)} "
            "spectrograms: give one array for each."
        )
    for i, (sound, spectrogram) in enumerate(zip(has_sound, spectrograms, strict=True)):
        n = np.shape(spectrogram)[-1]
        if np.shape(sound) != (n,):
            raise ValueError(
                f"has_sound[{i}] has the shape {list(np.shape(sound))}, and spectrograms[{i}] has "
                f"{n} frames: give one answer for each frame."
            )
    return np.concatenate([np.asarray(sound, np.bool_) for sound in has_sound])


def _frames_of(
    spectrograms: Sequence[Array],
    n_frames: int,
    name: str,
    device: str,
    balance: Balance | None = None,
) -> Frames:
    """All frames on ``device``; no snippet reaches over the end of its recording."""
    checked = _all_checked(spectrograms, n_frames, name)
    ends = np.cumsum([s.shape[1] for s in checked])
    starts = np.concatenate(
        [
            np.arange(end - s.shape[1], end - n_frames + 1)
            for s, end in zip(checked, ends, strict=True)
        ]
    )
    frames = np.concatenate(checked, axis=1).T.copy()
    return Frames(frames, starts, n_frames, torch.device(device), balance)


def _all_checked(spectrograms: Sequence[Array], n_frames: int, name: str) -> list[Array]:
    if len(spectrograms) == 0:
        raise ValueError(f"{name} is empty: give at least one spectrogram.")
    given: Any = spectrograms  # numpy's arrays are no Sequence to mypy
    if isinstance(given, np.ndarray) and given.ndim == 2:
        raise ValueError(
            f"{name} is one array of the shape {list(given.shape)}: give a list of "
            "spectrograms, one for each recording, for a single one [spectrogram]."
        )
    return [_checked(s, n_frames, f"{name}[{i}]") for i, s in enumerate(spectrograms)]


def _checked(spectrogram: Array, least_frames: int, name: str) -> Array:
    """The spectrogram as float32; refuse one with faults or with less than ``least_frames``."""
    s = np.asarray(spectrogram, np.float32)
    if s.ndim != 2 or s.shape[0] != N_FREQ:
        raise ValueError(
            f"{name} has the shape {list(s.shape)}: a spectrogram is [{N_FREQ}, n_frames_total], "
            f"{N_FREQ} frequencies by an STFT of {2 * (N_FREQ - 1)} points. Compute it so, or "
            "transpose it."
        )
    if s.shape[1] < least_frames:
        raise ValueError(
            f"{name} has {s.shape[1]} frames: at least {least_frames} are needed. Leave it out, or "
            "give a longer recording."
        )
    _check_finite(s, name)
    if s.min() < 0:
        raise ValueError(
            f"{name} holds {s.min():.4g}: log(1 + magnitude) is never negative. Give "
            "np.log1p(np.abs(stft)), not dB."
        )
    return s


def _check_finite(array: Array, name: str) -> None:
    n_bad = int((~np.isfinite(array)).sum())
    if n_bad:
        raise ValueError(
            f"{name} holds {n_bad} numbers that are not finite: look for gaps or faults in its "
            "recording, and leave it out."
        )
