"""Training logs are told as they are, and lost words are counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from pvlib import hub, paths
from pvlib.config import MINI
from pvlib.study import learning, plots
from pvlib.study.look import keep


def rows(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"system": "personavoice", "utterance": str(k), "speaker": "s", "text": text, "hypothesis": heard}
            for k, (text, heard) in enumerate(pairs)
        ]
    )


def test_lost_words_of_a_worked_example():
    lost = learning.lost_words(rows(("the red fox ran", "the fox ran away"), ("stop", "stop"), ("go on", "")))
    assert lost[["utterance", "word", "place", "lost"]].values.tolist() == [
        ["0", "the", 0.0, 0],
        ["0", "red", pytest.approx(1 / 3), 1],
        ["0", "fox", pytest.approx(2 / 3), 0],
        ["0", "ran", 1.0, 0],  # "away" is an insertion and costs no word
        ["1", "stop", 0.5, 0],
        ["2", "go", 0.0, 1],
        ["2", "on", 1.0, 1],
    ]
    assert learning.places(lost, "personavoice") == (
        "`personavoice` loses 50% of the first words, 33% of the inner words, 50% of the last words."
    )


def test_worst_words_need_to_occur_often():
    lost = pd.DataFrame({"word": ["rare", "a", "a", "b", "b"], "lost": [1, 1, 0, 0, 0]})
    table = learning.worst_words(lost, least=2)
    assert table.values.tolist() == [["a", 0.5, 2], ["b", 0.0, 2]]


def test_a_falling_loss_is_told_from_a_flat_one():
    falling = pd.DataFrame({"loss": [10 / (k + 1) for k in range(40)]})
    assert "still learning" in learning.trend("m", falling) and "% lower than" in learning.trend("m", falling)
    assert "would bring little" in learning.trend("m", pd.DataFrame({"mel": [0.2] * 40}))
    assert "too few" in learning.trend("m", falling.head(4))
    with pytest.raises(ValueError, match="columns rate has none of mel"):
        learning.trend("m", pd.DataFrame({"rate": [1.0] * 40}))


def test_every_embedded_model_has_its_log(tmp_path):
    names = learning.trained(MINI)
    assert set(learning.MODELS) <= set(names)
    overview = learning.overview(MINI).set_index("model")
    assert set(overview.index) == set(names) and (overview["calls"] >= 1).all()
    assert overview.loc["sv2tts-vocoder", ["calls", "machines"]].tolist() == [
        3,
        "2 cores, NVIDIA H100 80GB HBM3",
    ]
    logs = {model: learning.log(MINI, model) for model in names}
    found = {model: learning.log(MINI, model, "dev") for model in names}
    for model, log in logs.items():
        assert log["step"].iloc[-1] <= hub.read_card(model, MINI)["steps"] < log["step"].iloc[-1] + 100
    for table in found.values():
        assert set(table) - {"step", "seconds", "minutes"} <= set(learning.DEV)
    anew = {name: learning.restarts(MINI, name) for name in names}
    for name, minutes in anew.items():
        assert sorted(minutes) == minutes and all(0 <= m <= logs[name]["minutes"].max() for m in minutes)
        assert len(minutes) == hub.read_card(name, MINI)["command"].count("from step")
    assert anew["backbone"] and not anew["speaker_encoder"]
    keep(plots.learning(logs, found, anew), "curves", tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_missing_log_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    assert learning.log(MINI, "vocoder", "dev").empty
    with pytest.raises(hub.WeightsError, match="vocoder.log.csv is missing; restore"):
        learning.log(MINI, "vocoder")
