"""The command line, `pvlib ...`: a thin layer over the package.

Results go to stdout (as JSON with `--json`), progress and messages to stderr. A foreseen failure is one line
`pvlib: error: ...` and exit status 2; an interruption is 130. Heavy imports happen inside the commands, so that
help and mistakes in the arguments answer at once.
"""

from __future__ import annotations

import argparse
import errno
import functools
import json
import os
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pvlib import __version__

if TYPE_CHECKING:
    import pandas as pd

    from pvlib.config import Profile
    from pvlib.study.ranks import Ranks

SV2TTS = ("sv2tts-encoder", "sv2tts-synthesizer", "sv2tts-vocoder")
SHARES = {
    "recognizer": 0.25,
    "speaker": 0.06,
    "vocoder": 0.12,
    "backbone": 0.52,
    "vocoder-redrawn": 0.05,  # on mels that the backbone made
}  # of the time of `train all`
TRAINABLE = (*SHARES, "backbone-padded", "adapters", "duration-predictor", *SV2TTS)
TAKEN_UP = (  # can begin at their embedded weights
    "backbone",
    "backbone-padded",
    "recognizer",
    "vocoder",
    "sv2tts-synthesizer",
    "sv2tts-vocoder",
)
SCALED = (*TAKEN_UP, "adapters")  # can take larger steps
OUTPUT_FORMATS = (".wav", ".flac", ".ogg")


class CommandError(ValueError):
    """Arguments that cannot be followed; the message names the argument and the remedy."""


class Disagreement(RuntimeError):
    """`pvlib verify` found rows that differ from the committed ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    arguments = parser().parse_args(argv)
    with warnings.catch_warnings():
        _show_own_warnings()
        try:
            arguments.run(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print(
                "pvlib: interrupted; what was finished is kept, run the command again to go on",
                file=sys.stderr,
            )
            return 130
        except BrokenPipeError:  # the reader of our output (`| head`) left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except Disagreement as error:
            return _fail(str(error), 1)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "pvlib":
                raise
            return _fail(
                f"the package {error.name} is not installed; run `make install`, or the README's pip lines"
            )
        except Exception as error:
            if not type(error).__module__.startswith("pvlib."):
                if not isinstance(error, OSError) or error.errno not in BARRED:
                    raise  # not foreseen: the traceback is worth having
                place = "" if error.filename is None else f"{error.filename}: "
                return _fail(f"{place}{error.strerror}; {BARRED[error.errno]}")
            status, lines = getattr(error, "status", 2), getattr(error, "in_lines", False)
            return _fail(str(error), status, lines)
    return 0


# How a command is declared: its docstring is its help, its arguments and examples stand above it.


class Argument(NamedTuple):
    """What `add_argument` is called with; `either` marks members of one required, exclusive group."""

    names: tuple[str, ...]
    keywords: dict[str, Any]
    either: bool = False


class Command(NamedTuple):
    run: Callable[[argparse.Namespace], None]
    arguments: tuple[Argument, ...]
    examples: str


COMMANDS: dict[str, Command] = {}
BARRED = {  # how a path can be closed to us wherever it is touched, and what to do
    errno.EACCES: "name another, or give yourself the right to it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room there, or point PVLIB_BUILD at another disk",
    errno.EDQUOT: "make room there, or point PVLIB_BUILD at another disk",
}
GROUPS = {
    "world": "The mini world: build its speech again, or look at it.",
    "models": "The official models of the paper profile: what they are, download them, check them.",
    "data": "The test set of the paper profile.",
}


def argument(*names: str, either: bool = False, **keywords: Any) -> Argument:
    """One argument of a command, in argparse's words."""
    return Argument(names, keywords, either)


