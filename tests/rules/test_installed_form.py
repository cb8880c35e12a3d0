"""What `pip install .` puts where, and that it works from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from study import __version__
from study.base.paths import ROOT
from study.base.provenance import code_hash
from tests.helpers.cluster_files import pins

pytestmark = pytest.mark.slow  # each builds a wheel or starts the command

PACKAGES = ("data_io", "models", "study")
CODE = "birdsong/_code"
FILES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, built in a copy of the checkout without any network."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "installed", "mlflow", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    left_over = copy / "build" / "lib" / CODE / "study" / "deleted.py"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps",
               "--no-build-isolation", "-w", str(out), str(copy)]  # fmt: skip
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def packages(wheel, tmp_path_factory):
    """The wheel, unpacked as installed packages inside the repository of another project."""
    folder = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(folder)
    me = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init", "-q"], ["add", "birdsong"], [*me, "commit", "-qm", "theirs"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def run(packages, cwd, *lines):
    """Run Python lines in another folder, with the wheel as the last of the installed packages."""
    start = ["import site, sys", f"site.addsitedir({str(packages)!r})"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", "\n".join([*start, *lines])],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def printed(packages, cwd, *lines):
    done = run(packages, cwd, *lines)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_wheel_holds_our_code_under_one_name_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    code = {
        f"{CODE}/{path.relative_to(ROOT).as_posix()}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".yaml", ".j2"}
    }
    door = {"birdsong/__init__.py", "birdsong/command.py", "birdsong-study.pth"}
    assert names == code | door


def test_version_and_dependencies_are_those_of_the_checkout(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Version"] == __version__
    needed = {line.split("==")[0].split("[")[0] for line in metadata.get_all("Requires-Dist")}
    assert needed == set(pins())


def test_models_are_importable_from_any_folder(packages, tmp_path):
    lines = ("from models.hmm import select_n_states", "import models", "print(models.__file__)")
    (found,) = printed(packages, tmp_path, *lines, "assert 'torch' not in sys.modules")
    assert Path(found) == packages / CODE / "models" / "__init__.py"


def test_birdsong_gives_both_doors_and_comes_before_packages_of_the_same_names(packages, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    found = printed(
        packages, tmp_path, "from birdsong import Decoder, select_n_states",
        "print(Decoder.__module__, select_n_states.__module__)",
    )  # fmt: skip
    assert found == ["models.decoder", "models.hmm.select"]


@pytest.mark.parametrize("is_namespace", [True, False])
def test_another_package_of_the_same_name_is_named(packages, tmp_path, is_namespace):
    (tmp_path / "models").mkdir()
    if not is_namespace:
        (tmp_path / "models" / "__init__.py").touch()
    theirs = ("sys.path[-1:] = []",) if is_namespace else ()  # else ours would be found, not theirs
    done = run(packages, tmp_path, *theirs, "import models", "import birdsong")
    assert done.returncode == 1
    assert "ImportError: birdsong needs its own package 'models'" in done.stderr
    assert str(tmp_path / "models") in done.stderr
    assert "Import birdsong before it" in done.stderr


def test_the_installed_code_has_the_hash_of_the_checkout_and_no_commit_of_others(
    packages, tmp_path
):
    lines = ("import birdsong", "from study.base.provenance import code_hash, git_commit")
    found = printed(packages, tmp_path, *lines, "print(code_hash(), git_commit())")
    assert found == [code_hash(), "unknown"]


def test_the_command_how_much_is_there_and_takes_a_run_folder(packages, tmp_path):
    done = run(
        packages, tmp_path, "from birdsong.command import study",
        "sys.argv = ['birdsong', 'how-much', 'runs/none']", "raise SystemExit(study())",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path / 'runs' / 'none'} is not the run folder of a study" in done.stderr


def test_the_command_writes_into_the_current_folder(packages, tmp_path):
    done = run(
        packages, tmp_path, "from birdsong.command import study",
        "sys.argv = ['birdsong', '--preset', 'smoke', '--dry-run']", "raise SystemExit(study())",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Results   {tmp_path / 'runs' / 'smoke'}" in done.stdout
    assert f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}" in done.stdout
    assert not list(tmp_path.iterdir())
