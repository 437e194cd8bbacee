"""From nothing to the paper's tables and figures: rows, notebooks, report; and the recorded run.

Working rows are cached, so a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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
from pvlib.config import Profile, get_profile
from pvlib.study import (
    ablations,
    cards,
    compiled,
    launch,
    provenance,
    report,
    seeds,
    short_texts,
    sweeps,
    tables,
    world_figures,
)
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.evaluate import evaluate, finished
from pvlib.study.manifest import Manifest
from pvlib.study.ranks import Ranks
from pvlib.study.rows import write_text
from pvlib.study.rtf import measure_speed

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
DEMO_SYSTEMS = ("f5-official", "personavoice")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PROGRESS = re.compile(r"\r|\d+%\||it/s|s/it")


class ReproduceError(RuntimeError):
    """A notebook that is unknown or failed; the message names it and says how to go on."""


@dataclass(frozen=True)
class Needs:
    """What is computed, with a progress bar, before a notebook runs, so that the notebook only reads it.

    rows: of the systems of the tables; vocoders: of SV2TTS's other vocoders too. A system without weights is left out.
    short: rows of the manifest of ultra-short texts, where the profile has one. learning: how quickly the backbone
    learns. embedded: it is about what only a profile with embedded weights has, and is left out for others. recorded:
    whether it is part of the recorded run; the others wait for weights.
    """

    rows: bool = False
    vocoders: bool = False
    demo: bool = False
    speed: bool = False
    sweep: bool = False
    ablations: bool = False
    short: bool = False
    learning: bool = False
    embedded: bool = False
    recorded: bool = True


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
    "09_pareto_frontier": Needs(rows=True, vocoders=True, speed=True, sweep=True),
    "10_waveforms_and_spectrograms": Needs(rows=True),
    "11_sv2tts_in_three_networks": Needs(recorded=False),
    "12_claims_ledger": Needs(rows=True, speed=True),
    "13_beyond_the_paper": Needs(rows=True, short=True, embedded=True),
    "A1_how_the_models_learnt": Needs(rows=True, learning=True, embedded=True),
}


def choose(only: str | Sequence[str] | None) -> list[str]:
    """Notebook names in reading order, picked by name, number ("06") or file name.

    Raises ReproduceError on one that does not exist.
    """
    if not only:
        return list(NOTEBOOKS)
    chosen = set()
    for wanted in [only] if isinstance(only, str) else only:
        stem = Path(wanted).stem
        found = [name for name in NOTEBOOKS if name == stem or name.split("_")[0] == stem]
        if not found:
            raise ReproduceError(f"no notebook {wanted!r}; there are {', '.join(NOTEBOOKS)}")
        chosen.update(found)
    return [name for name in NOTEBOOKS if name in chosen]


class Engine(NBClientEngine):
    """papermill's own engine, whose runs end, and tell how.

    Its output widgets keep what they are shown and do not tell the kernel: nobody reads it there, and nbclient
    tells it through a shadow of the socket on which it waits for the kernel's answer, so that an answer that comes
    just then is never seen, and the notebook waits for ever.

    A kernel that dies tells where it was, in the error.
    """

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, start_timeout: float = 60, **options: object
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
            try:
                client.execute()
            except DeadKernelError as error:
                where = left.read_text(encoding="utf-8", errors="replace") if left.exists() else ""
                raise DeadKernelError(
                    where.strip() or "ended from outside, as by a system short of memory"
                ) from error


papermill_engines.register(Engine.__module__, Engine)


def execute(name: str, parameters: dict[str, object], folder: Path) -> NotebookNode:
    """Run one notebook in a fresh kernel; the executed copy is <folder>/<name>.ipynb.

    Raises ReproduceError naming the cell that failed, the copy then holding everything up to it, or what a kernel that
    died has left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.ipynb"
    source = paths.NOTEBOOKS / f"{name}.ipynb"
    options = {"kernel_name": KERNEL["name"], "cwd": str(paths.ROOT), "progress_bar": False}
    options["engine_name"] = Engine.__module__
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

    Raises what `execute` raises of the first that fails, when those that run have ended; others are not begun.
    """
    compiled.compile_librosa()
    with (
        launch.shared_threads(jobs),
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(names), unit="notebook") as bar,
    ):
        runs = {pool.submit(execute, name, parameters, paths.REPORT): name for name in names}
        for run in as_completed(runs):
            if run.exception():
                pool.shutdown(wait=False, cancel_futures=True)
                raise run.exception()
            bar.set_description(runs[run])
            bar.update()
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
    if any(need.speed for need in needs):
        speed = measure_speed(profile, utterances=sweeps.timed(samples), progress=progress)["systems"]
    if any(need.sweep for need in needs):
        sweeps.speeds(profile, utterances=sweeps.timed(samples), progress=progress)
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
    complete run of all notebooks that belong to it (`Needs`) may do so. only: some notebooks, by name or number. jobs:
    processes that share the synthesis, and notebooks that run at a time. learning: measures how quickly the backbone
    learns (`training.speed.measured`, of a floor that this one does not see) before notebooks run side by side.
    Raises ReproduceError on a notebook that is unknown or fails and on an incomplete recorded run, and what the
    study raises (ConfigError, ManifestError, WeightsError, RowsError, RanksError).
    """
    settings = get_profile(profile)
    complete = [
        name
        for name, needs in NOTEBOOKS.items()
        if (settings.embedded or not needs.embedded) and (needs.recorded or not record)
    ]
    names = [name for name in choose(only) if name in complete]
    samples = samples or (settings.samples if record else settings.default_samples)
    if record and (names != complete or samples != settings.samples):
        raise ReproduceError(f"a recorded run is complete: all notebooks and --samples {settings.samples}")
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
            titles[f"{name}.html"] = report.title_of(
                nbformat.read(paths.REPORT / f"{name}.ipynb", as_version=4)
            )
    pictures = sorted((paths.REPORT / "figures").glob("*.png"))
    page = report.index_page("PersonaVoice companion: report", facts, table, titles, pictures, paths.REPORT)
    return write_text(paths.REPORT / "index.html", page)


def record_run(executed: dict[str, NotebookNode], profile: Profile, samples: int) -> None:
    """Refresh what is committed from a complete run: rows, notebooks, figures, the README's results block."""
    provenance.record(profile, samples=samples)
    if any(NOTEBOOKS[name].ablations for name in executed):
        variants = ablations.system_names(profile)
        provenance.record(profile, variants, ablations.count(profile, samples), part=row_files.VARIANTS)
    noisy = seeds.noisy(profile)
    for part, other in seeds.parts(manifests.read(profile.manifest)).items():
        shutil.rmtree(paths.RESULTS / profile.name / part, ignore_errors=True)  # of older sources or weights
        if finished(profile, noisy, samples, manifest=other) is not None:
            provenance.record(profile, noisy, samples, manifest=other, part=part)
    if profile.ultra_short and any(NOTEBOOKS[name].short for name in executed):
        texts = short_texts.read(profile)
        provenance.record(profile, short_texts.system_names(profile), len(texts.table), manifest=texts)
    for name, notebook in executed.items():
        write_text(paths.NOTEBOOKS / f"{name}.ipynb", nbformat.writes(normalise(notebook)) + "\n")
    paths.FIGURES.mkdir(exist_ok=True)
    for picture in sorted((paths.REPORT / "figures").glob("*.png")):
        shutil.copyfile(picture, paths.FIGURES / picture.name)
    tables.readme_block(profile.name)
    cards.write_cards(profile)
