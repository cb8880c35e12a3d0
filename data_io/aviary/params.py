"""What is simulated: birds, ages, the room, and how song develops."""

import math
from dataclasses import dataclass

YEAR_DAYS = 365  # a tutor is so much older than its pupils
_LIGHT_MINUTES = 660.0  # of the 12 hours of light; the rest is between the recordings
_OLDEST_DPH = 3650 - YEAR_DAYS  # the tutor's own age is an age of the project, too


def _require(name: str, value: float, low: float, high: float, cause: str) -> None:
    """Raise ValueError unless ``low <= value <= high`` (NaN is refused too)."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}: {cause}; choose a value from {low:g} to {high:g}")


@dataclass(frozen=True)
class Curve:
    """Variability over age: ``adult + (young - adult) / (1 + exp((dph - middle) / width))``.

    Attributes:
        middle_dph: Age half way between young and adult, above 0.
        width_days: From 88 to 12 % of the way it takes four of these, above 0.
        adult: Variability that a grown bird keeps, 0 to 1.
        young: Variability of the youngest, ``adult`` to 1.
    """

    middle_dph: float
    width_days: float
    adult: float
    young: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a curve that rises or leaves 0 to 1 (ValueError)."""
        _require("middle_dph", self.middle_dph, 1.0, 3650.0, "an age counts from hatching")
        _require("width_days", self.width_days, 0.1, 1000.0, "a curve needs days to fall")
        _require("adult", self.adult, 0.0, 1.0, "variability is a share")
        _require("young", self.young, self.adult, 1.0, "variability never rises with age")

    def at(self, dph: float) -> float:
        """Variability at an age in days post hatch; part days count."""
        # tanh does not overflow, however far the age lies from the middle.
        share = 0.5 - 0.5 * math.tanh(0.5 * (dph - self.middle_dph) / self.width_days)
        return self.adult + (self.young - self.adult) * share


