"""What can be compared between the ages of a bird: one task for each bird, hmm_ages.parquet."""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import GaussianHMM, HmmParams, search_states
from models.hmm.ages import predictive_information, silent_states, states_in_use
from models.hmm.em import Songs
from models.hmm.shared import drawn, with_own_transitions
from study.base.console import Console
from study.base.seeds import bird_age_seed
from study.cluster.tasks import MAX_RETRIES, TaskRunner
from study.hmms.fan_out import ALL_AGES, Latents, run_left
from study.hmms.journal import Journal
from study.hmms.rows import Row, row_of, schema_of
from study.hmms.song_models import to_song_hmm
from study.hmms.tables import Searched

Array = NDArray[np.float64]

MOST_MATCHED = 20_000  # snippets of each age that are compared: more would only take longer


@dataclass(frozen=True, kw_only=True)
class AgeRow:
    """One age of a bird among its others: a row of hmm_ages.parquet.

    All that is "matched" is of as many snippets at every age of the bird, in whole recordings drawn
    by the study's seed. Intervals are 95 %, by the bootstrap over songs.

    Attributes:
        bird, age, dph: as in hmm_selected.parquet.
        n_snippets: of all recordings.
        n_states: by BIC, from all of them; it rises with their number and with stereotypy, and is
            no growth.
        n_states_low, n_states_high: ends of its confidence set.
        n_sounding, n_silent: these states, most of whose snippets hold sound, and the others.
        matched_n_snippets: the fewest snippets of any age of the bird, MOST_MATCHED at most; all of
            a single age that shares no states and has no carry: nothing lies beside it.
        matched_n_songs: recordings that these are of.
        matched_n_states: by BIC, from these alone.
        states: "shared" (the same at all ages of the bird) or "own" (of the matched fit): whose the
            columns below are of. With "own", states in use cannot be compared between ages.
        predictive_information_bits: what the order tells of the next snippet, of songs held out,
            per snippet; `models.hmm.ages.predictive_information`. Matched.
        states_in_use: effective number of states: exp of the entropy of their shares. Matched.
        sounding_states_in_use: the same of sounding states alone.
    """

    bird: str
    age: str
    dph: int | None
    n_snippets: int
    n_states: int | None = None
    n_states_low: int | None = None
    n_states_high: int | None = None
    n_sounding: int | None = None
    n_silent: int | None = None
    matched_n_snippets: int | None = None
    matched_n_songs: int | None = None
    matched_n_states: int | None = None
    states: str = ""
    predictive_information_bits: float | None = None
    predictive_information_bits_low: float | None = None
    predictive_information_bits_high: float | None = None
    states_in_use: float | None = None
    states_in_use_low: float | None = None
    states_in_use_high: float | None = None
    sounding_states_in_use: float | None = None
    sounding_states_in_use_low: float | None = None
    sounding_states_in_use_high: float | None = None


AGES = schema_of(AgeRow)
REPEATED = ("bird", "age", "dph", "n_snippets", "n_states", "n_states_low", "n_states_high",
            "n_sounding", "n_silent")  # fmt: skip


class AgeSongs(NamedTuple):
    """Songs of one age that are compared.

    Attributes:
        selected: its row of hmm_selected.parquet.
        sequences: whitened latents [n_snippets, latent_dim], matched.
        holds_sound: of every snippet of these, one array per recording.
        model: with its states; None where these are found from ``sequences``.
    """

    selected: Row
    sequences: list[Array]
    holds_sound: list[NDArray[np.bool_]]
    model: SongModel | None


def compare_ages(
    ages: dict[str, list[BirdAge]],
    latents: Latents,
    own: Journal,
    shared: dict[str, SongModel],
    journal: Journal,
    params: HmmParams,
    seed: int,
    console: Console,
    tasks: TaskRunner,
) -> None:
    """Compare the ages of every bird; the journal then holds their rows, under ALL_AGES.

    Args:
        ages: of every bird, those that have a model of their own, in order.
        latents: of all birds and ages.
        own: the searches of each age.
        shared: emissions that the ages of a bird share, by bird; a bird without them is compared
            by states of its ages' own.
        journal: holds what is done.
        params: of the searches.
        seed: of the study.
        console: shows progress.
        tasks: runs the tasks.
    """

    def submit(one: BirdAge) -> ray.ObjectRef:
        of_bird = ages[one[0]]
        searches = [own.read(each) for each in of_bird]
        n_matched = min(latents.sizes[each] for each in of_bird)
        # A single age has none beside it that its song would have to be cut for: its own fit
        # serves. Behind a carry there is none that does (`_matched_model`).
        if len(of_bird) > 1 or one[0] in shared or _has_carry(searches[0]):
            n_matched = min(n_matched, MOST_MATCHED)
        songs = []
        for each, searched in zip(of_bird, searches, strict=True):
            each_seed = bird_age_seed(seed, each)
            songs.append(
                AgeSongs(
                    searched.selected,
                    drawn(latents.read(each), n_matched, each_seed),
                    drawn(latents.holds_sound(each), n_matched, each_seed),
                    searched.model if latents.sizes[each] == n_matched else None,
                )
            )
        new_share = latents.made[of_bird[0]].new_share
        bird_seed = bird_age_seed(seed, one)
        return ages_task.remote(songs, shared.get(one[0]), new_share, params, bird_seed)

    birds = [(bird, ALL_AGES) for bird, of_bird in ages.items() if of_bird]
    run_left(birds, journal, submit, tasks, console, "ages compared")


