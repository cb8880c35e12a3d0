"""Who may import whom, and what the tree must never hold."""

import ast
import importlib.metadata
import re
import subprocess
import sys

import pytest

from study.base.paths import ROOT

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


# The floors of study/, from the ground up. A room may import those of lower floors alone.
FLOORS = [
    {"base"},
    {"config"},
    {"cluster", "tracking", "plan"},
    {"context", "read_before"},
    {"training", "ingest", "labels"},
    {"preflight", "search", "decoders"},
    {"encode"},
    {"hmms"},
    {"songs", "checks"},
    {"report", "tracked", "how_much", "left_over"},
    {"check", "how_much_song", "verify"},
    {"pipeline"},
    {"run_tune"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
# What is narrower than the floors say.
ONLY = {
    "fetch_model": {"base", "tracking"},
    "preflight": {"base", "config", "cluster", "tracking"},
}
MODELS = [{"mdgan"}, {"metrics"}, {"decoder"}]  # hmm stands alone


def rooms_imported(path, package):
    """Rooms of a package that a file imports: the second word of every module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        name.split(".")[1]
        for name in found
        if name.startswith(f"{package}.") and name != f"{package}.__version__"
    }


def room_of(path, package):
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def test_every_room_of_the_study_imports_lower_floors_alone():
    upwards = []
    for path in modules("study"):
        room = room_of(path, "study")
        if room == "__init__":
            continue
        for other in rooms_imported(path, "study") - {room}:
            allowed = other in ONLY[room] if room in ONLY else FLOOR[other] < FLOOR[room]
            if not allowed:
                upwards.append(f"{path.relative_to(ROOT)} imports {other}")
    assert upwards == []


def test_models_of_snippets_and_of_songs_do_not_know_each_other():
    floor = {room: i for i, rooms in enumerate(MODELS) for room in rooms}
    for path in modules("models"):
        room = room_of(path, "models")
        others = rooms_imported(path, "models") - {room}
        if room == "hmm":
            assert not others, path
        elif room == "checks":
            assert others <= {"hmm"}, path
        else:
            assert all(floor[other] < floor[room] for other in others), path


def test_no_room_is_called_as_a_folder_that_is_not_copied_to_nodes():
    kept_back = {"runs", "mlflow", "docs", "tests", "benchmarks"}
    for folder in ("models", "data_io", "study"):
        assert not {p.name for p in (ROOT / folder).rglob("*") if p.is_dir()} & kept_back


def test_one_file_imports_mlflow():
    users = [p.relative_to(ROOT).as_posix() for p in modules("study") if "mlflow" in imported(p)]
    assert users == ["study/tracking/client.py"]


def test_optuna_is_imported_by_the_search_alone():
    users = {
        p.relative_to(ROOT / "study").as_posix()
        for p in modules("study")
        if "optuna" in imported(p)
    }
    assert users == {
        "search/distributions.py",
        "search/proposals.py",
        "search/samplers.py",
        "report/search_analysis.py",
    }


def test_no_module_of_ours_is_called_utils():
    assert not [p for folder in ("models", "data_io", "study") for p in modules(folder)
                if "util" in p.stem]  # fmt: skip


def test_only_the_console_and_the_commands_print():
    for path in modules("models") + modules("data_io") + modules("study"):
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]  # fmt: skip
        assert not calls or path.name in ("run_tune.py", "__main__.py"), path


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


def test_the_citation_names_this_version():
    from study import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_only_scripts_that_run_where_nothing_is_installed_change_the_path_of_modules():
    changing = [
        path.relative_to(ROOT).as_posix()
        for folder in ("study", "models", "data_io", "benchmarks")
        for path in modules(folder)
        if "sys.path" in path.read_text("utf-8")
    ]
    assert changing == [
        "study/fetch_model.py", "study/how_much_song.py", "study/run_tune.py", "benchmarks/gpu.py",
    ]  # fmt: skip
