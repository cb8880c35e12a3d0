"""The fits of all birds and ages, amounts and subsamples: one task each, kept when it is done."""

import dataclasses
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from data_io.files import BrokenSealError, digest, read_json, remove_leftovers, write_json
from data_io.names.ages import parse_age
from data_io.recordings.table import BirdAge
from models.hmm.params import in_words
from study import __version__
from study.base.console import Console, Progress, count
from study.base.seeds import bird_age_seed
from study.cluster.tasks import TaskRunner
from study.decoders.scope import without_decoder
from study.encode import recording_lengths, whitened_by_recording
from study.hmms.rows import Row, schema_of
from study.how_much.amounts import Amount, Song, amounts, song_of
from study.how_much.finished import Finished
from study.how_much.fit import Measured, fit_task
from study.how_much.truth import Named, Truth

Array = NDArray[np.float64]
Work = tuple[Song, Amount]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was fitted: the first columns of a row of curves.parquet.

    Attributes:
        bird: name.
        age: name of the age's folder.
        dph: age in days post hatch where the folder's name is a number.
        subsample: its number.
        halvings: of all the song there is; 0 is all of it.
        n_recordings: recordings.
        recorded_minutes: of them, silence included.
        sound_minutes: of sound in them.
        n_snippets: in them.
        n_held_out: recordings that were held out.
    """

    bird: str
    age: str
    dph: int | None
    subsample: int
    halvings: int
    n_recordings: int
    recorded_minutes: float
    sound_minutes: float
    n_snippets: int
    n_held_out: int


LISTS = pa.schema(
    [("held_out_nats", pa.list_(pa.float64())), ("held_out_snippets", pa.list_(pa.int64()))]
)
CURVES = pa.unify_schemas([schema_of(Fitted), schema_of(Measured), LISTS])


def songs_of(study: Finished) -> tuple[list[Song], dict[BirdAge, str]]:
    """The song of every bird and age, and why some have no curves."""
    left_out = without_decoder(study.config, study.paths, study.recordings)
    params, new_share = study.config.hmm, study.config.snippets.new_share
    songs = []
    for bird_age, recordings in study.recordings.by_bird_age().items():
        if bird_age in left_out:
            continue
        song = song_of(bird_age, recordings, recording_lengths(study.paths, bird_age), new_share)
        if not song.held_out:
            left_out[bird_age] = (
                "no recording is held out to measure on, because there are too few bouts"
            )
        elif not song.sound_minutes.sum():
            left_out[bird_age] = "no recording of the training side holds sound"
        elif len(amounts(song, params, 0, 0)) < 2:
            left_out[bird_age] = (
                f"{in_words(int(song.n_snippets.sum()), new_share)} of "
                f"{count(len(song.fitted), 'recording')} of the training side cannot be halved, "
                f"because a model takes {params.min_snippets} snippets and "
                f"{params.min_recordings} recordings (hmm.min_snippets, hmm.min_recordings)"
            )
        else:
            songs.append(song)
    return songs, left_out


class FanOut:
    """The fits of songs.

    Args:
        study: finished.
        kept: folder with one small file for each fit; those that are there are not fitted again.
        tasks: runs the others.
        console: shows progress.
    """

    def __init__(self, study: Finished, kept: Path, tasks: TaskRunner, console: Console):
        self._study = study
        self._kept = kept
        self._tasks = tasks
        self._console = console
        # The tasks of a bird and age follow each other: its latents are read once.
        self._latents = lru_cache(maxsize=1)(self._read_latents)
        self._truth = lru_cache(maxsize=1)(self._read_truth)

    def run(self, songs: list[Song], subsamples: list[int]) -> list[Row]:
        """Fit whatever is not kept; give a row of `CURVES` for every amount and subsample.

        They are in the order of ``songs``, each from the smallest amount to all.
        """
        self._kept.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._kept)
        work = [
            (song, amount)
            for song in sorted(songs, key=lambda one: -int(one.n_snippets.sum()))
            for amount in sorted(self._amounts(song, subsamples), key=lambda one: one.halvings)
        ]
        left = [item for item in work if self._load(item) is None]
        if len(left) < len(work):
            self._console.note(f"{len(work) - len(left):,} of {len(work):,} fits were done before")
        total = sum(map(_weight, left))
        progress = Progress(self._console, len(left), "fits")

        def keep(item: Work, measured: Measured) -> None:
            write_json(self._file(item), dataclasses.asdict(measured))
            progress.advance(1, _weight(item) / total)

        self._tasks.run(self._submit, left, keep, _describe)
        place = {song.bird_age: i for i, song in enumerate(songs)}
        work.sort(key=lambda item: (place[item[0].bird_age], -item[1].halvings, item[1].subsample))
        return [self._row(item) for item in work]

    def _amounts(self, song: Song, subsamples: list[int]) -> list[Amount]:
        config = self._study.config
        return [
            amount
            for subsample in subsamples
            for amount in amounts(song, config.hmm, config.seed, subsample)
        ]

    def _submit(self, item: Work) -> ray.ObjectRef:
        song, amount = item
        latents = self._latents(song.bird_age)
        chosen = [song.fitted[i] for i in amount.chosen]
        truth = self._truth(song.bird_age)
        return fit_task.remote(
            [latents[path] for path in chosen],
            [latents[path] for path in song.held_out],
            self._study.config.hmm,
            self._seed(item),
            song.new_share,
            None if truth is None else (truth[0], [truth[1][path] for path in chosen]),
        )

    def _seed(self, item: Work) -> int:
        """Seed of a search: one for all amounts of a subsample, so that their gains are paired."""
        song, amount = item
        of_bird = bird_age_seed(self._study.config.seed, song.bird_age)
        return int(np.random.SeedSequence([of_bird, amount.subsample]).generate_state(1)[0])

    def _read_latents(self, bird_age: BirdAge) -> dict[str, Array]:
        scope = self._study.config.decoders.scope
        return whitened_by_recording(self._study.paths, bird_age, scope)

    def _read_truth(self, bird_age: BirdAge) -> tuple[Truth, dict[str, Named]] | None:
        files = self._study.truth
        truth = None if files is None else files.of(bird_age)
        if files is None or truth is None:
            return None
        lengths = recording_lengths(self._study.paths, bird_age)
        return truth, files.named(bird_age, truth, lengths)

    def _file(self, item: Work) -> Path:
        """The file of a fit, named by all that it depends on."""
        song, amount = item
        content = [
            __version__, self._study.depends_on, dataclasses.asdict(self._study.config.hmm),
            [song.fitted[i] for i in amount.chosen], song.held_out, song.new_share,
            self._seed(item),
        ]  # fmt: skip
        return self._kept / f"{digest(content)[:32]}.json"

    def _load(self, item: Work) -> Measured | None:
        """What is kept of a fit; None where there is nothing, or a broken file."""
        path = self._file(item)
        try:
            content = read_json(path)
        except BrokenSealError as error:
            self._console.note(f"{path} {error.in_short}: the fit is done again")
            return None
        return None if content is None else Measured(**content)

    def _row(self, item: Work) -> Row:
        song, amount = item
        measured = self._load(item)
        assert measured is not None
        bird, age = song.bird_age
        chosen = list(amount.chosen)
        fitted = Fitted(
            bird=bird,
            age=age,
            dph=parse_age(age)[0],
            subsample=amount.subsample,
            halvings=amount.halvings,
            n_recordings=len(chosen),
            recorded_minutes=float(song.recorded_minutes[chosen].sum()),
            sound_minutes=float(song.sound_minutes[chosen].sum()),
            n_snippets=int(song.n_snippets[chosen].sum()),
            n_held_out=len(song.held_out),
        )
        return {**dataclasses.asdict(fitted), **dataclasses.asdict(measured)}


def _weight(item: Work) -> int:
    song, amount = item
    return int(song.n_snippets[list(amount.chosen)].sum())


def _describe(item: Work) -> str:
    song, amount = item
    bird, age = song.bird_age
    part = f"1/{2**amount.halvings} of the song" if amount.halvings else "all song"
    return f"The fit of {bird} at {age} to {part}, subsample {amount.subsample},"
