"""From nothing to the paper's tables and figures: rows, notebooks, report; and the recorded run.

Working rows are cached, so a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pandas as pd
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from pvlib import paths, systems
from pvlib.config import MINI, Profile, get_profile
from pvlib.study import (
    ablations,
    batches,
    cards,
    compiled,
    launch,
    preflight,
    provenance,
    report,
    seeds,
    short_texts,
    sweeps,
    tables,
    three_networks,
    world_figures,
)
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.evaluate import evaluate, finished
from pvlib.study.manifest import Manifest
from pvlib.study.ranks import Ranks
from pvlib.study.rows import write_text
from pvlib.study.rtf import measure_speed
from pvlib.systems.external.environment import ExternalError

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
DEMO_SYSTEMS = ("f5-official", "personavoice")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PROGRESS = re.compile(r"\r|\d+%\||it/s|s/it")


class ReproduceError(RuntimeError):
    """A notebook that is unknown or failed, or a record that would lose rows; the message names it and the remedy."""


@dataclass(frozen=True)
class Needs:
    """What is computed, with a progress bar, before a notebook runs, so that the notebook only reads it.

    rows: of the systems of the tables; vocoders: of SV2TTS's other vocoders too. A system without weights is left out.
    short: rows of the manifest of ultra-short texts, where the profile has one. learning: how quickly the backbone
    learns. folding: how much faster WaveRNN speaks in folds. batches: how much faster texts are spoken together, in a
    complete study. embedded: it is about what only a profile with embedded weights has, and is left out for others.
    """

    rows: bool = False
    vocoders: bool = False
    demo: bool = False
    speed: bool = False
    sweep: bool = False
    ablations: bool = False
    short: bool = False
    learning: bool = False
    folding: bool = False
    batches: bool = False
    embedded: bool = False


NOTEBOOKS = {
    "00_start_here": Needs(demo=True),
    "01_the_one_second_reference": Needs(),
    "02_oes_and_film": Needs(),
    "03_laag": Needs(),
    "04_ceag_and_attention": Needs(),
    "05_persona_and_emotion": Needs(),
    "06_main_results": Needs(rows=True, demo=True, speed=True),
    "07_ablations": Needs(ablations=True),
    "08_catastrophic_failures": Needs(rows=True),
    "09_pareto_frontier": Needs(rows=True, vocoders=True, speed=True, sweep=True, batches=True),
    "10_waveforms_and_spectrograms": Needs(rows=True),
    "11_sv2tts_in_three_networks": Needs(folding=True),
    "12_claims_ledger": Needs(rows=True, speed=True),
    "13_beyond_the_paper": Needs(rows=True, short=True, embedded=True),
    "A1_how_the_models_learnt": Needs(rows=True, learning=True, embedded=True),
}


def choose(only: str | Sequence[str] | None, profile: Profile = MINI) -> list[str]:
    """Notebook names in reading order, picked by name, number ("06") or file name; by default all that a profile has.

    Raises ReproduceError on one that does not exist, or not for this profile (`Needs.embedded`).
    """
    absent = [name for name, needs in NOTEBOOKS.items() if needs.embedded and not profile.embedded]
    if not only:
        return [name for name in NOTEBOOKS if name not in absent]
    chosen = set()
    for wanted in [only] if isinstance(only, str) else only:
        stem = Path(wanted).stem
        found = [name for name in NOTEBOOKS if name == stem or name.split("_")[0] == stem]
        if not found:
            raise ReproduceError(f"no notebook {wanted!r}; there are {', '.join(NOTEBOOKS)}")
        if refused := [name for name in found if name in absent]:
            raise ReproduceError(
                f"{refused[0]} is about what only a profile with embedded weights has, and {profile.name} has official "
                "ones; leave it out, or take --profile mini"
            )
        chosen.update(found)
    return [name for name in NOTEBOOKS if name in chosen]


class Engine(NBClientEngine):
    """papermill's own engine, whose runs end, and tell how.

    Its output widgets keep what they are shown and do not tell the kernel: nobody reads it there, and nbclient
    tells it through a shadow of the socket on which it waits for the kernel's answer, so that an answer that comes
    just then is never seen, and the notebook waits for ever.

    A kernel that dies tells where it was, in the error. One that runs is in `running`, the caller's list: it has a
    session of its own, where Ctrl-C does not reach it, so whoever stops has to `end` it.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        start_timeout: float = 60,
        running: list[PapermillNotebookClient] | None = None,
        **options: object,
    ) -> None:
        """Run the cells in a fresh kernel. Raises nbclient's DeadKernelError, with what the kernel left behind."""
        with TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
            left = Path(folder, "crash.txt")
            line = f"import faulthandler; faulthandler.enable(open({str(left)!r}, 'w'), all_threads=False)"
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=start_timeout,
                timeout=None,
                log_output=bool(options.get("log_output")),
                extra_arguments=[*options.get("extra_arguments", ()), f"--IPKernelApp.exec_lines={line}"],
            )
            for widgets in client.widget_registry.values():
                for model, shown in widgets.items():
                    widgets[model] = type(shown.__name__, (shown,), {"sync_state": lambda self: None})
            running = [] if running is None else running
            running.append(client)
            try:
                client.execute()
            except DeadKernelError as error:
                where = left.read_text(encoding="utf-8", errors="replace") if left.exists() else ""
                raise DeadKernelError(
                    where.strip() or "ended from outside, as by a system short of memory"
                ) from error
            finally:
                running.remove(client)

    @staticmethod
    def end(running: Sequence[PapermillNotebookClient]) -> None:
        """Kill the kernels that have started; what runs them finds them dead within a second or two."""
        for client in list(running):
            process = getattr(getattr(client.km, "provisioner", None), "process", None)
            if process is not None:
                process.kill()


