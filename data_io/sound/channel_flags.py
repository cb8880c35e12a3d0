"""What a person should know of the sound of one channel, from its numbers."""

import math
from typing import Protocol

from data_io.sound.channel import Channel

STILL_S = 0.5  # no microphone gives a longer run of one value at the start or the end
GAP_S = 0.005  # nor such a run within a song; a buffer that a recorder loses is about as long
LOUD_STEPS = 4  # in a sound with a smaller RMS, in steps, runs of one value are natural
CLIPPED_SHARE = 1e-4  # of the samples, at a ceiling
# Below a ceiling lies much less than at it. A sine has 2.4 times as many samples in the uppermost
# thousandth as in the next, and up to 3.4 by the widths of our bins.
CEILING_RATIO = 5
FEW_STEPS = 8  # up to here one step holds much of any sound
NEARLY_ALL = 0.95
IMPOSSIBLE = 10.0  # times full scale
QUIET_DB = -60.0
FEW_BITS = 2.0**-8  # 8 bits or more above the peak are empty: the scale of narrower integers
UNUSED_BITS = 4
OFFSET = 0.02  # of full scale
HUGE_RMS = 0.5  # of full scale; uniform numbers have 0.58, as bytes in the wrong order give
FULL_SHARE = 0.05
WIDTHS = (8, 16, 24, 32)


class Facts(Protocol):
    """What the checks want to know from a file's header; `sound_file.SoundFacts` has it."""

    @property
    def coding(self) -> str:
        """PCM or float."""

    @property
    def bits(self) -> int:
        """Of a sample."""

    @property
    def sample_rate_hz(self) -> int:
        """Samples per second and channel."""

    @property
    def n_channels(self) -> int:
        """Channels."""

    @property
    def n_samples(self) -> int:
        """Samples per channel that the file holds."""

    @property
    def missing_samples(self) -> int:
        """Samples per channel that the header promises beyond those."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else a person should know of the header."""


def channel_flags(used: Channel, facts: Facts) -> list[str]:
    """Remarks on a channel that can be used."""
    return [
        *_scale_flags(used, facts),
        *_ceiling_flags(used, facts),
        *_offset_flags(used),
        *_still_flags(used, facts),
    ]


def decibels(level: float) -> float:
    """Of full scale."""
    return 20 * math.log10(level) if level > 0 else -math.inf


def _width(steps: float) -> int:
    """Bits of the narrowest usual integers that reach so many steps; 0 if none does."""
    return next((width for width in WIDTHS if steps <= 2 ** (width - 1)), 0)


def impossible(used: Channel) -> str:
    """What samples far beyond full scale may be."""
    reason = f"samples up to {used.extreme:,.0f}, full scale is 1.0"
    width = _width(used.extreme)
    if not width:
        return f"{reason}: the samples are damaged, or of another coding"
    whole = "all are whole numbers" if used.is_whole else "perhaps"
    joint = ", " if used.is_whole else " "
    middle = _middle_of_unsigned(used)
    if middle:
        return (
            f"{reason}: {whole}{joint}unsigned integers saved as floats; subtract {middle:,}, "
            f"divide them by {middle:,} and save the file again"
        )
    # What quiet numbers of more bits look like as well.
    quiet = ", or by 32,768 if they are quiet ones of 16 bits," if width == 8 else ""
    return (
        f"{reason}: {whole}{joint}{width}-bit integers saved as floats; divide them by "
        f"{2 ** (width - 1):,}{quiet} and save the file again"
    )


def _middle_of_unsigned(used: Channel) -> int:
    """The middle of the scale of unsigned integers, about which the samples lie; 0 if none."""
    middles = (2 ** (width - 1) for width in WIDTHS)
    return next((m for m in middles if used.low >= 0 and 0.9 < used.mean / m < 1.1), 0)


