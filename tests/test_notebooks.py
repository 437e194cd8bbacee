"""The notebooks run, read well as committed, and what draws and concludes for them is right on made-up rows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from pvlib import paths
from pvlib.audio import SAMPLE_RATE, AudioError
from pvlib.ceag import AttentionMaps
from pvlib.config import MINI, PAPER
from pvlib.study import (
    attention,
    checks,
    comparisons,
    conclusions,
    examples,
    listen,
    look,
    modality,
    paper,
    pictures,
    plots,
    report,
    reproduce,
    sweeps,
)
from pvlib.study import manifest as manifests
from pvlib.study.claims import SUPPORTED, Claim, Evidence
from pvlib.study.measure import measure
from pvlib.text import TextError

FILES = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
SAMPLES = 4
MANY = "07_ablations"  # each variant, so on a single utterance
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+?\$", re.DOTALL)
MEASURED = re.compile(r"\d\.\d|\d ?%|\d per cent")  # what a sentence would quote from a table


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# As committed


def test_the_list_of_notebooks_is_the_folder():
    assert [path.stem for path in FILES] == list(reproduce.NOTEBOOKS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestCommitted:
    def test_is_valid_small_and_of_no_machine(self, path):
        notebook = read(path)
        nbformat.validate(notebook)
        assert path.stat().st_size < 1.5e6
        assert notebook.metadata == {
            "kernelspec": reproduce.KERNEL,
            "language_info": {"name": "python"},
        }
        assert nbformat.writes(reproduce.normalise(notebook)) + "\n" == path.read_text(encoding="utf-8")
        assert not re.search(r"/(?:home|Users|root|work)/|site-packages", path.read_text(encoding="utf-8"))

    def test_first_code_cell_holds_the_parameters_with_the_cheap_defaults(self, path):
        first = code(read(path))[0]
        assert first.metadata.tags == ["parameters"]
        found: dict = {}
        exec(first.source, found)
        assert {k: found[k] for k in ("profile", "samples", "seed", "figures_dir")} == {
            "profile": "mini",
            "samples": MINI.default_samples,
            "seed": MINI.seed,
            "figures_dir": "",
        }

    def test_counts_run_from_one_and_nothing_failed(self, path):
        cells = code(read(path))
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]

    def test_functions_live_in_the_package(self, path):
        for cell in code(read(path)):
            assert not re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE), cell.source
            assert cell.source.count("\n") < 16, cell.source

    def test_no_measured_number_is_typed_into_the_prose(self, path):
        plain = re.sub(r"`[^`]*`|95 % interval", "", FORMULA.sub("", prose(read(path))))
        assert not MEASURED.findall(plain), MEASURED.findall(plain)

    def test_reads_like_a_lecture_and_its_formulas_can_be_drawn(self, path):
        text = prose(read(path))
        for heading in ("# " + path.stem[:2], "**Question.**", "idea in one formula", "smallest call"):
            assert heading in text
        assert text.index("What to conclude") < text.index("What would change your mind")
        for formula in FORMULA.findall(text):
            assert "<img" in report.formula(formula.strip("$").replace("\n", " "))


def test_every_kept_picture_has_a_notebook_and_a_name_of_its_own():
    names, recorded = [], set()
    for path in FILES:
        found = re.findall(r'look\.keep\([^"]+"(\w+)"', path.read_text().replace('\\"', '"'))
        names += found
        if any(cell.get("outputs") for cell in read(path).cells):
            recorded |= set(found)
    assert names and len(names) == len(set(names))
    assert {path.stem for path in paths.FIGURES.glob("*.png")} == recorded


# Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """`pvlib reproduce` on a handful of utterances, everything that it makes in a folder of its own."""
    build = tmp_path_factory.mktemp("build")
    env = os.environ | {"PVLIB_BUILD": str(build), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-m", "pvlib", "reproduce"]
    others = [name for name in reproduce.NOTEBOOKS if name != MANY]
    before = {path: path.stat().st_mtime_ns for path in [*FILES, *paths.FIGURES.glob("*")]}
    for options in (["--samples", "1", "--only", MANY], ["--samples", str(SAMPLES), "--only", *others]):
        done = subprocess.run(
            [*command, *options], cwd=paths.ROOT, env=env, capture_output=True, text=True, timeout=3400
        )
        assert done.returncode == 0, done.stderr[-4000:]
    assert str(build / "report" / "index.html") in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, (
        "only --record touches what is committed"
    )
    return build / "report"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", reproduce.NOTEBOOKS)
def test_notebook_runs_on_a_handful_of_utterances(finished, name):
    notebook = read(finished / f"{name}.ipynb")
    injected = [cell for cell in code(notebook) if "injected-parameters" in cell.metadata.get("tags", [])]
    assert f"samples = {1 if name == MANY else SAMPLES}" in injected[0].source
    assert not [o for cell in code(notebook) for o in cell.outputs if o.output_type == "error"]
    assert "![" not in prose(notebook)  # pictures come out of cells
    wanted = re.findall(r'look\.keep\([^"]+"(\w+)"', "\n".join(cell.source for cell in code(notebook)))
    for picture in wanted:
        assert (finished / "figures" / f"{picture}.png").read_bytes()[1:4] == b"PNG"
    clean = nbformat.writes(reproduce.normalise(notebook))
    assert len(clean) < 1.5e6
    assert str(finished) not in clean and "papermill" not in clean
    page = (finished / f"{name}.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(wanted) and "data:image/svg+xml" in page
    assert not re.search(r'(src|href)="https?://', page)  # readable without a network


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_report_shows_the_table_every_notebook_and_every_picture(finished):
    page = (finished / "index.html").read_text(encoding="utf-8")
    assert "PersonaVoice v10.4.8 (paper)" in page
    for name in reproduce.NOTEBOOKS:
        assert f'href="{name}.html"' in page
    for picture in (finished / "figures").glob("*.png"):
        assert f'src="figures/{picture.name}"' in page


@pytest.mark.slow
def test_a_failing_cell_is_named_and_what_ran_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    cells = [nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell("print(x)\n1 / 0")]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": reproduce.KERNEL})
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(reproduce.ReproduceError, match="broken: cell 3 failed: ZeroDivisionError"):
        reproduce.execute("broken", {"x": 2}, tmp_path / "out")
    assert read(tmp_path / "out" / "broken.ipynb").cells[-1].outputs[0].text == "2\n"


@pytest.mark.slow
def test_a_control_is_run_headless_and_its_kernel_is_told_nothing(written, tmp_path, monkeypatch):
    """nbclient's message to the kernel can swallow the answer that it waits for; see `reproduce.Engine`."""
    sent = []
    monkeypatch.setattr("nbclient.output_widget.OutputWidget.send", lambda self, data: sent.append(data))
    written(
        "import ipywidgets\nipywidgets.interact(lambda x: print('shown', x, flush=True), x=(0, 3))\nprint('after')"
    )
    made = reproduce.execute("written", {"x": 2}, tmp_path / "out")
    outputs = made.cells[-1].outputs
    assert [o.text for o in outputs if o.output_type == "stream"] == [
        "after\n"
    ]  # the rest is the control's own
    assert any("widget-view" in kind for o in outputs for kind in o.get("data", {}))
    assert not sent


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a notebook of one cell beside its parameters, where `reproduce.execute` looks for notebooks."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)

    def write(source: str, name: str = "written") -> None:
        cells = [nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell(source)]
        cells[0].metadata["tags"] = ["parameters"]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": reproduce.KERNEL})
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")

    return write


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("import ctypes\nctypes.string_at(0)", "line 2 in <module>"),
        ("import os\nos._exit(1)", "ended from outside"),
    ],
)
def test_a_kernel_that_dies_tells_where_it_was(written, tmp_path, death, told):
    written(death)
    with pytest.raises(reproduce.ReproduceError) as caught:
        reproduce.execute("written", {"x": 2}, tmp_path / "out")
    assert "written: its kernel died" in str(caught.value) and "--jobs 1" in str(caught.value)
    assert told in str(caught.value)


