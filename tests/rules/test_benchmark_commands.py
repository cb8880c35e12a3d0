"""The benchmarks: commands that texts give are taken, and those that are quick run to their end."""

import ast
import re
from types import SimpleNamespace

import pytest

from study.base.paths import ROOT
from tests.helpers.benchmark_commands import faults_of, in_docstring, in_document

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SCRIPTS = {
    path.stem: path.read_text("utf-8")
    for path in sorted(ROOT.glob("benchmarks/*.py"))
    if "__main__" in path.read_text("utf-8")
}
# In two seconds each, most of them with the driver's own code and much of it made up.
QUICK = (
    "driver_growth trials recordings --trials 2 --recordings 300",
    "hashes --bird-ages 2 --megabytes 1",
    "hmm_growth --birds-and-ages 2",
    "hmm_select --states 3 --accuracy 0.99 --snippets 600 --most 5",
    "hpo_replay --searches 1 --samplers tpe --only half",
    "stopping --seeds 1",
    "train_step --width 2 --batch 4 --seconds 0.1",
)
WRONG = "study_cost", ["--cards", "4"]


def commands():
    """Every command that a document or a benchmark's own text gives, once."""
    found = [one for path in DOCUMENTS for one in in_document(path.read_text("utf-8"))]
    for text in SCRIPTS.values():
        found += in_docstring(ast.get_docstring(ast.parse(text)))
    once = dict.fromkeys((name, tuple(words)) for name, words in found if name != "NAME")
    return [(name, list(words)) for name, words in once]


@pytest.fixture(scope="module")
def faults():
    """By command, what is wrong with it; one process tries all of them."""
    given, quick = commands(), [one.split() for one in QUICK]
    parsed, run = faults_of([WRONG, *given], [(name, words) for name, *words in quick])
    names = [" ".join([name, *words]) for name, words in given]
    return SimpleNamespace(
        wrong=parsed[0],
        parsed=dict(zip(names, parsed[1:], strict=True)),
        run=dict(zip(QUICK, run, strict=True)),
    )


def test_every_command_of_a_benchmark_is_found():
    pattern = r"python\s+-m\s+benchmarks\.\w"
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        n_blocks = len(re.findall(r"python benchmarks/gpu\.py", text))
        assert len(in_document(text)) == len(re.findall(pattern, text)) + n_blocks, path


def test_every_benchmark_says_its_command():
    assert SCRIPTS.keys() - {name for name, _ in commands()} == set()


@pytest.mark.slow
def test_every_command_of_a_benchmark_is_taken(faults):
    assert {one: fault for one, fault in faults.parsed.items() if fault} == {}


@pytest.mark.slow
def test_quick_benchmarks_run_to_their_end(faults):
    assert {one: fault for one, fault in faults.run.items() if fault} == {}


def test_commands_are_found_in_paragraphs_blocks_and_lines_of_their_own():
    block = "```\n.venv/bin/python -m benchmarks.b x\n```"
    text = f"As `python -m\nbenchmarks.a --n N` says.\n{block}\n"
    assert in_document(text) == [("b", ["x"]), ("a", ["--n", "1"])]
    text = "    python -m benchmarks.c [--rows NUMBER ...]    all\n\nx && python -m benchmarks.d"
    assert in_docstring(text) == [("c", ["--rows", "1"]), ("d", [])]


@pytest.mark.slow
def test_a_command_that_a_benchmark_does_not_take_is_named(faults):
    assert "unrecognized arguments: --cards 4" in faults.wrong
