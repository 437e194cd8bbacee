"""What a system costs: the real-time factor that was measured, and the parameters of the networks that it loads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from pvlib import hub, systems
from pvlib.config import Profile, get_profile
from pvlib.study import rtf
from pvlib.study.architecture import parameters_of
from pvlib.systems.sv2tts.encoder import Resemblyzer
from pvlib.systems.sv2tts.system import SV2TTSSystem

TRUTH = "ground-truth"
SHORT = 0.5  # of the recordings' median duration


def parameters(system: str, profile: Profile | str) -> int:
    """How many numbers stand in the weight files that a system reads, and in the encoder that a package brings it.

    Raises ConfigError, WeightsError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    own = systems.create(system, profile, "cpu")
    found = sum(_numbers(hub.weights_path(name, profile)) for name in own.fingerprint()["weights"])
    if isinstance(own, SV2TTSSystem):
        found += parameters_of(Resemblyzer().network)
    return found


def told(priced: pd.DataFrame, rows: pd.DataFrame) -> str:
    """In words: whose real-time factor is high because little speech comes out, less than SHORT of the recordings.

    priced: of `points`; rows: of `evaluate`, ground truth among them.
    """
    spoken = rows.groupby("system")["generated_seconds"].median()
    true = spoken[TRUTH]
    found = [
        f"Half of what `{one.system}` says lasts under {spoken[one.system]:.2f} s, of the recordings {true:.2f} s. "
        f"Its real-time factor of {one.rtf:.2f} divides by the former; by the latter it would be about "
        f"{one.rtf * spoken[one.system] / true:.2f}."
        for one in priced.itertuples()
        if spoken[one.system] < SHORT * true
    ]
    return " ".join(found) or (
        f"All systems that were timed say at least {SHORT:.0%} of what the recordings last, so their real-time factors "
        "divide by like speech."
    )


@cache
def _numbers(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def points(
    found: pd.DataFrame, speeds: Mapping[str, Mapping[str, Any]], profile: Profile | str
) -> pd.DataFrame:
    """Systems that were timed, with what they cost: columns of `sweeps.points`, and rtf, rtf_low, rtf_high, millions.

    found: of `sweeps.points`; speeds: system -> median, low and high, as `measure_speed` returns them. Controls cost
    nothing and are left out; millions (of parameters) is NaN where the profile's weights are not embedded.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    timed = found[found["system"].isin([name for name, speed in speeds.items() if rtf.timed(speed)])]
    embedded = profile.embedded
    return timed.assign(
        **{
            column: [speeds[name][key] for name in timed["system"]]
            for column, key in (("rtf", "median"), ("rtf_low", "low"), ("rtf_high", "high"))
        },
        millions=[parameters(name, profile) / 1e6 if embedded else math.nan for name in timed["system"]],
    ).reset_index(drop=True)
