"""Recorded rows as working rows: a record after a change need not make again what the change does not touch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pvlib import hub, systems
from pvlib.config import Profile
from pvlib.hub import WeightsError
from pvlib.metrics.judges import Panel
from pvlib.study import manifest as manifests
from pvlib.study import provenance, seeds
from pvlib.study import rows as row_files
from pvlib.study.evaluate import row_key, shared_judges, working
from pvlib.study.manifest import Manifest
from pvlib.systems.external.environment import ExternalError
from pvlib.systems.fingerprint import digest

# what `provenance.record` writes beside a system's fingerprint
ADDED = ("rows", "failures", "wall_seconds", "sha256", "kept_from")


def take_up(profile: Profile, *, judges: Panel | None = None, say: Callable[[str], None] = print) -> int:
    """Make working rows of the recorded ones of a profile; returns how many.

    Taken up are rows of systems whose sources, weights, packages, settings and kind of machine are still those that
    the record names, told by the same judges, of utterances whose sounds and texts are the same. Not compared are the
    number of cores, Python and packages that `fingerprint.PACKAGES` lacks. Rows that are there stay as they are. say:
    is told of each system that is left out, and why.
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
        keys = [row_key(r, manifest.enrolment.get(r.speaker, {})) for r in manifest.requests(sample)]
        for name, card in record["systems"].items():
            if reason := _changed(profile, name, card, record, keys, judges):
                say(f"{place}: rows of {name} are not taken up: {reason}")
                continue
            taken += _take_up(profile, name, card, place, keys, judges)
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
) -> str:
    """Why rows of a system would come out otherwise today, or why that is not known; empty where they would not."""
    if not systems.is_known(name) or systems.lacking(name, profile):
        return "the system or its weights are gone"
    if lacking := [key for key in ("requests", "row_sources", "judges") if key not in record]:
        return f"the record does not tell its {', '.join(lacking)}"
    machine = card.get("kept_from", record)["machine"]
    if not provenance.same_machine(machine, provenance.machine()):
        return f"made on another kind of machine ({machine.get('gpu') or machine.get('cpu')})"
    if record["requests"] != digest(list(keys)):
        return "texts or sounds are others now"
    if record["row_sources"] != provenance.row_sources():
        return "rows are made otherwise now"
    if digest(record["judges"]) != digest(judges.fingerprint()):
        return "the judges are others now"
    then = {key: value for key, value in card.items() if key not in ADDED}
    try:
        now = json.loads(json.dumps(systems.create(name, profile).fingerprint()))
    except (ExternalError, WeightsError) as error:
        return str(error)
    return ", ".join(f"other {key}" for key in sorted({*now, *then}) if now.get(key) != then.get(key))


def _take_up(
    profile: Profile, name: str, card: dict[str, Any], place: str, keys: Sequence[str], judges: Panel
) -> int:
    store = working(systems.create(name, profile), judges, profile)
    path = row_files.committed_path(place, name)
    recorded = row_files.read_csv(path).to_dict("records")
    if hub.sha256(path) != card.get("sha256") or len(recorded) != len(keys):
        raise row_files.RowsError(
            f"{path} is not what was recorded; restore it with `git checkout -- {path}`"
        )
    rows = dict(zip(keys, recorded, strict=True))  # in the order in which `provenance.record` wrote them
    missing = {key: rows[key] for key in store.missing(list(keys))}
    if missing:
        wall = card.get("wall_seconds")  # of all together: an even share each
        store.add(missing, {} if wall is None else dict.fromkeys(missing, wall / len(keys)))
    return len(missing)