def command(name: str, *arguments: Argument, examples: str) -> Callable[[Callable], Callable]:
    """Register a function as `pvlib NAME`."""

    def register(run: Callable) -> Callable:
        COMMANDS[name] = Command(run, arguments, examples)
        return run

    return register


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments and its examples."""
    top = argparse.ArgumentParser(
        prog="pvlib",
        description="One-second voice cloning, re-measured: the executable companion to PersonaVoice.",
        epilog="Start with `pvlib info`, then `pvlib clone --help`. Every command has its own --help.",
    )
    top.add_argument("--version", action="version", version=f"pvlib {__version__} (personavoice-companion)")
    levels = {"": top.add_subparsers(title="commands", metavar="COMMAND", required=True)}
    for name, entry in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in levels:
            inner = levels[""].add_parser(group, help=GROUPS[group], description=GROUPS[group])
            levels[group] = inner.add_subparsers(title="actions", metavar="ACTION", required=True)
        what = " ".join((entry.run.__doc__ or "").split())
        made = levels[group].add_parser(
            last,
            help=what.partition(". ")[0].rstrip(".") + ".",
            description=textwrap.fill(what, 88),
            epilog="examples:\n" + textwrap.indent(entry.examples, "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        choice = None
        for names, keywords, either in entry.arguments:
            if either and choice is None:
                choice = made.add_mutually_exclusive_group(required=True)
            (choice if either else made).add_argument(*names, **keywords)
        made.set_defaults(run=entry.run)
    return top


def _whole(text: str, least: int, most: float, wanted: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
    return number


def _positive(text: str) -> int:
    return _whole(text, 1, float("inf"), "at least 1")


def _seed(text: str) -> int:
    return _whole(text, 0, 2**32 - 1, f"0 to {2**32 - 1}")


def _port(text: str) -> int:
    return _whole(text, 0, 65535, "0 to 65535")


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return seconds


def _model(name: str) -> str:
    return "speaker" if name == "speaker_encoder" else name.replace("_", "-")  # as its weights are called


PROFILE = argument(
    "--profile", default="mini", metavar="NAME", help="mini (embedded, default) or paper (official)"
)
SAMPLES = argument(
    "--samples", type=_positive, metavar="N", help="utterances, stratified (default: the profile's)"
)
JOBS = argument(
    "--jobs",
    type=_positive,
    default=1,
    metavar="N",
    help="processes that share the synthesis, each with its part of the cores (default: 1)",
)
JSON = argument("--json", action="store_true", help="print the result as JSON")
SET = argument(
    "--set",
    nargs="+",
    action="extend",
    default=[],
    metavar="NAME=VALUE",
    help="parameters of the paper's table",
)
TRAIT = argument(
    "--trait",
    nargs="+",
    action="extend",
    default=[],
    metavar="NAME=VALUE",
    help="a trait of the person, -1 to 1, such as openness=0.5; goes before --persona",
)


@command(
    "clone",
    argument(
        "--reference", required=True, type=Path, metavar="AUDIO", help="the recording: wav, flac, ogg or mp3"
    ),
    argument("--text", either=True, help="what to say; - reads it from standard input"),
    argument("--text-file", either=True, type=Path, metavar="FILE", help="what to say, in a UTF-8 file"),
    argument("--out", required=True, type=Path, metavar="AUDIO", help="wav, flac or ogg to write"),
    argument(
        "--reference-text", metavar="TEXT", help="what the recording says (default: the recogniser listens)"
    ),
    argument("--seed", type=_seed, default=0, help="noise seed; the same seed repeats (default: 0)"),
    PROFILE,
    SET,
    argument(
        "--emotion", metavar="NAME", help="neutral, happy, sad or angry (this and what follows: adapters)"
    ),
    argument("--emotion-strength", type=float, metavar="S", help="of the emotion, 0 to 1 (default: 1)"),
    argument("--persona", type=Path, metavar="FILE", help="messages of the person who speaks, one per line"),
    TRAIT,
    argument("--gate", metavar="MODE", help="FiLM: auto (from two chunks on, default), always, off"),
    argument("--env-weight", type=float, metavar="W", help="0 the studio (default), 1 the clip's microphone"),
    JSON,
    examples="pvlib clone --reference data/samples/demo.wav --text 'The river keeps its secrets.' --out out.wav\n"
    "pvlib clone --reference a.wav --text 'We won.' --out b.wav --emotion happy --emotion-strength 0.7 --gate always\n"
    "echo 'Hello there.' | pvlib clone --reference a.wav --text - --out b.flac --set steps=16 cfg_strength=2",
)
def clone(arguments: argparse.Namespace) -> None:
    """Say a text in the voice of a short recording. One second is enough; the first clone also loads the models. Clone
    only voices whose owners agreed."""
    _check_output(arguments.out, arguments.reference)
    text = _text(arguments)
    settings = _settings(arguments.set) | _adapter_settings(arguments)
    profile = _profile(arguments.profile, settings)

    from pvlib import audio
    from pvlib.study import preflight
    from pvlib.voice import PersonaVoice

    preflight.check(profile, test_set=False, judged=False)
    audio.load(arguments.reference)  # a bad recording is told before the models are read
    conditions = _conditions(arguments, profile)
    voice = PersonaVoice.load(profile.name, **settings)
    speech = voice.clone(arguments.reference, text, arguments.seed, arguments.reference_text, **conditions)
    audio.write(arguments.out, speech.wave)
    facts = {
        "out": str(arguments.out),
        "seconds": round(len(speech.wave) / audio.SAMPLE_RATE, 3),
        "sample_rate": audio.SAMPLE_RATE,
        "synthesis_seconds": round(speech.seconds, 3),
        "chunks": len(speech.chunks),
        "seed": arguments.seed,
        "profile": profile.name,
    }
    line = "{out}: {seconds:.2f} s of speech made in {synthesis_seconds:.1f} s ({profile}, seed {seed})"
    _show(facts, line.format(**facts), arguments.json)


def _adapter_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Parameters that the adapters' own options set; any of them asks for the adapters."""
    found = {"film_gate": arguments.gate, "env_weight": arguments.env_weight}
    found = {name: value for name, value in found.items() if value is not None}
    asked = found or arguments.trait or arguments.persona is not None or arguments.emotion is not None
    if arguments.emotion_strength is not None and arguments.emotion is None:
        raise CommandError("--emotion-strength: of which emotion? give --emotion as well")
    return found | {"use_adapters": True} if asked else found


def _conditions(arguments: argparse.Namespace, profile: Profile) -> dict[str, Any]:
    """Persona, style, emotion and strength of a clone, checked before the models are read."""
    if not arguments.trait and arguments.persona is None and arguments.emotion is None:
        return {}
    from pvlib import wishes

    told, chat = _traits(arguments.trait), _chat(arguments.persona)
    return wishes.conditions(
        profile, chat=chat, traits=told, emotion=arguments.emotion, strength=arguments.emotion_strength
    )


