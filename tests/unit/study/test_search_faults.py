"""The search under faults that hypothesis picks: a failure comes with its shortest history.

`test_search_histories` plays histories by seed, with each action as often as its weight says.
"""

import random
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from benchmarks.search_histories import MEMORY
from tests.helpers import search_checks
from tests.helpers.search_simulator import CAN, WEIGHTS, World

NUMBERS = st.integers(0, 1000)


class SearchUnderFaults(RuleBasedStateMachine):
    """A world of `search_simulator`; its actions are the rules, `search_checks` the invariants."""

    def __init__(self):
        super().__init__()
        self._stack = ExitStack()
        self._root = Path(
            tempfile.mkdtemp(prefix="faults-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self._stack.callback(shutil.rmtree, self._root)
        self.world = None

    @initialize(seed=NUMBERS)
    def begin(self, seed):
        self.world = self._stack.enter_context(World(self._root, seed).simulated())
        self.is_sound = True

    def act(self, name, number, after):
        self.is_sound = False
        self.world.step(name, number)
        rng = random.Random(number)
        for _ in range(after):  # else most histories would end before much is trained
            self.world.step(self.world.next_without_fault(rng), rng.randrange(2**32))
        self.is_sound = True

    @invariant()
    def each_trial_stays_what_it_is(self):
        if self.world is not None and self.world.driver is None:
            search_checks.check_always(self.world)

    def teardown(self):
        with self._stack:
            if self.world is not None and self.is_sound:
                self.world.finish(0)


def _rule_of(name):
    def act(self, number, after):
        self.act(name, number, after)

    act.__name__ = name
    can = precondition(lambda self: CAN[name](self.world))
    return can(rule(number=NUMBERS, after=st.integers(0, 6))(act))


for _name in WEIGHTS:
    setattr(SearchUnderFaults, _name, _rule_of(_name))

TestSearchUnderFaults = SearchUnderFaults.TestCase
TestSearchUnderFaults.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, derandomize=True, database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
