"""SV2TTS: its formulas against direct evaluations, its networks against torchaudio's, its trainers, and the system."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.signal
import torch
import torchaudio
from babble import babble
from torchaudio.models import Tacotron2

from pvlib import audio, cli, frontend, hub, paths, systems, vocoder
from pvlib.config import (
    MINI,
    AttentionLimits,
    ConfigError,
    Folding,
    GE2ENetwork,
    Synthesizer,
    Vocoder,
    WaveRNN,
)
from pvlib.metrics.eer import equal_error_rate
from pvlib.study import cards, look, sweeps, tables
from pvlib.study import evaluate as study
from pvlib.systems.base import Request, System
from pvlib.systems.sv2tts import (
    encoder,
    pipeline,
    prediction,
    sparse,
    synthesizer,
    vocoders,
    wavernn,
    weights,
)
from pvlib.systems.sv2tts.attention import Failures, failures, guided_loss
from pvlib.systems.sv2tts.system import SV2TTSGriffinLim, SV2TTSSystem, SV2TTSWaveRNN
from pvlib.text import TextError, TextWarning
from pvlib.training import eight_bits
from pvlib.training.sv2tts_encoder import GE2ELoss

TINY = replace(
    MINI,
    name="tiny",
    vocoder=Vocoder(dim=16, intermediate_dim=32, num_layers=1),
    sv2tts_encoder=GE2ENetwork(hidden=8, layers=1, embedding_dim=16, window_frames=30, step_frames=15),
    sv2tts_synthesizer=Synthesizer(
        text_dim=16,
        encoder_layers=1,
        prenet_dim=8,
        attention_rnn_dim=16,
        attention_dim=8,
        location_filters=2,
        location_kernel=5,
        decoder_dim=16,
        postnet_dim=8,
        postnet_layers=2,
        max_chars=40,
    ),
    sv2tts_vocoder=WaveRNN(n_rnn=16, n_fc=16, res_blocks=1, res_hidden=16),
)
BUILDERS = {
    "sv2tts-encoder": (encoder.build, TINY.sv2tts_encoder),
    "sv2tts-synthesizer": (synthesizer.build, TINY.sv2tts_synthesizer),
    "sv2tts-vocoder": (wavernn.build, TINY.sv2tts_vocoder),
}


def tiny(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    build, config = BUILDERS[name]
    return build(config).eval()


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=-1)


# Stage 1: windows, the GE2E loss, clusters


def test_ge2e_loss_is_the_formula_of_the_paper():
    n, m, w, b = 4, 3, 7.5, -2.0
    embeddings = unit(n, m, 5)
    e = embeddings.double().numpy()

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    total = 0.0
    for j in range(n):
        for i in range(m):
            scores = []
            for k in range(n):
                own = [e[k, l] for l in range(m) if not (k == j and l == i)]  # noqa: E741
                scores.append(w * cosine(e[j, i], np.mean(own, axis=0)) + b)
            total += -scores[j] + np.log(np.sum(np.exp(scores)))
    loss = GE2ELoss(w, b)
    value = loss(embeddings)
    assert float(value.detach()) * n * m == pytest.approx(total, rel=1e-5)
    value.backward()
    assert loss.w.grad.abs() > 0 and float(GE2ELoss(-3.0).similarities(embeddings).std()) < 1e-5
    with pytest.raises(ValueError, match="two utterances"):
        loss(embeddings[:, :1])


def test_windows_are_those_of_resemblyzer():
    from resemblyzer import VoiceEncoder

    step = round(16_000 / 1.3 / 160)
    for frames in (5, 90, 160, 161, 230, 237, 250, 290, 350, 1000):
        _, spans = VoiceEncoder.compute_partial_slices(160 * frames - 1, 1.3, 0.75)
        assert encoder.windows(frames, 160, step, 0.75) == [span.start for span in spans]


def test_resemblyzer_shows_its_windows():
    heard = encoder.Resemblyzer().voiceprint(babble(3.0))
    assert heard.partials.shape == (len(heard.windows), 256) and len(heard.windows) == 3
    expected = torch.nn.functional.normalize(heard.partials.mean(0), dim=0)
    torch.testing.assert_close(heard.embedding, expected, atol=1e-5, rtol=1e-5)
    assert heard.windows[0].tolist() == pytest.approx([0.0, 1.6]) and heard.windows[1, 0] == pytest.approx(
        0.77
    )


def test_the_own_encoder_averages_windows_and_ignores_the_level():
    own, wave = tiny("sv2tts-encoder"), babble(1.0)
    heard = own.voiceprint(wave)
    mel = audio.mel(torch.from_numpy(wave))[0].T
    second = own(mel[None, 15:45])[0]
    torch.testing.assert_close(heard.partials[1], second, atol=1e-5, rtol=1e-4)
    assert heard.windows[1].tolist() == pytest.approx([15 * 256 / 24_000, 45 * 256 / 24_000])
    assert float(heard.embedding.norm()) == pytest.approx(1)
    assert float(heard.embedding @ own.voiceprint(0.5 * wave).embedding) > 0.999
    padded = own.voiceprint(wave[:9_600])  # 38 frames: the second window is filled with silence
    assert len(padded.windows) == 2 and float(padded.windows[1, 1]) > 0.4
    with pytest.raises(audio.AudioError, match="the recording is silent"):
        own.voiceprint(np.zeros(24_000, np.float32))


def test_the_loss_makes_speakers_cluster():
    """Eight speakers, each a colour of its own in loud noise: heard apart after some steps, on noise never seen."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(8, 1, 1, 100, generator=generator)

    def speech(m: int) -> torch.Tensor:
        return (colours + 2.0 * torch.randn(8, m, 12, 100, generator=generator)).flatten(0, 1)

    labels = np.arange(8).repeat(6)
    same, pairs = labels[:, None] == labels, np.triu(np.ones((48, 48), dtype=bool), 1)

    def error() -> float:
        with torch.no_grad():
            found = network(speech(6)).numpy()
        return equal_error_rate((found @ found.T)[pairs], same[pairs])

    network, loss_of = tiny("sv2tts-encoder"), GE2ELoss()
    optimizer = torch.optim.Adam([*network.parameters(), *loss_of.parameters()], lr=1e-2)
    before = error()
    for _ in range(40):
        optimizer.zero_grad()
        loss_of(network(speech(4)).unflatten(0, (8, 4))).backward()
        optimizer.step()
    assert before > 0.2 and error() < 0.05


# Stage 2: Tacotron 2 with a voice


