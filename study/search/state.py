"""All that is known of the trials of a search: reports, who has ended, and how."""

from dataclasses import dataclass, field
from typing import Any, Literal

from study.search.rungs import Rungs
from study.search.trial import RANKED_BY
from study.search.trial_folder import Report, TrialSpec
from study.training.train import too_like

Status = Literal["running", "completed", "stopped", "collapsed", "failed"]
# Names of metrics, beside Tune's own entries in a report.
COUNTED_IN_RESULTS = ("train/", "valid/", "time/", "system/")


@dataclass
class TrialState:
    """One trial.

    Attributes:
        spec: what makes it.
        reports: by number, from 1; a training that failed reports that, too.
        ended: content of ended.json; None while it has not ended.
        node: host that it ran on last.
        n_retries: times that its process died in this run of the study.
    """

    spec: TrialSpec
    reports: dict[int, Report] = field(default_factory=dict)
    ended: dict[str, Any] | None = None
    node: str = ""
    n_retries: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a trial stands.

    Attributes:
        status: running while it is not decided.
        reason: why it did not complete; "" where it did.
        reports: those that count, in order.
    """

    status: Status
    reason: str
    reports: list[Report]

    @property
    def last(self) -> Report:
        """The report that decides; empty where there is none."""
        return self.reports[-1] if self.reports else {}


class SearchState:
    """All trials by number.

    Attributes:
        n_ended: trials whose process is done.

    Args:
        rungs: where trials are compared, and stopped early.
        n_reports: reports of a whole training.
        kept_choices: parameters of which every value keeps a trial to the end.
        search: hash of the parts of the search, which every trial.json holds.
    """

    def __init__(
        self, rungs: Rungs, n_reports: int, kept_choices: tuple[str, ...] = (), search: str = ""
    ):
        self.rungs = rungs
        self.n_reports = n_reports
        self.kept_choices = kept_choices
        self.search = search
        self.n_ended = 0
        self.trials: dict[int, TrialState] = {}

    def add(self, state: TrialState) -> None:
        """Take in a trial with what it reported so far."""
        number = state.spec.number
        self.trials[number] = state
        self.rungs.enter(number, [(name, state.spec.params[name]) for name in self.kept_choices])
        for report in state.reports.values():
            self.compare(number, report)
        if state.ended is not None:
            self.end(number, state.ended)

    def end(self, number: int, ended: dict[str, Any]) -> None:
        """Trial ``number`` has ended as ended.json says."""
        self.trials[number].ended = ended
        self.n_ended += 1
        self.rungs.end(number)

    def begin(self, number: int) -> None:
        """A process of trial ``number`` begins: what one before it failed of counts no more."""
        reports = self.trials[number].reports
        self.trials[number].reports = {n: r for n, r in reports.items() if not r.get("reason")}

    def add_report(self, number: int, report: Report) -> None:
        """Take in a report; one that is known stays as it is.

        A failure comes behind all reports of the trial: its process may not have come as far again
        as one before it. After the last one it changes nothing: the training is whole.
        """
        reports = self.trials[number].reports
        if report.get("reason"):
            last = max((n for n, one in reports.items() if not one.get("reason")), default=0)
            if last >= self.n_reports:
                return
            seen = reports[last]["snippets_seen"] if last else 0
            report = {**report, "report": last + 1, "snippets_seen": seen}
        reports.setdefault(report["report"], report)
        self.compare(number, report)

    def compare(self, number: int, report: Report) -> None:
        """Let a report count at the rungs; the first one told of it does."""
        if not report.get("reason"):  # a failure is no measurement
            self.rungs.add(number, report["report"], report[RANKED_BY])

    def outcome(self, number: int) -> Outcome:
        """How trial ``number`` stands."""
        state = self.trials[number]
        last, is_stopped = self.rungs.counts_up_to(number)
        numbers = [r for r in sorted(state.reports) if last is None or r <= last]
        reports = [state.reports[r] for r in numbers]
        result = reports[-1] if reports else {}
        if result.get("reason"):
            return Outcome(result["ended"], result["reason"], reports)
        is_whole = bool(reports) and numbers[-1] >= self.n_reports
        if (is_whole or is_stopped) and result.get("valid/collapsed"):
            return Outcome("collapsed", too_like(result), reports)
        if is_stopped:
            return Outcome("stopped", f"stopped early at report {last}", reports)
        if is_whole:
            return Outcome("completed", "", reports)
        if state.ended is None or last is not None:
            return Outcome("running", "", reports)
        n_done = numbers[-1] if reports else 0
        if not state.ended["reason"] and self.rungs.are_before(n_done):
            # Stopped when its rivals were others: one of these failed then, and was tried again.
            return Outcome("stopped", f"stopped early at report {n_done}", reports)
        return Outcome("failed", state.ended["reason"] or f"ended after report {n_done}", reports)

    def is_over(self, number: int) -> bool:
        """Whether nothing more can come of a trial: no need to train it further."""
        return self.trials[number].ended is not None or self.outcome(number).status != "running"


def counted(report: Report) -> dict[str, float]:
    """The metrics of a report, without Tune's own entries.

    The objective comes first: MLflow's page compares runs by the first metric.
    """
    names = sorted(report, key=lambda name: (name != "valid/objective", name))
    return {k: float(report[k]) for k in names if k.startswith(COUNTED_IN_RESULTS)}
