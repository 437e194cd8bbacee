"""The full-size speed measurement, at a size that a test can afford."""

from dataclasses import replace

import pytest
import torch

from pvlib import config
from pvlib.study import full_size

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
        of["official", d, 3] for d in ("fp32", "bf16")
    )
    assert table.loc[3, "each side's best"] == pytest.approx(best)


def test_the_record_names_its_machine(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(full_size, "FOLDER", tmp_path)
    text = full_size.record(measured, "here").read_text()
    assert '"cpu"' in text and '"torch"' in text and '"ratios"' in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"seconds": 0}, "0 seconds"), ({"dtypes": ("int8",)}, "int8"), ({"batches": (0,)}, "start at 1")],
)
def test_refuses(wrong, message):
    with pytest.raises(full_size.SpeedError, match=message):
        full_size.measure(profile=SMALL, **wrong)
