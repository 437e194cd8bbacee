"""What notebook 02 measures: estimates against known sound, sizes against the paper, sentences on made-up rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from babble import babble
from tiny import TINY, Encoder, Recogniser

from pvlib import backbone, config, vocoder
from pvlib.adapters import Adapters
from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.study import conditioning, prosody
from pvlib.systems.base import Request
from pvlib.voice import PersonaVoice
from pvlib.world import voices


def tone(f0: np.ndarray, level: float = 0.1) -> np.ndarray:
    """Ten harmonics over a pitch contour in Hz, one value per sample."""
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    return (level * sum(np.sin(k * phase) / k for k in range(1, 11))).astype(np.float32)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("f0", [90.0, 210.0])
def test_pitch_and_range_of_a_known_contour(f0):
    half = SAMPLE_RATE // 2
    wave = tone(np.concatenate([np.full(half, f0), np.full(half, f0 * 2 ** (4 / 12))]))
    found = prosody.speaking(np.concatenate([wave, noise(0.5) * 0.01]), "abcde fghij")
    assert f0 * 0.99 < found["f0"] < f0 * 1.27
    assert found["f0_range"] == pytest.approx(4, abs=0.3)
    assert found["rate"] == pytest.approx(10, rel=0.1)  # the faint noise behind it is no speech
    louder = prosody.speaking(2 * wave, "abcde fghij")
    assert louder["energy"] - prosody.speaking(wave, "abcde fghij")["energy"] == pytest.approx(6.02, abs=0.05)


def test_noise_has_no_pitch():
    assert len(prosody.pitch(noise(1.0))) < 5


@pytest.mark.parametrize("t60", [0.3, 0.9])
def test_decay_time_and_noise_of_a_known_room(t60, monkeypatch):
    monkeypatch.setattr(prosody.dnsmos, "scores", lambda wave: {"background": 3.0})
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    burst = np.concatenate([noise(0.3), noise(1.0, 1) * 10 ** (-3 * time / t60)]).astype(np.float32)
    assert prosody.sounding(burst)["t60"] == pytest.approx(t60, rel=0.15)
    assert np.isnan(prosody._decay_time(np.zeros(50)))
    half = np.concatenate([noise(1.0), 0.01 * noise(1.0, 1)])  # 40 dB apart
    assert prosody.sounding(half)["snr"] == pytest.approx(40, abs=2)


def test_the_world_moves_prosody_as_the_study_says():
    measures = {"f0": "pitch", "f0_range": "range", "rate": "rate"}
    cases = [
        (voices.EMOTION_PROSODY, conditioning.EMOTION_SIGNS),
        (voices.TRAIT_PROSODY, conditioning.TRAIT_SIGNS),
    ]
    for truth, signs in cases:
        assert set(signs) == set(truth) - {"neutral"}
        for name, own in signs.items():
            true = {m: np.sign(np.log(getattr(truth[name], field))) for m, field in measures.items()}
            true["energy"] = np.sign(truth[name].gain_db)
            assert own == {m: sign for m, sign in true.items() if sign}, name


def test_parameters_of_the_full_size_beside_the_paper():
    table = conditioning.parameters()
    number = {
        name: int(table["paper"][name].replace(",", "")) for name in table.index if name != "trainable share"
    }
    assert number["copies of the last blocks"] == 2 * 14_693_376  # counted off the official checkpoint
    assert number["backbone"] == 337_096_804
    assert (
        number["in all"] - number["backbone"]
        == number["OES"] + number["embedding of the emotion"] + number["tempo"] + number["FiLM"]
    )
    assert number["OES"] == 192 * 32 + 1 and number["embedding of the emotion"] == 4 * 64
    assert number["tempo"] == 64 + 3
    assert "31.9 M" in table["the paper"]["trainable"]


def test_random_bases_take_their_share_of_random_vectors():
    torch.manual_seed(0)
    rows = pd.DataFrame(
        {"speaker": [f"s{k % 10}" for k in range(60)], "room": [f"r{k % 7}" for k in range(60)]}
    )
    table = conditioning.untrained(torch.randn(60, 192), rows, bases=4).set_index("env_scale")
    expected = table["cosine expected of random vectors"]
    assert table["cosine"].to_numpy() == pytest.approx(expected.to_numpy(), abs=0.01)
    assert expected[1.0] == pytest.approx(np.sqrt(1 - 32 / 192))
    assert table.loc[0.1, "speaker EER"] == pytest.approx(0.5, abs=0.15)


def test_a_voice_without_its_room_is_told_apart_by_voice():
    voice, room = torch.eye(192)[:10].repeat(6, 1), 3 * torch.eye(192)[20:26].repeat_interleave(10, 0)
    rows = pd.DataFrame(
        {"speaker": [f"s{k % 10}" for k in range(60)], "room": [f"r{k // 10}" for k in range(60)]}
    )
    assert conditioning.speaker_eer(voice, rows) == 0
    assert conditioning.speaker_eer(voice[:, torch.randperm(192)] + 0 * room, rows) == 0
    assert np.isnan(conditioning.speaker_eer(voice, rows.assign(room="r")))


def test_targets_of_rooms_and_speakers_are_settled_by_intervals():
    names = ["room accuracy", "times chance", "speaker EER"]
    columns = ["part", *(f"{name}{end}" for name in names for end in ("", ", low", ", high"))]
    whole = ["whole", 0.5, 0.45, 0.55, 4.0, 3.6, 4.4, 0.06, 0.05, 0.07]
    timbre = ["timbre", 0.16, 0.13, 0.2, 1.27, 1.0, 1.6, 0.05, 0.04, 0.055]
    text = conditioning.probes_text(pd.DataFrame([whole, timbre], columns=columns))
    assert "4.00 times chance (target: at least 3, met)" in text
    assert "1.27 times (target: at most 1.5, met by the estimate, which its interval does not settle)" in text
    assert "(target: no worse, met by the estimates, whose intervals overlap)" in text
    timbre[-3:] = [0.04, 0.03, 0.045]
    assert "(target: no worse, met)" in conditioning.probes_text(
        pd.DataFrame([whole, timbre], columns=columns)
    )
    timbre[-3:] = [0.08, 0.075, 0.09]
    assert "no worse, missed)" in conditioning.probes_text(pd.DataFrame([whole, timbre], columns=columns))


def spoken(effect: float) -> pd.DataFrame:
    """Twenty speakers; happy moves F0 and energy as trained, the rest is chance."""
    rng, lines = np.random.default_rng(0), []
    for k in range(20):
        own = {"f0": 120 + 5 * k, "f0_range": 5.0, "rate": 10.0, "energy": -30.0}
        for name in conditioning.wishes():
            push = effect * {"happy 0.5": 0.5, "happy 1": 1.0}.get(name, 0.0)
            moved = own | {"f0": own["f0"] + 20 * push, "energy": own["energy"] + 2 * push}
            lines.append(
                {"utterance": f"u{k}", "speaker": f"s{k}", "wish": name}
                | {m: v + rng.normal(0, 0.1) for m, v in moved.items()}
            )
    return pd.DataFrame(lines)


def test_a_true_effect_is_found_and_none_is_not():
    rows = spoken(1.0)
    table = conditioning.moved(rows)
    assert len(table) == (3 + 5) * 4
    sure = table[table["as_trained"] & (table["p_holm"] < 0.01)]
    assert set(zip(sure["wish"], sure["measure"], strict=True)) == {("happy 1", "f0"), ("happy 1", "energy")}
    text = conditioning.moved_text(table, rows)
    assert "happy: 2 of 4" in text and "(median F0 (Hz), level (dB); target: at least 2, met)" in text
    assert "with strength 0, 0.5, 1 the mean shift of all is monotone" in text
    assert "by FiLM alone an emotion moves 2 measures" in text
    shown = conditioning.moved_table(table)
    assert list(shown["measure"][:4]) == list(prosody.PROSODY.values())
    assert all("(" in unit or "per" in unit for unit in shown["measure"])  # each measure with its unit
    assert shown.drop(columns="measure").equals(table.drop(columns="measure"))
    nothing = conditioning.moved(spoken(0.0))
    assert not (nothing["as_trained"] & (nothing["p_holm"] < 0.01)).any()


def test_a_trial_says_one_utterance_plainly_and_as_wished(monkeypatch):
    torch.manual_seed(0)
    network = backbone.build(TINY.backbone).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    adapters = Adapters(config.Adapters(film_width=8), network.transformer)
    with torch.no_grad():
        for parameter in adapters.film.parameters():
            torch.nn.init.normal_(parameter)
    profile = replace(TINY, inference=replace(TINY.inference, use_adapters=True))
    decoder = vocoder.build(TINY.vocoder).eval()
    pipeline = PersonaVoice(profile, network, decoder, Recogniser(), Encoder(), adapters=adapters)
    monkeypatch.setattr(prosody, "speaking", lambda wave, text: {"f0": 123.0})
    monkeypatch.setattr(prosody, "sounding", lambda wave: {"snr": 7.0})
    shown = []
    monkeypatch.setattr(
        conditioning.listen, "players", lambda waves, captions: shown.append((waves, captions))
    )
    asked = Request("u", "s", "good day to you", babble(1.0), None, seed=1, words=4, bucket="short")
    conditioning.trial(pipeline, asked, "angry", 0.5, env_weight=0.25, guidance=2.0)
    conditioning.trial(pipeline, asked, gate="off")
    (wished, captions), (shut, _) = shown
    assert list(wished) == ["plain, guidance 2", "gate always, angry 0.5, env_weight 0.25"]
    assert set(captions.values()) == {"median F0 (Hz) 123.00; signal to noise (dB) 7.00"}
    (plain, other), (same, again) = wished.values(), shut.values()
    assert len(plain) != len(other) or np.abs(plain - other).max() > 1e-3
    np.testing.assert_array_equal(same, again)
    assert conditioning.COMMAND in conditioning.trial(None, asked).data or conditioning.trained()


def test_without_weights_everything_is_empty_and_says_how_to_train(tmp_path, monkeypatch):
    monkeypatch.setattr(conditioning.hub.paths, "CHECKPOINTS", tmp_path)
    assert conditioning.voice("mini") is None
    rows = pd.DataFrame({"speaker": ["a"], "room": ["hall"]})
    read = conditioning.probes(config.MINI, rows, torch.randn(1, 192))
    weighed, said = conditioning.weighed(None, []), conditioning.spoken(None, [])
    moved, drifting = conditioning.moved(said), conditioning.drift(None, [])
    texts = [
        conditioning.probes_text(read),
        conditioning.weighed_text(weighed),
        conditioning.moved_text(moved, said),
        conditioning.drift_text(drifting),
    ]
    assert all("pvlib train adapters" in text for text in texts)
    assert conditioning.weighed_table(weighed).empty
    for figure in (conditioning.moved_figure(moved), conditioning.weighed_figure(weighed)):
        assert "pvlib train adapters" in figure.axes[0].get_title()


def test_axes_have_units():
    weighed = pd.DataFrame({"utterance": ["a", "a"], "env_weight": [0.0, 1.0]}).assign(
        **dict.fromkeys(prosody.ROOM, 1.0)
    )
    axes = conditioning.weighed_figure(weighed).axes
    assert {ax.get_xlabel() for ax in axes} == {"env_weight (share of the room)"}
    assert [ax.get_ylabel() for ax in axes] == list(prosody.ROOM.values())
    assert all("(" in unit for unit in prosody.ROOM.values())
    torch.manual_seed(0)
    (ax,) = conditioning.untrained_figure(torch.randn(5, 192), bases=2).axes
    assert ax.get_ylabel() == "pairs of clip and basis (count)" and "cosine" in ax.get_xlabel()


def test_a_share_is_spoken_of_a_complete_study_and_two_of_another():
    assert [conditioning.size("mini", n) for n in (1, 40, 200)] == [1, 2, 20]


def test_a_clip_that_cannot_be_cloned_is_no_request():
    class Deaf:
        def reference(self, clip, name):
            if name != f"the clip of {names[0]}":
                return
            raise AudioError("nobody speaks")

    names = [request.utterance for request in conditioning.requests("mini", 3, 42, "short")]
    found = conditioning.requests("mini", 2, 42, "short", pipeline=Deaf())
    assert [request.utterance for request in found] == names[1:]


def test_an_error_rate_that_few_utterances_cannot_give_is_not_told_as_a_number():
    columns = {"cosine": [0.99, 0.9], "speaker EER": [0.1, 0.3], "speaker EER, whole": [0.1, 0.2]}
    table = pd.DataFrame({"env_scale": conditioning.SCALES, **columns})
    assert "changes by +0.100" in conditioning.untrained_text(table)
    few = conditioning.untrained_text(table.assign(**{"speaker EER": np.nan}))
    assert "cannot be told from so few utterances" in few and "nan" not in few


def test_a_measure_of_the_room_that_goes_the_other_way_is_told():
    """Twelve utterances whose room comes back: worse background, as expected; less noise; the same decay."""
    quiet = pd.DataFrame(
        {"utterance": [f"u{k}" for k in range(12)], "speaker": [f"s{k // 2}" for k in range(12)]}
    )
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 12))
    first = quiet.assign(env_weight=0.0, background=4 + noise[0], snr=30 + noise[1], t60=0.3)
    last = quiet.assign(env_weight=1.0, background=3.5, snr=35.0, t60=0.3 + np.tile([1, -1], 6) * 0.01)
    told = conditioning.weighed_text(pd.concat([first, last]))
    assert told.count("n = 12; ") == 3
    assert "(n = 12; as expected)" in told.partition("decay")[0]
    assert "(n = 12; not shown)" in told.partition("decay")[2].partition("signal")[0]
    assert "(n = 12; **the other way**)" in told.partition("signal")[2]
