"""Configuration of the search over trials: space, sampler, stopping and selection."""

from dataclasses import dataclass, field
from typing import Any, Literal

from models.metrics.evaluation import OBJECTIVES
from study.config.ranges import check_ranges
from study.config.space import DEFAULT_SPACE, SpaceEntry, check_first, check_grid, check_space

SamplerName = Literal["tpe", "gp", "quasi_random", "nsga2", "grid"]
Rule = Literal["one_standard_error", "lowest"]


@dataclass(frozen=True)
class SelectionConfig:
    """The rule that picks the best trial; it is fixed before the search begins.

    Candidates are the best completed trial of each latent size, best first, then the next best
    trials. Each is trained again with fresh seeds; the rule compares means over these.

    Attributes:
        rule: one_standard_error (the smallest latent size whose mean is within one standard error
            of the lowest mean) or lowest (the lowest mean).
        metric: held-out metric to compare, lower is better; null for search.objective.
        n_candidates: most candidates.
        n_seeds: trainings of each candidate with seeds that the search did not use. The search's
            own value of a candidate is the lowest of many, and so too low: it is shown beside them
            and not counted. With 0 no candidate is trained again, and it alone is compared.
    """

    rule: Rule = "one_standard_error"
    metric: str | None = None
    n_candidates: int = 3
    n_seeds: int = 3

    def __post_init__(self) -> None:
        check_ranges(self, {"n_candidates": (1, 1000), "n_seeds": (0, 1000)})
        if self.rule == "one_standard_error" and self.n_seeds < 2:
            raise ValueError(
                f"rule is one_standard_error and n_seeds is {self.n_seeds}: a standard error needs "
                "two seeds. Set n_seeds to 2 or more, or rule=lowest."
            )
        if self.metric is not None:
            _check_objective("metric", self.metric)


@dataclass(frozen=True)
class SearchConfig:
    """The search over trials.

    Attributes:
        n_trials: trials to run; a larger number later adds the difference.
        space: what is searched, by name of an mdgan parameter.
        sampler: who proposes trials. tpe (a tree of Parzen estimators) and gp (a Gaussian process)
            learn from results; quasi_random spreads them evenly (Sobol); nsga2 is a genetic search;
            grid takes every combination of the scientific choices in turn and lets tpe set the
            rest. tpe, gp and nsga2 can lower several metrics at once.
        first: points of the space to try first; what a point leaves out is sampled.
        objective: held-out metric that ranks trials, lower is better; never a training loss.
        objectives: several metrics that the sampler lowers at once; empty for ``objective`` alone.
            With several, no trial is stopped early.
        selection: the rule that picks the best trial.
        n_startup_trials: trials drawn at random before the sampler learns from results; the
            population of nsga2.
        grace_reports: report at which a trial may first be stopped, best at half of a training:
            earlier ones stop trials that would end best (``benchmarks/hpo_replay.py``). Later where
            what is searched acts later (`study.config.stopping`). mdgan.n_reports or more stops
            none.
        reduction_factor: at each rung the best 1/reduction_factor goes on.
        n_eval_snippets: held-out snippets behind every metric; a Frechet distance is biased where
            they are few, so the number is the same for all trials.
        max_retries: times that a trial goes on from its checkpoint after its process died.
    """

    n_trials: int = 8
    space: dict[str, SpaceEntry] = field(default_factory=lambda: dict(DEFAULT_SPACE))
    sampler: SamplerName = "gp"
    first: tuple[dict[str, Any], ...] = ()
    objective: str = "valid/objective"
    objectives: tuple[str, ...] = ()
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    n_startup_trials: int = 4
    grace_reports: int = 4
    reduction_factor: int = 3
    n_eval_snippets: int = 2000
    max_retries: int = 3

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "n_trials": (1, 10**5), "grace_reports": (1, 10**6), "n_startup_trials": (1, 10**6),
                "max_retries": (0, 10**4), "reduction_factor": (2, 10**6),
            },
        )  # fmt: skip
        if self.n_eval_snippets < 100:
            raise ValueError(
                f"n_eval_snippets is {self.n_eval_snippets}: below 100 a Frechet distance says "
                "nothing; 2000 is a good number."
            )
        # Distances between all pairs of these are held in memory.
        check_ranges(self, {"n_eval_snippets": (100, 20_000)})
        _check_objective("objective", self.objective)
        if len(self.objectives) == 1 or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"objectives is {list(self.objectives)}: give two or more different metrics, or "
                "set search.objective for one."
            )
        for objective in self.objectives:
            _check_objective("objectives", objective)
        check_space(self.space)
        check_first(self.space, self.first)
        if self.sampler == "grid":
            check_grid(self.space)

    @property
    def lowered(self) -> tuple[str, ...]:
        """The metrics that the sampler lowers."""
        return self.objectives or (self.objective,)

    @property
    def stops_early(self) -> bool:
        """True if weak trials are stopped early, which needs one number to compare them by."""
        return len(self.lowered) == 1

    @property
    def kept_choices(self) -> tuple[str, ...]:
        """Parameters of which every value keeps a trial to the end.

        They are the scientific choices, and the latent size, which the selection rule compares.
        """
        return tuple(
            name for name, entry in self.space.items()
            if entry.choice is not None and (entry.role == "scientific" or name == "latent_dim")
        )  # fmt: skip

    @property
    def compared(self) -> str:
        """The metric that picks the best trial."""
        return self.selection.metric or self.objective


def _check_objective(name: str, metric: str) -> None:
    if metric not in OBJECTIVES:
        raise ValueError(
            f"{name} is {metric!r}: trials are ranked by an unweighted held-out metric, one of "
            f"{', '.join(OBJECTIVES)}. A training loss holds the very weights that are searched."
        )
