"""Absolute places, each named once, and how a file appears in one: whole.

`PVLIB_BUILD` moves everything that can be made again (corpus, training state, working rows, reports,
environments of other systems) to another disk; the rest lives in the repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DATA = ROOT / "data"
MANIFESTS = DATA / "manifests"
CHECKPOINTS = DATA / "checkpoints"
RESULTS = DATA / "results"
SAMPLES = DATA / "samples"
REPORTED = DATA / "reported"
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"

BUILD = Path(os.environ.get("PVLIB_BUILD") or ROOT / "build").resolve()
WORLD = BUILD / "world"
TRAINING = BUILD / "training"
WORKING_ROWS = BUILD / "results"
REPORT = BUILD / "report"
EXTERNALS = BUILD / "externals"


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name of this process alone, in the folder of `path`, for what appears there when the block has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
