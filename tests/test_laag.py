"""Core A: no word is lost, no chunk too long, the formulas of the paper and of the official inference function."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from babble import babble

from pvlib import laag
from pvlib.config import Inference

INFERENCE = Inference()


def random_text(rng: random.Random) -> str:
    """Words of 1 to 300 letters, marks of every kind, spaces of every kind."""
    alphabet = rng.choice(["abcdefgh", "abc世界é", "aB3'-"])
    words = []
    for _ in range(rng.choice([1, 2, 5, 30, 120])):
        length = rng.choice([1, 2, 3, 5, 8]) if rng.random() < 0.97 else rng.randint(100, 300)
        word = "".join(rng.choice(alphabet) for _ in range(length))
        words.append(word + rng.choice([""] * 6 + [",", ".", "!", "?", ";", ": ", " -", '."', "。", "，"]))
    return rng.choice(["", "  "]) + rng.choice([" ", "  ", "\n"]).join(words) + rng.choice(["", " "])


@pytest.mark.parametrize("seed", range(300))
def test_chunks_lose_nothing_and_keep_their_limits(seed):
    rng = random.Random(seed)
    text = random_text(rng)
    max_chars = rng.choice([20, 40, 135])
    chunks = laag.chunk(text, max_chars, 10)
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(0 < len(c) <= max_chars and c == c.strip() for c in chunks)
    words = text.split()
    if text.isascii() and all(len(w) <= max_chars // 2 for w in words):
        assert " ".join(chunks).split() == words  # no word is cut
        if len(chunks) > 1:
            assert min(map(len, chunks)) >= 10


def test_chunks_end_with_sentences_then_clauses_then_words():
    sentence = "Mr. Gray walked home, though the rain was heavy; nobody saw him."  # 65 characters
    assert laag.chunk(" ".join([sentence] * 4), 135) == [f"{sentence} {sentence}"] * 2
    clauses = ", ".join(["the cat sat on the mat by the door"] * 6) + "."
    assert all(c.endswith((",", ".")) for c in laag.chunk(clauses, 135))
    words = " ".join(["word"] * 60)
    assert laag.chunk(words, 135) == [" ".join(["word"] * 20)] * 3  # even, not 27 + 27 + 6


def test_chunks_of_short_long_and_giant_texts():
    assert laag.chunk("Yes.") == ["Yes."]
    assert laag.chunk("   ") == []
    exact = "a" * 67 + " " + "b" * 67
    assert laag.chunk(exact) == [exact]
    assert [len(c) for c in laag.chunk("x" * 300)] == [100, 100, 100]
    long = "the quick brown fox jumps over the lazy dog. " * 222
    chunks = laag.chunk(long[:10_000])
    assert max(map(len, chunks)) <= 135 and len(chunks) < 100


def test_a_scrap_joins_its_neighbour():
    sentence = "A sentence of some length that fills most of a chunk, one would say, and then goes on to the end of it."
    chunks = laag.chunk(f"No. {sentence} {sentence} Yes.", 135)
    assert chunks[0].startswith("No. A sentence") and chunks[-1].endswith("it. Yes.")


def test_chunk_refuses_impossible_limits():
    with pytest.raises(ValueError, match="min_chars"):
        laag.chunk("a", max_chars=19, min_chars=10)


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("", 0),
        ("hello", 1.5),
        ("don't stop", 3),
        ("hello你好", 3.5),
        ("你好 world 42", 4.5),
        ("3.5 or 1,000", 3.5),
        ("...", 0),
    ],
)
def test_token_length(text, tokens):
    assert laag.token_length(text) == tokens


def test_guidance_is_the_base_with_the_papers_alpha_and_bends_with_another():
    assert laag.guidance("hi", INFERENCE) == laag.guidance("hi " * 50, INFERENCE) == 2.5
    bent = replace(INFERENCE, laag_cfg_alpha=0.4)
    assert laag.guidance("a b", bent) == pytest.approx(2.5 * (1 + 0.4 * 0.7))
    assert laag.guidance("a " * 10, bent) == pytest.approx(2.5 * (1 - 0.4 * 0.5))
    assert laag.guidance("a " * 100, bent) == 1.0
    assert laag.guidance("a", replace(INFERENCE, laag_cfg_alpha=3.0)) == 4.0
    assert laag.guidance("a", replace(INFERENCE, use_laag=False, cfg_strength=2.0)) == 2.0


@pytest.mark.parametrize("words, expected", [(1, 0.14375), (4, 0.2), (20, 0.5), (100, 0.5)])
def test_ceag_strength(words, expected):
    assert laag.lambda_ceag("a " * words, INFERENCE) == pytest.approx(expected)


def test_gate():
    assert not laag.gate(["one"]) and laag.gate(["one", "two"])
    assert laag.gate(["one"], "always") and not laag.gate(["one", "two"], "off")
    with pytest.raises(ValueError, match="'sometimes'"):
        laag.gate(["one"], "sometimes")


@pytest.mark.parametrize(
    "text, expected", [("a longer text here", 93 + 93 * 18 // 13), ("hi", 93 + int(93 / 13 * 2 / 0.3))]
)
def test_duration_follows_the_official_formula(text, expected):
    assert laag.duration(93, "hello there. ", text, INFERENCE) == expected


def test_duration_slows_down_under_ten_bytes_and_counts_bytes():
    nine, ten = (
        laag.duration(93, "a" * 10, "b" * 9, INFERENCE),
        laag.duration(93, "a" * 10, "b" * 10, INFERENCE),
    )
    assert (nine, ten) == (93 + 279, 93 + 93)
    assert laag.duration(93, "a" * 10, "é" * 10, INFERENCE) == 93 + 186
    assert laag.duration(93, "a" * 10, "b" * 10, replace(INFERENCE, speed=2.0)) == 93 + 46
    with pytest.raises(ValueError, match="speaking rate"):
        laag.duration(93, "", "text", INFERENCE)


@pytest.mark.parametrize(
    "text, closed",
    [
        ("hello there", "hello there. "),
        ("hello there. ", "hello there. "),
        (" really? ", "really? "),
        ("well,", "well. "),
        ("so -", "so. "),
        ("你好。", "你好。"),
    ],
)
def test_boundary(text, closed):
    assert laag.boundary(text) == closed
    assert laag.boundary(laag.boundary(text)) == closed


def test_boundary_refuses_nothing():
    with pytest.raises(ValueError, match="empty"):
        laag.boundary("  ")


def test_lead_silence_is_trimmed_by_at_most_300_ms():
    speech = babble(0.5)
    onset = int((np.abs(speech) >= 0.02 * np.abs(speech).max()).argmax())
    for zeros, cut in ((0, 0), (2400, 2400), (24_000, 7200)):
        wave = np.concatenate([np.zeros(zeros, dtype=np.float32), speech])
        assert len(wave) - len(laag.trim_lead(wave, INFERENCE)) == min(cut + onset, 7200)
    assert len(laag.trim_lead(np.zeros(0, dtype=np.float32), INFERENCE)) == 0


def official_cross_fade(waves: list[np.ndarray], seconds: float) -> np.ndarray:
    """The official recipe in words: overlap 0.15 s, out linearly, in linearly, added."""
    out = waves[0].astype(np.float64)
    for wave in waves[1:]:
        n = min(int(seconds * 24_000), len(out), len(wave))
        mixed = np.zeros(len(out) + len(wave) - n)
        mixed[: len(out)] += np.concatenate([out[: len(out) - n], out[len(out) - n :] * np.linspace(1, 0, n)])
        mixed[len(out) - n :] += np.concatenate([wave[:n] * np.linspace(0, 1, n), wave[n:]])
        out = mixed
    return out


@pytest.mark.parametrize("lengths", [(9000,), (9000, 8000, 7000), (9000, 1000, 5000)])
def test_waves_are_cross_faded_as_the_official_function_does(lengths):
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) for n in lengths]
    spliced = laag.splice_wave(waves, 0.15)
    assert spliced.dtype == np.float32
    np.testing.assert_allclose(spliced, official_cross_fade(waves, 0.15), atol=1e-5)


def test_mels_are_cross_faded_along_time_not_channels():
    mels = [torch.full((40, 100), 1.0), torch.full((30, 100), 3.0)]
    spliced = laag.splice_mel(mels, 0.15)
    assert spliced.shape == (40 + 30 - 14, 100)
    torch.testing.assert_close(spliced[26:40, 7], torch.linspace(1, 3, 14))
    assert (spliced[:26] == 1).all() and (spliced[40:] == 3).all()


def test_a_splice_along_bands_mixes_low_of_one_with_high_of_the_other():
    mels = [torch.full((40, 100), 1.0), torch.full((30, 100), 3.0)]
    spliced = laag.splice_mel(mels, 0.15, "bands")
    assert spliced.shape == (56, 100)
    for frame in range(26, 40):
        torch.testing.assert_close(spliced[frame], torch.linspace(1, 3, 100))
    assert (spliced[:26] == 1).all() and (spliced[40:] == 3).all()


def test_a_misread_splice_takes_each_buffer_for_one_in_the_other_order():
    mels = [torch.randn(40, 100), torch.randn(30, 100)]
    spliced = laag.splice_mel(mels, 0.0, "misread")
    assert spliced.shape == (70, 100)
    for frame, band in ((0, 0), (7, 31), (39, 99)):
        assert spliced[frame, band] == mels[0].flatten()[band * 40 + frame]
    assert spliced[40 + 5, 2] == mels[1].flatten()[2 * 30 + 5]
    with pytest.raises(ValueError, match="'sideways'"):
        laag.splice_mel(mels, 0.15, "sideways")


def test_a_cross_fade_of_equal_parts_changes_nothing():
    part = torch.randn(1, 100).expand(50, 100)
    torch.testing.assert_close(laag.splice_mel([part, part, part]), part[:1].expand(150 - 28, 100))


def test_no_cross_fade_is_concatenation_and_nothing_is_an_error():
    waves = [np.ones(5, dtype=np.float32), np.zeros(3, dtype=np.float32)]
    np.testing.assert_array_equal(laag.splice_wave(waves, 0.0), np.concatenate(waves))
    with pytest.raises(ValueError, match="nothing to splice"):
        laag.splice_wave([])
    with pytest.raises(ValueError, match="nothing to splice"):
        laag.splice_mel([])


LONG = "The river keeps its secrets, and the hills keep theirs; nobody asks. " * 4


def test_plan_of_a_long_text():
    chunks = laag.plan(93, "hello there. ", LONG, INFERENCE)
    assert len(chunks) == 4 and all(c.film for c in chunks)
    assert all(c.text[0] == " " and c.text[1] != " " for c in chunks)
    assert [c.frames for c in chunks] == [
        laag.duration(93, "hello there. ", c.text, INFERENCE) for c in chunks
    ]
    assert not laag.plan(93, "hello there. ", "Short.", INFERENCE)[0].film


def test_plan_without_laag_keeps_the_text_whole():
    (chunk,) = laag.plan(93, "hello there. ", LONG, replace(INFERENCE, use_laag=False))
    assert chunk.text == LONG and not chunk.film


def test_plan_shares_a_given_duration():
    chunks = laag.plan(93, "hello there. ", LONG, INFERENCE, generated_frames=1000)
    assert sum(c.frames - 93 for c in chunks) == pytest.approx(1000 + 14 * 3, abs=2)
