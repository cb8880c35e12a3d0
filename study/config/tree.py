"""The configuration of a study: one typed tree.

Defaults, units and checks of a leaf are beside the code that it steers; reader.py reads it.
"""

import dataclasses
import json
import re
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from data_io.aviary.params import AviaryParams
from data_io.files import digest
from data_io.names.ages import DateOrder
from data_io.names.listing import Layout
from data_io.recordings.reading import ReadParams
from data_io.recordings.table import TRAINING
from data_io.snippets import SnippetParams
from data_io.spectrogram import SpectrogramParams
from models.checks.params import ChecksParams
from models.hmm import HmmParams
from models.mdgan.params import MdganParams
from study.config.ranges import check_ranges
from study.config.search import SearchConfig
from study.config.space import SpaceEntry, check_values

N_SEEDS = 2**32  # scikit-learn and numpy's older generators take no more
MOST_GPUS = 1000  # of a trial
MOST_CHARS = 100  # of a name; with what is added to it, file systems take 255

MAX_CHANNELS = 1024  # of libsndfile
DecoderScope = Literal["all", "bird", "bird_and_age", "chained"]


@dataclass(frozen=True)
class DataConfig:
    """Source of the recordings.

    Attributes:
        dir: folder of recordings; null simulates birds.
        layout: of the folder: bird/age, bird (the age comes from the names of the files), age (the
            folder is one bird); auto tells it from the names.
        date_order: of the names of folders such as 041912: ymd, mdy or dmy; auto takes the order
            in which all of them are dates.
        channel: that is used of files with several, from 1.
        longest_recording_s: a longer file is cut at silences into pieces that count as recordings.
        simulation: the simulated birds.
    """

    dir: str | None = None
    layout: Layout = "auto"
    date_order: DateOrder = "auto"
    channel: int = 1
    longest_recording_s: float = 60.0
    simulation: AviaryParams = field(default_factory=AviaryParams)

    def __post_init__(self) -> None:
        if not 1 <= self.channel <= MAX_CHANNELS:
            raise ValueError(
                f"channel is {self.channel}: channels are counted from 1, to {MAX_CHANNELS}."
            )
        if not 10 <= self.longest_recording_s <= 600:
            raise ValueError(
                f"longest_recording_s is {self.longest_recording_s}: it must lie between 10 and "
                "600 s; longer recordings would not fit in memory."
            )


@dataclass(frozen=True)
class DecodersConfig:
    """The decoders of a study, and whom each serves.

    Attributes:
        scope: "all" (the best trial's decoder serves every bird and age), "bird" (one per bird),
            "bird_and_age" (one per bird and age) or "chained" (the same, with ages in order;
            each starts from the weights of the age before). The last three are trained after the
            search, with the best trial's parameters.
        n_snippets: snippets that each sees in training; null for mdgan.n_snippets.
    """

    scope: DecoderScope = "all"
    n_snippets: int | None = None

    @property
    def is_by_age(self) -> bool:
        """True if every age has its own decoder, and so its own latent space."""
        return self.scope in ("bird_and_age", "chained")


@dataclass(frozen=True)
class ResourcesConfig:
    """Resources of the cluster that trials and tasks take.

    Attributes:
        cpus_per_trial: cores, and threads, of a trial.
        gpus_per_trial: GPUs of a trial; a fraction (1/2, 1/3, ...) lets trials share one; auto
            measures how much memory a trial takes and shares accordingly.
        max_concurrent_trials: trials at once; null for as many as fit.
        gpus_per_encode: GPUs of an encoding task.
        max_tasks: tasks of the other stages (reading, decoders, encoding, HMMs, songs, figures)
            that run at once, in the whole cluster; null for as many as there are cores. Lower it
            where memory runs out.
    """

    cpus_per_trial: int = 1
    gpus_per_trial: float | Literal["auto"] = 0.0
    max_concurrent_trials: int | None = None
    gpus_per_encode: float = 0.0
    max_tasks: int | None = None

    def __post_init__(self) -> None:
        most = {"max_concurrent_trials": (1, 10**6), "max_tasks": (1, 10**6)}
        check_ranges(self, {"cpus_per_trial": (1, 10**4), **most})
        for name in ("gpus_per_trial", "gpus_per_encode"):
            gpus = getattr(self, name)
            if gpus == "auto":
                continue
            if not 0 <= gpus <= MOST_GPUS or (gpus > 1 and gpus != int(gpus)):
                raise ValueError(
                    f"{name} is {gpus}: give 0, a fraction up to 1, or a whole number of GPUs, "
                    f"{MOST_GPUS} or less."
                )

    @property
    def wants_gpus(self) -> bool:
        """Whether anything uses GPUs, where there are any."""
        return bool(self.gpus_per_trial or self.gpus_per_encode)


