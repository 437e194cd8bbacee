"""The duration predictor: shapes and padding, what it learns on a toy corpus, and its place in the pipeline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from babble import babble
from tiny import TINY, Encoder, Recogniser

from pvlib import backbone, config, hub, laag, paths, systems
from pvlib.config import MINI, PAPER, ConfigError
from pvlib.durations import TYPICAL_SECONDS, DurationPredictor
from pvlib.training import duration_predictor as trainer
from pvlib.voice import Job, PersonaVoice


@pytest.fixture
def trained_a_little():
    torch.manual_seed(0)
    model = DurationPredictor(config.DurationPredictor(dim=8)).eval()
    torch.nn.init.normal_(model.out.weight, std=0.3)
    return model


def test_untrained_every_character_lasts_as_long():
    model = DurationPredictor(MINI.duration_predictor).eval()
    assert model.seconds_of("Seven letters") == pytest.approx(13 * TYPICAL_SECONDS, rel=1e-5)
    assert model.seconds_of("") == 0.0


def test_padding_and_company_change_nothing(trained_a_little):
    texts = ["red fox.", "a", "nobody tells, and nobody asks!"]
    with torch.no_grad():
        together = trained_a_little(trained_a_little.encode(texts))
    assert together.shape == (3, len(texts[2])) and (together[1, 1:] == 0).all()
    for row, text in zip(together, texts, strict=True):
        assert float(row.sum()) == pytest.approx(trained_a_little.seconds_of(text), rel=1e-5)
    assert len(set(together[2].tolist())) > 20  # the same letter lasts differently in other company


def test_a_clip_at_half_the_rate_makes_the_text_twice_as_long_without_a_prior(trained_a_little):
    profile = replace(
        MINI, inference=replace(MINI.inference, letter_prior_seconds=0.0, letter_pause_seconds=0.0)
    )
    rows = [("red fox.", 1.0, "a lamp. ", seconds) for seconds in (0.4, 0.8)]
    with torch.no_grad():
        slow, slower = trainer.log_error(trained_a_little, rows, profile).tolist()
    assert slower - slow == pytest.approx(np.log(2), abs=1e-5)
    expected = 0.4 / trained_a_little.seconds_of("a lamp. ") * trained_a_little.seconds_of(" red fox.")
    assert slow == pytest.approx(np.log(expected), abs=1e-5)


def test_it_learns_resumes_and_exports(toy_corpus, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "DEV_SPLITS", ("dev",))
    profile = replace(TINY, duration_predictor=config.DurationPredictor(dim=8))
    trainer.train(profile, steps=40)
    card = hub.read_card(trainer.NAME, profile)
    assert card["steps"] == 40 and 0 < card["quality"]["rms_log_error_1_4"] < 0.5

    def averages() -> dict[str, torch.Tensor]:
        state = torch.load(paths.TRAINING / trainer.NAME / "state.pt", weights_only=True)
        return state["parts"]["ema"]["shadow"]

    unbroken = averages()
    loaded = hub.load_duration_predictor(profile).state_dict()
    for key, value in unbroken.items():
        torch.testing.assert_close(loaded[key], value, atol=2e-3, rtol=2e-3)
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "again")
    trainer.train(profile, steps=40, minutes=1e-9)
    trainer.train(profile, steps=40)
    for key, value in averages().items():
        assert torch.equal(value, unbroken[key]), key


def test_words_cut_out_of_an_utterance_keep_their_true_times(toy_corpus):
    rows = trainer.Rows("train")
    assert rows.span(0, 1, 1) == ("fox", pytest.approx(0.55))
    assert rows.span(0, 0, 2) == ("red fox", pytest.approx(0.95))
    assert rows.clips[0] == ("red fox. ", pytest.approx(0.9))  # the first second, from the first word on


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return backbone.build(TINY.backbone).eval()


def pipeline(network, durations, **change):
    profile = replace(TINY, inference=replace(TINY.inference, **change))
    return PersonaVoice(profile, network, None, Recogniser(), Encoder(), durations=durations)


def test_the_pipeline_takes_its_lengths_when_asked(network, trained_a_little):
    usual = pipeline(network, trained_a_little)
    own = pipeline(network, trained_a_little, duration_predictor=True)
    job = Job(usual.reference(babble(1.0)), "lantern.")
    known = len(job.reference.wave) // 256
    (chunk,) = own.plan(job)
    asked = (known, job.reference.text, " lantern.", own.inference)
    assert chunk.frames == laag.letter_duration(*asked, trained_a_little.seconds_of)
    changes = {"letter_prior_seconds": 0.0, "letter_pause_seconds": 0.5, "letter_floor_seconds": 0.0}
    (changed,) = pipeline(network, trained_a_little, duration_predictor=True, **changes).plan(job)
    asked_anew = (*asked[:3], replace(own.inference, **changes))
    assert changed.frames == laag.letter_duration(*asked_anew, trained_a_little.seconds_of) != chunk.frames
    (before,) = usual.plan(job)
    assert before.frames == laag.duration(*asked)


def test_what_cannot_work_is_refused(network, trained_a_little):
    with pytest.raises(ConfigError, match="pvlib train duration-predictor"):
        pipeline(network, None, duration_predictor=True)
    for other in ("letter_durations", "oracle_duration"):
        with pytest.raises(ConfigError, match=f"{other}=True both set the length"):
            pipeline(network, trained_a_little, duration_predictor=True, **{other: True})


def test_a_profile_without_it_goes_without_the_variant():
    name = "personavoice@duration_predictor=True"
    assert systems.lacking(name, PAPER) == ["duration-predictor"]
    assert "pvlib train duration-predictor" in systems.absent(PAPER, [name])[name]
    assert systems.lacking("personavoice@duration_predictor=False", PAPER) == []
