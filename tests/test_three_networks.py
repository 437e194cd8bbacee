"""What notebook 11 shows of SV2TTS, on networks that the tests make themselves."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from babble import babble
from test_sv2tts import TINY, checkpoints, tiny  # noqa: F401

from pvlib import audio, hub, paths, vocoder
from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.metrics import prosody
from pvlib.study import three_networks, toolbox, voiceprints
from pvlib.study.look import keep
from pvlib.systems.base import Request, Result
from pvlib.systems.sv2tts import weights
from pvlib.systems.sv2tts.attention import Failures
from pvlib.systems.sv2tts.encoder import Voiceprint


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A profile whose vocoder is there, and none of the three networks."""
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    torch.manual_seed(0)
    hub.save_weights("vocoder", TINY, vocoder.build(TINY.vocoder).state_dict(), {})
    return three_networks.stages(TINY)


@pytest.fixture
def request_of(tmp_path):
    path = audio.write(tmp_path / "true.wav", babble(1.5))

    def make(
        name: str, bucket: str = "short", text: str = "A lamp.", clip: np.ndarray | None = None
    ) -> Request:
        clip = babble(1.0) if clip is None else clip
        return Request(name, name[:2], text, clip, path, 3, len(text.split()), bucket)

    return make


def drawn(figure, tmp_path) -> int:
    return len(keep(figure, "x", tmp_path).data)


# Pitch


@pytest.mark.parametrize("depth", [0.5, 3.0])
def test_the_deviation_of_a_known_pitch(depth):
    """A tone that swings by `depth` semitones around 150 Hz deviates by depth / sqrt 2."""
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    pitch = 150 * 2 ** (depth * np.sin(2 * np.pi * 1.5 * t) / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    wave = sum(np.sin(k * phase) / k for k in range(1, 8)).astype(np.float32) / 3
    assert prosody.pitch_deviation(wave) == pytest.approx(depth / np.sqrt(2), rel=0.1, abs=0.05)
    assert np.median(prosody.semitones(wave)) == pytest.approx(12 * np.log2(150 / 60), abs=0.3)


def test_noise_has_no_pitch_and_nothing_is_refused():
    noise = (0.1 * np.random.default_rng(0).normal(size=12_000)).astype(np.float32)
    assert np.isnan(prosody.pitch_deviation(noise)) or prosody.pitch_deviation(noise) > 0
    assert np.isnan(prosody.pitch_deviation(np.zeros(500, np.float32)))
    for bad in (np.zeros(0), np.full(9, np.nan)):
        with pytest.raises(AudioError, match="finite mono"):
            prosody.semitones(bad)


# Voices


def test_the_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(256, 256)))[0]
    spread = np.r_[3.0, 2.0, np.full(254, 0.01)]
    points = torch.from_numpy((rng.normal(size=(60, 256)) * spread) @ axes.T).float()
    heard = voiceprints.Heard(("a",) * 60, points, np.zeros(60, bool))
    centred = (points - points.mean(0)).numpy()
    true = centred @ axes[:, :2]  # the plane may be turned, but distances in it stay
    assert np.allclose(heard.plane @ heard.plane.T, true @ true.T, atol=0.05)
    assert heard.plane_share > 0.99


def test_verification_counts_the_right_trials():
    """Two speakers, two recordings each with their clips; everything of one speaker is the same vector."""
    speakers = ("a",) * 4 + ("b",) * 4
    vectors = torch.eye(256)[[0] * 4 + [1] * 4]
    heard = voiceprints.Heard(speakers, vectors, np.array([False, True] * 4))
    table = voiceprints.verification({"E": heard}).set_index("trials")
    assert table.loc["whole recordings", "n"] == 6
    assert table.loc["one second against whole", "n"] == 4 * 3  # never the recording that it was cut from
    assert (table["same speaker"] == 1).all() and (table["another speaker"] == 0).all()
    assert (table["equal error rate"] == 0).all()
    assert "E 0.0% [0.0%, 0.0%] (whole recordings, n = 6)" in voiceprints.clusters(table.reset_index())


def test_pictures_of_voices(tmp_path):
    partials = torch.nn.functional.normalize(torch.randn(3, 256), dim=-1)
    print_ = Voiceprint(partials.mean(0), partials, torch.tensor([[0.0, 1.6], [0.8, 2.4], [1.6, 3.2]]))
    figure = voiceprints.windows_figure(print_, babble(3.0))
    assert [line.get_xdata()[0] for line in figure.axes[1].lines[:3]] == pytest.approx([0.0, 0.8, 1.6])
    heard = voiceprints.Heard(("a", "a", "b", "b"), torch.randn(4, 256), np.array([False, True] * 2))
    assert drawn(figure, tmp_path) > 3000 < drawn(voiceprints.plane_figure({"E": heard}), tmp_path)


# Where nothing is trained


