"""XTTS and CosyVoice behind the protocol: the real worker, in real environments, with made-up packages in them."""

from __future__ import annotations

import ast
import gc
import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from babble import babble

from pvlib import audio, cli, hub, paths, systems
from pvlib.config import MINI, ConfigError, Externals
from pvlib.systems.base import Request, System
from pvlib.systems.external import environment
from pvlib.systems.external import system as external
from pvlib.systems.external.environment import ExternalError

CLIP = babble(1.0)
PATIENT = Externals(question_seconds=60, start_seconds=300, request_seconds=120, stop_seconds=20)

TTS = """
import os, sys, time
import soundfile, torch

class TTS:
    def __init__(self, model, progress_bar=True):
        assert model == "tts_models/multilingual/multi-dataset/xtts_v2"
        print("a package that talks while it loads")
        if os.environ.get("FAKE_ASKS"):
            input("Do you agree? ")
        torch.rand(3)
        self.synthesizer = type("Synthesizer", (), {"output_sample_rate": 24000})

    def to(self, device):
        assert device == "cpu"
        return self

    def tts(self, text, speaker_wav, language):
        print("and while it speaks")
        (path,) = speaker_wav
        assert language == "en" and sys.flags.isolated
        clip, rate = soundfile.read(path, dtype="float32")
        assert rate == 24000
        if text == "fail":
            raise ValueError("no such\\nletter")
        if text == "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(7)
        if text == "hang":
            time.sleep(600)
        return list(clip) + torch.rand(100 * len(text)).tolist()
"""
COSYVOICE = """
import torch

class CosyVoice:
    sample_rate = 22050

    def __init__(self, model_dir):
        self.place = model_dir

    def inference_zero_shot(self, tts_text, prompt_text, {prompt}, zero_shot_spk_id="", stream=False, speed=1.0):
        assert prompt_text == "a small lamp" and not stream
        {check}
        for sentence in tts_text.split("."):
            if sentence.strip():
                yield {{"tts_speech": 0.1 * torch.randn(1, 11025)}}
"""
NEW = {"prompt": "prompt_wav", "check": "assert prompt_wav.endswith('.wav')"}
OLD = {"prompt": "prompt_speech_16k", "check": "assert prompt_speech_16k.shape == (1, 16000)"}
LOAD_WAV = """
import numpy, soundfile, torch

def load_wav(path, rate):
    wave, own = soundfile.read(path, dtype="float32")
    times = numpy.arange(len(wave) * rate // own) * own / rate
    return torch.from_numpy(numpy.interp(times, numpy.arange(len(wave)), wave).astype("float32"))[None]
"""


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A virtual environment with a made-up TTS, where torch, numpy and soundfile are those of the tests."""
    place = tmp_path_factory.mktemp("externals") / "xtts"
    venv.create(place, symlinks=os.name != "nt")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    write(own / "real.pth", "\n".join(sorted({sysconfig.get_path(k) for k in ("purelib", "platlib")})))
    write(own / "TTS" / "api.py", TTS)
    write(own / "coqui_tts-0.28.0.dist-info" / "METADATA", "Name: coqui-tts\nVersion: 0.28.0\n")
    return SimpleNamespace(
        place=place, own=own, python=next(p for n in environment.INTERPRETERS if (p := place / n).is_file())
    )


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Nothing is installed and nothing named."""
    for name in [name for name in os.environ if name.startswith(("PVLIB_XTTS", "PVLIB_COSYVOICE"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(environment.AGREED, raising=False)
    monkeypatch.setattr(paths, "EXTERNALS", tmp_path / "externals")
    return tmp_path


@pytest.fixture
def xtts(bare, made, monkeypatch):
    monkeypatch.setenv("PVLIB_XTTS_PYTHON", str(made.python))
    monkeypatch.setenv(environment.AGREED, "1")

    def make(limits=PATIENT, device="cpu"):
        return external.XTTS("xtts", MINI, torch.device(device), limits)

    return make


@pytest.fixture
def cosyvoice(bare, made, monkeypatch):
    monkeypatch.setenv("PVLIB_COSYVOICE_PYTHON", str(made.python))
    monkeypatch.setattr(
        hub, "load_recognizer", lambda *_: SimpleNamespace(transcribe=lambda clips: ["a small lamp"])
    )

    def make(generation=NEW):
        home = paths.EXTERNALS / "cosyvoice-checkout"
        write(home / "cosyvoice" / "cli" / "cosyvoice.py", COSYVOICE.format(**generation))
        write(home / "cosyvoice" / "utils" / "file_utils.py", LOAD_WAV)
        write(home / "third_party" / "Matcha-TTS" / "matcha" / "__init__.py")
        write(home / "pretrained_models" / "CosyVoice-300M" / "cosyvoice.yaml")
        return external.CosyVoice("cosyvoice", MINI, torch.device("cpu"), PATIENT)

    return make


def request(text="The garden waits.", seed=3, name="u1", clip=CLIP) -> Request:
    return Request(name, "s1", text, clip, None, seed, len(text.split()), "short")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


# Speech


def test_xtts_speaks_through_the_worker(xtts):
    system = xtts()
    assert isinstance(system, System) and system.name == "xtts"
    counted = []
    nan = np.full(24_000, np.nan, np.float32)
    first, bad, mute, empty, failed, again, other = system.synthesise(
        [
            request(),
            request(clip=nan, name="u2"),
            request(clip=np.zeros(24_000, np.float32)),
            request("  "),
            request("fail"),
            request(),
            request(seed=4),
        ],
        counted.append,
    )
    assert counted == [1] * 7
    assert first.wave.dtype == np.float32 and len(first.wave) == 24_000 + 100 * len(request().text)
    np.testing.assert_allclose(first.wave[:24_000], CLIP, atol=1e-4)  # the clip went there and came back
    assert first.seconds > 0 and first.reference_text == ""
    assert np.array_equal(first.wave, again.wave)
    assert len(first.wave) == len(other.wave) and not np.array_equal(first.wave, other.wave)
    assert "AudioError: the clip of u2" in bad.error and "AudioError" in mute.error
    assert "TextError" in empty.error
    assert failed.error == "ValueError: no such letter" and failed.wave is None

    worker = system._worker
    pid, folder = worker.process.pid, worker.folder
    assert is_running(pid) and not list(folder.iterdir())
    fresh = xtts()  # a process that loaded a moment ago says the same
    (same,) = fresh.synthesise([request()])
    assert np.array_equal(first.wave, same.wave)
    fresh.close()
    fresh.close()
    del system, worker
    gc.collect()
    assert not is_running(pid) and not folder.exists()


@pytest.mark.parametrize("generation", [NEW, OLD], ids=["takes a path", "takes samples"])
def test_cosyvoice_is_told_what_the_clip_says_and_all_parts_are_joined(cosyvoice, generation):
    system = cosyvoice(generation)
    try:
        made, again = system.synthesise([request("The garden waits. It rains.")] * 2)
    finally:
        system.close()
    assert made.reference_text == "a small lamp"
    assert len(made.wave) == 24_000  # two parts of half a second at 22,050 Hz, at our rate
    assert np.array_equal(made.wave, again.wave) and np.ptp(made.wave) > 0


def test_a_clip_without_words_is_no_prompt_for_cosyvoice(cosyvoice, monkeypatch):
    monkeypatch.setattr(hub, "load_recognizer", lambda *_: SimpleNamespace(transcribe=lambda clips: [""]))
    system = cosyvoice()
    (made,) = system.synthesise([request()])
    assert made.error.startswith("TextError: the recogniser heard no word") and system._worker is None


# What goes wrong


def test_a_dying_worker_is_an_error_that_tells_its_end(xtts):
    system = xtts()
    with pytest.raises(ExternalError, match=r"xtts: .* exit status 7 while it said u9 .*out of luck"):
        system.synthesise([request("die", name="u9")])
    (made,) = system.synthesise([request()])  # another process speaks for it
    assert made.wave is not None
    os.kill(system._worker.process.pid, 9)
    with pytest.raises(ExternalError, match="signal SIGKILL"):
        system.synthesise([request()])


def test_a_hanging_worker_is_ended(xtts):
    system = xtts(replace(PATIENT, request_seconds=1.0))
    system._running()
    pid = system._worker.process.pid
    with pytest.raises(ExternalError, match="no answer within 1 s while it said u1, and was ended"):
        system.synthesise([request("hang")])
    assert not is_running(pid) and system._worker is None


def test_a_worker_that_asks_a_question_finds_no_answer(xtts, monkeypatch):
    monkeypatch.setenv("FAKE_ASKS", "1")
    with pytest.raises(ExternalError, match="exit status 1 while it loaded .*EOFError"):
        xtts().synthesise([request()])


def test_a_worker_ends_with_its_input_in_the_middle_of_a_sentence(made, tmp_path):
    command = [made.python, "-I", environment.WORKER, "xtts", json.dumps({"model": environment.XTTS_MODEL})]
    clip = audio.write(tmp_path / "clip.wav", CLIP)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert json.loads(worker.stdout.readline())["ready"]
        asked = {"text": "hang", "reference": str(clip), "reference_text": "", "seed": 1, "wave": "none.wav"}
        worker.stdin.write(json.dumps(asked) + "\n")
        worker.stdin.flush()
        time.sleep(0.5)
        assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(30) == 0


class Stub:
    """A worker without a process."""

    def __init__(self, folder, answer):
        self.folder, self.answer, self.closed = folder, answer, 0

    def ready(self):
        return {"ready": True, "device": "cpu"}

    def ask(self, request, about):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def close(self):
        self.closed += 1


def test_no_late_answer_is_taken_for_another(xtts, tmp_path):
    system, stub = xtts(), Stub(tmp_path, KeyboardInterrupt())
    system._worker = stub
    with pytest.raises(KeyboardInterrupt):
        system.synthesise([request()])
    assert stub.closed and system._worker is None and not list(tmp_path.glob("*.wav"))


def test_a_broken_gpu_costs_one_row_and_the_process(xtts, tmp_path):
    system, stub = xtts(), Stub(tmp_path, {"error": "RuntimeError: CUDA error", "broken": True})
    system._worker = stub
    (made,) = system.synthesise([request()])
    assert "CUDA error" in made.error and stub.closed and system._worker is None


def test_a_worker_without_the_gpu_that_we_have_is_refused(xtts, tmp_path, monkeypatch):
    stub = Stub(tmp_path, {})
    monkeypatch.setattr(external, "Worker", lambda *_: stub)
    with pytest.raises(ExternalError, match="finds no GPU"):
        xtts(device="cuda").synthesise([request()])
    assert stub.closed


@pytest.mark.parametrize(
    ("device", "seen", "expected"),
    [("cpu", "0,1", ""), ("cuda", "0,1", "0,1"), ("cuda:1", "", "1"), ("cuda:1", "4,6", "6")],
)
def test_a_worker_sees_the_device_of_its_system(xtts, monkeypatch, device, seen, expected):
    monkeypatch.setenv(external.VISIBLE, seen)
    assert xtts(device=device)._variables()[external.VISIBLE] == expected


# What is not installed


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("xtts", ["python3.12 -m venv", "pip install coqui-tts==0.28.0", "PVLIB_XTTS_PYTHON"]),
        (
            "cosyvoice",
            ["git clone --recursive", "python3.10 -m venv", "requirements.txt", "PVLIB_COSYVOICE_PYTHON"],
        ),
    ],
)
def test_an_absent_system_tells_how_to_install_it(bare, capsys, name, lines):
    assert cli.main(["evaluate", "--system", "personavoice", name]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"pvlib: error: {name} is not installed") and told.count("\n") == 1
    assert all(line in told for line in (*lines, str(paths.EXTERNALS / name)))


def test_the_readme_has_the_lines_of_the_messages(bare):
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ExternalError) as error:
        environment.find("xtts")
    pip = str(error.value).partition("pip install ")[2].partition("`")[0]
    assert f"build/externals/xtts/bin/pip install {pip}\n" in readme
    with pytest.raises(ExternalError) as error:
        environment.find("cosyvoice")
    clone = str(error.value).partition("`")[2].partition(str(bare))[0]
    assert f"    {clone}build/externals/cosyvoice-checkout\n" in readme
    assert f"iic/{environment.COSYVOICE_MODEL}" in readme
    steps = [part.partition("cosyvoice/bin/pip install ")[2] for part in str(error.value).split(" && ")]
    steps = [step.replace(str(bare), "build/externals").partition("externals")[0] for step in steps if step]
    assert len(steps) == 3 and all(f"cosyvoice/bin/pip install {step}" in readme for step in steps)


