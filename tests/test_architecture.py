"""Who may import whom, and what the tree must never hold."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGINES = {"ray", "mlflow", "optuna"}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path):
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("models", ENGINES | {"data_io", "study", "pyarrow", "soundfile", "librosa"}),
        ("data_io", ENGINES | {"models", "study", "torch", "hmmlearn"}),
    ],
)
def test_lower_rooms_do_not_know_the_upper_ones(folder, forbidden):
    assert modules(folder)
    for path in modules(folder):
        assert not imported(path) & forbidden, path


def test_one_file_imports_mlflow():
    users = [p.name for p in modules("study") if "mlflow" in imported(p)]
    assert users == ["tracking.py"]


def test_optuna_is_imported_by_the_search_alone():
    users = {p.name for p in modules("study") if "optuna" in imported(p)}
    assert users == {"search_space.py", "optuna_search.py", "search_analysis.py"}


def test_no_module_of_ours_is_called_utils():
    assert not [p for folder in ("models", "data_io", "study") for p in modules(folder)
                if "util" in p.stem]  # fmt: skip


def test_only_the_console_and_the_command_print():
    for path in modules("models") + modules("data_io") + modules("study"):
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]  # fmt: skip
        assert not calls or path.name == "run_tune.py", path


def test_the_folder_mlflow_leaves_the_installed_package_importable():
    assert not list((ROOT / "mlflow").rglob("*.py"))
    command = "import mlflow; print(mlflow.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == importlib.metadata.version("mlflow")


def test_nothing_of_ours_loads_pickles():
    pattern = re.compile(r"(pickle|joblib)\.(load|dump)|weights_only=False|allow_pickle=True")
    for path in modules("models") + modules("data_io") + modules("study"):
        assert not pattern.search(path.read_text("utf-8")), path


def test_installed_versions_are_the_pinned_ones():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = re.sub(r"\[.*\]", "", line).split("==")
            assert importlib.metadata.version(name).split("+")[0] == version, name


def test_the_changelog_has_an_entry_for_this_version():
    from study import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
