"""Files of tensors and JSON: sealed, on the disk before their names, and a full disk named."""

import errno
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from data_io import files
from models.mdgan import tensor_files
from models.mdgan.tensor_files import read_required_json, read_tensors, write_json, write_tensors

CONTENT = {
    "format_version": 3, "note": "Fink \u2642", "values": [1e-3, -0.0, 1.0, 10**20, None, True],
    "shape": {"width": 0, "kind": "dense", "empty": {}},
}  # fmt: skip


def test_the_seal_is_the_one_of_all_other_json(tmp_path):
    """The two packages do not know each other; one check of a run folder reads both."""
    write_json(tmp_path / "a.json", CONTENT)
    files.write_json(tmp_path / "b.json", CONTENT)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert files.read_json(tmp_path / "a.json") == CONTENT
    assert read_required_json(tmp_path / "b.json", 3) == CONTENT


def test_content_that_was_read_and_changed_gets_a_new_seal(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"format_version": 3})
    write_json(path, {**read_required_json(path, 3), "more": 1})
    assert read_required_json(path, 3) == {"format_version": 3, "more": 1}


def test_no_flipped_bit_is_read_as_another_value(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    whole = path.read_bytes()
    n_refused = 0
    for i in range(8 * len(whole)):
        content = bytearray(whole)
        content[i // 8] ^= 1 << (i % 8)
        path.write_bytes(bytes(content))
        try:
            assert read_required_json(path, 3) == CONTENT
        except ValueError as error:
            assert str(path) in str(error)
            assert "the file was changed or cut short. Restore it" in str(error)
            n_refused += 1
    assert n_refused > 7.5 * len(whole)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"format_version": 3}', '{"format_version": 3'])
def test_what_has_no_seal_is_refused_by_name(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json .*changed or cut short"):
        read_required_json(tmp_path / "a.json", 3)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_tensors(path, {"a": torch.ones(3)}),
        lambda path: write_json(path, {"a": 1}),
    ],
)
def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path, monkeypatch, write
):
    steps = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        steps.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def replaced(path, to):
        steps.append(("rename", path))
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write(tmp_path / "file")
    temporary = tmp_path / ".file.tmp"
    assert steps == [("sync", temporary), ("rename", temporary), ("sync", tmp_path)]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tensors_are_read_back_and_their_hash_is_that_of_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    sha256 = write_tensors(path, {"a": torch.arange(5.0), "b": torch.ones(2, 2).T})
    assert sha256 == tensor_files.file_sha256(path)
    found = read_tensors(path)
    assert torch.equal(found["a"], torch.arange(5.0))
    other = tmp_path / "other"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode  # whom the umask lets read it


def test_a_file_system_that_takes_no_more_is_told_by_its_number(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.zeros(3)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors") as caught:
            write_tensors(path, {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_fault_that_is_not_of_the_system_stays_as_it_is(tmp_path, monkeypatch):
    def fails(*_):
        raise SafetensorError("a header that is too large")

    monkeypatch.setattr(tensor_files, "save_file", fails)
    with pytest.raises(SafetensorError, match="too large"):
        write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})


@pytest.mark.parametrize("what", ["write", "hash"])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, what):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    if what == "write":
        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output") as caught:
            write_json(path, CONTENT)
    else:
        monkeypatch.setattr(tensor_files.hashlib, "file_digest", fails)
        with pytest.raises(OSError, match="Input/output") as caught:
            tensor_files.file_sha256(path)
    assert "a.json" in caught.value.filename
