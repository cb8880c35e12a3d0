"""Recordings: the door for programs that read a folder of recordings without a study.

>>> from data_io.recordings import read, scan
>>> for listed in scan(Path("recordings")):
...     recording, waveform = read(Path("recordings"), listed, min_seconds=0.1)
"""

from typing import Any

# `read` needs numba, which takes long to import: who wants names alone need not wait.
_DOOR = {
    "Recording": "data_io.recordings.table",
    "Recordings": "data_io.recordings.table",
    "age_order": "data_io.names.ages",
    "parse_age": "data_io.names.ages",
    "read": "data_io.recordings.reading",
    "scan": "data_io.names.listing",
    "survey": "data_io.names.listing",
}
__all__ = list(_DOOR)


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_DOOR[name]), name)
