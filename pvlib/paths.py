"""Absolute places, each named once, and how a file appears in one: whole.

`PVLIB_BUILD` moves everything that can be made again (corpus, training state, working rows, reports,
environments of other systems) to another disk; the rest lives in the repository.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
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


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name of this process alone, in the folder of `path`, for what appears there when the block has ended well.

    Otherwise what lies at `path` stays as it is, and nothing half-written is left. The name ends in `.part`, so that
    nobody who looks for files of a kind finds a half of one; `numpy.save` needs it opened. Raises OSError where the
    folder cannot be made or the file cannot take its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name[-40:]}.part")  # no longer than a name may be
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # the error that counts is under way
            partial.unlink(missing_ok=True)
