"""What the paper profile says of a machine on which it cannot run."""

import re

import pandas as pd
import pytest
import torch

from pvlib import cli, models, paths
from pvlib.config import MINI, PAPER
from pvlib.study import libritts, preflight, reproduce
from pvlib.study import manifest as manifests


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No model, no test set, no NVIDIA driver."""
    monkeypatch.setattr(models, "find", lambda model, file: None)
    monkeypatch.setattr(paths, "MANIFESTS", tmp_path)
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(preflight, "DRIVER", tmp_path / "none")
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    return tmp_path


def test_all_that_is_missing_is_told_at_once_with_the_commands_in_order(bare):
    with pytest.raises(preflight.NotReady) as stop:
        preflight.check(PAPER)
    told = str(stop.value)
    for part in ("backbone", "vocoder", "speaker_encoder", "recognizer", "utmos", "sim_o"):
        (model,) = (model for model in models.MODELS if part in (model.part, model.proxy))
        [line] = [
            line for line in told.splitlines() if line.strip().startswith(f"{model.name}, {model.purpose}")
        ]
        assert f"({model.size / 1e9:.2f} GB" in line and line.endswith("): nothing of it is here")
        assert (str(models.folder(model)) in line) == bool(model.url)
    assert "Qwen" not in told and "BERT" not in told  # nothing needs these to make a row
    assert str(bare / "libritts-test.csv") in told and "git checkout" not in told
    lines = [line.strip() for line in told.splitlines()]
    commands = [line.partition("#")[0].strip() for line in lines if line.startswith("pvlib")]
    assert commands == ["pvlib models download", "pvlib data prepare"]
    for command in commands:
        cli.parser().parse_args(command.split()[1:])
    (size,) = re.findall(r"models download +# ([\d.]+) GB", told)
    needed = sum(model.size for model in models.models())  # the command fetches all that are required
    assert float(size) == pytest.approx(needed / 1e9, abs=0.06)


def test_who_only_clones_needs_no_judges(bare):
    with pytest.raises(preflight.NotReady) as stop:
        preflight.check(PAPER, test_set=False, judged=False)
    assert "F5-TTS" in str(stop.value) and "UTMOS" not in str(stop.value) and "WavLM" not in str(stop.value)


@pytest.mark.parametrize(
    "command", [["clone", "--reference", "a.wav", "--text", "no", "--out", "x.wav"], ["serve"]]
)
def test_who_hears_no_judge_is_asked_for_none(bare, capsys, command):
    assert cli.main([*command, "--profile", "paper"]) == 2
    told = capsys.readouterr().err
    assert "F5-TTS" in told and "UTMOS" not in told and "WavLM" not in told


def test_only_what_is_missing_is_asked_for(bare, monkeypatch):
    monkeypatch.setattr(models, "find", lambda model, file: None if model.part == "vocoder" else bare)
    with pytest.raises(preflight.NotReady, match=r"(?s)Vocos.*models download") as stop:
        preflight.check(PAPER, test_set=False)
    assert "Whisper" not in str(stop.value) and "data prepare" not in str(stop.value)
    monkeypatch.setattr(models, "find", lambda model, file: bare)
    preflight.check(PAPER, test_set=False)
    with pytest.raises(preflight.NotReady, match="data prepare") as stop:
        preflight.check(PAPER)
    assert "models download" not in str(stop.value)


def test_a_test_set_that_lost_its_sound_is_made_again(bare, monkeypatch):
    monkeypatch.setattr(models, "find", lambda model, file: bare)
    row = libritts._row(next(pd.DataFrame([{"utterance": "84_1", "speaker": "84", "text": "a b c d e f g h i",
                                            "words": 9, "bucket": "long", "seconds": 3.0}]).itertuples()))  # fmt: skip
    pd.DataFrame([row]).to_csv(bare / "libritts-test.csv", index=False)
    with pytest.raises(preflight.NotReady, match=r"84_1.*is missing; make it with `pvlib data prepare`"):
        preflight.check(PAPER)


def test_a_smaller_test_set_than_asked_for_is_told_with_both_ways_out(bare, monkeypatch):
    monkeypatch.setattr(models, "find", lambda model, file: bare)
    table = pd.DataFrame({"utterance": range(20)})
    whole = manifests.Manifest("libritts-test", table, bare, {"84": {}}, "")
    monkeypatch.setattr(manifests, "read", lambda name: whole)
    (bare / "libritts-test.csv").touch()
    preflight.check(PAPER, samples=20)
    with pytest.raises(
        preflight.NotReady,
        match=r"(?s)180 of 200 utterances: .* holds 20, .*samples 20 \(make: .*=20\).*data prepare",
    ):
        preflight.check(PAPER, samples=200)
    whole.enrolment.clear()
    (libritts.folder() / libritts.SPLIT).mkdir(parents=True)
    with pytest.raises(preflight.NotReady, match="data prepare --samples 20 --skip-download$"):
        preflight.check(PAPER, samples=20)


def test_embedded_weights_need_nothing(bare):
    preflight.check(MINI)


SPOKEN = ["clone", "--reference", "data/samples/demo.wav", "--text", "no", "--out", "x.wav"]
LEARNT = ["train", "adapters", "--speech", "nowhere"]


@pytest.mark.parametrize(
    "command", [["reproduce"], ["evaluate"], ["evaluate", "--notebooks", "06"], SPOKEN, LEARNT]
)
def test_the_commands_stop_before_any_work(bare, monkeypatch, capsys, command):
    monkeypatch.setattr(reproduce, "prepare", lambda *_, **__: pytest.fail("work began"))
    assert cli.main([*command, "--profile", "paper"]) == 2
    told = capsys.readouterr().err
    assert (
        told.startswith("pvlib: error: the profile paper cannot run here yet") and "models download" in told
    )
    assert ("data prepare" in told) == (command is not SPOKEN)


def test_a_folder_of_speech_that_is_not_there_is_told_before_the_models_are_read(monkeypatch, capsys):
    monkeypatch.setattr(preflight, "check", lambda profile: None)
    assert cli.main(["train", "adapters", "--profile", "paper", "--speech", "nowhere"]) == 2
    assert "--speech nowhere is no folder" in capsys.readouterr().err


def test_a_profile_that_is_not_embedded_is_not_recorded(monkeypatch):
    monkeypatch.setattr(preflight, "check", lambda profile, samples: None)
    with pytest.raises(reproduce.ReproduceError, match="of embedded weights; the rows of paper stay in"):
        reproduce.reproduce("paper", record=True)


def test_a_gpu_that_this_torch_cannot_use_is_an_error_not_a_slow_run(bare, monkeypatch):
    monkeypatch.setattr(models, "find", lambda model, file: bare)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not preflight.gpu()  # a machine without a GPU computes on its processor
    preflight.DRIVER.write_text("NVRM version")
    with pytest.raises(
        preflight.NotReady, match=r"an NVIDIA driver, but torch .* finds none; install the PyTorch"
    ):
        preflight.check(PAPER, test_set=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    preflight.check(PAPER, test_set=False)


def test_a_gpu_of_another_architecture_is_named(bare, monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    assert "no kernel image is available for execution on the device; install" in preflight.gpu()


def test_a_gpu_that_cannot_be_used_stops_the_embedded_profile_too(bare, monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(preflight.NotReady, match=r"(?s)profile mini .*no kernel.*CUDA_VISIBLE_DEVICES=\"\""):
        preflight.check(MINI, test_set=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    preflight.DRIVER.write_text("NVRM version")  # a GPU that torch does not take is not needed
    preflight.check(MINI)
