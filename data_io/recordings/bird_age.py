"""From the files of one bird and age to its recordings and stored spectrograms.

What an earlier start stored of a file that is as it was is taken over.
"""

import datetime
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from data_io.files import FOR_NOW
from data_io.names.ages import natural
from data_io.names.dating import FLAGS
from data_io.recordings.reading import (
    Checked,
    ReadParams,
    check_file,
    check_source,
    transform,
    why_unread,
)
from data_io.recordings.table import BETWEEN_REMARKS, SAME_FILE, Recording, Recordings
from data_io.sound.file import BadSoundError
from data_io.sound.same_sound import SoundAnchors, contained
from data_io.sounding import (
    Energies,
    Frames,
    frame_energy_db,
    gain_of,
    has_sound,
    noise_floor_db,
    reference_level,
)
from data_io.spectrogram import SpectrogramParams
from data_io.store import (
    FORMAT_VERSION,
    Stored,
    partition,
    read_anchors,
    read_stored,
    spectrogram_facts,
    write_spectrograms,
)

MIN_RECORDINGS = 3  # one for each side of the split
MIN_PIECE_S = 2.0  # a bout of song; shorter pieces would cut motifs
SAME_SOUND = "its sound lies in "
# Reasons to skip a file that hold for one start alone: another file, or the system.
NOT_KEPT = (SAME_FILE, SAME_SOUND, FOR_NOW)
NO_SOUND = "no frame holds sound: nothing stands out above the noise floor"


@dataclass(frozen=True)
class Before:
    """What an earlier start stored of a bird and age.

    Attributes:
        folder: of all its spectrograms.
        recordings: of the bird and age.
    """

    folder: Path
    recordings: Recordings

    def serves(self, listed: Recordings, params: ReadParams) -> bool:
        """Whether all of it can be taken over: the files are as they were, and so is ``params``.

        A recording that was skipped for a reason of `NOT_KEPT` is checked anew.
        """
        again = any(
            reason.startswith(NOT_KEPT)
            for reason in pc.unique(self.recordings.table["reason"]).to_pylist()
        )
        now, then = _listed_facts(listed), _listed_facts(self.recordings)
        is_same = now.keys() == then.keys() and all(
            facts.agree_with(then[file]) for file, facts in now.items()
        )
        return is_same and not again and self.fits(params)

    def fits(self, params: ReadParams) -> bool:
        """Whether its spectrograms are there, and were made as ``params`` makes them."""
        bird_age = self.recordings.birds_and_ages()[0]
        if not partition(self.folder, *bird_age).is_file():
            return False
        facts = spectrogram_facts(self.folder, *bird_age)
        wanted = {"format_version": FORMAT_VERSION, "read": asdict(params)}
        return wanted.items() <= facts.items()

    def files(self) -> dict[str, Checked]:
        """Every file whose check holds still, by its path."""
        anchors = read_anchors(self.folder, *self.recordings.birds_and_ages()[0])
        rows_of: dict[str, list[Recording]] = {}
        for row in self.recordings:
            rows_of.setdefault(row.file, []).append(row)
        files = {}
        for file, rows in rows_of.items():
            first = rows[0]
            if first.is_used and all(row.path in anchors for row in rows):
                seconds = sum(row.seconds for row in rows)
                whole = replace(first, path=file, of_file="", start_s=0.0, seconds=seconds)
                whole = _without_remark(whole)
                files[file] = Checked(whole, *anchors[first.path], tuple(rows))
            elif not first.is_used and not first.reason.startswith(NOT_KEPT):
                files[file] = Checked(first)
        return files


class _ListedFacts(NamedTuple):
    """What the listing of a folder says of a file: its state, and what names tell."""

    n_bytes: int
    mtime_ns: int
    dph: int | None
    date: str | None
    recorded_at: datetime.datetime | None
    status: str
    reason: str

    def agree_with(self, then: "_ListedFacts") -> bool:
        """Whether the facts of an earlier start hold still."""
        # What is skipped has lost its flags; a header may have told the time.
        return (
            self[:4] == then[:4]
            and self.recorded_at in (None, then.recorded_at)
            and (then.status == "skipped" or self.reason == _flags_of_names(then.reason))
        )