SLEEP = "import os, pathlib, time\npathlib.Path({folder!r}, f'{{os.getpid()}}.pid').touch()\ntime.sleep(600)"
WAIT = "import pathlib, time\nwhile not list(pathlib.Path({folder!r}).glob('*.pid')):\n    time.sleep(0.1)\n1 / 0"


def ended(folder: Path) -> bool:
    """Whether the processes that left their number in a folder are gone; there is at least one."""
    numbers = [int(path.stem) for path in folder.glob("*.pid")]
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, 0)
            return False
    return bool(numbers)


def test_an_interruption_ends_the_kernels_and_begins_no_other(written, tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        written(SLEEP.format(folder=str(tmp_path)), name)

    def interrupted(runs):
        while len(list(tmp_path.glob("*.pid"))) < 2:
            time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(paths, "REPORT", tmp_path / "out")
    monkeypatch.setattr(reproduce, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce.run_all(["one", "two", "three"], {"x": 2}, jobs=2)
    assert ended(tmp_path) and len(list(tmp_path.glob("*.pid"))) == 2
    assert not (tmp_path / "out" / "three.ipynb").exists()


def test_a_notebook_that_fails_ends_the_others(written, tmp_path, monkeypatch):
    written(SLEEP.format(folder=str(tmp_path)), "one")
    written(WAIT.format(folder=str(tmp_path)), "two")
    monkeypatch.setattr(paths, "REPORT", tmp_path / "out")
    with pytest.raises(reproduce.ReproduceError, match="two: cell 3 failed: ZeroDivisionError"):
        reproduce.run_all(["one", "two"], {"x": 2}, jobs=2)
    assert ended(tmp_path)


def test_notebooks_are_chosen_by_number_or_name_in_reading_order():
    assert reproduce.choose(None) == list(reproduce.NOTEBOOKS)
    assert reproduce.choose("06") == ["06_main_results"]
    assert reproduce.choose(["10", "notebooks/00_start_here.ipynb"])[0] == "00_start_here"
    with pytest.raises(reproduce.ReproduceError, match="no notebook '77'.*06_main_results"):
        reproduce.choose("77")
    embedded = {"13_beyond_the_paper", "A1_how_the_models_learnt"}
    assert set(reproduce.NOTEBOOKS) - set(reproduce.choose(None, PAPER)) == embedded
    assert reproduce.choose("06", PAPER) == ["06_main_results"]
    with pytest.raises(reproduce.ReproduceError, match="13_beyond_the_paper is about what only.*paper has"):
        reproduce.choose(["06", "13"], PAPER)


def test_an_incomplete_run_is_not_recorded():
    with pytest.raises(reproduce.ReproduceError, match="--samples 200"):
        reproduce.reproduce("mini", samples=10, record=True)
    with pytest.raises(reproduce.ReproduceError, match="all notebooks"):
        reproduce.reproduce("mini", samples=200, record=True, only="06")


def test_normalising_leaves_content_and_drops_the_rest():
    cells = [
        nbformat.v4.new_markdown_cell("# T"),
        nbformat.v4.new_code_cell(
            "samples = 4", metadata={"tags": ["parameters"], "papermill": {"duration": 1.5}}
        ),
        nbformat.v4.new_code_cell('# Parameters\nsamples = 200\nfigures_dir = "/tmp/x"\n'),
        nbformat.v4.new_code_cell("print(1)\n2", execution_count=7),
    ]
    cells[2].metadata["tags"] = ["injected-parameters"]
    bar = nbformat.v4.new_output("stream", name="stderr", text="personavoice:  50%|####  | 2/4 [00:01]")
    widget = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    warning = nbformat.v4.new_output("stream", name="stderr", text="pvlib: warning: the clip is loud")
    kept = nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=7)
    cells[3].outputs = [bar, widget, warning, kept]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"papermill": {"start_time": "now"}, "widgets": {}}
    )
    clean = reproduce.normalise(notebook)
    assert clean.metadata == {"kernelspec": reproduce.KERNEL, "language_info": {"name": "python"}}
    assert [cell.metadata for cell in clean.cells] == [
        {},
        {"tags": ["parameters"]},
        {"tags": ["injected-parameters"]},
        {},
    ]
    assert clean.cells[2].source.splitlines()[1:] == ["samples = 200"]
    assert [cell.execution_count for cell in code(clean)] == [1, 2, 3]
    assert [o.get("text", o.get("execution_count")) for o in clean.cells[3].outputs] == [warning.text, 3]
    assert notebook.cells[3].execution_count == 7  # the original is left alone
    assert reproduce.normalise(clean) == clean