papermill_engines.register(Engine.__module__, Engine)


def execute(
    name: str,
    parameters: dict[str, object],
    folder: Path,
    running: list[PapermillNotebookClient] | None = None,
) -> NotebookNode:
    """Run one notebook in a fresh kernel; the executed copy is <folder>/<name>.ipynb.

    running: a list that holds the kernel's client for as long as it runs, for `Engine.end`.
    Raises ReproduceError naming the cell that failed, the copy then holding everything up to it, or what a kernel that
    died has left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.ipynb"
    source = paths.NOTEBOOKS / f"{name}.ipynb"
    options = {"kernel_name": KERNEL["name"], "cwd": str(paths.ROOT), "progress_bar": False}
    options |= {"engine_name": Engine.__module__, "running": running}
    options["extra_arguments"] = [
        "--IPKernelApp.log_level=CRITICAL"
    ]  # its remarks would break the progress bar
    try:
        return papermill.execute_notebook(str(source), str(target), parameters=parameters, **options)
    except PapermillExecutionError as error:
        raise ReproduceError(
            f"{name}: cell {error.exec_count} failed: {error.ename}: {error.evalue}. What ran is in "
            f"{target}; finished rows are kept, so the same command goes on from here."
        ) from error
    except DeadKernelError as error:
        raise ReproduceError(
            f"{name}: its kernel died: {error}\nFinished rows are kept, so the same command goes on from here; where "
            "memory is short, with --jobs 1 (make: JOBS=1)."
        ) from error


def run_all(names: Sequence[str], parameters: dict[str, object], jobs: int = 1) -> dict[str, NotebookNode]:
    """Run notebooks, `jobs` at a time, with a progress bar; executed copies by name, in the order given.

    Raises what `execute` raises of the first that fails. Then, and on Ctrl-C, those that run are ended and others are
    not begun.
    """
    compiled.compile_librosa()
    if os.environ.get("PVLIB_BUILD"):
        os.environ["PVLIB_BUILD"] = str(paths.BUILD)  # kernels start in another folder than this process
    running: list[PapermillNotebookClient] = []
    runs: dict[Future[NotebookNode], str] = {}
    pool = ThreadPoolExecutor(jobs)
    with launch.shared_threads(jobs), tqdm(total=len(names), unit="notebook") as bar:
        try:
            for name in names:
                runs[pool.submit(execute, name, parameters, paths.REPORT, running)] = name
            for run in as_completed(runs):
                run.result()
                bar.set_description(runs[run])
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(run.done() for run in runs):  # also a kernel that was only about to start
                Engine.end(running)
                time.sleep(0.1)
            raise
    pool.shutdown()
    return {name: run.result() for run, name in runs.items()}


def normalise(notebook: NotebookNode) -> NotebookNode:
    """The committed form: metadata of no machine, counts 1..n, no progress bars, no papermill traces.

    The cell with the parameters of the run stays where they differ from the defaults, without `figures_dir`.
    """
    clean = nbformat.from_dict(notebook)
    clean.metadata = nbformat.from_dict({"kernelspec": dict(KERNEL), "language_info": {"name": "python"}})
    clean.cells = [kept for cell in clean.cells if (kept := _normalise_cell(cell)) is not None]
    count = 0
    for cell in clean.cells:
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return clean


def _normalise_cell(cell: NotebookNode) -> NotebookNode | None:
    tags = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("papermill")]
    cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    if "injected-parameters" in tags:
        lines = [
            line for line in cell.source.splitlines() if "=" in line and not line.startswith("figures_dir")
        ]
        cell.source = "\n".join(
            ["# The parameters of this run; without this cell the defaults hold.", *lines]
        )
        cell.id = "parameters-of-the-run"
        cell.outputs = []
    if cell.cell_type == "code":
        cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
    return cell


def _is_noise(output: NotebookNode) -> bool:
    """Progress bars, and what libraries say to their developers; warnings of pvlib stay."""
    if output.output_type == "stream" and output.name == "stderr":
        return bool(_PROGRESS.search(output.text)) or "site-packages" in output.text
    return _WIDGET in output.get("data", {})


@dataclass(frozen=True)
class Study:
    """One call of `evaluate`; manifest: another one than the profile's; table: whether the key results come of it."""

    systems: Sequence[str]
    samples: int
    manifest: Manifest | None = None
    table: bool = False


