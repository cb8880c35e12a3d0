"""What the command says is to be done about a file, and the doing of it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

REMEDIES: tuple[tuple[str, Callable[[Path], None]], ...] = (
    (r"Remove the folder (\S+?)[:.,]? ", shutil.rmtree),
    (r"(\S+) was cut short or altered .*Delete it", Path.unlink),
    (r"Delete (\S+?)[:.,]? ", Path.unlink),
)
RESTORE = re.compile(r"(?i)(restore|put (the|its) original back|copy .* back)")


def sentences(text: str) -> list[str]:
    """Lines of the terminal with those joined that were wrapped; the last is an error."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and re.match(r"      \S", line) and not lines[-1].startswith("["):
            lines[-1] += " " + line.strip()
        elif line.strip():
            lines.append(line.strip())
    return lines


def names(text: str, path: Path) -> bool:
    """Whether a text names a file, by its whole path or an end of it; not one of the same name."""
    found = re.findall(rf"[^\s;:,'\"()]*(?<![\w.-]){re.escape(path.name)}(?![\w-]|\.\w)", text)
    return any(path.parts[-len(Path(one).parts) :] == Path(one).parts for one in found)


def is_refusal(text: str, path: Path) -> bool:
    """Whether the command ended with one sentence that names the file and says what to do."""
    error = sentences(text)[-1] if text.strip() else ""
    has_remedy = any(re.search(p, error + " ") for p, _ in REMEDIES) or RESTORE.search(error)
    return error.startswith("error: ") and names(error, path) and bool(has_remedy)


def follow(error: str) -> bool:
    """Do what an error says is to be removed; give whether it said so."""
    for pattern, do in REMEDIES:
        if found := re.search(pattern, error + " "):
            do(Path(found[1]))
            return True
    return False
