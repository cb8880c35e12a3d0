"""Reading of the study's own JSON records."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a record; None where it is missing or cut short: its work is done again."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # no JSON, or not even text
        return None
    return content if isinstance(content, dict) else None