@dataclass(frozen=True)
class AviaryParams:
    """The birds to simulate; all that is planted in their recordings.

    Every bird depends on these, on the seed and on its own number alone. Shares are 0 to 1.

    Attributes:
        n_birds: Number of birds, 1 to 1000; every five hold two pupils, their tutor, an
            untutored bird and one that does not change.
        ages_dph: Ages in days post hatch, 1 to 3285, none twice; the order means nothing.
        minutes: Of recordings for each bird and age, silence included.
        recording_s: Shortest and longest recording, 1 to 600 s.
        sample_rates_hz: Bird i has the i-th, round and round; 16000 to 192000 Hz.
        n_syllables: Fewest and most syllable types of a bird, 4 to 7; a pupil has as many as
            its tutor, and one more between the age that adds one and the age that drops one.
        silence_share: Of a bird's recordings; each bird's own is drawn from this range.
        noise_db: Noise of the room above 500 Hz (RMS) against a loud syllable (RMS).
        hum_hz: Frequency of the mains, 10 to 200 Hz.
        hum_db: Hum and its harmonics below 400 Hz (RMS) against the noise of the room.
        cage_noises_per_minute: Mean number of wing flaps, clicks and thumps.
        calls_share: Of the bird's own sounds: so many are calls.
        introductory_notes: Mean number before a bout, at least 1.
        gain_db: Each bird's own is drawn from this range, -60 to 0.
        gain_day_sd_db: The gain moves by so much from day to day.
        gain_step_db: Added at the unchanging bird from its gain-step age on.
        noise_step_db: Added to the room of the tutor from its noise-step age on.
        copied_share: Of the tutor's syllable types: so many a pupil copies (rounded).
        repeats: Fewest and most times in a row of a repeated syllable; all equally likely.
        branching: Chance of a grown bird to skip the second syllable of its motif.
        morning_lag_days: Song at lights on is as mature as that of so many days before; 0 at
            lights off, linear between (Brudner et al. 2023).
        untutored_adult: Variability of sound, timing and order that an untutored bird keeps.
        sound: Variability of sound over age.
        timing: Of durations and gaps.
        order: Of the order of syllables.
    """

    n_birds: int = 3
    ages_dph: tuple[int, ...] = (45, 60, 75, 90)
    minutes: float = 1.0
    recording_s: tuple[float, float] = (2.0, 20.0)
    sample_rates_hz: tuple[int, ...] = (44_100, 32_000, 22_050, 48_000)
    n_syllables: tuple[int, int] = (4, 7)
    silence_share: tuple[float, float] = (0.4, 0.6)
    noise_db: float = -34.0
    hum_hz: float = 50.0
    hum_db: float = 6.0
    cage_noises_per_minute: float = 3.0
    calls_share: float = 0.1
    introductory_notes: float = 2.5
    gain_db: tuple[float, float] = (-20.0, 0.0)
    gain_day_sd_db: float = 1.0
    gain_step_db: float = 12.0
    noise_step_db: float = 9.0
    copied_share: float = 0.75
    repeats: tuple[int, int] = (3, 6)
    branching: float = 0.25
    morning_lag_days: float = 3.0
    untutored_adult: float = 0.5
    sound: Curve = Curve(58.0, 7.0, adult=0.03)
    timing: Curve = Curve(64.0, 7.0, adult=0.03)
    order: Curve = Curve(70.0, 7.0, adult=0.02)

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return 60.0 * self.minutes * self.n_birds * len(self.ages_dph)

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated (ValueError: value, cause, remedy)."""
        _require("n_birds", self.n_birds, 1, 1000, "there is no song without a bird")
        for dph in self.ages_dph:
            _require(
                "ages_dph",
                dph,
                1,
                _OLDEST_DPH,
                "hatching is day 0, a tutor a year older",
            )
        if not self.ages_dph or len(set(self.ages_dph)) < len(self.ages_dph):
            raise ValueError(
                f"ages_dph is {self.ages_dph}: each age has a folder of its own; "
                "give at least one age, and none twice"
            )
        _require_range("recording_s", self.recording_s, 1.0, 600.0, "a bout needs a second")
        _require("minutes", self.minutes, 0.0, _LIGHT_MINUTES, "a day has 12 hours of light")
        if 3 * self.recording_s[1] > self.minutes * 60.0:
            raise ValueError(
                f"minutes is {self.minutes}: training, selection and report need a recording "
                f"each, and one may be {self.recording_s[1]:g} s long; give at least "
                f"{3 * self.recording_s[1] / 60.0:g} minutes or shorter recording_s"
            )
        if not self.sample_rates_hz:
            raise ValueError("sample_rates_hz is (): a WAV file needs one; give at least one")
        for rate in self.sample_rates_hz:
            _require("sample_rates_hz", rate, 16_000, 192_000, "song reaches 8 kHz")
        _require_range("n_syllables", self.n_syllables, 4, 7, "second-order song needs four types")
        _require_range("silence_share", self.silence_share, 0.2, 0.9, "song itself has gaps")
        _require_range("gain_db", self.gain_db, -60.0, 0.0, "16 bits hold 96 dB")
        _require_range("repeats", self.repeats, 2, 20, "a repeat is at least two in a row")
        self._require_single_values()

    def _require_single_values(self) -> None:
        _require("noise_db", self.noise_db, -80.0, 0.0, "song is louder than the room")
        _require("hum_hz", self.hum_hz, 10.0, 200.0, "mains hum at 50 or 60 Hz")
        _require("hum_db", self.hum_db, -60.0, 40.0, "hum is measured against the noise")
        _require("cage_noises_per_minute", self.cage_noises_per_minute, 0.0, 60.0, "a mean number")
        _require("calls_share", self.calls_share, 0.0, 0.5, "most of the sounds are song")
        _require("introductory_notes", self.introductory_notes, 1.0, 10.0, "one at least")
        _require("gain_day_sd_db", self.gain_day_sd_db, 0.0, 10.0, "a spread")
        _require("gain_step_db", self.gain_step_db, -40.0, 40.0, "16 bits hold 96 dB")
        _require("noise_step_db", self.noise_step_db, -40.0, 40.0, "song must be heard")
        _require("copied_share", self.copied_share, 0.0, 1.0, "a share")
        _require("branching", self.branching, 0.0, 0.5, "most motifs are whole")
        _require("morning_lag_days", self.morning_lag_days, 0.0, 30.0, "days of development")
        _require("untutored_adult", self.untutored_adult, 0.0, 1.0, "variability is a share")


def _require_range(
    name: str, value: tuple[float, float], low: float, high: float, cause: str
) -> None:
    """Raise ValueError unless ``value`` is a lower and an upper end between the limits."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{name} is {value}: {cause}; choose a lower and an upper end from {low:g} to {high:g}"
        )
