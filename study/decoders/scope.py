"""Which decoder serves which bird and age.

Each decoder has a latent space of its own. Latents of different decoders are whitened apart, and
nobody can compare log L or BIC between them. one_decoder.py trains the decoders.
"""

from pathlib import Path

from data_io.names.ages import age_order
from data_io.recordings.table import BirdAge, Recordings
from data_io.store import partition, read_table
from study.base.paths import WHITENING, RunPaths
from study.config.tree import DecoderScope, StudyConfig, scope_in_words

ALL_AGES = ""  # the age of a decoder that serves a whole bird


def decoder_key(scope: DecoderScope, bird: str, age: str) -> tuple[str, ...]:
    """Key of the decoder that serves a bird and age: () for all, (bird,), or (bird, age).

    It is also the decoder's path below decoders/.
    """
    if scope == "all":
        return ()
    return (bird,) if scope == "bird" else (bird, age)


def decoder_of(config: StudyConfig, paths: RunPaths, bird: str, age: str) -> Path:
    """Folder of the decoder that serves a bird and age, even if it could not be trained."""
    key = decoder_key(config.decoders.scope, bird, age)
    return paths.decoders.joinpath(*key) if key else paths.best


def decoder_stage(scope: DecoderScope) -> str:
    """Name of the stage that trained the decoders which encode the recordings."""
    return "trials" if scope == "all" else "decoders"


def whitening_file(latents: Path, scope: DecoderScope, bird: str, age: str) -> Path:
    """File with the mean and spread that whiten the latents of a bird and age, one per decoder.

    Its folder holds the latents of every bird and age that the decoder serves, and no others.
    """
    of_age = partition(latents, bird, age).parent
    folder = {0: latents, 1: of_age.parent, 2: of_age}[len(decoder_key(scope, bird, age))]
    return folder / WHITENING


def without_decoder(
    config: StudyConfig, paths: RunPaths, recordings: Recordings
) -> dict[BirdAge, str]:
    """Birds and ages that no decoder serves, and why; no other decoder serves them instead."""
    scope = config.decoders.scope
    if scope == "all":
        return {}
    rows = read_table(paths.decoder_table, ["bird", "age", "status", "reason"]).to_pylist()
    refused = {(r["bird"], r["age"]): f"{r['status']}: {r['reason']}"
               for r in rows if r["status"] != "ok"}  # fmt: skip
    shared = {bird_age: (*decoder_key(scope, *bird_age), ALL_AGES)[:2]
              for bird_age in recordings.used.birds_and_ages()}  # fmt: skip
    return {
        bird_age: f"no decoder ({refused[row]})"
        for bird_age, row in shared.items()
        if row in refused
    }


def chains(scope: DecoderScope, recordings: Recordings) -> list[list[BirdAge]]:
    """The decoders that each task trains, one after the other, by bird and age.

    The age is empty if a decoder serves all ages of a bird.

    Args:
        scope: whom a decoder serves; nothing is trained for "all".
        recordings: of the study, in any order.
    """
    bird_ages = sorted(recordings.used.birds_and_ages(), key=lambda p: (p[0], age_order(p[1])))
    birds = list(dict.fromkeys(bird for bird, _ in bird_ages))
    if scope == "all":
        return []
    if scope == "bird":
        return [[(bird, ALL_AGES)] for bird in birds]
    if scope == "bird_and_age":
        return [[bird_age] for bird_age in bird_ages]
    return [[bird_age for bird_age in bird_ages if bird_age[0] == bird] for bird in birds]


def recordings_of(bird_age: BirdAge, recordings: Recordings) -> Recordings:
    """The used recordings that the decoder of ``bird_age`` is trained and measured on."""
    bird, age = bird_age
    used = recordings.used
    mine = used.column("bird") == bird
    return used.where(mine if age == ALL_AGES else mine & (used.column("age") == age))


def caution(scope: DecoderScope) -> str:
    """A sentence on what nobody may compare; empty if one decoder serves all."""
    if scope == "all":
        return ""
    return (
        f"Decoders: {scope_in_words(scope)} (decoders.parquet). Their latents lie in different "
        "spaces: compare log L and BIC within one decoder only."
    )
