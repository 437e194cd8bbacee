"""The measured training step is the trainer's own, and what is told of it follows from the tables."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from pvlib.config import MINI
from pvlib.training import backbone as trainer
from pvlib.training import speed

SMALL = replace(MINI, backbone=replace(MINI.backbone, dim=64, depth=2, heads=1))


def test_made_up_batches_have_the_size_and_the_form_of_true_ones():
    model, _ = speed.stepper(speed.VARIANTS[0], SMALL)
    for seed in range(4):
        mel, frames, text, index = speed.batch(model, 2000, seed)
        assert mel.shape[:2] == (len(frames), int(frames.max())) and len(text) == len(mel)
        assert 1000 < mel.shape[0] * mel.shape[1] <= 2000
        assert index.shape == (len(mel), int(model.cfm.tokens(frames).max()))
        assert index.max() < text.shape[1] and (index >= -1).all()
    padded = replace(SMALL, backbone=replace(SMALL.backbone, text_conditioning="padded"))
    assert speed.batch(speed.stepper(speed.VARIANTS[0], padded)[0], 2000, 0)[3] is None


@pytest.mark.parametrize("variant", speed.VARIANTS, ids=lambda variant: variant.name)
def test_means_of_speed_do_not_change_what_is_learnt_from(variant):
    losses = []
    for one in (speed.VARIANTS[0], variant):
        model, learn = speed.stepper(one, SMALL)
        given = speed.batch(model, 2000, 1)
        torch.manual_seed(5)
        trainer.random.seed(5)
        losses.append({key: float(value) for key, value in learn(given).items()})
    assert losses[1]["loss"] == pytest.approx(losses[0]["loss"], rel=0.02)
    assert losses[1]["frames"] == losses[0]["frames"]
    assert (losses[1]["hearing"] == 0) is not variant.hearing


def test_each_variant_is_timed_and_the_shares_are_shares():
    compared = speed.compare(SMALL, steps=1, frames=2000, progress=False)
    assert list(compared.index) == [variant.name for variant in speed.VARIANTS]
    assert (compared[["step", "frames_per_second"]] > 0).all(axis=None) and compared["cost"].iloc[0] == 1
    parts, kernels = speed.profiled(SMALL, frames=2000, steps=1)
    assert list(parts.index) == list(speed.PARTS) and (parts["share"] > 0).all()
    assert parts["share"].sum() == pytest.approx(1) == kernels["share"].sum()
    assert kernels.loc["matrix products", "share"] > 0.05 and kernels["share"].is_monotonic_decreasing
    top, precision = speed.ceiling(SMALL, frames=2000, repeats=1)
    assert top > compared["frames_per_second"].iloc[0]
    assert precision in (torch.bfloat16, torch.float32)


def test_what_was_measured_is_kept_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(speed.paths, "WORKING_ROWS", tmp_path)
    table = pd.DataFrame({"step": [0.5], "frames_per_second": [9_000.0], "cost": [1.0]}, index=[speed.USUAL])
    shares = pd.DataFrame({"share": [0.6, 0.4]}, index=["backward", "flow"])
    asked = []
    monkeypatch.setattr(speed, "compare", lambda *_, **options: asked.append(options) or table)
    monkeypatch.setattr(speed, "profiled", lambda *_: (shares, shares))
    monkeypatch.setattr(speed, "ceiling", lambda *_: (30_000.0, torch.bfloat16))
    first = speed.measured(SMALL, steps=2)
    again = speed.measured(SMALL, steps=2)
    assert len(asked) == 1 and asked[0]["steps"] == 2
    pd.testing.assert_frame_equal(again.compared, table)
    assert speed.told(again) == speed.told(first) and "9,000" in speed.told(again)
    (tmp_path / "mini/training-speed.json").write_text("damaged")
    speed.measured(SMALL, steps=2)
    speed.measured(MINI, steps=2)  # another network
    assert len(asked) == 3


def test_the_target_is_told_as_met_or_missed():
    parts = pd.DataFrame({"share": [0.6, 0.4]}, index=["backward", "flow"])
    for rate, verdict in ((12_000.0, "**met**"), (9_000.0, "**missed**")):
        table = pd.DataFrame(
            {"step": [0.5, 1.0], "frames_per_second": [rate, 1.0], "cost": [1.0, 2.0]},
            index=[speed.USUAL, "all in fp32"],
        )
        told = speed.told(speed.Measured(2, table, parts, parts, 30_000.0, "bfloat16"))
        assert verdict in told and "all in fp32 2.00 times" in told and "`backward` takes 60%" in told
