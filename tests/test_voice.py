"""The pipeline over a tiny untrained backbone: seeds, batches, lengths, levels, transcripts, errors."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from babble import babble
from tiny import TINY, Encoder, Recogniser

from pvlib import audio, backbone, hub, laag, paths, text, vocoder
from pvlib.adapters import Adapters
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE, AudioError, AudioWarning
from pvlib.config import MINI, TRAITS, ConfigError
from pvlib.persona import PersonaError
from pvlib.text import TextError, TextWarning
from pvlib.voice import (
    MAX_BATCH,
    MAX_PADDING,
    AdapterWarning,
    Job,
    PersonaVoice,
    SynthesisError,
    _batches,
    prepare_text,
)

LONG = "The river keeps its secrets, and the hills keep theirs; nobody asks. " * 4


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    network, decoder = backbone.build(TINY.backbone), vocoder.build(TINY.vocoder).eval()
    for parameter in network.parameters():  # the official zero initialisation would return the noise itself
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval(), decoder


@pytest.fixture
def voice(models):
    return PersonaVoice(TINY, *models, Recogniser(), Encoder())


@pytest.fixture(scope="module")
def reference(models):
    return PersonaVoice(TINY, *models, Recogniser(), Encoder()).reference(babble(1.0))


# The reference


def test_reference_of_an_array_and_of_its_file_agree(voice, reference, tmp_path):
    soundfile.write(tmp_path / "a.wav", babble(1.0), SAMPLE_RATE, subtype="FLOAT")
    other = voice.reference(tmp_path / "a.wav")
    np.testing.assert_array_equal(other.wave, reference.wave)
    torch.testing.assert_close(other.mel, reference.mel)
    assert reference.mel.shape == (len(reference.wave) // 256 + 1, 100)
    assert reference.embedding.shape == (192,)


def test_the_recogniser_hears_the_prepared_clip_unless_told(voice):
    reference = voice.reference(babble(1.0))
    np.testing.assert_array_equal(voice.recognizer.heard[0], reference.wave)
    assert reference.text == "hello there. "
    voice.recognizer.heard.clear()
    assert voice.reference(babble(1.0), text="Good Day!").text == "good day! "
    assert not voice.recognizer.heard


def test_a_clip_without_words_needs_a_transcript(voice):
    voice.recognizer.hears = " "
    with pytest.raises(TextError, match=r"no words were recognised in b\.wav; give its transcript"):
        voice.reference(babble(1.0), name="b.wav")
    with pytest.raises(TextError, match="the transcript of b.wav is empty"):
        voice.reference(babble(1.0), name="b.wav", text=" ")


def test_of_a_long_recording_twelve_seconds_are_used(voice):
    with pytest.warns(AudioWarning, match=r"lasts 14\.0 s; its first 12 s"):
        cut = voice.reference(babble(14.0))
    np.testing.assert_array_equal(cut.wave, voice.reference(babble(14.0)[: 12 * SAMPLE_RATE]).wave)
    with pytest.raises(AudioError, match="transcript would not fit"):
        voice.reference(babble(14.0), text="far too much")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voice.reference(babble(11.0), text="fits")


# Speech


def test_a_seed_repeats_and_another_differs(voice, reference):
    first, again, other = voice.synthesise([Job(reference, "good day", seed) for seed in (7, 7, 8)])
    np.testing.assert_allclose(first.wave, again.wave, atol=1e-5)
    assert not torch.allclose(
        first.mel, other.mel, atol=1e-3
    )  # the lead trim may leave waves of unequal length


def test_a_text_beyond_what_the_official_backbone_takes_is_told_and_the_others_are_said(models, reference):
    """At the rate of a clip in which next to nothing is said, as the official length formula has it."""
    settings = replace(TINY.backbone, text_conditioning="padded", stack=1, input_skip=False)
    profile = replace(TINY, inference=replace(TINY.inference, letter_durations=False))
    official = PersonaVoice(profile, backbone.build(settings).eval(), models[1], Recogniser("a"), Encoder())
    slow = official.reference(babble(6.0))
    jobs = [Job(reference, "good day"), Job(slow, LONG), Job(reference, "good night")]
    day, long, night = official.synthesise(jobs, errors="return")
    assert len(day.wave) and len(night.wave) and isinstance(long, TextError)
    assert "'the river keeps its secrets" in str(long) and "a reference that says more" in str(long)
    with pytest.raises(TextError, match=r"at most 87\.4 s; split the text"):
        official.synthesise(jobs)


@pytest.mark.parametrize("conditioning", ["padded", "average", "durations"])
def test_a_text_faster_than_its_letters_can_go_is_not_cut(models, reference, conditioning):
    """Of text without durations each letter takes a token, as in the official sampler; LONG has two chunks or more."""
    settings = replace(TINY.backbone, text_conditioning=conditioning, input_skip=False)
    profile = replace(TINY, inference=replace(TINY.inference, speed=10.0))
    hurried = PersonaVoice(profile, backbone.build(settings).eval(), models[1], Recogniser(), Encoder())
    known = len(reference.wave) // HOP_LENGTH
    for chunk in hurried.plan(Job(reference, LONG)):
        asked = laag.duration(known, reference.text, chunk.text, hurried.inference)
        letters = len(reference.text + chunk.text)
        least = 2 * (letters + 1)  # two frames in a token
        assert asked < least
        assert chunk.frames == (asked if conditioning == "durations" else least)
    slow = replace(profile, inference=replace(profile.inference, speed=1.0))
    hurried.profile = slow
    for chunk in hurried.plan(Job(reference, LONG)):
        assert chunk.frames == laag.duration(known, reference.text, chunk.text, slow.inference)


def test_a_job_does_not_depend_on_its_company(voice, reference):
    jobs = [Job(reference, "a quiet word or two", 3), Job(reference, LONG, 4), Job(reference, "no", 5)]
    together = voice.synthesise(jobs)
    for job, speech in zip(jobs, together, strict=True):
        (alone,) = voice.synthesise([job])
        torch.testing.assert_close(alone.mel, speech.mel, atol=1e-3, rtol=1e-3)
        assert len(alone.wave) == len(speech.wave)


def test_the_random_state_is_left_alone(voice, reference):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    voice.synthesise([Job(reference, "good day")])
    assert torch.equal(torch.get_rng_state(), state)


def test_lengths_follow_the_official_formula(voice, reference):
    (speech,) = voice.synthesise([Job(reference, "Good day to you.")])
    hops = len(reference.wave) // 256
    total = hops + int(hops / len("hello there. ") * len(" good day to you."))
    assert speech.chunks == [laag.Chunk(" good day to you.", total, 2.5, pytest.approx(0.2), False)]
    assert speech.frames == len(speech.mel) == total - len(reference.mel)
    assert (speech.frames - 1) * 256 - 7200 <= len(speech.wave) <= (speech.frames - 1) * 256
    assert speech.seconds > 0


def test_chunks_are_spliced(voice, reference):
    (speech,) = voice.synthesise([Job(reference, LONG, 2)])
    assert len(speech.chunks) == 4 and all(c.film for c in speech.chunks)
    assert len(speech.mel) == speech.frames - 3 * 14
    (first,) = voice.synthesise([Job(reference, speech.chunks[0].text, 2)])
    torch.testing.assert_close(
        speech.mel[: first.frames - 14], first.mel[: first.frames - 14], atol=1e-3, rtol=1e-3
    )


def test_each_chunk_has_noise_of_its_own(voice, reference, monkeypatch):
    seeds = []
    sample = voice.backbone.sample
    monkeypatch.setattr(
        voice.backbone,
        "sample",
        lambda items, **k: (seeds.extend(i.seed for i in items), sample(items, **k))[1],
    )
    voice.synthesise([Job(reference, LONG, 2), Job(reference, "good day", 3)])
    assert sorted(seeds) == [2000, 2001, 2002, 2003, 3000]


def test_chunks_of_all_jobs_share_batches_of_like_length(voice, reference, monkeypatch):
    batches, finished = [], []
    sample = voice.backbone.sample
    monkeypatch.setattr(
        voice.backbone,
        "sample",
        lambda items, **k: (batches.append([i.frames for i in items]), sample(items, **k))[1],
    )
    jobs = [Job(reference, "good day " * (1 + k % 5), k) for k in range(20)] + [Job(reference, LONG)]
    made = voice.synthesise(jobs, progress=finished.append)
    assert sum(batches, []) == sorted(sum(batches, []), reverse=True)
    assert all(len(b) <= MAX_BATCH and b[-1] >= (1 - MAX_PADDING) * b[0] for b in batches)
    assert max(map(len, batches)) > 1
    on_a_gpu = _batches({j: voice.plan(job) for j, job in enumerate(jobs)})
    assert [len(b) for b in on_a_gpu] == [MAX_BATCH, 20 + 4 - MAX_BATCH]
    assert [s.chunks[0].text.strip() for s in made] == [
        laag.chunk(prepare_text(j.text, voice.backbone))[0] for j in jobs
    ]
    assert sum(finished) == len(jobs) and len(finished) > 1


def test_an_oracle_sets_the_length(voice, reference):
    speech, usual = voice.synthesise([Job(reference, LONG)] * 2, duration_frames=[600, None])
    assert len(speech.mel) == pytest.approx(600, abs=8) and len(usual.mel) != len(speech.mel)
    with pytest.raises(ValueError, match="1 durations for 2 jobs"):
        voice.synthesise([Job(reference, LONG)] * 2, duration_frames=[600])


def test_the_level_returns_to_that_of_a_quiet_recording(models):
    untrimmed = replace(TINY, inference=replace(TINY.inference, use_silero_vad=False))
    voice = PersonaVoice(untrimmed, *models, Recogniser(), Encoder())
    loud, quiet = voice.reference(babble(1.0, peak=0.9)), voice.reference(babble(1.0, peak=0.09))
    assert loud.gain < 1 < quiet.gain
    np.testing.assert_allclose(loud.wave, quiet.wave, atol=1e-5)
    a, b = voice.synthesise([Job(loud, "good day"), Job(quiet, "good day")])
    np.testing.assert_allclose(b.wave * quiet.gain, a.wave, atol=1e-3)


def test_clone_is_reference_and_synthesis(voice, reference, tmp_path):
    speech = voice.clone(babble(1.0), "good day", seed=4)
    np.testing.assert_allclose(
        speech.wave, voice.synthesise([Job(reference, "good day", 4)])[0].wave, atol=1e-5
    )
    written = audio.load(speech.write(tmp_path / "out.wav"))
    np.testing.assert_allclose(written, speech.wave / max(1, np.abs(speech.wave).max()), atol=1e-4)
    told = voice.clone(babble(1.0), "good day", text_of_reference="quite another transcript")
    assert told.frames != speech.frames


def test_ten_thousand_characters_are_planned_within_limits(voice, reference):
    chunks = voice.plan(Job(reference, ("many words " * 1000)[: text.MAX_TEXT_CHARS]))
    assert 75 <= len(chunks) <= 90 and max(len(c.text) for c in chunks) <= 136


# Errors


def test_one_bad_job_can_be_returned_instead_of_raised(voice, reference):
    jobs = [Job(reference, "good day"), Job(reference, "..."), Job(reference, "good night")]
    with pytest.raises(TextError, match=r"'\.\.\.' has no letter"):
        voice.synthesise(jobs)
    finished = []
    good, bad, night = voice.synthesise(jobs, finished.append, errors="return")
    assert isinstance(bad, TextError) and len(good.wave) and len(night.wave) and sum(finished) == 3


def test_sound_that_is_not_finite_is_an_error(voice, reference, monkeypatch):
    sample = voice.backbone.sample
    monkeypatch.setattr(
        voice.backbone, "sample", lambda items, **k: [m * float("nan") for m in sample(items, **k)]
    )
    with pytest.raises(SynthesisError, match="'good day': the generated samples are not finite"):
        voice.synthesise([Job(reference, "good day")])


def test_a_bad_text_is_told_before_the_recording_is_read(voice, tmp_path):
    with pytest.raises(TextError):
        voice.clone(tmp_path / "missing.wav", "")


@pytest.mark.parametrize(
    "change",
    [
        {"ceag_scale": 2.0},
        {"ceag_variant": "ieag"},
        {"ceag_lambda_max": 0.3},
        {"grpo": True},
        {"env_weight": 0.5},
        {"use_oes": False},
        {"film_gate": "always"},
        {"oes_env_scale_init": 0.5},
        {"ceag_t_end": 0.9},
        {"letter_floor_seconds": 1.0},
        {"vad_min_speech_ms": 50, "use_silero_vad": False},
        {"rms_target": 0.2, "use_rms_normalize": False},
        {"lead_trim_ms": 100, "boundary_hardening": False},
        {"laag_chunk_max_chars": 100, "laag_chunking": False},
        {"laag_chunk_min_chars": 20, "use_laag": False},
        {"short_text_speed": 0.5, "oracle_duration": True},
        {"short_text_bytes": 5, "oracle_duration": True},
        {"use_adapters": True},
        {"use_adapters": True, "use_ceag": True},
        {"use_adapters": True, "padded_text": True},
        {"cfg_strength": 1.0},
    ],
)
def test_parameters_without_effect_are_refused(models, change):
    profile = replace(TINY, inference=replace(TINY.inference, **change))
    with pytest.raises(ConfigError, match=next(iter(change))):
        PersonaVoice(profile, *models, Recogniser(), Encoder())
    if change == {"cfg_strength": 1.0}:
        PersonaVoice(
            replace(profile, inference=replace(profile.inference, use_laag=False)), *models, None, None
        )


def test_a_transcript_that_nobody_says_in_that_time_is_refused(voice):
    voice.reference(babble(1.0), text="quick " * 8)
    with pytest.raises(
        TextError, match=r"the transcript of mine has 59 letters for 1\.00 s, more than anyone"
    ):
        voice.reference(babble(1.0), text="quick " * 10, name="mine")


@pytest.mark.parametrize(
    "change",
    [
        {"sway_coef": float("nan")},
        {"sway_coef": 3.0},
        {"laag_cfg_alpha": float("inf")},
        {"laag_cfg_min": 4.0, "laag_cfg_max": 1.0},
        {"ceag_t_start": -0.1},
    ],
)
def test_parameters_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=f"{list(change)[-1]} = .* is outside"):
        replace(TINY.inference, **change)


@pytest.mark.parametrize(
    "change", [{"speed": "2"}, {"cfg_strength": None}, {"am_ode_momentum": "0"}, {"use_laag": "False"}]
)
def test_parameters_of_another_type_are_refused(change):
    with pytest.raises(
        ConfigError, match=f"{next(iter(change))} = .* is n(ot a number|either True nor False)"
    ):
        replace(TINY.inference, **change)


def test_entropy_guidance_reaches_the_sampler(models, reference, monkeypatch):
    given = []
    sample = models[0].sample
    monkeypatch.setattr(
        models[0], "sample", lambda items, **k: given.append((items, k)) or sample(items, **k)
    )
    for change in ({}, {"use_ceag": True, "ceag_scale": 3.0, "ceag_variant": "ieag", "ceag_t_end": 0.9}):
        inference = replace(TINY.inference, steps=4, **change)
        voice = PersonaVoice(replace(TINY, inference=inference), *models, Recogniser(), Encoder())
        voice.synthesise([Job(reference, "good day"), Job(reference, "the red fox saw a dog")])
    plain, guided = (
        [k["guidance"] for _, k in given if (k["guidance"] is None) == off] for off in (True, False)
    )
    items = [row for rows, k in given for row in rows if k["guidance"]]
    assert len(plain) == len(guided) > 0
    assert {(guidance.kind, guidance.end) for guidance in guided} == {("ieag", 0.9)}
    expected = [3 * laag.lambda_ceag(text, TINY.inference) for text in ("good day", "the red fox saw a dog")]
    assert sorted(row.ceag_lambda for row in items) == pytest.approx(sorted(expected))


def test_load_gives_cfg_strength_to_laag(models, monkeypatch):
    for name in hub.NAMES:
        monkeypatch.setattr(hub, f"load_{name}", lambda profile, device: models[0])
    for strength in (0.5, 3.0, 6.0):
        inference = PersonaVoice.load("mini", "cpu", cfg_strength=strength, steps=5).inference
        assert laag.guidance("good day", inference) == strength and inference.steps == 5
    assert PersonaVoice.load("mini", "cpu", cfg_strength=3.0, laag_cfg_base=3.0).inference.laag_cfg_max == 4.0
    with pytest.raises(ConfigError, match="nfe"):
        PersonaVoice.load("mini", "cpu", nfe=5)
    with pytest.raises(ConfigError, match="'sometimes'"):
        PersonaVoice.load("mini", "cpu", film_gate="sometimes")


# Adapters


def adapted(models, awake: bool = True, **changes) -> PersonaVoice:
    """The pipeline with adapters, untrained or as if trained."""
    torch.manual_seed(1)
    module = Adapters(TINY.adapters, models[0].transformer).requires_grad_(False)
    for film in module.film if awake else ():
        torch.nn.init.normal_(film.gamma_net[-1].weight, std=0.5)
    profile = replace(TINY, inference=replace(TINY.inference, use_adapters=True, **changes))
    return PersonaVoice(profile, *models, Recogniser(), Encoder(), adapters=module)


def test_untrained_adapters_and_closed_gates_change_no_sample(voice, models, reference):
    jobs = [Job(reference, "good day", 3), Job(reference, LONG, 4)]
    plain = voice.synthesise(jobs)
    untrained = adapted(models, awake=False, film_gate="always").synthesise(jobs)
    closed = adapted(models, film_gate="off").synthesise(jobs)
    for one, *others in zip(plain, untrained, closed, strict=True):
        for other in others:
            np.testing.assert_array_equal(one.wave, other.wave)


def test_the_gate_opens_for_several_chunks_only(voice, models, reference):
    jobs = [Job(reference, "good day", 3), Job(reference, LONG, 4)]
    plain, gated = voice.synthesise(jobs), adapted(models).synthesise(jobs)
    assert len(plain[1].chunks) > 1
    torch.testing.assert_close(plain[0].mel, gated[0].mel, atol=1e-5, rtol=1e-5)
    assert (plain[1].mel - gated[1].mel).abs().max() > 1e-3


def test_a_wish_sets_the_length_where_film_acts(models, reference):
    fast = adapted(models, film_gate="always")
    fast.adapters.tempo.weight[0, -3] = float(np.log(0.8))  # the place of happy
    usual, happy, half = (
        fast.plan(Job(reference, LONG, emotion=emotion, strength=strength))
        for emotion, strength in (("neutral", 1.0), ("happy", 1.0), ("happy", 0.5))
    )
    known = len(reference.wave) // HOP_LENGTH
    for chunk, quick, middling in zip(usual, happy, half, strict=True):
        assert quick.frames - known == round(0.8 * (chunk.frames - known))
        assert middling.frames - known == round(0.8**0.5 * (chunk.frames - known))
    assert fast.plan(Job(reference, LONG)) == usual  # nothing wished for
    given = fast.plan(Job(reference, LONG, emotion="happy"), generated_frames=400)
    assert given == fast.plan(Job(reference, LONG), generated_frames=400)  # an oracle knows better
    shut = adapted(models, film_gate="off")
    shut.adapters.tempo.weight[0, -3] = float(np.log(0.8))
    assert [c.frames for c in shut.plan(Job(reference, LONG, emotion="happy"))] == [c.frames for c in usual]


def test_wishes_are_heard_through_an_open_gate_only(models, reference):
    job = Job(reference, "good day", 3)
    traits = dict.fromkeys(TRAITS, 1.0)
    wishes = (
        replace(job, emotion="sad"),
        replace(job, emotion="sad", strength=0.5),
        replace(job, persona=traits),
    )
    mels = [speech.mel for speech in adapted(models, film_gate="always").synthesise([job, *wishes])]
    for k, mel in enumerate(mels):
        assert all((mel - other).abs().max() > 1e-4 for other in mels[:k])
    with pytest.warns(AdapterWarning, match="film_gate=always"):
        adapted(models).synthesise([wishes[0]])


def test_wishes_without_adapters_are_refused(voice, models, reference):
    for wish in ({"emotion": "sad"}, {"persona": {"openness": 1.0}}, {"style": torch.zeros(64)}):
        with pytest.raises(ConfigError, match=f"{next(iter(wish))}.*pvlib train adapters"):
            voice.synthesise([Job(reference, "good day", **wish)])
    for wish in ({"emotion": "bored"}, {"emotion": "sad", "strength": 2}, {"persona": {"openness": 1.0}}):
        with pytest.raises(PersonaError):
            adapted(models).synthesise([Job(reference, "good day", **wish)])


def test_wishes_that_the_adapters_never_learnt_are_refused(models, reference):
    deaf = adapted(models)
    deaf.adapters.mute("emotion")
    assert deaf.adapters.hears("persona") and not deaf.adapters.hears("emotion")
    with pytest.raises(ConfigError, match="asks for emotion, of which these adapters learnt nothing"):
        deaf.synthesise([Job(reference, "good day", emotion="sad")])
    deaf.synthesise([Job(reference, "good day", persona=dict.fromkeys(TRAITS, 1.0))])


def test_env_weight_is_heard(models, reference):
    job = Job(reference, "good day", 3)
    dry, wet = (
        adapted(models, film_gate="always", env_weight=weight).synthesise([job])[0].mel
        for weight in (0.0, 1.0)
    )
    assert np.abs(dry - wet).max() > 1e-6


def test_load_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    with pytest.raises(hub.WeightsError, match=r"backbone\.safetensors is missing"):
        PersonaVoice.load("mini", "cpu")


# Text


@pytest.mark.parametrize(
    "given, spoken",
    [
        ("Hello,  World;\nit’s me…", "hello, world, it's me..."),
        ("Café naïve Straße", "cafe naive strasse"),
        ("a\u0301b", "ab"),
        ("(so-called) “friends”", "so-called friends"),
        ("3rd, 12th, 21st and 100th", "third, twelfth, twenty-first and one hundredth"),
        ("$1, $2.50 and 50%", "one dollar, two point five zero dollars and fifty percent"),
        (
            "the 1,000th and the 21,345TH",
            "the one thousandth and the twenty-one thousand three hundred forty-fifth",
        ),
        ("1,000,002nd, 2,000 times", "one zero zero zero zero zero second, two thousand times"),
        ("lines 4, 5th", "lines four, fifth"),
        ("1:100, 3;250 at 10:30", "one, one hundred, three, two hundred fifty at ten, thirty"),
        ("a:b;c，d", "a, b, c, d"),
        ("1：100 (that is: all): yes", "one, one hundred that is, all, yes"),
        ("-5 to −3 (-$2)", "minus five to minus three minus two dollars"),
        (".5, -.5 and $.50", "point five, minus point five and point five zero dollars"),
        ("the 2.5th, 0.3rd and 05th", "the two point fifth, zero point third and fifth"),
        ("no.5 and wait...5", "no. five and wait... five"),
        ("5%-10%, 3–5, a - 2", "five percent - ten percent, three - five, a - two"),
        ("1,2345", "one, two thousand three hundred forty-five"),
        ("$5 million or £1 billion", "five million dollars or one billion pounds"),
        ("1,234 & 0", "one thousand two hundred thirty-four and zero"),
        ("007 or 12345678", "zero zero seven or one two three four five six seven eight"),
    ],
)
def test_text_is_put_into_the_models_letters(given, spoken):
    assert text.normalise(given, MINI.backbone.vocabulary) == spoken


def test_what_is_not_spoken_is_told():
    with pytest.warns(TextWarning, match=r"not spoken: 😀 м и р"):
        assert text.normalise("hi 😀 мир there", MINI.backbone.vocabulary) == "hi there"


def test_a_vocabulary_with_digits_and_capitals_keeps_them():
    assert text.normalise("Call 911, José", "".join(map(chr, range(32, 127)))) == "Call 911, Jose"


def test_number_words_are_unique_and_bounded():
    sample = [*range(0, 2000), 10_000, 99_999, 100_000, 999_999]
    assert len({text.number_words(n) for n in sample}) == len(sample)
    assert text.number_words(999_999) == "nine hundred ninety-nine thousand nine hundred ninety-nine"
    for outside in (-1, 1_000_000):
        with pytest.raises(ValueError, match="outside 0 to 999,999"):
            text.number_words(outside)
