"""The command line: fast help that teaches, one-line errors before any work, clean output for scripts."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from pvlib import cli, hub, paths
from pvlib.config import MINI

DEMO = paths.SAMPLES / "demo.wav"


def pvlib(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pvlib", *arguments], capture_output=True, text=True, cwd=paths.ROOT, **options
    )


def error(capsys, *arguments: str) -> str:
    """The one line that a failing command prints; nothing else may be printed."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pvlib: error: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "voice.wav"
    t = np.arange(24_000) / 24_000
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 3 * t), 24_000)
    return path


@pytest.fixture
def no_models(monkeypatch):
    """Fails the test when a model is loaded."""
    from pvlib import voice

    def load(*_, **__):
        raise AssertionError("models were loaded before the arguments were checked")

    monkeypatch.setattr(voice.PersonaVoice, "load", load)


# Help


def test_help_answers_within_a_second():
    before = os.times()
    assert pvlib("--help").returncode == 0
    after = os.times()  # of the processor, so that a busy machine does not matter
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_help_imports_nothing_heavy():
    script = "import sys; from pvlib import cli; cli.parser(); print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=paths.ROOT)
    assert run.stdout.strip() == "set()", run.stdout + run.stderr


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_teaches_by_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown and max(map(len, shown.splitlines())) <= 120
    import shlex

    for example in cli.COMMANDS[command].examples.splitlines():
        assert example in shown
        words = shlex.split(example)
        arguments = cli.parser().parse_args(words[words.index("pvlib") + 1 :])
        assert arguments.run is cli.COMMANDS[command].run


def test_every_delivered_command_is_there():
    assert {name.split()[0] for name in cli.COMMANDS} == {
        "clone", "reply", "serve", "reproduce", "evaluate", "verify", "audit", "speed", "train", "world", "models",
        "data", "info",
    }  # fmt: skip


def test_version_names_the_distribution(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert "personavoice-companion" in capsys.readouterr().out


# Mistakes: one line, status 2, before any model is loaded, and nothing is written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "{folder}/b.aiff"], "b.aiff: the name must end in .wav"),
        (["--out", "{folder}/none"], "must end in"),
        (["--out", "{folder}/folder.wav"], "folder.wav is a folder"),
        (["--out", "{folder}/file/b.wav"], "cannot write in"),
        (["--out", "{recording}"], "is the reference itself"),
        (["--out", "{folder}/" + "b" * 300 + ".wav"], "File name too long"),
        (["--set", "steps"], "--set steps: write NAME=VALUE"),
        (["--set", "steps=many"], "--set steps=many"),
        (["--set", "steps=0"], "steps = 0 is outside 1 to 1000"),
        (["--set", "use_laag=maybe"], "--set use_laag=maybe"),
        (["--set", "short_text_cfg=much"], "--set short_text_cfg=much"),
        (["--set", "best_of_n=0"], "best_of_n = 0 is outside 1 to 64"),
        (["--set", "lead_trim_ms=-5"], "lead_trim_ms = -5 is outside 0 to 5000"),
        (["--set", "laag_chunk_min_chars=100"], "laag_chunk_min_chars = 100 is outside 1 to half"),
        (["--set", "rms_gain_range=0,0"], "rms_gain_range = (0.0, 0.0): give lowest,highest"),
        (["--set", "tempo=2"], "no parameter tempo"),
        (["--emotion", "bored"], "no emotion 'bored': choose one of neutral, happy, sad, angry"),
        (["--emotion-strength", "0.5"], "give --emotion as well"),
        (["--trait", "openness"], "--trait openness: write NAME=VALUE"),
        (["--trait", "openness=2"], "the recall of openness is 2.0, outside -1 to 1"),
        (["--trait", "kindness=1"], "no trait 'kindness'"),
        (["--persona", "{folder}/absent.txt"], "absent.txt: No such file"),
        (["--env-weight", "2"], "env_weight = 2.0 is outside 0 to 1"),
        (["--profile", "maxi"], "no profile 'maxi': choose one of mini, paper"),
        (["--reference", "{folder}/absent.wav"], "absent.wav"),
        (["--reference", "{folder}/file"], "file"),
        (["--text-file", "{folder}/absent.txt"], "absent.txt: No such file"),
        (["--text-file", "{folder}/latin.txt"], "give UTF-8 text"),
    ],
)
def test_clone_tells_mistakes_first(arguments, told, recording, tmp_path, capsys, no_models):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").write_text("no sound")
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    given = {"--reference": str(recording), "--text": "hello", "--out": str(tmp_path / "b.wav")}
    given |= {arguments[0]: arguments[1].format(folder=tmp_path, recording=recording)}
    if arguments[0] == "--text-file":
        del given["--text"]
    before = sorted(tmp_path.rglob("*"))
    line = error(capsys, "clone", *(word for pair in given.items() for word in pair))
    assert told in line
    assert sorted(tmp_path.rglob("*")) == before