def _traits(pairs: Sequence[str]) -> dict[str, float]:
    told: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            told[name] = float(value)
        except ValueError as error:
            raise CommandError(f"--trait {pair}: write NAME=VALUE, such as openness=0.5") from error
    return told


def _chat(file: Path | None) -> list[str] | None:
    try:
        return None if file is None else file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--persona {file}: {_reason(error)}; give UTF-8 text") from error


def _text(arguments: argparse.Namespace) -> str:
    file = arguments.text_file
    if file is None and arguments.text != "-":
        return arguments.text
    try:
        return sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        source = "--text -" if file is None else f"--text-file {file}"
        raise CommandError(f"{source}: {_reason(error)}; give UTF-8 text") from error


def _check_output(path: Path, reference: Path) -> None:
    """Refuse an output that could not be written, before anything expensive. Leaves nothing behind."""
    if path.suffix.lower() not in OUTPUT_FORMATS:
        raise CommandError(f"--out {path}: the name must end in {', '.join(OUTPUT_FORMATS)}")
    folder = path.absolute().parent
    try:
        if path.is_dir():
            raise CommandError(f"--out {path} is a folder; name a file in it")
        if path.exists() and os.path.exists(reference) and path.samefile(reference):
            raise CommandError(f"--out {path} is the reference itself; choose another name")
        while not folder.exists():
            folder = folder.parent
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:  # a name too long and a folder without entry fail when asked
        remedy = "choose another name or folder, or free some space"
        raise CommandError(f"--out {path}: cannot write in {folder} ({_reason(error)}); {remedy}") from error


@command(
    "reproduce",
    PROFILE,
    SAMPLES,
    argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="processes that share the synthesis, and notebooks at a time (default: 2 for the profile mini on two or "
        "more cores without a GPU, else 1)",
    ),
    argument("--only", nargs="+", metavar="NN", help="these notebooks alone, by number, such as 06 08"),
    argument(
        "--record",
        action="store_true",
        help="refresh the committed rows, figures, notebooks and README results",
    ),
    argument(
        "--keep",
        action="store_true",
        help="take up the recorded rows of systems whose sources, weights, packages and sounds are unchanged since, on "
        "the same kind of machine, instead of making them again",
    ),
    argument(
        "--again",
        type=_positive,
        metavar="N",
        help="with --keep: take up rows of systems of which only sources have changed, too, where N of each, made "
        "again by those of today, are the recorded ones in all but their seconds",
    ),
    examples="pvlib reproduce\npvlib reproduce --samples 200 --jobs 2 --record --keep\npvlib reproduce --only 06",
)
def reproduce(arguments: argparse.Namespace) -> None:
    """Run the study and write an HTML report. Executes the notebooks, which synthesise, measure, tabulate and draw. An
    interrupted run goes on where it stopped."""
    if _launched():
        raise CommandError(
            "torchrun and accelerate start `pvlib evaluate`, not `reproduce`, which then finds the rows; or use --jobs"
        )
    profile = _profile(arguments.profile)
    _check_samples(arguments.samples, profile)
    from pvlib.study import launch
    from pvlib.study import reproduce as study
    from pvlib.training import speed

    if arguments.again and not arguments.keep:
        raise CommandError("--again goes with --keep, which takes recorded rows up")
    jobs = arguments.jobs or launch.usual_jobs(profile)
    if arguments.keep:
        from pvlib.study import recorded

        say = functools.partial(print, file=sys.stderr)
        taken = recorded.take_up(profile, again=arguments.again or 0, say=say, progress=True)
        say(f"{taken:,} recorded rows taken up")
    given = (profile.name, arguments.samples, arguments.record, arguments.only, jobs)
    print(study.reproduce(*given, learning=speed.measured))


@command(
    "reply",
    argument("--to", required=True, metavar="TEXT", help="the line to be answered"),
    argument("--persona", type=Path, metavar="FILE", help="messages of the person who answers, one per line"),
    TRAIT,
    argument("--seed", type=_seed, default=0, help="the same seed repeats (default: 0)"),
    PROFILE,
    JSON,
    examples="pvlib reply --to 'How was your weekend?' --persona chat.txt\n"
    "pvlib reply --to 'Are you coming?' --trait extraversion=0.8 --seed 3",
)
def reply(arguments: argparse.Namespace) -> None:
    """Write what a person might answer, for `pvlib clone` to say. Experimental, in the paper and here: by Qwen2.5-0.5B
    (`pvlib models download --optional`), and nobody has measured whether it sounds like the person."""
    profile = _profile(arguments.profile)
    from pvlib import dialogue, wishes

    chat, told = _chat(arguments.persona), _traits(arguments.trait)
    dialogue.script(arguments.to, told, chat or ())  # a bad line is told before the model is read
    model = dialogue.load()
    traits = (wishes.reader(profile, chat)(chat).traits if chat else {}) | told
    said = model.reply(arguments.to, traits=traits, chat=chat or (), seed=arguments.seed)
    _show({"reply": said, "traits": traits, "seed": arguments.seed}, said, arguments.json)


