"""A study shared by several processes: the rows of one, nothing lost when one is killed, nobody left waiting."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist

from pvlib import audio, cli, config, paths
from pvlib.metrics.judges import Verdict
from pvlib.study import evaluate as study
from pvlib.study import launch, ranks
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.ranks import Ranks, RanksError
from pvlib.systems.base import Result

PROFILE = replace(config.MINI, manifest="tiny-test", samples=20, default_samples=8)
TIMING = ["synthesis_seconds"]


class Hum:
    """A system whose sound depends on all that is in its batch, so that other batches give other rows."""

    batch_size = 3

    def __init__(self, name="hum", version=1, pause=0.0, fails_at=None, killed_at=None):
        self.name, self.version, self.pause = name, version, pause
        self.fails_at, self.killed_at, self.batches, self.made = fails_at, killed_at, 0, []

    def fingerprint(self):
        return {"version": self.version, "weights": {}}

    def synthesise(self, requests, progress=None):
        self.batches += 1
        if self.batches == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.batches == self.fails_at:
            raise row_files.RowsError("the disk is full")
        time.sleep(self.pause)
        self.made += [request.utterance for request in requests]
        together = sum(request.seed for request in requests)
        return [Result(sound(100 + request.seed + together), "", time.perf_counter()) for request in requests]


class Ears:
    """Judges without a model: every number is a function of the sound."""

    def fingerprint(self):
        return {"version": 1}

    def judge(self, exhibits):
        verdicts = []
        for exhibit in exhibits:
            number = int(hashlib.sha256(exhibit.wave.tobytes()).hexdigest(), 16) % 10**6 / 10**6
            verdicts.append(Verdict(exhibit.text, *[number] * 7))
        return verdicts


def sound(hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(24_000) / 24_000)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty utterances of unlike length; working rows go to a folder of the test."""
    audio.write(tmp_path / "clip.flac", sound(200))
    texts = [" ".join(["river"] * (1 + 7 * k % 20)) + "." for k in range(20)]
    table = pd.DataFrame({"utterance": [f"u{k:02d}" for k in range(20)], "text": texts, "seed": range(20)})
    words = table["text"].str.split().str.len()
    table = table.assign(
        speaker="s", words=words, bucket=words.map(manifests.bucket_of), audio="", clip="clip.flac"
    )
    table.to_pickle(tmp_path / "table.pkl")
    monkeypatch.setattr(paths, "WORKING_ROWS", tmp_path / "rows")
    return tmp_path


def evaluate(folder: Path, systems, samples: int, shared: Ranks | None = None) -> pd.DataFrame:
    manifest = manifests.Manifest("tiny", pd.read_pickle(folder / "table.pkl"), folder)
    return study.evaluate(
        PROFILE, systems, samples, manifest=manifest, judges=Ears(), progress=False, ranks=shared
    )


def alone(folder: Path, *systems: Hum, samples: int = 20) -> pd.DataFrame:
    return evaluate(folder, systems, samples)