def test_without_weights_everything_says_what_is_missing(bare, request_of, tmp_path):
    assert three_networks.missing(TINY) == list(weights.NAMES) and bare.voice() is None
    assert list(bare.encoders) == ["Resemblyzer"] and list(bare.vocoders) == ["Vocos", "Griffin-Lim"]
    states = three_networks.inventory(bare)["state"].tolist()
    assert sum("`pvlib train sv2tts-" in state for state in states) == 3
    note = three_networks.lacking("sv2tts-synthesizer", TINY)
    made = three_networks.spoken(TINY, 4, 0)
    assert made is None and "`pvlib train sv2tts-synthesizer`" in note
    for figure in (
        three_networks.pieces_figure([], note),
        three_networks.prosody_figure(three_networks.prosody_table(made), note),
    ):
        assert figure.axes[0].texts[0].get_text() == note and drawn(figure, tmp_path) > 1000
    assert note in three_networks.attention(three_networks.failure_table(made), note)
    assert note in three_networks.prosody(three_networks.prosody_table(made), note)
    table, sounds = three_networks.swaps(bare, request_of("u1"))
    assert table.empty and not sounds
    timed = three_networks.folding(bare, babble(1.0), 1.0)
    assert "not timed: no" in three_networks.folded(timed, "no")
    copies, sounds = three_networks.sound_again(bare, babble(1.0))
    assert list(copies.index) == list(sounds) == ["original", "Vocos", "Griffin-Lim"]
    near = copies["mel distance (nat)"]
    assert near["Griffin-Lim"] < near["Vocos"]  # whose weights are random
    assert "only" not in note and "for this one" in three_networks.lacking("sv2tts-vocoder", _published())


def _published():
    from pvlib.config import get_profile

    return get_profile("paper")


def test_the_toolbox_sends_the_clip_through_a_vocoder(bare):
    bench = toolbox.Toolbox(bare, babble(1.0), "A lamp.")
    bench.vocoder = "Griffin-Lim"
    page = bench.speak().data
    assert page.count("<audio") == 2 and "`pvlib train sv2tts-synthesizer`" in page
    with pytest.raises(AudioError, match="notes.txt"):
        bench.load(b"no sound", "notes.txt")
    assert np.array_equal(bench.clip, babble(1.0))
    buffer = io.BytesIO()
    soundfile.write(buffer, babble(2.0), SAMPLE_RATE, format="WAV", subtype="FLOAT")
    bench.load(buffer.getvalue(), "mine.wav")
    assert np.allclose(bench.clip, babble(2.0), atol=1e-6)


# Where all are


@pytest.fixture
def whole(checkpoints):  # noqa: F811
    weights.save("sv2tts-encoder", WIDE, torch_state("sv2tts-encoder"), {})
    return three_networks.stages(WIDE)


WIDE = replace(TINY, sv2tts_encoder=replace(TINY.sv2tts_encoder, embedding_dim=256))


def torch_state(name: str) -> dict[str, torch.Tensor]:
    from pvlib.systems.sv2tts import encoder

    torch.manual_seed(0)
    return encoder.build(WIDE.sv2tts_encoder).state_dict()


def test_stages_are_swapped(whole, request_of, tmp_path):
    assert not three_networks.missing(WIDE)
    assert set(three_networks.inventory(whole)["state"]) == {
        "its package's weights",
        "trained",
        "the project's own",
        "nothing to learn",
    }
    few = replace(whole, vocoders={k: whole.vocoders[k] for k in ("Vocos", "Griffin-Lim")})
    table, sounds = three_networks.swaps(few, request_of("u1", text="Go."))
    assert len(table) == len(sounds) == 4 and table["SECS (GE2E)"].between(-1, 1).all()
    lengths = {len(wave) for wave in sounds.values()}
    assert len(lengths) == 1 and (table["attention failures"] >= 1).all()  # it never stops by itself
    figure = three_networks.pieces_figure(whole.voice().clone(babble(1.0), "Go.", 0).pieces)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == list("go.") and drawn(figure, tmp_path) > 3000


