"""The study of entropy guidance: tables and sentences on made-up rows, and the whole way on a tiny voice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from babble import babble
from test_voice import TINY, Encoder, Recogniser

from pvlib import backbone, laag, vocoder
from pvlib.study import guidance, pictures, plots
from pvlib.systems.base import Request
from pvlib.voice import PersonaVoice

TEXTS = ("the red fox", "the red fox saw a dog on the hill", "good day to you")


@pytest.fixture(scope="module")
def voice() -> PersonaVoice:
    torch.manual_seed(0)
    network, decoder = backbone.build(TINY.backbone), vocoder.build(TINY.vocoder).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    profile = replace(TINY, inference=replace(TINY.inference, steps=8))
    return PersonaVoice(profile, network.eval(), decoder, Recogniser("the red fox"), Encoder())


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return [
        Request(f"u{k}", "s", text, babble(1.0), None, seed=k, words=len(text.split()), bucket="short")
        for k, text in enumerate(TEXTS)
    ]


def made_up(
    lowered: dict[tuple[str, float], list[float]], wer: dict[tuple[str, float], float | list[float]]
) -> pd.DataFrame:
    lines, n = [], max(map(len, lowered.values()))
    for (kind, scale), drops in {(guidance.NONE, 0.0): [0.0] * n, **lowered}.items():
        for k, drop in enumerate(drops):
            line = {
                "utterance": f"u{k}",
                "speaker": f"s{k}",
                "kind": kind,
                "scale": scale,
                "strength": 0.2 * scale,
            }
            line |= {"entropy": 3.0 + k - drop, "hypothesis": "a", "change": 0.1 * scale}
            error = wer.get((kind, scale), 0.25)
            error = error[k] if isinstance(error, list) else error
            lines.append(line | dict.fromkeys(("wer", "wer_capped"), error))
    return pd.DataFrame(lines)


def test_the_table_counts_who_is_lowered_further():
    lowered = {
        ("ceag", 1.0): [0.1, 0.1, -0.1, 0.2], ("random", 1.0): [0.0, 0.2, -0.2, 0.2],
        ("ceag", 30.0): [1.0, 1.0, 1.0, 1.0], ("random", 30.0): [0.0, 0.0, 0.0, 0.0],
    }  # fmt: skip
    table = guidance.compare(made_up(lowered, {("ceag", 1.0): 0.5, ("ceag", 30.0): 0.2}))
    first, last = (line for _, line in table.iterrows())
    assert (first["further"], last["further"], first["n"]) == (0.5, 1.0, 4)  # a tie is no win
    assert first["lowered_ceag"] == pytest.approx(0.075) and last["lowered_random"] == pytest.approx(0)
    assert first["entropy"] == pytest.approx(4.5) and first["strength"] == pytest.approx(0.2)
    assert first["further_low"] < 0.5 < first["further_high"]
    entropy, words, more = guidance.summary(table)
    assert "in 50% of 4 utterances" in entropy and "the target of 90% is missed" in entropy
    assert (
        "changes by +0.250 (+0.250 to +0.250: not shown)" in words and "beyond the margin" in words
    )  # of four
    assert "reached from 30 times lambda on" in more
    assert "-0.050 (-0.050 to -0.050: not shown) with CEAG and by +0.000" in more


def test_intervals_are_of_paired_differences_and_are_drawn():
    lowered = {("ceag", 30.0): [1.0, 1.2, 0.8, 1.0, 1.1, 0.9], ("random", 30.0): [0.1, -0.1] * 3}
    rows = made_up(lowered, {("ceag", 30.0): [0.25, 0.25, 0.0, 0.25, 0.25, 0.25]})
    table = guidance.compare(rows.sample(frac=1, random_state=0))
    (line,) = (line for _, line in table.iterrows())
    assert line["lowered_ceag"] == pytest.approx(1.0)
    assert (
        0.8 < line["lowered_ceag_low"] < 1.0 < line["lowered_ceag_high"] < 1.2
    )  # utterances differ by far more
    assert line["lowered_random_low"] < 0 < line["lowered_random_high"]
    assert line["wer_ceag"] == pytest.approx(0.25 - 0.25 / 6) and line["wer_ceag_high"] == line["wer"] == 0.25
    assert "(-0.125 to +0.000: not shown)" in guidance._changed(line, "ceag")  # one utterance of six
    for ax, name in zip(plots.strength(table).axes, ("lowered", "wer", "change"), strict=True):
        drawn = [line.get_ydata()[0] for line in ax.lines if line.get_marker() in ("o", "s")]
        assert drawn == pytest.approx([table[f"{name}_{kind}"][0] for kind in ("ceag", "random")])
        ends = [bar.get_segments()[0][:, 1] for bar in ax.collections]
        assert ends[0] == pytest.approx([table[f"{name}_ceag_low"][0], table[f"{name}_ceag_high"][0]])


def test_a_random_direction_that_moves_the_mel_as_far_stands_beside():
    lowered = {
        ("ceag", 1.0): [0.1, 0.1, -0.1, 0.2], ("random", 1.0): [0.0, 0.0, -0.2, 0.0],
        ("matched", 1.0): [0.0, 0.3, 0.0, 0.1],
    }  # fmt: skip
    rows = made_up(lowered, {("matched", 1.0): 0.5})
    rows.loc[rows["kind"] == "matched", "strength"] *= 11
    rows.loc[rows["kind"] == "random", "change"] /= 11
    table = guidance.compare(rows)
    (line,) = (line for _, line in table.iterrows())
    assert (line["further"], line["further_matched"], line["times_matched"]) == (1.0, 0.5, pytest.approx(11))
    assert line["further_matched_low"] < 0.5 < line["further_matched_high"]
    assert line["lowered_matched"] == pytest.approx(0.1) and line["wer_matched"] == pytest.approx(0.5)
    entropy, words = guidance.summary(table)
    assert (
        "To move the mel about as far (0.1 nats, CEAG 0.1) the random direction has to be 11 times" in entropy
    )
    assert "and CEAG further in 50% of utterances" in entropy and "the weaker push" in words
    stronger = guidance.summary(
        guidance.compare(rows.assign(change=rows["change"].where(rows["kind"] == "random", 0)))
    )
    assert "weaker" not in stronger[1]
    assert "changes the word error rate by +0.250" in guidance._stronger_matched(line)
    figure = plots.strength(table)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "random, moves the mel as far" in told and len(told) == 4
    assert "as far" not in guidance.summary(guidance.compare(rows[rows["kind"] != "matched"]))[0]


def test_a_reached_target_and_an_unchanged_word_are_told():
    lowered = {("ceag", 1.0): [0.1] * 4, ("random", 1.0): [0.0] * 4}
    sentences = guidance.summary(guidance.compare(made_up(lowered, {})))
    assert len(sentences) == 2
    assert "in 100% of 4" in sentences[0]
    assert "of 90% is met by the estimate, which its interval does not settle" in sentences[0]
    assert sentences[1].startswith("CEAG leaves the word error rate where it is")
    assert "within the margin" in sentences[1]


def test_sentences_on_time_and_padding():
    cost = pd.DataFrame({"kind": ["none", "ceag"], "seconds": [2.0, 3.0]})
    assert "timed once, took 1.50 times as long" in guidance.cost_sentence(cost, 32)
    lines = [("ieag", "alone", "yes", 1.0, 0.0), ("ieag", "in a padded batch", "yes", 1.0, 2e-5)]
    lines += [("ieag", "in a padded batch", "no", 0.0, np.nan)]
    table = pd.DataFrame(lines, columns=["kind", "row", "masks", "finite", "apart"])
    assert "2.0e-05 nats" in guidance.padding_sentence(
        table
    ) and "NaN under IEAG" in guidance.padding_sentence(table)


def test_rows_of_a_voice(voice, requests):
    settings = [("none", 0.0), ("ceag", 1.0), ("ceag", 1000.0), ("random", 1.0), ("random", 1000.0)]
    rows = guidance.rows(voice, requests, settings)
    assert len(rows) == len(settings) * len(requests) and not rows.isna().any(axis=None)
    plain = rows[rows["kind"] == "none"]
    assert (plain["change"] == 0).all()
    assert plain["wer"].iloc[0] == 0 and (plain["wer"].iloc[1:] > 0).all()
    strengths = rows[(rows["kind"] == "ceag") & (rows["scale"] == 1000.0)]["strength"]
    assert list(strengths) == pytest.approx(
        [1000 * laag.lambda_ceag(text, voice.inference) for text in TEXTS]
    )
    table = guidance.compare(rows)
    assert list(table["scale"]) == [1.0, 1000.0]
    assert table["change_ceag"].is_monotonic_increasing and table["change_ceag"].min() > 0
    assert table["lowered_ceag"].iloc[1] > table["lowered_random"].iloc[1]


def test_the_matched_direction_moves_the_mel_as_far(voice, requests):
    settings = [("none", 0.0), ("ceag", 1.0), ("random", 1.0), ("matched", 1.0)]
    rows = guidance.rows(voice, requests, settings)
    moved = rows.pivot(index="utterance", columns="kind", values=["change", "strength"])
    change, strength = moved["change"], moved["strength"]
    assert (change["ceag"] / change["random"]).max() > 1.2  # else there is nothing to match
    assert change["matched"].to_numpy() == pytest.approx(change["ceag"].to_numpy(), rel=0.1)
    times = strength["matched"] / strength["random"]
    assert times.to_numpy() == pytest.approx((change["ceag"] / change["random"]).to_numpy())
    with pytest.raises(ValueError, match="matched at 1 needs ceag and random at 1 before it"):
        guidance.rows(voice, requests, [("none", 0.0), ("matched", 1.0)])


def test_padding_without_masks_loses_the_row(voice, requests):
    table = guidance.padding(voice, requests).set_index(["kind", "row", "masks"])
    for kind in ("ieag", "ceag"):
        assert table.loc[(kind, "in a padded batch", "yes"), "apart"] < 1e-3
        assert table.loc[(kind, "in a padded batch", "yes"), "finite"] == 1
        assert table.loc[(kind, "in a padded batch", "no"), "finite"] == 0
    with pytest.raises(ValueError, match="give one that is longer"):
        guidance.padding(voice, requests[:1])


def test_maps_under_guidance_are_drawn(voice, requests):
    looks = guidance.looks(voice, requests[0], 0.25, kinds=("none", "ceag"), scale=1000.0)
    plain, sharp = (looks[name].maps for name in ("none", "ceag"))
    assert not torch.equal(plain.text_maps, sharp.text_maps)
    maps = {name: look.maps.text_maps.mean(dim=(0, 1)).numpy() for name, look in looks.items()}
    figure = pictures.attention_compared(maps, list(plain.text), 0.9, 2.0, 1000.0)
    first, change, *bars = figure.axes
    assert len(bars) == 2 and "1000 times" in change.get_title() and "1000" not in first.get_title()
    (image,) = change.images
    np.testing.assert_allclose(image.get_array(), maps["ceag"] - maps["none"])
    assert image.norm.vmin == -image.norm.vmax < 0
    nats = {name: look.maps.text_entropy.mean(1).numpy() for name, look in looks.items()}
    drawn = pictures.entropy_compared(plain.times.numpy(), nats, (0.1, 0.4), 1000.0).axes[1].lines
    np.testing.assert_allclose(drawn[0].get_ydata(), 0)
    np.testing.assert_allclose(drawn[1].get_ydata(), nats["ceag"] - nats["none"])


def test_the_map_under_chosen_guidance_is_drawn(voice, requests, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "attention_text", lambda weights, *given: drawn.append(weights))
    for kind, scale in ((guidance.NONE, 1e5), ("ceag", 1e-3), ("ceag", 1e5)):
        guidance.shown(voice, requests[0], 0.5, kind, scale)
    plain, faint, strong = drawn
    assert np.abs(faint - plain).max() < 1e-3 < np.abs(strong - plain).max()


def test_how_many_are_guided():
    assert [guidance.size(n) for n in (4, 40, 200)] == [2, 2, 12]