@command(
    "evaluate",
    argument(
        "--system",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="which (default: those of the tables that the profile has weights for), variants such as "
        "personavoice@steps=8, or xtts and cosyvoice (README)",
    ),
    argument("--all", action="store_true", help="and every ablation variant of notebook 07"),
    argument(
        "--manifest", metavar="NAME", help="other utterances than the profile's: data/manifests/NAME.csv"
    ),
    argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="your own recordings as the voices, long sentences of the test set as the texts",
    ),
    argument(
        "--seeds",
        type=_positive,
        default=1,
        metavar="N",
        help="each utterance with so many seeds: its own, and those that follow it (default: 1); the controls, which "
        "draw no noise, with one",
    ),
    argument(
        "--notebooks",
        nargs="+",
        metavar="NAME",
        help="the rows that these notebooks read, by name or number; instead of --system and what goes with it",
    ),
    PROFILE,
    SAMPLES,
    JOBS,
    JSON,
    examples="pvlib evaluate --system personavoice personavoice@steps=8 --samples 20\npvlib evaluate --jobs 2 --json\n"
    "pvlib evaluate --seeds 3 --samples 200 --jobs 2\npvlib evaluate --recordings my-voices --system personavoice\n"
    "torchrun --nproc-per-node 8 -m pvlib evaluate --profile paper\n"
    "accelerate launch --multi_gpu --num_processes 8 -m pvlib evaluate --profile paper",
)
def evaluate(arguments: argparse.Namespace) -> None:
    """Synthesise and measure systems, and print the key-results table. Finished rows are kept and not computed again.
    With --json one row per utterance is printed, a JSON object per line. With --jobs, or started by torchrun or
    accelerate, several processes share the batches, each on its own GPU where there is one, and the first prints; an
    error in one ends all, and the same command goes on from the finished rows. Several hosts need the same checkout and
    one shared folder, named by PVLIB_BUILD."""
    profile = _profile(arguments.profile)
    if arguments.notebooks:
        _evaluate_notebooks(arguments, profile)
        return
    launched = _launched(arguments.jobs)
    from pvlib import systems
    from pvlib.study import manifest as manifests
    from pvlib.study import preflight

    if arguments.recordings is not None:
        if arguments.manifest is not None or arguments.jobs > 1:
            raise CommandError(
                "--recordings: without --manifest and --jobs, please; they are studies of their own"
            )
        from pvlib.study import recordings

        preflight.check(profile, test_set=False)
        manifest = recordings.manifest(arguments.recordings, profile)
        arguments.samples = arguments.samples or len(manifest.table)
    else:
        if arguments.manifest is None:
            _check_samples(arguments.samples, profile)
        wanted = arguments.samples or profile.default_samples
        preflight.check(profile, test_set=arguments.manifest is None, samples=wanted)
        manifest = manifests.read(arguments.manifest or profile.manifest)
    names = arguments.system
    if not names:
        for name, reason in systems.absent(profile, systems.MAIN).items():
            print(f"pvlib: {name} is left out: {reason}", file=sys.stderr)
        names = systems.present(profile, systems.MAIN)
        if not manifest.table["audio"].all():  # nothing for the controls to play
            names = [name for name in names if name not in systems.CONTROLS]
    names = list(names)
    if arguments.all:
        from pvlib.study import ablations

        names += [name for name in ablations.system_names(profile) if name not in names]
    for name in names:
        systems.create(name, profile)  # reads no weights: a wrong name is told at once
    if arguments.jobs > 1:
        from pvlib.study import launch

        options = {"manifest": arguments.manifest or "", "seeds": arguments.seeds, "as_json": arguments.json}
        launch.evaluate(arguments.jobs, profile.name, names, arguments.samples, **options)
        return
    from pvlib.study import evaluate as study

    again = [(manifest, names)]  # another seed changes nothing where no noise is drawn
    noisy = [name for name in names if name not in systems.CONTROLS]
    again += [(manifest.reseeded(number), noisy) for number in range(1, arguments.seeds) if noisy]
    with _shared(launched) as ranks:
        for one, own in again:
            rows = study.evaluate(profile, own, arguments.samples, manifest=one, ranks=ranks)
            if ranks is None or ranks.first:
                _show_rows(rows, arguments.json)
                if arguments.recordings is not None:
                    _show_failures(rows)


def _evaluate_notebooks(arguments: argparse.Namespace, profile: Profile) -> None:
    if arguments.system or arguments.all or arguments.manifest or arguments.recordings or arguments.seeds > 1:
        raise CommandError(
            "--notebooks: without --system, --all, --manifest, --recordings and --seeds, please"
        )
    _check_samples(arguments.samples, profile)
    launched = _launched(arguments.jobs)
    from pvlib.study import preflight, reproduce

    names, samples = (
        reproduce.choose(arguments.notebooks, profile),
        arguments.samples or profile.default_samples,
    )
    preflight.check(profile, samples=samples)
    with _shared(launched) as ranks:
        rows = reproduce.make_rows(profile, samples, names, jobs=arguments.jobs, ranks=ranks)
    if rows is not None and (ranks is None or ranks.first):
        _show_rows(rows, arguments.json)


