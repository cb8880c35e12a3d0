"""Settings of the HMM fits of a study: ranges, EM, health."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

CovarianceType = Literal["spherical", "diag", "tied", "full"]
CovarianceChoice = Literal["auto", "spherical", "diag", "tied", "full"]
Transitions = Literal["full", "sparse", "left_right"]
SearchKind = Literal["merge", "grid"]
Engine = Literal["ours", "hmmlearn"]
Emissions = Literal["gaussian", "student_t"]
Memory = Literal["auto", "none", "context", "autoregressive"]
# The most that a number may be: beyond, a fit never ends, or says nothing of whitened latents.
_MOST = {
    "max_n_states": 10**5, "n_restarts": 10**4, "n_iter": 10**6, "tol": 1e3, "covars_prior": 1e3,
    "min_variance": 1.0, "max_repairs": 1000, "min_snippets": 10**9, "min_recordings": 10**6,
    "min_snippets_per_state": 10**9, "dof": 1e6,
}  # fmt: skip


@dataclass(frozen=True)
class HmmParams:
    """The HMM fits of one bird and age.

    Attributes:
        n_states: numbers of states to try. The merge search takes the lowest and the highest as its
            range, the grid takes each.
        max_n_states: where BIC is lowest at the highest number tried, more are tried, up to this
            limit; null for twice the highest of n_states.
        search: "merge" (a coarse pass, then states merged one by one; fast) or "grid" (every
            number, n_restarts times).
        covariance_type: spherical, diag, tied or full; "auto" searches diag and full and takes the
            one with the lower BIC.
        emissions: "gaussian", or "student_t" (a multivariate t: snippets far from their state count
            less; for latents with heavy tails).
        dof: degrees of freedom of student_t; few make the tails heavy.
        memory: what a state's past may tell of the next beyond the state: "none"; "context" (a
            state has copies by what came before it); "auto" (contexts where they lower BIC and do
            not lower the held-out likelihood); "autoregressive" (one matrix carries each latent
            over to the next).
        transitions: "full"; "sparse" (those expected less than once are set to zero and not counted
            as parameters); "left_right" (to the same or a later state, from the first).
        is_chained: ages of a bird are done in order, each tried also from the model of the age
            before; merge search only.
        shared_states: the states of a bird are the same at all its ages: one set of emissions,
            transitions and starts for each age. Fits of each age alone are made too and compared.
            Merge search and full transitions only.
        n_restarts: independent starts, with seeds of their own: of every number of states in a
            grid; of the chosen number, to confirm it, in a merge search, but one of more than
            12,000 snippets.
        n_iter: EM iterations at most.
        tol: converged when an iteration gains less than this, in nats per snippet; a merge search
            of more than 12,000 snippets stops at 30 times as much.
        covars_prior: adds this much spread to every state, in whitened units times snippets.
        min_variance: no variance of a state falls below, in whitened units.
        max_repairs: times that dead or singleton states of a fit are seeded anew.
        held_out_fraction: of recordings, kept out of a second round of fits that gives the held-out
            log-likelihood; 0 leaves it out.
        engine: "ours", or "hmmlearn" for the E-step of hmmlearn's default: same numbers, slower.
        min_snippets: a bird and age with fewer gets no model, and a row that says so. Where
            snippets overlap, as many are counted as would lie side by side.
        min_recordings: the same for recordings.
        min_snippets_per_state: numbers of states that would leave fewer are not tried; counted in
            the same way.
    """

    n_states: tuple[int, ...] = (5, 100)
    max_n_states: int | None = None
    search: SearchKind = "merge"
    covariance_type: CovarianceChoice = "auto"
    emissions: Emissions = "gaussian"
    dof: float = 4.0
    memory: Memory = "auto"
    transitions: Transitions = "full"
    is_chained: bool = False
    shared_states: bool = False
    n_restarts: int = 3
    n_iter: int = 200
    tol: float = 1e-5
    covars_prior: float = 1e-2
    min_variance: float = 1e-3
    max_repairs: int = 3
    held_out_fraction: float = 0.2
    engine: Engine = "ours"
    min_snippets: int = 200
    min_recordings: int = 2
    min_snippets_per_state: int = 10

    @property
    def n_states_limit(self) -> int:
        """The most states that are ever tried."""
        return 2 * self.n_states[-1] if self.max_n_states is None else self.max_n_states

    @property
    def kind(self) -> CovarianceType:
        """The one kind of covariances that is fitted.

        Raises:
            ValueError: covariance_type is "auto", which only a search can resolve.
        """
        if self.covariance_type == "auto":
            raise ValueError(
                "covariance_type is 'auto', but one fit has one kind of covariances: give that of "
                f"a model, or one of {', '.join(get_args(CovarianceType))}."
            )
        return self.covariance_type

    @property
    def kinds(self) -> tuple[CovarianceType, ...]:
        """The kinds of covariances that a search tries."""
        return ("diag", "full") if self.covariance_type == "auto" else (self.covariance_type,)

    def __post_init__(self) -> None:
        if not self.n_states or min(self.n_states) < 1 or max(self.n_states) > 10**5:
            raise ValueError(
                f"n_states is {list(self.n_states)}: give at least one number of states, each 1 or "
                "more, and 100,000 or less."
            )
        # As numbers, so that 5 comes before 20 and 20 before 100; each once.
        object.__setattr__(self, "n_states", tuple(sorted(set(self.n_states))))
        if self.max_n_states is not None and self.max_n_states < self.n_states[-1]:
            raise ValueError(
                f"max_n_states is {self.max_n_states}, below the highest of n_states "
                f"({self.n_states[-1]}): raise it."
            )
        for name, kind in (
            ("search", SearchKind),
            ("covariance_type", CovarianceChoice),
            ("emissions", Emissions),
            ("memory", Memory),
            ("transitions", Transitions),
            ("engine", Engine),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}."
                )
        for name in ("n_restarts", "n_iter", "min_snippets", "min_recordings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        for name in ("tol", "covars_prior", "min_variance", "min_snippets_per_state", "dof"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0.")
        for name, most in _MOST.items():
            if (getattr(self, name) or 0) > most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {most:,} or less.")
        if self.emissions == "student_t" and self.engine == "hmmlearn":
            raise ValueError(
                "emissions is student_t, which hmmlearn does not know: use engine=ours."
            )
        if self.memory == "autoregressive" and self.is_chained:
            raise ValueError(
                "is_chained is true with memory=autoregressive, whose latents differ by age: use "
                "memory=auto, or is_chained=false."
            )
        if self.is_chained and self.search == "grid":
            raise ValueError("is_chained is true, but only search=merge takes models over: use it.")
        if self.shared_states and (
            self.search == "grid" or self.transitions != "full" or self.memory == "autoregressive"
        ):
            raise ValueError(
                f"shared_states is true with search={self.search}, transitions={self.transitions} "
                f"and memory={self.memory}, but states are shared by search=merge and "
                "transitions=full alone, and by latents that no matrix of one age carries over: "
                "use these, and memory=auto, context or none."
            )
        if self.max_repairs < 0:
            raise ValueError(f"max_repairs is {self.max_repairs}: it must be 0 or more.")
        if not 0 <= self.held_out_fraction <= 0.5:
            raise ValueError(
                f"held_out_fraction is {self.held_out_fraction}: it must lie from 0 to 0.5."
            )


def too_few(lengths: Sequence[int], params: HmmParams, new_share: float = 1.0) -> str:
    """Why recordings of ``lengths`` snippets are too few for a model; "" where they suffice.

    Where a snippet is new by ``new_share`` alone, they count for so many fewer.
    """
    if sum(lengths) * new_share < params.min_snippets:
        counted = in_words(sum(lengths), new_share)
        return f"{counted}, {params.min_snippets} needed (hmm.min_snippets)"
    if len(lengths) < params.min_recordings:
        counted = f"{len(lengths)} recording{'s' * (len(lengths) != 1)}"
        return f"{counted}, {params.min_recordings} needed (hmm.min_recordings)"
    return ""


def in_words(n_snippets: int, new_share: float) -> str:
    """A number of snippets, and how many would lie side by side where they overlap."""
    snippets = f"snippet{'s' * (n_snippets != 1)}"
    if new_share == 1:
        return f"{n_snippets} {snippets}"
    return f"{n_snippets} overlapping {snippets}, side by side {n_snippets * new_share:.0f}"
