"""The plan of a study, as text in the terminal."""

import textwrap

import yaml

from data_io.names.ages import parse_age
from data_io.names.listing import Survey
from models.hmm import HmmParams
from study.base.console import WIDTH, Console
from study.base.paths import Where, without_password
from study.config.search import SearchConfig
from study.config.stopping import first_rung, searched_late
from study.config.tree import StudyConfig, scope_in_words

MAX_BIRDS, MAX_AGES, MAX_REASONS = 30, 8, 5
_SONG = "Frechet distance of sampled to real songs"
OBJECTIVES_IN_WORDS = {
    "valid/objective": f"{_SONG}, mean over birds and ages; trials that collapsed come last",
    "valid/frechet_song": f"{_SONG}, mean over birds and ages",
    "valid/frechet_song_worst": f"{_SONG}, of the worst bird and age",
    "valid/recon_l1": "L1 of reconstructions over all snippets",
    "valid/recon_l1_mean": "L1 of reconstructions, mean over birds and ages",
    "valid/recon_l1_worst": "L1 of reconstructions of the worst bird and age",
    "valid/recon_l1_vs_pca": "L1 of reconstructions over that of a PCA of 16 dimensions",
    "valid/recon_l2": "L2 of reconstructions over all snippets",
    "valid/recon_lsd_db": "log-spectral distance of reconstructions",
    "valid/frechet_sample": "Frechet distance of samples of the prior, which no song comes from",
}


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
    else:
        n = len(found.recordings.used.birds_and_ages())
    c.line(f"Study     {config.name}, seed {config.seed}")
    show_data(config, found, c)
    c.line(f"Trials    {search.n_trials} of {config.mdgan.n_snippets:,} snippets each, over")
    if not search.space:
        c.line("            nothing: every parameter is fixed")
    for name, entry in search.space.items():
        c.line(f"            {name}: {entry.describe()} ({entry.role})")
    c.line(f"          proposed by {_sampler_in_words(search)}")
    ranked = f"ranked by {search.objective} on held-out recordings:"
    _indented(f"{ranked} {OBJECTIVES_IN_WORDS[search.objective]}", c, 10)
    stopping = _stopping_in_words(config)
    _indented(stopping, c, 10)
    c.line(f"Best      {_rule_in_words(search)}")
    if config.decoders.scope != "all":
        c.line(f"Decoders  {scope_in_words(config.decoders.scope)}")
    hop_ms = 1000 * config.snippets.hop * config.spectrogram.frame_s
    c.line(f"HMMs      {n} birds and ages, a snippet every {hop_ms:g} ms,")
    _indented(_search_in_words(hmm), c, 10)
    c.line(f"Ray       {where.address or 'on this machine'}")
    c.line(f"MLflow    {without_password(where.tracking_uri)}")
    c.line(f"Results   {where.out}")
    c.line()


def show_data(config: StudyConfig, found: Survey | None, c: Console) -> None:
    """Print the birds and ages as they were understood, and what looks wrong in their names."""
    if found is None:
        simulation = config.data.simulation
        n_ages = len(simulation.ages_dph)
        c.line(f"Data      {simulation.n_birds} simulated birds at {n_ages} ages")
        return
    ages_of: dict[str, list[str]] = {}
    for bird, age in found.recordings.used.birds_and_ages():
        ages_of.setdefault(bird, []).append(age)
    n = len(found.recordings.used)
    n_ages = sum(map(len, ages_of.values()))
    c.line(
        f"Data      {n:,} recording{_s(n)} of {n_ages:,} bird{_s(n_ages)} and age{_s(n_ages)} "
        f"in {found.root}"
    )
    for bird in list(ages_of)[:MAX_BIRDS]:
        known = found.birds.get(bird)
        facts = [f"hatched {known.hatch_date}"] if known and known.hatch_date else []
        facts += [f"tutor {known.tutor}"] if known and known.tutor else []
        name = f"{bird} ({', '.join(facts)})" if facts else bird
        _indented(f"{name}: {ages_in_words(ages_of[bird])}", c)
    if len(ages_of) > MAX_BIRDS:
        c.line(f"            and {len(ages_of) - MAX_BIRDS} more birds")
    for reason, n_files in _left_out(found):
        _indented(f"Left out: {n_files:,} file{_s(n_files)}: {reason}", c)
    for note in found.notes:
        _indented(f"Look: {note}", c)


def _left_out(found: Survey) -> list[tuple[str, int]]:
    """The most frequent reasons why files are not even opened, with their numbers."""
    reasons = found.recordings.where(~found.recordings.is_used).table["reason"]
    counts = {one["values"]: one["counts"] for one in reasons.value_counts().to_pylist()}
    in_order = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    n_more = sum(n for _, n in in_order[MAX_REASONS:])
    return in_order[:MAX_REASONS] + ([("for other reasons", n_more)] if n_more else [])


def _s(n: int) -> str:
    """The ending of a noun of which there are ``n``."""
    return "" if n == 1 else "s"


def ages_in_words(ages: list[str]) -> str:
    """Ages of a bird, in order: days post hatch, dates, and other words."""
    days = sorted(dph for dph, _ in map(parse_age, ages) if dph is not None)
    dates = sorted(date for _, date in map(parse_age, ages) if date is not None)
    others = [age for age in ages if parse_age(age) == (None, None)]
    words = []
    if days:
        words.append(_listed([str(day) for day in days], " dph"))
    if dates:
        words.append(_listed(dates))
    if others:
        words.append(f"{_listed(others)} (neither an age nor a date)")
    return "; ".join(words)


def _listed(names: list[str], unit: str = "") -> str:
    if len(names) <= MAX_AGES:
        return ", ".join(names) + unit
    return f"{', '.join(names[: MAX_AGES - 1])} ... {names[-1]}{unit} ({len(names)} ages)"


def _indented(text: str, c: Console, by: int = 12) -> None:
    first, others = " " * by, " " * (by + 2)
    c.line(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=others))


def _sampler_in_words(search: SearchConfig) -> str:
    words: str = search.sampler
    if words in ("gp", "tpe") and search.n_trials <= search.n_startup_trials:
        words = f"chance: {words} begins after {search.n_startup_trials} trials"
    return f"{words}, after {len(search.first)} given to try first" if search.first else words


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
    if selection.n_seeds == 0:
        return f"{words}: no trial is trained again"
    return f"{words}: {n_candidates} candidates x {selection.n_seeds} fresh seeds"


def _search_in_words(hmm: HmmParams) -> str:
    limit = f"up to {hmm.n_states_limit} where BIC is still falling there"
    if hmm.search == "merge":
        return f"{hmm.n_states[0]} to {hmm.n_states[-1]} states by merging, {limit}"
    return f"{len(hmm.n_states)} numbers of states x {hmm.n_restarts} restarts, {limit}"


def show_config(config: StudyConfig, c: Console) -> None:
    """Print the resolved configuration as YAML that --config accepts."""
    c.line(yaml.safe_dump(config.to_dict(), sort_keys=False, width=WIDTH).rstrip())
