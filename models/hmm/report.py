"""The choice of a search in about ten lines of plain text."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.hmm.found import StatesFound

NAMES = {
    "aic": "AIC",
    "icl": "ICL",
    "bic_effective": "effective BIC",
    "held_out_log_likelihood": "held-out likelihood",
}


def report_of(found: "StatesFound") -> str:
    """The choice, how sure it is, and what speaks against it; one fact a line."""
    if found.selection is None:
        return f"No model ({found.status}): {found.reason}."
    best = found.selection.best
    overlap = "" if best.n_observations == best.n_snippets else (
        f" (of {best.n_snippets:,} that overlap)")  # fmt: skip
    lines = [
        f"{best.n_states} states by BIC; 95 % set {_numbers(found.n_states_set)}",
        f"N: {best.n_observations:,.0f} snippets{overlap}, worth {found.n_effective:,.0f} "
        "independent ones",
        f"covariances: {best.covariance_type}{_rival(found)}",
        f"fit: log-likelihood {best.log_likelihood / best.n_snippets:.3f} nats per snippet, "
        f"held out {best.held_out_log_likelihood:.3f}; {best.n_free_params:,} parameters",
        f"runner-up: {_runner_up(found)}",
        "other criteria: " + ", ".join(
            f"{words} {found.chosen_by[name]}{' (at limit)' if name in found.at_limit else ''}"
            for name, words in NAMES.items() if name in found.chosen_by
        ),
        "held-out likelihood within one standard error: "
        + ("unknown" if found.held_out_se_n_states is None else str(found.held_out_se_n_states)),
        f"restarts that agree: {found.n_agreeing} of {found.n_restarts}",
        f"weak states: {best.n_dead} dead, {best.n_singleton} of one snippet, {best.n_floored} on "
        "the variance floor",
    ]  # fmt: skip
    return "\n".join([*lines, f"remarks: {found.reason or 'none'}"])


def _numbers(numbers: tuple[int, ...]) -> str:
    """Whole numbers in rising order, runs of them as from-to."""
    parts: list[list[int]] = []
    for k in numbers:
        if parts and parts[-1][-1] == k - 1:
            parts[-1].append(k)
        else:
            parts.append([k])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in parts)


def _rival(found: "StatesFound") -> str:
    if not found.rival_covariance_type:
        return " (no other kind was tried)"
    if found.rival_n_states is None:
        return f" ({found.rival_covariance_type}: no fit)"
    held_out = found.rival_held_out_log_likelihood
    return (
        f" ({found.rival_covariance_type}: {found.rival_n_states} states, BIC higher by "
        f"{found.rival_bic_distance:,.0f}"
        + (f", held out {held_out:.3f})" if math.isfinite(held_out) else ")")
    )


def _runner_up(found: "StatesFound") -> str:
    assert found.selection is not None
    if found.selection.runner_up is None:
        return "none"
    return (
        f"{found.selection.runner_up} states, BIC higher by "
        f"{found.selection.runner_up_distance:,.1f}"
    )
