"""Optuna's samplers, as a search uses them: each proposal from a sampler with its own seed."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.config.search import SearchConfig

TINY = 1e-12  # an objective may be 0


class OrderedNSGAII(optuna.samplers.NSGAIISampler):
    """Its parents depend on the results known by now, and on nothing else.

    Optuna stores the parents that it chose first. A search that was killed would choose anew, when
    more trials have ended; and once stored, they are drawn from a list in another order.
    """

    _before: list[FrozenTrial] | None = None  # parents of the generation before, meanwhile

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """The parents, by number."""
        if self._before is not None:  # `select_parent` asks
            return self._before
        found: list[FrozenTrial] = []
        try:
            for number in range(1, generation + 1):  # by recursion, hundreds would be too many
                self._before = found
                found = sorted(self.select_parent(study, number), key=lambda trial: trial.number)
        finally:
            self._before = None
        return found


def sampler_seed(seed: int, number: int) -> int:
    """The seed of the sampler that proposes trial ``number`` of a study with this seed."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def sampler(search: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial; with gp, where `propose_by_gp` proposes, it has nothing to do."""
    n_startup = search.n_startup_trials
    if search.sampler == "nsga2":
        return OrderedNSGAII(seed=seed, population_size=max(2, n_startup))
    if search.sampler == "gp":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup, constant_liar=True)


def propose_by_gp(
    study: optuna.Study, space: dict[str, BaseDistribution], search: SearchConfig, seed: int
) -> dict[str, Any]:
    """A point by a Gaussian process over the trials of ``study``.

    Optuna's process takes in completed trials alone, and their values as they are. So it is shown
    a copy, in which a stopped trial has the value that it was stopped with, a collapsed one the
    value of the worst sound one (its own, far above all, would make the others look alike), and
    every value is a logarithm: objectives are distances and ratios. It knows where running trials
    are.
    """
    directions = [direction.name.lower() for direction in study.directions]
    process = optuna.samplers.GPSampler(seed=seed, n_startup_trials=search.n_startup_trials)
    copy = optuna.create_study(sampler=process, directions=directions)
    trials = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.FAIL]
    values = {t.number: np.array(t.values) for t in trials if t.values is not None}
    sound = [values[t.number] for t in trials if t.number in values and not is_infeasible(t)]
    worst = np.max(sound, axis=0) if sound else np.inf
    for trial in trials:
        known: dict[str, Any] = {"params": trial.params, "distributions": space}
        if trial.state == TrialState.RUNNING:
            copy.add_trial(create_trial(state=TrialState.RUNNING, **known))
        elif sound:
            own = worst if is_infeasible(trial) else np.minimum(values[trial.number], worst)
            told = np.log(np.maximum(own, TINY))
            copy.add_trial(create_trial(values=told.tolist(), **known))
    return dict(copy.ask(space).params)


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial violates a constraint: its decoder has collapsed."""
    return any(value > 0 for value in trial.constraints.values())
