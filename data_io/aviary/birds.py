"""The roster of the aviary: who a bird is, what it sings and from whom it learned."""

import datetime
from dataclasses import dataclass

from numpy.random import Generator, default_rng

from data_io.aviary.development import Development, Role, Variability, development_of
from data_io.aviary.params import YEAR_DAYS, AviaryParams
from data_io.aviary.syllables import (
    DISTANCE_CALL,
    INTRODUCTORY,
    TET,
    SyllableType,
    draw_calls,
    draw_introductory,
    draw_types,
    resembling,
)
from data_io.aviary.syntax import Chain, SyntaxKind, motif_chain

# Every five birds: pupil of the second, tutor, untutored, unchanging, pupil of the second.
_ROLES: tuple[Role, ...] = ("pupil", "tutor", "untutored", "unchanging", "pupil")
_TUTOR = 2
_PUPILS_SYNTAX: tuple[SyntaxKind, ...] = ("first_order", "second_order", "repeats")
_FIRST_HATCHED = datetime.date(2018, 6, 1)
# Labels of a family mean one sound each, so that chains of pupil and tutor can be compared.
_LABELS = "abcdefg"
_PUPILS_LABELS = {1: "jklmnopq", 5: "rstuvwxy"}


@dataclass(frozen=True)
class Bird:
    """One simulated bird.

    Attributes:
        name: "sim1", "sim2" and so on.
        number: 1 for the first.
        role: pupil, tutor, untutored or unchanging.
        tutor: Name of the bird that it learned from; "" without one.
        syntax: first_order, second_order or repeats.
        hatched: Day 0 of its age.
        sample_rate_hz: Of its recordings.
        silence_share: Of its recordings.
        gain_db: Its own gain, -60 to 0; steps and days come on top.
        types: By label: all syllables that it ever sings, introductory notes and calls.
        gaps_s: By label of a syllable or introductory note: a grown bird's mean gap after it.
        motif: All syllables that it ever sings, in the order of a grown bird.
        copied: Those that it copied from its tutor.
        development: Its curves of variability.
        branching: Chance of a grown bird to skip the second syllable of its motif.
        repeats: Fewest and most times in a row, where the syntax is repeats.
        added: Label of a syllable sung from this dph on; None where none is added.
        dropped: Label of a syllable no longer sung from this dph on; None where none is.
        gain_step_dph: From this age on its recordings are louder; None where no step is.
        noise_step_dph: From this age on the room is noisier; None where no step is.
    """

    name: str
    number: int
    role: Role
    tutor: str
    syntax: SyntaxKind
    hatched: datetime.date
    sample_rate_hz: int
    silence_share: float
    gain_db: float
    types: dict[str, SyllableType]
    gaps_s: dict[str, float]
    motif: tuple[str, ...]
    copied: tuple[str, ...]
    development: Development
    branching: float
    repeats: tuple[int, int]
    added: tuple[str, int] | None
    dropped: tuple[str, int] | None
    gain_step_dph: int | None
    noise_step_dph: int | None

    @property
    def own(self) -> tuple[str, ...]:
        """Its syllables that no tutor sings, in the motif's order."""
        return tuple(label for label in self.motif if label not in self.copied)

    def repertoire(self, dph: int) -> tuple[str, ...]:
        """Labels of the syllables sung at an age, in the motif's order."""
        return tuple(label for label in self.motif if self._is_sung(label, dph))

    def chain(self, dph: int) -> Chain:
        """The chain of syllables at an age."""
        order = self.development.variability(dph).order
        return motif_chain(
            self.repertoire(dph), self.syntax, order, branching=self.branching, repeats=self.repeats
        )

    def variability(self, dph: int, part_of_day: float = 1.0) -> Variability:
        """Variability at an age; ``part_of_day`` is 0 at lights on and 1 at lights off."""
        return self.development.variability(dph, part_of_day)

    def recorded_on(self, dph: int) -> datetime.date:
        """The date at which the bird had this age."""
        return self.hatched + datetime.timedelta(days=dph)

    def _is_sung(self, label: str, dph: int) -> bool:
        if self.added and label == self.added[0]:
            return dph >= self.added[1]
        return not (self.dropped and label == self.dropped[0] and dph >= self.dropped[1])


def bird_names(n_birds: int) -> list[str]:
    """Return the names of the first ``n_birds`` birds: "sim1", "sim2" and so on."""
    return [f"sim{number}" for number in range(1, n_birds + 1)]


def birds_and_ages(params: AviaryParams) -> list[tuple[str, int]]:
    """Return every bird with every age in dph, by number of the bird, then by age.

    A tutor is recorded on the same days as its pupils, and is a year older.
    """
    return [
        (name, dph + (YEAR_DAYS if _role(number) == "tutor" else 0))
        for number, name in enumerate(bird_names(params.n_birds), start=1)
        for dph in sorted(params.ages_dph)
    ]


def hatch(params: AviaryParams, seed: int, name: str) -> Bird:
    """Draw a bird; cheap. It depends on nothing but the arguments, and not on ``n_birds``.

    Args:
        params: What is simulated.
        seed: Not negative.
        name: One of ``bird_names(params.n_birds)``.

    Raises:
        ValueError: There is no such bird, or the seed is negative.
    """
    names = bird_names(params.n_birds)
    if name not in names:
        raise ValueError(f"bird is {name!r}: not simulated; choose from {', '.join(names)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}: random numbers need 0 or more; choose such a seed")
    return _hatch(params, seed, names.index(name) + 1)


