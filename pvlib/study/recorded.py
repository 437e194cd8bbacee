"""Recorded rows as working rows: a record after a change need not make again what the change does not touch.

A change of the sources voids rows though it may not touch them: a clearer error, a case that no row is. Whether it
does is tried on some rows of each system, made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pvlib import hub, systems
from pvlib.config import Profile
from pvlib.hub import WeightsError
from pvlib.metrics.judges import Panel
from pvlib.study import manifest as manifests
from pvlib.study import provenance, seeds
from pvlib.study import rows as row_files
from pvlib.study.evaluate import make_rows, row_key, shared_judges, working
from pvlib.study.manifest import Manifest
from pvlib.systems.base import Request, System
from pvlib.systems.external.environment import ExternalError
from pvlib.systems.fingerprint import digest

# what `provenance.record` writes beside a system's fingerprint
ADDED = ("rows", "failures", "wall_seconds", "sha256", "kept_from", "carried")
TIMED = ("synthesis_seconds",)  # columns that differ from run to run
SAME = 1e-5  # recorded rows have six decimals; other threads and batches change the last


def take_up(
    profile: Profile,
    *,
    again: int = 0,
    judges: Panel | None = None,
    say: Callable[[str], None] = print,
    progress: bool = False,
) -> int:
    """Make working rows of the recorded ones of a profile; returns how many.

    Taken up are rows of systems whose sources, weights, packages, settings and kind of machine are still those that
    the record names, told by the same judges, of utterances whose sounds and texts are the same. Not compared are the
    number of cores, Python and packages that `fingerprint.PACKAGES` lacks. Rows that are there stay as they are.
    again: where nothing but sources has changed, so many rows of each system, drawn at random, are made again by those
    of today; if each of them is the recorded one in all but its seconds, the system's rows are taken up, and the next
    record tells which sources had changed and which rows were made again (`carried`). say: is told of each system that
    is left out, and why.
    Raises RowsError on damaged files, ManifestError, AudioError where a sound is missing.
    """
    judges = judges or shared_judges(profile)
    taken = 0
    for place, manifest in _places(profile).items():
        if not row_files.is_recorded(place):
            continue
        record = row_files.provenance(place)
        samples = min(record.get("samples", 0), len(manifest.table))
        sample = manifest.sample(samples, record.get("sample_seed", profile.seed))
        requests = manifest.requests(sample)
        keys = [row_key(r, manifest.enrolment.get(r.speaker, {})) for r in requests]
        bar = tqdm(record["systems"].items(), desc=f"{place} again", disable=not (progress and again))
        for name, card in bar:
            reason, modules = _changed(profile, name, card, record, keys, judges)
            if not reason:
                rows = dict(zip(keys, _recorded(place, name, card, keys), strict=True))
                system = systems.create(name, profile)
                store = working(system, judges, profile)
                missing = store.missing(keys)
                if missing and modules and not again:
                    reason = (
                        f"other sources ({', '.join(modules)}); --again 3 tries whether they make other rows"
                    )
                elif missing and modules:
                    tried, reason = _again(system, requests, list(rows.values()), manifest, judges, again)
                    if not reason:
                        note = {"sources": modules, "again": tried, "sha256": card["sha256"]}
                        provenance.note_carried(profile, place, name, note)
            if reason:
                say(f"{place}: rows of {name} are not taken up: {reason}")
            elif missing:
                wall = card.get("wall_seconds")  # of all together: an even share each
                shares = {} if wall is None else dict.fromkeys(missing, wall / len(keys))
                store.add({key: rows[key] for key in missing}, shares)
                taken += len(missing)
    return taken


def _places(profile: Profile) -> dict[str, Manifest]:
    """Where rows of a profile are recorded, and of which utterances."""
    own = manifests.read(profile.manifest)
    found = {profile.name: own, f"{profile.name}/{row_files.VARIANTS}": own}
    found |= {f"{profile.name}/{name}": other for name, other in seeds.parts(own).items()}
    if profile.ultra_short:
        place = row_files.part_of(profile.name, profile.ultra_short)
        if row_files.is_recorded(place):
            found[place] = manifests.read(profile.ultra_short)
    return found


def _changed(
    profile: Profile,
    name: str,
    card: dict[str, Any],
    record: dict[str, Any],
    keys: Sequence[str],
    judges: Panel,
) -> tuple[str, list[str]]:
    """Why rows of a system would come out otherwise today, or why that is not known; empty where they would not.

    And the modules whose sources are others now, and packages that only one of the two sides names: whether that
    matters their text does not tell.
    """
    if not systems.is_known(name) or systems.lacking(name, profile):
        return "the system or its weights are gone", []
    if lacking := [key for key in ("requests", "row_sources", "judges") if key not in record]:
        return f"the record does not tell its {', '.join(lacking)}", []
    machine = card.get("kept_from", record)["machine"]
    if not provenance.same_machine(machine, provenance.machine()):
        return f"made on another kind of machine ({machine.get('gpu') or machine.get('cpu')})", []
    if record["requests"] != digest(list(keys)):
        return "texts or sounds are others now", []
    if _other(record["judges"], judges.fingerprint()):
        return "the judges are others now", []
    try:
        now = systems.create(name, profile).fingerprint()
    except (ExternalError, WeightsError) as error:
        return str(error), []
    then = {key: value for key, value in card.items() if key not in ADDED}
    if others := _other(then, now):
        return ", ".join(f"other {key}" for key in others), []
    modules = _other(record["row_sources"], provenance.row_sources())
    for one, other in ((record["judges"], judges.fingerprint()), (then, now)):
        modules += [*_other(one.get("sources", {}), other.get("sources", {})), *_unnamed(one, other)]
    return "", sorted(set(modules))


def _other(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two fingerprints, or the sources of two, differ in; of fingerprints without their sources.

    Of packages, versions of those that both name: see `_unnamed` for the others.
    """
    unnamed = _unnamed(then, now)
    then, now = dict(then), json.loads(json.dumps(now))
    for side in (then, now) if unnamed else ():
        side["packages"] = {key: value for key, value in side["packages"].items() if key not in unnamed}
    return sorted(key for key in {*now, *then} - {"sources"} if now.get(key) != then.get(key))


