"""A `pvlib` command in several processes of this machine, started as torchrun starts them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from pvlib.config import Profile
from pvlib.study.provenance import cores
from pvlib.study.ranks import RanksError


def usual_jobs(profile: Profile) -> int:
    """How many processes serve best here: two on a CPU of two or more cores, a thread more saving little; else one.

    One also where OMP_NUM_THREADS asks for more threads than each of two would have: they would wait for one another;
    and where the models are the official ones, all of which each process would hold.
    """
    import torch

    asked = os.environ.get("OMP_NUM_THREADS", "")
    crowded = asked.isdigit() and 2 * int(asked) > cores()
    alone = crowded or not profile.embedded or torch.cuda.is_available()
    return 2 if cores() > 1 and not alone else 1


def launch(jobs: int, arguments: Sequence[str], *, quiet: bool = False) -> None:
    """Run `pvlib ARGUMENTS` in `jobs` processes that share its work, through torch's elastic launcher.

    Each gets cores // jobs threads, at least one, unless OMP_NUM_THREADS is set. What they print is theirs; quiet:
    nothing on stdout. Raises RanksError when one fails (the others are then ended), KeyboardInterrupt when
    interrupted.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="pvlib-jobs-") as folder, _prepared(jobs):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=jobs,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.OUT if quiet else Std.NONE),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "pvlib", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode < 0:
                how = f"was ended by {failure.signal_name()}"
            else:
                how = f"ended with status {failure.exitcode}; its own message stands above"
            raise RanksError(
                f"rank {rank} of {jobs} {how}. Finished rows are kept, run the command again to go on"
            ) from error
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            raise RanksError(f"ended by {error.sigval.name}; finished rows are kept") from error


def evaluate(
    jobs: int,
    profile: str,
    names: Iterable[str],
    samples: int | None = None,
    *,
    manifest: str = "",
    seeds: int = 1,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """`pvlib evaluate` in `jobs` processes. Raises as `launch`."""
    arguments = ["evaluate", "--profile", profile, "--system", *names]
    arguments += [] if samples is None else ["--samples", str(samples)]
    arguments += ["--manifest", manifest] if manifest else []
    arguments += ["--seeds", str(seeds)] if seeds > 1 else []
    arguments += ["--json"] if as_json else []
    launch(jobs, arguments, quiet=quiet)


def rows(jobs: int, profile: str, samples: int, notebooks: Iterable[str]) -> None:
    """All rows that notebooks read, in `jobs` processes that start once for all of them. Raises as `launch`."""
    arguments = ["evaluate", "--profile", profile, "--samples", str(samples), "--notebooks", *notebooks]
    launch(jobs, arguments, quiet=True)


@contextmanager
def _prepared(jobs: int) -> Iterator[None]:
    """Threads shared out; the launcher's own log is silent."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with shared_threads(jobs):
            yield
    finally:
        logging.disable(level)


@contextmanager
def shared_threads(jobs: int) -> Iterator[None]:
    """Processes that start inside get cores // jobs threads each, unless OMP_NUM_THREADS is set."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