# What draws and concludes


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Two systems and two controls on 40 utterances of 20 speakers; the first system is better by 0.2 in WER."""
    rng = np.random.default_rng(0)
    means = {
        "ground-truth": (0.0, 0.9),
        "impostor": (0.0, 0.5),
        "f5-official": (0.4, 0.7),
        "personavoice": (0.2, 0.8),
    }
    lines = []
    for i in range(40):
        bucket, words = [("ultra-short", 3), ("short", 6), ("long", 20)][0 if i < 4 else 1 if i < 10 else 2]
        hard = rng.normal(0, 0.02)
        for system, (wer, secs) in means.items():
            value = max(0.0, wer + hard * (wer > 0)) if bucket == "long" else float(i % 2) * (wer > 0)
            line = {"system": system, "utterance": f"u{i:02d}", "speaker": f"s{i % 20}", "bucket": bucket}
            line |= {"words": words, "text": "a b c", "hypothesis": "a b c", "wer": value, "error": ""}
            line |= {"wer_capped": min(1.0, value), "dnsmos": 3.0, "generated_seconds": 2.0}
            line |= dict.fromkeys(("secs_ecapa_clip", "secs_ecapa_speaker", "secs_ge2e_clip"), secs)
            lines.append(line | {"secs_ge2e_speaker": secs + rng.normal(0, 0.01)})
    return pd.DataFrame(lines)


def test_every_figure_draws_and_leaves_the_settings_alone(rows, tmp_path):
    before = mpl.rcParams.copy()
    measured = measure(rows, ["wer_capped", "cfr", "secs_ge2e_speaker"], resamples=50)
    points = sweeps.points(rows, "secs_ge2e_speaker")
    grid = pd.DataFrame(
        [(n, g, 0.1 * n, 0.5 / n, 0.4 / n, 0.6 / n, 0.5, 0.4, 0.6) for n in (4, 8) for g in (1.5, 2.5)],
        columns=[
            "steps",
            "cfg_strength",
            "rtf",
            "wer",
            "wer_low",
            "wer_high",
            "secs",
            "secs_low",
            "secs_high",
        ],
    )
    demo = pd.DataFrame([("short", 0.5, 0.1, "0.4874", "")], columns=DEMO)
    maps = np.full((2, 2, 6, 6), 1 / 6)
    wave = np.sin(np.arange(SAMPLE_RATE) / 20).astype(np.float32)
    figures = {
        "stratum": plots.by_stratum(measured, "wer_capped", paper.points()),
        "failures": plots.failures(measured, paper.points()),
        "distributions": plots.distributions(rows, ["wer_capped", "secs_ge2e_speaker"], measured),
        "histogram": plots.wer_histogram(rows, "ultra-short"),
        "plane": plots.plane(points, grid, paper.plane()),
        "speed": plots.speed(grid),
        "demo": plots.demo(demo),
        "sound": pictures.waveforms_and_spectrograms({"clip": wave}, {"clip": [("word", 0.1, 0.4)]}),
        "mels": pictures.spectrograms({"a": pictures.mel_of(wave)}),
        "heads": pictures.attention_heads(maps, 1.0, 2.0, (-2, -1)),
        "text": pictures.attention_text(
            maps[0, 0], list("abc de"), [0.1, np.nan, 1, 1, 1, 2], maps[0, 0, 0], 1, 2
        ),
        "entropy": pictures.entropy_over_time(np.array([0.0, 0.5]), np.ones((2, 2)), (-2, -1), (0.1, 0.4)),
    }
    for name, figure in figures.items():
        shown = look.keep(figure, name, tmp_path)
        assert shown.data == (tmp_path / f"{name}.png").read_bytes() and len(shown.data) > 3000
        for ax in figure.axes:
            assert (
                ax.get_xlabel() or ax.get_ylabel() or ax.get_title(loc="left") or ax.get_title() or ax.lines
            )
    assert mpl.rcParams == before


DEMO = ["name", "secs_ecapa_clip", "wer_capped", "secs (paper)", "wer (paper)"]


def test_pictures_of_the_same_rows_are_the_same_bytes(rows, tmp_path):
    measured = measure(rows, ["wer_capped"], ["overall"], resamples=50)
    made = [plots.distributions(rows, ["wer_capped"], measured) for _ in range(2)]
    assert look.keep(made[0], "a", tmp_path).data == look.keep(made[1], "b", tmp_path).data


def test_marks_stand_at_the_measured_values(rows):
    measured = measure(rows, ["wer_capped"], ["overall", "long"], resamples=50)
    ax = plots.by_stratum(measured, "wer_capped").axes[0]
    drawn = sorted(y for line in ax.lines for y in line.get_ydata() if line.get_marker() in "so^X")
    assert np.allclose(drawn, sorted(measured["value"]))


def test_histogram_counts_every_utterance_once(rows):
    figure = plots.wer_histogram(rows.assign(wer=rows["wer"] * 3), "ultra-short")
    assert [sum(bar.get_height() for bar in ax.patches) for ax in figure.axes] == [4, 4, 4, 4]


def test_system_looks_are_distinct_and_keep_an_order():
    looks = list(look.LOOKS.values())
    assert len({one.colour for one in looks}) == len({one.marker for one in looks}) == len(looks)
    assert look.ordered(["personavoice", "zzz", "ground-truth"]) == ["ground-truth", "personavoice", "zzz"]
    assert look.look("zzz") == look.SPARE


def test_frontier_against_its_definition():
    rng = np.random.default_rng(1)
    for _ in range(20):
        points = pd.DataFrame(rng.integers(0, 6, (12, 2)) / 5, columns=["wer", "secs"])
        edge = plots.frontier(points)
        at_least = (points["wer"].to_numpy()[:, None] <= points["wer"].to_numpy()) & (
            points["secs"].to_numpy()[:, None] >= points["secs"].to_numpy()
        )
        better = at_least & ~at_least.T
        free = points[~better.any(axis=0)].drop_duplicates()
        assert sorted(map(tuple, edge.to_numpy())) == sorted(map(tuple, free.to_numpy()))


def test_a_frontier_of_one_system_is_drawn_to_the_rims():
    """All that lies below and right of it is beaten, also where one system alone is on the frontier."""
    middle = {"secs_low": 0.1, "secs_high": 0.9, "wer_low": 0.1, "wer_high": 0.9}
    points = pd.DataFrame([{"system": "personavoice", "wer": 0.2, "secs": 0.7} | middle])
    ax = plots.plane(points).axes[0]
    (stairs,) = (line for line in ax.lines if line.get_label() == "frontier")
    (left, right), (bottom, _) = ax.get_xlim(), ax.get_ylim()
    assert stairs.get_xydata().tolist() == [[0.2, bottom], [0.2, 0.7], [right, 0.7]] and left < 0.2


def test_a_true_difference_is_shown_and_no_difference_is_not(rows):
    shown = comparisons.compare(rows, "wer_capped", "personavoice", "f5-official", "long")
    assert "0.200 lower" in shown and "**The difference is shown.**" in shown
    nothing = comparisons.compare(rows, "wer_capped", "personavoice", "f5-official", "short")
    assert "**no difference is shown**" in nothing
    assert "share no" in comparisons.compare(rows, "wer_capped", "personavoice", "sv2tts")


def test_paired_difference_is_the_mean_over_common_utterances(rows):
    missing = rows[~((rows["system"] == "f5-official") & (rows["utterance"] < "u20"))]
    found = comparisons.difference(missing, "secs_ge2e_speaker", "personavoice", "f5-official")
    wide = missing.pivot(index="utterance", columns="system", values="secs_ge2e_speaker").dropna()
    assert found.n == 20
    assert found.value == pytest.approx((wide["personavoice"] - wide["f5-official"]).mean())


def test_patterns_of_the_paper_are_judged_by_sign_and_interval(rows):
    verdicts = comparisons.patterns(rows)["verdict"]
    assert list(verdicts[verdicts.index.str.contains("as published")]) == ["not measured"] * 4
    rng = np.random.default_rng(1)  # differences that are all the same cannot be tested
    rows = rows.assign(
        **{m: rows[m] + rng.normal(0, 0.01, len(rows)) for m in ("wer_capped", "secs_ecapa_clip")}
    )
    as_published = pd.concat([rows, rows[rows["system"] == "f5-official"].assign(system="f5-as-published")])
    turned = as_published.assign(secs_ecapa_clip=-as_published["secs_ecapa_clip"])
    assert list(comparisons.patterns(as_published)["verdict"][:3]) == ["holds"] * 3
    assert comparisons.patterns(turned)["verdict"].iloc[0] == "the opposite holds"
    printed = comparisons.patterns(rows)["the paper's difference"]
    assert (
        printed["fewer catastrophic failures than F5-TTS as published"] == "~-0.315"
    )  # 45 % is its estimate
    assert printed["closer clones than F5-TTS as published"].startswith("+")
    assert printed["closer clones than F5-TTS with the clip's transcript"] == "-"


def test_the_papers_numbers_carry_our_names():
    values = paper.points().set_index(["metric", "stratum", "system"])["value"]
    assert values[("secs_ecapa_clip", "overall", "personavoice")] == 0.4945
    assert values[("wer_capped", "short", "personavoice")] == 0.4066
    assert values[("cfr", "overall", "f5-as-published")] == 0.45
    assert set(paper.plane()["system"]) == {"personavoice", "f5-as-published", "xtts", "cosyvoice"}


def test_sentences_follow_the_rows(rows):
    assert conclusions.sample(rows).startswith(
        "40 utterances (4 of at most 4 words, 6 of 5-8 words, 30 longer) of 20 speakers, 4"
    )
    assert (
        "2 are perfect, 2 have a word error rate above 0.8, 0 lie between: too few to tell one heap from two"
        in conclusions.bimodality(rows, "personavoice")
    )
    measured = measure(rows, ["cfr", "secs_retention", "wer_corpus", "secs_ge2e_speaker"], resamples=50)
    sentence = conclusions.failure_rate(measured, "personavoice")
    assert "overall 12.5%" in sentence and "[the paper: 13.5%]" in sentence and "long 0.0%" in sentence
    assert "0.75" in conclusions.retention(measured, "personavoice")
    table = conclusions.failure_table(measured)
    assert table.loc["personavoice", "overall"].startswith("12.5% [")
    assert table.loc["PersonaVoice v10.4.8 (paper)", "ultra-short"] == "63.6%"
    assert table.loc["F5-TTS Official (paper, its estimate)", "overall"] == "~45%"  # as printed
    assert "50.0% and" not in sentence
    points = sweeps.points(rows, "secs_ge2e_speaker")
    systems = points[points["system"].isin(["personavoice", "f5-official"])]
    sentence = conclusions.frontier(systems, plots.frontier(systems))
    assert sentence == (
        "On the frontier: `personavoice`. Beaten by another system in both respects: `f5-official`."
    )


def test_the_questions_of_the_first_notebook_are_answered_from_its_table():
    others = np.array([-0.2, 0.1, 0.5])
    texts = ["the sky is.", "a red boat.", "we sing at night.", "one two three four five six"]
    table = pd.DataFrame({"text": texts, "wer_capped": [0.5, 1.0, 0.5, 0.0], "secs_ecapa_clip": 0.6})
    told = conclusions.enough(table, others)
    assert "For the words: **3 of 4**; for the voice: **yes**." in told
    assert "hears 3 with at most half of the words wrong, 1 without any error" in told
    assert "4 of 4 clones are more like the clip than all of 3 other voices are (-0.200 to 0.500)" in told
    failed = table.assign(wer_capped=1.0, secs_ecapa_clip=[np.nan, 0.5, 0.4, 0.3])
    assert "For the words: **no**; for the voice: **no**." in conclusions.enough(failed, others)
    assert (
        "**Yes**, at every step: 0.750 at 3 words, 0.500 at 4 words, 0.000 at 6 words"
        in conclusions.growing(table)
    )
    bent = table.assign(wer_capped=[0.5, 0.5, 0.8, 0.1])
    assert "**From the shortest to the longest it does**, but not" in conclusions.growing(bent)
    assert "**No**: 0.000 at 3 words" in conclusions.growing(table.assign(wer_capped=[0.0, 0.0, 0.0, 0.2]))
    assert "cannot tell" in conclusions.growing(table.head(2))


def test_strangers_are_one_clip_of_each_speaker(monkeypatch):
    class Encoder:
        def embed(self, waves):
            return torch.stack([torch.tensor([1.0, float(np.abs(wave).mean())]) for wave in waves])

    monkeypatch.setattr(examples.hub, "load_speaker_encoder", lambda profile: Encoder())
    found = examples.strangers("mini", np.zeros(SAMPLE_RATE, np.float32))
    whole = manifests.read("mini-test")
    assert len(found) == whole.table["speaker"].nunique() and (found <= 1).all() and np.ptp(found) > 0


def test_real_time_factors_are_written_in_full_on_the_axis():
    grid = pd.DataFrame({"steps": [4, 8, 16], "cfg_strength": 2.0, "rtf": [0.05, 0.1, 0.4]})
    for metric in ("wer", "secs"):
        grid = grid.assign(**{metric: 0.2, f"{metric}_low": 0.1, f"{metric}_high": 0.3})
    axis = plots.speed(grid).axes[0].xaxis
    assert axis.get_major_formatter()(0.0625) == "0.0625"


def test_notebooks_and_ledger_have_one_test_of_lengths_and_of_heaps(rows):
    """The claims' kinds `strata` and `bimodal` print the very numbers of the sentences."""
    more = [rows.assign(utterance=rows["utterance"] + f"-{k}") for k in range(3)]
    rows = pd.concat(more, ignore_index=True)
    evidence, check = Evidence("mini", rows), {"system": "personavoice", "metric": "wer_capped"}
    check |= {"first": "short", "second": "long", "expect": "more"}
    found = checks.strata(Claim("a", "b", "c", "d", "strata", check), evidence, {})
    sentence = conclusions.lengths(rows, "personavoice")
    assert (
        f"Difference {found.measured}: no difference is shown." in sentence and "0.407 and 0.116" in sentence
    )
    check |= {"metric": "cfr", "first": "ultra-short"}
    found = checks.strata(Claim("a", "b", "c", "d", "strata", check), evidence, {})
    assert found.measured in conclusions.lengths(rows, "personavoice", "cfr", ("ultra-short", "long"))
    few = rows[rows["bucket"] != "ultra-short"].drop_duplicates("utterance")
    few = pd.concat([few[few["bucket"] == "short"].head(5), few[few["bucket"] == "long"]])
    few = few.assign(system="personavoice")
    assert "Too few to tell them apart (5 short" in conclusions.lengths(few, "personavoice")
    check |= {"metric": "wer_capped", "stratum": "ultra-short"}
    found = checks.bimodal(Claim("a", "b", "c", "d", "bimodal", check), evidence, {})
    assert found.verdict == SUPPORTED
    assert f": two heaps ({found.measured})." in conclusions.bimodality(rows, "personavoice")
    assert conclusions.bimodality(rows, "ground-truth").endswith("between: all the same.")


