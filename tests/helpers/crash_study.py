"""Small studies whose every change of the disk can be tried."""

SMALL = (
    "data.simulation.n_birds=1", "data.simulation.minutes=0.12",
    "data.simulation.recording_s=[1.8,2.2]", "mdgan.n_snippets=64", "mdgan.n_reports=2",
    "mdgan.dense_width=4", "mdgan.n_components=16", "mdgan.disc_width=1", "mdgan.batch_size=16",
    "search.n_eval_snippets=100", "search.grace_reports=1",
    "search.selection={rule: lowest, n_candidates: 1, n_seeds: 1}", "hmm.n_states=[1,2]",
    "hmm.max_n_states=2", "hmm.n_restarts=1", "hmm.n_iter=5", "hmm.min_snippets=20",
    "songs.seconds=0.5", "songs.griffin_lim_iterations=1", "checks.n_replicas=5",
    "checks.sound_s=1.0",
)  # fmt: skip


def _words(run, there, *more):
    return [
        "--preset", "smoke", "--out", run, "--tracking-uri", f"sqlite:///{there / 'mlflow.db'}",
        *SMALL, *more,
    ]  # fmt: skip


AGES = "data.simulation.ages_dph=[60]"


def first(run, there):
    """A study in a new folder."""
    return None, _words(run, there, "search.n_trials=2", AGES)


def again(run, there):
    """One trial more and a decoder of the bird's own: later stages replace their results."""
    after = _words(
        run, there, "search.n_trials=2", "decoders.scope=bird", "hmm.shared_states=true", AGES
    )
    return _words(run, there, "search.n_trials=1", AGES), after


def aside(run, there):
    """Other recordings in the same folder: all stages run again, the search is set aside."""
    before = _words(run, there, "search.n_trials=1", AGES)
    return before, _words(run, there, "search.n_trials=1", "data.simulation.ages_dph=[60,75]")


SCENARIOS = {"first": first, "again": again, "aside": aside}