def test_whatever_is_missing_is_named(bare, made, cosyvoice, monkeypatch):
    def message(name):
        with pytest.raises(ExternalError) as error:
            systems.create(name, MINI, "cpu")
        return str(error.value)

    monkeypatch.setenv("PVLIB_XTTS_PYTHON", str(bare / "none"))
    assert "PVLIB_XTTS_PYTHON names" in message("xtts")
    monkeypatch.setenv("PVLIB_XTTS_PYTHON", sys.executable)
    assert "Coqui Public Model License" in message("xtts") and "COQUI_TOS_AGREED=1" in message("xtts")
    monkeypatch.setenv(environment.AGREED, "1")
    assert "has no package coqui-tts" in message("xtts")
    broken = write(bare / "broken", "#!/bin/sh\necho no luck >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PVLIB_XTTS_PYTHON", str(broken))
    assert "does not run (exit status 3: no luck)" in message("xtts")

    assert "is no checkout of CosyVoice" in message("cosyvoice")
    cosyvoice()
    home = paths.EXTERNALS / "cosyvoice-checkout"
    (home / "pretrained_models" / "CosyVoice-300M" / "cosyvoice.yaml").unlink()
    assert "holds no weights" in message("cosyvoice") and "iic/CosyVoice-300M" in message("cosyvoice")
    monkeypatch.setenv("PVLIB_COSYVOICE_MODEL", str(write(bare / "other" / "cosyvoice2.yaml").parent))
    assert systems.create("cosyvoice", MINI, "cpu").environment.options["model"] == str(bare / "other")
    (home / "third_party" / "Matcha-TTS" / "matcha" / "__init__.py").unlink()
    (home / "third_party" / "Matcha-TTS" / "matcha").rmdir()
    assert "submodule update" in message("cosyvoice")


