"""Where letters are heard: forced alignment of spikes whose place is known."""

import numpy as np
import pytest
import torch

from pvlib import config, hub, recognizer
from pvlib.training import letters
from pvlib.training.features import mel_cache

EARS = config.Recognizer(channels=16, hidden=16, layers=2)


def spikes(ears: recognizer.CTCRecognizer, said: dict[int, str], steps: int) -> torch.Tensor:
    scores = torch.full((steps, ears.symbols), -5.0)
    scores[:, recognizer.BLANK] = 0.0
    for step, letter in said.items():
        scores[step] = -5.0
        scores[step, ears.config.alphabet.index(letter) + 1] = 5.0
    return scores.log_softmax(-1)


def test_each_letter_is_found_where_it_spikes():
    ears = recognizer.build(EARS).eval()
    said = {2: "r", 3: "r", 5: "o", 9: " ", 11: "l", 13: "l", 20: "o"}
    middle = letters._letters(spikes(ears, said, 24), "Ro, llo!", ears)
    expected = [3.0, 5.5, np.nan, np.nan, 11.5, 13.5, 20.5, np.nan]
    np.testing.assert_allclose(middle, expected)


def test_a_text_that_does_not_fit_has_no_places():
    ears = recognizer.build(EARS).eval()
    assert np.isnan(letters._letters(spikes(ears, {}, 4), "hello", ears)).all()
    assert np.isnan(letters._letters(spikes(ears, {}, 4), "...", ears)).all()


def test_places_are_seconds_and_are_kept(toy_corpus, monkeypatch):
    from dataclasses import replace

    profile = replace(config.MINI, recognizer=EARS)
    hub.save_weights("recognizer", profile, recognizer.build(EARS).state_dict(), {"steps": 0})
    found = letters.centres("train", profile)
    lengths = mel_cache("train").lengths
    assert [len(row) for row in found] == [len("red fox")] * 8
    for row, frames in zip(found, lengths, strict=True):
        assert np.isnan(row[3]) and (np.diff(row[[0, 1, 2, 4, 5, 6]]) > 0).all()
        assert row[0] > 0 and row[6] < frames * 256 / 24_000
    monkeypatch.setattr(letters, "listen", lambda *_: pytest.fail("heard again"))
    for row, again in zip(found, letters.centres("train", profile), strict=True):
        np.testing.assert_array_equal(row, again)
