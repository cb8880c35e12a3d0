"""Recordings that were read before: by a start that came to its end, or that was cut off."""

import dataclasses
from pathlib import Path

import numpy as np

from data_io.files import digest, kept_for, link
from data_io.recordings.bird_age import Before
from data_io.recordings.reading import ReadParams
from data_io.recordings.table import BirdAge, Recordings
from data_io.store import BrokenFileError, partition, read_recordings, write_recordings
from study import __version__
from study.base.paths import RunPaths


class _Earlier:
    """What an earlier start stored.

    Args:
        folder: of its spectrograms.
        recordings: that it read.
    """

    def __init__(self, folder: Path, recordings: Recordings) -> None:
        self._folder = folder
        self._recordings = recordings
        self._rows = recordings.rows_by_bird_age()

    def of(self, bird_age: BirdAge, listed: Recordings) -> Before | None:
        """What it stored of one bird and age, of which ``listed`` are the files now."""
        if bird_age not in self._rows:
            return None
        known = self._recordings.taken(self._rows[bird_age])
        # A file that was listed but could not be opened has no hash, nor has one that the listing
        # itself skips.
        is_listed = np.isin(known.column("path"), listed.column("path"))
        return Before(self._folder, known.where(is_listed | (known.column("sha256") != "")))


class ReadBefore:
    """Where spectrograms go, and what earlier starts stored.

    Birds and ages that are read lie in .reading/ until all are: their spectrograms, and then their
    rows, which make them count.

    Args:
        paths: of the run folder.
        out: folder of all spectrograms, which gets its name when it is whole.
        params: how recordings are read.
    """

    def __init__(self, paths: RunPaths, out: Path, params: ReadParams) -> None:
        key = digest({"version": __version__, **dataclasses.asdict(params)})[:16]
        kept = kept_for(paths.reading, key)
        self._out, self._params = out, params
        self.folder, self._rows = kept / "spectrograms", kept / "recordings"
        cut_off = Recordings.joined(map(_rows_of, sorted(self._rows.rglob("*.parquet"))))
        # Made by another version, or altered: all is read again.
        is_there = paths.recordings.is_file() and paths.spectrograms.is_dir()
        whole = _rows_of(paths.recordings) if is_there else Recordings.from_rows([])
        self._earlier = (_Earlier(self.folder, cut_off), _Earlier(paths.spectrograms, whole))

    def take_over(self, bird_age: BirdAge, listed: Recordings) -> Recordings | None:
        """Take over what an earlier start stored of a bird and age; None where files changed."""
        for earlier in self._earlier:
            before = earlier.of(bird_age, listed)
            if before is not None and before.serves(listed, self._params):
                link(partition(before.folder, *bird_age), partition(self._out, *bird_age))
                return before.recordings
        return None

    def before(self, bird_age: BirdAge, listed: Recordings) -> Before | None:
        """What the last start stored of a bird and age, some of whose files changed."""
        return next(filter(None, (one.of(bird_age, listed) for one in self._earlier)), None)

    def keep(self, bird_age: BirdAge, recordings: Recordings) -> None:
        """Keep a bird and age that was read into ``folder``."""
        write_recordings(partition(self._rows, *bird_age), recordings)
        link(partition(self.folder, *bird_age), partition(self._out, *bird_age))


def _rows_of(path: Path) -> Recordings:
    """Recordings in a table; none where it cannot be used."""
    try:
        return read_recordings(path)
    except BrokenFileError:
        return Recordings.from_rows([])
