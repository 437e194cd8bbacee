"""Where the systems from outside are installed, and how to install them.

The interpreter of each is named by a variable, or lies where a virtual environment under `build/externals/<name>` has
it. Whatever is missing is one `ExternalError` with the commands that make it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvlib import paths
from pvlib.config import Externals

WORKER = Path(__file__).with_name("worker.py")
INTERPRETERS = ("bin/python", "Scripts/python.exe")  # of a virtual environment: Linux and macOS, Windows
XTTS_MODEL = "tts_models/multilingual/multi-dataset/xtts_v2"
COSYVOICE_MODEL = "CosyVoice-300M"  # the weights of the paper's released comparison
AGREED = "COQUI_TOS_AGREED"


class ExternalError(RuntimeError):
    """A system from outside that is not installed, or whose process failed; the message names it and the remedy."""


@dataclass(frozen=True)
class Environment:
    """One system as it is installed.

    python: the interpreter. options: what its worker is told. facts: what can change its speech: versions of Python
    and packages, model, and where they lie on disk the sources and weights.
    """

    name: str
    python: Path
    options: dict[str, str]
    facts: dict[str, Any]


def find(name: str, limits: Externals | None = None) -> Environment:
    """The environment of "xtts" or "cosyvoice". Starts the interpreter for its versions; loads no model.

    Raises ExternalError where the interpreter, a package, the checkout, the weights or the agreement to a licence is
    missing.
    """
    return _FINDERS[name](limits or Externals())


def _xtts(limits: Externals) -> Environment:
    place = paths.EXTERNALS / "xtts"
    install = _commands(
        ["python3.12", "-m", "venv", place],
        # with an older PyTorch than 2.9 it reads wave files without FFmpeg
        [place / "bin" / "pip", "install", "coqui-tts==0.28.0", "torch==2.8.*", "torchaudio==2.8.*"],
    )
    python = _interpreter("xtts", "PVLIB_XTTS_PYTHON", install)
    if os.environ.get(AGREED) != "1":
        raise ExternalError(
            "xtts: the weights of XTTS v2 are under the Coqui Public Model License, for no commercial use "
            f"(LICENSE.txt of coqui/XTTS-v2 on Hugging Face); read it, and if you agree set {AGREED}=1"
        )
    facts = _facts("xtts", python, limits)
    if "coqui-tts" not in facts["packages"]:
        raise ExternalError(f"xtts: {python} has no package coqui-tts; install it: {install}")
    return Environment("xtts", python, {"model": XTTS_MODEL}, facts | {"model": XTTS_MODEL})


def _cosyvoice(limits: Externals) -> Environment:
    place, checkout = paths.EXTERNALS / "cosyvoice", paths.EXTERNALS / "cosyvoice-checkout"
    install = _commands(
        ["git", "clone", "--recursive", "https://github.com/FunAudioLLM/CosyVoice", checkout],
        ["python3.10", "-m", "venv", place],
        # one of the requirements asks for pkg_resources to be built (QwenAudio/CosyVoice issue 1844)
        [place / "bin" / "pip", "install", "setuptools<82", "wheel"],
        [place / "bin" / "pip", "install", "--no-build-isolation", "openai-whisper==20231117"],
        [place / "bin" / "pip", "install", "-r", checkout / "requirements.txt"],
        [place / "bin" / "python", "-c", _fetch(checkout / "pretrained_models" / COSYVOICE_MODEL)],
    )
    python = _interpreter("cosyvoice", "PVLIB_COSYVOICE_PYTHON", install)
    home = Path(os.environ.get("PVLIB_COSYVOICE_HOME") or checkout).expanduser().absolute()
    if not (home / "cosyvoice" / "cli" / "cosyvoice.py").is_file():
        raise ExternalError(
            f"cosyvoice: {home} is no checkout of CosyVoice; name one with PVLIB_COSYVOICE_HOME, or make it: {install}"
        )
    if not (home / "third_party" / "Matcha-TTS" / "matcha").is_dir():
        raise ExternalError(
            f"cosyvoice: {home} lacks third_party/Matcha-TTS; "
            f"run {_commands(['git', '-C', home, 'submodule', 'update', '--init', '--recursive'])}"
        )
    model = home / "pretrained_models" / COSYVOICE_MODEL
    model = Path(os.environ.get("PVLIB_COSYVOICE_MODEL") or model).expanduser().absolute()
    if not any((model / file).is_file() for file in ("cosyvoice.yaml", "cosyvoice2.yaml")):
        raise ExternalError(
            f"cosyvoice: {model} holds no weights of CosyVoice or CosyVoice 2; name their folder with "
            f"PVLIB_COSYVOICE_MODEL, or fetch them: {_commands([python, '-c', _fetch(model)])}"
        )
    facts = _facts("cosyvoice", python, limits)
    if "torch" not in facts["packages"]:
        raise ExternalError(f"cosyvoice: {python} has no package torch; install it: {install}")
    facts |= {"model": model.name, "sources": _sources(home / "cosyvoice"), "weights": _sizes(model)}
    return Environment("cosyvoice", python, {"model": str(model), "home": str(home)}, facts)


_FINDERS: dict[str, Callable[[Externals], Environment]] = {"xtts": _xtts, "cosyvoice": _cosyvoice}


def _interpreter(name: str, variable: str, install: str) -> Path:
    if named := os.environ.get(variable):
        python = Path(named).expanduser().absolute()  # a link stays a link: it tells Python which environment
        if not python.is_file():
            raise ExternalError(
                f"{name}: {variable} names {python}, which is no interpreter; make one: {install}"
            )
        return python
    place = paths.EXTERNALS / name
    for python in (place / path for path in INTERPRETERS):
        if python.is_file():
            return python
    raise ExternalError(
        f"{name} is not installed: it lives in an environment of its own. Run {install}, or name the interpreter of "
        f"one with {variable}"
    )


def _facts(name: str, python: Path, limits: Externals) -> dict[str, Any]:
    command = [str(python), "-I", str(WORKER), name, json.dumps({"facts": True})]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=limits.question_seconds, check=True
        )
        return json.loads(run.stdout)
    except subprocess.CalledProcessError as error:
        reason = f"exit status {error.returncode}: {' | '.join(error.stderr.strip().splitlines()[-3:])}"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        reason = str(error)
    raise ExternalError(f"{name}: {python} does not run ({reason}); make its environment again")


def _commands(*commands: list[str | Path]) -> str:
    """Commands for a shell, on one line between backticks."""
    return f"`{' && '.join(shlex.join(map(str, command)) for command in commands)}`"


def _fetch(folder: Path) -> str:
    return f"from modelscope import snapshot_download as get; get('iic/{COSYVOICE_MODEL}', local_dir={str(folder)!r})"


def _sources(folder: Path) -> str:
    """SHA-256 over the Python files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file with weights or settings below a folder; a hash of gigabytes would cost more than it tells."""
    suffixes = (".pt", ".onnx", ".safetensors", ".yaml")
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