def studies(profile: Profile, samples: int, needs: Sequence[Needs]) -> list[Study]:
    """The rows that notebooks with these needs read, of a study with `samples` utterances."""
    asked = []
    if any(need.rows for need in needs):
        asked.append(Study(systems.present(profile, systems.MAIN), samples, table=True))
    if any(need.vocoders for need in needs) and (others := sweeps.vocoders(profile)):
        asked.append(Study(others, sweeps.heard_by(profile, samples)))
    if any(need.sweep for need in needs):
        points = [sweeps.variant(profile, *pair) for pair in sweeps.grid()]
        asked.append(Study(points, sweeps.size(samples)))
    if any(need.ablations for need in needs):
        asked.append(Study(ablations.system_names(profile), ablations.count(profile, samples)))
    if profile.ultra_short and any(need.short for need in needs):
        texts = short_texts.read(profile)
        count = short_texts.size(profile, samples, len(texts.table))
        asked.append(Study(short_texts.system_names(profile), count, texts))
    return asked


def make_rows(
    profile: Profile,
    samples: int,
    names: Sequence[str],
    *,
    jobs: int = 1,
    ranks: Ranks | None = None,
    progress: bool = True,
) -> pd.DataFrame | None:
    """All rows that notebooks read; returns those of the key results, where any notebook reads them.

    jobs: processes to start for the work, ranks: those that share it already (see `evaluate`).
    """
    table, asked = None, studies(profile, samples, [NOTEBOOKS[name] for name in names])
    if jobs > 1 and asked:
        launch.rows(jobs, profile.name, samples, names)  # what they leave is found below
    for study in asked:
        options = {"manifest": study.manifest, "progress": progress, "ranks": ranks}
        made = evaluate(profile, study.systems, study.samples, **options)
        table = made if study.table else table
    return table