def _shared(launched: bool) -> AbstractContextManager[Ranks | None]:
    """This process as one of those that a launcher started, or None where it works alone."""
    from pvlib.study import ranks

    return ranks.join() if launched else nullcontext()


def _show_rows(rows: pd.DataFrame, as_json: bool) -> None:
    from pvlib.study import tables

    if as_json:
        print(rows.to_json(orient="records", lines=True).strip())
    else:
        print(tables.markdown(tables.key_results(rows)))


def _show_failures(rows: pd.DataFrame) -> None:
    """For each voice that a system could not say everything in, how much of it and the first reason."""
    for (system, voice), own in rows.groupby(["system", "speaker"], sort=False):
        errors = [error for error in own["error"] if error]
        if errors:
            print(
                f"pvlib: {system}, {voice}: {len(errors)} of {len(own)} failed: {errors[0]}", file=sys.stderr
            )


def _launched(jobs: int = 1) -> bool:
    """Whether a launcher such as torchrun started this process as one of several; `jobs` asks for another launcher.

    Raises CommandError on both at once.
    """
    launched = bool(os.environ.get("RANK")) and os.environ.get("WORLD_SIZE", "1") != "1"
    if launched and jobs > 1:
        raise CommandError("--jobs starts processes itself; leave it out under torchrun or accelerate")
    return launched


@command(
    "verify",
    argument("--rows", type=_positive, default=5, metavar="K", help="how many rows (default: 5)"),
    argument("--seed", type=_seed, help="choose the same rows again (default: new ones)"),
    PROFILE,
    JSON,
    examples="pvlib verify --rows 5",
)
def verify(arguments: argparse.Namespace) -> None:
    """Synthesise random committed rows again and compare. WER and SECS must agree within the tolerance of this kind of
    machine; exit status 1 when they do not."""
    profile = _profile(arguments.profile)
    from pvlib.study import verify as study

    report = study.verify(profile, arguments.rows, arguments.seed)
    _show(report.to_dict(), str(report), arguments.json)
    if not report.ok:
        raise Disagreement(
            f"only {report.agreeing} of {len(report.checks)} rows agree, {report.needed} are needed"
        )


@command(
    "audit",
    argument(
        "--reference", required=True, type=Path, metavar="DIR", help="a checkout of the paper's repository"
    ),
    argument("--csv", type=Path, metavar="FILE", help="write the table, every figure with all its digits"),
    JSON,
    examples="pvlib audit --reference ../PersonaVoice\npvlib audit --reference ../PersonaVoice --csv audit.csv",
)
def audit(arguments: argparse.Namespace) -> None:
    """Hold the paper's printed numbers against its own per-sample results. Reads three files under DIR/results of a
    checkout that you have (eval_200_samples.json, baseline_external_200.json, ablation_200_samples.json) and computes
    SECS, WER, CFR and RTF by length of text again, and the ablation's paired t-tests with Holm's correction. Each
    figure stands beside the printed number, with the claims of the ledger (data/claims.yaml) that rest on it. Numbers
    that disagree are a result: the exit status is 0. Nothing of DIR is changed or kept."""
    folder, csv = arguments.reference, arguments.csv
    from pvlib.study import audit as study
    from pvlib.study import released
    from pvlib.study.rows import write_text

    if csv and any(_same_file(csv, folder / file) for file in released.FILES):
        raise CommandError(f"--csv {csv} is one of the files to be audited; choose another name")
    found = study.audit(folder)
    if csv:
        write_text(csv, found.figures.to_csv(index=False))
    facts = {
        "reference": str(folder),
        "figures": found.figures.to_dict("records"),
        "summary": study.summary(found),
    }
    _show(facts, study.text(found), arguments.json)


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@command(
    "speed",
    argument(
        "--nfe",
        type=_positive,
        nargs="+",
        default=[32, 16, 7],
        metavar="N",
        help="ODE steps (default: 32 16 7)",
    ),
    argument(
        "--batch",
        type=_positive,
        nargs="+",
        default=[1, 16],
        metavar="N",
        help="texts at once (default: 1 16)",
    ),
    argument(
        "--dtype",
        nargs="+",
        choices=("fp32", "bf16", "fp16"),
        help="of the weights (default: fp32, and bf16 where the hardware multiplies in it)",
    ),
    argument("--seconds", type=float, default=3.0, metavar="S", help="of speech to generate (default: 3)"),
    argument("--repeats", type=_positive, default=1, metavar="N", help="of each measurement (default: 1)"),
    argument(
        "--record",
        metavar="NAME",
        help="write data/results/speed/NAME.json, with machine and versions, setting by setting; what stands there is "
        "not measured again",
    ),
    JSON,
    examples="pvlib speed --nfe 7 --batch 1\npvlib speed --dtype fp16 bf16 --repeats 5 --record h200",
)
def speed(arguments: argparse.Namespace) -> None:
    """Measure the full-size F5-TTS, with random weights, against the official inference function: latency, real-time
    factor and memory in one run on this machine. Needs no download, and 3.5 GB of memory; on two cores the full grid
    takes over an hour, so begin with one cell, or record it: the same command goes on where it was ended."""
    from pvlib.study import full_size

    known, keep = None, None
    if arguments.record:
        known = full_size.recorded(arguments.record, arguments.seconds, arguments.repeats)
        keep = functools.partial(full_size.record, name=arguments.record)
    measured = full_size.measure(
        nfe=arguments.nfe,
        batches=arguments.batch,
        dtypes=arguments.dtype,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        known=known,
        keep=keep,
    )
    if arguments.record:
        print(f"written: {full_size.path_of(arguments.record)}", file=sys.stderr)
    if arguments.json:
        print(measured.to_json(orient="records", lines=True).strip())
    else:
        print(measured.round(3).to_string(index=False))
        print(full_size.ratios(measured).round(2).to_string(index=False))


