"""States that the ages of a bird share: one task for each bird, then one for each bird and age.

The searches of the ages alone come before: an age without a model of its own has no shared one.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import HmmParams, SongHmm, add_memory
from models.hmm.draws import drawn, even_sizes
from models.hmm.em import Songs
from models.hmm.shared import (
    MOST_ROWS,
    search_shared,
    shared_bic,
    shared_free_params,
    with_own_transitions,
)
from study.base.console import Console
from study.base.seeds import bird_age_seed
from study.cluster.tasks import MAX_RETRIES, TaskRunner
from study.hmms.fan_out import ALL_AGES, Latents, run_left
from study.hmms.journal import Journal
from study.hmms.rows import Row, row_of, schema_of
from study.hmms.song_models import to_song_hmm, to_song_model
from study.hmms.tables import Searched, remembered_columns
from study.hmms.task import Made

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SharedRow:
    """The states that the ages of one bird share: a row of hmm_shared.parquet.

    Both sides are of all songs of the ages that have a model, without memory. Where their N is more
    than MOST_ROWS, the shared states were found from fewer snippets: that favours the other side.

    Attributes:
        bird: its name.
        n_ages: ages with a model of their own.
        status: ok, too_few_snippets or failed.
        reason: why, where not ok.
        n_states: shared states with the lowest BIC.
        covariance_type: of their emissions.
        n_observations: N of all ages.
        n_snippets_searched: that the shared states were found from.
        log_likelihood: nats, with transitions and starts for each age.
        n_free_params: emissions once, transitions and starts for each age.
        bic: `models.hmm.shared.shared_bic`; lower is better.
        separate_n_states: of each age's own fit, in order of ages, comma-separated.
        separate_log_likelihood, separate_n_free_params, separate_bic: sums over the ages' own fits.
        lower: whose BIC is lower, shared or separate.
    """

    bird: str
    n_ages: int
    status: str
    reason: str
    n_states: int | None = None
    covariance_type: str | None = None
    n_observations: float | None = None
    n_snippets_searched: int | None = None
    log_likelihood: float | None = None
    n_free_params: int | None = None
    bic: float | None = None
    separate_n_states: str = ""
    separate_log_likelihood: float | None = None
    separate_n_free_params: int | None = None
    separate_bic: float | None = None
    lower: str = ""


SHARED = schema_of(SharedRow)


@dataclass(frozen=True)
class SharedJournals:
    """Where what is shared is kept.

    Attributes:
        states: the emissions of each bird, under ALL_AGES.
        models: of each bird and age: these emissions with its own transitions.
    """

    states: Journal
    models: Journal

    def states_of(self, ages: dict[str, list[BirdAge]]) -> dict[str, SongModel]:
        """The emissions of each bird that has any; ``ages`` with a model, of every bird."""
        found = {bird: self.states.read((bird, ALL_AGES)).model for bird in ages if ages[bird]}
        return {bird: model for bird, model in found.items() if model is not None}


def share_states(
    ages: dict[str, list[BirdAge]],
    latents: Latents,
    journals: SharedJournals,
    params: HmmParams,
    seed: int,
    console: Console,
    tasks: TaskRunner,
) -> None:
    """Find the states that the ages of each bird share, and the transitions of each age.

    Args:
        ages: of every bird, those that have a model of their own.
        latents: of all birds and ages.
        journals: hold what is done.
        params: of the searches.
        seed: of the study.
        console: shows progress.
        tasks: runs the tasks.
    """

    def submit_states(one: BirdAge) -> ray.ObjectRef:
        of_bird = ages[one[0]]
        bird_seed = bird_age_seed(seed, one)
        n_snippets = [latents.sizes[each] for each in of_bird]
        sizes = even_sizes(n_snippets, MOST_ROWS)
        some = [drawn(latents.read(each), n, bird_seed)
                for each, n in zip(of_bird, sizes, strict=True)]  # fmt: skip
        made = latents.made[of_bird[0]]
        return shared_states_task.remote(some, n_snippets, made, params, bird_seed)

    def submit_model(one: BirdAge) -> ray.ObjectRef:
        emissions = journals.states.read((one[0], ALL_AGES)).model
        each_seed = bird_age_seed(seed, one)
        return shared_model_task.remote(
            latents.read(one), emissions, latents.made[one], params, each_seed
        )

    birds = [(bird, ALL_AGES) for bird, of_bird in ages.items() if of_bird]
    birds.sort(key=lambda one: -sum(latents.sizes[each] for each in ages[one[0]]))
    run_left(birds, journals.states, submit_states, tasks, console, "shared states")
    each_age = [one for bird in journals.states_of(ages) for one in ages[bird]]
    each_age.sort(key=lambda one: -latents.sizes[one])
    run_left(each_age, journals.models, submit_model, tasks, console, "shared models")


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def shared_states_task(
    ages: list[list[Array]], n_snippets: list[int], made: Made, params: HmmParams, seed: int
) -> Searched:
    """The states that the ages of one bird share.

    Args:
        ages: whitened latents [n_snippets, latent_dim] of some of each age's recordings.
        n_snippets: of each age, of all its recordings.
        made: how these latents were made.
        params: of the search.
        seed: of the bird.
    """
    with threadpool_limits(1):
        found = search_shared(ages, params, seed, made.new_share, n_snippets)
    facts = {"status": found.status, "reason": found.reason, "n_snippets": found.n_snippets}
    model = None
    if found.model is not None:
        model = to_song_model(SongHmm.plain(found.model), made.whitening, made.hop)
    return Searched([row_of(fit) for fit in found.fits], facts, model)


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def shared_model_task(
    sequences: list[Array], states: SongModel, made: Made, params: HmmParams, seed: int
) -> Searched:
    """The model of one age with the shared emissions, and transitions and memory of its own.

    Args:
        sequences: whitened latents [n_snippets, latent_dim] of all its recordings.
        states: the shared emissions.
        made: how these latents were made.
        params: of EM and of the memory.
        seed: of the bird and age.
    """
    shared = to_song_hmm(states).hmm
    params = dataclasses.replace(params, covariance_type=shared.covariance_type)
    with threadpool_limits(1):
        songs = Songs(sequences, shared.covariance_type, params.engine, made.new_share)
        em = with_own_transitions(shared, songs, params)
        own = songs.uncentred(em.model)
        own.means_ = shared.means_  # the same at all ages, to the last digit
        remembered = add_memory(sequences, own, params, seed, made.new_share)
    facts = {
        "log_likelihood": em.log_likelihood,
        "n_observations": songs.n_observations,
        **remembered_columns(remembered),
    }
    return Searched([], facts, to_song_model(remembered.song, made.whitening, made.hop))


def shared_row(bird: str, ages: list[BirdAge], own: Iterable[Row], journals: SharedJournals) -> Row:
    """A row of hmm_shared.parquet.

    Args:
        bird: its name.
        ages: that have a model of their own, in order.
        own: their rows of hmm_selected.parquet.
        journals: hold what is shared.
    """
    if not ages:
        reason = "no age has a model of its own"
        return row_of(SharedRow(bird=bird, n_ages=0, status="too_few_snippets", reason=reason))
    found = journals.states.read((bird, ALL_AGES))
    facts = found.selected
    known = {"bird": bird, "n_ages": len(ages), "status": facts["status"],
             "reason": facts["reason"]}  # fmt: skip
    if found.model is None:
        return row_of(SharedRow(**known))
    n_states, latent_dim = found.model.means.shape
    kind = to_song_hmm(found.model).hmm.covariance_type
    models = [journals.models.read(one).selected for one in ages]
    sizes = [model["n_observations"] for model in models]
    log_likelihood = sum(model["log_likelihood"] for model in models)
    bic = shared_bic(log_likelihood, n_states, latent_dim, kind, sizes)
    fits = list(own)
    separate_bic = sum(row["bic"] for row in fits)
    return row_of(
        SharedRow(
            **known,
            n_states=n_states,
            covariance_type=kind,
            n_observations=sum(sizes),
            n_snippets_searched=facts["n_snippets"],
            log_likelihood=log_likelihood,
            n_free_params=shared_free_params(n_states, latent_dim, kind, len(ages)),
            bic=bic,
            separate_n_states=", ".join(str(row["n_states"]) for row in fits),
            separate_log_likelihood=sum(row["log_likelihood"] for row in fits),
            separate_n_free_params=sum(row["n_free_params"] for row in fits),
            separate_bic=separate_bic,
            lower="shared" if bic < separate_bic else "separate",
        )
    )
