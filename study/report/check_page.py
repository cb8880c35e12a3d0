"""The page of a checked folder: counts per bird and age, and each doubtful file as a picture."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from data_io.files import atomic_file  # noqa: E402
from data_io.names.ages import age_order  # noqa: E402
from data_io.names.listing import Survey  # noqa: E402
from data_io.recordings.reading import read_sound  # noqa: E402
from data_io.recordings.reasons import kind_of, reasons  # noqa: E402
from data_io.recordings.table import Recording, Recordings  # noqa: E402
from data_io.sound.file import BadSoundError  # noqa: E402
from data_io.spectrogram import SpectrogramParams, log_spectrogram, resample  # noqa: E402

MAX_THUMBNAILS = 200
THUMBNAIL_S = 10.0  # of each file: its beginning
WIDTH_PX, HEIGHT_PX = 320, 64


@dataclass(frozen=True)
class Thumbnail:
    """The picture of one file.

    Attributes:
        recording: flagged or skipped.
        png: its spectrogram; empty where there is no sound to draw.
        seconds: that the picture shows.
    """

    recording: Recording
    png: bytes
    seconds: float


def choose_doubtful(recordings: Recordings, n: int = MAX_THUMBNAILS) -> Recordings:
    """At most ``n`` flagged and skipped recordings: one of every kind of reason, then another."""
    doubtful = recordings.where(recordings.column("status") != "ok")
    n_before: dict[str, int] = {}
    turns = []
    for reason in doubtful.column("reason"):
        kind = kind_of(reason)
        turns.append(n_before.get(kind, 0))
        n_before[kind] = turns[-1] + 1
    return doubtful.taken(np.argsort(np.array(turns, np.int64), kind="stable")[:n])


def draw_thumbnail(
    root: Path, recording: Recording, channel: int, params: SpectrogramParams
) -> Thumbnail:
    """Draw the beginning of a file; without a picture where its sound cannot be read."""
    try:
        waveform, rate = read_sound(root, recording, channel, THUMBNAIL_S)
    except (BadSoundError, OSError):
        return Thumbnail(recording, b"", 0.0)
    waveform = np.nan_to_num(waveform, posinf=0, neginf=0)
    if len(waveform) < rate * params.n_fft / params.sample_rate_hz:
        return Thumbnail(recording, b"", 0.0)
    peak = float(np.abs(waveform).max()) or 1.0  # the picture shows a quiet file as well
    sound = resample(waveform / peak, rate, params)
    picture = _shrunk(log_spectrogram(sound, params.sample_rate_hz, params))
    top = float(np.quantile(picture, 0.995)) or 1.0
    buffer = io.BytesIO()
    plt.imsave(buffer, picture[::-1], cmap="gray_r", vmin=0, vmax=top, format="png")
    return Thumbnail(recording, buffer.getvalue(), len(waveform) / rate)


def _shrunk(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest value of each block of pixels, so that a short click stays to be seen."""
    picture = picture[: 2 * HEIGHT_PX]
    n = -(-picture.shape[1] // WIDTH_PX)
    n_columns = picture.shape[1] // n
    blocks = picture[:, : n_columns * n].reshape(HEIGHT_PX, 2, n_columns, n)
    shrunk: NDArray[np.float32] = blocks.max(axis=(1, 3))
    return shrunk


def write_check_page(
    path: Path, found: Survey, recordings: Recordings, thumbnails: list[Thumbnail], top_hz: float
) -> None:
    """Write the page, one file without others; ``top_hz`` is the upper edge of the pictures."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Names come from folders; no name may become markup.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    status = recordings.column("status")
    page = environment.get_template("check.html.j2").render(
        root=found.root,
        counts={name: int((status == name).sum()) for name in ("ok", "flagged", "skipped")},
        minutes=f"{recordings.used.column('seconds').sum() / 60:,.1f}",
        notes=found.notes,
        reasons=reasons(recordings),
        birds=_counts(recordings),
        thumbnails=[
            {
                "path": one.recording.path,
                "status": one.recording.status,
                "reason": one.recording.reason,
                "seconds": f"{one.seconds:.1f}",
                "png": base64.b64encode(one.png).decode(),
            }
            for one in thumbnails
        ],
        n_doubtful=int((status != "ok").sum()),
        seconds=f"{THUMBNAIL_S:g}",
        top_khz=f"{top_hz / 1000:g}",
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, "utf-8")


def _counts(recordings: Recordings) -> list[dict[str, object]]:
    """Of each bird: its ages in order, with the numbers of recordings by status."""
    birds: dict[str, dict[str, dict[str, int]]] = {}
    for (bird, age), group in recordings.by_bird_age().items():
        status = group.column("status")
        cell = {name: int((status == name).sum()) for name in ("ok", "flagged", "skipped")}
        birds.setdefault(bird, {})[age] = cell | {"n": len(group)}
    most = max((cell["n"] for ages in birds.values() for cell in ages.values()), default=1)
    return [
        {
            "name": bird or "(no bird)",
            "ages": [
                {"age": age or "(no age)", **cell, "shade": round(cell["n"] / most, 3)}
                for age, cell in sorted(ages.items(), key=lambda item: age_order(item[0]))
            ],
        }
        for bird, ages in sorted(birds.items())
    ]
