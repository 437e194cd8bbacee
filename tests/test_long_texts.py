"""LAAG's study: which texts are long, what is planned for them, where seams lie and how rough they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pvlib import laag, systems
from pvlib.audio import CLIP_SAMPLES
from pvlib.config import MINI, Inference
from pvlib.metrics.judges import Verdict
from pvlib.study import ablations, long_texts, look
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.systems.base import Request
from pvlib.voice import Job, PersonaVoice

INFERENCE = Inference()
LONG = "The river keeps its secrets, and the hills keep theirs; nobody asks. " * 4


def test_only_texts_of_several_chunks_are_drawn_in_the_order_of_the_whole():
    whole, long = manifests.read(MINI.manifest), long_texts.long_texts(MINI.manifest)
    order = [row.utterance for row in whole.sample().itertuples() if len(row.text) > 135]
    assert list(long.sample()["utterance"]) == order and 20 < len(order) < 200
    assert list(long.sample(5)["utterance"]) == order[:5]
    assert len(long.sample(10_000)) == len(order)
    assert [r.impostor_text for r in long.requests(long.sample(2))] == [
        r.impostor_text for r in whole.requests(whole.table.set_index("utterance", drop=False).loc[order[:2]])
    ]


def test_plan_tables_follow_the_formulas():
    table = long_texts.plan_table(LONG, INFERENCE)
    assert list(table["FiLM"]) == ["on"] * 4 and (table["guidance"] == 2.5).all()
    assert (table["characters"] == len(LONG) // 4 - 1).all()
    # 12 English words at 1.5 tokens, so 18; 0.25 (1 + 0.5 * 0.8)
    assert table["entropy guidance"].to_numpy() == pytest.approx(0.35)
    gates = long_texts.gate_table({"short": "The sky is.", "long": LONG}, INFERENCE)
    assert gates.loc["short"].to_dict() == {"chunks": 1, "auto": "off", "always": "on", "off": "off"}
    assert gates.loc["long"].to_dict() == {"chunks": 4, "auto": "on", "always": "on", "off": "off"}
    moved = long_texts.replan(LONG, "off", 0.1, 300)
    assert list(moved["FiLM"]) == ["off"] and moved["guidance"][0] == 1.0
    assert table["chunk"].str.startswith("␣").all()


def test_the_curves_are_the_closed_forms(tmp_path):
    figure = long_texts.by_length(INFERENCE, (0.0, 0.1), most=60)
    tokens = np.arange(1, 61)
    flat, bent = (line.get_ydata() for line in figure.axes[0].lines[:2])
    np.testing.assert_allclose(flat, 2.5)
    np.testing.assert_allclose(bent, np.clip(2.5 * (1 + 0.1 * (10 - tokens) / 10), 1, 4))
    strength = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(strength, 0.25 * np.clip(1 + 0.5 * (tokens - 10) / 10, 0.4, 2))
    assert all(ax.get_legend() is None for ax in figure.axes)  # the upright would cross it
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["a = 0", "a = 0.1", "reference length"]
    assert len(look.keep(figure, "length", tmp_path).data) > 3000


# Joins


def test_seams_lie_where_constant_parts_mix():
    mels = [torch.full((n, 100), float(k)) for k, n in enumerate((40, 30, 50))]
    whole = laag.splice_mel(mels)[:, 0]
    inside = [t for first, end in long_texts.seams(mels) for t in range(first, end)]
    mixed = [t for t in range(len(whole)) if float(whole[t]) not in (0.0, 1.0, 2.0)]
    assert set(mixed) < set(inside) and len(inside) == 28 and len(mixed) == 24
    assert long_texts.seams(mels, 0.0) == [(40, 40), (70, 70)]


def test_roughness_of_a_step_and_of_a_ramp():
    mels = [torch.zeros(40, 100), torch.full((40, 100), 3.0)]
    ways = long_texts.joined(mels)
    cut, far = long_texts.roughness(ways["hard cut"], long_texts.seams(mels, 0.0))
    assert cut == pytest.approx(3 / 3) and far == 0  # one step among the three changes of the seam
    fade, far = long_texts.roughness(ways["cross-fade"], long_texts.seams(mels))
    assert fade == pytest.approx(3 / 17) and far == 0
    bands = ways["faded along bands"]
    torch.testing.assert_close(bands[26:40], torch.linspace(0, 3, 100).expand(14, 100))
    assert ways["axes misread"].shape == ways["cross-fade"].shape


class Ears:
    """A panel that hears a wave's mean as its similarity and its length in samples as its error rate."""

    def judge(self, exhibits):
        lengths = [len(exhibit.wave) / 1e6 for exhibit in exhibits]
        means = [float(np.mean(exhibit.wave)) for exhibit in exhibits]
        return [Verdict("", w, w, s, s, s, s, 3.0) for w, s in zip(lengths, means, strict=True)]


