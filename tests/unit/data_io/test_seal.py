"""One altered bit of a sealed file is refused, and the file stays plain Parquet."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.files import file_sha256
from data_io.seal import BrokenSealError, check_seal, seal


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"a": np.arange(300), "b": [f"name {i}" for i in range(300)]})
    pq.write_table(table, path, write_page_checksum=True)
    seal(path)
    return path, table


def test_sealed_file_is_read_by_any_reader(sealed):
    path, table = sealed
    check_seal(path)
    assert pq.read_table(path, page_checksum_verification=True).equals(table)
    with pq.ParquetFile(path) as file:
        assert file.read_row_group(0, columns=["b"]).equals(table.select(["b"]))


def test_every_flipped_bit_of_1000_is_refused(sealed):
    path, _ = sealed
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    n_bits = 8 * len(whole)
    at_the_end = np.arange(n_bits - 500, n_bits)  # of the footer, its size and the magic
    for bit in [*rng.integers(n_bits, size=500), *at_the_end]:
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(altered)
        with pytest.raises(BrokenSealError):
            check_seal(path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 12, 47, 48, 200, -1, -40])
def test_cut_file_is_refused(sealed, kept):
    path, _ = sealed
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BrokenSealError):
        check_seal(path)


def test_longer_file_is_refused(sealed):
    path, _ = sealed
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BrokenSealError):
        check_seal(path)


def test_file_without_a_seal_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1] * 100}), path)
    with pytest.raises(BrokenSealError, match="no seal"):
        check_seal(path)


def test_the_reading_of_a_large_file_can_be_left_at_any_block(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(1 << 20)}), path)
    seal(path)
    for read in (check_seal, file_sha256):
        seen = []

        def leave(seen=seen):
            seen.append(1)
            if len(seen) == 3:
                raise KeyError

        with pytest.raises(KeyError):
            read(path, leave)
