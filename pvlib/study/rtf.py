"""The speed benchmark of a profile: one utterance at a time, batch 1, warm, all systems in turn, on a named machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import paths, systems
from pvlib.config import Profile, get_profile
from pvlib.metrics.rtf import benchmark
from pvlib.study import manifest as manifests
from pvlib.study import sweeps
from pvlib.study.comparisons import many
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

    Returns {"machine", "systems": {name: {"key", "together", "threads", "median", "low", "high", "utterances",
    "failures", "timings"}}}, with every system that was timed on this machine. names: default `system_names`.
    All systems take turns, text by text, so that their factors can be compared; their networks lie in memory together.
    Where a profile is not embedded its networks are large, and one system after the other has a pass of its own.
    Systems that were timed together on this machine with the same configuration, weights and sources are not timed
    again unless `again` is set, not even where fewer threads are left: a notebook that runs beside another would
    measure both. Where one of them lacks that, all are timed again; what is interrupted starts anew and leaves the file
    as it was. Raises ManifestError, WeightsError, RowsError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    names = system_names(profile) if names is None else names
    manifest = manifest or manifests.read(profile.manifest)
    requests = manifest.requests(manifest.sample(utterances + 1, profile.seed))
    path = paths.WORKING_ROWS / profile.name / "rtf.json"
    host = {"machine": machine()}
    known = _known(path, host)
    for company in [names] if profile.embedded else [[name] for name in names]:
        made = [systems.create(name, profile, device) if isinstance(name, str) else name for name in company]
        texts = [request.utterance for request in requests]
        keys = {system.name: digest([system.fingerprint(), texts]) for system in made}
        if not again and _timed_together(known, keys):
            continue
        total, title = len(requests) * len(made), f"speed of {many(len(made), 'system')}"
        with tqdm(total=total, desc=title, unit="utterance", disable=not progress) as bar:
            found = benchmark(made, requests, progress=bar.update)
        shared = {"together": digest(keys), "threads": torch.get_num_threads()}
        known |= {one.system: {"key": keys[one.system], **shared, **one.to_dict()} for one in found}
        write_text(path, json.dumps({**host, "systems": known}, indent=2) + "\n")
    return {**host, "systems": known}


def system_names(profile: Profile) -> list[str]:
    """What is timed: those of `NAMES` that the profile has weights for, and the sweep's numbers of steps."""
    return list(dict.fromkeys([*systems.present(profile, NAMES), *_steps(profile)]))


def by_steps(profile: Profile | str, *, utterances: int = UTTERANCES, progress: bool = True) -> pd.DataFrame:
    """Median real-time factor for each number of steps of the sweep: columns steps, rtf, rtf_low, rtf_high.

    Of `measure_speed`. The strength of guidance costs nothing: both of its halves are computed whatever it is.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    found = measure_speed(profile, utterances=utterances, progress=progress)["systems"]
    lines = []
    for name, n in _steps(profile).items():
        values = (found[name][key] for key in ("median", "low", "high"))
        lines.append((n, *(np.nan if value is None else value for value in values)))
    return pd.DataFrame(lines, columns=["steps", "rtf", "rtf_low", "rtf_high"])


def _steps(profile: Profile) -> dict[str, int]:
    return {sweeps.variant(profile, n, profile.inference.cfg_strength): n for n in sweeps.STEPS}


def _timed_together(known: Mapping[str, Any], keys: Mapping[str, str]) -> bool:
    there = [known.get(name, {}) for name in keys]
    alike = all(own.get("key") == key for own, key in zip(there, keys.values(), strict=True))
    return alike and len({own.get("together") for own in there}) == 1 and "together" in there[0]


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
