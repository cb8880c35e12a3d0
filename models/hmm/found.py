"""What a search found: the choice, every fit, and how sure it is."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from models.hmm.choice import ChosenByBic
from models.hmm.fit import HmmFit
from models.hmm.gaussian import GaussianHMM
from models.hmm.report import report_of

SearchStatus = Literal["ok", "too_few_snippets", "failed"]


@dataclass(frozen=True)
class StatesFound:
    """The number of states that a search found, and every fit on the way.

    Attributes:
        status: ok, too_few_snippets, failed.
        reason: why, where not ok; remarks on the choice where it is.
        fits: every fit that was looked at, in order; only the chosen one has its model.
        selection: the choice by BIC; None where there is no model.
        edge: "" or "highest": BIC is lowest at the highest number of states that may be tried.
        chosen_by: number of states that each criterion would choose, among fits with covariances
            of the chosen kind.
        n_effective: independent observations that the snippets are worth.
        restart_spread: log-likelihood of the chosen fit above the worst restart at that number of
            states, in nats; NaN where there was none.
        n_agreeing: restarts within a nat per thousand snippets of the chosen fit.
        n_restarts: restarts at that number of states.
        rival_covariance_type: the kind of covariances that BIC did not choose; "" where one kind
            alone was searched.
        rival_n_states: the number of states with the lowest BIC of that kind; None without one.
        rival_bic_distance: its BIC above the chosen one; NaN without one.
        rival_held_out_log_likelihood: of that fit, in nats per snippet; NaN without one.
        at_limit: names of the criteria, as in chosen_by, that are still getting better at the
            highest number of states for which they are known.
        held_out_se_n_states: the fewest states whose held-out log-likelihood lies within one
            standard error (over held-out recordings, paired) of the best; None where no two
            recordings were held out.
        n_states_set: the numbers of states that the songs do not rule out, a 95 % confidence set
            around the choice by BIC (models/hmm/confidence.py); () without a model.
    """

    status: SearchStatus
    reason: str
    fits: list[HmmFit] = field(default_factory=list)
    selection: ChosenByBic | None = None
    edge: str = ""
    chosen_by: dict[str, int] = field(default_factory=dict)
    n_effective: float = math.nan
    restart_spread: float = math.nan
    n_agreeing: int = 0
    n_restarts: int = 0
    rival_covariance_type: str = ""
    rival_n_states: int | None = None
    rival_bic_distance: float = math.nan
    rival_held_out_log_likelihood: float = math.nan
    at_limit: tuple[str, ...] = ()
    held_out_se_n_states: int | None = None
    n_states_set: tuple[int, ...] = ()

    @property
    def n_states(self) -> int | None:
        """The number of states with the lowest BIC."""
        return self.selection.best.n_states if self.selection else None

    @property
    def n_states_low(self) -> int | None:
        """The fewest states that the songs do not rule out."""
        return min(self.n_states_set, default=None)

    @property
    def n_states_high(self) -> int | None:
        """The most states that the songs do not rule out."""
        return max(self.n_states_set, default=None)

    @property
    def model(self) -> GaussianHMM | None:
        """The model with the lowest BIC."""
        return self.selection.best.model if self.selection else None

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row per fit, by number of states; ``pandas.DataFrame(search.table)`` shows it."""
        names = [f.name for f in dataclasses.fields(HmmFit) if f.name != "model"]
        by_states = sorted(self.fits, key=lambda fit: fit.n_states)
        return [{name: getattr(fit, name) for name in names} for fit in by_states]

    def report(self) -> str:
        """The choice in about ten lines of plain text."""
        return report_of(self)
