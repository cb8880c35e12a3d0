"""What stands in for a class of ours takes the arguments that the class takes."""

import inspect

import pytest

from study.cluster.tasks import TaskRunner
from study.tracking.client import Mlflow
from study.tracking.tracker import Tracker
from tests.helpers.memory_mlflow import MemoryMlflow
from tests.helpers.no_mlflow import NoMlflow
from tests.helpers.tasks import InTurn


def parameters(function):
    """Name, kind and default of each."""
    return [
        (one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()
    ]


def differing(stand_in, real):
    """Methods of both that take different arguments; they are made with those of their own."""
    return [
        name for name, method in vars(stand_in).items()
        if name != "__init__" and inspect.isfunction(method) and hasattr(real, name)
        and parameters(method) != parameters(getattr(real, name))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stand_in", "real"), [(NoMlflow, Tracker), (InTurn, TaskRunner), (MemoryMlflow, Mlflow)]
)
def test_a_stand_in_takes_what_the_real_class_takes(stand_in, real):
    assert issubclass(stand_in, real)
    assert differing(stand_in, real) == []


def test_a_stand_in_that_lacks_an_argument_is_found():
    class Lacking(Tracker):
        def run_id(self, identity):
            """As before there were other study runs."""

    assert differing(Lacking, Tracker) == ["run_id"]
