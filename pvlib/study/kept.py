"""A measurement that is kept in a file until what it depends on changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pvlib.study.rows import write_text


def kept(path: Path, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` returned under this key before, read from the file; else it is called and its answer kept.

    The answer is plain JSON without a "key". A damaged file counts as none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    if not isinstance(content, dict) or content.get("key") != key:
        content = {"key": key, **measure()}
        write_text(path, json.dumps(content, indent=2) + "\n")
    return content