def _scale_flags(used: Channel, facts: Facts) -> list[str]:
    """Sound on a scale that is hardly possible."""
    flags = []
    peak, step, grain = used.peak, used.step, 2.0 ** (1 - facts.bits)
    is_integer = facts.coding == "PCM"
    if used.extreme > 1:
        whole = "; all are whole numbers, perhaps integers" if used.is_whole else ""
        flags.append(f"samples up to {used.extreme:.3g}, beyond full scale (1.0){whole}")
    elif peak <= FEW_BITS:
        unit = grain if is_integer else step
        narrow = _width(peak / unit) if unit else 0
        what = f"peak {decibels(peak):.1f} dBFS"
        if is_integer and narrow < facts.bits and step < grain * 2**UNUSED_BITS:
            flags.append(
                f"{what}, {math.ceil(peak / grain):,} of {2 ** (facts.bits - 1):,} steps: perhaps "
                f"{narrow}-bit numbers saved as {facts.bits}-bit integers"
            )
        elif not is_integer and narrow in (8, 16) and step < 2.0 ** (1 - narrow):
            # By chance all may be even: the divisor is one of those that people use.
            divisor = 2 ** (next(width for width in WIDTHS if step >= 2.0 ** (1 - width)) - 1)
            flags.append(
                f"{what}: perhaps {narrow}-bit numbers divided by {divisor:,} instead of "
                f"{2 ** (narrow - 1):,}"
            )
        elif decibels(peak) < QUIET_DB:
            below = " less than one step of 16-bit integers" if peak < 2.0**-15 else ""
            flags.append(f"{what}: hardly any sound{below and ',' + below}")
    unused = round(math.log2(step / grain)) if is_integer and step >= grain else 0
    if unused >= UNUSED_BITS and used.extreme >= 2 * step:
        flags.append(
            f"the header says {facts.bits} bits, the samples use {facts.bits - unused}: all are "
            f"multiples of {2**unused:,}"
        )
    return flags


def _ceiling_flags(used: Channel, facts: Facts) -> list[str]:
    """Clipped sound, at full scale or a lower ceiling; or sound that is too loud throughout."""
    grain = 2.0 ** (1 - facts.bits) if facts.coding == "PCM" else 0.0
    n_clipped, ceilings = 0, []
    for sign, ceiling in ((1, used.high), (-1, -used.low)):
        n_at, n_flat, n_below = used.at_ceiling(sign, grain)
        is_full = 1 - 1.5 * max(grain, 2.0**-15) <= ceiling <= 1
        # Elsewhere a row of three tells a flat top from waves whose samples meet their crest.
        n = n_at if is_full else n_flat
        is_clear = n > CEILING_RATIO * n_below and ceiling > FEW_STEPS * grain
        if is_clear and n >= CLIPPED_SHARE * used.n:
            n_clipped += n_at
            ceilings.append("full scale" if is_full else f"{sign * ceiling:.3g}")
    # Clipped song that is so loud has far more samples at full scale.
    is_huge = used.rms >= HUGE_RMS and 0.99 <= used.extreme <= 1  # louder is named by its scale
    if is_huge and n_clipped < FULL_SHARE * used.n:
        return [
            f"mean level {decibels(used.rms):.1f} dBFS, hardly possible for song: perhaps bytes "
            "are in the wrong order, or unsigned numbers were read as signed"
        ]
    if n_clipped:
        share = f"{100 * n_clipped / used.n:.3g} % of samples"
        where = " and ".join(dict.fromkeys(ceilings))
        is_all = n_clipped > NEARLY_ALL * used.n
        cause = "; perhaps unsigned numbers were read as signed" if is_all else ""
        return [f"clipped: {share} at {where}{cause}"]
    return []


def _offset_flags(used: Channel) -> list[str]:
    """A mean that is no sound."""
    size = abs(used.mean)
    if size >= OFFSET or (size > used.rms and size > OFFSET / 10):
        return [f"offset (DC) of {used.mean:+.3g}, the sound's RMS is {used.rms:.3g}"]
    return []


def _still_flags(used: Channel, facts: Facts) -> list[str]:
    """Runs of one value: at the ends, and where a recorder lost a buffer."""
    rate, flags = facts.sample_rate_hz, []
    for where, n, value in (
        ("first", used.n_first, used.first_value),
        ("last", used.n_last, used.last),
    ):
        if n > STILL_S * rate:
            what = "exact zeros" if value == 0 else f"one value ({value:.3g})"
            flags.append(f"the {where} {n / rate:.1f} s are {what}")
    grain = 2.0 ** (1 - facts.bits) if facts.coding == "PCM" else 0.0
    if used.rms <= LOUD_STEPS * grain:
        return flags
    for what, n_runs, n, first in (
        ("exact zeros", used.n_gaps, used.gap_samples, used.first_gap),
        (f"one value ({used.held_value:.3g})", used.n_held, used.held_samples, used.first_held),
    ):
        if n_runs:
            places = "" if n_runs == 1 else f", the first of {n_runs:,} such gaps"
            flags.append(
                f"{n / rate:.3f} s of {what} within the sound, from {first / rate:.3f} s on{places}"
            )
    return flags
