"""First words apart from the rest, and the control whose text is laid out as the official function must."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from test_backbone import item, tiny

from pvlib import config
from pvlib.backbone import Backbone
from pvlib.study import ablations, first_words
from pvlib.systems.spread import spread


def rows_of(*pairs: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(pairs, columns=["text", "hypothesis"])
    return table.assign(system="hum", speaker=[f"s{k % 3}" for k in range(len(table))], wer_capped=0.5)


@pytest.mark.parametrize(
    ("text", "hypothesis", "lost", "rest"),
    [
        ("the red fox ran", "the red fox ran", 0, 0),
        ("the red fox ran", "red fox ran", 1, 0),
        ("the red fox ran", "a red fox ran", 1, 0),
        ("the red fox ran", "so the red fox ran", 0, 0),  # what is said before it is not the rest's
        ("the red fox ran", "the red ox ran", 0, 1 / 3),
        ("the red fox ran", "the red fox ran off", 0, 1 / 3),
        ("the red fox ran", "", 1, 1),
        ("red fox", "red and so on and on", 0, 1),  # capped
        ("go", "no", 1, np.nan),
    ],
)
def test_the_first_word_is_counted_apart(text, hypothesis, lost, rest):
    found = first_words.split(rows_of((text, hypothesis))).iloc[0]
    assert found["first_lost"] == lost and found["wer_rest"] == pytest.approx(rest, nan_ok=True)


def test_the_table_has_a_line_for_each_system():
    rows = rows_of(("the red fox", "red fox"), ("the red fox", "the red fox"), ("go", "go"))
    line = first_words.table(first_words.split(rows)).iloc[0]
    assert (line["system"], line["n"]) == ("hum", 3)
    assert line["first word wrong"].startswith("0.333") and line["WER without the first word"].startswith(
        "0.000"
    )


def test_spread_lays_the_text_over_all_frames_and_leaves_the_backbone_alone():
    model, row = tiny("durations", 2), item(pinned=True)
    twin = spread(model)
    loose = Backbone.alignment_of(model, [item(pinned=False)])
    assert torch.equal(twin.alignment_of([row]), loose)
    assert not torch.equal(model.alignment_of([row]), loose)
    made, usual = (network.sample([row], steps=2)[0] for network in (twin, model))
    assert torch.equal(made, model.sample([item(pinned=False)], steps=2)[0]) and not torch.equal(made, usual)


def test_the_control_is_a_variant_only_where_letters_are_laid_out():
    assert "personavoice-spread" in ablations.system_names("mini")
    assert "personavoice-spread" not in ablations.system_names(config.PAPER)
