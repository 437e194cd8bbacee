"""One file per row of a table, all behind one small protocol."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from operator import attrgetter

import torch

from pvlib import hub
from pvlib.config import ConfigError, Inference, Profile, get_profile
from pvlib.systems.base import Request, Result, System

__all__ = [
    "CONTROLS",
    "EXTERNAL",
    "MAIN",
    "NAMES",
    "SPREAD",
    "Request",
    "Result",
    "System",
    "absent",
    "create",
    "is_known",
    "lacking",
    "parameters",
    "parse",
    "present",
]

CONTROLS = ("ground-truth", "ground-truth-vocoded", "impostor")
MAIN = (*CONTROLS, "f5-official", "f5-as-published", "personavoice", "sv2tts")  # the columns of the tables
NAMES = (*MAIN, "sv2tts-griffin-lim", "sv2tts-wavernn")  # and the same mels by two other vocoders
EXTERNAL = (
    "xtts",
    "cosyvoice",
)  # in environments of their own (README); only where they are asked for by name
SPREAD = "personavoice-spread"  # a control of notebook 07

# module and class of each; a module is imported when it is asked for, so that controls do without the backbone
_KINDS = {
    "ground-truth": ("ground_truth", "GroundTruth"),
    "ground-truth-vocoded": ("ground_truth", "GroundTruthVocoded"),
    "impostor": ("ground_truth", "Impostor"),
    "f5-official": ("f5", "F5Official"),
    "f5-as-published": ("f5", "F5AsPublished"),
    "personavoice": ("personavoice", "PersonaVoiceSystem"),
    SPREAD: ("spread", "PersonaVoiceSpread"),
    "sv2tts": ("sv2tts.system", "SV2TTSSystem"),
    "sv2tts-griffin-lim": ("sv2tts.system", "SV2TTSGriffinLim"),
    "sv2tts-wavernn": ("sv2tts.system", "SV2TTSWaveRNN"),
    "xtts": ("external.system", "XTTS"),
    "cosyvoice": ("external.system", "CosyVoice"),
}
# where a module lists the parameters that its systems use; PersonaVoice uses all, and who is not here uses none
_LISTED = {"f5": "F5Official.inference", "sv2tts.system": "FRONT_END"}
_USE_ALL = ("personavoice", "spread")
# networks without which a system stands aside: nobody publishes them, so a profile has them or has not
_OWN = {
    "sv2tts": ("sv2tts-synthesizer",),
    "sv2tts-griffin-lim": ("sv2tts-synthesizer",),
    "sv2tts-wavernn": ("sv2tts-synthesizer", "sv2tts-vocoder"),
}
# and those that a variant's parameter asks for
_ASKED_FOR = {
    "use_adapters": hub.ADAPTERS,
    "duration_predictor": hub.DURATION_PREDICTOR,
    "padded_text": hub.BACKBONE_PADDED,
}


def parse(name: str) -> tuple[str, dict[str, object]]:
    """A system's name and the parameters that a variant replaces: "personavoice@steps=8,use_laag=False".

    Raises ConfigError on an unknown system, a variant that is not written like this, a parameter that this system does
    not use, or a value out of its range.
    """
    base, at, variant = name.partition("@")
    if base not in _KINDS:
        raise ConfigError(f"no system {base!r}: choose one of {', '.join(_KINDS)}")
    if at and base in EXTERNAL:
        raise ConfigError(f"{name!r}: {base} has no variants, the parameters of the paper do not concern it")
    try:
        call = ast.parse(f"variant({variant})", mode="eval").body
        changed = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if call.args or None in changed or bool(at) != bool(changed):
            raise ValueError("a value without a name")
        if len(changed) < len(call.keywords) or not isinstance(call.func, ast.Name):
            raise ValueError("a parameter twice, or more than one list of them")
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ConfigError(f"{name!r}: write a variant as {base}@parameter=value,parameter=value") from error
    if changed:
        used = parameters(base)
        if unused := [parameter for parameter in changed if parameter not in used]:
            there = f"one of {', '.join(used)}" if used else f"{base} alone: it uses none"
            raise ConfigError(f"{name!r}: {base} does not use {', '.join(unused)}; give {there}")
        try:
            Inference(**changed)  # checks ranges
        except TypeError as error:
            raise ConfigError(f"{name!r}: a value of the wrong kind ({error})") from error
    return base, changed


def parameters(base: str) -> tuple[str, ...]:
    """The parameters of the inference table that a system uses: those in its fingerprint."""
    module = _KINDS[base][0]
    if module in _USE_ALL:
        return tuple(vars(Inference()))
    if module not in _LISTED:
        return ()
    return tuple(attrgetter(_LISTED[module])(import_module(f"pvlib.systems.{module}")))


def is_known(name: str) -> bool:
    """Whether a name is that of a system here, or of a variant that `parse` accepts."""
    try:
        parse(name)
    except ConfigError:
        return False
    return True


def lacking(name: str, profile: Profile | str) -> list[str]:
    """The networks that a system needs and this profile has no weights of; they go by what `pvlib train` calls them.

    Only networks that nobody publishes count. Other weights belong to every profile, and that they are missing is an
    error when they are read, as is a file that is there and damaged. Raises ConfigError on an unknown system.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    base, changed = parse(name)
    needed = [*_OWN.get(base, ()), *(own for key, own in _ASKED_FOR.items() if changed.get(key))]
    return [own for own in needed if not hub.weights_path(own, profile).is_file()]


def present(profile: Profile | str, names: Iterable[str] = NAMES) -> list[str]:
    """Those of some systems that can speak in a profile, in their order."""
    return [name for name in names if not lacking(name, profile)]


def absent(profile: Profile | str, names: Iterable[str] = NAMES) -> dict[str, str]:
    """Those of some systems that cannot speak in a profile, each with what is lacking and how to get it."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    found = {}
    for name in names:
        if missing := lacking(name, profile):
            here = profile.embedded or missing == [hub.ADAPTERS]  # what can be trained for this profile
            command = " and ".join(
                f"`{hub.training_command(own, profile.name) if here else f'pvlib train {own}'}`"
                for own in missing
            )
            way = command if here else f"{command} makes those of the profile `mini` only"
            found[name] = f"no weights of {' and '.join(missing)} in the profile `{profile.name}` ({way})"
    return found


def create(name: str, profile: Profile | str, device: torch.device | str | None = None) -> System:
    """A system by name; its weights are read at the first synthesis, not here.

    A variant ("personavoice@steps=8") replaces parameters of the profile's inference table. device: None takes the
    GPU where there is one. Raises ConfigError as `parse`, ExternalError on one of `EXTERNAL` that is not installed.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    base, changed = parse(name)
    profile = replace(profile, inference=replace(profile.inference, **changed))
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    module, kind = _KINDS[base]
    return getattr(import_module(f"pvlib.systems.{module}"), kind)(name, profile, device)