def _process(folder, rank, size, port, samples, systems, rows, silence):
    """One rank, in a process of its own. Leaves rows-RANK.pkl and made-RANK.json, or error-RANK."""
    place = {
        "RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": rank,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    paths.WORKING_ROWS, ranks.SILENCE_SECONDS, ranks.BEAT_SECONDS = rows, silence, 0.2
    made = [Hum(**options) for options in systems]
    try:
        with ranks.join() as shared:
            table = evaluate(folder, made, samples, shared)
    except RanksError as error:
        (folder / f"error-{rank}").write_text(str(error), encoding="utf-8")
        sys.exit(2)
    table.to_pickle(folder / f"rows-{rank}.pkl")
    (folder / f"made-{rank}.json").write_text(json.dumps([system.made for system in made]), encoding="utf-8")


def together(folder: Path, *systems: list[dict], samples=20, rows=None, silence=60.0) -> list[int]:
    """Run one process for each list of systems, and return their exit statuses."""
    own = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(own)
    context.set_forkserver_preload(["pytest", "pvlib.study.launch"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = rows or [paths.WORKING_ROWS] * len(systems)
    processes = [
        context.Process(
            target=_process, args=(folder, rank, len(systems), port, samples, own, places[rank], silence)
        )
        for rank, own in enumerate(systems)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def rows_of(folder: Path, rank: int) -> pd.DataFrame:
    return pd.read_pickle(folder / f"rows-{rank}.pkl")


def made_by(folder: Path, rank: int) -> list[list[str]]:
    return json.loads((folder / f"made-{rank}.json").read_text(encoding="utf-8"))


def error_of(folder: Path, rank: int) -> str:
    return (folder / f"error-{rank}").read_text(encoding="utf-8")


def assert_same_rows(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found.drop(columns=TIMING), wanted.drop(columns=TIMING), check_exact=True)


# Several processes


def test_two_ranks_give_the_rows_of_one_process(folder, monkeypatch):
    names = ("hum", "drone")
    systems = [{"name": name, "pause": 0.1} for name in names]
    assert together(folder, systems, systems) == [0, 0]
    shares = [sum(made_by(folder, rank), []) for rank in (0, 1)]
    assert all(shares) and sorted(shares[0] + shares[1]) == sorted(2 * [f"u{k:02d}" for k in range(20)])
    stored = list(paths.WORKING_ROWS.rglob("*.csv"))
    assert sorted(path.parent.name for path in stored) == ["drone", "hum"]  # merged, and no part is left
    manifest = manifests.Manifest("tiny", pd.read_pickle(folder / "table.pkl"), folder)
    for path in stored:
        assert list(row_files.read_csv(path)["utterance"]) == list(manifest.sample(20)["utterance"])
    assert not list(paths.WORKING_ROWS.glob(".*"))

    found = alone(folder, *(Hum(name) for name in names))  # finds every row
    monkeypatch.setattr(paths, "WORKING_ROWS", folder / "other")
    wanted = alone(folder, *(Hum(name) for name in names))
    for rows in (found, rows_of(folder, 0), rows_of(folder, 1)):
        assert_same_rows(rows, wanted)


def test_a_killed_rank_costs_its_batch_and_the_next_launch_goes_on(folder, monkeypatch):
    killed = {"killed_at": 2, "pause": 0.1}
    assert together(folder, [{"pause": 0.5}], [killed], silence=5.0) == [2, -signal.SIGKILL]
    assert "rank 0 of 2" in error_of(folder, 0) and "go on" in error_of(folder, 0)
    (part,) = paths.WORKING_ROWS.rglob("*rank1.csv")
    assert len(row_files.read_csv(part)) in (2, 3)  # the batch before the one that it was killed in
    finished = {
        utterance
        for path in paths.WORKING_ROWS.rglob("*.csv")
        for utterance in row_files.read_csv(path)["utterance"]
    }
    assert 2 <= len(finished) <= 18
    shutil.copytree(paths.WORKING_ROWS, folder / "copy")

    assert together(folder, [{}], [{}]) == [0, 0]
    again = made_by(folder, 0)[0] + made_by(folder, 1)[0]
    assert len(again) == 20 - len(finished) and not finished & set(again)

    monkeypatch.setattr(paths, "WORKING_ROWS", folder / "other")
    wanted = alone(folder, Hum())
    assert_same_rows(rows_of(folder, 0), wanted)
    monkeypatch.setattr(paths, "WORKING_ROWS", folder / "copy")
    single = Hum()
    assert_same_rows(alone(folder, single), wanted)  # one process goes on just as well
    assert sorted(single.made) == sorted(again) and len(list(paths.WORKING_ROWS.rglob("*.csv"))) == 1


def test_an_error_on_one_rank_ends_all_with_that_error(folder):
    begun = time.monotonic()
    assert together(folder, [{"pause": 0.3}], [{"fails_at": 2}]) == [2, 2]
    assert time.monotonic() - begun < 60  # told, not found out by silence
    host = socket.gethostname()
    assert error_of(folder, 1) == f"rank 1 of 2 ({host}): the disk is full"
    assert error_of(folder, 0) == (
        f"rank 0 of 2 ({host}) stops, because of rank 1 of 2 ({host}): RowsError: the disk is full"
    )


def test_there_may_be_more_ranks_than_utterances(folder, monkeypatch):
    assert together(folder, [{}], [{}], [{}], samples=2) == [0, 0, 0]
    assert sum(len(made_by(folder, rank)[0]) for rank in range(3)) == 2
    monkeypatch.setattr(paths, "WORKING_ROWS", folder / "other")
    wanted = alone(folder, Hum(), samples=2)
    for rank in range(3):
        assert_same_rows(rows_of(folder, rank), wanted)


def test_ranks_that_differ_or_share_no_folder_do_not_start(folder):
    assert together(folder, [{}], [{"version": 2}]) == [2, 2]
    assert "rank 1 of 2" in error_of(folder, 0) and "other version of hum" in error_of(folder, 0)
    assert together(folder, [{}], [{}], rows=[folder / "here", folder / "there"]) == [2, 2]
    for rank in (0, 1):
        assert "rank 1 of 2" in error_of(folder, rank) and "PVLIB_BUILD" in error_of(folder, rank)
    assert not [path for path in folder.rglob("*.csv") if len(row_files.read_csv(path))]


# The same class in one process, over a store in memory


@pytest.fixture
def pair():
    store = dist.HashStore()
    two = [Ranks(rank, 2, rank, f"rank {rank} of 2", store) for rank in (0, 1)]
    yield two
    for one in two:
        one._leaving.set()


def test_every_item_is_taken_once_and_the_free_rank_takes_it(pair):
    slow, fast = pair
    items = list(range(10))
    taken = slow.take(items, "q")
    assert next(taken) == 0
    assert list(fast.take(items, "q")) == list(range(1, 10))
    assert list(taken) == []
    assert list(slow.take(items, "another")) == items
    assert (slow.count("q", 3), fast.count("q", 2), slow.count("q")) == (3, 5, 5)


def test_a_rank_waits_for_the_others(pair):
    ticks = []
    other = threading.Timer(0.6, pair[1].wait, ("q", lambda: None))
    other.start()
    pair[0].wait("q", lambda: ticks.append(1))
    other.join()
    assert len(ticks) >= 2


def test_the_first_error_is_told_to_all(pair):
    pair[1].tell(ValueError("a defect\nin two lines"))
    pair[0].tell(ValueError("what followed from it"))
    for call in (
        pair[0].check,
        lambda: next(pair[0].take([1], "q")),
        lambda: pair[0].wait("q", lambda: None),
    ):
        with pytest.raises(
            RanksError, match=r"rank 0 of 2 stops.*rank 1 of 2: ValueError: a defect in two lines"
        ):
            call()


def test_a_silent_rank_is_missed(pair, monkeypatch):
    monkeypatch.setattr(ranks, "SILENCE_SECONDS", 0.5)
    pair[1]._leaving.set()  # as if it were gone, without a word
    pair[1]._heart.join()
    pair[0].check()
    with pytest.raises(RanksError, match="nothing was heard of rank 1"):
        pair[0].wait("q", lambda: None)


@pytest.mark.parametrize(("local", "gpus", "index"), [(0, 1, 0), (3, 4, 3), (3, 2, 1), (5, 1, 0)])
def test_a_rank_takes_the_gpu_of_its_place_on_the_host(monkeypatch, local, gpus, index):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    one = Ranks(9, 16, local, "rank 9 of 16", dist.HashStore())
    one._leaving.set()
    assert one.device == torch.device("cuda", index) and chosen == [one.device]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"LOCAL_RANK": ""}, "no LOCAL_RANK"),
        ({"MASTER_PORT": "", "MASTER_ADDR": ""}, "no MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "one"}, "no number"),
        ({"RANK": "2"}, "do not fit"),
    ],
)
def test_wrong_environment_variables_are_named(monkeypatch, place, told):
    usual = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    for name, value in (usual | place).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RanksError, match=told), ranks.join():
        pass