@dataclass(frozen=True)
class SongsConfig:
    """The songs to look at and listen to.

    Attributes:
        seconds: length of each, at most.
        griffin_lim_iterations: more give cleaner sound; they begin at phases that are near already
            (`data_io.phases`), and 32 take about a 27th of the time that the song lasts.
        n_in_report: birds and ages whose songs are inside report.html; all are in songs/.
    """

    seconds: float = 4.0
    griffin_lim_iterations: int = 32
    n_in_report: int = 12

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "seconds": (0.01, 600),
                "griffin_lim_iterations": (1, 10**4),
                "n_in_report": (0, 1000),
            },
        )


@dataclass(frozen=True)
class StudyConfig:
    """The whole configuration of a study; it decides every number.

    Attributes:
        name: of the study, its run folder and its MLflow experiment.
        seed: all random numbers follow from it.
    """

    name: str = "demo"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    spectrogram: SpectrogramParams = field(default_factory=SpectrogramParams)
    snippets: SnippetParams = field(default_factory=SnippetParams)
    mdgan: MdganParams = field(default_factory=MdganParams)
    search: SearchConfig = field(default_factory=SearchConfig)
    decoders: DecodersConfig = field(default_factory=DecodersConfig)
    hmm: HmmParams = field(default_factory=HmmParams)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    checks: ChecksParams = field(default_factory=ChecksParams)
    songs: SongsConfig = field(default_factory=SongsConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(
                f"name is {self.name!r}: it names a folder; use letters, digits, '.', '_' and '-'."
            )
        if len(self.name) > MOST_CHARS:
            raise ValueError(
                f"name is {self.name[:20]}... with {len(self.name)} characters: it names a folder; "
                f"use {MOST_CHARS} or less."
            )
        if not 0 <= self.seed < N_SEEDS:
            raise ValueError(
                f"seed is {self.seed}: random numbers of all stages take seeds from 0 to "
                f"{N_SEEDS - 1}. Choose one of these; a date without its time of day is one."
            )
        m = self.mdgan
        try:
            m.shape(self.snippets.n_frames)
        except ValueError as error:
            raise ValueError(f"mdgan and snippets do not give networks: {error}") from error
        try:
            check_values(self.search.space, m)
        except ValueError as error:
            raise ValueError(f"search.{error}") from error
        self._check_lengths()
        if self.decoders.n_snippets is not None:
            try:
                dataclasses.replace(m, n_snippets=self.decoders.n_snippets)
            except ValueError as error:
                raise ValueError(f"decoders.{error}") from error
        for name in ("is_chained", "shared_states"):
            if self.decoders.is_by_age and getattr(self.hmm, name):
                raise ValueError(
                    f"decoders.scope is {self.decoders.scope} and hmm.{name} is true: every age "
                    "then has its own latents, and states of another age mean nothing in them. "
                    f"Set hmm.{name}=false, or decoders.scope to all or bird."
                )

    def _check_lengths(self) -> None:
        """Check rates and lengths of sound against each other."""
        rate, hop = self.spectrogram.sample_rate_hz, self.spectrogram.hop_length
        if not 4000 <= rate <= 192_000:
            raise ValueError(
                f"spectrogram.sample_rate_hz is {rate}: song lies between 500 and 8000 Hz, and "
                "recorders go up to 192000. Choose a rate from 4000 to 192000; 16000 is usual."
            )
        if hop > self.spectrogram.n_fft // 2:
            raise ValueError(
                f"spectrogram.hop_length is {hop}: windows of {self.spectrogram.n_fft} samples "
                "must overlap by half, or sound is lost between them. Choose "
                f"{self.spectrogram.n_fft // 2} or less; 64 is usual."
            )
        snippet_s = self.snippets.n_frames * self.spectrogram.frame_s
        if self.songs.seconds < snippet_s:
            raise ValueError(
                f"songs.seconds is {self.songs.seconds}: it is shorter than one snippet "
                f"({snippet_s:g} s). Raise it."
            )

    def max_frames(self, side: str) -> int:
        """Most frames to load from one side of the split."""
        frames = int(60 * self.snippets.max_minutes / self.spectrogram.frame_s)
        return frames if side == TRAINING else frames // 4

    @property
    def reading(self) -> ReadParams:
        """How recordings are read."""
        return ReadParams(
            channel=self.data.channel,
            longest_s=self.data.longest_recording_s,
            min_seconds=self.snippets.n_frames * self.spectrogram.frame_s,
            spectrogram=self.spectrogram,
        )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain dictionaries, lists, numbers and text."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(_plain(self))))

    @property
    def sha256(self) -> str:
        """Hash of the resolved configuration."""
        return digest(self.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, SpaceEntry):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


_IN_WORDS: dict[DecoderScope, str] = {
    "all": "one for all birds and ages",
    "bird": "one for each bird",
    "bird_and_age": "one for each bird and age",
    "chained": "one for each bird and age, started from the decoder of the age before",
}


def scope_in_words(scope: DecoderScope) -> str:
    """The scope of decoders, as a person reads it."""
    return _IN_WORDS[scope]