def batch_of(model: synthesizer.Synthesizer, frames: int = 24) -> tuple[torch.Tensor, ...]:
    tokens, lengths = model.encode(["a red fox", "the quiet river"])
    return tokens, lengths, torch.randn(2, frames, 100), unit(2, 256)


def test_the_voice_stands_beside_the_text_at_every_character():
    model = tiny("sv2tts-synthesizer")
    tokens, lengths, _, speakers = batch_of(model)
    beside = model.beside(tokens, lengths, speakers)
    assert beside.shape == (2, 15, 16 + 256)
    for n in range(15):
        assert torch.equal(beside[:, n, 16:], synthesizer.VOICE_GAIN * speakers)
    other = model.beside(tokens, lengths, unit(2, 256, seed=5))
    assert torch.equal(beside[..., :16], other[..., :16])
    memory = model.memory(tokens, lengths, speakers)
    assert memory.shape == beside.shape
    torch.testing.assert_close(
        memory[:1, :9], model.memory(tokens[:1, :9], lengths[:1], speakers[:1]), atol=1e-5, rtol=1e-4
    )
    model.meeting[-1].weight.data.zero_()
    torch.testing.assert_close(model.memory(tokens, lengths, speakers) - model.meeting[-1].bias, beside)


def test_another_voice_changes_every_decoder_step():
    model = tiny("sv2tts-synthesizer")
    tokens, lengths, mel, speakers = batch_of(model)
    made = []
    for voice in (speakers, unit(2, 256, seed=5)):
        torch.manual_seed(3)
        made.append(model(tokens, lengths, mel, voice)[0].unflatten(1, (-1, 4)))  # (b, t, r, 100)
    assert ((made[0] - made[1]).abs().amax((2, 3)) > 1e-6).all()