def prepare(
    profile: Profile,
    samples: int,
    names: Sequence[str],
    *,
    jobs: int = 1,
    learning: Callable[..., object] | None = None,
    progress: bool = True,
) -> str:
    """Compute what the chosen notebooks read. Returns the key-results table as HTML, "" where none reads rows.

    jobs: processes that share the rows; speed is always measured in one. learning: see `reproduce`.
    """
    needs = [NOTEBOOKS[name] for name in names]
    demo = speed = None
    rows = make_rows(profile, samples, names, jobs=jobs, progress=progress)
    if any(need.demo for need in needs):
        demo = evaluate(profile, DEMO_SYSTEMS, manifest=manifests.demo(), progress=progress)
    if any(need.speed or need.sweep for need in needs):
        speed = measure_speed(profile, utterances=sweeps.timed(samples), progress=progress)["systems"]
    if any(need.batches for need in needs):
        batches.measured(profile, samples, progress=progress)
    if any(need.folding for need in needs):
        three_networks.time_folding(profile, samples, progress)
    if learning is not None and any(need.learning for need in needs):
        learning(profile, steps=sweeps.training_steps(profile, samples), progress=progress)
    return "" if rows is None else tables.html(tables.key_results(rows, speed, demo))


def reproduce(
    profile: str = "mini",
    samples: int | None = None,
    record: bool = False,
    only: str | Sequence[str] | None = None,
    jobs: int = 1,
    learning: Callable[..., object] | None = None,
) -> Path:
    """Rows, notebooks and report of one profile; returns the report's entrance.

    samples: utterances of the study; by default the profile's own number, and all of them when recording.
    record: refresh what is committed (notebooks with outputs, figures, rows, the README's results block); only a
    complete run of all notebooks may do so, and only where no committed row is lost.
    only: some notebooks, by name or number. jobs: processes that share the synthesis, and notebooks that run at a time.
    learning: measures how quickly the backbone learns (`training.speed.measured`, of a floor that this one does not
    see) before notebooks run side by side.
    Raises ReproduceError on a notebook that is unknown or fails, on a recorded run that is incomplete or would lose
    rows (before any work), NotReady where the profile cannot run here, and what the study raises (ConfigError,
    ManifestError, WeightsError, RowsError, RanksError).
    """
    settings = get_profile(profile)
    if record and not settings.embedded:
        raise ReproduceError(
            f"--record refreshes what is committed here, which is of embedded weights; the rows of {profile} stay in "
            f"{paths.WORKING_ROWS / profile}, its notebooks and figures in {paths.REPORT}"
        )
    names = choose(only, settings)
    samples = samples or (settings.samples if record else settings.default_samples)
    preflight.check(settings, samples=samples)
    if record and (names != choose(None, settings) or samples != settings.samples):
        raise ReproduceError(f"a recorded run is complete: all notebooks and --samples {settings.samples}")
    if record:
        check_kept(parts(settings, samples, names))
    started = time.monotonic()
    table = prepare(settings, samples, names, jobs=jobs, learning=learning)
    if record:
        world_figures.model_figures(settings)
    figures = paths.REPORT / "figures"
    if not only:
        shutil.rmtree(figures, ignore_errors=True)
    parameters = {"profile": profile, "samples": samples, "seed": settings.seed, "figures_dir": str(figures)}
    executed = run_all(names, parameters, jobs)
    minutes = (time.monotonic() - started) / 60
    facts = [f"profile {profile}, {samples} utterances, {minutes:.1f} minutes of work", _host()]
    entrance = write_report(executed, facts, table)
    if record:
        record_run(executed, settings, samples)
    return entrance


def _host() -> str:
    machine = provenance.machine()
    return f"computed on {machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {machine['system']}"


def write_report(executed: dict[str, NotebookNode], facts: Sequence[str], table: str) -> Path:
    """Web pages of the executed notebooks and their entrance in build/report; returns the entrance.

    table: HTML of the key results. Pages of notebooks that ran earlier and not now stay linked.
    """
    for name, notebook in executed.items():
        write_text(paths.REPORT / f"{name}.html", report.notebook_page(normalise(notebook)))
    titles = {}
    for name in NOTEBOOKS:
        if (paths.REPORT / f"{name}.html").exists() and (paths.REPORT / f"{name}.ipynb").exists():
            with contextlib.suppress(OSError, ValueError):  # left half-written by a run that was killed
                earlier = nbformat.read(paths.REPORT / f"{name}.ipynb", as_version=4)
                titles[f"{name}.html"] = report.title_of(earlier)
    pictures = sorted((paths.REPORT / "figures").glob("*.png"))
    page = report.index_page("PersonaVoice companion: report", facts, table, titles, pictures, paths.REPORT)
    return write_text(paths.REPORT / "index.html", page)


