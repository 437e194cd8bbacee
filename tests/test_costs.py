"""What systems cost: parameters are those of the weight files, and only systems that were timed have a place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pvlib import config, hub
from pvlib.study import costs, guidance, plots, rtf


def test_parameters_are_those_of_the_networks_that_a_system_loads():
    backbone = sum(p.numel() for p in hub.load_backbone(config.MINI, torch.device("cpu")).parameters())
    found = costs.parameters("f5-official", "mini")
    others = costs.parameters("f5-as-published", "mini") - backbone
    assert (
        0.98
        < found / (backbone + others + costs._numbers(hub.weights_path("recognizer", config.MINI)))
        < 1.02
    )
    assert costs.parameters("ground-truth", "mini") == 0
    files = [hub.weights_path(name, config.MINI) for name in ("sv2tts-synthesizer", "vocoder")]
    encoder = 1_423_616  # Resemblyzer's 3 LSTMs of 256 over 40 mels, and a square layer behind them
    assert costs.parameters("sv2tts", "mini") == sum(map(costs._numbers, files)) + encoder


def test_points_have_prices_and_are_drawn():
    middle = {"secs": 0.7, "secs_low": 0.6, "secs_high": 0.8, "wer": 0.2, "wer_low": 0.1, "wer_high": 0.3}
    found = pd.DataFrame(
        [{"system": name, "n": 9, **middle} for name in ("f5-official", "personavoice", "impostor")]
    )
    speed = {"median": 0.5, "low": 0.4, "high": 0.9}
    speeds = {"f5-official": speed, "personavoice": speed | {"median": 0.25}, rtf.SLOWER: speed}
    priced = costs.points(found, speeds, "mini")
    assert list(priced["system"]) == ["f5-official", "personavoice"] and list(priced["rtf"]) == [0.5, 0.25]
    assert (priced["millions"] > 1).all() and len(plots.cost(priced).axes) == 4
    official = costs.points(found, speeds, "paper")
    assert official["millions"].isna().all() and len(plots.cost(official).axes) == 2
    failed = costs.points(found, {"f5-official": dict.fromkeys(speed)}, "mini")
    assert failed.empty


def test_a_factor_that_divides_by_little_speech_is_told():
    priced = pd.DataFrame({"system": ["f5-official", "f5-as-published"], "rtf": [0.5, 2.0]})
    rows = pd.DataFrame(
        {
            "system": ["ground-truth"] * 3 + ["f5-official"] * 3 + ["f5-as-published"] * 3,
            "generated_seconds": [3, 4, 9, 3, 4, 4.5, 0.5, 1, 9],
        }
    )
    words = costs.told(priced, rows)
    assert "`f5-as-published` says lasts under 1.00 s, of the recordings 4.00 s" in words
    assert "factor of 2.00" in words and "about 0.50." in words and "f5-official" not in words
    assert "at least 50% of" in costs.told(priced.head(1), rows)


def test_guidance_has_intervals_and_says_what_is_shown():
    rng = np.random.default_rng(0)
    lines = []
    for k in range(12):
        wer = rng.uniform(0.1, 0.3)
        same = {"utterance": f"u{k}", "speaker": f"s{k % 6}", "strength": 1.0, "change": 0.1, "entropy": 2.0}
        lines.append(same | {"kind": "none", "scale": 0.0, "wer_capped": wer})
        for scale in (1.0, 100.0):
            lines.append(same | {"kind": "ceag", "scale": scale, "wer_capped": wer + 0.1, "entropy": 1.9})
            lines.append(same | {"kind": "random", "scale": scale, "wer_capped": wer + rng.normal(0, 0.05)})
    table = guidance.compare(pd.DataFrame(lines))
    assert table["wer_ceag_low"].to_numpy() == pytest.approx(table["wer_ceag"])
    assert (table["wer_random_low"] < table["wer_random"]).all()
    told = guidance.summary(table)[-1]
    assert "+0.100 (+0.100 to +0.100: shown) with CEAG" in told and ": not shown) with the random" in told
    assert plots.strength(table).axes
