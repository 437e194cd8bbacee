"""The ablation variants and the retired modules: off they change no bit, on they do what their names say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import tiny
import torch
import yaml
from babble import babble

from pvlib import backbone, laag, paths, retired, systems, vocoder
from pvlib.attention import row_by_row
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import MINI, ConfigError, Inference
from pvlib.retired import Integrator
from pvlib.study import ablations
from pvlib.systems.base import Request, true_transcript
from pvlib.text import TextError, heard_until
from pvlib.voice import SEEDS_APART, Job, PersonaVoice, Speech

TINY = replace(tiny.TINY, inference=Inference(steps=4))
LONG = "The river keeps its secrets, and the hills keep theirs; nobody asks. " * 3
SHORT_NAMES = yaml.safe_load((paths.DATA / "claims.yaml").read_text(encoding="utf-8"))["systems"]
VARIANTS = sorted({name for name in SHORT_NAMES.values() if "@" in name})


class Recogniser:
    """Hears "hello there" in a clip; of several waves it hears the last `right` ones right."""

    def __init__(self, said: str = "", right: tuple[int, ...] = ()):
        self.said, self.right = said, right

    def transcribe(self, waves):
        if len(waves) == 1:
            return ["hello there"]
        return [self.said if k in self.right else "mumble" for k in range(len(waves))]


class Encoder:
    """Similarity to the clip: as given for several waves, 1 for a single one."""

    def __init__(self, near: tuple[float, ...] = ()):
        self.near = near

    def embed(self, waves):
        near = torch.tensor(self.near if len(waves) > 1 and self.near else [1.0] * len(waves))
        out = torch.zeros(len(waves), 192)
        out[:, 0], out[:, 1] = near, (1 - near.square()).sqrt()
        return out


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    network, decoder = backbone.build(TINY.backbone), vocoder.build(TINY.vocoder).eval()
    for parameter in network.parameters():  # the official zero initialisation would return the noise itself
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval(), decoder


def voice_of(models, recogniser=None, encoder=None, **inference) -> PersonaVoice:
    profile = replace(TINY, inference=replace(TINY.inference, **inference))
    return PersonaVoice(profile, *models, recogniser or Recogniser(), encoder or Encoder())


def said(voice: PersonaVoice, text: str = LONG, **options) -> Speech:
    return voice.synthesise([Job(voice.reference(babble(1.0)), text, 3)], **options)[0]


@pytest.fixture(scope="module")
def plain(models) -> Speech:
    return said(voice_of(models))


# Off


def test_the_default_step_is_euler_to_the_bit(models):
    """The sampler against the loop written out: noise, velocity, plain step."""
    network = models[0]
    mel = torch.randn(94, 100, generator=torch.Generator().manual_seed(1))
    item = backbone.Item(mel, "hello there. ", "the cat sat on it", 300, seed=3)
    tokens, known = 150, 47
    cond = torch.zeros(1, tokens, 200)
    cond[:, :known] = network.cfm.stacked(mel[None])
    x = torch.randn(tokens, 200, generator=torch.Generator().manual_seed(3))[None]
    text, times = network.encode([item.reference_text + item.text]), network.times(4, -1.0)
    strength = torch.tensor([item.cfg_strength])[:, None, None]
    with (
        torch.inference_mode(),
        network.aligned(network.alignment_of([item])),
        row_by_row(network.transformer),
    ):
        for k in range(4):
            x = x + (times[k + 1] - times[k]) * network.velocity(x, cond, text, times[k], None, strength)
    network.transformer.clear_cache()
    assert torch.equal(network.sample([item], steps=4)[0][94:], network.cfm.unstacked(x)[0, 94:300])


def test_every_parameter_of_the_retired_is_off_by_default():
    off = Inference()
    assert Integrator(off.am_ode_momentum, off.td_cfg_decay, off.sbm_noise) == Integrator()
    strength, v, last = torch.tensor([[[2.5]]]), torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    assert Integrator().guidance(strength, torch.tensor(0.3)) is strength
    assert Integrator().direction(v, last) is v
    mel = torch.randn(94, 100)
    assert retired.bottleneck(mel, off.ibop_rank) is mel
    assert retired.repeats(20_000, off.enhancer_loop_seconds * SAMPLE_RATE) == 1
    assert off.laag_chunking and off.boundary_hardening and off.best_of_n == 1
    assert not off.grpo and off.short_text_cfg is None
    assert not off.oracle_transcript and not off.oracle_duration


@pytest.mark.parametrize(
    "change",
    [
        {"ibop_rank": 101},
        {"am_ode_momentum": 1.0},
        {"td_cfg_decay": 1.5},
        {"sbm_noise": -0.1},
        {"enhancer_loop_seconds": 13.0},
        {"short_text_cfg": 21.0},
        {"best_of_n": 0},
        {"steps": 8.5},
    ],
)
def test_values_out_of_range_are_named(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        Inference(**change)


# On, each in the pipeline


def test_the_ledger_names_variants_that_can_be_made():
    assert set(ablations.variants()) - {systems.SPREAD} <= set(VARIANTS)
    known = {field.name for field in fields(Inference)}
    for name in VARIANTS:
        parameters = systems.create(name, "mini", "cpu").profile.inference
        assert set(systems.parse(name)[1]) <= known and parameters != MINI.inference, name


@pytest.mark.parametrize(
    "change",
    [
        {"laag_chunking": False},
        {"boundary_hardening": False},
        {"ibop_rank": 4},
        {"am_ode_momentum": 0.5},
        {"td_cfg_decay": 1.0},
        {"sbm_noise": 0.1},
        {"enhancer_loop_seconds": 3.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_variant_changes_the_sound_and_repeats(models, plain, change):
    voice = voice_of(models, **change)
    first, again = said(voice), said(voice)
    assert np.isfinite(first.wave).all() and np.array_equal(first.wave, again.wave)
    assert first.wave.shape != plain.wave.shape or not np.allclose(first.wave, plain.wave, atol=1e-4)


def test_am_ode_as_initialised_is_the_identity(models, plain):
    """The momentum integrator runs, its weight is 0, and not one bit differs."""
    assert np.array_equal(said(voice_of(models, am_ode_momentum=0.0)).wave, plain.wave)
    v, last = torch.randn(2, 7, 3), torch.randn(2, 7, 3)
    assert torch.equal(Integrator(momentum=0.0).direction(v, last), v)
    assert torch.equal(Integrator(momentum=0.25).direction(v, last), 0.75 * v + 0.25 * last)
    assert Integrator(momentum=0.25).direction(v, None) is v


def test_without_chunking_a_long_text_is_one_piece(models, plain):
    whole = said(voice_of(models, laag_chunking=False))
    assert len(plain.chunks) > 1 == len(whole.chunks)
    (chunk,) = whole.chunks
    assert chunk.text == " " + " ".join(c.text.strip() for c in plain.chunks)
    assert chunk.cfg_strength == 2.5 and not chunk.film
    with pytest.raises(ConfigError, match="laag_chunking"):
        voice_of(models, laag_chunking=False, use_laag=False)


def test_without_hardening_the_three_measures_are_gone(models):
    hard, soft = voice_of(models), voice_of(models, boundary_hardening=False)
    assert hard.reference(babble(1.0)).text == "hello there. "
    reference = soft.reference(babble(1.0))
    assert reference.text == "hello there "
    assert soft.plan(Job(reference, "good day"))[0].text == "good day"
    assert laag.boundary("so there,", hardening=False) == "so there, "
    assert laag.boundary("你好", hardening=False) == "你好"
    silent = np.concatenate([np.zeros(4800), np.ones(4800)]).astype(np.float32)
    assert len(laag.trim_lead(silent, soft.inference)) == 9600 > len(laag.trim_lead(silent, hard.inference))


def test_the_bottleneck_keeps_the_best_of_its_rank():
    mel = torch.randn(94, 100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    low = retired.bottleneck(mel, 8)
    assert torch.linalg.matrix_rank(low - low.mean(0)) == 8
    torch.testing.assert_close(low.mean(0), mel.mean(0))
    singular = torch.linalg.svdvals(mel - mel.mean(0))
    torch.testing.assert_close((mel - low).square().sum(), singular[8:].square().sum())
    torch.testing.assert_close(retired.bottleneck(mel, 100), mel)
    torch.testing.assert_close(retired.bottleneck(low, 8), low)


def test_decaying_guidance_keeps_its_mean():
    t = torch.linspace(0, 1, 1001)
    for decay in (0.3, 1.0):
        values = Integrator(decay=decay).guidance(torch.tensor(2.5), t)
        assert (values.diff() < 0).all()
        torch.testing.assert_close(values.mean(), torch.tensor(2.5))
        torch.testing.assert_close(values[-1], values[0] * (1 - decay))


def test_bridge_noise_is_a_brownian_bridge():
    """Step by step from 0 to 1 aiming at a fixed end: variance t (1 - t) at every time, zero at both ends."""
    integrator, times = Integrator(noise=0.5), torch.tensor([0.0, 0.1, 0.35, 0.6, 1.0])
    x = torch.zeros(200_000)
    noise = torch.Generator().manual_seed(0)
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = x + (s - t) * (1.0 - x) / (1 - t)  # the velocity towards 1
        x = x + integrator.spread(t, s) * torch.randn(x.shape, generator=noise)
        assert float(x.mean()) == pytest.approx(float(s), abs=5e-3)
        assert float(x.var()) == pytest.approx(0.25 * float(s * (1 - s)), abs=1e-3)


def test_bridge_noise_of_a_row_does_not_depend_on_its_company(models):
    mel = torch.randn(94, 100, generator=torch.Generator().manual_seed(1))
    rows = [
        backbone.Item(mel, "hello there. ", text, frames, seed=seed)
        for text, frames, seed in (("the cat sat on it", 300, 3), ("no", 180, 4))
    ]
    noisy = {"steps": 4, "integrator": Integrator(noise=0.3)}
    for together, row in zip(models[0].sample(rows, **noisy), rows, strict=True):
        alone = models[0].sample([row], **noisy)[0]
        torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)
        assert not torch.allclose(alone, models[0].sample([row], steps=4)[0], atol=1e-2)


def test_the_enhancer_says_the_clip_again_and_again(models):
    once, thrice = (voice_of(models, enhancer_loop_seconds=s).reference(babble(1.0)) for s in (0.0, 2.5))
    assert retired.repeats(SAMPLE_RATE, 0.5 * SAMPLE_RATE) == 1
    times = len(thrice.wave) // len(once.wave)
    assert times == -(-int(2.5 * SAMPLE_RATE) // len(once.wave)) and times >= 3
    np.testing.assert_array_equal(thrice.wave, np.tile(once.wave, times))
    assert thrice.text == once.text * times
    assert thrice.mel.shape == (len(thrice.wave) // HOP_LENGTH + 1, 100)


# Several samples


def test_best_of_n_keeps_the_sample_that_is_heard_best(models):
    text, finished = "good day", []
    each = []
    for i in range(3):
        voice = voice_of(models)
        job = Job(voice.reference(babble(1.0)), text, 3 + i * SEEDS_APART)
        each.append(voice.synthesise([job])[0])
    for one, other in ((0, 1), (0, 2), (1, 2)):  # three noises, not one
        assert not torch.allclose(each[one].mel, each[other].mel, atol=1e-2)
    for right in range(3):
        voice = voice_of(models, Recogniser(text, (right,)), best_of_n=3)
        kept = said(voice, text, progress=finished.append)
        np.testing.assert_allclose(kept.wave, each[right].wave, atol=1e-4)
        assert kept.seconds > 0
    tie = said(voice_of(models, Recogniser(text, (1, 2)), best_of_n=3), text)
    np.testing.assert_allclose(tie.wave, each[1].wave, atol=1e-4)  # the first of equals
    assert finished == [1, 1, 1]


def test_grpo_weighs_words_against_the_voice(models):
    text = "good day"
    ears = Recogniser(text, (0, 1))  # the third is not understood, but nearest to the clip
    plain = said(voice_of(models, ears, best_of_n=3), text)
    voice = voice_of(models, ears, Encoder((0.2, 0.8, 0.9)), best_of_n=3, grpo=True)
    assert not torch.allclose(said(voice, text).mel, plain.mel, atol=1e-3)
    second = said(voice_of(models, Recogniser(text, (1,)), best_of_n=3), text)
    np.testing.assert_allclose(said(voice, text).wave, second.wave, atol=1e-4)
    with pytest.raises(ConfigError, match="grpo"):
        voice_of(models, grpo=True)


def test_group_relative_advantages_by_hand():
    rewards = torch.tensor([[0.0, 5.0], [-1.0, 5.0], [-2.0, 5.0]])
    expected = torch.tensor([1.0, 0.0, -1.0]) / (2 / 3) ** 0.5
    torch.testing.assert_close(retired.group_relative(rewards), expected)
    torch.testing.assert_close(retired.group_relative(rewards * 10 + 3), expected)  # no reward has a unit
    assert torch.equal(retired.group_relative(torch.ones(3, 2)), torch.zeros(3))


def test_a_failed_sample_is_passed_over_and_a_failed_group_is_an_error(models, monkeypatch):
    voice = voice_of(models, Recogniser("good day", (0,)), best_of_n=3)
    sample = voice.backbone.sample

    def broken(bad):
        return lambda items, **k: [
            mel * float("nan") if item.seed // 1000 // SEEDS_APART in bad else mel
            for item, mel in zip(items, sample(items, **k), strict=True)
        ]

    monkeypatch.setattr(voice.backbone, "sample", broken({0}))
    assert np.isfinite(said(voice, "good day").wave).all()
    monkeypatch.setattr(voice.backbone, "sample", broken({0, 1, 2}))
    with pytest.raises(RuntimeError, match="not finite"):
        said(voice, "good day")
    (error,) = voice.synthesise([Job(voice.reference(babble(1.0)), "good day")], errors="return")
    assert "not finite" in str(error)


def test_short_texts_get_the_boost_and_others_do_not():
    boosted = Inference(short_text_cfg=3.5)
    assert [laag.guidance(text, boosted) for text in ("good day", " good day ", "good days now")] == [
        3.5,
        3.5,
        2.5,
    ]
    assert laag.guidance("good day", Inference()) == 2.5
    assert laag.guidance("good day", replace(boosted, use_laag=False)) == 3.5


# Oracles


def test_words_are_cut_where_the_clip_ends():
    words = [("the", 0.1, 0.3), ("river", 0.3, 0.9), ("keep", 0.8, 1.2), ("all", 1.0, 1.4)]
    assert heard_until(words, 1.0) == "the river ke"
    assert heard_until(words, 0.1) == "" and heard_until(words, 2.0) == "the river keep all"


def test_nobody_but_a_study_is_an_oracle(models):
    with pytest.raises(TextError, match="oracle_transcript=True: give the true transcript of b.wav"):
        voice_of(models, oracle_transcript=True).reference(babble(1.0), name="b.wav")
    told = voice_of(models, oracle_transcript=True).reference(babble(1.0), text="quite true")
    assert told.text == "quite true. "
    voice = voice_of(models, oracle_duration=True)
    with pytest.raises(ConfigError, match="only a study knows the true duration"):
        said(voice)
    assert len(said(voice, duration_frames=[400]).mel) == pytest.approx(400, abs=4)


def test_the_system_tells_the_oracles_what_the_request_knows(models, monkeypatch, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "true.wav", babble(2.0), SAMPLE_RATE, subtype="FLOAT")
    request = Request(
        "u1", "s1", "good day", babble(1.0), tmp_path / "true.wav", 3, 2, "short", clip_text="a small lamp"
    )
    name = "personavoice@oracle_transcript=True,oracle_duration=True"
    system = systems.create(name, MINI, "cpu")
    voice = voice_of(models, oracle_transcript=True, oracle_duration=True)
    monkeypatch.setattr(system, "_voice", voice)
    seen = {}
    monkeypatch.setattr(voice.backbone, "sample", _watched(voice.backbone.sample, seen))
    made, unknown, unrecorded = system.synthesise(
        [
            request,
            replace(request, utterance="u2", clip_text=None),
            replace(request, utterance="u3", audio_path=None),
        ]
    )
    assert made.reference_text == "a small lamp. " and made.wave is not None
    (item,) = seen["items"]
    hops = len(voice.reference(request.clip, text="x").wave) // HOP_LENGTH
    assert item.frames == hops + 2 * SAMPLE_RATE // HOP_LENGTH
    assert "u2: this manifest has no word times" in unknown.error
    assert "u3: this manifest has no true recording" in unrecorded.error
    with pytest.raises(TextError):
        true_transcript(replace(request, clip_text=None))


def _watched(sample, seen):
    def wrapper(items, **options):
        seen["items"] = items
        return sample(items, **options)

    return wrapper


def test_requests_carry_the_true_words_of_their_clips():
    from pvlib.study import manifest

    requests = manifest.read("mini-test").requests(manifest.read("mini-test").table.head(3))
    assert all(r.clip_text and r.text.startswith(r.clip_text.split()[0]) for r in requests)
    assert all(len(r.clip_text) < len(r.text) for r in requests)
    assert manifest.demo().requests()[0].clip_text is None
