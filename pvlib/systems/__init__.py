"""One file per row of a table, all behind one small protocol."""

from __future__ import annotations

import ast
from dataclasses import replace

import torch

from pvlib.config import ConfigError, Profile, get_profile
from pvlib.systems.base import Request, Result, System

__all__ = ["CONTROLS", "NAMES", "Request", "Result", "System", "create", "is_known", "parse"]

CONTROLS = ("ground-truth", "ground-truth-vocoded", "impostor")
NAMES = (*CONTROLS, "f5-official", "f5-as-published", "personavoice")


def parse(name: str) -> tuple[str, dict[str, object]]:
    """A system's name and the parameters that a variant replaces: "personavoice@steps=8,use_laag=False".

    Raises ConfigError on an unknown system or a variant that is not written like this.
    """
    base, _, variant = name.partition("@")
    if base not in NAMES:
        raise ConfigError(f"no system {base!r}: choose one of {', '.join(NAMES)}")
    parameters: dict[str, object] = {}
    for item in filter(None, variant.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"{name!r}: write a variant as {base}@parameter=value,parameter=value")
        try:
            parameters[key.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            parameters[key.strip()] = value.strip()
    return base, parameters


def is_known(name: str) -> bool:
    """Whether a name is that of a system here, or a variant of one."""
    return name.partition("@")[0] in NAMES


def create(name: str, profile: Profile | str, device: torch.device | str | None = None) -> System:
    """A system by name; its weights are read at the first synthesis, not here.

    A variant ("personavoice@steps=8") replaces parameters of the profile's inference table. device: None takes the
    GPU where there is one. Raises ConfigError on an unknown system, parameter or value.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    base, parameters = parse(name)
    if parameters:
        known = get_profile(profile.name, **parameters).inference  # checks names and ranges
        changes = {key: getattr(known, key) for key in parameters}
        profile = replace(profile, inference=replace(profile.inference, **changes))
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    from pvlib.systems import f5, ground_truth, personavoice

    kind = {
        "ground-truth": ground_truth.GroundTruth,
        "ground-truth-vocoded": ground_truth.GroundTruthVocoded,
        "impostor": ground_truth.Impostor,
        "f5-official": f5.F5Official,
        "f5-as-published": f5.F5AsPublished,
        "personavoice": personavoice.PersonaVoiceSystem,
    }[base]
    return kind(name, profile, device)