def _listed_facts(recordings: Recordings) -> dict[str, _ListedFacts]:
    """Of each file, by its path."""
    columns = (recordings.table[name].to_pylist() for name in _ListedFacts._fields)
    files = (of_file or path for path, of_file in zip(
        *(recordings.table[name].to_pylist() for name in ("path", "of_file")), strict=True
    ))  # fmt: skip
    return dict(
        zip(files, itertools.starmap(_ListedFacts, zip(*columns, strict=True)), strict=True)
    )


def _flags_of_names(reason: str, others: bool = False) -> str:
    """The remarks of a recording that its name and folder earned; or all ``others``."""
    remarks = reason.split(BETWEEN_REMARKS)
    return BETWEEN_REMARKS.join(r for r in remarks if r.startswith(FLAGS) != others)


def _listed_anew(old: Recording, listed: Recording) -> Recording:
    """A recording of an earlier start, with what the listing says of its file now."""
    facts = replace(
        old,
        dph=listed.dph,
        date=listed.date,
        recorded_at=listed.recorded_at or old.recorded_at,
    )
    return facts.flagged([listed.reason, _flags_of_names(old.reason, others=True)])


def _of_now(old: Checked, listed: Recording) -> Checked:
    """What an earlier start found in a file, with what the listing says of it now."""
    if not old.recording.is_used:
        return old
    rows = tuple(_listed_anew(row, listed) for row in old.stored)
    return replace(old, recording=_listed_anew(old.recording, listed), stored=rows)


def read_bird_age(
    root: Path,
    listed: Recordings,
    params: ReadParams,
    folder: Path | None,
    before: Before | None = None,
) -> Recordings:
    """Check the recordings of one bird and age, and store their spectrograms.

    Where fewer than `MIN_RECORDINGS` can be used, they are cut into pieces, so that the bird and
    age can be split.

    Args:
        root: data folder.
        listed: the files of the bird and age.
        params: how they are read.
        folder: of all spectrograms; None only checks.
        before: what an earlier start stored of them, to be taken over where a file is as it was.

    Returns:
        Every recording with all facts but the side of the split.

    Raises:
        BrokenFileError: what an earlier start stored was altered.
    """
    if before is not None and not before.fits(params):
        before = None
    known = {} if before is None else before.files()
    checked = []
    for file in listed:
        old = known.get(file.path)
        is_same = old and _states_of(old.recording) == _states_of(file)
        checked.append(_of_now(old, file) if old and is_same else check_file(root, file, params))
    checked = _skip_same(checked)
    rows = [one.recording for one in checked if not one.recording.is_used]
    used = [one for one in checked if one.recording.is_used]
    if folder is None:
        rows += [one.recording for one in used]
    elif used:
        rows += _store(root, used, params, folder, before)
    return Recordings.from_rows(rows)


def _states_of(recording: Recording) -> tuple[int, int]:
    return recording.n_bytes, recording.mtime_ns


def _skip_same(checked: list[Checked]) -> list[Checked]:
    """Skip files whose sound lies in another one, so that none is on two sides of the split."""
    # "song copy.wav" is the copy of "song.wav", whatever their order.
    by_name = sorted(checked, key=_stem)
    first_with: dict[str, str] = {}
    for one in by_name:
        first_with.setdefault(one.recording.sha256, one.recording.path)
    found = []
    for one in checked:
        original = first_with[one.recording.sha256]
        is_copy = one.recording.is_used and original != one.recording.path
        found.append(Checked(one.recording.skipped(SAME_FILE + original)) if is_copy else one)
    inside = contained(
        SoundAnchors(r.path, r.seconds, r.sample_rate_hz or 0, one.anchors, one.anchors_at)
        for one in sorted(found, key=_stem)
        if (r := one.recording).is_used
    )
    for i, one in enumerate(found):
        if other := inside.get(one.recording.path):
            path, start_s = other
            reason = f"{SAME_SOUND}{path} from {start_s:.3f} s on"
            found[i] = Checked(one.recording.skipped(reason))
    return found


def _stem(one: Checked) -> str:
    """The name without its suffix, in natural order: "song" comes before "song copy"."""
    return natural(one.recording.path.rpartition(".")[0])


