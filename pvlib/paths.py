"""Absolute places, each named once.

`PVLIB_BUILD` moves everything that can be made again (corpus, training state, working rows, reports,
environments of other systems) to another disk; the rest lives in the repository.
"""

from __future__ import annotations

import os
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
