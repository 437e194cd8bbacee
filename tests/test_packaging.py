"""The shell holds together: dependencies, pins, conda route, make, citation, README, and the floors of the house."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "pvlib").rglob("*.py"))
ELSEWHERE = ROOT / "pvlib" / "systems" / "external" / "worker.py"  # runs in the environments of other systems


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    """Everything the two pip lines of the README install by name."""
    project = PYPROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [
        Requirement(r)
        for r in project["dependencies"] + extras + PYPROJECT["tool"]["pvlib"]["without-dependencies"]
    ]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line)
            assert match, f"constraints.txt: {line!r} is not an exact pin"
            assert canonical(match[1]) not in found, f"constraints.txt pins {match[1]} twice"
            found[canonical(match[1])] = Version(match[2])
    return found


def test_every_requirement_is_pinned_within_its_bounds():
    pinned = pins()
    for requirement in requirements():
        name = canonical(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{name} {pinned[name]} is outside {requirement}"


def test_the_pins_of_torch_and_torchaudio_belong_together():
    pinned = pins()
    assert pinned["torch"].release[:2] == pinned["torchaudio"].release[:2]
    assert pinned["setuptools"] < Version("82"), "torch 2.11 refuses later ones"


def test_every_dependency_says_what_it_is_for():
    lines = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.scripts]")[0].splitlines()
    )
    listed = [line for line in lines if re.match(r'^  "[A-Za-z0-9_.=*-]+",', line)]
    assert len(listed) == len(requirements()) - len(PYPROJECT["tool"]["pvlib"]["without-dependencies"])
    assert not [line for line in listed if not re.search(r"#\s+\S+", line)]


def test_the_conda_route_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    options = [line for line in pip if line.startswith("-")]
    assert sorted(line for line in pip if not line.startswith("-")) == sorted(str(r) for r in requirements())
    assert options == ["--constraint constraints.txt", "--editable ."]
    [python] = [line for line in environment["dependencies"] if str(line).startswith("python")]
    assert (
        Version(python.split("=")[1])
        in Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier
    )


def third_party_imports() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in SOURCES:
        if path == ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "pvlib":
                    found.setdefault(top, path)
    return found


def test_everything_that_is_imported_is_declared():
    declared = {canonical(r.name) for r in requirements()}
    providers = metadata.packages_distributions()
    # part of what a declared package cannot work without, and imported together with it
    companions = {
        "nbformat": "papermill",
        "nbclient": "papermill",
        "pygments": "nbconvert",
        "IPython": "ipywidgets",
        "pydantic": "fastapi",
        "starlette": "fastapi",
    }
    for module, path in third_party_imports().items():
        names = {canonical(name) for name in providers.get(module, [])} | {companions.get(module, "")}
        names |= {{"pyworld": "pyworld-prebuilt", "webrtcvad": "webrtcvad-wheels"}.get(module, "")}
        assert names & declared, (
            f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not declare"
        )


# Floors: a module may import from its own floor or from below.
FLOORS = {
    name: floor
    for floor, names in enumerate(
        [
            "config paths audio",
            "oes film laag ceag persona persona_words retired durations alignment convolution attention text",
            "backbone vocoder recognizer speaker text_encoder adapters frontend hub fetch models",
            "persona_chinese",
            "voice wishes dialogue",
            "systems metrics",
            "dashboard",
            "study",
            "cli __main__",
        ]
    )
    for name in names.split()
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def internal_imports(path: Path) -> set[str]:
    """The rooms of pvlib that a file imports, imports inside functions included, those for type checkers not."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(room(alias.name) for alias in child.names if alias.name.startswith("pvlib."))
            elif isinstance(child, ast.ImportFrom) and child.module == "pvlib":
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and (child.module or "").startswith("pvlib."):
                found.add(room(child.module or ""))
            assert not (isinstance(child, ast.ImportFrom) and child.level), (
                f"{path.name}: write absolute imports"
            )
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found - {"", "__version__"}


def test_imports_run_downwards():
    for path in SOURCES:
        own = path.relative_to(ROOT / "pvlib").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for target in internal_imports(path) - {own}:
            where = f"{path.relative_to(ROOT)} imports pvlib.{target}"
            if target in ("world", "training"):
                assert own in ("cli", "study", "world", "training"), where
                assert own != "study" or target == "world", where
                assert own != "world" or target != "training", where
            elif own not in ("world", "training"):
                assert own in FLOORS, f"pvlib/{own} stands on no floor of this test"
                assert FLOORS[target] <= FLOORS[own], f"{where}, which stands above it"