# The command line


def test_only_evaluate_is_shared_and_only_one_launcher_at_a_time(monkeypatch, capsys):
    assert not cli._launched()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not cli._launched()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["reproduce"]) == 2 and "--jobs" in capsys.readouterr().err
    assert cli.main(["evaluate", "--jobs", "2"]) == 2 and "leave it out" in capsys.readouterr().err


def test_jobs_share_the_cores(monkeypatch):
    monkeypatch.setattr(launch, "cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for jobs, threads in ((1, "7"), (2, "3"), (16, "1")):
        with launch._prepared(jobs):
            assert os.environ["OMP_NUM_THREADS"] == threads
        assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with launch._prepared(2):
        assert os.environ["OMP_NUM_THREADS"] == "5"
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.slow
def test_jobs_give_the_rows_of_one_process_and_of_real_judges(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PVLIB_BUILD", str(tmp_path / "two"))
    command = ["evaluate", "--system", "ground-truth", "--samples", "10", "--jobs", "2", "--json"]
    assert cli.main(command) == 0
    shown = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (path,) = (tmp_path / "two").rglob("*.csv")

    monkeypatch.setattr(paths, "WORKING_ROWS", tmp_path / "one")
    torch.set_num_threads(1)
    wanted = study.evaluate("mini", ["ground-truth"], 10, progress=False)
    assert [row["utterance"] for row in shown] == list(wanted["utterance"])
    assert_same_rows(row_files.read_csv(path).drop(columns="key"), wanted)


@pytest.mark.slow
def test_a_failed_job_ends_the_command_with_one_line_of_its_own(tmp_path, monkeypatch, capfd):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("PVLIB_BUILD", str(blocked))
    assert cli.main(["evaluate", "--system", "ground-truth", "--samples", "2", "--jobs", "2"]) == 2
    told = capfd.readouterr()
    assert told.out == "" and "Traceback" not in told.err
    lines = [line for line in told.err.splitlines() if line.startswith("pvlib: error: ")]
    assert any("rank 0 of 2" in line and "cannot write" in line for line in lines[:-1])
    assert "ended with status 2" in lines[-1]


@pytest.mark.parametrize(
    "cores, threads, expected", [(2, None, 2), (2, "1", 2), (2, "2", 1), (8, "4", 2), (1, None, 1)]
)
def test_two_processes_are_usual_where_their_threads_have_cores(monkeypatch, cores, threads, expected):
    monkeypatch.setattr(launch, "cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert launch.usual_jobs(config.MINI) == expected
    assert launch.usual_jobs(config.PAPER) == 1
