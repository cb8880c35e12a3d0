"""The project as it is installed: one name of its own, and its three packages behind it.

    from birdsong import Decoder, select_n_states

The three packages (data_io, models, study) import one another by names that other packages may
have as well. So they lie in a folder of their own, never mixed with files of others. A .pth file
puts this folder at the end of Python's path: ``from models.hmm import select_n_states`` works
wherever no other ``models`` comes before. ``import birdsong`` puts it at the beginning, and raises
ImportError where another package of such a name is loaded already.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_INSTALLED = _HERE / "_code"
# An editable installation (pip install -e) uses the checkout.
CODE = _INSTALLED if _INSTALLED.is_dir() else _HERE.parent.parent
PACKAGES = ("data_io", "models", "study")
_DOORS = {"Decoder": "models.decoder", "select_n_states": "models.hmm"}
__all__ = ["Decoder", "select_n_states"]  # noqa: F822  (__getattr__ below gives them)


def _put_first() -> None:
    """Let Python find our packages before any others of the same names.

    Raises:
        ImportError: another package of one of these names is loaded already.
    """
    sys.path[:] = [str(CODE), *(folder for folder in sys.path if folder != str(CODE))]
    importlib.invalidate_caches()
    for name in PACKAGES:
        found = _folder(name)
        if found != CODE / name:
            raise ImportError(
                f"birdsong needs its own package {name!r} ({CODE / name}), but in this process "
                f"{name!r} is {found}. Import birdsong before it. Where one process needs both, "
                "run birdsong in another, or install it in a virtual environment of its own."
            )


def _folder(package: str) -> Path | None:
    """Where Python has a package from, or would take it from; None where it finds none."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(str(spec.origin)).resolve()


def __getattr__(name: str) -> Any:
    """Give a door when it is first asked for: the decoder takes seconds to load torch."""
    if name not in _DOORS:
        raise AttributeError(f"module 'birdsong' has no attribute {name!r}")
    return getattr(importlib.import_module(_DOORS[name]), name)


_put_first()
