"""The timetable of a day: which recordings are made of a bird, when, and how they are called."""

import datetime
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from data_io.aviary.birds import Bird
from data_io.aviary.params import AviaryParams

LIGHTS_ON, LIGHTS_OFF = datetime.time(7), datetime.time(19)
_LIGHT_S = 12 * 3600.0
_SAP_DAY_0 = datetime.date(1899, 12, 30)  # from which Sound Analysis Pro counts days


@dataclass(frozen=True)
class Slot:
    """One recording of the timetable.

    Attributes:
        path: relative to the root, with forward slashes.
        recorded_at: local time at which it begins, to the millisecond.
        n_samples: its length.
        part_of_day: 0 at lights on, 1 at lights off.
    """

    path: str
    recorded_at: datetime.datetime
    n_samples: int
    part_of_day: float


def timetable(rng: Generator, params: AviaryParams, bird: Bird, dph: int) -> list[Slot]:
    """Draw the recordings of one day, in order of time; together they last ``params.minutes``."""
    rate = bird.sample_rate_hz
    lengths = _lengths(rng, params, rate)
    free_s = _LIGHT_S - lengths.sum() / rate
    # Birds sing in clusters: short pauses within one, long pauses between.
    n = len(lengths)
    pauses = np.where(rng.uniform(size=n + 1) < 0.3, 50.0, 1.0) * rng.gamma(2.0, size=n + 1)
    pauses[[0, n]] += 20.0 * rng.uniform(size=2)  # before the first song, after the last
    starts_s = np.cumsum(pauses[:n]) * (free_s / pauses.sum())
    starts_s[1:] += np.cumsum(lengths[:-1]) / rate
    lights_on = datetime.datetime.combine(bird.recorded_on(dph), LIGHTS_ON)
    return [
        _slot(bird.name, dph, lights_on, int(start_s * 1000.0), int(length))
        for start_s, length in zip(starts_s, lengths, strict=True)
    ]


def sap_name(bird: str, recorded_at: datetime.datetime) -> str:
    """Return the name that Sound Analysis Pro gives a recording.

    ``sim1_43362.23322048_9_19_6_28_42.wav``: serial day, milliseconds since midnight, then month,
    day, hour, minute, second.
    """
    midnight = datetime.datetime.combine(recorded_at.date(), datetime.time())
    ms = (recorded_at - midnight) // datetime.timedelta(milliseconds=1)
    at = recorded_at
    serial = (at.date() - _SAP_DAY_0).days
    clock = f"{at.month}_{at.day}_{at.hour}_{at.minute}_{at.second}"
    return f"{bird}_{serial}.{ms:08d}_{clock}.wav"


def _slot(bird: str, dph: int, lights_on: datetime.datetime, ms: int, n_samples: int) -> Slot:
    """Return the recording that begins ``ms`` milliseconds after lights on."""
    recorded_at = lights_on + datetime.timedelta(milliseconds=ms)
    path = f"{bird}/{dph}/songs/{sap_name(bird, recorded_at)}"
    return Slot(path, recorded_at, n_samples, ms / (1000.0 * _LIGHT_S))


def _lengths(rng: Generator, params: AviaryParams, rate: int) -> npt.NDArray[np.int64]:
    """Draw lengths in samples: many short, few long, in their range, with the sum that is set."""
    total = round(params.minutes * 60.0 * rate)
    shortest, longest = (round(seconds * rate) for seconds in params.recording_s)
    n = round(total / np.sqrt(shortest * longest))
    n = min(max(n, -(-total // longest)), total // shortest)
    weights = np.exp(0.7 * rng.standard_normal(n))
    low, high = 0.0, longest / weights.min()
    for _ in range(60):  # the scale at which the clipped lengths have the sum
        scale = (low + high) / 2.0
        if np.clip(scale * weights, shortest, longest).sum() < total:
            low = scale
        else:
            high = scale
    lengths: npt.NDArray[np.int64] = np.clip(scale * weights, shortest, longest).astype(np.int64)
    # Rounding has lost less than a sample of each; who has room takes one back.
    has_room = np.flatnonzero(lengths < longest)
    lengths[has_room[: total - lengths.sum()]] += 1
    return lengths
