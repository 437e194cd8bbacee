"""The sweep behind Figure 4: steps of the ODE against guidance; SV2TTS's other vocoders. Speed: `rtf.by_steps`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from pvlib import systems
from pvlib.config import Profile, get_profile
from pvlib.metrics.judges import Panel
from pvlib.study.evaluate import evaluate
from pvlib.study.manifest import Manifest
from pvlib.study.measure import measure
from pvlib.systems.base import System

SYSTEM = "personavoice"
STEPS = (4, 8, 16, 32)
GUIDANCE = (1.5, 2.5, 3.5)
SHARE = 12  # one utterance in so many of the study is swept
LEAST = 3  # but no fewer than this, and no more than half
TIMED, TIMED_SHARE, TIMED_LEAST = 8, 25, 1  # utterances timed: at most, one in so many, at least


def size(samples: int) -> int:
    """How many utterances a sweep takes of a study with `samples`: the first ones, which are a fair sample."""
    return min(max(LEAST, samples // SHARE), max(1, samples // 2))


def timed(samples: int) -> int:
    """How many utterances each speed measurement takes of a study with `samples`, besides the one to warm up."""
    return min(TIMED, max(TIMED_LEAST, samples // TIMED_SHARE), max(1, samples - 1))


def training_steps(profile: Profile, samples: int) -> int:
    """How many training steps each variant of `training.speed` is timed on, besides the one to warm up."""
    return 5 if samples >= profile.samples else 1


def variant(profile: Profile, steps: int, guidance: float) -> str:
    """The name of one point; the profile's own setting is the plain system, whose rows exist already."""
    own = profile.inference
    if (steps, guidance, guidance) == (own.steps, own.cfg_strength, own.laag_cfg_base):
        return SYSTEM
    return f"{SYSTEM}@steps={steps},cfg_strength={guidance},laag_cfg_base={guidance}"


def grid(steps: Sequence[int] = STEPS, guidance: Sequence[float] = GUIDANCE) -> list[tuple[int, float]]:
    """Every pair of steps and guidance strength."""
    return [(n, strength) for n in steps for strength in guidance]


def sweep(
    profile: Profile | str,
    samples: int,
    *,
    steps: Sequence[int] = STEPS,
    guidance: Sequence[float] = GUIDANCE,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    make: Callable[[str], str | System] = str,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows of every point, computed and cached as `evaluate` does, with columns steps and cfg_strength in front.

    samples: utterances of the study; the sweep takes the first `size(samples)` of the same order. make: turns the
    name of a point into what `evaluate` is given. Raises what `evaluate` raises.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    pairs = grid(steps, guidance)
    names = [variant(profile, n, strength) for n, strength in pairs]
    options = {"seed": seed, "manifest": manifest, "judges": judges, "progress": progress}
    rows = pd.concat([evaluate(profile, [make(name)], size(samples), **options) for name in names])
    points = pd.DataFrame(pairs, columns=["steps", "cfg_strength"]).assign(system=names)
    return points.merge(rows, on="system", validate="one_to_many")


def vocoders(profile: Profile | str) -> list[str]:
    """SV2TTS with other vocoders than the table's, where they are trained."""
    return systems.present(profile, [name for name in systems.NAMES if name not in systems.MAIN])


def heard_by(profile: Profile, samples: int) -> int:
    """How many utterances other vocoders speak: all of a complete study, else as many as are swept."""
    return samples if samples >= profile.samples else size(samples)


def with_vocoders(
    rows: pd.DataFrame,
    profile: Profile | str,
    samples: int,
    *,
    seed: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows of a study, and behind them those of `vocoders` on the first `heard_by` utterances of the same order."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if not (names := vocoders(profile)):
        return rows
    more = evaluate(profile, names, heard_by(profile, samples), seed=seed, progress=progress)
    return pd.concat([rows, more], ignore_index=True)


def points(rows: pd.DataFrame, secs: str) -> pd.DataFrame:
    """Where each system stands in the plane of Figure 4, with 95 % intervals: one line per system.

    rows: of several systems, or of a sweep. secs: the similarity column. Columns: system, n, secs, wer (capped at
    1), each of the two with _low and _high; of a sweep also steps and cfg_strength.
    """
    measured = measure(rows, [secs, "wer_capped"], ["overall"]).set_index(["system", "metric"])
    extra = [column for column in ("steps", "cfg_strength") if column in rows]
    found = []
    for system, own in rows.groupby("system", sort=False):
        point = {"system": system, "n": len(own), **{column: own[column].iloc[0] for column in extra}}
        for name, metric in (("secs", secs), ("wer", "wer_capped")):
            line = measured.loc[(system, metric)]
            point |= {name: line["value"], f"{name}_low": line["low"], f"{name}_high": line["high"]}
        found.append(point)
    return pd.DataFrame(found)
