"""Whether the sound of a file can be used, and what a person should know of it.

A reason never denies what is in the file, and names numbers. Levels are peaks about the mean, in
dB of full scale (dBFS). What is told from the samples alone, and could be otherwise, is said with
"perhaps". Not told: a file that was upsampled, which has its missing frequencies in the
spectrogram only; numbers on half the scale, which look like the mean of two channels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_io.recordings.table import BETWEEN_REMARKS
from data_io.sound.channel import Channel
from data_io.sound.channel_flags import (
    GAP_S,
    IMPOSSIBLE,
    QUIET_DB,
    Facts,
    channel_flags,
    decibels,
    impossible,
)

Floats = NDArray[np.float32]

LOUDER_DB = 12.0  # more than the channel that is used


@dataclass(frozen=True)
class Verdict:
    """Whether a recording is used.

    Attributes:
        status: ok, flagged (used, but look at the reason) or skipped (not used).
        reason: empty if ok.
    """

    status: Literal["ok", "flagged", "skipped"]
    reason: str


class Checks:
    """The checks of one file, whose samples come in blocks.

    Memory does not grow with the file: 4 MB a channel at most, of which little is touched.

    Args:
        facts: from the file's header.
        channel: the one that is used, counted from 1.
        study_rate_hz: sample rate of the study's spectrograms; they show frequencies up to half.
        min_seconds: a shorter recording is skipped.
    """

    def __init__(
        self, facts: Facts, channel: int = 1, study_rate_hz: int = 16_000, min_seconds: float = 0.0
    ) -> None:
        self._facts = facts
        self._number = channel
        self._study_rate_hz = study_rate_hz
        self._min_seconds = min_seconds
        shortest_gap = int(GAP_S * facts.sample_rate_hz)
        self._channels = [Channel(shortest_gap) for _ in range(facts.n_channels)]
        self._differs = [False] * facts.n_channels  # from the channel that is used

    def add(self, block: Floats) -> None:
        """Take the next samples [n, n_channels] on the scale on which full scale is 1.

        Raises:
            ValueError: the block has another shape.
        """
        if block.ndim != 2 or block.shape[1] != len(self._channels):
            raise ValueError(
                f"a block has the shape {block.shape}; the file has {len(self._channels)} "
                "channels: give [n_samples, n_channels]"
            )
        columns = [np.ascontiguousarray(block[:, k], np.float32) for k in range(block.shape[1])]
        for channel, column in zip(self._channels, columns, strict=True):
            channel.add(column)
        if self._number <= len(columns):
            used = columns[self._number - 1]
            for k, column in enumerate(columns):
                if column is not used and not self._differs[k]:
                    self._differs[k] = not np.array_equal(column, used)

    def finish(self) -> Verdict:
        """Judge what has come."""
        if self._number > len(self._channels):
            return Verdict(
                "skipped",
                f"the file has {_count(len(self._channels), 'channel')}: data.channel="
                f"{self._number} is not in it",
            )
        used = self._channels[self._number - 1]
        refusal = self._refusal(used)
        if refusal:
            return Verdict("skipped", refusal)
        flags = [
            *self._header_flags(used),
            *self._others(used),
            *channel_flags(used, self._facts),
        ]
        return Verdict("flagged" if flags else "ok", BETWEEN_REMARKS.join(flags))

    def _refusal(self, used: Channel) -> str:
        """Why the recording cannot be used, or nothing."""
        rate = self._facts.sample_rate_hz
        if used.n == 0:
            return "the file holds no samples"
        if used.n / rate < self._min_seconds:
            return f"{used.n / rate:.3f} s is shorter than one snippet ({self._min_seconds:.3f} s)"
        if used.n_bad:
            reason = (
                f"{used.n_bad:,} samples are not finite numbers (NaN or infinite), the first at "
                f"{used.first_bad / rate:.3f} s"
            )
        elif used.is_constant:
            reason = "silent: every sample is 0"
            if not used.is_silent:
                reason = f"constant: every sample is {used.high:.4g}"
        elif used.extreme > IMPOSSIBLE:
            reason = impossible(used)
        else:
            return ""
        if len(self._channels) == 1:
            return reason
        others = [k for k in self._numbers() if _varies(self._channels[k - 1])]
        if others:
            best = max(others, key=lambda k: self._channels[k - 1].peak)
            advice = f"{self._levels(others)}: use it by data.channel={best}"
        else:
            advice = "every other channel is silent or holds what is no number"
        return f"channel {self._number} of {len(self._channels)}: {reason}; {advice}"

    def _header_flags(self, used: Channel) -> list[str]:
        """What the header says and the samples do not, or the study wants and the header denies."""
        facts, flags = self._facts, list(self._facts.remarks)
        if facts.missing_samples:
            promised = facts.n_samples + facts.missing_samples
            flags.append(
                f"cut short: the header promises {promised} samples, the file holds "
                f"{facts.n_samples}"
            )
        if used.n != facts.n_samples:
            flags.append(f"{used.n} samples could be decoded, the header says {facts.n_samples}")
        if facts.sample_rate_hz < self._study_rate_hz:
            flags.append(
                f"sample rate {facts.sample_rate_hz:,} Hz: nothing above "
                f"{facts.sample_rate_hz / 2:,.7g} Hz is in the file, and the study looks up to "
                f"{self._study_rate_hz / 2:,.7g} Hz"
            )
        return flags

    def _numbers(self) -> list[int]:
        """The channels that are not used, counted from 1."""
        return [k for k in range(1, len(self._channels) + 1) if k != self._number]

    def _levels(self, numbers: list[int]) -> str:
        """'channel 2 holds sound (peak -6.0 dBFS)', for several the loudest."""
        best = max(numbers, key=lambda k: self._channels[k - 1].peak)
        level = f"peak {decibels(self._channels[best - 1].peak):.1f} dBFS"
        if len(numbers) == 1:
            return f"channel {best} holds sound ({level})"
        return f"{_names(numbers)} hold sound, the loudest is channel {best} ({level})"

    def _others(self, used: Channel) -> list[str]:
        """Which of several channels is used, and what the others hold."""
        if len(self._channels) == 1:
            return []
        others: dict[str, list[int]] = {"same": [], "sound": [], "quiet": [], "silent": [], "": []}
        for k in self._numbers():
            other = self._channels[k - 1]
            if not self._differs[k - 1]:
                kind = "same"
            elif other.n_bad:
                kind = ""
            elif other.is_constant:
                kind = "silent"
            else:
                kind = "sound" if decibels(other.peak) >= QUIET_DB else "quiet"
            others[kind].append(k)
        said = [
            f"{len(self._channels)} channels: channel {self._number} is used "
            f"(peak {decibels(used.peak):.1f} dBFS)"
        ]
        if others["sound"]:
            best = max(others["sound"], key=lambda k: self._channels[k - 1].peak)
            louder = decibels(self._channels[best - 1].peak) - decibels(used.peak)
            much = f", {louder:.0f} dB louder" if louder >= LOUDER_DB else ""
            said.append(f"{self._levels(others['sound'])}{much}: data.channel={best} uses it")
        words = {
            "same": "the same samples",
            "quiet": f"hardly any sound (peak below {QUIET_DB:.0f} dBFS)",
            "silent": "one value only (silent)",
            "": "samples that are not finite numbers",
        }
        for kind, what in words.items():
            if others[kind]:
                holds = "holds" if len(others[kind]) == 1 else "hold"
                said.append(f"{_names(others[kind])} {holds} {what}")
        return [", ".join(said)]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _varies(channel: Channel) -> bool:
    return not channel.n_bad and not channel.is_constant


def _names(numbers: list[int]) -> str:
    """'channel 2', 'channels 2, 3 and 5'."""
    words = [str(number) for number in numbers]
    if len(words) == 1:
        return f"channel {words[0]}"
    return f"channels {', '.join(words[:-1])} and {words[-1]}"
