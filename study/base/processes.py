"""Ending processes."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def end_processes(processes: "Iterable[psutil.Process]") -> None:
    """End processes at once; those that are gone, or not ours to end, are left."""
    import psutil  # not before the signals are ours

    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def is_dead(process: "psutil.Process") -> bool:
    """Whether a process has ended, whoever has yet to take note of it."""
    import psutil

    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
