"""Systems: the protocol, the controls, the official inference function, and what their fingerprints notice."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from babble import babble
from tiny import TINY

from pvlib import audio, backbone, frontend, hub, paths, systems
from pvlib.config import MINI, ConfigError
from pvlib.systems import f5, fingerprint, ground_truth, personavoice
from pvlib.systems.base import Request, Result, System, failure, result
from pvlib.text import TextError

TEXT = (
    "The quiet river keeps its secrets, and the old lamp keeps the door. "
    "Nobody asks the garden why it waits so long."
)

NO_NUMBERS = {"huggingface-hub", "safetensors", "matplotlib", "tqdm"}  # of the packages that rows import


@pytest.fixture
def request_of(tmp_path):
    """Requests around made-up voices on disk."""

    def make(text: str = TEXT, seed: int = 3, name: str = "u1") -> Request:
        own = audio.write(tmp_path / f"{name}.wav", babble(1.5, f0=110))
        other = audio.write(tmp_path / f"{name}-other.wav", babble(1.2, f0=220))
        words = len(text.split())
        return Request(name, "s1", text, babble(1.0), own, seed, words, "long", other, "A lamp.")

    return make


# The protocol


def test_a_result_has_sound_or_an_error():
    with pytest.raises(ValueError):
        Result(None, "", 0.0)
    with pytest.raises(ValueError):
        Result(np.ones(9, np.float32), "", 0.0, "broken")


@pytest.mark.parametrize(
    "wave", [np.zeros(0), np.zeros(24_000), np.ones(24_000), np.full(24_000, np.nan), babble(0.05)]
)
def test_what_nobody_can_hear_is_a_failure(wave):
    made = result(wave, "lamp", 1.0)
    assert made.wave is None and "no speech" in made.error and made.reference_text == "lamp"


def test_an_error_keeps_its_class_and_stays_on_one_line():
    assert failure(TextError("no\nletter")).error == "TextError: no letter"


def test_systems_are_made_by_name_with_variants():
    for name in systems.NAMES:
        system = systems.create(name, "mini", "cpu")
        assert isinstance(system, System) and system.name == name
    variant = systems.create("personavoice@steps=8,use_laag=False", "mini", "cpu")
    assert (variant.profile.inference.steps, variant.profile.inference.use_laag) == (8, False)
    assert variant.profile.inference.cfg_strength == MINI.inference.cfg_strength
    assert systems.parse("personavoice@ceag_layers=(-3,-1),steps=4")[1] == {
        "ceag_layers": (-3, -1),
        "steps": 4,
    }
    for bad in (
        "vall-e",
        "personavoice@steps",
        "personavoice@stairs=3",
        "personavoice@steps=0",
        "personavoice@",
        "personavoice@steps=8,steps=16",
        "personavoice@steps=8)(cfg_strength=2.0",
        "f5-official@steps='x'",
    ):
        with pytest.raises(ConfigError):
            systems.create(bad, "mini", "cpu")
        assert not systems.is_known(bad)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("f5-official@use_laag=False", "does not use use_laag; give one of steps, cfg_strength"),
        ("f5-as-published@steps=8,use_ceag=True", "does not use use_ceag;"),
        ("sv2tts@steps=8", "does not use steps; give one of cross_fade_seconds"),
        ("impostor@steps=8", "does not use steps; give impostor alone: it uses none"),
    ],
)
def test_a_variant_that_changes_nothing_is_refused(name, told):
    with pytest.raises(ConfigError, match=told):
        systems.create(name, "mini", "cpu")
    assert not systems.is_known(name) and systems.is_known(name.partition("@")[0])


def test_variants_of_the_ledger_and_of_the_sweep_are_known():
    from pvlib.study import ledger, sweeps

    names = [*ledger.short_names().values(), *(sweeps.variant(MINI, *pair) for pair in sweeps.grid())]
    assert len(names) > 30 and [name for name in names if not systems.is_known(name)] == []


def test_a_system_stands_aside_where_its_own_networks_are_not_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    always = [*systems.CONTROLS, "f5-official", "f5-as-published", "personavoice"]
    assert systems.present("mini") == systems.present("mini", systems.MAIN) == always
    reasons = systems.absent("mini")
    assert list(reasons) == ["sv2tts", "sv2tts-griffin-lim", "sv2tts-wavernn"]
    assert "(`pvlib train sv2tts-synthesizer`)" in reasons["sv2tts"]
    assert "`pvlib train sv2tts-vocoder`" in reasons["sv2tts-wavernn"]
    assert "of the profile `mini` only" in systems.absent("paper")["sv2tts"]
    [why] = systems.absent("paper", ["personavoice@use_adapters=True"]).values()
    assert "(`pvlib train adapters --profile paper --speech DIR`)" in why
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "sv2tts-synthesizer.safetensors").touch()
    assert systems.present("mini") == [*always, "sv2tts", "sv2tts-griffin-lim"]
    assert systems.lacking("sv2tts-wavernn@use_rms_normalize=False", "mini") == ["sv2tts-vocoder"]
    assert systems.present("paper") == always
    with pytest.raises(ConfigError, match="no system 'vall-e'"):
        systems.lacking("vall-e", "mini")


# Controls


def test_ground_truth_is_the_recording_itself(request_of):
    request = request_of()
    (made,) = systems.create("ground-truth", MINI, "cpu").synthesise([request])
    assert np.array_equal(made.wave, audio.load(request.audio_path))
    assert np.isnan(made.seconds) and made.spoken_text is None


def test_the_impostor_is_judged_by_what_it_says(request_of):
    request = request_of()
    (made,) = systems.create("impostor", MINI, "cpu").synthesise([request])
    assert np.array_equal(made.wave, audio.load(request.impostor_audio))
    assert made.spoken_text == "A lamp."


def test_vocoded_sees_only_the_mel(request_of, monkeypatch):
    class Echo:
        def decode(self, mel):
            self.seen = mel
            return torch.ones(1, 24_000) * torch.linspace(-1, 1, 24_000)

    echo, request = Echo(), request_of()
    monkeypatch.setattr(hub, "load_vocoder", lambda profile, device: echo)
    (made,) = systems.create("ground-truth-vocoded", MINI, "cpu").synthesise([request])
    wave = torch.from_numpy(audio.load(request.audio_path))
    torch.testing.assert_close(echo.seen, audio.mel(wave))
    assert made.seconds > 0 and len(made.wave) == 24_000


def test_a_missing_recording_is_named(request_of, tmp_path):
    with pytest.raises(audio.AudioError, match="u1"):
        systems.create("ground-truth", MINI, "cpu").synthesise([replace(request_of(), audio_path=None)])


# The official inference function, over a model that writes down what it was asked


@dataclass
class Asked:
    text: str
    duration: int
    options: dict
    noise: torch.Tensor
    cond: torch.Tensor


class FakeCFM:
    """The official interface of `CFM.sample`; the "mel" it makes is noise from the global generator."""

    vocab_char_map = {c: i for i, c in enumerate(" abcdefghijklmnopqrstuvwxyz,.'?!-")}

    def __init__(self):
        self.asked: list[Asked] = []

    def sample(self, cond, text, duration, **options):
        noise = torch.randn(1, duration, 100)
        self.asked.append(Asked("".join(text[0]), duration, options, noise, cond))
        return noise, None


class FakeBackbone:
    def __init__(self):
        self.cfm = FakeCFM()


class FakeVocoder:
    def decode(self, mel):
        return mel.repeat_interleave(256, dim=-1)[:, 0]


class FakeRecognizer:
    def transcribe(self, waves):
        return ["a small lamp" for _ in waves]


@pytest.fixture
def f5_system(monkeypatch):
    def make(name: str, **models):
        backbone = models.get("backbone") or FakeBackbone()

        def load_backbone(profile, device):
            torch.rand(7)  # as the initialisation of a real model does
            return backbone

        monkeypatch.setattr(hub, "load_backbone", load_backbone)
        monkeypatch.setattr(hub, "load_vocoder", lambda profile, device: FakeVocoder())
        monkeypatch.setattr(
            hub, "load_recognizer", lambda profile, device: models.get("recognizer") or FakeRecognizer()
        )
        return systems.create(name, MINI, "cpu"), backbone.cfm

    return make


def test_the_official_import_leaves_no_trace():
    path, backend = list(sys.path), matplotlib.rcParams["backend"]
    f5.official.cache_clear()
    matplotlib.use("svg")
    try:
        f5.official()
        assert matplotlib.rcParams["backend"] == "svg" and sys.path == path
    finally:
        matplotlib.use(backend)


def test_f5_official_gets_the_transcript_and_the_official_parameters(f5_system, request_of):
    system, cfm = f5_system("f5-official")
    (made,) = system.synthesise([request_of("The garden waits.")])
    (asked,) = cfm.asked
    assert (
        asked.text == "a small lamp.  the garden waits."
    )  # closed by ". ", and one space of the function's own
    reference_bytes, text_bytes = len("a small lamp.  "), len("the garden waits.")
    assert asked.duration == 93 + int(93 / reference_bytes * text_bytes)
    expected = {"steps": 32, "cfg_strength": 2.5, "sway_sampling_coef": -1.0}
    assert asked.options == expected
    assert made.reference_text == "a small lamp. " and made.wave is not None


def test_f5_as_published_is_told_that_the_clip_says_the_target(f5_system, request_of):
    system, cfm = f5_system("f5-as-published")
    hiss = np.random.default_rng(0).normal(scale=0.1, size=24_000).astype(np.float32)
    system.synthesise([replace(request_of("The garden waits."), clip=hiss)])
    (asked,) = cfm.asked
    assert asked.text == "the garden waits.  the garden waits."
    assert asked.cond.shape == (1, 24_000)
    power = np.abs(np.fft.rfft(asked.cond[0].numpy())) ** 2  # one bin per hertz
    assert power[9_500:].mean() < 1e-3 * power[:7_000].mean()  # the clip went through 16 kHz
    assert asked.duration <= 2 * 93  # about one second is left for any sentence


def test_f5_repeats_a_seed_and_leaves_the_random_state_alone(f5_system, request_of):
    system, _ = f5_system("f5-official")
    system.synthesise([request_of()])  # loads the models
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    a, b, c = system.synthesise([request_of(seed=3), request_of(seed=3), request_of(seed=4)])
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(a.wave, b.wave)
    assert len(a.wave) == len(c.wave) and not np.array_equal(a.wave, c.wave)


def test_the_first_utterance_repeats_although_loading_draws_random_numbers(f5_system, request_of):
    request = request_of(seed=5)
    fresh, _ = f5_system("f5-official")
    (first,) = fresh.synthesise([request])
    (second,) = fresh.synthesise([request])
    assert np.array_equal(first.wave, second.wave)


def test_chunks_are_joined_as_the_official_function_joins_them(f5_system, request_of):
    """Chunk by chunk equals one official call with all chunks, when its thread pool happens to keep the order."""
    system, cfm = f5_system("f5-official")
    request = request_of(" ".join([TEXT] * 4))
    (made,) = system.synthesise([request])
    assert len(cfm.asked) > 1
    noise = iter([asked.noise for asked in cfm.asked])
    calls = {asked.text: next(noise) for asked in cfm.asked}

    class Replay(FakeCFM):
        def sample(self, cond, text, duration, **options):
            return calls["".join(text[0])], None

    from pvlib.text import normalise

    text = normalise(request.text, FakeCFM.vocab_char_map)
    pieces = f5.official().chunk_text(text, max_chars=int(len("a small lamp. ") * 21))
    whole, _, _ = next(
        f5.official().infer_batch_process(
            (torch.from_numpy(request.clip)[None], 24_000),
            "a small lamp. ",
            pieces,
            Replay(),
            FakeVocoder(),
            progress=None,
            device="cpu",
        )
    )
    np.testing.assert_allclose(made.wave, whole, atol=1e-5)


def test_text_that_cannot_be_spoken_is_one_failed_row(f5_system, request_of):
    system, _ = f5_system("f5-official")
    bad, good = system.synthesise([request_of("...", name="bad"), request_of("A lamp.", name="good")])
    assert "TextError" in bad.error and good.wave is not None


def test_an_empty_transcript_goes_the_official_way(f5_system, request_of):
    class Deaf:
        def transcribe(self, waves):
            return ["" for _ in waves]

    system, cfm = f5_system("f5-official", recognizer=Deaf())
    (made,) = system.synthesise([request_of("A small lamp.")])
    assert cfm.asked[0].text.startswith(".") and made.wave is not None


def test_recognition_counts_in_the_seconds_of_the_official_system(f5_system, request_of, monkeypatch):
    """On a clock that recognition alone moves: six seconds for three clips."""
    now = [0.0]

    class Slow:
        def transcribe(self, waves):
            now[0] += 2.0 * len(waves)
            return ["a lamp." for _ in waves]

    system, _ = f5_system("f5-official", recognizer=Slow())
    monkeypatch.setattr(f5, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    requests = [request_of("A lamp.", name="a"), request_of("...", name="b"), request_of("A lamp.", name="c")]
    first, failed, last = system.synthesise(requests)
    assert (first.seconds, last.seconds) == (2.0, 2.0) and np.isnan(failed.seconds)


def test_a_text_too_long_for_the_backbone_is_one_failed_row(f5_system, request_of):
    """Nothing is heard in the clip, so the official formula stretches a long sentence beyond all bounds."""

    class Deaf:
        def transcribe(self, waves):
            return ["" for _ in waves]

    settings = replace(TINY.backbone, text_conditioning="padded", stack=1, input_skip=False)
    model = backbone.build(settings).eval()
    system, _ = f5_system("f5-official", backbone=model, recognizer=Deaf())
    bad, good = system.synthesise(
        [request_of("a lamp " * 40, name="bad"), request_of("A lamp.", name="good")]
    )
    assert bad.error.startswith("TextError: ") and "together with the reference" in bad.error
    assert bad.wave is None and good.wave is not None


# PersonaVoice behind the protocol


def test_personavoice_keeps_order_when_one_fails(request_of, monkeypatch):
    @dataclass
    class Speech:
        wave: np.ndarray
        seconds: float

    @dataclass
    class Reference:
        text: str

    class Voice:
        def reference(self, clip, name, text):
            assert text is None  # no oracle
            if "mute" in name:
                raise audio.AudioError(f"{name}: nobody speaks; use another recording")
            return Reference("a lamp. ")

        def synthesise(self, jobs, progress, duration_frames, errors):
            assert errors == "return" and duration_frames == [None] * len(jobs)
            return [
                TextError("no letter")
                if job.text == "..."
                else Speech(np.linspace(-1, 1, 2400 * job.seed, dtype=np.float32), 0.5)
                for job in jobs
            ]

    system = systems.create("personavoice", MINI, "cpu")
    monkeypatch.setattr(system, "_voice", Voice())
    made = system.synthesise(
        [
            request_of("A lamp.", seed=2, name="a"),
            request_of("A lamp.", name="mute"),
            request_of("...", name="dots"),
            request_of("A lamp.", seed=4, name="b"),
        ]
    )
    assert [m.wave is None for m in made] == [False, True, True, False]
    assert (len(made[0].wave), len(made[3].wave)) == (4800, 9600)
    assert "nobody speaks" in made[1].error and "no letter" in made[2].error
    assert made[0].seconds >= 0.5 and made[0].reference_text == "a lamp. "


@pytest.mark.parametrize("name", ["personavoice", "f5-official", "f5-as-published", "ground-truth-vocoded"])
def test_the_seconds_of_the_first_row_hold_no_loading(name, f5_system, request_of, monkeypatch):
    """On a clock that loading alone moves."""
    now, loaded = [0.0], []

    def slowly(load: Callable) -> Callable:
        def loading(*args, **options):
            if load not in loaded:
                loaded.append(load)
                now[0] += 1000
            return load(*args, **options)

        return loading

    class Voice:
        def reference(self, clip, name, text):
            frontend.prepare(clip, MINI.inference, name)
            return SimpleNamespace(text="a lamp. ")

        def synthesise(self, jobs, progress, duration_frames, errors):
            return [SimpleNamespace(wave=np.linspace(-1, 1, 2400), seconds=0.0) for _ in jobs]

    system, _ = f5_system(name)
    for part in ("backbone", "vocoder", "recognizer"):
        monkeypatch.setattr(hub, f"load_{part}", slowly(getattr(hub, f"load_{part}")))
    monkeypatch.setattr(f5, "official", slowly(f5.official))
    monkeypatch.setattr(frontend, "_vad", slowly(frontend._vad))
    monkeypatch.setattr(personavoice.PersonaVoice, "load", slowly(lambda *_, **__: Voice()))
    if name == "ground-truth-vocoded":
        sound = SimpleNamespace(decode=lambda mel: torch.linspace(-1, 1, 24_000)[None])
        monkeypatch.setattr(hub, "load_vocoder", slowly(lambda profile, device: sound))
    for module in (f5, ground_truth, personavoice):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    first, second = system.synthesise([request_of("A lamp.", name="a"), request_of("A lamp.", name="b")])
    assert loaded and first.error == second.error == ""
    assert (first.seconds, second.seconds) == (0, 0)


def test_a_variant_reaches_the_pipeline(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        personavoice.PersonaVoice,
        "load",
        classmethod(lambda cls, name, device, **changed: seen.update(name=name, **changed)),
    )
    _ = systems.create("personavoice@steps=8,cfg_strength=3.0", MINI, "cpu").voice
    assert seen == {"name": "mini", "steps": 8, "cfg_strength": 3.0}


# Fingerprints


@pytest.fixture
def weights(monkeypatch):
    known = {name: f"sha-of-{name}" for name in hub.NAMES}
    monkeypatch.setattr(hub, "fingerprint", lambda name, profile: known[name])
    monkeypatch.setattr(hub, "read_card", lambda name, profile: {"sha256": f"sha-of-{name}"})
    return known


def test_fingerprints_notice_what_a_system_uses_and_nothing_else(weights):
    before = {name: systems.create(name, MINI, "cpu").fingerprint() for name in systems.NAMES}
    weights["backbone"] = "another"
    after = {name: systems.create(name, MINI, "cpu").fingerprint() for name in systems.NAMES}
    changed = {name for name in systems.NAMES if before[name] != after[name]}
    assert changed == {"f5-official", "f5-as-published", "personavoice"}
    assert set(before["ground-truth"]["weights"]) == set()
    assert "recognizer" not in before["f5-as-published"]["weights"]

    for name in (*systems.NAMES, systems.SPREAD):  # and so a variant changes what is in there
        used = systems.create(name, MINI, "cpu").fingerprint()["inference"]
        assert set(systems.parameters(name)) == set(used), name
    steps = systems.create("f5-official@steps=8", MINI, "cpu").fingerprint()
    assert steps != after["f5-official"]


def test_sources_follow_imports_but_not_through_the_hub(weights):
    truth = systems.create("ground-truth", MINI, "cpu").fingerprint()["sources"]
    assert {"pvlib.audio", "pvlib.systems.ground_truth", "pvlib.hub"} <= set(truth)
    assert not {"pvlib.backbone", "pvlib.voice", "pvlib.laag", "pvlib.config"} & set(truth)
    persona = systems.create("personavoice", MINI, "cpu").fingerprint()["sources"]
    assert {"pvlib.backbone", "pvlib.voice", "pvlib.laag", "pvlib.frontend", "pvlib.text"} <= set(persona)
    assert not any(name.startswith(("pvlib.study", "pvlib.training", "pvlib.world")) for name in persona)


def test_a_comment_is_no_change_of_source_but_code_is(tmp_path):
    def hashed(text: str) -> str:
        path = tmp_path / "module.py"
        path.write_text(text, encoding="utf-8")
        return fingerprint.source_hash(path)

    plain = hashed("def f(x):\n    return x + 1\n")
    assert (
        hashed('"""Doc."""\n\n# a comment\ndef f(x):\n    """More."""\n    return (x +\n            1)\n')
        == plain
    )
    assert hashed("def f(x):\n    return x + 2\n") != plain


def test_imports_are_read_in_every_form(tmp_path, monkeypatch):
    package = tmp_path / "pvlib"
    (package / "inner").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "top.py": (
            "from typing import TYPE_CHECKING\nfrom pvlib import b\n"
            "if TYPE_CHECKING:\n    from pvlib.unseen import X\n"
            "def late():\n    import pvlib.c as c\n    from .inner.d import thing\n"
        ),
        "b.py": "import numpy\nfrom pvlib.inner import e\n",
        "c.py": "",
        "unseen.py": "",
        "inner/__init__.py": "",
        "inner/d.py": "from . import e\n",
        "inner/e.py": "",
    }
    for name, text in files.items():
        (package / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert fingerprint.closure(["pvlib.top"]) == [
        "pvlib.b",
        "pvlib.c",
        "pvlib.inner.d",
        "pvlib.inner.e",
        "pvlib.top",
    ]


def test_every_source_named_is_a_file(weights):
    for name in systems.NAMES:
        for module in systems.create(name, MINI, "cpu").fingerprint()["sources"]:
            assert Path(fingerprint.module_path(module)).is_file()


def test_every_package_that_rows_are_made_with_is_named_by_its_version(weights):
    """Those that a system or a judge imports itself, but for readers of files that are hashed, and drawing."""
    modules = {
        m for name in systems.NAMES for m in systems.create(name, MINI, "cpu").fingerprint()["sources"]
    }
    modules |= set(fingerprint.closure(["pvlib.metrics.judges"]))
    imported = set()
    for module in modules:
        for node in ast.walk(ast.parse(fingerprint.module_path(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= set(sys.stdlib_module_names) | {"pvlib"}
    owners = packages_distributions()
    packages = {owner.lower().replace("_", "-") for name in imported for owner in owners.get(name, [])}
    assert packages >= {"torch", "f5-tts", "vocos", "jiwer"}
    assert packages - set(fingerprint.PACKAGES) == NO_NUMBERS & packages
    assert "absent" not in fingerprint.package_versions().values()
