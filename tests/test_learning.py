"""Training logs are told as they are, and lost words are counted by hand."""

from __future__ import annotations

import math

import nbformat
import numpy as np
import pandas as pd
import pytest

from pvlib import hub, paths
from pvlib.config import MINI
from pvlib.study import learning, look, plots


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


def test_shares_of_lost_words_have_a_place_and_an_interval():
    """Three speakers of ten words: the first loses its first word, the second its last, the third none."""
    lost = pd.DataFrame(
        [
            ("x", speaker, speaker, "w", k / 9, int((speaker, k) in (("a", 0), ("b", 9))))
            for speaker in "abc"
            for k in range(10)
        ],
        columns=["system", "utterance", "speaker", "word", "place", "lost"],
    )
    found = learning.shares_by_place(lost).set_index("place")
    assert list(found.index) == [-1, 0, 1, 2, 3, 4, 5]
    assert found["share"].tolist() == pytest.approx([1 / 3, 1 / 6, 0, 0, 0, 1 / 6, 1 / 3])
    first = found.loc[-1]
    assert 0 <= first["low"] <= first["share"] <= first["high"] <= 1 and first["high"] > first["low"]
    assert (found.loc[1, "low"], found.loc[1, "high"]) == (0, 0)


def test_worst_words_need_to_occur_often():
    lost = pd.DataFrame({"word": ["rare", "a", "a", "b", "b"], "lost": [1, 1, 0, 0, 0]})
    table = learning.worst_words(lost, least=2)
    assert table.values.tolist() == [["a", 0.5, 2], ["b", 0.0, 2]]


def test_a_falling_loss_is_told_from_a_flat_one():
    falling = pd.DataFrame({"loss": [10 / (k + 1) for k in range(40)]})
    assert "still falling" in learning.trend("m", falling) and "% lower than" in learning.trend("m", falling)
    assert "would bring little" in learning.trend("m", pd.DataFrame({"mel": [0.2] * 40}))
    assert "too few" in learning.trend("m", falling.head(4))
    with pytest.raises(ValueError, match="columns rate has none of mel"):
        learning.trend("m", pd.DataFrame({"rate": [1.0] * 40}))


def test_a_part_that_learnt_nothing_is_told_from_one_that_did():
    log = pd.DataFrame({"coarse": [5.0] * 6 + [3.0] * 2, "fine": [5.0] * 6 + [math.log(256)] * 2})
    told = learning.parts(log)
    assert "pays ln 256 = 5.545 nats" in told and "3.000 for the coarse part (45.9% below that)" in told
    assert "5.545 for the fine part (0.0% below that): of the fine part it **learnt almost nothing**" in told
    both = learning.parts(log.assign(coarse=math.log(256)))
    assert "of the coarse and the fine part it **learnt almost nothing**" in both
    assert learning.parts(log.assign(fine=5.4)).endswith(": of both parts it learnt something.")
    with pytest.raises(KeyError):
        learning.parts(log[["coarse"]])


def test_a_loss_is_named_with_its_unit_and_restarts_are_marked():
    log = pd.DataFrame({"coarse": np.linspace(4, 3, 40), "minutes": range(40)})
    assert "`sv2tts-vocoder`: the coarse-part loss of its last quarter" in learning.trend(
        "sv2tts-vocoder", log
    )
    found = pd.DataFrame({"dev_coarse_nats": [3.0], "dev_fine_nats": 5.5, "zeros": 0.5, "minutes": 39.0})
    upper, lower = plots.learning(
        {"sv2tts-vocoder": log}, {"sv2tts-vocoder": found}, {"sv2tts-vocoder": [4.0, 9.0]}
    ).axes
    assert upper.get_ylabel() == "coarse-part loss (nat)"
    assert lower.get_ylabel() == "on the dev split:\nunits: below"
    for ax in (upper, lower):
        assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [4.0, 9.0]


def test_the_notebook_marks_the_restarts_of_every_model_that_it_draws(monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "learning", lambda logs, found, restarts: drawn.update(restarts))
    monkeypatch.setattr(look, "keep", lambda *a: None)
    notebook = nbformat.read(paths.NOTEBOOKS / "A1_how_the_models_learnt.ipynb", as_version=4)
    known = {
        "learning": learning,
        "plots": plots,
        "look": look,
        "hub": hub,
        "settings": MINI,
        "figures_dir": "",
    }
    for cell in notebook.cells:
        if "plots.learning(" in cell.source:
            exec(cell.source, known)
    assert set(drawn) == {*learning.MODELS, *learning.trained(MINI, hub.SV2TTS_NAMES)}
    assert drawn["sv2tts-vocoder"] == learning.restarts(MINI, "sv2tts-vocoder") != []


def test_every_embedded_model_has_its_log(tmp_path):
    names = learning.trained(MINI)
    assert set(names) <= set(learning.LOSS_LABELS) and all(
        label.endswith(")") for label in learning.LOSS_LABELS.values()
    )
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
    look.keep(plots.learning(logs, found, anew), "curves", tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_missing_log_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    assert learning.log(MINI, "vocoder", "dev").empty
    with pytest.raises(hub.WeightsError, match="vocoder.log.csv is missing; restore"):
        learning.log(MINI, "vocoder")
