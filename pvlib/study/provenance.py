"""Where recorded numbers come from, and the only way into `data/results`: `record`, called by the recorded run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pvlib import hub, paths, systems
from pvlib.config import Profile, get_profile
from pvlib.metrics.judges import Panel
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.evaluate import finished_externals, row_key, shared_judges, working
from pvlib.study.manifest import Manifest
from pvlib.systems.base import System
from pvlib.systems.fingerprint import digest, module_path, source_hash

CARRIED = "carried.json"  # beside the working rows


class RecordError(RuntimeError):
    """A run that is not complete enough to be recorded; the message says what is missing."""


def machine() -> dict[str, Any]:
    """What the numbers were computed on: cpu, cores, memory, gpu, operating system, Python, and in which precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "precision": str(hub.precision(device)).removeprefix("torch."),
    }


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two machines compute with the same kind of processor, so that rows should agree closely.

    A record that does not say in which precision it was computed leaves that open.
    """
    alike = all(one.get(key) == other.get(key) for key in ("cpu", "gpu", "system"))
    return alike and len({m["precision"] for m in (one, other) if "precision" in m}) < 2


def row_sources() -> dict[str, str]:
    """What makes rows of systems and judges: sources that are in no fingerprint of theirs."""
    return {name: source_hash(module_path(name)) for name in ("pvlib.study.evaluate", "pvlib.study.rows")}


def commit() -> str:
    """The commit of the repository, with "+changes" when sources differ from it; "unknown" outside of git."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "pvlib", "data/manifests", "data/checkpoints")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def record(
    profile: Profile | str = "mini",
    names: Iterable[str | System] | None = None,
    samples: int | None = None,
    *,
    manifest: Manifest | None = None,
    part: str = "",
    command: str = "",
    judges: Panel | None = None,
    device: torch.device | str | None = None,
) -> Path:
    """Copy finished working rows to `data/results/<profile>`, with `provenance.json` beside them; returns its path.

    names: default all that the profile has weights for, and those from outside whose rows are finished. samples:
    utterances of the study (default: the profile's full number). command: makes the rows of the system {name}, for the
    message where some are missing. Rows of the profile's own manifest take along the RTF
    benchmark, the models' figures and the demo's rows where they were made; those of another one, and of a part of
    the study (its name), lie in folders of their own (`rows.part_of`). Wall seconds are those of the recorded rows,
    null where they are not known of these alone. Rows that were recorded before, to the last digit of their times,
    say in `kept_from` when and where, and in `carried` which rows were made again when only sources had changed since.
    Nothing is computed and, unless all rows are there, nothing is written.
    Raises RecordError, RowsError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifest or manifests.read(profile.manifest)
    judges = judges or shared_judges(profile, device)
    samples = min(samples or profile.samples, len(manifest.table))
    requests = manifest.requests(manifest.sample(samples, profile.seed))
    keys = [row_key(request, manifest.enrolment.get(request.speaker, {})) for request in requests]
    if names is None:
        names = [*systems.present(profile), *finished_externals(profile, keys, judges, device)]
    other = bool(profile.ultra_short) and manifest.name == profile.ultra_short
    place = row_files.part_of(profile.name, manifest.name) if other else f"{profile.name}/{part}".rstrip("/")
    folder = paths.RESULTS / place
    before = row_files.provenance(place) if row_files.is_recorded(place) else {"systems": {}}
    files: dict[Path, str] = {}
    cards: dict[str, Any] = {}
    spent: list[float | None] = []
    usual = f"pvlib evaluate --system {{name}} --samples {samples}"
    for name in names:
        system = systems.create(name, profile, device) if isinstance(name, str) else name
        store = working(system, judges, profile)
        if missing := store.missing(keys):
            raise RecordError(
                f"{len(missing)} of {len(keys)} rows of {system.name} are missing; "
                f"run `{(command or usual).format(name=system.name)}`"
            )
        table = store.get(keys)
        spent.append(store.wall_seconds(keys))
        text = files[row_files.committed_path(place, system.name)] = row_files.to_csv(table)
        cards[system.name] = {
            "rows": len(table),
            "failures": int((table["error"] != "").sum()),
            "wall_seconds": _rounded(spent[-1]),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            **system.fingerprint(),
        }
        old = before["systems"].get(system.name, {})
        if old.get("sha256") == cards[system.name]["sha256"]:
            origin = {key: before[key] for key in ("date", "commit", "machine")}
            cards[system.name]["kept_from"] = old.get("kept_from", origin)
            carried = old.get("carried", [])
            noted = _carried(profile, place, system.name, old["sha256"])
            carried = [*carried, *(note for note in noted if note not in carried)]  # of a run recorded twice
            if carried:
                cards[system.name]["carried"] = carried
    if place == profile.name:
        files |= _extras(profile, device, judges, list(cards))
    content = {
        "profile": profile.name,
        "samples": samples,
        "sample_seed": profile.seed,
        "manifest": {"name": manifest.name, "sha256": manifests.sha256(manifest.name)},
        "requests": digest(keys),
        "row_sources": row_sources(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "wall_seconds": _rounded(None if None in spent else sum(spent)),
        "judges": judges.fingerprint(),
        "systems": cards,
    }
    for path, text in files.items():
        row_files.write_text(path, text)
    return row_files.write_text(
        folder / "provenance.json", json.dumps(content, indent=2, sort_keys=True) + "\n"
    )


def note_carried(profile: Profile, place: str, name: str, note: dict[str, Any]) -> None:
    """Keep for the next record which sources of a system changed and which of its rows were made again (`recorded`)."""
    path = paths.WORKING_ROWS / profile.name / CARRIED
    known = _notes(path)
    known[place] = known.get(place, {}) | {name: note}
    row_files.write_text(path, json.dumps(known, indent=2, sort_keys=True) + "\n")


def _carried(profile: Profile, place: str, name: str, sha256: str) -> list[dict[str, Any]]:
    note = _notes(paths.WORKING_ROWS / profile.name / CARRIED).get(place, {}).get(name, {})
    return [{key: note[key] for key in ("sources", "again")}] if note.get("sha256") == sha256 else []


def _notes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _extras(
    profile: Profile, device: torch.device | str | None, judges: Panel, names: list[str]
) -> dict[Path, str]:
    """What else a run made: speeds, the models' figures, the demo's rows."""
    made, folder = paths.WORKING_ROWS / profile.name, paths.RESULTS / profile.name
    files: dict[Path, str] = {}
    if (made / "rtf.json").exists():
        files[folder / "rtf.csv"] = _speeds_csv(made / "rtf.json")
    if (made / "models.json").exists():
        files[folder / "models.json"] = (made / "models.json").read_text(encoding="utf-8")
    if (paths.SAMPLES / "demo.json").exists():
        demo = manifests.demo()
        keys = [row_key(request, {}) for request in demo.requests()]
        tables = []
        for name in names:
            if name not in systems.CONTROLS and systems.is_known(name):
                store = working(systems.create(name, profile, device), judges, profile)
                if not store.missing(keys):
                    tables.append(store.get(keys))
        if tables:
            files[folder / "demo.csv"] = row_files.to_csv(pd.concat(tables, ignore_index=True))
    return files


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _speeds_csv(path: Path) -> str:
    try:
        speeds = json.loads(path.read_text(encoding="utf-8"))
        host = speeds["machine"]
        table = pd.DataFrame(speeds["systems"].values())
        table = table[["system", "median", "low", "high", "utterances", "failures", "threads"]]
        name = host["gpu"] or f"{host['cpu']}, {host['cores']} cores"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise row_files.RowsError(
            f"{path} cannot be read as speeds ({error!r}); delete it and run again"
        ) from error
    return table.assign(machine=name).to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=paths.ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform module knows a coarser name
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None  # not told on this system
