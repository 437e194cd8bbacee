"""The sweep of steps and guidance as Figure 4 draws it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pvlib.study import plots


def test_every_point_of_the_sweep_has_its_intervals():
    points = pd.DataFrame({"secs": [0.9, 0.6, 0.7, 0.5], "wer": [0.1, 0.3, 0.2, 0.6]})
    ends = {
        f"{name}_{end}": points[name] + by for name in points for end, by in (("low", -0.05), ("high", 0.02))
    }
    points = points.assign(**ends)
    grid = points.assign(steps=[4, 8, 4, 8], cfg_strength=[1.5, 1.5, 2.5, 2.5])
    names = ["ground-truth", "f5-official", "personavoice", "sv2tts"]
    right = plots.plane(points.assign(system=names), grid).axes[1]
    drawn = [np.ravel(segment) for bars in right.collections for segment in bars.get_segments()]
    wanted = [(p.wer_low, p.secs, p.wer_high, p.secs) for p in grid.itertuples()]
    wanted += [(p.wer, p.secs_low, p.wer, p.secs_high) for p in grid.itertuples()]
    assert sorted(map(tuple, np.round(drawn, 6))) == sorted(map(tuple, np.round(wanted, 6)))
