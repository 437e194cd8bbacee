"""The architecture figure holds every parameter of the models it is drawn from, and none twice."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from pvlib.study import architecture, look


def small() -> SimpleNamespace:
    blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    inner = nn.Module()
    inner.blocks, inner.out, inner.act = blocks, nn.Linear(3, 2, bias=False), nn.ReLU()
    inner.scale = nn.Parameter(torch.ones(5))
    wrapper = nn.Module()
    wrapper.inner = inner
    return SimpleNamespace(
        vocoder=nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU()), backbone=wrapper, gate="auto"
    )


def test_every_parameter_is_in_one_box():
    held = architecture.modules(small())
    assert held.groupby("model")["parameters"].sum().to_dict() == {"vocoder": 16, "backbone": 24 + 6 + 5}
    assert list(held[held["model"] == "vocoder"]["part_kind"]) == ["Conv1d"]
    rows = held.set_index("part")[["part_kind", "copies", "parameters"]].to_dict("index")
    assert rows["blocks"] == {"part_kind": "Linear", "copies": 2, "parameters": 24}
    assert rows["own"] == {"part_kind": "Parameter", "copies": 1, "parameters": 5}
    assert "act" not in rows  # nothing to learn in it


def test_the_figure_names_every_part_and_count(tmp_path):
    held = architecture.modules(small())
    drawn = architecture.figure(held)
    words = "\n".join(text.get_text() for text in drawn.axes[0].texts)
    for part in held.itertuples():
        assert part.part in words and f"{part.parameters:,}" in words
    assert "35 parameters" in words and "2 x Linear" in words
    assert words.index("backbone") < words.index("vocoder")  # the order of the data
    assert len(look.keep(drawn, "architecture", tmp_path).data) > 3000
