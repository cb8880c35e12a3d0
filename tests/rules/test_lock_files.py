"""What `make` installs: the pinned packages and all that they need, each file with its hash."""

import re

import pytest
from packaging.requirements import Requirement

from study.base.paths import ROOT

LOCKS = {
    "requirements.lock": ["requirements.txt"],
    "requirements-dev.lock": ["requirements-dev.txt", "mlflow/requirements.txt"],
    "mlflow/requirements.lock": ["mlflow/requirements.txt"],
}
NOT_LOCKED = {"torch"}  # pyproject.toml says why


def entries(name):
    """Requirement -> hashes of a lock file."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    found = {}
    for line in text.replace("\\\n", "").splitlines():
        requirement, *hashes = line.split("--hash=")
        found[Requirement(requirement)] = [value.strip() for value in hashes]
    return found


def wanted(name):
    """Package -> specifier of a file of requirements."""
    lines = (ROOT / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]
    return {each.name.lower(): each.specifier for each in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_file_is_one_version_with_hashes_from_no_place_of_its_own(lock):
    for requirement, hashes in entries(lock).items():
        assert str(requirement.specifier).startswith("=="), requirement
        assert requirement.url is None, requirement
        assert hashes, f"{requirement} of {lock} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement
    assert not re.search(r"://|^-|[ =](/|~)", (ROOT / lock).read_text(), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_the_versions_of_the_requirements(lock):
    locked = {each.name.lower(): each.specifier for each in entries(lock)}
    for file in LOCKS[lock]:
        for name, specifier in wanted(file).items():
            if name not in NOT_LOCKED:
                assert locked.get(name) == specifier, f"{name} of {file}: run `make lock`"


def test_the_lock_files_agree():
    versions = {}
    for lock in LOCKS:
        for each in entries(lock):
            key = (each.name, str(each.marker))
            assert versions.setdefault(key, each.specifier) == each.specifier, each


def test_torch_is_not_locked_and_nothing_that_it_alone_brings():
    names = {each.name for lock in LOCKS for each in entries(lock)}
    assert "numpy" in names
    brought = [n for n in names if re.match(r"torch|triton|cuda|nvidia", n)]
    assert brought == ["nvidia-ml-py"]