def test_a_few_broken_texts_are_no_heap(monkeypatch):
    def told(perfect: int, between: int, broken: int, p: float) -> str:
        rates = np.repeat([0.0, 0.5, 1.0], [perfect, between, broken])
        own = pd.DataFrame({"system": "s", "bucket": "ultra-short", "words": 3, "wer_capped": rates})
        found = modality.Bimodality(len(rates), 0.7, 0.1, p, ())
        monkeypatch.setattr(conclusions.modality, "bimodality", lambda values: found)
        return conclusions.bimodality(own, "s").partition(" between: ")[2]

    assert told(105, 43, 2, 0.02).startswith(
        "more than one mode, but 2 at one end are no heap, so not two heaps ("
    )
    assert told(64, 56, 30, 0.02).startswith(
        "more than one mode, but no fewer lie between, so not two heaps ("
    )
    assert told(64, 6, 80, 0.02).startswith("two heaps (coefficient 0.700, one mode: p = 0.020)")
    assert told(64, 6, 80, 0.2).startswith(
        "two heaps by their numbers, but more than one mode is not shown ("
    )
    assert told(64, 56, 30, 0.2).startswith("no two heaps are shown: more than one mode is not shown (")
    flat = modality.Bimodality(
        150, 0.4, 0.1, 0.01, ()
    )  # one mode is unlikely; the coefficient says otherwise
    assert not flat.two and "coefficient is not above 5/9" in flat.lacking
    assert modality.Bimodality(150, 0.7, 0.1, 0.01, ()).lacking == ""


