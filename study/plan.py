"""The plan of a study, as text in the terminal."""

import textwrap

import yaml

from data_io.listing import Survey
from models.hmm import HmmParams
from study.base.console import WIDTH, Console
from study.base.paths import Where, without_password
from study.config.search import SearchConfig
from study.config.stopping import first_rung, searched_late
from study.config.tree import StudyConfig, scope_in_words


def show_plan(config: StudyConfig, where: Where, found: Survey | None, c: Console) -> None:
    """Print what a study will do, and where its results go.

    Args:
        config: of the study.
        where: the study runs and writes.
        found: the files in the folder of recordings; None if birds are simulated.
        c: prints.
    """
    simulation, search, hmm = config.data.simulation, config.search, config.hmm
    if found is None:
        n = simulation.n_birds * len(simulation.ages_dph)
        source = f"{simulation.n_birds} simulated birds at {len(simulation.ages_dph)} ages"
    else:
        n = len(found.recordings.used.birds_and_ages())
        source = f"{len(found.recordings)} recordings of {n} birds and ages in {found.root}"
    c.line(f"Study     {config.name}, seed {config.seed}")
    c.line(f"Data      {source}")
    c.line(f"Trials    {search.n_trials} of {config.mdgan.n_snippets:,} snippets each, over")
    if not search.space:
        c.line("            nothing: every parameter is fixed")
    for name, entry in search.space.items():
        c.line(f"            {name}: {entry.describe()} ({entry.role})")
    c.line(f"          proposed by {_sampler_in_words(search)}")
    c.line(f"          ranked by {search.objective} on held-out recordings")
    stopping = _stopping_in_words(config)
    c.line(textwrap.fill(stopping, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 12))
    c.line(f"Best      {_rule_in_words(search)}")
    if config.decoders.scope != "all":
        c.line(f"Decoders  {scope_in_words(config.decoders.scope)}")
    c.line(f"HMMs      {n} birds and ages, {_search_in_words(hmm)}")
    c.line(f"Ray       {where.address or 'on this machine'}")
    c.line(f"MLflow    {without_password(where.tracking_uri)}")
    c.line(f"Results   {where.out}")
    c.line()


def _sampler_in_words(search: SearchConfig) -> str:
    if not search.first:
        return search.sampler
    return f"{search.sampler}, after {len(search.first)} given to try first"


def _stopping_in_words(config: StudyConfig) -> str:
    search, n_reports = config.search, config.mdgan.n_reports
    if not search.stops_early:
        return f"lowers {', '.join(search.lowered)} at once: no trial is stopped early"
    if search.grace_reports >= n_reports:
        return "no trial is stopped early"
    first, late = first_rung(config), ", ".join(searched_late(config))
    if first >= n_reports:
        return (
            f"no trial is stopped early: {late} acts only after mdgan.adversarial_from of the "
            f"training, and no report is left to compare at; raise mdgan.n_reports ({n_reports})"
        )
    words = f"weak ones are stopped early, from report {first} of {n_reports} on"
    if first == search.grace_reports:
        return words
    return f"{words} (not from {search.grace_reports} on: {late} acts only with the adversary)"


def _rule_in_words(search: SearchConfig) -> str:
    selection = search.selection
    n_candidates = min(selection.n_candidates, search.n_trials)
    words = f"{selection.rule} on {search.compared}"
    if selection.n_seeds == 1:
        return f"{words}: no trial is trained again"
    return f"{words}: {n_candidates} candidates x {selection.n_seeds} seeds"


def _search_in_words(hmm: HmmParams) -> str:
    limit = f"up to {hmm.n_states_limit} where BIC is still falling there"
    if hmm.search == "merge":
        return f"{hmm.n_states[0]} to {hmm.n_states[-1]} states by merging, {limit}"
    return f"{len(hmm.n_states)} numbers of states x {hmm.n_restarts} restarts, {limit}"


def show_config(config: StudyConfig, c: Console) -> None:
    """Print the resolved configuration as YAML that --config accepts."""
    c.line(yaml.safe_dump(config.to_dict(), sort_keys=False, width=WIDTH).rstrip())