def test_every_way_of_joining_is_judged(monkeypatch, tmp_path):
    mels = [torch.zeros(40, 100), torch.full((40, 100), 3.0)]
    decode = lambda mel: mel[0].mean(0).repeat_interleave(256)[None]  # noqa: E731  frames become hops
    voice = SimpleNamespace(inference=INFERENCE, device="cpu", vocoder=SimpleNamespace(decode=decode))
    monkeypatch.setattr(long_texts, "chunk_mels", lambda voice, request: (None, mels))
    clip = np.zeros(CLIP_SAMPLES, np.float32)
    asked = [Request(f"u{k}", f"s{k}", "a b", clip, None, k, 2, "ultra-short") for k in range(2)]
    found = long_texts.joins(voice, asked, {}, Ears())
    table = long_texts.joins_table(found)
    assert list(table.index) == [*long_texts.JOINS, "wave"]
    assert table.loc["cross-fade", "SECS (ECAPA, clip)"] == pytest.approx(1.5)
    assert table.loc["cross-fade", "WER (capped)"] == pytest.approx(66 * 256 / 1e6)
    assert table.loc["hard cut", "WER (capped)"] == pytest.approx(80 * 256 / 1e6)
    assert table.loc["wave", "SECS (ECAPA, clip)"] == pytest.approx(1.5, abs=1e-3)
    assert table.loc["cross-fade", "distance to the cross-fade (nat)"] == 0
    assert np.isnan(table.loc["hard cut", "distance to the cross-fade (nat)"])
    assert len(look.keep(long_texts.seam_picture(mels), "seam", tmp_path).data) > 3000
    assert set(long_texts.sounds(voice, mels)) == set(long_texts.JOINS)


def test_sentences_and_tests_on_joins():
    secs = {"cross-fade": 0.6, "hard cut": 0.5, "faded along bands": 0.5, "axes misread": 0.4}
    varied = [name for name in secs if name != "cross-fade"]
    rows = [
        {"join": name, "utterance": f"u{k}", "speaker": f"s{k % 3}", "at_seams": 0.5, "elsewhere": 0.25}
        | {
            "from_right": 0.1,
            "wer_capped": 0.2,
            "secs_ecapa_clip": value + (name in varied) * 0.01 * (k - 2.5),
        }
        for name, value in secs.items()
        for k in range(6)
    ]
    found = pd.DataFrame(rows)
    first, bands, misread = long_texts.about_joins(found)
    assert "6 long texts" in first and "0.50 nat" in first and "0.25 elsewhere" in first
    assert "0.500 with it and 0.600 without, +0.100 or +20.0%" in bands and "+56.6%" in bands
    assert "0.400 with it and 0.600 without, +0.200 or +50.0%" in misread
    nothing = found["secs_ecapa_clip"].where(found["join"] != "axes misread", 0.015)
    assert "without, +0.585. The paper" in long_texts.about_joins(found.assign(secs_ecapa_clip=nothing))[2]
    cut = long_texts.tests(found[found["join"].isin(["cross-fade", "hard cut"])])
    assert list(cut["join"]) == ["hard cut"] and cut["difference"][0] == pytest.approx(-0.1)
    assert cut["p"][0] < 0.01 and cut["n"][0] == 6
    few = found[found["utterance"].isin(["u0", "u1"])]
    assert long_texts.tests(few)["p"].isna().all()
    near = found["secs_ecapa_clip"].where(
        found["join"] != "faded along bands", 0.599 + found.index % 6 * 5e-4
    )
    for other in (few, found.assign(secs_ecapa_clip=near)):
        assert "no difference is shown" in long_texts.about_joins(other)[1]


