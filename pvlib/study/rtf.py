"""The speed benchmark of a profile: one utterance at a time, batch 1, warm, on a named machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from pvlib import paths, systems
from pvlib.config import Profile, get_profile
from pvlib.metrics.rtf import benchmark
from pvlib.study import manifest as manifests
from pvlib.study.manifest import Manifest
from pvlib.study.provenance import machine
from pvlib.study.rows import write_text
from pvlib.systems.base import System
from pvlib.systems.fingerprint import digest

SLOWER = "personavoice@steps=96"  # the number of steps that the paper came from
NAMES = ("f5-official", "f5-as-published", "personavoice", SLOWER, "sv2tts")
UTTERANCES = 8


def measure_speed(
    profile: Profile | str = "mini",
    names: Sequence[str | System] | None = None,
    utterances: int = UTTERANCES,
    *,
    manifest: Manifest | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    again: bool = False,
) -> dict[str, Any]:
    """Median and range of the real-time factor of each system; kept in `build/results/<profile>/rtf.json`.

    Returns {"machine", "systems": {name: {"threads", "median", "low", "high", "utterances", "failures", "timings"}}}.
    names: default those of `NAMES` that the profile has weights for.
    A system that was measured on this machine with the same configuration, weights and sources is not measured again
    unless `again` is set, not even where fewer threads are left: a notebook that runs beside another would
    measure both. Raises ManifestError, WeightsError, RowsError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    names = systems.present(profile, NAMES) if names is None else names
    manifest = manifest or manifests.read(profile.manifest)
    requests = manifest.requests(manifest.sample(utterances + 1, profile.seed))
    path = paths.WORKING_ROWS / profile.name / "rtf.json"
    host = {"machine": machine()}
    known = _known(path, host)
    for name in names:
        system = systems.create(name, profile, device) if isinstance(name, str) else name
        key = digest([system.fingerprint(), [request.utterance for request in requests]])
        if not again and known.get(system.name, {}).get("key") == key:
            continue
        with tqdm(
            total=len(requests), desc=f"{system.name}, speed", unit="utterance", disable=not progress
        ) as bar:
            timed = benchmark(system, requests, progress=bar.update).to_dict()
        known[system.name] = {"key": key, "threads": torch.get_num_threads(), **timed}
        write_text(path, json.dumps({**host, "systems": known}, indent=2) + "\n")
    return {**host, "systems": known}


def timed(speed: Mapping[str, Any] | None) -> bool:
    """Whether a real-time factor was measured; of a system that failed on every timed text there is none."""
    return speed is not None and speed["median"] is not None and math.isfinite(speed["median"])


def _known(path: Any, host: dict[str, Any]) -> dict[str, Any]:
    """What was measured before on this machine; nothing when the file is of another one or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["systems"] if {key: content[key] for key in host} == host else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
