"""500 awkward sets of recordings: every one ends in a status, none in a crash or a silent NaN."""

import dataclasses
import math
from typing import Any, get_args

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from models.hmm import CovarianceType, HmmParams, select_n_states
from models.hmm.params import SearchKind, Transitions

FIT_STATUSES = {"ok", "rough", "not_converged", "not_monotone", "failed", "skipped"}


@dataclasses.dataclass(frozen=True)
class Case:
    """Recordings, and how their number of states is sought.

    Attributes:
        latent_dim: numbers in a latent.
        lengths: snippets of each recording.
        base: what the snippets are before they are spoilt.
        scale: all snippets are multiplied by it.
        offset: added to all snippets, in units of the scale.
        outliers: (snippet, value in units of the scale) put into the first dimension.
        broken: a number put over one snippet, where not None.
        covariance_type: spherical, diag, tied or full.
        transitions: full, sparse or left_right.
        search: merge or grid.
        highest: number of states; the lowest is 1.
        min_snippets_per_state: of the search.
        max_repairs: of the search.
        held_out_fraction: of the search.
        seed: of the snippets and of the search.
    """

    latent_dim: int
    lengths: tuple[int, ...]
    base: str
    scale: float
    offset: float
    outliers: tuple[tuple[int, float], ...]
    broken: float | None
    covariance_type: Any
    transitions: Any
    search: Any
    highest: int
    min_snippets_per_state: int
    max_repairs: int
    held_out_fraction: float
    seed: int


BASES = {
    "noise": lambda rng, n, d: rng.standard_normal((n, d)),
    "constant": lambda rng, n, d: np.ones((n, d)),
    "constant in one dimension": lambda rng, n, d: np.c_[np.ones(n), rng.normal(size=(n, d))][
        :, :d
    ],
    "two values": lambda rng, n, d: np.repeat(rng.integers(0, 2, (n, 1)) * 1.0, d, axis=1),
    "copies": lambda rng, n, d: rng.standard_normal((4, d))[rng.integers(0, 4, n)],
    "kinds apart": lambda rng, n, d: (
        rng.normal(0, 9, (3, d))[rng.integers(0, 3, n)] + rng.standard_normal((n, d))
    ),
    "equal dimensions": lambda rng, n, d: np.repeat(rng.standard_normal((n, 1)), d, axis=1),
    "a walk": lambda rng, n, d: rng.standard_normal((n, d)).cumsum(0),
    "heavy tails": lambda rng, n, d: rng.standard_cauchy((n, d)) ** 3,
    "mostly silence": lambda rng, n, d: np.where(
        rng.random((n, 1)) < 0.8, 0.0, rng.standard_normal((n, d))
    ),
}

cases = st.builds(
    Case,
    latent_dim=st.integers(1, 4),
    lengths=st.lists(st.sampled_from([0, 1, 1, 2, 3, 7, 12, 30]), min_size=2, max_size=6).map(
        tuple
    ),
    base=st.sampled_from(sorted(BASES)),
    scale=st.sampled_from([1.0] * 6 + [1e-3, 1e3, 1e-12, 1e-100, 1e-250, 1e100, 1e200]),
    offset=st.sampled_from([0.0, 0.0, 0.0, 1e3, 1e8]),
    outliers=st.lists(
        st.tuples(
            st.integers(0, 99), st.sampled_from([10.0, -1e3, 1e6, 1e10, -1e30, 1e30, 1e100, 1e200])
        ),
        max_size=2,
    ).map(tuple),
    broken=st.sampled_from([None] * 18 + [math.nan, math.inf]),
    covariance_type=st.sampled_from(get_args(CovarianceType)),
    transitions=st.sampled_from(get_args(Transitions)),
    search=st.sampled_from(get_args(SearchKind)),
    highest=st.integers(1, 6),
    min_snippets_per_state=st.sampled_from([1, 1, 2, 5]),
    max_repairs=st.integers(0, 2),
    held_out_fraction=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 3),
)


def recordings_of(case):
    """The recordings of a case."""
    rng = np.random.default_rng(case.seed)
    n = sum(case.lengths)
    z = BASES[case.base](rng, n, case.latent_dim) + case.offset
    for snippet, value in case.outliers if n else ():
        z[snippet % n, 0] = value
    with np.errstate(over="ignore"):
        z = z * case.scale
    if case.broken is not None and n:
        z[n // 2] = case.broken
    return np.split(z, np.cumsum(case.lengths)[:-1])


def searched(case):
    """The search of a case; few iterations, for the sake of time."""
    params = HmmParams(
        transitions=case.transitions,
        n_restarts=1,
        n_iter=8,
        max_repairs=case.max_repairs,
        held_out_fraction=case.held_out_fraction,
        min_snippets=2,
        min_recordings=1,
        min_snippets_per_state=case.min_snippets_per_state,
    )
    return select_n_states(
        recordings_of(case),
        case.covariance_type,
        (1, case.highest),
        case.seed,
        case.search,
        params,
    )


@pytest.mark.slow
@settings(
    max_examples=500,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(cases)
def test_awkward_recordings_end_in_a_status(case):
    if not all(np.isfinite(z).all() for z in recordings_of(case)):
        with pytest.raises(ValueError, match="that are not finite numbers"):
            searched(case)
        return
    try:
        found = searched(case)
    except ValueError as error:
        assert case.covariance_type == "spherical"
        assert "a spherical state is equally wide in all" in str(error)
        return
    assert found.status in ("ok", "too_few_snippets", "failed")
    for row in found.table:
        assert row["status"] in FIT_STATUSES
        has_model = row["status"] not in ("failed", "skipped")
        assert (row["status"] == "ok") == (row["reason"] == "")
        for name in ("log_likelihood", "bic", "aic", "icl", "bic_effective"):
            assert math.isfinite(row[name]) == has_model, (name, row)
    if found.status != "ok":
        assert found.reason
        assert found.model is None
        assert found.n_states is None
        return
    model, best = found.model, found.selection.best
    assert math.isfinite(best.bic)
    assert found.n_effective > 0
    for part in (model.startprob_, model.transmat_, model.means_, model._covars_):
        assert np.isfinite(part).all()
    np.testing.assert_allclose(model.startprob_.sum(), 1)
    np.testing.assert_allclose(model.transmat_.sum(1), 1)
    assert 1 <= found.n_states <= 2 * case.highest
    if case.transitions == "left_right":
        np.testing.assert_array_equal(model.transmat_, np.triu(model.transmat_))
    recordings = [z for z in recordings_of(case) if len(z)]
    X = np.concatenate(recordings)
    score = model.score(X, [len(z) for z in recordings])
    assert math.isfinite(score)
    # Beyond, the digits of an outlier do not reach down to the spread of its own state.
    if case.offset < 1e6 and all(abs(value) < 1e7 for _, value in case.outliers):
        assert math.isclose(score, best.log_likelihood, rel_tol=1e-6, abs_tol=1e-6 * len(X))