@command(
    "train",
    argument(
        "name",
        type=_model,
        choices=(*TRAINABLE, "all"),
        metavar="NAME",
        help=f"{', '.join(TRAINABLE)}; or all, the first {len(SHARES)} in turn",
    ),
    argument("--minutes", type=_duration, help="time budget of this call; of `all`, shared by them"),
    argument("--steps", type=_positive, help="optimiser steps in all, of one model"),
    argument("--threads", type=_positive, help="CPU threads (default: torch's own choice)"),
    argument(
        "--from-weights",
        action="store_true",
        help=f"where no state is left, begin at the embedded weights ({', '.join(TAKEN_UP)})",
    ),
    argument(
        "--larger",
        type=_positive,
        metavar="TIMES",
        help=f"steps of so many times the usual size, for a GPU ({', '.join(SCALED)})",
    ),
    argument("--export-only", action="store_true", help="no training: write the weights of the last state"),
    PROFILE,
    argument(
        "--speech", type=Path, metavar="DIR", help="with --profile paper: a LibriTTS subset to train on"
    ),
    argument("--dry-run", action="store_true", help="of the adapters: only compute the GPU memory they need"),
    examples="pvlib train recognizer --minutes 30\npvlib train backbone --steps 20000 --threads 2\n"
    "pvlib train backbone --from-weights --steps 40000 --larger 8\n"
    "pvlib train all --minutes 600\npvlib train adapters --profile paper --dry-run\n"
    "pvlib train adapters --profile paper --speech LibriTTS/train-clean-100",
)
def train(arguments: argparse.Namespace) -> None:
    """Train a model of the mini profile. Needs the mini world (`pvlib world build`); the adapters need the trained
    backbone and belong to that one, so they come last. Stops after --minutes or --steps,
    goes on from its last state when run again, and writes the weights with their card. `all` trains what judges first,
    then what speaks, goes on with the vocoder on mels that the backbone made (`vocoder-redrawn`), and renews the
    enrolment embeddings; ten hours on two cores are little for it. Of the profile paper only the adapters are trained:
    on LibriTTS, with the official models and a GPU of 8 GB."""
    import importlib

    profile = _profile(arguments.profile)
    _check_training(arguments, profile)
    if arguments.dry_run:
        from pvlib.training import memory

        print(memory.told(profile, larger=arguments.larger or 1))
        return
    if not profile.embedded:
        from pvlib.study import preflight

        preflight.check(profile)
        if not arguments.speech.is_dir():
            raise CommandError(
                f"--speech {arguments.speech} is no folder; give a LibriTTS subset, such as train-clean-100"
            )
    own = {} if profile.embedded else {"profile": profile, "speech": arguments.speech}
    more = {"from_weights": True} if arguments.from_weights else {}
    if arguments.larger:
        more["larger"] = arguments.larger
    for name, share in SHARES.items() if arguments.name == "all" else [(arguments.name, 1.0)]:
        module = importlib.import_module(f"pvlib.training.{name.replace('-', '_')}")
        if arguments.export_only:
            module.export(**own)
            continue
        minutes = None if arguments.minutes is None else share * arguments.minutes
        module.train(steps=arguments.steps, minutes=minutes, threads=arguments.threads, **own, **more)
    if arguments.name == "all":
        from pvlib.world import publish

        publish.enrol()


def _check_training(arguments: argparse.Namespace, profile: Profile) -> None:
    if arguments.name == "all" and arguments.steps:
        raise CommandError("--steps is for one model; give `train all` a time budget with --minutes")
    if arguments.from_weights and arguments.name not in TAKEN_UP:
        raise CommandError(
            f"--from-weights is for {', '.join(TAKEN_UP)}; {arguments.name} starts from nothing"
        )
    if arguments.larger and arguments.name not in SCALED:
        raise CommandError(
            f"--larger is for {', '.join(SCALED)}; the steps of {arguments.name} stay as they are"
        )
    from pvlib import hub

    adapters = arguments.name == "adapters"
    if arguments.dry_run and not adapters:
        command = hub.training_command("adapters", profile.name)
        raise CommandError(f"--dry-run computes the memory of the adapters: `{command} --dry-run`")
    if profile.embedded and arguments.speech:
        raise CommandError(
            f"--speech {arguments.speech}: profile {profile.name} learns from the mini world; leave it out, or add "
            "--profile paper"
        )
    if not profile.embedded and not adapters:
        raise CommandError(
            f"train {arguments.name}: the models of profile {profile.name} are official (`pvlib models download`); "
            f"only its adapters are trained: `{hub.training_command('adapters', profile.name)}`"
        )
    if not (profile.embedded or arguments.speech or arguments.dry_run):
        raise CommandError(
            f"train adapters --profile {profile.name} needs --speech DIR, a LibriTTS subset with speakers who are not "
            "tested, such as LibriTTS/train-clean-100; all of dev-clean's are"
        )


