"""Do the committed rows still come out? Synthesise some of them again and compare."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import systems
from pvlib.config import Profile, get_profile
from pvlib.metrics.judges import Panel
from pvlib.study import manifest as manifests
from pvlib.study import provenance, seeds
from pvlib.study import rows as row_files
from pvlib.study.evaluate import make_rows, shared_judges
from pvlib.study.manifest import Manifest
from pvlib.study.rows import RowsError
from pvlib.systems.base import System

SIMILARITIES = ("secs_ecapa_clip", "secs_ecapa_speaker", "secs_ge2e_clip", "secs_ge2e_speaker")
# On the same kind of processor; on another, in nine rows of ten
SAME_WER, SAME_SECS = 0.0, 0.005
OTHER_WER, OTHER_SECS, OTHER_SHARE = 0.1, 0.05, 0.9
ROUNDING = 1e-6  # committed rows have six decimals


@dataclass(frozen=True)
class RowCheck:
    """One committed row beside its repetition. secs_difference: the largest of the four; NaN without similarities."""

    system: str
    utterance: str
    wer_committed: float
    wer_again: float
    secs_difference: float
    error_committed: str
    error_again: str
    agrees: bool


@dataclass(frozen=True)
class VerifyReport:
    """What was compared and with which tolerance. `ok`: enough rows agree, nine of ten on another machine."""

    profile: str
    seed: int
    same_machine: bool
    wer_tolerance: float
    secs_tolerance: float
    needed: int
    checks: tuple[RowCheck, ...]
    changed: tuple[str, ...]  # systems whose weights or configuration are not those of the recorded run

    @property
    def agreeing(self) -> int:
        return sum(check.agrees for check in self.checks)

    @property
    def ok(self) -> bool:
        return self.agreeing >= self.needed

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "agreeing": self.agreeing, "ok": self.ok}

    def __str__(self) -> str:
        where = "the same kind of processor" if self.same_machine else "another kind of processor"
        lines = [
            f"{self.agreeing} of {len(self.checks)} rows agree ({self.needed} needed) on {where}: WER within "
            f"{self.wer_tolerance:g}, SECS within {self.secs_tolerance:g}; chosen by seed {self.seed}"
        ]
        for check in self.checks:
            lines.append(
                f"  {'ok ' if check.agrees else 'NOT'} {check.system} {check.utterance}: WER {check.wer_committed:.4f} "
                f"-> {check.wer_again:.4f}, SECS differs by {check.secs_difference:.4f}"
                + (
                    f", error {check.error_again or 'none'!r}"
                    if check.error_committed != check.error_again
                    else ""
                )
            )
        for name in self.changed:
            lines.append(f"  note: {name} has other weights or another configuration than the recorded run")
        return "\n".join(lines)


def verify(
    profile: Profile | str = "mini",
    rows: int = 5,
    seed: int | None = None,
    *,
    names: Iterable[str | System] | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> VerifyReport:
    """Synthesise random committed rows again, without any cached row, and compare them with what was recorded.

    rows: how many, over all systems and parts of the record (all of them when there are fewer). seed: of the choice;
    None draws one, which the report names. names: systems to choose from, of the main part alone (default: all but
    those from outside, which are not installed everywhere).
    On the recorded machine's kind of processor WER must be equal and SECS within 0.005 in every row; on another, WER
    within 0.1 and SECS within 0.05 in nine rows of ten. A row that failed must fail again.
    Raises RowsError when nothing was recorded, ManifestError when the manifest lacks a recorded utterance.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if manifest is None and not profile.embedded and not row_files.is_recorded(profile.name):
        raise RowsError(
            f"no rows of {profile.name} are recorded here, so there is nothing to compare: only those of embedded "
            "weights are; `pvlib evaluate` goes on with the working rows"
        )
    given = None if names is None else {(n if isinstance(n, str) else n.name): n for n in names}
    parts = _parts(profile, manifest, main_only=given is not None)
    recorded = {place: row_files.provenance(place) for place in parts}
    judges = judges or shared_judges(profile, device)
    committed = pd.concat(
        [row_files.committed(place, given).assign(place=place) for place in parts], ignore_index=True
    )
    if given is None:
        committed = committed[~committed["system"].isin(systems.EXTERNAL)]
    seed = secrets.randbelow(2**31) if seed is None else seed
    size = min(rows, len(committed))
    chosen = committed.iloc[np.random.default_rng(seed).choice(len(committed), size=size, replace=False)]
    same = provenance.same_machine(recorded[profile.name]["machine"], provenance.machine())
    tolerances = (SAME_WER, SAME_SECS) if same else (OTHER_WER, OTHER_SECS)
    checks, changed = [], []
    with tqdm(total=len(chosen), desc="verify", unit="row", disable=not progress) as bar:
        for (place, name), part in chosen.groupby(["place", "system"], sort=False):
            maker = name if given is None else given[name]
            system = systems.create(maker, profile, device) if isinstance(maker, str) else maker
            if _changed(system, recorded[place]["systems"].get(name, {})) and name not in changed:
                changed.append(name)
            requests = _requests(parts[place], list(part["utterance"]))
            again = make_rows(system, requests, parts[place], judges)
            for old, new in zip(part.to_dict("records"), again, strict=True):
                checks.append(_compare(old, new, *tolerances))
                bar.update(1)
    needed = size if same else size - int(size * (1 - OTHER_SHARE) + ROUNDING)
    return VerifyReport(profile.name, seed, same, *tolerances, needed, tuple(checks), tuple(changed))