def test_all_long_texts_are_advised_by_their_number():
    there = long_texts.long_texts(MINI.manifest).sample()
    some, all_ = (long_texts.about_size(MINI, there.head(n)) for n in (3, len(there)))
    assert f"3 of the {len(there)} texts" in some and f"`utterances = {len(there)}` takes all" in some
    assert "utterances =" not in all_


# Rows


def test_variants_are_compared_with_the_base_of_this_study():
    base = long_texts.SYSTEMS[ablations.SYSTEM]
    rows = [
        {"system": name, "utterance": f"u{k}", "speaker": f"s{k}", "bucket": "long", "error": "", "seed": k}
        | {"secs_ge2e_clip": 0.5, "hypothesis": "a lamp"}
        | {"secs_ecapa_clip": 0.5 + 0.01 * k - 0.1 * (name != base), "wer_capped": 0.1, "wer": 0.1}
        for name in long_texts.SYSTEMS.values()
        for k in range(3)
    ]
    table = ablations.table(pd.DataFrame(rows), long_texts.MECHANISMS, names=long_texts.SYSTEMS)
    secs = table[table["metric"] == "secs_ecapa_clip"]
    assert list(secs["variant"]) == list(long_texts.MECHANISMS)
    assert secs["difference"].to_numpy() == pytest.approx(-0.1) and (secs["pipeline"] == 0.51).all()


def test_where_the_pipeline_stands_is_read_off_the_rows_of_the_study(monkeypatch):
    found = row_files.committed("mini", [*systems.CONTROLS, ablations.SYSTEM])
    monkeypatch.setattr(long_texts, "finished", lambda *asked, **options: found)
    own = found[(found["system"] == ablations.SYSTEM) & (found["bucket"] == "long")]
    sentence = long_texts.standing("mini", 200)
    assert f"WER of long texts, n = {len(own)}: {own['wer_capped'].mean():.3f} [" in sentence
    assert "(target: at most 0.12, " in sentence and "(target: at least 0.7, " in sentence
    worse = found.assign(wer_capped=found["wer_capped"] + 0.2)
    monkeypatch.setattr(long_texts, "finished", lambda *asked, **options: worse)
    assert "(target: at most 0.12, missed)" in long_texts.standing("mini", 200)
    shift = 0.119 - own["wer_capped"].mean()  # the mean just below the target, its interval around it
    close = found.assign(wer_capped=found["wer_capped"] + shift)
    monkeypatch.setattr(long_texts, "finished", lambda *asked, **options: close)
    assert (
        "(target: at most 0.12, met by the estimate, which its interval does not settle)"
        in long_texts.standing("mini", 200)
    )
    monkeypatch.setattr(long_texts, "finished", lambda *asked, **options: None)
    assert "run notebook 06" in long_texts.standing("mini", 200)


def test_a_study_takes_few_long_texts():
    assert [long_texts.size(n) for n in (2, 40, 200)] == [2, 2, 24]


@pytest.mark.parametrize(
    "notebook, known", [("01", {"clip-frames", "rms-level"}), ("03", {"laag-cap", "mel-splice"})]
)
def test_claims_of_a_notebook_are_judged_by_any_rows(notebook, known):
    found = row_files.committed("mini", ["personavoice"])
    board = ablations.claims("mini", found, notebook=notebook).set_index("id")
    assert known <= set(board.index) and set(board["notebook"]) == {notebook}
    assert board.loc[sorted(known), "verdict"].isin(["supported", "adopted"]).all()


@pytest.mark.slow
def test_the_chunks_are_those_of_the_pipeline():
    voice = PersonaVoice.load("mini", "cpu", steps=2)
    request = manifests.read(MINI.manifest).requests(long_texts.long_texts(MINI.manifest).sample(1))[0]
    job, mels = long_texts.chunk_mels(voice, request)
    assert len(mels) > 1
    (speech,) = voice.synthesise([Job(job.reference, request.text, request.seed)])
    torch.testing.assert_close(laag.splice_mel(mels), speech.mel, atol=1e-3, rtol=1e-3)
