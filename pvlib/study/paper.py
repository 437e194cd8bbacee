"""The paper's printed numbers under our names, so that they can be drawn beside what was measured."""

from __future__ import annotations

import pandas as pd

from pvlib.study import reported
from pvlib.study.tables import KEY_LINES

OTHER_SCALE = "utmos"  # stands beside DNSMOS in the table, but cannot share an axis with it


def points() -> pd.DataFrame:
    """The paper's printed values by our metric names: columns metric, stratum, system, value, estimated.

    `estimated` marks what the paper itself calls an estimate. Systems carry our names (`reported.PAPER_SYSTEMS`).
    Ranges are left out.
    """
    table = reported.read("key_results")
    found = []
    for line in KEY_LINES:
        if not line.paper or line.paper == OTHER_SCALE:
            continue
        for system, paper in reported.PAPER_SYSTEMS.items():
            entry = reported.printed(table, line.paper, paper)
            if entry is not None and entry["low"] == entry["high"]:
                found.append((line.metric, line.stratum, system, entry["low"], bool(entry["estimated"])))
    return pd.DataFrame(found, columns=["metric", "stratum", "system", "value", "estimated"])


def plane() -> pd.DataFrame:
    """The paper's systems in the plane of Figure 4: columns system, secs, wer."""
    overall = points()
    overall = overall[overall["stratum"] == "overall"].pivot(index="system", columns="metric", values="value")
    overall = overall.rename(columns={"secs_ecapa_clip": "secs", "wer_capped": "wer"})
    return overall[["secs", "wer"]].dropna().reset_index()