def _store(
    root: Path, used: list[Checked], params: ReadParams, folder: Path, before: Before | None
) -> list[Recording]:
    """Write the spectrograms of one bird and age; give its recordings, with levels."""
    bird_age = used[0].recording.bird, used[0].recording.age
    cut = params
    if len(used) < MIN_RECORDINGS:
        total_s = sum(one.recording.seconds for one in used)
        finer = max(MIN_PIECE_S, total_s / (2 * MIN_RECORDINGS))
        cut = replace(params, longest_s=min(params.longest_s, finer))
    can_take_over = _can_take_over(before, used, cut)
    is_stored = [can_take_over and bool(one.stored) for one in used]
    rows: list[Recording] = []
    lost: list[Recording] = []
    energies: list[Energies] = []
    sounding: list[Frames] = []
    facts: dict[str, Any] = {"read": asdict(params), "cut_s": cut.longest_s}

    def stored() -> Iterator[Stored]:
        kept = {row.path for one in used for row in one.stored}
        old = read_stored(before.folder, *bird_age, kept) if before and any(is_stored) else None
        for one, there in zip(used, is_stored, strict=True):
            made = transform(root, one, cut)
            if old and there:
                made = _as_stored(one, old, params)
            n_before = len(rows)
            try:
                if one.stored and not there:  # its check was taken over by size and time alone
                    check_source(root, one.recording)
                for recording, magnitudes, energy_db in made:
                    rows.append(recording)
                    energies.append(energy_db)
                    yield magnitudes
            except (BadSoundError, OSError) as error:  # recorders move and delete their files
                del rows[n_before:], energies[n_before:]
                why = why_unread(error, "cannot be read any more: ")
                lost.append(one.recording.skipped(why))
        levels, frames = _levels(energies, params.spectrogram)
        facts.update(levels)
        sounding.extend(frames)

    write_spectrograms(folder, *bird_age, stored(), facts)
    return lost + [
        _with_level(row, float(is_sounding.sum() * params.spectrogram.frame_s), facts)
        for row, is_sounding in zip(rows, sounding, strict=True)
    ]


def _can_take_over(before: Before | None, used: list[Checked], cut: ReadParams) -> bool:
    """Whether old spectrograms are cut in the same way and come in the same order."""
    if before is None:
        return False
    wanted = [row.path for one in used for row in one.stored]
    there = before.recordings.column("path")
    if list(there[np.isin(there, wanted)]) != wanted:  # other times were read from the names
        return False
    bird_age = used[0].recording.bird, used[0].recording.age
    return bool(spectrogram_facts(before.folder, *bird_age)["cut_s"] == cut.longest_s)


def _as_stored(
    one: Checked, old: Iterator[Stored], params: ReadParams
) -> Iterator[tuple[Recording, Stored, Energies]]:
    """The recordings of a file from the old spectrograms, which have the same order."""
    for recording, stored in zip(one.stored, old, strict=False):
        assert recording.path == stored.recording
        yield (
            _without_remark(recording),
            stored,
            frame_energy_db(stored.magnitude, params.spectrogram),
        )


def _levels(
    energies: list[Energies], params: SpectrogramParams
) -> tuple[dict[str, float | None], list[Frames]]:
    """Facts on the level of a bird and age, and the frames of each recording that hold sound."""
    none: Energies = np.zeros(0, np.float32)
    all_of_them = np.concatenate([none, *energies])
    floor = noise_floor_db(all_of_them)
    sounding = [has_sound(energy_db, floor, params.frame_s) for energy_db in energies]
    level = reference_level(all_of_them, np.concatenate([none.astype(bool), *sounding]))
    gain = gain_of(level, params)
    return {"noise_floor_db": floor, "reference_level": level, "gain": gain}, sounding


def _with_level(row: Recording, sound_s: float, facts: dict[str, Any]) -> Recording:
    row = replace(
        row,
        sound_s=round(sound_s, 6),
        reference_level=facts["reference_level"] or 0.0,
        noise_floor_db=facts["noise_floor_db"],
    )
    if sound_s or row.of_file:  # a long file may well have a silent piece
        return row
    remark = f"{NO_SOUND} ({row.noise_floor_db:.0f} dB)"
    return row.flagged([row.reason, remark])


def _without_remark(row: Recording) -> Recording:
    """The recording without the remark on its level, which is made anew."""
    remarks = row.reason.split(BETWEEN_REMARKS)
    return row.flagged(r for r in remarks if not r.startswith(NO_SOUND))