@dataclass(frozen=True)
class Part:
    """What a recorded run writes to one place of `data/results`: `rows` of each system, or nothing where that is 0.

    command: makes the rows of the system {name}. manifest: another one than the profile's; name: of a part of the
    study, as `provenance.record` takes it.
    """

    systems: Sequence[str]
    rows: int
    command: str
    manifest: Manifest | None = None
    name: str = ""


def parts(profile: Profile, samples: int, names: Sequence[str]) -> dict[str, Part]:
    """What a recorded run of these notebooks writes, by place: the study, its variants, other seeds, other texts."""
    needs = [NOTEBOOKS[name] for name in names]
    other = "" if profile.name == MINI.name else f" --profile {profile.name}"
    end = f"--samples {samples} --jobs 2{other}"
    own = manifests.read(profile.manifest)
    every = [*systems.present(profile), *_finished_from_outside(profile, samples)]
    found = {profile.name: Part(every, samples, f"pvlib evaluate --system {{name}} {end}")}
    if any(need.ablations for need in needs):
        variants, count = ablations.system_names(profile), ablations.count(profile, samples)
        part = Part(variants, count, f"pvlib evaluate --all {end}", name=row_files.VARIANTS)
        found[f"{profile.name}/{part.name}"] = part
    noisy = seeds.noisy(profile)
    for name, again in seeds.parts(own).items():
        there = finished(profile, noisy, samples, manifest=again) is not None
        command = f"pvlib evaluate --seeds {seeds.MAIN_COUNT} {end}"
        found[f"{profile.name}/{name}"] = Part(noisy, samples if there else 0, command, again, name)
    if profile.ultra_short and any(need.short for need in needs):
        texts = short_texts.read(profile)
        command = f"pvlib evaluate --notebooks {short_texts.NOTEBOOK} {end}"
        part = Part(short_texts.system_names(profile), len(texts.table), command, texts)
        found[row_files.part_of(profile.name, texts.name)] = part
    return found


def _finished_from_outside(profile: Profile, samples: int) -> list[str]:
    """Systems of `systems.EXTERNAL` that are installed here and have all rows of the study."""
    found = []
    for name in systems.EXTERNAL:
        with contextlib.suppress(ExternalError):
            if finished(profile, [name], samples) is not None:
                found.append(name)
    return found


def check_kept(planned: Mapping[str, Part]) -> None:
    """Raises ReproduceError where more rows of a system are committed than would take their place."""
    for place, part in planned.items():
        if not row_files.is_recorded(place):
            continue
        for name, rows in row_files.committed(place)["system"].value_counts(sort=False).items():
            now = part.rows if name in part.systems else 0
            if rows > now:
                raise ReproduceError(
                    f"{paths.RESULTS / place} holds {rows} rows of {name}, and {now} would take their place; make them "
                    f"with `{part.command.format(name=name)}` first, or delete the folder if its rows are to go"
                )


def _copy(picture: Path, place: Path) -> None:
    """Whole or not at all. Raises ReproduceError."""
    try:
        with paths.appearing(place) as partial:
            shutil.copyfile(picture, partial)
    except OSError as error:
        raise ReproduceError(
            f"cannot write {place}: {error}; check that the folder is writable and has space"
        ) from error


def record_run(executed: dict[str, NotebookNode], profile: Profile, samples: int) -> None:
    """Refresh what is committed from a complete run: rows, notebooks, figures, the README's results block.

    Raises ReproduceError where rows would be lost, before anything is written.
    """
    planned = parts(profile, samples, list(executed))
    check_kept(planned)
    for part in planned.values():
        if part.rows:
            provenance.record(
                profile, part.systems, part.rows, manifest=part.manifest, part=part.name, command=part.command
            )
    for name, notebook in executed.items():
        write_text(paths.NOTEBOOKS / f"{name}.ipynb", nbformat.writes(normalise(notebook)) + "\n")
    paths.FIGURES.mkdir(exist_ok=True)
    for picture in sorted((paths.REPORT / "figures").glob("*.png")):
        _copy(picture, paths.FIGURES / picture.name)
    tables.readme_block(profile.name)
    cards.write_cards(profile)
