"""What can be compared between the ages of a bird, hmm_ages.parquet: two tasks for each age.

The first finds states from the matched songs, and how often each state of the bird holds sound.
Which states are silent is known once all ages of a bird that share them are done; then the second
compares.
"""

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
from models.hmm import GaussianHMM, HmmParams, SongHmm, search_states
from models.hmm.ages import mostly_silent, predictive_information, states_in_use
from models.hmm.draws import drawn
from models.hmm.em import Songs
from models.hmm.shared import with_own_transitions
from study.base.console import Console
from study.base.seeds import bird_age_seed
from study.cluster.tasks import MAX_RETRIES, TaskRunner
from study.hmms.fan_out import ALL_AGES, Latents, run_left
from study.hmms.journal import Journal
from study.hmms.rows import Row, row_of, schema_of
from study.hmms.song_models import to_song_hmm, to_song_model
from study.hmms.tables import Searched
from study.hmms.task import Made

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


@dataclass(frozen=True)
class AgesJournals:
    """Where what is compared is kept, by bird and age.

    Attributes:
        matched: facts of the matched songs; the model where its states are the age's own.
        compared: rows of hmm_ages.parquet.
    """

    matched: Journal
    compared: Journal


def compare_ages(
    ages: dict[str, list[BirdAge]],
    latents: Latents,
    own: Journal,
    shared: dict[str, SongModel],
    journals: AgesJournals,
    params: HmmParams,
    seed: int,
    console: Console,
    tasks: TaskRunner,
) -> None:
    """Compare the ages of every bird; ``journals`` then hold a row of each that has a model.

    Args:
        ages: of every bird, those that have a model of their own, in order.
        latents: of all birds and ages.
        own: the searches of each age.
        shared: emissions that the ages of a bird share, by bird; a bird without them is compared
            by states of its ages' own.
        journals: hold what is done.
        params: of the searches.
        seed: of the study.
        console: shows progress.
        tasks: runs the tasks.
    """

    def songs_of(one: BirdAge) -> AgeSongs:
        return _songs_of(one, ages[one[0]], latents, own, one[0] in shared, seed)

    def submit_matched(one: BirdAge) -> ray.ObjectRef:
        bird_seed = bird_age_seed(seed, (one[0], ALL_AGES))
        states = shared.get(one[0])
        return matched_task.remote(songs_of(one), states, latents.made[one], params, bird_seed)

    def submit_compared(one: BirdAge) -> ray.ObjectRef:
        bird_seed = bird_age_seed(seed, (one[0], ALL_AGES))
        matched, is_shared = journals.matched.read(one), one[0] in shared
        of_bird = ages[one[0]]
        if is_shared and one[0] not in silent:  # once a bird: it takes the entries of all its ages
            silent[one[0]] = _silent([journals.matched.read(each).selected for each in of_bird])
        is_silent = silent[one[0]] if is_shared else _silent([matched.selected])
        states = shared[one[0]] if is_shared else matched.model
        n_states = matched.selected["n_states"]
        return ages_task.remote(
            songs_of(one), states, is_shared, n_states, is_silent, params, bird_seed
        )

    silent: dict[str, NDArray[np.bool_]] = {}
    left = sorted((one for of_bird in ages.values() for one in of_bird),
                  key=lambda one: -latents.sizes[one])  # fmt: skip
    run_left(left, journals.matched, submit_matched, tasks, console, "matched states")
    run_left(left, journals.compared, submit_compared, tasks, console, "ages compared")


def _songs_of(
    one: BirdAge, of_bird: list[BirdAge], latents: Latents, own: Journal, is_shared: bool, seed: int
) -> AgeSongs:
    """The matched songs of an age of a bird whose ages are ``of_bird``."""
    searched = own.read(one)
    n_matched = min(latents.sizes[each] for each in of_bird)
    # A single age has none beside it that its song would have to be cut for: its own fit
    # serves. Behind a carry there is none that does (`_matched_model`).
    if len(of_bird) > 1 or is_shared or _has_carry(searched):
        n_matched = min(n_matched, MOST_MATCHED)
    return AgeSongs(
        searched.selected,
        drawn(latents.read(one), n_matched, bird_age_seed(seed, one)),
        drawn(latents.holds_sound(one), n_matched, bird_age_seed(seed, one)),
        searched.model if latents.sizes[one] == n_matched else None,
    )


def _has_carry(searched: Searched) -> bool:
    """Whether the states of a search are of what a carry leaves of the latents."""
    return searched.model is not None and searched.model.carry is not None


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def matched_task(
    age: AgeSongs, shared: SongModel | None, made: Made, params: HmmParams, seed: int
) -> Searched:
    """States from the matched songs of one age, and sound in the states that it is compared by.

    Args:
        age: its songs.
        shared: the emissions that the ages of the bird share; None where each has its own.
        made: how these latents were made.
        params: of the searches.
        seed: of the bird.

    Returns:
        Its ``selected`` has n_states of the matched fit, and of each state the expected number of
        snippets (``n_in``) and of those that hold sound (``n_sound``).
    """
    with threadpool_limits(1):
        fit = _matched_model(age, made.new_share, params, seed)
        facts: Row = {"n_states": None if fit is None else fit.n_components}
        own = None
        if shared is None and fit is not None:
            own = to_song_model(SongHmm.plain(fit), made.whitening, made.hop)
        states = own if shared is None else shared
        if states is not None:
            posteriors = _posteriors(age, to_song_hmm(states).hmm, params)
            facts["n_in"] = posteriors.sum(0).tolist()
            facts["n_sound"] = (np.concatenate(age.holds_sound) @ posteriors).tolist()
    return Searched([], facts, own)


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def ages_task(
    age: AgeSongs,
    states: SongModel | None,
    is_shared: bool,
    n_states: int | None,
    is_silent: NDArray[np.bool_],
    params: HmmParams,
    seed: int,
) -> Searched:
    """What one age of a bird is compared by.

    Args:
        age: its songs.
        states: whose emissions it is compared by; None where it has none.
        is_shared: whether the ages of the bird share them.
        n_states: of the matched fit; None where there is none.
        is_silent: whether most snippets of each state hold no sound [n_states].
        params: of EM.
        seed: of the bird.

    Returns:
        ``fits`` holds its row of hmm_ages.parquet.
    """
    found: Row = {name: age.selected[name] for name in REPEATED}
    found["matched_n_snippets"] = sum(map(len, age.sequences))
    found["matched_n_songs"] = len(age.sequences)
    found["matched_n_states"] = n_states
    if states is not None:
        found["states"] = "shared" if is_shared else "own"
        with threadpool_limits(1):
            model = to_song_hmm(states).hmm
            posteriors = _posteriors(age, model, params)
            found |= _compared(age, model, posteriors, is_silent, params, seed)
    return Searched([found], {}, None)


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


def _silent(facts: list[Row]) -> NDArray[np.bool_]:
    """Whether most snippets of each state hold no sound, over ages that have the same states."""
    known = [one for one in facts if "n_in" in one]
    if not known:
        return np.zeros(0, dtype=bool)
    n_in, n_sound = (np.sum([one[name] for one in known], axis=0) for name in ("n_in", "n_sound"))
    return mostly_silent(n_sound, n_in)


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
