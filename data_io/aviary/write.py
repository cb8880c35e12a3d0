"""Write simulated recordings, `birds.csv` and the truth about them."""

import csv
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import soundfile as sf
from numpy.random import default_rng

from data_io.aviary.birds import bird_names, birds_and_ages, hatch
from data_io.aviary.days import Slot, timetable
from data_io.aviary.params import AviaryParams
from data_io.aviary.room import Room, record, room_on
from data_io.aviary.singing import Sound, sing
from data_io.aviary.truth import RECORDINGS_SCHEMA, SOUNDS_SCHEMA, DayTruth, write_truth
from data_io.files import atomic_dir, atomic_file
from data_io.names.birds_table import BIRDS_CSV

Progress = Callable[[str, int, DayTruth], None]


def simulate_aviary(
    root: Path,
    params: AviaryParams,
    seed: int,
    jobs: int = 1,
    progress: Progress | None = None,
) -> None:
    """Write all birds at all ages, `birds.csv` and the tables of the truth to a fresh folder.

    One recording is in memory at a time, for each job. The folder appears when all is written.

    Args:
        root: Folder to write; receives ``<bird>/<dph>/songs/*.wav``.
        params: What to simulate.
        seed: Not negative; on one kind of machine it fixes the files, byte for byte, whatever the
            order of ages or the number of jobs.
        jobs: Processes that work side by side. With more than one, a script must guard its own
            start by ``if __name__ == "__main__"``.
        progress: Called with bird, age in dph and truth of each day that is written, in order.

    Raises:
        FileExistsError: ``root`` is there and not an empty folder.
        ValueError: the seed is negative, or ``jobs`` is below 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: somebody must do the work; choose 1 or more")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"{root} is there already: simulated and other recordings must not mix; name a folder "
            "that does not exist"
        )
    with atomic_dir(root) as folder:
        write_birds_csv(folder, params, seed)
        write_truth(folder, params, seed, _days(folder, params, seed, jobs, progress))


def write_birds_csv(root: Path, params: AviaryParams, seed: int) -> None:
    """Write hatching date, tutor and sex of every bird to ``<root>/birds.csv``."""
    with atomic_file(root / BIRDS_CSV) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["bird", "hatch_date", "tutor", "sex"])
        names = bird_names(params.n_birds)
        for name in names:
            bird = hatch(params, seed, name)
            # Few birds may end before a five's tutor: whoever is not recorded is not named.
            tutor = bird.tutor if bird.tutor in names else ""
            rows.writerow([name, bird.hatched.isoformat(), tutor, "male"])


def simulate_bird_age(root: Path, params: AviaryParams, seed: int, bird: str, dph: int) -> DayTruth:
    """Write the recordings of one bird at one age; may run beside others, in any order.

    Args:
        root: Folder that holds all birds.
        params: What to simulate.
        seed: Not negative; with bird, age and number of the recording it fixes every sample.
        bird: Its name, see `birds_and_ages`.
        dph: Its age in days post hatch; the tutor's own is a year more than its pupils'.

    Returns:
        The truth about the day.

    Raises:
        ValueError: there is no such bird, it is not recorded at this age, or the seed is
            negative.
    """
    singer = hatch(params, seed, bird)
    ages = [age for name, age in birds_and_ages(params) if name == bird]
    if dph not in ages:
        raise ValueError(
            f"dph is {dph}: {bird} is not recorded then; choose from {', '.join(map(str, ages))}"
        )
    rng = default_rng([seed, singer.number, dph, 0])
    room = room_on(rng, params, seed, singer, dph)
    chain = singer.chain(dph)
    rate = singer.sample_rate_hz
    common = {"bird": bird, "age": str(dph), "dph": dph}
    sound_rows: list[dict[str, Any]] = []
    recording_rows: list[dict[str, Any]] = []
    for number, slot in enumerate(timetable(rng, params, singer, dph), start=1):
        rng = default_rng([seed, singer.number, dph, number])
        variability = singer.variability(dph, slot.part_of_day)
        sounds = sing(rng, params, singer, chain, variability, slot.n_samples)
        path = root / slot.path
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, record(rng, room, sounds, slot.n_samples, rate), rate, subtype="PCM_16")
        own = common | {"recording": slot.path}
        sound_rows += [
            own | {"index": index} | _sound_row(sound, rate) for index, sound in enumerate(sounds)
        ]
        recording_rows.append(
            own
            | _recording_row(slot, sounds, room, rate)
            | {
                "effective_dph": singer.development.effective_dph(dph, slot.part_of_day),
                "sound_variability": variability.sound,
                "timing_variability": variability.timing,
            }
        )
    return DayTruth(
        pa.Table.from_pylist(sound_rows, SOUNDS_SCHEMA),
        pa.Table.from_pylist(recording_rows, RECORDINGS_SCHEMA),
    )


def _sound_row(sound: Sound, rate: int) -> dict[str, Any]:
    return {
        "kind": sound.kind,
        "label": sound.label,
        "onset_s": sound.onset / rate,
        "offset_s": (sound.onset + len(sound.samples)) / rate,
        "bout": sound.bout,
    }


def _recording_row(slot: Slot, sounds: list[Sound], room: Room, rate: int) -> dict[str, Any]:
    n_sounding = sum(len(sound.samples) for sound in sounds)
    return {
        "recorded_at": slot.recorded_at,
        "seconds": slot.n_samples / rate,
        "sample_rate_hz": rate,
        "silence_share": 1.0 - n_sounding / slot.n_samples,
        "gain_db": room.gain_db,
        "noise_db": room.noise_db,
        "hum_db": room.hum_db,
        "part_of_day": slot.part_of_day,
    }


def _days(
    root: Path, params: AviaryParams, seed: int, jobs: int, progress: Progress | None
) -> Iterator[DayTruth]:
    """Write the recordings of every day; give the truth about each, in the order of the tables."""
    wanted = birds_and_ages(params)
    arguments = [(root, params, seed, bird, dph) for bird, dph in wanted]
    if jobs == 1:
        days: Iterator[DayTruth] = map(_day, arguments)
        yield from _reported(wanted, days, progress)
        return
    # Spawned and not forked: a fork would copy the locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from _reported(wanted, pool.map(_day, arguments), progress)


def _day(arguments: tuple[Path, AviaryParams, int, str, int]) -> DayTruth:
    return simulate_bird_age(*arguments)


def _reported(
    wanted: list[tuple[str, int]], days: Iterator[DayTruth], progress: Progress | None
) -> Iterator[DayTruth]:
    for (bird, dph), day in zip(wanted, days, strict=True):
        if progress:
            progress(bird, dph, day)
        yield day