def test_examples_are_chosen_by_rule(rows):
    own = rows[(rows["system"] == "personavoice") & (rows["bucket"] == "long")].sort_values("wer")
    assert examples.median(rows, "personavoice") == own["utterance"].iloc[14]
    worst = examples.worst(rows, "personavoice", 3)
    assert list(worst["wer"]) == [1.0, 1.0, 1.0] and list(worst["utterance"]) == ["u01", "u03", "u05"]
    with pytest.raises(ValueError, match="take more samples"):
        examples.median(rows[rows["bucket"] != "long"], "personavoice")


class Listener:
    """Refuses the clips of some utterances, as the pipeline does where nobody speaks or no word is heard."""

    def __init__(self, refusals: dict[str, Exception]):
        self.refusals, self.asked = refusals, []

    def reference(self, clip, name):
        utterance = name.removeprefix("the clip of ")
        self.asked.append(utterance)
        if utterance in self.refusals:
            raise self.refusals[utterance]


def test_an_example_that_cannot_be_cloned_is_passed_over():
    whole = manifests.read("mini-test")
    rows = whole.sample(5, seed=42)
    names = list(rows["utterance"])
    listener = Listener({names[0]: AudioError("nobody speaks"), names[2]: TextError("no words")})
    found = examples.speakable(listener, whole, rows, 2)
    assert [request.utterance for request in found] == [names[1], names[3]]
    assert listener.asked == names[:4]  # no clip is tried that is not needed
    assert [request.utterance for request in examples.speakable(None, whole, rows, 2)] == names[:2]
    assert len(examples.speakable(listener, whole, rows, 9)) == 3  # all that there are
    assert examples.speakable(listener, whole, rows.head(0), 2) == []
    with pytest.raises(AudioError, match="nobody speaks"):
        examples.speakable(listener, whole, rows.head(1), 2)
    with pytest.raises(ZeroDivisionError):  # a fault of another kind is no matter of the clip
        examples.speakable(Listener({names[0]: ZeroDivisionError()}), whole, rows, 2)


