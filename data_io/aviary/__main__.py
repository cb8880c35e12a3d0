"""The command `python -m data_io.aviary`: simulate birds."""

import argparse
import sys
import time
from pathlib import Path

import pyarrow.compute as pc

from data_io.aviary.params import AviaryParams
from data_io.aviary.truth import (
    AGES_FILE,
    BIRDS_FILE,
    RECORDINGS_FILE,
    SOUNDS_FILE,
    DayTruth,
)
from data_io.aviary.write import simulate_aviary
from data_io.names.birds_table import BIRDS_CSV


def _ages(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of ages: give whole days and commas, as in 45,60,90"
        ) from None


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range: give the shortest and the longest, as in 2,20"
        ) from None
    return low, high


def main(arguments: list[str] | None = None) -> int:
    """Simulate what the command line asks for; return 0, 2 where it cannot be done, or 130."""
    default = AviaryParams()
    parser = argparse.ArgumentParser(
        prog="python -m data_io.aviary",
        description="Write recordings of simulated birds, and the truth about them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a fresh folder")
    parser.add_argument("--birds", type=int, default=5, help="number of birds")
    parser.add_argument("--ages", type=_ages, default="35,45,60,90", help="days post hatch")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each bird and age")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same bytes")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--recording-s", type=_range, metavar="SHORTEST,LONGEST",
                        default=",".join(f"{s:g}" for s in default.recording_s),
                        help="length of a recording in seconds")  # fmt: skip
    options = parser.parse_args(arguments)
    start = time.monotonic()
    seconds = 0.0
    n_recordings = 0

    def show(bird: str, dph: int, day: DayTruth) -> None:
        nonlocal seconds, n_recordings
        n_recordings += len(day.recordings)
        seconds += pc.sum(day.recordings["seconds"]).as_py()
        print(f"{bird} at {dph} dph: {len(day.recordings)} recordings, {len(day.sounds)} sounds")

    try:
        params = AviaryParams(
            n_birds=options.birds,
            ages_dph=options.ages,
            minutes=options.minutes,
            recording_s=options.recording_s,
        )
        simulate_aviary(options.out, params, options.seed, options.jobs, show)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Nothing was kept.", file=sys.stderr)
        return 130
    took_s = time.monotonic() - start
    print(
        f"{options.out}: {n_recordings} recordings, {seconds / 60:.1f} minutes of sound, "
        f"in {took_s:.0f} s ({seconds / took_s:.0f} times real time), and {BIRDS_CSV}.\n"
        f"The truth is in {SOUNDS_FILE}, {RECORDINGS_FILE}, {AGES_FILE} and {BIRDS_FILE} there."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
