"""The truth about simulated birds: four tables beside their recordings."""

import json
import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_io.aviary.birds import Bird, bird_names, hatch, tutor_of
from data_io.aviary.params import AviaryParams
from data_io.aviary.room import own_gain_db
from data_io.aviary.syntax import REPEATED, divergence_rate, pair_divergence
from data_io.files import atomic_file

SOUNDS_FILE = "truth_sounds.parquet"
RECORDINGS_FILE = "truth_recordings.parquet"
AGES_FILE = "truth_ages.parquet"
BIRDS_FILE = "truth_birds.parquet"

_BIRD_AGE = [
    ("bird", pa.string()),
    ("age", pa.string()),  # the folder's name, as for real recordings
    ("dph", pa.int32()),
]
SOUNDS_SCHEMA = pa.schema(
    [
        *_BIRD_AGE,
        ("recording", pa.string()),  # path relative to the root, with forward slashes
        ("index", pa.int32()),  # of the sound in its recording, from 0
        ("kind", pa.string()),  # syllable, introductory, call or cage_noise
        ("label", pa.string()),
        ("onset_s", pa.float64()),
        ("offset_s", pa.float64()),
        ("bout", pa.int32()),  # in its recording, from 0; -1 for calls and cage noises
    ]
)
RECORDINGS_SCHEMA = pa.schema(
    [
        *_BIRD_AGE,
        ("recording", pa.string()),
        ("recorded_at", pa.timestamp("ms")),
        ("seconds", pa.float64()),
        ("sample_rate_hz", pa.int32()),
        ("silence_share", pa.float64()),  # of its samples: no sound of any kind
        ("gain_db", pa.float64()),
        ("noise_db", pa.float64()),  # RMS above 500 Hz in the file, dB of full scale
        ("hum_db", pa.float64()),  # RMS in the file, dB of full scale
        ("part_of_day", pa.float64()),  # 0 at lights on, 1 at lights off
        ("effective_dph", pa.float64()),  # age of which sound and timing are
        ("sound_variability", pa.float64()),
        ("timing_variability", pa.float64()),
    ]
)
AGES_SCHEMA = pa.schema(
    [
        *_BIRD_AGE,
        ("role", pa.string()),
        ("syntax", pa.string()),
        ("tutor", pa.string()),
        ("repertoire", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),  # of the columns of the matrices
        ("transition_matrix", pa.list_(pa.list_(pa.float64()))),  # P(next label | label)
        ("context_probs", pa.list_(pa.list_(pa.float64()))),  # the chain itself, a row a context
        ("context_onward", pa.list_(pa.list_(pa.int32()))),  # context after context and label
        ("context_start", pa.int32()),  # at the beginning of a bout
        ("entropy_rate_bits", pa.float64()),
        ("predictive_information_bits", pa.float64()),
        ("beyond_first_order_bits", pa.float64()),
        ("sound_variability", pa.float64()),  # at lights off
        ("timing_variability", pa.float64()),
        ("order_variability", pa.float64()),
        ("maturity", pa.float64()),  # 1 - mean of the three
        ("divergence_to_tutor_bits", pa.float64()),  # null without tutor
        # Of the tutor's song from the pupil's chain; null without tutor, and where infinite: where
        # the pupil does not sing all that the tutor sings.
        ("divergence_rate_of_tutor_bits", pa.float64()),
        ("gain_db", pa.float64()),  # means over the recordings
        ("noise_db", pa.float64()),
        ("silence_share", pa.float64()),  # of all samples
        ("n_recordings", pa.int32()),
        ("seconds", pa.float64()),
    ]
)
BIRDS_SCHEMA = pa.schema(
    [
        ("bird", pa.string()),
        ("role", pa.string()),
        ("tutor", pa.string()),
        ("syntax", pa.string()),
        ("hatched", pa.date32()),
        ("motif", pa.list_(pa.string())),  # of all syllables that it ever sings
        ("copied", pa.list_(pa.string())),
        ("own", pa.list_(pa.string())),
        ("added_label", pa.string()),
        ("added_dph", pa.int32()),
        ("dropped_label", pa.string()),
        ("dropped_dph", pa.int32()),
        ("gain_step_dph", pa.int32()),
        ("noise_step_dph", pa.int32()),
        ("repeated_label", pa.string()),
        ("fewest_repeats", pa.int32()),
        ("most_repeats", pa.int32()),
        ("mean_repeats", pa.float64()),
        ("silence_share", pa.float64()),
        ("sample_rate_hz", pa.int32()),
        ("gain_db", pa.float64()),  # its own: days lie about it, the step comes on top
        *(
            (f"{part}_{value}", pa.float64())
            for part in ("sound", "timing", "order")
            for value in ("middle_dph", "width_days", "adult", "young")
        ),
        ("morning_lag_days", pa.float64()),
        ("calls_share", pa.float64()),
        ("introductory_notes", pa.float64()),
        ("cage_noises_per_minute", pa.float64()),
        ("seed", pa.int64()),
        ("params", pa.string()),  # JSON of all of `AviaryParams`
    ]
)


@dataclass(frozen=True)
class DayTruth:
    """What was sung and recorded of one bird at one age.

    Attributes:
        sounds: One row per sound, in order, `SOUNDS_SCHEMA`.
        recordings: One row per recording, in order, `RECORDINGS_SCHEMA`; at least one.
    """

    sounds: pa.Table
    recordings: pa.Table