@command(
    "world build",
    argument("--workers", type=_positive, metavar="N", help="processes (default: one per core)"),
    argument("--force", action="store_true", help="make every split again"),
    examples="pvlib world build --workers 2",
)
def world_build(arguments: argparse.Namespace) -> None:
    """Make the corpus from its seed. Takes about 45 minutes on two cores and 4 GB under build/world, or where
    PVLIB_BUILD points. Splits that are whole are kept."""
    from pvlib.world.build import build

    build(workers=arguments.workers, force=arguments.force)


@command("world publish", examples="pvlib world publish")
def world_publish(arguments: argparse.Namespace) -> None:
    """Write what the repository keeps of the world: manifests, test audio, trials, the demo clip. Afterwards rows that
    were recorded are of another world, and `pvlib world enrol` is due."""
    from pvlib.world.publish import publish

    publish()


@command("world enrol", examples="pvlib world enrol")
def world_enrol(arguments: argparse.Namespace) -> None:
    """Write the mean embeddings of each test speaker's other speech. Needed anew for every new speaker encoder."""
    from pvlib.world.publish import enrol

    enrol()


@command("world info", JSON, examples="pvlib world info --json")
def world_info(arguments: argparse.Namespace) -> None:
    """Show hours, speakers and rooms of each split on disk."""
    from pvlib import paths
    from pvlib.world.build import SPLITS
    from pvlib.world.corpus import CorpusError, open_split

    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        try:
            corpus = open_split(split)
        except CorpusError as error:
            found[split] = {"problem": str(error)}
            continue
        found[split] = {
            "hours": round(corpus.hours, 2),
            "utterances": len(corpus),
            "speakers": int(corpus.table.speaker.nunique()),
            "rooms": sorted(corpus.table.room.unique()),
        }
    lines = [f"{k:15} " + ", ".join(f"{name} {value}" for name, value in v.items()) for k, v in found.items()]
    _show(
        {"folder": str(paths.WORLD), "splits": found}, "\n".join([str(paths.WORLD), *lines]), arguments.json
    )


OPTIONAL = argument(
    "--optional", action="store_true", help="the optional models too, not only the required ones"
)


@command("models list", JSON, examples="pvlib models list\npvlib models list --json")
def models_list(arguments: argparse.Namespace) -> None:
    """Show the official models with size, licence, revision and purpose. Loads nothing and needs no network."""
    from dataclasses import asdict

    from pvlib import models

    found = [asdict(model) for model in models.models(optional=True)]
    required = sum(model["size"] for model in found if not model["optional"])
    lines = [
        "{name:24} {size:>8}  {licence}\n    {kind}: {purpose}\n    {repository} @ {revision}".format(
            **{**model, "size": f"{model['size'] / 1e9:.2f} GB"},
            kind=("required", "optional")[model["optional"]],
        )
        for model in found
    ]
    lines.append(f"{required / 1e9:.2f} GB are required; they go to {models.location()} (HF_HOME moves it)")
    _show({"cache": str(models.location()), "models": found}, "\n".join(lines), arguments.json)


@command(
    "models download",
    OPTIONAL,
    JSON,
    examples="pvlib models download\nHF_ENDPOINT=https://mirror.example pvlib models download --optional",
)
def models_download(arguments: argparse.Namespace) -> None:
    """Fetch the official models that are missing or damaged, and check them. After an interruption it goes on where it
    stopped. HF_ENDPOINT names a mirror, HF_HOME another place; HF_HUB_OFFLINE=1 forbids the network."""
    from pvlib import models

    findings = models.download(
        models.models(arguments.optional), tell=lambda line: print(line, file=sys.stderr, flush=True)
    )
    _show(_findings(findings), "\n".join(models.table(findings)), arguments.json)


@command("models check", OPTIONAL, JSON, examples="pvlib models check\npvlib models check --optional --json")
def models_check(arguments: argparse.Namespace) -> None:
    """Tell which official models are present, missing or damaged. Reads every file to its end and holds names and
    shapes against the official classes; exit status 2 unless all are present."""
    from pvlib import models

    findings = [models.check(model) for model in models.models(arguments.optional)]
    _show(_findings(findings), "\n".join(models.table(findings)), arguments.json)
    if lacking := [finding.model.name for finding in findings if finding.state != "present"]:
        option = " --optional" if arguments.optional else ""
        raise CommandError(f"not usable: {', '.join(lacking)}; run `pvlib models download{option}`")


def _findings(findings: Sequence[Any]) -> dict[str, Any]:
    return {
        finding.model.name: {
            "state": finding.state,
            "detail": finding.detail,
            "repository": finding.model.repository,
            "revision": finding.model.revision,
            "optional": finding.model.optional,
        }
        for finding in findings
    }