def _has_carry(searched: Searched) -> bool:
    """Whether the states of a search are of what a carry leaves of the latents."""
    return searched.model is not None and searched.model.carry is not None


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def ages_task(
    songs: list[AgeSongs],
    shared: SongModel | None,
    new_share: float,
    params: HmmParams,
    seed: int,
) -> Searched:
    """The ages of one bird side by side.

    Args:
        songs: of each age.
        shared: the emissions that they share; None where each has its own.
        new_share: share of a snippet that the one before does not hold.
        params: of the searches.
        seed: of the bird.

    Returns:
        ``fits`` holds rows of hmm_ages.parquet.
    """
    with threadpool_limits(1):
        matched = [_matched_model(age, new_share, params, seed) for age in songs]
        models = matched if shared is None else [to_song_hmm(shared).hmm] * len(songs)
        posteriors = [
            None if model is None else _posteriors(age, model, params)
            for age, model in zip(songs, models, strict=True)
        ]
        silent = [_silent([age], [p]) for age, p in zip(songs, posteriors, strict=True)]
        if shared is not None:
            silent = [_silent(songs, posteriors)] * len(songs)
        rows = []
        for age, fit, model, of_age, is_silent in zip(
            songs, matched, models, posteriors, silent, strict=True
        ):
            found: Row = {name: age.selected[name] for name in REPEATED}
            found["matched_n_snippets"] = sum(map(len, age.sequences))
            found["matched_n_songs"] = len(age.sequences)
            found["matched_n_states"] = None if fit is None else fit.n_components
            if model is not None and of_age is not None:
                found["states"] = "own" if shared is None else "shared"
                found |= _compared(age, model, of_age, is_silent, params, seed)
            rows.append(found)
    return Searched(rows, {}, None)


def _matched_model(
    age: AgeSongs, new_share: float, params: HmmParams, seed: int
) -> GaussianHMM | None:
    """The HMM of the matched songs alone; None where they give none."""
    # What a carry leaves of latents has states of its own: ages are compared without one.
    if age.model is not None and age.model.carry is None:
        return to_song_hmm(age.model).without_memory()
    kind = age.selected["covariance_type"]
    alone = dataclasses.replace(
        params, covariance_type=kind, held_out_fraction=0.0, shared_states=False
    )
    return search_states(age.sequences, alone, seed, new_share=new_share).model


def _posteriors(age: AgeSongs, model: GaussianHMM, params: HmmParams) -> Array:
    songs = Songs(age.sequences, model.covariance_type, params.engine)
    return songs.posteriors(with_own_transitions(model, songs, params).model)


def _silent(songs: list[AgeSongs], posteriors: list[Array | None]) -> NDArray[np.bool_]:
    known = [(age, p) for age, p in zip(songs, posteriors, strict=True) if p is not None]
    if not known:
        return np.zeros(0, dtype=bool)
    sound = np.concatenate([one for age, _ in known for one in age.holds_sound])
    return silent_states(np.concatenate([p for _, p in known]), sound)


def _compared(
    age: AgeSongs,
    model: GaussianHMM,
    posteriors: Array,
    is_silent: NDArray[np.bool_],
    params: HmmParams,
    seed: int,
) -> Row:
    lengths = np.array([len(z) for z in age.sequences])
    counts = np.add.reduceat(posteriors, np.cumsum([0, *lengths[:-1]]), axis=0)
    sounding = counts[:, ~is_silent]
    figures = {
        "predictive_information_bits": predictive_information(age.sequences, model, params, seed),
        "states_in_use": states_in_use(counts, seed),
        "sounding_states_in_use": states_in_use(sounding, seed),
    }
    return {
        name + end: value
        for name, interval in figures.items()
        for end, value in zip(("", "_low", "_high"), map(_plain, interval), strict=True)
    }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def age_row(selected: Row, compared: Row | None) -> Row:
    """A row of hmm_ages.parquet.

    Args:
        selected: row of hmm_selected.parquet.
        compared: what `ages_task` found; None for an age without a model.
    """
    plain = {name: selected[name] for name in REPEATED}
    return row_of(AgeRow(**{**plain, **(compared or {})}))
