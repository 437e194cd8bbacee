"""Whether a profile can run here: asked before any work, and answered in full, with the commands that help."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from pvlib import models, paths
from pvlib.config import Profile
from pvlib.study import libritts
from pvlib.study import manifest as manifests
from pvlib.study.manifest import ManifestError

DRIVER = Path("/proc/driver/nvidia/version")  # there where Linux drives an NVIDIA GPU


class NotReady(RuntimeError):
    """What a profile needs is not here; the message says all that is missing, and how to get it, line by line."""

    in_lines = True


def check(
    profile: Profile, *, test_set: bool = True, judged: bool = True, samples: int | None = None
) -> None:
    """Ask for the models, the test set and the GPU of a profile.

    test_set: whether the profile's own is needed. judged: whether the proxies are, as for every row. samples: how many
    utterances of the test set at least. Files are only looked for; that they are whole is checked when they are read,
    and by `pvlib models check`. A profile whose weights are embedded has all of that, and needs no GPU: told is only
    one that torch would take and cannot use.
    Raises NotReady with everything at once.
    """
    if profile.embedded:
        if torch.cuda.is_available() and (wrong := gpu()):
            raise NotReady(f"the profile {profile.name} cannot run here yet. Missing:\n  {wrong}")
        return
    lines, commands = _models(profile, judged=judged)
    if test_set and (lacking := _test_set(profile, samples)):
        lines.append(lacking)
        commands.append(_prepare(samples))
    if wrong := gpu():
        lines.append(wrong)
    if lines:
        remedy = (
            ["get it, in this order, with", *(f"  {command}" for command in commands)] if commands else []
        )
        told = [f"the profile {profile.name} cannot run here yet. Missing:", *(f"  {line}" for line in lines)]
        raise NotReady("\n".join([*told, *remedy]))


def _models(profile: Profile, *, judged: bool) -> tuple[list[str], list[str]]:
    """A line for each network and proxy of the profile that lacks files, and the command that gets all of them."""
    lines = []
    for model in models.needed(profile, judged=judged):
        if absent := _absent(model):
            shown = "nothing of it is here" if len(absent) == len(model.files) else ", ".join(absent)
            place = f", in {models.folder(model)}" if model.url else ""
            lines.append(f"{model.name}, {model.purpose} ({model.size / 1e9:.2f} GB{place}): {shown}")
    if not lines:
        return [], []
    size = sum(
        model.size for model in models.models() if _absent(model)
    )  # the command fetches all that are required
    return [f"of the models in {models.location()}:", *lines], [
        f"pvlib models download    # {size / 1e9:.1f} GB"
    ]


def _absent(model: models.Model) -> list[str]:
    return [file for file in model.files if models.find(model, file) is None]


def _prepare(samples: int | None) -> str:
    """The command that makes the test set, from what lies here already where LibriTTS does."""
    command = "pvlib data prepare" + libritts.flag(samples)
    if (libritts.folder() / libritts.SPLIT).is_dir():
        return f"{command} --skip-download"
    fetched, unpacked = libritts.SIZE / 1e9, libritts.UNPACKED / 1e9
    return f"{command}       # fetches {fetched:.1f} GB, {unpacked:.1f} GB unpacked"


def _test_set(profile: Profile, samples: int | None) -> str:
    """What the profile's test set lacks; "" where it is whole."""
    path = paths.MANIFESTS / f"{profile.manifest}.csv"
    if not path.is_file():
        return f"the test set: {path}"
    try:
        found = manifests.read(profile.manifest)
    except ManifestError as error:
        return f"the test set: {error}"
    if (count := len(found.table)) < (samples or 0):
        asked = f"--samples {count} (make: SAMPLES={count}) would ask for"
        return f"{samples - count} of {samples} utterances: {path} holds {count}, which {asked}"
    return "" if found.enrolment else f"the enrolment of the test set's speakers beside {path}"


def gpu() -> str:
    """Why a GPU that is here cannot be used; "" where it can, or there is none.

    CUDA_VISIBLE_DEVICES="" says that none is wanted.
    """
    install = (
        "install the PyTorch build for your driver (https://pytorch.org/get-started/locally), or set "
        'CUDA_VISIBLE_DEVICES="" to compute on the processor'
    )
    if torch.cuda.is_available():
        try:
            torch.ones(8, device="cuda").sum().item()
        except RuntimeError as error:  # built for other GPUs than this one
            return f"a usable GPU: {str(error).splitlines()[0]}; {install}"
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not (
        DRIVER.exists() or shutil.which("nvidia-smi")
    ):
        return ""
    built = torch.version.cuda or "no CUDA"
    here = f"there is an NVIDIA driver, but torch {torch.__version__} (built for {built}) finds none"
    return f"a usable GPU: {here}; {install}"
