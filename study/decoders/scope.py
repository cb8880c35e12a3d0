"""Which decoder serves which bird and age.

Latents of different decoders lie in spaces of their own: they are whitened apart, and log L and BIC
cannot be compared between them. decoder_training.py makes the decoders.
"""

from pathlib import Path

from data_io.recordings import BirdAge, Recording, age_order, birds_and_ages
from data_io.store import partition, read_table
from study.base.paths import WHITENING, RunPaths
from study.config.tree import DecoderScope, StudyConfig, in_words

ALL_AGES = ""  # stands for the age where a decoder serves a whole bird


def decoder_part(scope: DecoderScope, bird: str, age: str) -> tuple[str, ...]:
    """What shares a decoder with a bird and age: () for all, (bird,), or (bird, age) alone."""
    if scope == "all":
        return ()
    return (bird,) if scope == "bird" else (bird, age)


def decoder_of(config: StudyConfig, paths: RunPaths, bird: str, age: str) -> Path:
    """Folder of the decoder that serves a bird and age, whether or not it could be trained."""
    part = decoder_part(config.decoders.scope, bird, age)
    return paths.decoders.joinpath(*part) if part else paths.best


def decoder_stage(scope: DecoderScope) -> str:
    """The stage that made the decoders which serve birds and ages."""
    return "trials" if scope == "all" else "decoders"


def whitening_file(latents: Path, scope: DecoderScope, bird: str, age: str) -> Path:
    """File with what the latents of a bird and age are whitened by, one for each decoder.

    It lies beside the latents of all that share the decoder; none but theirs lie below it.
    """
    of_age = partition(latents, bird, age).parent
    folder = {0: latents, 1: of_age.parent, 2: of_age}[len(decoder_part(scope, bird, age))]
    return folder / WHITENING


def without_decoder(
    config: StudyConfig, paths: RunPaths, recordings: list[Recording]
) -> dict[BirdAge, str]:
    """Birds and ages that no decoder serves, and why; another's never takes its place."""
    scope = config.decoders.scope
    if scope == "all":
        return {}
    rows = read_table(paths.decoder_table, ["bird", "age", "status", "reason"]).to_pylist()
    refused = {(r["bird"], r["age"]): f"{r['status']}: {r['reason']}"
               for r in rows if r["status"] != "ok"}  # fmt: skip
    shared = {piece: (*decoder_part(scope, *piece), ALL_AGES)[:2]
              for piece in birds_and_ages(recordings)}  # fmt: skip
    return {
        piece: f"no decoder ({refused[row]})" for piece, row in shared.items() if row in refused
    }


def plan(scope: DecoderScope, recordings: list[Recording]) -> list[list[BirdAge]]:
    """What each task trains, one decoder after the other; the age is empty for all of a bird.

    Args:
        scope: whom a decoder serves; nothing is trained for "all".
        recordings: of the study; their order plays no part.
    """
    pieces = sorted(birds_and_ages(recordings), key=lambda p: (p[0], age_order(p[1])))
    birds = list(dict.fromkeys(bird for bird, _ in pieces))
    if scope == "all":
        return []
    if scope == "bird":
        return [[(bird, ALL_AGES)] for bird in birds]
    if scope == "bird_and_age":
        return [[piece] for piece in pieces]
    return [[piece for piece in pieces if piece[0] == bird] for bird in birds]


def recordings_of(part: BirdAge, recordings: list[Recording]) -> list[Recording]:
    """The used recordings that a decoder of the plan is trained and measured on."""
    bird, age = part
    return [r for r in recordings if r.is_used and r.bird == bird and age in (ALL_AGES, r.age)]


def caution(scope: DecoderScope) -> str:
    """What must not be compared; empty where one decoder serves all."""
    if scope == "all":
        return ""
    return (
        f"Decoders: {in_words(scope)} (decoders.parquet). Their latents lie in different spaces: "
        "compare log L and BIC within one decoder only."
    )