def test_a_player_holds_the_sound_that_it_was_given():
    wave = (0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    audio = listen.player(wave)
    with soundfile.SoundFile(__import__("io").BytesIO(audio.data)) as file:
        heard = file.read()
        assert file.samplerate == SAMPLE_RATE and len(heard) >= len(wave)
    peak = np.abs(np.fft.rfft(heard[: len(wave)])).argmax()
    assert peak == pytest.approx(440, abs=2)
    assert len(audio.data) < 10_000
    page = listen.players({"<a>": wave, "b": None}, {"b": "x < y"}).data
    assert "&lt;a&gt;" in page and "no sound" in page and "x &lt; y" in page and "audio/mpeg" in page


def test_sweep_reuses_the_papers_own_setting_and_names_the_rest():
    own = MINI.inference
    assert sweeps.variant(MINI, own.steps, own.cfg_strength) == "personavoice"
    other = sweeps.variant(MINI, 8, 1.5)
    assert other == "personavoice@steps=8,cfg_strength=1.5,laag_cfg_base=1.5"
    assert sweeps.size(40) == 3 and sweeps.size(200) == 16 and sweeps.size(4) == 2
    assert [sweeps.timed(n) for n in (200, 40, 9, 4)] == [8, 1, 1, 1]


def test_head_table_on_attention_that_is_known():
    n, first = 8, 4
    maps = torch.zeros(1, 2, n, n)
    maps[0, 0, :, :first] = 1 / first  # one head only looks back at the reference
    maps[0, 1] = torch.eye(n)  # the other only at the very token
    columns = np.array([0, 0, 1, 1, -1, 2, 3, 3])
    onto = torch.zeros(n, 4)
    onto[[i for i in range(n) if columns[i] >= 0], [c for c in columns if c >= 0]] = 1.0
    shares = torch.full((3, 1), float(np.log(4) / 2))
    found = AttentionMaps(torch.arange(3) / 3, 0.33, (-1,), maps, maps @ onto, "abcd", first, shares, shares)
    seen = attention.Look(found, columns, 0.5, 1.0, np.arange(4.0))
    table = attention.heads(seen)
    assert list(table["on the reference"]) == [1.0, 0.0]
    assert table["on its own character"].tolist() == pytest.approx([1 / 2 / 3, 1.0])
    assert table["entropy"].tolist() == pytest.approx([np.log(4) / np.log(8), 0.0])
    assert table["even: on the reference"].iloc[0] == 0.5
    assert seen.text_entropy_share == pytest.approx(np.full((3, 1), 0.5))
    assert len(attention.summary(seen, table)) == 3


def test_the_head_that_follows_the_text_is_found():
    n, first, characters = 8, 2, 6
    told = np.array([0, 0, 1, 2, -1, 3, 4, 5])  # which character sounds at each token
    maps = torch.full((2, 2, n, n), 1 / n)
    maps[1, 0] = 0.0
    maps[1, 0, range(n), np.maximum(told, 0)] = (
        1.0  # block 5, head 0 looks there; characters lie on tokens 0..5
    )
    maps[0, 1] = 0.0
    maps[0, 1, :, 7] = 1.0  # one looks where no text is
    found = AttentionMaps(
        torch.zeros(1),
        0.0,
        (4, 5),
        maps,
        maps[..., :characters],
        "abcdef",
        first,
        torch.zeros(1, 2),
        torch.ones(1, 2),
    )
    looked = attention.Look(found, np.arange(n), 0.5, 2.0, np.full(characters, np.nan))
    first_look = attention.Look(found, told, 0.5, 2.0, np.arange(float(characters)))
    table = attention.found_by_head(looked, first_look)
    assert table[["block", "head"]].iloc[0].tolist() == [5, 0] and len(table) == 4
    own, away = (table[name].tolist() for name in ("on its own character", "characters away"))
    assert own[0] == 1.0 and own[-1] == 0.0
    near = [3, 3, 3, 3, 2]  # of the five tokens that say characters 1 to 5, with neighbours
    assert table["even"].tolist() == pytest.approx([np.mean(near) / n] * 4)
    assert own[1] == pytest.approx(np.mean(near) / n)
    assert away[0] == 0 and away[1] == pytest.approx(3)
    seen = attention.Search(looked, first_look, table)
    weights, text, places, nats, boundary, seconds = seen.picture
    assert weights.shape == (n, characters) and text == list("abcdef") and nats.max() == 0
    assert (boundary, seconds) == (0.5, 2.0) and places is first_look.middles
    assert "head 0 of block 5 pays 100.0%" in attention.search_text(seen)
    assert attention.search(None, None, 0.2, first_look) is None
    assert "no weights" in attention.search_text(None)


def test_report_page_needs_no_network_and_keeps_what_it_shows():
    cells = [
        nbformat.v4.new_markdown_cell("# A <title>\n\nInline $x^2$ and\n\n$$\\frac{a}{b}$$"),
        nbformat.v4.new_code_cell(
            "1 + 1", outputs=[nbformat.v4.new_output("execute_result", {"text/plain": "2"})]
        ),
    ]
    page = report.notebook_page(nbformat.v4.new_notebook(cells=cells))
    assert page.count("data:image/svg+xml") == 2 and "$" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    index = report.index_page(
        "H", ["a < b"], "<table></table>", {"a.html": "A"}, [Path("/r/f/x.png")], Path("/r")
    )
    assert "a &lt; b" in index and 'src="f/x.png"' in index and "<table></table>" in index
    with pytest.raises(ValueError, match="no heading"):
        report.title_of(nbformat.v4.new_notebook(cells=[]))


def test_word_times_are_those_of_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "MANIFESTS", tmp_path)
    assert examples.true_words("none", "u") == []
    (tmp_path / "m-words.json").write_text(json.dumps({"u": [["a", 0, 0.5]]}))
    assert examples.true_words("m", "u") == [("a", 0.0, 0.5)]
    (tmp_path / "m-words.json").write_text("{")
    with pytest.raises(examples.ManifestError, match="m-words.json cannot be read"):
        examples.true_words("m", "u")


