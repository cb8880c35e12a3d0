"""No file and no function so long that one loses the way in it."""

import ast

from study.base.paths import ROOT

FILE_LINES = 350
FUNCTION_LINES = 60
# Longer, and why; the numbers are those that they must not pass. What becomes shorter is taken out.
LONGER_FILES: dict[str, int] = {}
LONGER_FUNCTIONS = {
    "study/search/launch.py::launch": 65,  # one call of Tune, whose arguments are listed
}


def ours():
    for folder in ("data_io", "models", "study"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def file_lengths():
    """Lines of every file, by its path."""
    return {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
            for path in ours()}  # fmt: skip


def function_lengths(source):
    """Lines of every function of a module, by its name."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: node.end_lineno - node.lineno + 1
            for node in ast.walk(ast.parse(source)) if isinstance(node, functions)}  # fmt: skip


def too_long(lengths, limit, longer):
    """What passes its limit, and exceptions that are not needed any more."""
    over = {name for name, n in lengths.items() if n > longer.get(name, limit)}
    unneeded = {name for name in longer if lengths.get(name, 0) <= limit}
    return over | unneeded


def test_files_are_short():
    assert too_long(file_lengths(), FILE_LINES, LONGER_FILES) == set()


def test_functions_are_short():
    lengths = {
        f"{path.relative_to(ROOT).as_posix()}::{name}": n
        for path in ours()
        for name, n in function_lengths(path.read_text("utf-8")).items()
    }
    assert too_long(lengths, FUNCTION_LINES, LONGER_FUNCTIONS) == set()


def test_what_is_too_long_or_no_exception_any_more_is_named():
    source = "class A:\n    def short(self):\n        pass\n\ndef long():\n" + "    x = 1\n" * 60
    assert function_lengths(source) == {"short": 2, "long": 61}
    assert too_long({"a": 61, "b": 60, "c": 5, "d": 70}, 60, {"c": 99, "d": 70}) == {"a", "c"}
