"""Executed notebooks as web pages that need no network: formulas are drawn here, styles are inside."""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import nbformat
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)\$", re.DOTALL)

_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1c1c1c; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
a { color: #0072b2; } h1 { line-height: 1.2; } img { max-width: 100%; }
table { border-collapse: collapse; margin: 1em 0; font-size: .88em; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #888; }
.highlight { background: #f6f6f6; padding: .5em .8em; overflow-x: auto; font-size: .85em; }
.prompt, .anchor-link { display: none; } .formula { text-align: center; margin: 1em 0; } audio { height: 2.2em; }
.output_stderr { background: #fff4e5; } .output_error, .ansi-red-fg { color: #b00020; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: .85em; color: #555; }
"""


@lru_cache(maxsize=256)
def formula(tex: str, *, size: float = 12.0) -> str:
    """A formula as an inline SVG picture with its TeX as alternative text.

    Raises ValueError on TeX outside matplotlib's mathtext.
    """
    buffer = io.BytesIO()
    depth = math_to_image(f"${tex.strip()}$", buffer, prop=FontProperties(size=size), format="svg")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"vertical-align: -{depth or 0:.1f}pt"
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{html.escape(tex.strip())}" style="{style}">'


def _draw_formulas(markdown: str) -> str:
    def drawn(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f'<div class="formula">{formula(match[1].replace(chr(10), " "), size=14.0)}</div>'
        return formula(match[2])

    return _FORMULA.sub(drawn, markdown)


def _page(title: str, body: str) -> str:
    colours = HtmlFormatter().get_style_defs(".highlight")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}{colours}</style></head>\n<body>{body}</body></html>\n"
    )


def title_of(notebook: NotebookNode) -> str:
    """The first heading of a notebook. Raises ValueError when it has none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)):
            return found[1].strip()
    raise ValueError("the notebook has no heading of the form '# Title'")


def notebook_page(notebook: NotebookNode) -> str:
    """One executed notebook as a self-contained web page."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = _draw_formulas(cell.source)
        for output in cell.get("outputs", []):
            if "text/markdown" in (data := output.get("data", {})):
                data["text/markdown"] = _draw_formulas(data["text/markdown"])
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(copy)
    body = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', body)  # notebooks lead to each other
    return _page(title_of(notebook), '<p><a href="index.html">all notebooks</a></p>' + body)


def index_page(
    heading: str,
    facts: Sequence[str],
    table: str,
    titles: Mapping[str, str],
    pictures: Sequence[Path],
    base: Path,
) -> str:
    """The entrance: facts of the run, the key table (HTML), the notebooks (file -> title), every picture.

    pictures: image files, linked relative to `base`, the folder of the page.
    """
    lines = [f"<h1>{html.escape(heading)}</h1>", "<ul>"]
    lines += [f"<li>{html.escape(fact)}</li>" for fact in facts] + [
        "</ul>",
        table,
        "<h2>Notebooks</h2>",
        "<ul>",
    ]
    lines += [f'<li><a href="{name}">{html.escape(title)}</a></li>' for name, title in titles.items()]
    lines += ["</ul>", "<h2>Pictures</h2>", '<div class="gallery">']
    for picture in pictures:
        link = html.escape(os.path.relpath(picture, base).replace(os.sep, "/"))
        caption = html.escape(picture.stem.replace("_", " "))
        image = f'<a href="{link}"><img src="{link}" alt="{caption}"></a>'
        lines.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return _page(heading, "\n".join(lines) + "</div>")