def test_a_success_stands_left_of_the_line_and_the_end_has_a_bin_of_its_own():
    rows = pd.DataFrame(
        {
            "system": "personavoice",
            "wer": [0.0, 0.5, 0.51, 1.5, 1.6, 9.0],
            "bucket": "ultra-short",
            "words": 3,
        }
    )
    (ax,) = plots.wer_histogram(rows, "ultra-short").axes
    heights = {round(bar.get_x(), 1): bar.get_height() for bar in ax.patches if bar.get_height()}
    assert heights == {0.0: 1, 0.4: 1, 0.5: 1, 1.4: 1, 1.5: 2}
    assert ax.get_xticklabels()[-1].get_text() == "more"


def test_a_table_leads_to_other_notebooks_and_says_when_it_is_empty():
    frame = pd.DataFrame({"words": ["07 of 9", "<b>"], "notebook": ["07", "12"]})
    shown = look.table(frame, links={"07": "07_ablations.ipynb"}).data
    assert '<td><a href="07_ablations.ipynb">07</a></td>' in shown
    assert "<td>07 of 9</td>" in shown and "&lt;b&gt;" in shown and "<td>12</td>" in shown
    assert "no lines" in look.table(frame.iloc[:0]).data


def test_a_page_whose_notebook_was_left_half_written_is_not_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REPORT", tmp_path)
    whole = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# 07 · Ablations: what each gives")]
    )
    nbformat.write(whole, tmp_path / "07_ablations.ipynb")
    (tmp_path / "08_catastrophic_failures.ipynb").write_text('{"cells": [')
    for name in ("07_ablations", "08_catastrophic_failures"):
        (tmp_path / f"{name}.html").write_text("a page")
    page = reproduce.write_report({}, [], "").read_text()
    assert "07_ablations.html" in page and "08_catastrophic_failures.html" not in page
