"""librosa compiles in one process at a time: two at once can leave files behind that crash every later one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pvlib import paths
from pvlib.study import compiled

COMPILE = "from pvlib.study import compiled; compiled.compile_librosa()"
CALL = (
    "import librosa, numpy as np; t = np.arange(16000) / 16000\n"
    "print(round(float(np.median(librosa.yin(np.sin(2 * np.pi * 125 * t), fmin=60, fmax=400, sr=16000)))))"
)


def test_who_comes_second_waits_and_then_finds_it_done(tmp_path):
    cache = tmp_path / "cache"
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    first = FileLock(cache / "librosa.lock")
    with first:
        process = subprocess.Popen([sys.executable, "-c", COMPILE], cwd=paths.ROOT, env=env)
        time.sleep(5)
        assert process.poll() is None and not list(cache.rglob("*.nbi"))
    assert process.wait(300) == 0
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb[ci]")}
    names = {path.name.split("-")[0] for path in kept}
    assert "guf" in names and len(names) > 5
    run = subprocess.run(
        [sys.executable, "-c", COMPILE + "; " + CALL], cwd=paths.ROOT, env=env, capture_output=True
    )
    assert run.returncode == 0 and run.stdout.split() == [b"125"], run.stderr.decode()
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb[ci]")} == kept


def test_every_module_that_compiles_on_import_is_named():
    folder = compiled.importlib.import_module("librosa").__path__[0]
    found = set()
    for path in paths.Path(folder).rglob("*.py"):
        if "@numba.guvectorize" in path.read_text(encoding="utf-8"):
            found.add(".".join(["librosa", *path.relative_to(folder).with_suffix("").parts]))
    assert found and found <= set(compiled.MODULES)


def test_the_lock_lies_where_numba_keeps_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "told"))
    assert compiled._folder() == tmp_path / "told"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(compiled.os, "access", lambda path, mode: True)
    assert compiled._folder() == Path(importlib.util.find_spec("librosa").origin).parent
    monkeypatch.setattr(compiled.os, "access", lambda path, mode: False)
    assert compiled._folder() == Path(tempfile.gettempdir()) / f"pvlib-{os.getuid()}"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(compiled.CompiledError, match=r"file/below.*let NUMBA_CACHE_DIR name another"):
        compiled.compile_librosa()
    monkeypatch.setattr(paths, "BUILD", tmp_path / "file")  # nothing is written there
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    compiled.compile_librosa()
