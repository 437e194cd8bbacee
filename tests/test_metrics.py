"""Metrics against values worked out by hand or by the plain algorithm."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from babble import babble

from pvlib.metrics import dnsmos, secs, wer
from pvlib.metrics.cfr import catastrophic, cfr
from pvlib.metrics.rtf import benchmark
from pvlib.systems.base import Request, Result


def edit_distance(a: list[str], b: list[str]) -> int:
    """The textbook recursion, filled in a table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            )
    return table[-1][-1]


def test_wer_equals_the_textbook_edit_distance():
    dice = random.Random(0)
    words = "river stone lamp garden winter".split()
    for _ in range(50):
        a = dice.choices(words, k=dice.randint(1, 8))
        b = dice.choices(words, k=dice.randint(0, 10))
        assert wer.wer(" ".join(a), " ".join(b)) == pytest.approx(edit_distance(a, b) / len(a))


def test_wer_is_uncapped_and_ignores_case_punctuation_and_contractions():
    assert wer.wer("The river doesn't freeze.", "the river does not freeze") == 0
    assert wer.wer("One lamp", "") == 1
    assert wer.wer("lamp", "lamp lamp lamp lamp") == 3
    assert wer.capped(3.0) == 1 and wer.capped(0.25) == 0.25


def test_corpus_wer_weighs_words_not_utterances():
    references, hypotheses = (
        ["lamp", "river stone garden winter lamp stone river"],
        ["stone", "river stone garden winter lamp stone river"],
    )
    assert wer.corpus_wer(references, hypotheses) == pytest.approx(1 / 8)
    assert np.mean([wer.wer(r, h) for r, h in zip(references, hypotheses)]) == pytest.approx(1 / 2)


def test_wer_against_no_words_is_an_error():
    for text in ("", "...", "um"):
        with pytest.raises(wer.EmptyReference, match="manifest"):
            wer.wer(text, "lamp")
    with pytest.raises(ValueError):
        wer.corpus_wer([], [])


def test_cfr_counts_only_what_exceeds_one_half():
    assert catastrophic([0.5, 0.5000001, 0.0, 2.0]).tolist() == [False, True, False, True]
    assert cfr([0.5, 0.6, 0.0, 1.0]) == 0.5
    with pytest.raises(ValueError):
        cfr([0.1, float("nan")])
    with pytest.raises(ValueError):
        cfr([])


def test_cosine_ignores_the_norm_and_knows_its_extremes():
    a = np.array([3.0, 4.0])
    assert secs.cosine(a, 7 * a) == pytest.approx(1)
    assert secs.cosine(a, -a) == pytest.approx(-1)
    assert secs.cosine(a, np.array([-4.0, 3.0])) == pytest.approx(0, abs=1e-12)
    assert secs.cosine(np.stack([a, a]), np.array([1.0, 0.0])).tolist() == pytest.approx([0.6, 0.6])
    with pytest.raises(ValueError):
        secs.cosine(a, np.zeros(2))


def test_retention_is_zero_for_the_impostor_and_one_for_the_truth():
    assert secs.retention(0.5, 0.5, 0.9) == 0
    assert secs.retention(0.9, 0.5, 0.9) == 1
    assert secs.retention(0.7, 0.5, 0.9) == pytest.approx(0.5)
    with pytest.raises(ValueError):
        secs.retention(0.7, 0.9, 0.9)


def test_dnsmos_is_the_official_network_and_polynomial():
    """One window through the released ONNX file by hand, the package's polynomials written out."""
    import onnxruntime
    from speechmos import dnsmos as package

    window = np.tile(babble(1.0, rate=16_000), 10)[: int(9.01 * 16_000)]
    path = Path(package.__file__).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    raw_signal, raw_background, raw_overall = onnxruntime.InferenceSession(path).run(
        None, {"input_1": window[None].astype(np.float32)}
    )[0][0]
    found = dnsmos.scores(window, 16_000)
    assert found["overall"] == pytest.approx(
        -0.06766283 * raw_overall**2 + 1.11546468 * raw_overall + 0.04602535, abs=1e-4
    )
    assert found["signal"] == pytest.approx(
        -0.08397278 * raw_signal**2 + 1.22083953 * raw_signal + 0.0052439, abs=1e-4
    )
    assert found["background"] == pytest.approx(
        -0.13166888 * raw_background**2 + 1.60915514 * raw_background - 0.39604546, abs=1e-4
    )


def test_one_window_of_a_short_sound_says_what_the_packages_many_say():
    wave = babble(2.6, rate=16_000)  # the package repeats it to 10.4 s and averages two windows
    theirs = dnsmos._model()(wave, 16_000, False)["ovrl_mos"]
    assert dnsmos.overall(wave, 16_000) == pytest.approx(theirs, abs=0.1)


def test_dnsmos_hears_noise_and_takes_any_level():
    wave = babble(4.6)
    noisy = wave + 0.1 * np.random.default_rng(0).normal(size=len(wave)).astype(np.float32)
    assert dnsmos.scores(noisy)["background"] < dnsmos.scores(wave)["background"]
    assert 1 <= dnsmos.overall(8 * wave) <= 5
    for bad in (np.zeros(0), np.full(24_000, np.nan)):
        with pytest.raises(ValueError):
            dnsmos.overall(bad)


class Metronome:
    """A system whose clock it moves itself: so many seconds per call."""

    name, batch_size = "metronome", 4

    def __init__(self, costs: list[float], seconds_of_speech: float):
        self.costs, self.length, self.now, self.calls = list(costs), int(24_000 * seconds_of_speech), 0.0, 0

    def clock(self) -> float:
        return self.now

    def synthesise(self, requests, progress=None):
        assert len(requests) == 1, "the benchmark is for one utterance at a time"
        cost = self.costs[self.calls]
        self.calls += 1
        self.now += abs(cost)
        if cost < 0:
            return [Result(None, "", abs(cost), "broken")]
        return [Result(np.ones(self.length, np.float32), "", cost)]

    def fingerprint(self):
        return {}


def test_rtf_leaves_the_warm_up_out_and_counts_failures():
    requests = [Request(str(k), "s", "a lamp", np.zeros(24_000), None, 0, 2, "ultra-short") for k in range(6)]
    system = Metronome([100.0, 1.0, 2.0, -5.0, 4.0, 8.0], seconds_of_speech=2.0)
    (found,) = (one.to_dict() for one in benchmark([system], requests, clock=system.clock))
    assert (found["median"], found["low"], found["high"]) == (1.5, 0.5, 4.0)
    assert (found["utterances"], found["failures"]) == (4, 1)
    with pytest.raises(ValueError, match="warms up"):
        benchmark([system], requests[:1])


def test_systems_are_timed_in_turn():
    """Two systems on one machine that becomes ten times slower before the third text: both feel it alike."""
    requests = [Request(str(k), "s", "a lamp", np.zeros(24_000), None, 0, 2, "ultra-short") for k in range(4)]
    machine, said = Metronome([9.0, 9.0, 1.0, 2.0, 10.0, 20.0, 10.0, 20.0], 1.0), []

    class Other:
        batch_size = 4

        def __init__(self, name):
            self.name = name

        def synthesise(self, given, progress=None):
            said.append((given[0].utterance, self.name))
            return machine.synthesise(given)

    one, two = benchmark([Other("one"), Other("two")], requests, clock=machine.clock)
    assert said == [(str(k), name) for k in range(4) for name in ("one", "two")]
    assert (one.system, list(one.values)) == ("one", [1, 10, 10])
    assert (two.system, list(two.values)) == ("two", [2, 20, 20])
