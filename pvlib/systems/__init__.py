"""One file per row of a table, all behind one small protocol."""

from __future__ import annotations

import ast
from dataclasses import replace
from importlib import import_module

import torch

from pvlib.config import ConfigError, Profile, get_profile
from pvlib.systems.base import Request, Result, System

__all__ = ["CONTROLS", "NAMES", "Request", "Result", "System", "create", "is_known", "parse"]

CONTROLS = ("ground-truth", "ground-truth-vocoded", "impostor")
NAMES = (*CONTROLS, "f5-official", "f5-as-published", "personavoice")


# module and class of each; a module is imported when it is asked for, so that controls do without the backbone
_KINDS = {
    "ground-truth": ("ground_truth", "GroundTruth"),
    "ground-truth-vocoded": ("ground_truth", "GroundTruthVocoded"),
    "impostor": ("ground_truth", "Impostor"),
    "f5-official": ("f5", "F5Official"),
    "f5-as-published": ("f5", "F5AsPublished"),
    "personavoice": ("personavoice", "PersonaVoiceSystem"),
}


def parse(name: str) -> tuple[str, dict[str, object]]:
    """A system's name and the parameters that a variant replaces: "personavoice@steps=8,use_laag=False".

    Raises ConfigError on an unknown system or a variant that is not written like this.
    """
    base, _, variant = name.partition("@")
    if base not in NAMES:
        raise ConfigError(f"no system {base!r}: choose one of {', '.join(NAMES)}")
    try:
        call = ast.parse(f"variant({variant})", mode="eval").body
        parameters = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if call.args or None in parameters:
            raise ValueError("a value without a name")
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ConfigError(f"{name!r}: write a variant as {base}@parameter=value,parameter=value") from error
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
        try:
            known = get_profile(profile.name, **parameters).inference  # checks names and ranges
        except TypeError as error:
            raise ConfigError(f"{name!r}: a value of the wrong kind ({error})") from error
        changes = {key: getattr(known, key) for key in parameters}
        profile = replace(profile, inference=replace(profile.inference, **changes))
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    module, kind = _KINDS[base]
    return getattr(import_module(f"pvlib.systems.{module}"), kind)(name, profile, device)