def _parts(profile: Profile, manifest: Manifest | None, main_only: bool) -> dict[str, Manifest]:
    """What was recorded of a profile: the study, the variants, other seeds, the second manifest; place -> manifest."""
    main = manifest or manifests.read(profile.manifest)
    found = {profile.name: main}
    if main_only:
        return found
    if row_files.is_recorded(place := f"{profile.name}/{row_files.VARIANTS}"):
        found[place] = main
    for part, other in seeds.parts(main).items():
        if row_files.is_recorded(place := f"{profile.name}/{part}"):
            found[place] = other
    if profile.ultra_short and row_files.is_recorded(
        place := row_files.part_of(profile.name, profile.ultra_short)
    ):
        found[place] = manifests.read(profile.ultra_short)
    return found


def _requests(manifest: Manifest, utterances: list[str]) -> list[Any]:
    table = manifest.table.set_index("utterance", drop=False)
    if absent := [utterance for utterance in utterances if utterance not in table.index]:
        raise manifests.ManifestError(
            f"{manifest.name} has no utterance {absent[0]}, of which a row is recorded; "
            "restore both with `git checkout -- data`"
        )
    return manifest.requests(table.loc[utterances].reset_index(drop=True))


def _compare(
    old: dict[str, Any], new: dict[str, Any], wer_tolerance: float, secs_tolerance: float
) -> RowCheck:
    pairs = np.array([[old[name], new[name]] for name in SIMILARITIES], dtype=float)
    gone = np.isnan(pairs)
    difference = np.abs(pairs[:, 0] - pairs[:, 1])
    largest = float(np.nanmax(difference)) if not np.isnan(difference).all() else float("nan")
    agrees = (
        bool(old["error"]) == bool(new["error"])
        and (gone[:, 0] == gone[:, 1]).all()
        and abs(old["wer"] - new["wer"]) <= wer_tolerance + ROUNDING
        and (np.isnan(largest) or largest <= secs_tolerance + ROUNDING)
    )
    return RowCheck(
        old["system"],
        old["utterance"],
        float(old["wer"]),
        float(new["wer"]),
        largest,
        old["error"],
        new["error"],
        bool(agrees),
    )


def _changed(system: System, recorded: dict[str, Any]) -> bool:
    now = system.fingerprint()
    return any(now.get(key) != recorded.get(key) for key in ("inference", "weights"))
