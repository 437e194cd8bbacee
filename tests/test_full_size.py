"""The full-size speed measurement, at a size that a test can afford."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from pvlib import config
from pvlib.study import full_size, look, plots

SMALL = replace(
    config.PAPER,
    backbone=replace(
        config.PAPER.backbone, dim=32, depth=1, heads=1, dim_head=32, text_dim=16, conv_layers=1
    ),
    vocoder=config.Vocoder(dim=16, intermediate_dim=32, num_layers=1),
)


@pytest.fixture(scope="module")
def measured():
    return full_size.measure(
        nfe=(2,), batches=(1, 3), dtypes=("fp32", "bf16"), seconds=0.5, profile=SMALL, progress=False
    )


def test_both_sides_make_the_length_asked_for(monkeypatch):
    lengths = []
    decode = full_size.vocoder.Vocoder.decode
    monkeypatch.setattr(
        full_size.vocoder.Vocoder,
        "decode",
        lambda self, mel: lengths.append(mel.shape[-1]) or decode(self, mel),
    )
    full_size.measure(nfe=(1,), batches=(2,), dtypes=("fp32",), seconds=0.5, profile=SMALL, progress=False)
    warm_up, official, ours = lengths[:1], lengths[1:3], lengths[4:]
    assert len(ours) == 1 and len(official) == 2
    assert all(abs(n - 0.5 * 24_000 / 256) <= 2 for n in (*warm_up, *official, *ours))


@pytest.mark.parametrize("capable", [True, False])
def test_bf16_is_measured_where_the_hardware_multiplies_in_it(monkeypatch, capable):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: capable)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    expected = ("fp32", "bf16") if capable else ("fp32",)
    assert full_size.usual_dtypes("cpu") == expected
    found = full_size.measure(
        nfe=(1,), batches=(1,), seconds=0.2, profile=SMALL, progress=False, device="cpu"
    )
    assert tuple(dict.fromkeys(found.dtype)) == expected


def test_every_setting_once_and_consistent(measured):
    assert len(measured) == 8 and not measured.duplicated(["side", "dtype", "nfe", "batch"]).any()
    assert (measured.latency > 0).all() and (measured.peak_gb > 0.1).all()
    torch.testing.assert_close(
        torch.tensor(measured.rtf.to_numpy()),
        torch.tensor((measured.latency / (measured.batch * 0.5)).to_numpy()),
    )


def test_ratios_are_of_utterances_per_minute(measured):
    table = full_size.ratios(measured).set_index("batch")
    of = measured.set_index(["side", "dtype", "batch"]).utterances_per_minute
    assert table.loc[3, "same dtype, bf16"] == pytest.approx(
        of["companion", "bf16", 3] / of["official", "bf16", 3]
    )
    best = max(of["companion", d, 3] for d in ("fp32", "bf16")) / max(
        of["official", d, b] for d in ("fp32", "bf16") for b in (1, 3)
    )
    assert table.loc[3, "each side's best"] == pytest.approx(best)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(full_size, "FOLDER", tmp_path)
    return tmp_path


def test_the_record_names_its_machine(measured, folder):
    text = full_size.record(measured, "here").read_text()
    assert '"cpu"' in text and '"torch"' in text and '"ratios"' in text


def test_an_ended_measurement_goes_on_where_it_was(measured, folder, monkeypatch):
    """Two of four settings are recorded, and an error ends the third: the next call measures the last two alone."""
    options = {"nfe": (1,), "batches": (1,), "dtypes": ("fp32", "bf16"), "seconds": 0.5, "profile": SMALL}
    keep = partial(full_size.record, name="here")
    timed, count = full_size._timed, iter(range(3))
    monkeypatch.setattr(full_size, "_timed", lambda *a: timed(*a) if next(count) < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        full_size.measure(**options, progress=False, keep=keep)
    monkeypatch.setattr(full_size, "_timed", timed)
    known = full_size.recorded("here", 0.5)
    assert list(zip(known.dtype, known.side, strict=True)) == [("fp32", side) for side in full_size.SIDES]
    asked = []
    monkeypatch.setattr(full_size, "_timed", lambda *a: asked.append(1) or timed(*a))
    found = full_size.measure(**options, progress=False, known=known, keep=keep)
    assert len(asked) == 2 and len(found) == 4
    assert found.latency[:2].tolist() == known.latency.tolist()
    assert full_size.recorded("here", 0.5).latency.tolist() == pytest.approx(found.latency.tolist())
    assert full_size.recorded("elsewhere") is None
    line = full_size.overview(full_size.records()).set_index("dtype").loc["bf16"]
    official, ours = found.latency[2:].tolist()
    assert line["rtf, companion"] == pytest.approx(ours / 0.5)
    assert line["times as many"] == pytest.approx(official / ours)


def test_the_official_function_has_no_times_where_bf16_is_too_coarse(folder):
    """Sway sampling of 16 steps: 1 - cos(pi / 2 / 32) is 0.0012, and next to 1 bf16 knows steps of 0.004."""
    first = torch.tensor(1 / 32, dtype=torch.bfloat16)
    assert float(first - (torch.cos(torch.pi / 2 * first) - 1 + first)) == 0
    found = full_size.measure(
        nfe=(16,), batches=(1,), dtypes=("fp32", "bf16"), seconds=0.2, profile=SMALL, progress=False
    ).set_index(["dtype", "side"])
    lost = found.loc[("bf16", "official")]
    assert np.isnan(lost.latency) and "strictly increasing" in lost.refused
    others = found.drop(index=("bf16", "official"))
    assert (others.latency > 0).all() and (others.refused == "").all()
    full_size.record(found.reset_index(), "here")
    assert full_size.recorded("here", 0.2).refused.str.len().gt(0).sum() == 1  # and is not asked again
    (words,) = full_size.told(full_size.records())
    assert "In bf16 the official function makes nothing at NFE 16: its times" in words
    line = full_size.overview(full_size.records()).set_index("dtype").loc["bf16"]
    assert np.isnan(line["rtf, official"]) and line["rtf, companion"] > 0


def test_what_was_measured_otherwise_is_not_mixed(measured, folder, monkeypatch):
    full_size.record(measured, "here")
    with pytest.raises(full_size.SpeedError, match="another machine.*must not be mixed.*another name"):
        full_size.recorded("here", 3.0)
    monkeypatch.setattr(full_size, "machine", lambda: {"cpu": "another"})
    with pytest.raises(full_size.SpeedError, match="another machine"):
        full_size.recorded("here", 0.5)
    (folder / "here.json").write_text("{")
    with pytest.raises(full_size.SpeedError, match="here.json cannot be read.*delete it"):
        full_size.records()
    with pytest.raises(full_size.SpeedError, match=r"'../x' is no name"):
        full_size.path_of("../x")


def test_it_is_told_in_words_and_drawn(measured, folder):
    assert "pvlib speed --record NAME" in full_size.told(full_size.records())[0]
    plots.full_size(full_size.overview(full_size.records()))  # and says so in the picture
    full_size.record(measured, "here")
    found = full_size.records()
    best = full_size.ratios(measured).set_index("batch")[full_size.BEST]
    (words,) = full_size.told(found)
    assert f"{best[1]:.1f} at NFE 2, batch 1, {best[3]:.1f} at NFE 2, batch 3" in words
    figure = plots.full_size(full_size.overview(found))
    assert len(look.keep(figure, "speeds", folder).data) > 3000


def test_a_precision_has_one_colour_on_every_machine_and_all_are_in_the_legend():
    columns = {"nfe": 7, "batch": 1, "rtf, official": 2.0, "rtf, companion": 1.0}
    table = pd.DataFrame(
        [
            {"machine": "a", "dtype": "bf16", **columns},
            {"machine": "a", "dtype": "fp16", **columns},
            {"machine": "b", "dtype": "bf16", **columns},
            {"machine": "b", "dtype": "fp32", **columns},
        ]
    )
    figure = plots.full_size(table)
    colours = {}
    for ax in figure.axes:
        for line in ax.lines:
            colours.setdefault(line.get_label().split(", ")[1], set()).add(line.get_color())
    assert all(len(own) == 1 for own in colours.values()) and len(set.union(*colours.values())) == 3
    assert not any(ax.texts for ax in figure.axes)
    more = pd.concat([table, table.iloc[:1].assign(batch=16)])  # which machine b has not
    (empty,) = (ax for ax in plots.full_size(more).axes if ax.texts)
    assert empty.texts[0].get_text() == "not measured" and not empty.lines
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == [f"{side}, {dtype}" for side in full_size.SIDES for dtype in ("fp32", "bf16", "fp16")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"seconds": 0}, "0 seconds"), ({"dtypes": ("int8",)}, "int8"), ({"batches": (0,)}, "start at 1")],
)
def test_refuses(wrong, message):
    with pytest.raises(full_size.SpeedError, match=message):
        full_size.measure(profile=SMALL, **wrong)
