"""Batches beside the official inference function: the same is said, and what is told follows from the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pvlib import config, paths
from pvlib.metrics.judges import Verdict
from pvlib.study import batches, look
from pvlib.study import manifest as manifests
from pvlib.study.ranks import RanksError

QUICK = replace(config.MINI, inference=replace(config.MINI.inference, steps=3))


class Ears:
    """Judges that keep what they are given."""

    def __init__(self):
        self.texts, self.waves = [], []

    def fingerprint(self):
        return {"version": 1}

    def judge(self, exhibits):
        self.texts += [exhibit.text for exhibit in exhibits]
        self.waves += [exhibit.wave for exhibit in exhibits]
        level = [float(np.abs(exhibit.wave).mean()) for exhibit in exhibits]
        return [Verdict("", 0.5, 0.5, x, x, x, x, 3.0) for x in level]


@pytest.fixture(scope="module")
def both():
    """Four texts by the embedded backbone in three steps, by each side in each precision."""
    ears = Ears()
    two = {"precisions": ("fp32", "bf16")}  # on a machine without bf16 as well
    found = batches.measure(QUICK, utterances=4, batch=3, jobs=1, judges=ears, progress=False, **two)
    return found, ears


def test_a_batch_says_what_the_official_function_says(both):
    found, ears = both
    assert found[["dtype", "side"]].to_numpy().tolist() == [
        ["fp32", "official"],
        ["fp32", "companion"],
        ["bf16", "official"],
        ["bf16", "companion"],
    ]
    assert len(set(ears.texts)) == 4 and ears.texts == 4 * ears.texts[:4]
    official, ours, official_bf16, ours_bf16 = (ears.waves[k : k + 4] for k in (0, 4, 8, 12))
    for one, other, low, low_other in zip(official, ours, official_bf16, ours_bf16, strict=True):
        assert len(one) == len(other) == len(low) == len(low_other)
        assert np.sqrt(np.mean(np.square(one))) > 0.01
        np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(one).max())
        apart = np.sqrt(np.mean(np.square(low_other - other)) / np.mean(np.square(other)))
        assert 0 < apart < 0.5  # another precision, the same utterance
        assert not np.array_equal(one, low)


def _no_memory(*_):
    raise MemoryError("in a process of its own")


def test_a_process_that_cannot_begin_is_one_error_with_a_way_on(monkeypatch):
    monkeypatch.setattr(batches, "_begin", _no_memory)
    nothing = (QUICK, torch.device("cpu"), [], ())
    one_error = pytest.raises(RanksError, match=r"one of the 2 processes .* run again with --jobs 1")
    with one_error, batches._processes(2, *nothing) as pool:
        pytest.fail(f"{pool} began")


def test_lines_count_utterances_and_time(both):
    found, _ = both
    assert (found["utterances"] == 4).all() and found["batch"].tolist() == [1, 3, 1, 3]
    np.testing.assert_allclose(found["utterances_per_minute"] * found["seconds"], 240)
    assert found["wer_capped"].tolist() == [0.5] * 4 and (found["secs_ge2e_clip"] > 0).all()


def test_processes_that_share_the_batches_say_the_same_in_the_same_order(both):
    one, ears = both[0].set_index(["dtype", "side"]), Ears()
    quick = {"utterances": 4, "batch": 1, "precisions": ("fp32",)}
    found = batches.measure(QUICK, **quick, jobs=2, judges=ears, progress=False)
    assert found[["side", "processes"]].to_numpy().tolist() == [
        ["official", 1],
        ["companion", 2],
        [batches.SHARED, 2],
    ]
    for k, wave in enumerate(both[1].waves[:4]):
        for other in ears.waves[k::4]:
            np.testing.assert_allclose(wave, other, atol=2e-3 * np.abs(wave).max())
    assert one.loc[("fp32", "official"), "products"] == found["products"].iloc[0]


def test_quiet_clips_are_raised_and_lowered_again_on_both_sides():
    manifest = manifests.read(QUICK.manifest)
    request = manifest.requests(manifest.sample(QUICK.samples, QUICK.seed).head(1))[0]
    quiet = replace(request, clip=(0.01 * request.clip / np.abs(request.clip).max()).astype(np.float32))
    pair = batches.Pair("f5-official", QUICK, torch.device("cpu"))
    asked = pair.asked([quiet])
    (official,), (ours,) = (speak(asked, torch.float32) for speak in (pair.official, pair.companion))
    assert np.abs(official).max() < 0.1
    np.testing.assert_allclose(official, ours, atol=2e-3 * np.abs(official).max())


def test_products_are_counted_and_every_step_takes_the_same(both):
    """Of each text: the backbone's in every step, with and without text and clip, and the vocoder's once."""
    found, _ = both
    assert found["products"].nunique() == 1 and (found["best_rate"] > 0).all()
    manifest = manifests.read(QUICK.manifest)
    request = manifest.requests(manifest.sample(QUICK.samples, QUICK.seed).head(1))[0]
    pair = batches.Pair("f5-official", QUICK, torch.device("cpu"))
    (asked,) = pair.asked([request])
    counted = batches.products(pair, [asked])
    with FlopCounterMode(display=False) as counter:
        pair.companion([asked], torch.float32)
    assert counted == counter.get_total_flops() / 2
    blocks = pair._model("backbone").transformer.transformer_blocks
    weights = sum(p.numel() for p in blocks.parameters() if p.ndim == 2)
    tokens = pair._model("backbone").cfm.tokens(asked.frames)
    least = 2 * QUICK.inference.steps * tokens * weights  # of the linear layers of the blocks alone
    assert 0.5 * least < counted < 3 * least


def test_the_rate_is_that_of_products(monkeypatch):
    """A machine that takes a second for every product multiplies matrices of side n at n^3 a second."""
    seconds = iter(range(100))
    monkeypatch.setattr(batches.time, "perf_counter", lambda: float(next(seconds)))
    assert batches.best_rate(torch.bfloat16, torch.device("cpu"), (2, 3)) == 27


def test_a_slow_machine_is_not_asked_for_large_products():
    """A side of 2^20 would need terabytes, and hours anywhere."""
    assert batches.best_rate(torch.float32, torch.device("cpu"), (8, 2**20)) > 0


def table(**changed):
    lines = pd.DataFrame(
        {
            "dtype": ["fp32", "fp32", "bf16", "bf16"],
            "side": ["official", "companion"] * 2,
            "batch": [1, 16] * 2,
            "processes": 1,
            "utterances": 32,
            "seconds": [192.0, 96.0, 160.0, 64.0],
            "utterances_per_minute": [10.0, 21.0, 12.0, 36.0],
            "wer_capped": [0.1, 0.1, 0.1, 0.108],
            "secs_ecapa_clip": 0.7,
            "secs_ge2e_clip": 0.8,
            "products": 1600.0,
            "best_rate": [50.0, 50.0, 100.0, 100.0],
        }
    )
    return lines.assign(**changed)


def test_ratios_and_differences_in_closed_form():
    assert batches.ratios(table()) == pytest.approx(
        {"same dtype, fp32": 2.1, "same dtype, bf16": 3.0, batches.BEST: 3.0}
    )
    assert batches.differences(table()) == pytest.approx(
        {"wer_capped": 0.008, "secs_ecapa_clip": 0, "secs_ge2e_clip": 0}
    )


def test_ceilings_and_shares_in_closed_form():
    """Nothing but products takes 1600 / 50 = 32 s in fp32 and 16 s in bf16."""
    assert batches.ceilings(table()) == pytest.approx(
        {"same dtype, fp32": 192 / 32, "same dtype, bf16": 160 / 16, batches.BEST: 160 / 16}
    )
    assert batches.shares(table()) == pytest.approx({"fp32": 32 / 96, "bf16": 16 / 64})
    told = batches.told(table())
    assert "same dtype, fp32, 6.0, same dtype, bf16, 10.0" in told and "33% (fp32), 25% (bf16)" in told
    assert "1600 thousand million" in told and "50 (fp32), 100 (bf16)" in told


def test_words_follow_the_numbers():
    words = batches.told(table())
    assert (
        "same dtype, fp32, 2.10 (target 2: met)" in words
        and f"{batches.BEST}, 3.00 (target 6: missed)" in words
    )
    assert "(target 0.01: met)" in words
    slow = batches.told(
        table(utterances_per_minute=[10.0, 19.0, 12.0, 84.0], wer_capped=[0.1, 0.2, 0.1, 0.1])
    )
    assert "fp32, 1.90 (target 2: missed)" in slow and f"{batches.BEST}, 7.00 (target 6: met)" in slow
    assert "`wer_capped` 0.1000" in slow and "(target 0.01: missed)" in slow
    assert "complete study" in batches.told(None)


def test_what_processes_alone_give_is_told():
    assert batches.by_processes(table()) == ""
    shared = table().query("side == 'official'").assign(side=batches.SHARED, processes=2)
    more = pd.concat([table(), shared.assign(utterances_per_minute=[15.0, 18.0])], ignore_index=True)
    more.loc[more["side"] == "companion", "processes"] = 2
    words = batches.told(more)
    assert (
        "in batches of 16 in each of 2 processes" in words
        and "2 processes that share the cores alone" in words
    )
    assert "text by text: 1.50 (bf16), 1.50 (fp32)" in words
    assert "Like for like, in as many processes, ours makes so many times as many: 2.00 (bf16), 1.40" in words
    assert "On 32 texts, one at a time in each of 2 processes, our" in batches.told(more.assign(batch=1))
    assert batches.ratios(more) == batches.ratios(table()) and batches.ceilings(more) == batches.ceilings(
        table()
    )


def test_only_a_complete_study_measures_and_only_once(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "WORKING_ROWS", tmp_path)
    calls = []
    monkeypatch.setattr(batches, "measure", lambda *_, **__: calls.append(1) or table())
    assert batches.measured(config.MINI, config.MINI.samples - 1) is None and not calls
    first = batches.measured(config.MINI, config.MINI.samples)
    again = batches.measured(config.MINI, config.MINI.samples)
    pd.testing.assert_frame_equal(first, again)
    assert len(calls) == 1 and look.table(first) is not None
    monkeypatch.setattr(batches, "BATCH", {"cpu": 5, "cuda": 5})
    batches.measured(config.MINI, config.MINI.samples)
    assert len(calls) == 2
