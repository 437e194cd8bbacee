"""The paper's own numbers, as printed: `data/reported/<name>.csv`, columns metric, system, value, note, source."""

from __future__ import annotations

import math
import re

import pandas as pd

from pvlib import paths

COLUMNS = ("metric", "system", "value", "note", "source")
# which of the paper's columns stands beside which of ours; where one of `systems.EXTERNAL` was not run, alone
PAPER_SYSTEMS = {
    "personavoice": "PersonaVoice v10.4.8",
    "f5-as-published": "F5-TTS Official",
    "xtts": "XTTS v2",
    "cosyvoice": "CosyVoice",
}
_RANGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


class ReportedError(ValueError):
    """A table of reported numbers that is missing or damaged."""


def read(name: str = "key_results") -> pd.DataFrame:
    """A table of reported numbers: key_results, retired_modules, parameters or demo.

    `value` is the text as printed (percentages as shares); `low` and `high` are its ends as numbers, equal unless
    a range was printed, NaN where it is no number; `estimated` marks what the paper itself calls an estimate.
    Raises ReportedError.
    """
    path = paths.REPORTED / f"{name}.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ReportedError(
            f"{path} cannot be read ({error}); restore it with `git checkout -- {path}`"
        ) from error
    if list(table.columns) != list(COLUMNS):
        raise ReportedError(f"{path}: the columns are not {', '.join(COLUMNS)}")
    ends = [_ends(value) for value in table["value"]]
    return table.assign(
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
        estimated=table["note"].str.contains("estimate"),
    )


def printed(table: pd.DataFrame, metric: str, system: str) -> pd.Series | None:
    """The first entry of a metric and system, or None where the paper gives none."""
    found = table[(table["metric"] == metric) & (table["system"] == system)]
    return None if found.empty else found.iloc[0]


def _ends(value: str) -> tuple[float, float]:
    if match := _RANGE.fullmatch(value):
        return float(match[1]), float(match[2])
    try:
        number = float(value)
    except ValueError:
        return math.nan, math.nan
    return number, number