def test_folding_is_timed_on_the_same_mel(whole):
    turns = iter([1.0, 12.0, 3.0, 10.0, 2.0, 11.0])
    spoken = three_networks._timed

    def at_this_pace(*given):
        return spoken(*given)[0], next(turns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(three_networks, "_timed", at_this_pace)
        patch.setattr(three_networks, "LONG_FOLDING", 0.4)
        paced = three_networks.folding(whole, babble(0.3), 0.4)
        assert paced["computing (s)"].tolist() == [2.0, 11.0]  # the medians, and both speak in each turn
        turns = iter([1.0, 12.0])
        once = three_networks.folding(whole, babble(0.3), 0.3)
        assert once["computing (s)"].tolist() == [1.0, 12.0]
    timed = three_networks.folding(whole, babble(0.3), 0.4)
    assert list(timed.index) == ["folded", "in one piece"] and (timed["computing (s)"] > 0).all()
    assert timed["length (s)"].tolist() == pytest.approx([0.4, 0.4], abs=0.02)
    assert "times faster" in three_networks.folded(timed, "")
    assert three_networks.folding_length(TINY, 40) < three_networks.folding_length(TINY, TINY.samples)


def test_folding_is_timed_once_and_again_where_something_changed(whole, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "WORKING_ROWS", tmp_path)
    asked: list[float] = []

    def timed(found, wave, seconds, seed=0, progress=True):
        asked.append(seconds)
        table = {"WaveRNN": ["folded", "in one piece"], "computing (s)": [0.5 * len(asked), 3.0]}
        return pd.DataFrame(table).set_index("WaveRNN")

    monkeypatch.setattr(three_networks, "folding", timed)
    wave = babble(0.3)
    first = three_networks.folding_kept(whole, wave, 0.4)
    pd.testing.assert_frame_equal(three_networks.folding_kept(whole, wave, 0.4), first)
    assert asked == [0.4]
    for changed in ((wave / 2, 0.4), (wave, 0.5), (wave, 0.4, 1)):
        three_networks.folding_kept(whole, *changed)
    assert len(asked) == 4
    (tmp_path / TINY.name / "folding.json").write_text("{")
    assert three_networks.folding_kept(whole, wave, 0.4)["computing (s)"].tolist() == [2.5, 3.0]


# What is counted


def test_what_is_left_for_wavernn_is_drawn_below_the_sound(tmp_path):
    wave = np.concatenate([np.zeros(6000, np.float32), babble(0.5), np.zeros(6000, np.float32)])
    figure = three_networks.news_figure(TINY, wave)
    above, below = figure.axes
    (truth, foretold), (left,) = above.lines, below.lines
    np.testing.assert_allclose(truth.get_ydata() - foretold.get_ydata(), left.get_ydata(), atol=1e-6)
    quieter = 10 * np.log10(np.mean(truth.get_ydata() ** 2) / np.mean(left.get_ydata() ** 2))
    assert f"{quieter:.0f} dB quieter" in below.get_title() and quieter > 6
    assert "amplitude" in figure.get_supylabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["true samples", "foretold"]
    assert above.get_legend() is None  # which would lie on the curve
    assert np.abs(truth.get_ydata()).max() > 0.05  # of the speech, not of the silence around it
    assert drawn(figure, tmp_path) > 5000
    with pytest.raises(ValueError, match="700 samples is too short for a picture of 40 ms"):
        three_networks.news_figure(TINY, wave[:700])
    with pytest.raises(ValueError, match="silent"):
        three_networks.news_figure(TINY, np.zeros(4000, np.float32))


def test_failures_are_counted_by_length_and_refusals_apart(request_of):
    requests = [request_of("u1", "long"), request_of("u2", "short"), request_of("u3", "short")]
    wave = babble(1.0)
    results = [Result(wave, "", 1.0), Result(wave, "", 1.0), Result(None, "", 0.1, "no speech")]
    made = three_networks.Spoken(requests, results, {"u1": Failures(2, 1, 0), "u2": Failures()})
    table = three_networks.failure_table(made)
    assert table.loc["long"].tolist() == [1, 2, 1, 0, 1, 0]
    assert table.loc["short"].tolist() == [2, 0, 0, 0, 0, 1]
    assert table.loc["all"].tolist() == [3, 2, 1, 0, 1, 1]
    sentence = three_networks.attention(table, "")
    assert sentence == "Attention failed in 1 of 3 utterances: 2 skips, 1 repeat, 0 runaways."


def test_monotone_speech_is_told_from_lively_speech(request_of):
    def swinging(depth: float) -> np.ndarray:
        t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        phase = 2 * np.pi * np.cumsum(150 * 2 ** (depth * np.sin(2 * np.pi * 2 * t) / 12)) / SAMPLE_RATE
        return (sum(np.sin(k * phase) / k for k in range(1, 6)) / 3).astype(np.float32)

    requests = [request_of(f"u{k}") for k in range(3)]
    for k, request in enumerate(requests):
        path = audio.write(request.audio_path.with_name(f"{k}.wav"), swinging(3 + 0.1 * k))
        requests[k] = replace(request, audio_path=path)
    results = [Result(swinging(0.5 + 0.1 * k), "", 1.0) for k in range(3)]
    table = three_networks.prosody_table(three_networks.Spoken(requests, results, {}))
    assert (table["pitch"] < table["true pitch"]).all() and len(table) == 3
    assert "**less** than the truth" in three_networks.prosody(table, "")
    often = pd.concat([table.assign(utterance=f"u{k}", speaker=f"s{k}") for k in range(6)])
    octave = pd.concat(
        [often, often.head(3).assign(speaker="s9", pitch=60.0)]
    )  # the tracker lost one speaker
    assert octave["pitch"].mean() > octave["true pitch"].mean()
    told = three_networks.prosody(octave, "")
    assert "**less** than the truth" in told and f"by {octave['pitch'].median():.2f} semitones" in told
    assert (
        f"median difference {(octave['pitch'] - octave['true pitch']).median():+.2f} (95 % interval -" in told
    )
    halved = table.assign(seconds=table["true seconds"] * [0.5, 0.8, 1.1])
    assert three_networks.pace(halved, "").endswith(
        "0.80 times as long as its true recording (median of 3; the middle half 0.65 to 0.95); 67% are shorter than "
        "the truth."
    )
    assert three_networks.pace(table.head(0), "no").endswith("not measured: no")
    assert three_networks.prosody_figure(table).axes[0].collections
