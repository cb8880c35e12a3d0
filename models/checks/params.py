"""How much is sampled and heard to check a model of songs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChecksParams:
    """How the model of each bird and age is checked against the real songs.

    Attributes:
        n_replicas: sets of songs that are sampled from the model, each of the real songs' lengths.
        n_snippets: snippets of a replica, at most; of a day with more, parts are drawn.
        sound_s: seconds of a replica that are decoded and heard, at most.
    """

    n_replicas: int = 10
    n_snippets: int = 20_000
    sound_s: float = 120.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("n_replicas", 5, 1000), ("n_snippets", 100, 10**7), ("sound_s", 1, 36_000),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: it must lie between {least:,} and {most:,}."
                )
