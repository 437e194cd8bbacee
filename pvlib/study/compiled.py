"""librosa's compiled functions, made by one process at a time.

numba keeps each of them in two files that belong together. Processes that compile at the same time can leave halves of
two pairs behind, and whoever calls that function later, in any process, crashes (numba's issue 10128).
"""

from __future__ import annotations

import getpass
import importlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock

MODULES = (
    "librosa.core.audio",
    "librosa.core.pitch",
    "librosa.util.utils",
    "librosa.beat",
)  # compile on import


class CompiledError(RuntimeError):
    """A folder in which librosa cannot be compiled; the message names it and the remedy."""


def compile_librosa() -> None:
    """Import what compiles: some 20 s the first time after an installation, then well under one.

    Called by whatever starts several processes, before them, and by each process that may not be alone.
    Raises CompiledError.
    """
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / "librosa.lock").acquire()
    except OSError as error:
        raise CompiledError(
            f"cannot write {folder}, where librosa's compiled functions are kept: {error}; check that it is writable, "
            "or let NUMBA_CACHE_DIR name another folder"
        ) from error
    with held:
        for module in MODULES:
            importlib.import_module(module)


def _folder() -> Path:
    """Where numba keeps its files: the place that is told, else librosa's own, else one of this user."""
    if told := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(told)
    installed = Path(importlib.import_module("librosa").__path__[0])
    if os.access(installed, os.W_OK):
        return installed
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"pvlib-{user}"
