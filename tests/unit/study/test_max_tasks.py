"""Tasks under way at a time: two for each core, or as few as the configuration says."""

from types import SimpleNamespace

import pytest

from study.cluster import tasks as cluster
from study.config.tree import ResourcesConfig


@pytest.fixture
def most_at_once(monkeypatch):
    """Runs ten pieces of work on four cores; gives the most that were under way at a time."""
    monkeypatch.setattr(cluster, "n_cores", lambda: 4)
    fake = SimpleNamespace(
        wait=lambda refs, num_returns: (refs[:1], refs[1:]), get=lambda ref: ref,
        exceptions=cluster.ray.exceptions,
    )  # fmt: skip
    monkeypatch.setattr(cluster, "ray", fake)

    def run(*limit):
        under_way, most, done = set(), 0, []

        def submit(piece):
            nonlocal most
            under_way.add(piece)
            most = max(most, len(under_way))
            return piece

        def keep(piece, result):
            under_way.remove(piece)
            done.append(result)

        cluster.TaskRunner(*limit).run(submit, range(10), keep, str)
        assert sorted(done) == list(range(10))
        return most

    return run


def test_a_limit_holds_where_it_is_below_two_tasks_for_each_core(most_at_once):
    assert most_at_once() == 8
    assert most_at_once(None) == 8
    assert most_at_once(3) == 3
    assert most_at_once(1) == 1
    assert most_at_once(100) == 8


@pytest.mark.parametrize("name", ["max_tasks", "max_concurrent_trials"])
def test_a_limit_of_no_tasks_is_refused(name):
    assert getattr(ResourcesConfig(**{name: 1}), name) == 1
    with pytest.raises(ValueError, match=f"{name} is 0: it must be 1 or more, or null"):
        ResourcesConfig(**{name: 0})