def test_the_output_is_checked_before_the_reference(tmp_path, capsys, no_models):
    (tmp_path / "file").write_text("")
    line = error(
        capsys, "clone", "--reference", "absent.wav", "--text", "x", "--out", str(tmp_path / "file" / "b.wav")
    )
    assert "--out" in line


@pytest.mark.parametrize("wish", [["--emotion", "sad"], ["--trait", "openness=1"], ["--gate", "always"]])
def test_what_only_adapters_do_says_how_to_train_them(wish, recording, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    from pvlib import hub

    monkeypatch.setattr(hub, "load_backbone", lambda profile, device: None)
    line = error(
        capsys, "clone", "--reference", str(recording), "--text", "a", "--out", str(tmp_path / "b.wav"), *wish
    )
    assert "adapters.safetensors is missing" in line and "pvlib train adapters" in line


def test_clone_needs_one_text(capsys):
    for texts in ([], ["--text", "a", "--text-file", "b"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["clone", "--reference", "a.wav", "--out", "b.wav", *texts])
        assert stop.value.code == 2 and "--text" in capsys.readouterr().err


def test_the_other_commands_tell_mistakes_too(capsys):
    assert "0 to" not in error(capsys, "reproduce", "--samples", "201")
    assert "no profile" in error(capsys, "evaluate", "--profile", "maxi")
    assert "no system 'vall-e'" in error(capsys, "evaluate", "--system", "vall-e")
    assert "no notebook" in error(capsys, "reproduce", "--only", "77")
    assert "13_beyond_the_paper" in error(capsys, "reproduce", "--only", "13", "--profile", "paper")
    assert "13_beyond_the_paper" in error(capsys, "evaluate", "--notebooks", "13", "--profile", "paper")
    assert "nothing to compare" in error(capsys, "verify", "--profile", "paper")
    line = error(capsys, "evaluate", "--system", "f5-official@use_laag=False")
    assert "f5-official does not use use_laag; give one of steps" in line
    for arguments in (
        ["verify", "--rows", "0"],
        ["verify", "--seed", "-1"],
        ["clone", "--reference", "a.wav", "--text", "a", "--out", "b.wav", "--seed", str(2**32)],
        ["train", "mel"],
        ["train", "vocoder", "--minutes", "-1"],
        [],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
    capsys.readouterr()
    for arguments, told in (
        (["verify", "--rows", "ten"], "argument --rows: 'ten' is no whole number"),
        (["train", "vocoder", "--minutes", "some"], "argument --minutes: 'some' is no number"),
        (["serve", "--port", "99999"], "argument --port: 99999 is not 0 to 65535"),
    ):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert told in capsys.readouterr().err


def test_evaluate_takes_all_variants_along(monkeypatch, capsys):
    from pvlib.study import ablations, evaluate

    asked = []

    def rows(profile, names, samples, manifest, ranks):
        asked.append((list(names), samples))
        return pd.DataFrame({"system": ["personavoice"]})

    monkeypatch.setattr(evaluate, "evaluate", rows)
    for more in ([], ["--all"]):
        assert cli.main(["evaluate", "--system", "personavoice", "--samples", "9", "--json", *more]) == 0
    every = [*ablations.variants(), *ablations.adapter_variants("mini")]
    assert asked == [(["personavoice"], 9), (["personavoice", *every], 9)]
    assert capsys.readouterr().out.count("personavoice") == 2


def test_evaluate_says_every_utterance_with_several_seeds(monkeypatch, capsys):
    from pvlib.study import evaluate, manifest

    own, asked = manifest.read(MINI.manifest).table["seed"].tolist(), []
    monkeypatch.setattr(
        evaluate,
        "evaluate",
        lambda profile, names, samples, manifest, ranks: (
            asked.append((names, manifest.table["seed"].tolist())) or pd.DataFrame({"system": ["a"]})
        ),
    )
    systems = ["ground-truth", "personavoice"]  # a recording has no noise to draw again
    assert cli.main(["evaluate", "--system", *systems, "--seeds", "3", "--json"]) == 0
    later = [(["personavoice"], [seed + number for seed in own]) for number in (1, 2)]
    assert asked == [(systems, own), *later]
    assert len(capsys.readouterr().out.splitlines()) == 3


# What is foreseen and what is not


def fails_with(monkeypatch, exception: BaseException) -> None:
    def run(_):
        raise exception

    monkeypatch.setitem(cli.COMMANDS, "info", cli.COMMANDS["info"]._replace(run=run))


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch):
    fails_with(monkeypatch, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


def test_an_interruption_says_that_one_may_go_on(monkeypatch, capsys):
    fails_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(["info"]) == 130
    assert "run the command again" in capsys.readouterr().err


def test_an_error_of_ours_becomes_one_line_however_long(monkeypatch, capsys):
    from pvlib.hub import WeightsError

    fails_with(monkeypatch, WeightsError("first\nsecond\n  third"))
    assert error(capsys, "info") == "pvlib: error: first second third\n"


def test_a_path_that_is_closed_to_us_is_one_line_wherever_it_is_touched(capsys, tmp_path):
    name = "x" * 300 + ".wav"
    line = error(capsys, "clone", "--reference", name, "--text", "hello", "--out", str(tmp_path / "a.wav"))
    assert line.startswith(f"pvlib: error: {name}: File name too long; choose a shorter name")


def test_a_full_disk_is_one_line_and_another_error_of_the_system_is_not(monkeypatch, capsys):
    fails_with(monkeypatch, OSError(28, "No space left on device", "/somewhere/x"))
    assert "/somewhere/x: No space left on device; make room" in error(capsys, "info")
    fails_with(monkeypatch, FileNotFoundError(2, "No such file", "x"))
    with pytest.raises(FileNotFoundError):
        cli.main(["info"])


def test_a_missing_package_is_named(monkeypatch, capsys):
    fails_with(monkeypatch, ModuleNotFoundError("No module named 'pyworld'", name="pyworld"))
    assert "pyworld is not installed" in error(capsys, "info")


def test_own_warnings_are_shown_and_those_of_libraries_are_not(monkeypatch, capsys):
    import warnings

    def run(_):
        for line in (1, 2):
            warnings.warn_explicit("heed\nthis", UserWarning, "voice.py", line, module="pvlib.voice")
        warnings.warn_explicit("not that", FutureWarning, "x.py", 1, module="torchaudio.x")

    monkeypatch.setitem(cli.COMMANDS, "info", cli.COMMANDS["info"]._replace(run=run))
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().err == "pvlib: warning: heed this\n"


# Settings


def test_a_setting_without_a_default_is_a_number_or_none():
    found = cli._settings(["short_text_cfg=3", "am_ode_momentum=none"])
    assert found == {"short_text_cfg": 3.0, "am_ode_momentum": None}


def test_settings_take_the_type_of_the_default():
    pairs = ["steps=16", "cfg_strength=2", "use_laag=off", "ceag_layers=-1,-3", "rms_gain_range=(0.5,2)"]
    found = cli._settings(pairs)
    assert found == {
        "steps": 16, "cfg_strength": 2.0, "use_laag": False, "ceag_layers": (-1, -3), "rms_gain_range": (0.5, 2.0),
    }  # fmt: skip
    assert isinstance(found["cfg_strength"], float)


# Work


@pytest.mark.slow
def test_clone_writes_speech_and_reports_it_as_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("The river keeps its secrets."))
    out = tmp_path / "new" / "b.flac"
    command = [
        "clone",
        "--reference",
        str(DEMO),
        "--text",
        "-",
        "--out",
        str(out),
        "--set",
        "steps=4",
        "--json",
    ]
    assert cli.main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    wave, rate = soundfile.read(out)
    assert (facts["out"], facts["sample_rate"], facts["seed"], facts["profile"]) == (
        str(out),
        rate,
        0,
        "mini",
    )
    assert facts["seconds"] == pytest.approx(len(wave) / rate, abs=1e-3) and facts["synthesis_seconds"] > 0
    assert np.sqrt(np.mean(wave**2)) > 1e-3
    assert [path.name for path in out.parent.iterdir()] == ["b.flac"]

    again = tmp_path / "again.flac"
    command[command.index(str(out))] = str(again)
    monkeypatch.setattr(sys, "stdin", io.StringIO("The river keeps its secrets."))
    assert cli.main(command) == 0
    assert np.array_equal(soundfile.read(again)[0], wave), "the same seed must repeat"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", " \n", "?!...", "🙂🙂", "こんにちは", "word " * 2001])
def test_clone_refuses_a_text_that_cannot_be_spoken(text, tmp_path, capsys):
    out = tmp_path / "b.wav"
    assert "the text" in error(capsys, "clone", "--reference", str(DEMO), "--text", text, "--out", str(out))
    assert not out.exists()


def test_info_as_json_tells_what_is_there(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["weights"]) == {*hub.NAMES, *hub.ADDED}
    for name, weights in facts["weights"].items():
        if name in hub.ADDED and not hub.weights_path(name, MINI).exists():
            assert weights == {"state": "not trained", "detail": f"`pvlib train {name}` makes it"}
            continue
        assert weights["state"] == "present" and len(weights["detail"]) == 64, (name, weights)
    assert facts["packages"]["torch"].startswith("2.11")


def test_info_tells_altered_weights(tmp_path, capsys, monkeypatch):
    import shutil

    shutil.copytree(paths.CHECKPOINTS / "mini", tmp_path / "mini")
    with (tmp_path / "mini" / "vocoder.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    (tmp_path / "mini" / "backbone.safetensors").unlink()
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    assert cli.main(["info", "--json"]) == 0
    weights = json.loads(capsys.readouterr().out)["weights"]
    assert weights["vocoder"]["state"] == "not usable" and "SHA-256" in weights["vocoder"]["detail"]
    assert weights["backbone"]["state"] == "not usable" and "missing" in weights["backbone"]["detail"]
    assert weights["recognizer"]["state"] == "present"


def test_world_info_tells_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paths, "WORLD", tmp_path)
    assert cli.main(["world", "info", "--json"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert "train" in splits
    assert all("pvlib world build" in facts["problem"] for facts in splits.values())


def test_output_into_a_closed_pipe_is_no_error():
    run = subprocess.run(
        f"{sys.executable} -m pvlib info --json | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in run.stderr and run.returncode in (0, 141)


def test_train_all_trains_the_judges_first_and_shares_the_time(monkeypatch, capsys):
    import importlib

    from pvlib.world import publish

    done = []
    for name in cli.SHARES:
        module = importlib.import_module(f"pvlib.training.{name.replace('-', '_')}")
        monkeypatch.setattr(module, "train", lambda name=name, **given: done.append((name, given["minutes"])))
    monkeypatch.setattr(publish, "enrol", lambda: done.append(("enrol", None)))
    assert cli.main(["train", "all", "--minutes", "100"]) == 0
    assert [name for name, _ in done] == [
        "recognizer", "speaker", "vocoder", "backbone", "vocoder-redrawn", "enrol",
    ]  # fmt: skip
    assert sum(minutes or 0 for _, minutes in done) == pytest.approx(100)
    assert cli.main(["train", "all", "--steps", "5"]) == 2
    assert "time budget" in capsys.readouterr().err and len(done) == 6
