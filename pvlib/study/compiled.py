"""librosa's compiled functions, made by one process at a time.

numba keeps each of them in two files that belong together. Processes that compile at the same time can leave halves of
two pairs behind, and whoever calls that function later, in any process, crashes (numba's issue 10128).
"""

from __future__ import annotations

import importlib

from filelock import FileLock

from pvlib import paths

MODULES = (
    "librosa.core.audio",
    "librosa.core.pitch",
    "librosa.util.utils",
    "librosa.beat",
)  # compile on import


def compile_librosa() -> None:
    """Import what compiles: some 20 s the first time after an installation, then well under one.

    Called by whatever starts several processes, before them, and by each process that may not be alone.
    """
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.BUILD / "librosa.lock"):
        for module in MODULES:
            importlib.import_module(module)
