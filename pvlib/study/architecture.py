"""The architecture figure, drawn from the modules that a loaded pipeline really holds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from pvlib.study.look import styled
from pvlib.voice import PersonaVoice

ROLES = {  # attribute of PersonaVoice, in the order of the data -> what goes in and out
    "recognizer": "clip → its transcript",
    "speaker_encoder": "clip → voice embedding",
    "backbone": "clip's mel, text, noise → mel",
    "vocoder": "mel → waveform",
}
COLOURS = ("#cfe3f2", "#f6e0bd", "#cdeadf", "#f3d3e4")


def modules(voice: PersonaVoice) -> pd.DataFrame:
    """Every model that the pipeline holds and its parts, a row each.

    Columns model (attribute of the pipeline), kind (class of the model), part, part_kind (its class), copies (of the
    same class in a list), parameters. The parameters of a model's parts sum to the model's.
    """
    rows = []
    for name, model in vars(voice).items():
        if isinstance(model, nn.Module):
            whole = _unwrapped(model)
            for part, kind, copies, parameters in _parts(whole):
                rows.append((name, type(model).__name__, part, kind, copies, parameters))
    columns = ["model", "kind", "part", "part_kind", "copies", "parameters"]
    return pd.DataFrame(rows, columns=columns)


def parameters_of(module: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(parameter.numel() for parameter in module.parameters())


def _unwrapped(module: nn.Module) -> nn.Module:
    """The outermost module whose parameters are not all those of one child with parts of its own."""
    own = parameters_of(module)
    for child in module.children():
        inner = list(child.children()) and not isinstance(child, nn.ModuleList)
        if inner and parameters_of(child) == own:
            return _unwrapped(child)
    return module


def _parts(whole: nn.Module) -> list[tuple[str, str, int, int]]:
    """Name, class, copies and parameters of the children that have parameters; the module's own last."""
    found = []
    for name, child in whole.named_children():
        if size := parameters_of(child):
            listed = isinstance(child, nn.ModuleList) and len({type(one) for one in child}) == 1
            kind = type(child[0] if listed else child).__name__
            found.append((name, kind, len(child) if listed else 1, size))
    own = sum(parameter.numel() for parameter in whole.parameters(recurse=False))
    return found + ([("own", "Parameter", 1, own)] if own else [])


@styled
def figure(held: pd.DataFrame) -> Figure:
    """A column per model in the order of the data, a box per part with its class and its number of parameters.

    held: see `modules`.
    """
    names = [name for name in ROLES if name in set(held["model"])]
    names += [name for name in dict.fromkeys(held["model"]) if name not in ROLES]
    most = held.groupby("model").size().max()
    drawing = Figure(figsize=(2.6 * len(names), 0.62 * most + 1.7), layout="constrained")
    ax = drawing.subplots()
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(-most + 0.5, 1.3))
    ax.axis("off")
    for column, name in enumerate(names):
        own = held[held["model"] == name]
        colour = COLOURS[column % len(COLOURS)]
        head = f"{name} ({own['kind'].iloc[0]})\n{own['parameters'].sum():,} parameters"
        ax.text(column, 0.98, head, ha="center", va="center", fontsize=8.5, weight="bold")
        ax.text(column, 0.55, ROLES.get(name, ""), ha="center", va="center", fontsize=8)
        for row, part in enumerate(own.itertuples()):
            box = FancyBboxPatch((column - 0.44, -row - 0.36), 0.88, 0.72, "round,pad=0,rounding_size=0.06")
            box.set(facecolor=colour, edgecolor="#444444", lw=0.8)
            ax.add_patch(box)
            copies = f"{part.copies} x " if part.copies > 1 else ""
            label = f"{part.part}\n{copies}{part.part_kind}, {part.parameters:,}"
            ax.text(column, -row, label, ha="center", va="center", fontsize=7)
    return drawing