def _unnamed(then: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Packages that only one of two fingerprints names: as little is known of them as of a source that changed."""
    return set(then.get("packages", ())) ^ set(now.get("packages", ())) if "packages" in then else set()


def _again(
    system: System,
    requests: Sequence[Request],
    rows: Sequence[Mapping[str, Any]],
    manifest: Manifest,
    judges: Panel,
    count: int,
) -> tuple[list[str], str]:
    """Which utterances were made again, and what came out otherwise: empty where nothing did.

    rows: the recorded ones, one for each request.
    """
    seed = int(digest([system.name, len(rows)])[:8], 16)
    chosen = np.random.default_rng(seed).choice(len(rows), size=min(count, len(rows)), replace=False)
    tried, differing = [], []
    made = make_rows(system, [requests[i] for i in chosen], manifest, judges)
    for i, row in zip(chosen, made, strict=True):
        tried.append(rows[i]["utterance"])
        differing += [f"{tried[-1]} in {key}" for key in rows[i] if not _same(key, rows[i][key], row[key])]
    return tried, f"rows come out otherwise: {', '.join(differing)}" if differing else ""


def _same(key: str, then: Any, now: Any) -> bool:
    if key in TIMED or then == now:
        return True
    try:
        then, now = float(then), float(now)
    except ValueError:
        return False
    return abs(then - now) <= SAME or (np.isnan(then) and np.isnan(now))


def _recorded(place: str, name: str, card: dict[str, Any], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The recorded rows of a system, in the order in which `provenance.record` wrote them: that of the keys."""
    path = row_files.committed_path(place, name)
    rows = row_files.read_csv(path).to_dict("records")
    if hub.sha256(path) != card.get("sha256") or len(rows) != len(keys):
        raise row_files.RowsError(
            f"{path} is not what was recorded; restore it with `git checkout -- {path}`"
        )
    return rows
