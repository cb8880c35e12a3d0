"""Who proposes trials: Optuna, through Ray Tune's searcher, from what is on disk.

The folders of the trials say what there is. Optuna's own record, optuna.log, is written from them
at every start of a search, so that it never says anything else; `optuna-dashboard` can show it.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from scipy.stats import qmc

from models.mdgan.collapse import COLLAPSED_BELOW
from study.config.space import grid_points
from study.config.tree import StudyConfig
from study.search.distributions import at_share, distribution, from_optuna, to_optuna
from study.search.samplers import propose_by_gp, sampler, sampler_seed
from study.search.state import Outcome, SearchState, TrialState
from study.search.trial import RANKED_BY
from study.search.trial_folder import TrialFolder, TrialSpec, trial_name
from study.search.tune_adapters import Unpickled

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)


class StudySearch(Unpickled, OptunaSearch):
    """OptunaSearch over trials on disk: those that are not over come first, then new ones.

    What a trial is given depends on the seed, its number and the results known by then, not on how
    often the study was killed: every number has a sampler with a seed of its own.

    Args:
        config: of the study.
        state: all trials; filled from ``folder``, and with new ones as they are proposed.
        folder: of the search; holds the folders of the trials and optuna.log.
    """

    def __init__(self, config: StudyConfig, state: SearchState, folder: Path):
        self._config = config
        self._state = state
        self._folder = folder
        self._untold: list[int] = []  # trials that ended and are not decided
        self._grid = grid_points(config.search.space) if config.search.sampler == "grid" else []
        for name in ("optuna.log", "optuna.log.lock"):
            (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
        space = distributions(config)
        lowered = config.search.lowered
        n = len(lowered)
        metric, mode = (list(lowered), ["min"] * n) if n > 1 else (RANKED_BY, "min")
        super().__init__(space, metric, mode, study_name=config.name, storage=storage)
        for number in range(max(state.trials, default=-1) + 1):
            if number in state.trials:
                self._ot_study.add_trial(self._frozen(state.trials[number]))
            else:  # its folder was removed, so that it is trained anew
                self._ask(number, trial_name(number))
        self.pending = [number for number in sorted(state.trials) if not state.is_over(number)]

    @property
    def optuna_study(self) -> optuna.Study:
        """The study as Optuna sees it."""
        study: optuna.Study = self._ot_study
        return study

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial that is not over, or a new one."""
        self.tell_decided()
        if self.pending:
            number = self.pending.pop(0)
            self._ot_trials[trial_id] = self._trial(number)
            return {"spec": vars(self._state.trials[number].spec)}
        number = len(self._ot_study.get_trials(deepcopy=False))
        if number >= self._config.search.n_trials:
            return str(Searcher.FINISHED)  # with None, Tune would ask for ever
        return {"spec": vars(self._ask(number, trial_id))}

    def _ask(self, number: int, trial_id: str) -> TrialSpec:
        study, space = self._ot_study, self._config.search.space
        seed = sampler_seed(self._config.seed, number)
        point = self._fixed_point(number)
        study.sampler = sampler(self._config.search, seed)
        if not point and self._config.search.sampler == "gp":
            point = propose_by_gp(study, distributions(self._config), self._config.search, seed)
        if point:
            study.enqueue_trial(point)
        told = super().suggest(trial_id)
        assert told is not None and self._ot_trials[trial_id].number == number
        noted = study.get_trials(deepcopy=False)[number].system_attrs
        params = {name: from_optuna(entry, told[name]) for name, entry in space.items()}
        self._ot_trials[trial_id].set_user_attr("params", params)
        of = self._state.search
        spec = TrialSpec(trial_name(number), number, self._config.seed, params, dict(noted), of)
        TrialFolder(self._folder / spec.name).begin(spec)
        self._state.add(TrialState(spec))
        return spec

    def _fixed_point(self, number: int) -> dict[str, Any]:
        """Parameters of trial ``number``, as Optuna has them, that no sampler of Optuna sets."""
        search = self._config.search
        if number < len(search.first):
            point = {n: v for n, v in search.first[number].items() if n in search.space}
        elif self._grid:
            point = self._grid[(number - len(search.first)) % len(self._grid)]
        elif search.sampler == "quasi_random" and search.space:
            sobol = qmc.Sobol(len(search.space), scramble=True, rng=self._config.seed)
            position = number - len(search.first)
            row = sobol.fast_forward(position).random(1)[0] if position else sobol.random(1)[0]
            shares = zip(search.space.items(), row, strict=True)
            point = {name: at_share(entry, share) for (name, entry), share in shares}
        else:
            point = {}
        return {name: to_optuna(search.space[name], value) for name, value in point.items()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports are told at the end: whether one counts is known only then."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how a trial ended, once that is decided."""
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        self._untold.append(self._ot_trials[trial_id].number)
        self.tell_decided()

    def tell_decided(self) -> None:
        """Tell Optuna of every trial that ended and whose outcome no other trial can change now."""
        outcomes = {number: self._state.outcome(number) for number in self._untold}
        self._untold = [number for number in self._untold if outcomes[number].status == "running"]
        for number in sorted(outcomes.keys() - set(self._untold)):
            self._tell(number, outcomes[number])

    def _tell(self, number: int, outcome: Outcome) -> None:
        trial = self._trial(number)
        state, values = self._verdict(outcome)
        trial.set_user_attr("status", outcome.status)
        trial.set_user_attr("reason", outcome.reason)
        if values is not None:
            for key, value in _constraints(outcome).items():
                trial.set_constraint(key, value)
        if values is not None and state == OptunaState.PRUNED:
            trial.report(values[0], outcome.last["report"])
            values = None  # Optuna takes it from the report
        self._ot_study.tell(number, values, state=state)

    def _trial(self, number: int) -> optuna.trial.Trial:
        frozen = self._ot_study.get_trials(deepcopy=False)[number]
        return optuna.trial.Trial(self._ot_study, frozen._trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the folders of the trials are the record."""

    def _verdict(self, outcome: Outcome) -> tuple[OptunaState, list[float] | None]:
        lowered = self._config.search.lowered
        names = (RANKED_BY,) if len(lowered) == 1 else lowered
        values = [outcome.last.get(name) for name in names]
        is_measured = all(value is not None and np.isfinite(value) for value in values)
        if outcome.status == "failed" or outcome.last.get("reason") or not is_measured:
            return OptunaState.FAIL, None
        # A value from halfway is not one of a whole training: the sampler ranks it behind these.
        is_stopped = outcome.status == "stopped"
        state = OptunaState.PRUNED if is_stopped else OptunaState.COMPLETE
        return state, [float(value) for value in values if value is not None]

    def _frozen(self, state: TrialState) -> FrozenTrial:
        """A trial from disk, for Optuna's record."""
        outcome = self._state.outcome(state.spec.number)
        space = self._config.search.space
        told = {n: to_optuna(space[n], value) for n, value in state.spec.params.items()}
        known: dict[str, Any] = {
            "params": told or {"latent_dim": self._config.mdgan.latent_dim},
            "distributions": distributions(self._config),
            "user_attrs": {"params": state.spec.params},
            "system_attrs": dict(state.spec.system_attrs),  # Optuna adds to what it is given
        }
        if outcome.status == "running":
            if state.ended is not None:
                self._untold.append(state.spec.number)
            return optuna.trial.create_trial(state=OptunaState.RUNNING, **known)
        verdict, values = self._verdict(outcome)
        known["user_attrs"] |= {"status": outcome.status, "reason": outcome.reason}
        if values is not None:
            known["constraints"] = _constraints(outcome)
        if values is not None and verdict == OptunaState.PRUNED:
            known["intermediate_values"] = {outcome.last["report"]: values[0]}
        return optuna.trial.create_trial(state=verdict, values=values, **known)


def distributions(config: StudyConfig) -> dict[str, BaseDistribution]:
    """The search space as Optuna wants it."""
    space = {name: distribution(entry) for name, entry in config.search.space.items()}
    if space:
        return space
    # Ray takes an empty space for one that is still to come.
    return {"latent_dim": CategoricalDistribution((config.mdgan.latent_dim,))}


def _constraints(outcome: Outcome) -> dict[str, float]:
    """Above 0 where a decoder has collapsed: Optuna then takes the trial for infeasible."""
    spread = outcome.last.get("valid/spread", float("inf"))
    return {"collapsed": COLLAPSED_BELOW - min(float(spread), 1e6)}