@pytest.mark.parametrize("per_step", [1, 4])
def test_the_network_is_torchaudios(per_step):
    """The same numbers as torchaudio's own forward and infer, once its encoder gives what our decoder reads."""
    config = replace(TINY.sv2tts_synthesizer, frames_per_step=per_step)
    torch.manual_seed(0)
    model = synthesizer.build(config).eval()
    reference = Tacotron2(
        n_mels=100,
        n_symbol=len(config.vocabulary) + 1,
        n_frames_per_step=per_step,
        symbol_embedding_dim=16,
        encoder_embedding_dim=16 + 256,
        decoder_rnn_dim=16,
        attention_rnn_dim=16,
        attention_hidden_dim=8,
        attention_location_n_filter=2,
        attention_location_kernel_size=5,
        prenet_dim=8,
        postnet_n_convolution=2,
        postnet_embedding_dim=8,
        decoder_max_step=6,
    ).eval()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(("encoder.", "meeting."))}
    assert not reference.load_state_dict(state, strict=False).unexpected_keys
    tokens, lengths, mel, speakers = batch_of(model)
    memory = model.memory(tokens, lengths, speakers)

    class Given(torch.nn.Module):
        def forward(self, *_):
            return memory

    reference.encoder = Given()
    view = mel.transpose(1, 2)
    torch.manual_seed(3)
    expected = reference(tokens, lengths, view, torch.tensor([24, 24]))
    torch.manual_seed(3)
    made = model(tokens, lengths, mel, speakers)
    for ours, theirs in zip(made[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours.transpose(1, 2), theirs)
    torch.testing.assert_close(made[2:], tuple(expected[2:]))
    assert made[2].shape == (2, 24 // per_step) and made[3].shape == (2, 24 // per_step, 15)

    memory = memory[:1, :9]
    model.limits = AttentionLimits(seconds_per_char=0.0, seconds_more=5.5 * per_step * 256 / 24_000)
    model.decoder.gate_threshold = reference.decoder.gate_threshold = 2.0  # never stops by itself
    with torch.no_grad():
        torch.manual_seed(7)
        with pytest.warns(UserWarning, match="max decoder steps"):
            theirs, _, alignment = reference.infer(tokens[:1, :9], lengths[:1])
    piece = model.infer("a red fox", speakers[0], seed=7)
    assert piece.mel.shape == (6 * per_step, 100) and not piece.stopped
    torch.testing.assert_close(
        synthesizer.scaled(piece.mel).T, theirs[0].clamp(min=synthesizer.SILENCE), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(piece.alignment, alignment[0], atol=1e-5, rtol=1e-4)


def test_told_where_it_looks_the_decoder_says_the_same_all_at_once(monkeypatch):
    """Step by step with its own attention, then all steps told that attention: one mel, one end, one next look."""
    model = tiny("sv2tts-synthesizer")
    tokens, lengths, mel, speakers = batch_of(model)
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)  # the prenet's never ends
    before, after, stop, attention = model(tokens, lengths, mel, speakers)
    memory = model.memory(tokens, lengths, speakers)
    told, ends, state = model.told(memory, mel, attention)
    torch.testing.assert_close(told, before)
    torch.testing.assert_close(ends, stop)
    torch.testing.assert_close(model.polished(told), after)
    torch.testing.assert_close(model.looks(state, memory, lengths, attention).exp(), attention)
    assert attention[0, :, 9:].max() == 0 and attention.std() > 0
    told.sum().backward()
    assert model.decoder.attention_rnn.weight_hh.grad.abs().sum() > 0


def test_frames_must_fill_the_steps_and_scaling_has_an_inverse():
    model = tiny("sv2tts-synthesizer")
    tokens, lengths, mel, speakers = batch_of(model)
    with pytest.raises(ValueError, match="23 frames are no multiple of 4"):
        model(tokens, lengths, mel[:, :23], speakers)
    mel = torch.linspace(np.log(audio.MEL_FLOOR), 4, 50)
    torch.testing.assert_close(synthesizer.unscaled(synthesizer.scaled(mel)), mel, atol=1e-5, rtol=1e-5)
    assert float(synthesizer.scaled(mel)[0]) == pytest.approx(synthesizer.SILENCE)


def test_a_long_text_is_split_and_it_says_so():
    model = tiny("sv2tts-synthesizer")
    model.limits = AttentionLimits(seconds_per_char=0.01, seconds_more=0.1)
    text = "The quiet river keeps its secrets, and the old lamp keeps the door."
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.warns(
        TextWarning, match="more than the 40 of the synthesizer's training: it is spoken in 2 pieces"
    ):
        pieces = model.speak(text, unit(256), seed=1)
    assert torch.equal(torch.rand(3), expected)  # the caller's random state is left alone
    said = [piece.text for piece in pieces]
    assert said == ["the quiet river keeps its secrets.", "and the old lamp keeps the door."]
    for piece in pieces:
        assert piece.alignment.shape == (len(piece.mel) / 4, len(piece.text))
        torch.testing.assert_close(piece.alignment.sum(1), torch.ones(len(piece.alignment)))
    model.decoder.gate_threshold = 2.0  # never stops by itself, so that lengths agree
    first, again, other = (model.speak("a lamp.", unit(256), seed)[0].mel for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(TextError):
        model.speak("...", unit(256))


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("the old lamp.", "the old lamp."),
        ("why?", "why?"),
        ("no!", "no!"),
        ("down by the river,", "down by the river."),
        ("down by the river -", "down by the river."),
        ("down by the", "down by the."),
        ("the dogs'", "the dogs'."),
    ],
)
def test_every_piece_ends_a_sentence(piece, expected):
    assert synthesizer.ended(piece) == expected


# Attention: what guides it, and how it fails


def test_guided_attention_costs_what_is_away_from_the_truth():
    """Per row and true step the cross-entropy of torch, and of a certain step what its own probability says."""
    texts, steps = [7, 4], [9, 5]
    generator = torch.Generator().manual_seed(0)
    energies, attention = torch.randn(2, 9, 7, generator=generator), torch.rand(2, 9, 7, generator=generator)
    energies[1, :, 4:] = -torch.inf  # the decoder looks at no padding
    attention[1, :, 4:] = 0
    attention /= attention.sum(2, keepdim=True)
    attention[0, 3] = torch.nn.functional.one_hot(torch.tensor(2), 7)
    costs = [
        torch.nn.functional.cross_entropy(energies[row, t, :nt], attention[row, t, :nt])
        for row, (nt, t_all) in enumerate(zip(texts, steps, strict=True))
        for t in range(t_all)
    ]
    looks = energies.log_softmax(2).requires_grad_()
    found = guided_loss(looks, attention, torch.tensor(steps))
    assert float(found) == pytest.approx(float(sum(costs)) / sum(steps), rel=1e-5)
    assert float(costs[3]) == pytest.approx(-float(looks[0, 3, 2]), rel=1e-5)
    found.backward()
    assert torch.isfinite(looks.grad).all()


def alignment(path: list[int], chars: int) -> np.ndarray:
    """A somewhat blurred alignment along a path."""
    place = np.arange(chars)
    made = np.exp(-((place - np.asarray(path)[:, None]) ** 2) / 0.5)
    return made / made.sum(1, keepdims=True)


DIAGONAL = list(range(30))


@pytest.mark.parametrize(
    ("path", "stopped", "expected"),
    [
        (DIAGONAL, True, Failures()),
        ([k // 2 for k in range(60)], True, Failures()),
        (DIAGONAL[:10] + DIAGONAL[17:], True, Failures(skips=1)),  # a word left out
        (DIAGONAL[:6] + DIAGONAL[13:18] + DIAGONAL[26:], True, Failures(skips=2)),
        (DIAGONAL[:20], True, Failures(skips=1)),  # the end is never reached
        (DIAGONAL[:20] + DIAGONAL[10:], True, Failures(repeats=1)),
        (DIAGONAL[:15] + DIAGONAL[8:20] + DIAGONAL[5:], True, Failures(repeats=2)),
        (DIAGONAL[:15] + [3] + DIAGONAL[15:], True, Failures()),  # one step astray is no repeat
        (DIAGONAL[:15] + [15] * 30 + DIAGONAL[15:], True, Failures(runaways=1)),  # rests for 1.3 s
        (DIAGONAL + [29, 28] * 15, False, Failures(runaways=1)),  # rests at the end and does not stop
        (DIAGONAL, False, Failures(runaways=1)),
    ],
)
def test_attention_failures_are_counted(path, stopped, expected):
    assert failures(alignment(path, 30), stopped, frames_per_step=4) == expected


def test_failures_add_up_and_refuse_what_is_no_alignment():
    assert Failures(1, 2, 3) + Failures(1, 0, 0) == Failures(2, 2, 3) and Failures(1, 2, 3).total == 6
    with pytest.raises(ValueError, match="steps, chars"):
        failures(np.zeros((0, 4)), True, 4)


# Stage 3: WaveRNN


def test_all_16_bit_values_survive_the_two_parts():
    codes = np.arange(65_536)
    parts = torch.from_numpy(np.stack(np.divmod(codes, 256), 1))
    wave = wavernn.to_wave(parts)
    assert torch.equal(wavernn.to_parts(wave), parts)
    places = torch.from_numpy(codes / 65_536 * 255)  # the library's law, at its 8 bits and between them
    torch.testing.assert_close(wave, torchaudio.functional.mu_law_decoding(places, 256).float())
    assert (
        wave.diff().min() * 40 < 1 / 32_768 < wave.diff().max()
    )  # finer than linear 16 bits where it is quiet
    assert wavernn.to_parts(torch.tensor([-3.0, 0.0, 3.0])).tolist() == [[0, 0], [128, 0], [255, 255]]


def test_the_coarse_part_alone_is_speech_with_little_noise():
    wave = torch.from_numpy(babble(2.0)) / 4
    parts = wavernn.to_parts(wave)
    parts[..., 1] = 128
    linear = (torch.floor(wave * 128) + 0.5) / 128  # eight bits evenly spaced

    def above_noise(made: torch.Tensor) -> float:
        return float(10 * torch.log10(wave.square().mean() / (made - wave).square().mean()))

    assert above_noise(wavernn.to_wave(parts)) > 35 > above_noise(linear) + 10  # dB


def test_raised_tones_come_down_again():
    wave = torch.from_numpy(babble())[None]
    high = prediction.raised(wave)
    torch.testing.assert_close(prediction.lowered(high), wave, atol=1e-4, rtol=0)
    torch.testing.assert_close(high[:, 1:], wave[:, 1:] - 0.85 * wave[:, :-1])


def test_the_filters_of_a_mel_foretell_its_sound():
    """Sound of a known resonance: the filter has it, and little is left that it does not foretell."""
    rng = np.random.default_rng(0)
    radius, angle = 0.97, 2 * np.pi * 3000 / 24_000
    poles = [1, -2 * radius * np.cos(angle), radius**2]
    wave = torch.from_numpy(0.01 * scipy.signal.lfilter([1], poles, rng.standard_normal(24_000))).float()
    mel, high = audio.mel(wave), prediction.raised(wave)[None, : 90 * 256]
    weights = prediction.filters(prediction.at_stretches(mel, 0, 90 * 4), 24)
    foretold = prediction.predicted(torch.nn.functional.pad(high, (24, 0)), weights)
    best = scipy.linalg.solve_toeplitz(  # what 24 weights can do that know the sound itself
        (lags := np.correlate(high[0].numpy(), high[0].numpy(), "full")[high.shape[1] - 1 :])[:24], lags[1:25]
    )
    left = scipy.signal.lfilter([1, *-best], [1], high[0].numpy())
    ours, theirs = (high - foretold).square().mean(), np.mean(left**2)
    assert float(ours) < 1.25 * theirs < 0.2 * float(high.square().mean())
    response = 1 / (1 - torch.fft.rfft(torch.nn.functional.pad(weights[0, 180], (1, 24_000 - 25))))
    assert abs(int(response.abs().argmax()) - 3000) < 150  # bins are of one hertz


def test_mels_between_frames_lie_on_straight_lines():
    mel = torch.stack([torch.arange(5.0), torch.arange(5.0) ** 2])[None]
    found = prediction.at_stretches(mel, 0, 20)
    places = (np.arange(20) + 0.5) / 4
    for row, values in zip(found[0].numpy(), mel[0].numpy(), strict=True):
        np.testing.assert_allclose(row, np.interp(places, np.arange(5), values), atol=1e-6)
    assert torch.equal(prediction.at_stretches(mel, 3, 4), found[:, :, 3:7])


def test_what_is_foretold_and_what_is_new_make_the_sample():
    model, mel = tiny("sv2tts-vocoder"), scaled_mel(3 + 5, rows=2)
    wave = torch.randn(2, model.before + 768, generator=torch.Generator().manual_seed(0)) / 50
    news, foretold = model.news(mel, wave)
    torch.testing.assert_close(news + foretold, wave[:, model.config.order :])
    weights = model.filters(mel, 0, 12)
    for t in (0, 63, 64, 700):  # by hand
        past = wave[0, model.before + t - model.config.order : model.before + t].flip(0)
        assert float(foretold[0, 64 + t]) == pytest.approx(float(past @ weights[0, t // 64]), abs=1e-6)
    told = model.told_of(news, foretold, wave)
    heard = model.config.heard
    assert told.shape == (2, 768, heard + 2)
    expected = torch.cat(
        [news[0, 64 + 9 - heard : 64 + 9], foretold[0, 73:74], wave[0, model.before + 8][None]]
    )
    torch.testing.assert_close(told[0, 9], wavernn.companded(expected))


@pytest.mark.parametrize(
    ("steps", "length", "overlap"), [(100, 10, 3), (33, 10, 3), (5, 10, 3), (97, 7, 0), (16, 10, 3)]
)
def test_unfold_inverts_fold(steps, length, overlap):
    x = torch.randn(steps)
    parts = wavernn.fold(x, length, overlap)
    assert parts.shape == (wavernn.folds(steps, length, overlap), length + 2 * overlap)
    for warm_up in range(overlap + 1):
        assert torch.equal(wavernn.unfold(parts, overlap, steps, warm_up), x)
    for a, b in zip(parts, parts[1:], strict=False):
        assert overlap == 0 or torch.equal(a[-overlap:], b[:overlap])


def test_the_cross_fade_is_a_straight_line_after_the_warm_up():
    parts = torch.stack([torch.zeros(12), torch.ones(12)])
    joined = wavernn.unfold(parts, 4, 20, warm_up=1)
    assert joined.tolist() == pytest.approx([0] * 9 + [0.25, 0.5, 0.75] + [1] * 8)
    with pytest.raises(ValueError, match="warm-up"):
        wavernn.unfold(parts, 4, 20, warm_up=5)
    with pytest.raises(ValueError, match="folds of 0 steps"):
        wavernn.fold(torch.zeros(9), 0, 3)


def scaled_mel(frames: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 100, frames, generator=torch.Generator().manual_seed(frames)) / 2


def test_what_wavernn_draws_is_what_its_training_foresees():
    """Step by step with memory equals all at once: the likeliest parts are those of the teacher-forced logits."""
    model, mel = tiny("sv2tts-vocoder"), scaled_mel(2 + 5, rows=2)
    with torch.no_grad():  # nothing so loud that it is clipped
        model.fc3.bias.copy_(torch.where((torch.arange(256) - 128).abs() < 30, 0.0, -50.0))
    made = model.generate(mel, torch.Generator(), temperature=0)
    assert made.shape == (2, 512) and 0 < made.abs().max() < 1
    wave = torch.nn.functional.pad(made, (model.before, 0))
    news, foretold = model.news(mel, wave)
    assert not news[:, :64].any()  # nothing was drawn before the first sample
    parts = wavernn.to_parts(news[:, 64:])
    with torch.no_grad():
        coarse, fine = model(mel, model.told_of(news, foretold, wave), parts[..., 0])
    assert coarse.shape == (2, 512, 256)
    assert (coarse.argmax(-1) == parts[..., 0]).float().mean() > 0.99  # but for ties in rounding
    assert ((fine.argmax(-1) - parts[..., 1]).abs() <= 2).float().mean() > 0.97  # the sum of two is rounded


def test_draws_follow_the_dual_softmax():
    """The coarse part of the first sample, drawn in 4,000 rows, is spread as the softmax says."""
    model, mel = tiny("sv2tts-vocoder"), scaled_mel(1 + 5)
    with torch.no_grad():
        model.fc3.bias.copy_(torch.where((torch.arange(256) - 128).abs() < 3, 0.0, -50.0))
    known, others = model.conditioning(mel)
    conditions = [x[:, :1].transpose(0, 1).expand(1, 4000, -1) for x in (known, *others)]
    noise = wavernn.gumbel(1, 2, 4000, 256, generator=torch.Generator().manual_seed(2))
    out, weights = torch.empty(4000, 1), model.filters(mel, 0, 1)[:, 0].expand(4000, -1)
    with torch.no_grad():
        model._stretch(out, conditions, weights, noise, model.start(mel.expand(4000, -1, -1)))
        silent = torch.zeros(1, model.before + 256)
        told = model.told_of(*model.news(mel, silent), silent)
        coarse, _ = model(mel, told, torch.zeros(1, 256, dtype=torch.long))
    drawn = wavernn.to_parts(out[:, 0])[:, 0]
    shares = torch.bincount(drawn, minlength=256) / 4000
    torch.testing.assert_close(shares, coarse[0, 0].softmax(-1), atol=0.03, rtol=0)


def test_the_low_memory_mode_knows_the_same_of_the_mel(monkeypatch):
    model, mel = tiny("sv2tts-vocoder"), scaled_mel(5 + 5)
    seen, stretch, given = [], model.upsample.forward, []
    monkeypatch.setattr(model.upsample, "forward", lambda x: seen.append(x.shape[2]) or stretch(x))

    def note(out, conditions, weights, noise, state):
        given[-1].append(torch.cat([*(x[:, 0].flatten() for x in conditions), weights[0], noise.flatten()]))
        out.zero_()
        return state

    monkeypatch.setattr(model, "_stretch", note)
    for size in (0, 2):
        given.append([])
        model.generate(mel, torch.Generator().manual_seed(1), hops_at_once=size)
    assert seen == [5 + 5, 2 + 5, 2 + 5, 1 + 5]  # frames that are stretched at a time
    for whole, sparing in zip(*given, strict=True):
        torch.testing.assert_close(whole, sparing, atol=1e-4, rtol=1e-4)


def test_conditioning_is_centred_and_local():
    model, mel = tiny("sv2tts-vocoder"), scaled_mel(6 + 5)
    known, others = model.conditioning(mel)
    assert known.shape == (1, 6 * 256, 104) and [x.shape[2] for x in others] == [4, 4, 4]
    part, _ = model.conditioning(mel[..., 2 : 2 + 3 + 5])
    torch.testing.assert_close(known[:, 512 : 512 + 768], part, atol=1e-5, rtol=1e-4)
    auxiliary = others[0][0, :, 0]  # follows the nearest frame: it changes half-way between two
    assert torch.equal(auxiliary[:128], auxiliary[:1].expand(128))
    assert (
        torch.equal(auxiliary[128:384], auxiliary[128:129].expand(256)) and auxiliary[127] != auxiliary[128]
    )


def test_folding_speaks_a_batch_of_folds_and_repeats():
    stage = vocoders.FoldedWaveRNN(
        tiny("sv2tts-vocoder"), Folding(fold_hops=2, overlap_hops=1, warm_up_hops=0)
    )
    mel = synthesizer.unscaled(scaled_mel(12, rows=2))
    wave = stage.decode(mel, seed=4)
    assert wave.shape == (2, 11 * 256) and wave.abs().max() <= 1
    assert torch.equal(wave, stage.decode(mel, seed=4)) and not torch.equal(wave, stage.decode(mel, seed=5))
    with pytest.raises(ValueError, match="order of 64"):
        wavernn.build(replace(TINY.sv2tts_vocoder, order=64))
    short = synthesizer.unscaled(scaled_mel(4))
    plain = vocoders.FoldedWaveRNN(stage.network, Folding(enabled=False))
    assert torch.equal(vocoders.FoldedWaveRNN(stage.network).decode(short, 1), plain.decode(short, 1))
    with pytest.raises(ValueError, match="a mel of shape"):
        stage.decode(mel[:, :80])


# Sparse weights


def test_the_smallest_blocks_fall():
    matrix = torch.tensor([[1.0, 9, 0, 0], [1, 9, 0, 3], [5, 0, 2, 2], [5, 0, 2, 2]])
    mask = sparse.BlockMagnitude(0.5, (2, 1)).compute_mask(matrix, torch.ones(4, 4))
    assert mask.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]]
    with pytest.raises(ValueError, match="do not fill"):
        sparse.BlockMagnitude(0.5, (3, 1)).compute_mask(matrix, torch.ones(4, 4))
    assert [sparse.schedule(x, 0.8) for x in (0.0, 0.2, 0.45, 0.7, 1.0)] == pytest.approx(
        [0, 0, 0.7, 0.8, 0.8]
    )


def test_pruned_weights_stay_zero_while_the_rest_learns():
    torch.manual_seed(0)
    model = wavernn.build(TINY.sv2tts_vocoder)
    sparse.attach(model)
    sparse.thin(model, 0.75, (16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    given = scaled_mel(1 + 5), torch.randn(1, 256, model.told), torch.randint(0, 256, (1, 256))
    for _ in range(2):
        optimizer.zero_grad()
        sum(logits.square().mean() for logits in model(*given)).backward()
        optimizer.step()
    state = sparse.settle(model.state_dict())
    assert sparse.share_of_zeros(state) == pytest.approx(0.75, abs=0.01)
    ordinary = wavernn.build(TINY.sv2tts_vocoder)
    ordinary.load_state_dict(state)
    with torch.no_grad():
        for ours, theirs in zip(ordinary(*given), model(*given), strict=True):
            torch.testing.assert_close(ours, theirs)


# Weights


def test_the_mini_networks_fit_in_twelve_megabytes():
    with torch.device("meta"):
        models = [synthesizer.build(MINI.sv2tts_synthesizer), wavernn.build(MINI.sv2tts_vocoder)]
    size = sum(2 * value.numel() for model in models for value in model.state_dict().values())
    assert size < 12e6


def test_weights_come_back_and_damage_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    model = tiny("sv2tts-encoder")
    with pytest.raises(hub.WeightsError, match="is missing; .*`pvlib train sv2tts-encoder`"):
        weights.load(model, "sv2tts-encoder", TINY)
    path = weights.save("sv2tts-encoder", TINY, model.state_dict(), {"steps": 3})
    loaded = weights.load(encoder.build(TINY.sv2tts_encoder), "sv2tts-encoder", TINY)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float())
    assert weights.read_card("sv2tts-encoder", TINY)["steps"] == 3
    other = replace(TINY, sv2tts_encoder=replace(TINY.sv2tts_encoder, hidden=9))
    with pytest.raises(hub.WeightsError, match="another configuration"):
        weights.load(model, "sv2tts-encoder", other)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(hub.WeightsError, match="truncated or altered"):
        weights.load(model, "sv2tts-encoder", TINY)
    with pytest.raises(hub.WeightsError, match="no network 'backbone'"):
        weights.path_of("backbone", TINY)


# Trainers, on a corpus of noise with four speakers


@pytest.mark.parametrize("name", weights.NAMES)
def test_a_resumed_run_equals_an_unbroken_one(toy_corpus, monkeypatch, tmp_path, name):
    trainer = importlib.import_module(f"pvlib.training.{name.replace('-', '_')}")
    small = {"BATCH": 2, "DEV_CROPS": 2, "DEV_COPIES": 1, "COPY_FRAMES": 31, "DEV_TEXTS": 1, "THIN_EVERY": 1}
    for constant, value in small.items():
        if hasattr(trainer, constant):
            monkeypatch.setattr(trainer, constant, value)
    if hasattr(trainer, "letters"):  # no recogniser has heard this noise
        unheard = np.full(len("red fox"), np.nan, dtype=np.float32)
        monkeypatch.setattr(trainer.letters, "centres", lambda *_: [unheard] * 8)

    def averages() -> dict[str, torch.Tensor]:
        state = torch.load(paths.TRAINING / name / "state.pt", weights_only=True)
        return state["parts"]["ema"]["shadow"]

    trainer.train(TINY, steps=3)
    card, unbroken = weights.read_card(name, TINY), averages()
    assert card["steps"] == 3 and card["command"].startswith(f"pvlib train {name} --steps 3")
    assert card["quality"] and all(np.isfinite(value) for value in card["quality"].values())
    build, config = BUILDERS[name]
    loaded = weights.load(build(config), name, TINY).state_dict()
    stored = eight_bits.rounded(name, unbroken)
    for key in loaded.keys() & stored.keys():
        torch.testing.assert_close(loaded[key], stored[key], atol=2e-3, rtol=2e-3)

    exported = []
    monkeypatch.setattr(paths, "TRAINING", tmp_path / "again")
    monkeypatch.setattr(trainer, "_export", lambda run, *_: exported.append(run.step))  # measured above
    trainer.train(TINY, steps=3, minutes=1e-9)
    assert any(not torch.equal(value, unbroken[key]) for key, value in averages().items())
    trainer.train(TINY, steps=3)
    trainer.export(TINY)
    assert exported == [1, 3, 3]
    for key, value in averages().items():
        assert torch.equal(value, unbroken[key]), key


def test_a_pruned_wavernn_is_taken_up_whole_and_may_grow_again(toy_corpus, monkeypatch):
    from pvlib.training import sv2tts_vocoder as trainer
    from pvlib.training.common import machine_name

    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: {"dev": 0.0})
    state = {**tiny("sv2tts-vocoder").state_dict()}
    state["rnn1.weight_hh_l0"] = torch.zeros_like(state["rnn1.weight_hh_l0"])
    before = {"steps": 5, "seconds": 1.0, "command": "before", "machine": "a GPU"}
    weights.save("sv2tts-vocoder", TINY, state, before)
    trainer.train(TINY, steps=7, from_weights=True, larger=2)
    card = weights.read_card("sv2tts-vocoder", TINY)
    assert card["steps"] == 7 and card["command"].startswith("before; from step 5: ")
    assert card["machine"] == f"a GPU; {machine_name()}"  # all that it was trained on
    grown = weights.load(wavernn.build(TINY.sv2tts_vocoder), "sv2tts-vocoder", TINY).state_dict()
    assert grown.keys() == state.keys()
    kept = torch.load(paths.TRAINING / "sv2tts-vocoder/state.pt", weights_only=True)["parts"]["model"]
    assert kept["rnn1.weight_hh_l0_orig"].abs().max() > 0


def test_the_voices_of_a_split_are_made_once(toy_corpus, monkeypatch):
    from pvlib.training import sv2tts_common

    class Judge:
        dimension = 256

        def embed(self, waves):
            assert [len(wave) for wave in waves] == [26_000 + 500 * len(asked), 24_000]
            asked.append(waves[0][0])
            return unit(2, 256, seed=len(asked))

    asked: list[float] = []
    monkeypatch.setattr(sv2tts_common, "GE2E", Judge)
    first = sv2tts_common.voices("dev")
    assert first.shape == (8, 2, 256) and len(asked) == 8
    assert np.array_equal(first, sv2tts_common.voices("dev")) and len(asked) == 8
    (paths.WORLD / "dev.ge2e.npz").write_bytes(b"damaged")
    asked.clear()
    part = sv2tts_common.voices("dev", range(3))
    assert np.array_equal(first[:3], part[:3]) and not part[3:].any() and len(asked) == 3
    assert np.array_equal(first, sv2tts_common.voices("dev")) and len(asked) == 8  # only what was missing


def test_the_guide_follows_the_true_words(toy_corpus, monkeypatch):
    """ "red fox": red sounds from 0.1 s to 0.5 s, fox from 0.5 s to 1.05 s; a decoder step is 4 hops of 256."""
    from pvlib.training import sv2tts_synthesizer

    monkeypatch.setattr(sv2tts_synthesizer, "voices", lambda *_: np.zeros((8, 2, 256), np.float32))
    rows = sv2tts_synthesizer.Rows("train", tiny("sv2tts-synthesizer"))
    found = rows.batch([0, 3], torch.Generator())
    attention, middle = found["attention"], (np.arange(26) + 0.5) * 4 * 256 / 24_000
    assert attention.shape == (2, int(found["steps"].max()), 7) and found["steps"].tolist() == [26, 27]
    torch.testing.assert_close(attention.sum(2), torch.ones(2, 27))
    assert set(attention.unique().tolist()) <= {0, 0.25, 0.5, 0.75, 1}  # of four frames
    path = attention[0].argmax(1)
    for t, seconds in enumerate(middle):
        letter = "red fox"[int(path[t])]
        if seconds < 0.48:
            assert letter in "red"
        if 0.53 < seconds < 1.03:
            assert letter in "fox"
    assert (np.diff(path[:26].numpy()) >= 0).all() and path[0] == 0 and path[25] == 6

    early = np.array([0.11, 0.12, 0.13, np.nan, 0.6, 0.7, 0.8], dtype=np.float32)  # where letters are heard
    monkeypatch.setattr(sv2tts_synthesizer.letters, "centres", lambda *_: [early] * 8)
    heard = sv2tts_synthesizer.Rows("train", tiny("sv2tts-synthesizer"), profile=TINY)
    path = heard.batch([0], torch.Generator())["attention"][0].argmax(1)
    assert path[4] == 2 and middle[4] > 0.13  # the d from half-way behind the e


def test_the_networks_own_past_takes_the_place_of_a_share():
    from pvlib.training import sv2tts_synthesizer

    past, own = torch.zeros(400, 40, 100), torch.ones(400, 40, 100)
    found = sv2tts_synthesizer.mixed(past, own, 4, 0.3, torch.Generator().manual_seed(0))
    steps = found.unflatten(1, (-1, 4))
    assert (steps == steps[:, :, :1, :1]).all()  # whole steps
    shares = found[:, ::4, 0].mean(1)
    assert float(shares.mean()) == pytest.approx(0.3, abs=0.03) and shares.std() > 0.15
    assert torch.equal(sv2tts_synthesizer.mixed(past, own, 4, 0.0, torch.Generator()), past)


def test_whole_decoder_steps_are_forgotten_and_the_loss_is_still_of_the_truth():
    from pvlib.training import sv2tts_synthesizer

    mel = torch.rand(3, 400, 100) + 1
    past = sv2tts_synthesizer.forget(mel, 4, 0.4, torch.Generator().manual_seed(0))
    gone = (past == 0).all(-1).unflatten(1, (-1, 4))
    assert (gone.all(-1) == gone.any(-1)).all() and 0.3 < gone.float().mean() < 0.5
    assert torch.equal(past[past != 0], mel[past != 0])
    assert torch.equal(sv2tts_synthesizer.forget(mel, 4, 0.0, torch.Generator()), mel)


def test_threads_find_the_mean_of_their_gradients(toy_corpus, monkeypatch):
    from pvlib.training import sv2tts_vocoder as trainer

    torch.set_num_threads(1)  # and in full precision, so that sums do not depend on who makes them
    monkeypatch.setattr(trainer, "autocast", lambda *_: contextlib.nullcontext())
    model = wavernn.build(TINY.sv2tts_vocoder)
    sparse.attach(model)
    sparse.thin(model, 0.5, (16, 1))
    crops = trainer.Crops("train", model.before)
    mel, wave = crops.batch(3, np.random.default_rng(0))
    news, foretold = model.news(mel, wave)
    batch = mel, model.told_of(news, foretold, wave), wavernn.to_parts(news[:, 64:])

    def found(threads: int, rows: slice) -> list[torch.Tensor]:
        losses = trainer.Shared(TINY, model, threads).backward(*(x[rows] for x in batch))
        return [*losses, *(parameter.grad for parameter in model.parameters())]

    alone = zip(found(1, slice(0, 2)), found(1, slice(2, 3)), strict=True)
    expected = [2 / 3 * one + 1 / 3 * other for one, other in alone]
    for ours, theirs in zip(found(2, slice(0, 3)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_past_is_told_louder_and_noisier_but_not_what_is_to_be_drawn():
    from pvlib.training import sv2tts_vocoder as trainer

    generator = torch.Generator().manual_seed(0)
    news, foretold, wave = (torch.randn(400, n, generator=generator) for n in (1088, 1088, 1112))
    other, louder, loud = trainer.misheard(news, foretold, wave, seed=3)
    gain = loud / wave
    torch.testing.assert_close(louder / foretold, gain[:, :1].expand_as(foretold), atol=1e-3, rtol=1e-3)
    assert float(gain[:, 0].log().std()) == pytest.approx(trainer.LOUDER, rel=0.15)
    noise = (other / gain[:, :1] - news).std(1)
    assert float(noise.max()) <= 1.1 * trainer.NOISIER and float(noise.mean()) == pytest.approx(
        trainer.NOISIER / 2, rel=0.15
    )
    assert all(
        torch.equal(a, b) for a, b in zip(trainer.misheard(news, foretold, wave, 3), (other, louder, loud))
    )


def test_training_refuses_what_it_cannot_use(toy_corpus, monkeypatch):
    from pvlib.training import sv2tts_encoder, sv2tts_synthesizer, sv2tts_vocoder
    from pvlib.training.common import TrainingError
    from pvlib.world.corpus import open_split

    with pytest.raises(TrainingError, match="1 speakers have two utterances"):
        sv2tts_encoder.utterances_by_speaker(open_split("train"), limit=5)
    monkeypatch.setattr(sv2tts_vocoder, "CROP_HOPS", 500)
    with pytest.raises(TrainingError, match="no utterance of train has 505 mel frames"):
        sv2tts_vocoder.Crops("train", 16)
    monkeypatch.setattr(sv2tts_synthesizer, "voices", lambda *_: np.zeros((8, 2, 256), np.float32))
    short = replace(TINY.sv2tts_synthesizer, max_chars=6)
    with pytest.raises(TrainingError, match="at most 6 characters"):
        sv2tts_synthesizer.Rows("train", synthesizer.build(short))


def test_crops_put_the_sound_under_its_mel(toy_corpus):
    """The mel of a crop, taken from the sound of the crop alone, is the middle of the mel it comes with."""
    from pvlib.training import sv2tts_vocoder

    crops = sv2tts_vocoder.Crops("train", 88)
    mel, high = crops.batch(8, np.random.default_rng(0))
    assert mel.shape == (8, 100, 9) and high.shape == (8, 88 + 4 * 256)
    last = crops.cache.lengths[5] - 9
    mel, high = crops.cut(np.array([2, 5]), np.array([0, last]))
    for row, (i, first) in enumerate(((2, 0), (5, last))):
        wave = prediction.lowered(high[row : row + 1])[0, 88:]
        middle = synthesizer.scaled(audio.mel(wave)[0])[
            :, 2
        ]  # the one frame that lies whole in 1,024 samples
        torch.testing.assert_close(mel[row, :, 2 + 2], middle, atol=2e-3, rtol=2e-3)
        assert np.allclose(wave, crops.corpus.wave(i)[256 * (first + 2) :][:1024], atol=1e-3)


def test_the_command_line_finds_the_trainers(monkeypatch):
    asked = []
    for name in weights.NAMES:
        trainer = importlib.import_module(f"pvlib.training.{name.replace('-', '_')}")
        monkeypatch.setattr(trainer, "train", lambda name=name, **options: asked.append((name, options)))
        assert cli.main(["train", name, "--steps", "7"]) == 0
    assert [name for name, _ in asked] == list(weights.NAMES)
    assert all(options == {"steps": 7, "minutes": None, "threads": None} for _, options in asked)


# The system, with tiny random weights that never stop by themselves


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    speaking = tiny("sv2tts-synthesizer").state_dict()
    speaking["decoder.gate_layer.bias"] = torch.tensor([-20.0])
    weights.save("sv2tts-synthesizer", TINY, speaking, {})
    weights.save("sv2tts-vocoder", TINY, tiny("sv2tts-vocoder").state_dict(), {})
    torch.manual_seed(0)
    hub.save_weights("vocoder", TINY, vocoder.build(TINY.vocoder).state_dict(), {})
    return tmp_path


def asking(name: str, text: str = "A lamp.", clip: np.ndarray | None = None) -> Request:
    clip = babble(1.0) if clip is None else clip
    return Request(name, "s1", text, clip, None, 3, len(text.split()), "short")


@pytest.mark.parametrize("kind", [SV2TTSSystem, SV2TTSWaveRNN, SV2TTSGriffinLim])
def test_the_system_speaks_and_counts_its_failures(checkpoints, kind):
    system, done = kind("sv2tts", TINY, torch.device("cpu")), []
    assert isinstance(system, System)
    (made,) = system.synthesise([asking("u1")], done.append)
    limit = -(-(7 * 0.25 + 1) * 24_000 // (256 * 4))  # decoder steps
    assert len(made.wave) == (limit * 4 - 1) * 256 and made.wave.dtype == np.float32
    assert made.seconds > 0 and made.reference_text == "" and done == [1]
    assert system.attention["u1"].runaways >= 1  # it had to be stopped, and says so


def test_the_seconds_of_the_first_row_hold_no_loading(checkpoints, monkeypatch):
    """On a clock that loading alone moves."""
    now, loaded = [0.0], []

    def slowly(load):
        def loading(*args):
            if load not in loaded:
                loaded.append(load)
                now[0] += 1000
            return load(*args)

        return loading

    monkeypatch.setattr(frontend, "_vad", slowly(frontend._vad))
    monkeypatch.setattr(encoder.Resemblyzer, "_load", slowly(encoder.Resemblyzer._load))
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    (made,) = SV2TTSGriffinLim("sv2tts-griffin-lim", TINY, torch.device("cpu")).synthesise([asking("u1")])
    assert len(loaded) == 2 and made.seconds == 0


def test_bad_input_is_a_failed_row_and_the_others_go_on(checkpoints):
    system = SV2TTSGriffinLim("sv2tts-griffin-lim", TINY, torch.device("cpu"))
    noise = (0.1 * np.random.default_rng(0).normal(size=24_000)).astype(np.float32)
    broken = np.where(np.arange(24_000) == 5, np.nan, babble(1.0)).astype(np.float32)
    made = system.synthesise(
        [
            asking("silent", clip=np.zeros(24_000, np.float32)),
            asking("broken", clip=broken),
            asking("noise", clip=noise),
            asking("dots", "..."),
            asking("good"),
        ]
    )
    told = ["silent or constant", "NaN or infinite", "no speech found in the clip of noise", "no letter"]
    for result, expected in zip(made, told, strict=False):
        assert result.wave is None and expected in result.error, result.error
    assert made[-1].wave is not None and set(system.attention) == {"good"}


def test_missing_weights_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    with pytest.raises(hub.WeightsError, match="pvlib train sv2tts-synthesizer"):
        SV2TTSSystem("sv2tts", TINY, torch.device("cpu")).synthesise([asking("u1")])
    with pytest.raises(ConfigError, match="no vocoder 'wavenet'"):
        vocoders.load("wavenet", TINY)


def test_the_systems_are_known_by_name():
    kinds = {
        "sv2tts": SV2TTSSystem,
        "sv2tts-griffin-lim": SV2TTSGriffinLim,
        "sv2tts-wavernn": SV2TTSWaveRNN,
    }
    for name, kind in kinds.items():
        system = systems.create(name, "mini", "cpu")
        assert type(system) is kind and system.name == name and name in look.LOOKS


def test_what_runs_over_all_systems_leaves_out_those_without_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    asked = {}

    def evaluate(profile, names, samples=None, **_):
        asked[samples] = list(names)
        return pd.DataFrame()

    monkeypatch.setattr(study, "evaluate", evaluate)
    monkeypatch.setattr(cli, "_show_rows", lambda *_: None)
    assert cli.main(["evaluate", "--samples", "3"]) == 0
    assert asked[3] == systems.present("mini", systems.MAIN) and "sv2tts" not in asked[3]
    assert "sv2tts is left out: no weights of sv2tts-synthesizer" in capsys.readouterr().err
    rows = pd.DataFrame({"system": ["personavoice"]})
    assert sweeps.with_vocoders(rows, "mini", 40) is rows

    (tmp_path / "mini").mkdir()
    for name in ("sv2tts-synthesizer", "sv2tts-vocoder"):
        (tmp_path / "mini" / f"{name}.safetensors").touch()
    assert cli.main(["evaluate", "--samples", "4"]) == 0
    assert asked[4] == list(systems.MAIN) and "left out" not in capsys.readouterr().err
    monkeypatch.setattr(sweeps, "evaluate", evaluate)
    sweeps.with_vocoders(rows, "mini", 40)
    sweeps.with_vocoders(rows, "mini", 200)
    assert asked[3] == asked[200] == ["sv2tts-griffin-lim", "sv2tts-wavernn"]


def test_only_one_vocoder_of_sv2tts_is_a_column_of_the_table():
    rows = pd.DataFrame({"system": ["ground-truth", "sv2tts", "sv2tts-wavernn", "personavoice@steps=8"]})
    kept = tables.without_vocoders(rows)["system"]
    assert list(kept) == ["ground-truth", "sv2tts", "personavoice@steps=8"]


def test_cards_tell_what_is_not_trained(checkpoints):
    full = {
        "data": "d",
        "utterances": 1,
        "hours": 1.0,
        "command": "c",
        "steps": 1,
        "seconds": 1,
        "machine": "m",
    }
    for name in (*hub.NAMES, "sv2tts-synthesizer", "sv2tts-vocoder"):
        hub.save_weights(name, TINY, {"w": torch.zeros(1)}, full | {"quality": {"loss": 0.5}})
    text = cards.write_cards(TINY).read_text()
    assert "## sv2tts-encoder\n" in text and "Not trained yet: `pvlib train sv2tts-encoder`" in text
    assert "Tacotron 2" in text and "Not trained yet: `pvlib train sv2tts-synthesizer`" not in text


def test_a_stage_is_swapped_in_one_line(checkpoints):
    class Hum:
        def decode(self, mel, seed=0):
            return torch.linspace(-1, 1, (mel.shape[2] - 1) * 256)[None]

    voice = pipeline.SV2TTS.load(TINY, "griffin-lim")
    torch.manual_seed(0)
    own = encoder.build(replace(TINY.sv2tts_encoder, embedding_dim=256)).eval()
    swapped = replace(voice, encoder=own, vocoder=Hum())
    speech = swapped.clone(babble(1.0), "a lamp.", seed=1)
    assert np.allclose(np.diff(speech.wave), 2 / (len(speech.wave) - 1), atol=1e-6)
    embedding = own.voiceprint(frontend.prepare(babble(1.0), TINY.inference)).embedding
    assert torch.equal(speech.pieces[0].mel, voice.synthesizer.speak("a lamp.", embedding, 1)[0].mel)


def test_the_fingerprint_names_the_weights_of_its_vocoder(checkpoints):
    def found(kind: type) -> dict:
        return kind("sv2tts", TINY, torch.device("cpu")).fingerprint()

    vocos, wave, lim = found(SV2TTSSystem), found(SV2TTSWaveRNN), found(SV2TTSGriffinLim)
    assert set(vocos["weights"]) == {"sv2tts-synthesizer", "vocoder"}
    assert set(wave["weights"]) == {"sv2tts-synthesizer", "sv2tts-vocoder"}
    assert set(lim["weights"]) == {"sv2tts-synthesizer"}
    assert {"pvlib.systems.sv2tts.attention", "pvlib.speaker", "pvlib.frontend"} <= set(vocos["sources"])
