"""How the variability of song falls with age and over the hours of a day."""

from dataclasses import dataclass, replace
from typing import Literal

from data_io.aviary.params import AviaryParams, Curve

Role = Literal["pupil", "tutor", "untutored", "unchanging"]


@dataclass(frozen=True)
class Variability:
    """How variable song is, each 0 to 1: 0 is the same each time, 1 is subsong.

    Attributes:
        sound: Of pitch, noise and loudness within a syllable type.
        timing: Of durations and gaps.
        order: Of the order of syllables.
    """

    sound: float
    timing: float
    order: float

    @property
    def maturity(self) -> float:
        """1 - mean of the three."""
        return 1.0 - (self.sound + self.timing + self.order) / 3.0


@dataclass(frozen=True)
class Development:
    """The curves of one bird.

    Attributes:
        sound: Variability of sound over age.
        timing: Of timing.
        order: Of order.
        morning_lag_days: Song at lights on is as mature as that of so many days before.
    """

    sound: Curve
    timing: Curve
    order: Curve
    morning_lag_days: float

    def effective_dph(self, dph: int, part_of_day: float) -> float:
        """Age of which sound and timing are at a part of the day.

        Args:
            dph: Age in days post hatch.
            part_of_day: 0 at lights on to 1 at lights off; other values raise ValueError.
        """
        if not 0.0 <= part_of_day <= 1.0:
            raise ValueError(
                f"part_of_day is {part_of_day}: a bird sings from lights on (0) to lights off "
                "(1); choose a value from 0 to 1"
            )
        return dph - self.morning_lag_days * (1.0 - part_of_day)

    def variability(self, dph: int, part_of_day: float = 1.0) -> Variability:
        """Variability at an age and part of the day, see `effective_dph`.

        Order has one value per day, so that the chain of a day is one chain.
        """
        effective_dph = self.effective_dph(dph, part_of_day)
        return Variability(
            self.sound.at(effective_dph), self.timing.at(effective_dph), self.order.at(dph)
        )


def development_of(role: Role, params: AviaryParams) -> Development:
    """Return the curves of a role.

    A pupil follows those of ``params``. An untutored bird keeps a variability of
    ``untutored_adult`` or more. Tutor and unchanging bird are grown up at every age and at every
    hour.
    """
    grown_up = role in ("tutor", "unchanging")

    def curve_of(pupils: Curve) -> Curve:
        if role == "untutored":
            adult = max(pupils.adult, params.untutored_adult)
            return replace(pupils, adult=adult, young=max(adult, pupils.young))
        return replace(pupils, young=pupils.adult) if grown_up else pupils

    return Development(
        sound=curve_of(params.sound),
        timing=curve_of(params.timing),
        order=curve_of(params.order),
        morning_lag_days=0.0 if grown_up else params.morning_lag_days,
    )