def test_the_cores_are_pure():
    for name in ("oes", "film", "laag", "ceag", "persona", "retired", "durations"):
        path = ROOT / "pvlib" / f"{name}.py"
        if path.exists():
            assert internal_imports(path) <= {"config", "paths", "audio", f"{name}_words"}, name


def test_only_config_and_hub_ask_which_profile_it_is():
    asks = re.compile(r"profile(\.name|_name)?\s*[!=]=\s*[\"']|[\"'](mini|paper)[\"']\s*[!=]=")
    for path in SOURCES:
        if path.name not in ("config.py", "hub.py"):
            assert not asks.search(path.read_text(encoding="utf-8")), path


def test_the_architecture_section_is_true():
    section = README.split("## Architecture")[1].split("\n## ")[0]
    block = section.split("\n\n")[1]
    rooms = re.findall(r"^      (\S+)", block, re.MULTILINE)
    there = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "pvlib").iterdir()
        if not path.name.startswith(("__", "."))
    }
    assert set(rooms) == there


def test_the_readme_names_what_exists():
    for path in re.findall(r"`((?:pvlib|data|tests|notebooks|figures)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path
    assert README.count("<!-- results:begin -->") == README.count("<!-- results:end -->") == 1
    listed = set(re.findall(r"^\| `([A\d]\d_\w+)` \|", README, re.MULTILINE))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_the_two_commands_stand_at_the_top():
    top = README.splitlines()[:10]
    assert [line.split("#")[0].strip() for line in top if line.startswith("    ")] == [
        "make reproduce",
        "make test",
    ]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")
@pytest.mark.parametrize("target", ["reproduce", "test", "lab", "serve", "install", "help", "clean"])
def test_make_knows_its_targets_and_starts_from_nothing(target, tmp_path):
    run = subprocess.run(
        ["make", "--dry-run", target, f"VENV={tmp_path}/none", "SAMPLES=40", "RECORD=1"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    if target in ("reproduce", "test", "lab", "serve", "install"):
        assert "-m venv" in run.stdout and "--no-deps resemblyzer" in run.stdout
    if target == "reproduce":
        assert f"{tmp_path}/none/bin/pvlib reproduce --profile mini --samples 40" in run.stdout.replace(
            "\\\n", ""
        )
        assert "--record" in run.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")
def test_make_says_what_to_do_without_a_python(tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\nexit 1\n')
    old.chmod(0o755)
    run = subprocess.run(
        ["make", "install", f"VENV={tmp_path}/none", f"PYTHON={old}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "Python 3.8.10" in run.stderr and "from 3.11.4 to 3.13" in run.stderr
    assert not (tmp_path / "none").exists()


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run has no run bit"
    assert "set -euo pipefail" in script.read_text() and script.read_text().rstrip().endswith("make test")
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    job = workflow["jobs"]["test"]
    assert {"run": "make test"} in job["steps"]
    for version in job["strategy"]["matrix"]["python"]:
        assert Version(version) >= Version("3.11")


def test_the_citation_names_the_work():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["type"] == "software" and citation["license"] == "MIT"
    from pvlib import __version__

    assert citation["version"] == __version__
    links = " ".join(str(reference) for reference in citation["references"])
    for work in (
        "personavoice/personavoice",
        "1806.04558",
        "1802.08435",
        "1810.11846",
        "2410.06885",
        "2306.00814",
        "2005.07143",
        "2311.12454",
    ):
        assert work in links


def test_the_licence_says_what_it_does_not_cover():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License") and "CC-BY-NC-4.0" in text and "espeak-ng" in text


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_tracked_tree_is_small_and_clean():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]
    assert sum(path.stat().st_size for path in files) < 80e6
    assert not [path for path in files if path.stat().st_size > 20e6]
    unfinished = re.compile("|".join(["TO" + "DO", "FIX" + "ME", r"\bX" + r"XX\b"]))
    machine = re.compile(r"/(home|root|Users)/\w|/wor" + r"k/|files\.pythonhosted|py" + r"pi\.org")
    for path in files:
        if (
            path.suffix in (".py", ".md", ".toml", ".yml", ".cff", ".ipynb", ".json")
            or path.name == "Makefile"
        ):
            for line in path.read_text(encoding="utf-8").splitlines():
                found = unfinished.search(line) or machine.search(line)
                assert len(line) > 5000 or not found, f"{path.relative_to(ROOT)} holds {found[0]!r}"