def tutor_of(params: AviaryParams, seed: int, bird: Bird) -> Bird | None:
    """Return a pupil's tutor, be it among the ``n_birds`` or not; None for other birds."""
    five = (bird.number - 1) // 5
    return _hatch(params, seed, 5 * five + _TUTOR) if bird.role == "pupil" else None


def _hatch(params: AviaryParams, seed: int, number: int) -> Bird:
    # Ages start at 1, so a bird can never share its random numbers with a recording.
    rng = default_rng([seed, number, 0, 0])
    role, n_fives = _role(number), (number - 1) // 5
    tutor = _hatch(params, seed, 5 * n_fives + _TUTOR) if role == "pupil" else None
    sorted_ages = sorted(params.ages_dph)
    silence_share, gain_db = rng.uniform(*params.silence_share), rng.uniform(*params.gain_db)
    types = {INTRODUCTORY: draw_introductory(rng)} | draw_calls(rng)
    gaps_s = {INTRODUCTORY: rng.uniform(0.06, 0.15)}
    added = dropped = None
    copied: tuple[str, ...] = ()
    if tutor:
        copied, own = _learn(rng, params, tutor, types, gaps_s, _PUPILS_LABELS[_place(number)])
        *early, late = own
        added, dropped = _changes(early[-1], late, sorted_ages)
        motif = (*copied, *early, *([late] if added else []))
    else:
        n_types = int(rng.integers(params.n_syllables[0], params.n_syllables[1] + 1))
        motif = tuple(_LABELS[:n_types])
        types |= draw_types(rng, motif)
        gaps_s |= _draw_gaps(rng, motif)
        gaps_s[motif[-1]] = rng.uniform(0.06, 0.15)  # from motif to motif
    step_dph = sorted_ages[len(sorted_ages) // 2] if len(sorted_ages) > 1 else None
    return Bird(
        name=f"sim{number}",
        number=number,
        role=role,
        tutor=tutor.name if tutor else "",
        syntax=_syntax(number),
        # All of a five are recorded on the same days.
        hatched=_FIRST_HATCHED
        + datetime.timedelta(days=n_fives - (YEAR_DAYS if role == "tutor" else 0)),
        sample_rate_hz=params.sample_rates_hz[(number - 1) % len(params.sample_rates_hz)],
        silence_share=silence_share,
        gain_db=gain_db,
        types={label: types[label] for label in (INTRODUCTORY, DISTANCE_CALL, TET, *motif)},
        gaps_s={label: gaps_s[label] for label in (INTRODUCTORY, *motif)},
        motif=motif,
        copied=copied,
        development=development_of(role, params),
        branching=params.branching,
        repeats=params.repeats,
        added=added,
        dropped=dropped,
        gain_step_dph=step_dph if role == "unchanging" else None,
        noise_step_dph=step_dph + YEAR_DAYS if step_dph and role == "tutor" else None,
    )


def _learn(
    rng: Generator,
    params: AviaryParams,
    tutor: Bird,
    types: dict[str, SyllableType],
    gaps_s: dict[str, float],
    labels: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add a pupil's syllables to ``types`` and ``gaps_s``; return labels of copied and of own.

    A pupil copies syllables that follow each other in the tutor's motif, and in their order. It
    has as many syllables as its tutor, one of its own at least, and one more to add later.
    """
    n_types = len(tutor.motif)
    n_copied = round(params.copied_share * n_types)
    first = int(rng.integers(n_types))
    copied = tuple(tutor.motif[(first + i) % n_types] for i in range(n_copied))
    own = tuple(labels[: max(n_types - n_copied, 1) + 1])
    for label in copied:
        types[label] = resembling(rng, tutor.types[label])
        gaps_s[label] = tutor.gaps_s[label] * rng.uniform(0.95, 1.05)
    types |= draw_types(rng, own)
    gaps_s |= _draw_gaps(rng, own)
    return copied, own


def _changes(
    early: str, late: str, sorted_ages: list[int]
) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """The syllable that a pupil adds and the one that it drops, each with its first dph.

    A third and two thirds of the ages on; never at the first age, and never both at one.
    """
    n = len(sorted_ages)
    added = (late, sorted_ages[max(n // 3, 1)]) if n > 1 else None
    dropped = (early, sorted_ages[max(2 * n // 3, 2)]) if n > 2 else None
    return added, dropped


def _draw_gaps(rng: Generator, labels: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(labels, rng.uniform(0.02, 0.06, len(labels)).tolist(), strict=True))


def _place(number: int) -> int:
    """Place of a bird in its five, from 1."""
    return (number - 1) % 5 + 1


def _role(number: int) -> Role:
    return _ROLES[_place(number) - 1]


def _syntax(number: int) -> SyntaxKind:
    role = _role(number)
    if role == "pupil":
        n_pupils_before = 2 * ((number - 1) // 5) + (_place(number) == 5)
        return _PUPILS_SYNTAX[n_pupils_before % len(_PUPILS_SYNTAX)]
    return "repeats" if role == "unchanging" else "first_order"