@command(
    "data prepare",
    argument(
        "--skip-download", action="store_true", help="use the archive or tree under PVLIB_BUILD/libritts"
    ),
    argument(
        "--samples", type=_positive, metavar="N", help="utterances, stratified (default: the paper's 200)"
    ),
    JSON,
    examples="pvlib data prepare\npvlib data prepare --skip-download --samples 20",
)
def data_prepare(arguments: argparse.Namespace) -> None:
    """Make the test set of the paper profile from LibriTTS dev-clean. Downloads 1.3 GB from OpenSLR (resumed, checked),
    draws the utterances by seed, cuts one-second clips and writes data/manifests/libritts-test.csv."""
    from pvlib.study import libritts

    made = libritts.prepare(arguments.samples, arguments.skip_download)
    facts = {
        "manifest": made.name,
        "utterances": len(made.table),
        "speakers": int(made.table["speaker"].nunique()),
        "buckets": {str(k): int(v) for k, v in made.table["bucket"].value_counts().items()},
        "enrolled": len(made.enrolment),
    }
    line = "{manifest}: {utterances} utterances of {speakers} speakers, {enrolled} of them with enrolment embeddings"
    _show(facts, line.format(**facts), arguments.json)


@command(
    "serve",
    argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)"),
    argument("--port", type=_port, default=8000, metavar="N", help="(default: 8000; 0 takes a free one)"),
    PROFILE,
    SET,
    examples="pvlib serve\npvlib serve --port 8080 --set steps=16",
)
def serve(arguments: argparse.Namespace) -> None:
    """Serve the page on which a voice is cloned, a chat read and the pipeline looked at. It is for a browser on this
    machine; the same is to be had over HTTP under /api (README). Uploads are not kept. Ctrl-C ends it, and a clone that
    is under way. With another --host whoever reaches this machine can use it: there is no password."""
    settings = _settings(arguments.set)
    profile = _profile(arguments.profile, settings)

    from pvlib.dashboard import api
    from pvlib.dashboard.studio import Studio
    from pvlib.study import preflight

    preflight.check(profile, test_set=False, judged=False)
    # a taken port is told before the models are read
    with api.listen(arguments.host, arguments.port) as listening:
        studio = Studio(profile.name, **settings)
        print("pvlib: reading the models", file=sys.stderr)
        studio.load()
        if not api.is_loopback(arguments.host):
            print(
                "pvlib: warning: there is no password: whoever reaches this machine can clone voices here",
                file=sys.stderr,
            )
        print(f"{api.address(listening)}    (open it in a browser; Ctrl-C ends it)", flush=True)
        try:
            api.run(api.make(studio, arguments.host), listening)
        finally:
            if studio.busy:  # a thread that computes cannot be ended by itself
                os._exit(130)


@command("info", PROFILE, JSON, examples="pvlib info\npvlib info --profile paper --json")
def info(arguments: argparse.Namespace) -> None:
    """Show versions, device, and which weights of a profile are present and whole."""
    profile = _profile(arguments.profile)
    from pvlib import models
    from pvlib.study.provenance import machine
    from pvlib.systems.fingerprint import package_versions

    facts = {
        "pvlib": __version__,
        **machine(),
        "profile": profile.name,
        "packages": package_versions(),
        "weights": models.states(profile),
    }
    plain = [f"{k:16} {v}" for k, v in facts.items() if not isinstance(v, dict)]
    plain.append(f"{'packages':16} " + ", ".join(f"{k} {v}" for k, v in facts["packages"].items()))
    plain += [f"{k:16} {v['state']}: {v['detail']}" for k, v in facts["weights"].items()]
    _show(facts, "\n".join(plain), arguments.json)


# What the commands share


def _profile(name: str, settings: dict[str, Any] | None = None) -> Profile:
    from pvlib.config import get_profile

    return get_profile(name, **(settings or {}))


def _check_samples(samples: int | None, profile: Profile) -> None:
    if samples is not None and samples > profile.samples:
        raise CommandError(f"--samples {samples}: profile {profile.name} has {profile.samples} utterances")


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` arguments as parameters of the inference table, each of the type of its default."""
    from pvlib.config import Inference

    defaults = vars(Inference())
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--set {pair}: write NAME=VALUE, such as steps=16")
        found[name] = _like(defaults[name], value, pair) if name in defaults else value
    return found


def _like(default: Any, value: str, pair: str) -> Any:
    """A value written on the command line, as the type of the default it replaces."""
    truth = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    try:
        if isinstance(default, bool):
            return truth[value.lower()]
        if isinstance(default, tuple):
            return tuple(type(default[0])(part) for part in value.strip("()").split(",") if part.strip())
        if default is None:  # a number that need not be given
            return None if value.lower() == "none" else float(value)
        return type(default)(value)
    except (KeyError, ValueError) as error:
        raise CommandError(f"--set {pair}: write a value like the default, {default}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _show(facts: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(_without_nan(facts), indent=2, allow_nan=False) if as_json else text)


def _without_nan(value: Any) -> Any:
    """The same with null for what is not a number, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def _fail(message: str, status: int = 2, lines: bool = False) -> int:
    print(f"pvlib: error: {message if lines else ' '.join(message.split())}", file=sys.stderr)
    return status


def _show_own_warnings() -> None:
    """Show each of pvlib's warnings once, as one line; those of libraries speak to their developers, not to users."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("once", module=r"pvlib\b")

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"pvlib: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show
