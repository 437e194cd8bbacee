"""The look of every picture: one palette for one set of systems, one style, one way to save.

Nothing here or in `plots` and `pictures` touches pyplot, a backend or any other global state.
"""

from __future__ import annotations

import functools
import html
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import PIL.Image
from IPython.display import HTML, Image
from matplotlib.figure import Figure

from pvlib import paths

DPI = 110


@dataclass(frozen=True)
class Look:
    """How one system is drawn everywhere."""

    colour: str
    marker: str


# Okabe and Ito's colours: distinct under the common colour blindnesses; lightness and marker differ as well,
# so that greyscale prints stay readable. Controls are greys, systems are colours.
LOOKS = {
    "ground-truth": Look("#000000", "s"),
    "ground-truth-vocoded": Look("#5f5f5f", "D"),
    "impostor": Look("#a6a6a6", "X"),
    "f5-as-published": Look("#d55e00", "v"),
    "f5-official": Look("#e69f00", "^"),
    "personavoice": Look("#0072b2", "o"),
    "sv2tts": Look("#009e73", "P"),
    "sv2tts-griffin-lim": Look("#8fd3bd", "p"),
    "sv2tts-wavernn": Look("#00573f", "h"),
    "xtts": Look("#cc79a7", "<"),
    "cosyvoice": Look("#56b4e9", ">"),
    "true duration": Look("#332288", "H"),
    "letter durations": Look("#882255", "d"),
    "padded text": Look("#999933", "8"),
    "padded text, true duration": Look("#aa4499", "*"),
}
SPARE = Look("#b8a800", "x")

STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def look(system: str) -> Look:
    """Colour and marker of a system; systems without an entry of their own share a spare one."""
    return LOOKS.get(system, SPARE)


def ordered(systems: Iterable[str]) -> list[str]:
    """Systems in the order of the palette, the others behind by name."""
    rank = {name: i for i, name in enumerate(LOOKS)}
    return sorted(set(systems), key=lambda name: (rank.get(name, len(rank)), name))


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the house style without changing matplotlib's own settings."""

    @functools.wraps(draw)
    def wrapper(*args: object, **kwargs: object) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def keep(figure: Figure, name: str, folder: str | Path = "", alt: str = "") -> Image:
    """Save a figure as <folder>/<name>.png and return it for display: page and file show the same pixels.

    folder: relative to the repository, or absolute; empty means build/report/figures.
    """
    folder = paths.ROOT / folder if folder else paths.REPORT / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, dpi=DPI, bbox_inches="tight")
    pixels = PIL.Image.open(buffer).convert("RGB")
    path = folder / f"{name}.png"
    # 256 colours of its own: a third of the size, and no eye sees the difference
    pixels.quantize(256, method=PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE).save(
        path, optimize=True
    )
    return Image(filename=str(path), embed=True, alt=alt or name.replace("_", " "))


def table(frame: pd.DataFrame, *, digits: int = 3, links: Mapping[str, str] | None = None) -> HTML:
    """A frame for display, its texts in full and its numbers rounded. A plain running index is left out.

    links: whole text of a cell -> the address that it leads to. Of an empty frame it says that it has no lines.
    """
    running = isinstance(frame.index, pd.RangeIndex) or not frame.index.is_unique
    if frame.empty:
        return HTML("<p>no lines</p>")
    with pd.option_context("display.max_colwidth", None):
        text = frame.to_html(border=0, na_rep="-", index=not running, float_format=f"{{:.{digits}f}}".format)
    for cell, address in (links or {}).items():
        text = text.replace(f"<td>{cell}</td>", f'<td><a href="{html.escape(address)}">{cell}</a></td>')
    return HTML(text)