def write_truth(root: Path, params: AviaryParams, seed: int, days: Iterable[DayTruth]) -> None:
    """Write the four tables of the truth into ``root``, each whole or not at all.

    One bird and age is in memory at a time; it is one row group of the tables of sounds and of
    recordings. The tables lie in the order of ``days``; give them as `birds_and_ages` does.

    Args:
        root: Folder of the recordings.
        params: What was simulated.
        seed: With which birds were hatched.
        days: Every bird and age once.
    """
    birds = {name: hatch(params, seed, name) for name in bird_names(params.n_birds)}
    tutors = {name: tutor_of(params, seed, bird) for name, bird in birds.items()}
    with ExitStack() as stack:
        sounds, recordings, ages = (
            _writer(stack, root / name, schema)
            for name, schema in (
                (SOUNDS_FILE, SOUNDS_SCHEMA),
                (RECORDINGS_FILE, RECORDINGS_SCHEMA),
                (AGES_FILE, AGES_SCHEMA),
            )
        )
        age_rows = []
        for day in days:
            sounds.write_table(day.sounds)
            recordings.write_table(day.recordings)
            bird = birds[day.recordings["bird"][0].as_py()]
            age_rows.append(_age_row(bird, tutors[bird.name], day.recordings))
        ages.write_table(pa.Table.from_pylist(age_rows, AGES_SCHEMA))
        rows = [_bird_row(bird, params, seed) for bird in birds.values()]
        _writer(stack, root / BIRDS_FILE, BIRDS_SCHEMA).write_table(
            pa.Table.from_pylist(rows, BIRDS_SCHEMA)
        )


def _writer(stack: ExitStack, path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    temporary = stack.enter_context(atomic_file(path))
    # Without checksums nearly every flipped bit is read as a wrong value.
    return stack.enter_context(pq.ParquetWriter(temporary, schema, write_page_checksum=True))


def _age_row(bird: Bird, tutor: Bird | None, recordings: pa.Table) -> dict[str, Any]:
    """The truth about one bird at one age.

    The tutor's chain is the same at every age; pupils learn that one.
    """
    dph = recordings["dph"][0].as_py()
    chain, variability = bird.chain(dph), bird.variability(dph)
    to_tutor = rate_of_tutor = None
    if tutor:
        tutors_chain = tutor.chain(dph)
        to_tutor = pair_divergence(chain, tutors_chain)
        rate = divergence_rate(tutors_chain, chain)
        rate_of_tutor = rate if math.isfinite(rate) else None
    seconds = recordings["seconds"]
    silent = pc.sum(pc.multiply(recordings["silence_share"], seconds)).as_py()
    return {
        "bird": bird.name,
        "age": recordings["age"][0].as_py(),
        "dph": dph,
        "role": bird.role,
        "syntax": bird.syntax,
        "tutor": bird.tutor,
        "repertoire": sorted(bird.repertoire(dph)),
        "labels": list(chain.labels),
        "transition_matrix": chain.transition_matrix().tolist(),
        "context_probs": chain.probs.tolist(),
        "context_onward": chain.onward.tolist(),
        "context_start": chain.start,
        "entropy_rate_bits": chain.entropy_rate(),
        "predictive_information_bits": chain.predictive_information(),
        "beyond_first_order_bits": chain.beyond_first_order(),
        "sound_variability": variability.sound,
        "timing_variability": variability.timing,
        "order_variability": variability.order,
        "maturity": variability.maturity,
        "divergence_to_tutor_bits": to_tutor,
        "divergence_rate_of_tutor_bits": rate_of_tutor,
        "gain_db": pc.mean(recordings["gain_db"]).as_py(),
        "noise_db": pc.mean(recordings["noise_db"]).as_py(),
        "silence_share": silent / pc.sum(seconds).as_py(),
        "n_recordings": len(recordings),
        "seconds": pc.sum(seconds).as_py(),
    }


def _bird_row(bird: Bird, params: AviaryParams, seed: int) -> dict[str, Any]:
    """The truth about one bird; what does not hold of it is null."""
    development = asdict(bird.development)
    curves = {
        f"{part}_{name}": value
        for part in ("sound", "timing", "order")
        for name, value in development[part].items()
    }
    repeats = {}
    if bird.syntax == "repeats":
        fewest, most = bird.repeats
        repeats = {
            "repeated_label": bird.motif[REPEATED],
            "fewest_repeats": fewest,
            "most_repeats": most,
            "mean_repeats": (fewest + most) / 2,
        }
    # The order in which ages are given means nothing, so the same bytes are written for any.
    written = asdict(replace(params, ages_dph=tuple(sorted(params.ages_dph))))
    return (
        {
            name: getattr(bird, name)
            for name in (
                *("role", "tutor", "syntax", "hatched", "motif", "copied", "own"),
                *("gain_step_dph", "noise_step_dph", "silence_share", "sample_rate_hz"),
            )
        }
        | curves
        | repeats
        | {
            "bird": bird.name,
            "gain_db": own_gain_db(params, bird),
            "added_label": bird.added and bird.added[0],
            "added_dph": bird.added and bird.added[1],
            "dropped_label": bird.dropped and bird.dropped[0],
            "dropped_dph": bird.dropped and bird.dropped[1],
            "morning_lag_days": bird.development.morning_lag_days,
            "calls_share": params.calls_share,
            "introductory_notes": params.introductory_notes,
            "cage_noises_per_minute": params.cage_noises_per_minute,
            "seed": seed,
            "params": json.dumps(written),
        }
    )
