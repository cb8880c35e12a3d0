"""What simulated latents are like, and how much of them there is."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from models.hmm.params import CovarianceType

Separation = Literal["accuracy", "distance"]


@dataclass(frozen=True)
class LatentParams:
    """A hidden Markov model of latents, and how much song it sings.

    Attributes:
        n_states: number of states, silent ones included.
        latent_dim: numbers in a latent.
        n_snippets: of all songs together, exactly.
        n_songs: sequences; each has a snippet at least.
        length_variation: standard deviation of the lengths of songs, as a share of their mean;
            0 makes them equal, to one snippet.
        separation: how far states lie from one another.
        separated_by: what separation is. "accuracy": Bayes accuracy, the share of snippets whose
            state `LatentSongs.model` itself names rightly; means are moved apart until it is met.
            "distance": standard deviation of the means of states in every dimension, in standard
            deviations of the noise.
        stickiness: a state stays by this much, beside what it stays by chance.
        order: 1, or 2: what follows a state depends on the one before it too. Pairs of states are
            as frequent as in the chain of order 1 of the same seed.
        covariance_type: "spherical" (variance 1), "diag", "tied" or "full". The mean variance of
            a sounding state is 1 in all.
        condition: largest variance of a state by its smallest, along its own axes; not for
            spherical.
        silence_share: share of snippets in silent states, which divide it evenly.
        n_silent: silent states: the first ones. They lie about one place, nearer to one another by
            as much as they are narrower: they are told apart as other states are.
        silence_variance: of silent states, where sounding ones have 1.
        rarest: share of the rarest sounding state by that of the commonest; shares fall
            geometrically between. 1 leaves them as the transitions give them, unequal by chance.
        t_df: degrees of freedom of Student's t noise of variance 1, above 2; None for normal.
        ar: correlation of the noise of one snippet and the next; 0 for none.
        overlap: snippets that share noise, as windows of sound do that overlap: the noise of a
            snippet is the mean of so many draws, one of them new, made variance 1 again. 1 for
            none.
    """

    n_states: int = 10
    latent_dim: int = 16
    n_snippets: int = 5_000
    n_songs: int = 46
    length_variation: float = 0.5
    separation: float = 0.95
    separated_by: Separation = "accuracy"
    stickiness: float = 0.5
    order: int = 1
    covariance_type: CovarianceType = "spherical"
    condition: float = 10.0
    silence_share: float = 0.0
    n_silent: int = 0
    silence_variance: float = 0.02
    rarest: float = 1.0
    t_df: float | None = None
    ar: float = 0.0
    overlap: int = 1

    def __post_init__(self) -> None:
        for name, most in (
            ("n_states", 1_000), ("latent_dim", 10_000), ("n_snippets", 10**9), ("n_songs", 10**9),
        ):  # fmt: skip
            _require(self, name, 1 <= getattr(self, name) <= most, f"give 1 to {most:,}")
        for name, is_possible, remedy in (
            ("length_variation", 0 <= self.length_variation <= 10, "give 0 to 10"),
            ("separated_by", self.separated_by in get_args(Separation),
             f"choose one of {', '.join(get_args(Separation))}"),
            ("separation", 0 < self.separation < (1 if self.separated_by == "accuracy" else 1e6),
             "an accuracy lies between 0 and 1, a distance above 0 and below 1,000,000"),
            ("stickiness", 0 <= self.stickiness <= 0.999, "give 0 to 0.999"),
            ("order", self.order in (1, 2), "choose 1 or 2"),
            ("covariance_type", self.covariance_type in get_args(CovarianceType),
             f"choose one of {', '.join(get_args(CovarianceType))}"),
            ("condition", 1 <= self.condition <= 1e6, "give 1 to 1,000,000"),
            ("silence_share", self.silence_share == 0 or 1e-6 <= self.silence_share <= 0.999,
             "give 0, or 0.000001 to 0.999: something must sound"),
            ("silence_variance", 1e-6 <= self.silence_variance <= 1, "give 0.000001 to 1"),
            ("rarest", 1e-6 <= self.rarest <= 1, "give 0.000001 to 1"),
            ("t_df", self.t_df is None or 2 < self.t_df < math.inf,
             "it must be above 2, where the variance is finite; None gives normal noise"),
            ("overlap", 1 <= self.overlap <= 1_000, "give 1 to 1,000"),
            ("ar", -1 < self.ar < 1, "give a number between -1 and 1; elsewhere noise has no end"),
        ):  # fmt: skip
            _require(self, name, is_possible, remedy)
        self._check_together()

    def _check_together(self) -> None:
        if self.n_snippets < self.n_songs:
            raise ValueError(
                f"n_snippets is {self.n_snippets:,} for {self.n_songs:,} songs, and a song has a "
                "snippet at least: raise n_snippets, or lower n_songs."
            )
        if self.order == 2 and self.n_states == 1:
            raise ValueError("order is 2 with one state, which remembers nothing: give more.")
        if not 0 <= self.n_silent < self.n_states:
            raise ValueError(
                f"n_silent is {self.n_silent} of {self.n_states} states: give 0 or more, and fewer "
                "than n_states."
            )
        if (self.silence_share > 0) != (self.n_silent > 0):
            raise ValueError(
                f"silence_share is {self.silence_share} and n_silent is {self.n_silent}: silence "
                "needs states, and silent states a share. Give both, or 0 for both."
            )
        if self.overlap > 1 and self.ar:
            raise ValueError(
                f"overlap is {self.overlap} and ar is {self.ar}: noise is correlated by one of "
                "them. Give overlap 1, or ar 0."
            )
        if self.n_silent and self.covariance_type == "tied":
            raise ValueError(
                "covariance_type is tied with silence, whose variance is its own: choose "
                "spherical, diag or full, or silence_share 0."
            )


def _require(params: LatentParams, name: str, is_possible: bool, remedy: str) -> None:
    if not is_possible:  # also where a value is NaN
        raise ValueError(f"{name} is {getattr(params, name)!r}: {remedy}.")