def test_the_usual_place_is_found_without_a_variable(bare, made, monkeypatch):
    monkeypatch.setenv(environment.AGREED, "1")
    monkeypatch.setattr(paths, "EXTERNALS", made.place.parent)
    assert environment.find("xtts").python == made.python


def test_they_are_no_part_of_the_default_study_and_have_no_variants(bare):
    assert not set(systems.EXTERNAL) & set(systems.NAMES)
    for name in systems.EXTERNAL:
        assert systems.is_known(name) and systems.lacking(name, "mini") == []
        with pytest.raises(ConfigError, match="has no variants"):
            systems.parse(f"{name}@steps=8")


# Fingerprints


def test_fingerprints_notice_the_worker_and_what_is_installed(xtts, cosyvoice, made):
    found = xtts().fingerprint()
    assert found["external"]["packages"]["coqui-tts"] == "0.28.0"
    assert found["external"]["packages"]["torch"] == metadata.version("torch")
    assert "pvlib.systems.external.worker" in found["sources"] and not found["weights"]
    card = made.own / "coqui_tts-0.28.0.dist-info" / "METADATA"
    text = card.read_text(encoding="utf-8")
    try:
        card.write_text(text.replace("0.28.0", "0.29.0"), encoding="utf-8")
        assert xtts().fingerprint() != found
    finally:
        card.write_text(text, encoding="utf-8")
    assert xtts().fingerprint() == found

    new = cosyvoice().fingerprint()
    assert "recognizer" in new["weights"] and new["external"]["weights"] == {"cosyvoice.yaml": 0}
    assert cosyvoice().fingerprint() == new
    assert cosyvoice(OLD).fingerprint()["external"]["sources"] != new["external"]["sources"]


def test_the_worker_is_no_part_of_pvlib_and_runs_on_older_pythons():
    tree = ast.parse(environment.WORKER.read_text(encoding="utf-8"), feature_version=(3, 10))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    theirs = imported - set(sys.stdlib_module_names)
    assert theirs == {"TTS", "cosyvoice", "numpy", "soundfile", "torch"}
