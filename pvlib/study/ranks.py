"""The processes that share one study: who takes which batch, who is alive, who failed, who waits for whom.

`torchrun` and `accelerate launch` start the processes ("ranks") on one host or several and tell each its number in
environment variables. All that travels is small: plain values, rows and counters, by gloo and the key-value store of
torch.distributed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT = timedelta(minutes=10)  # for all ranks to come, and for one exchange among ranks that are all there
BEAT_SECONDS = 2.0  # a rank says so often that it lives
SILENCE_SECONDS = 180.0  # and counts as lost after so long without a word
POLL_SECONDS = 0.2


class RanksError(RuntimeError):
    """A rank failed, was lost or differs from the others; the message names it."""


@contextlib.contextmanager
def join() -> Iterator[Ranks]:
    """This process as one of those that the launcher started; within, an error on any rank ends all of them.

    An error of ours that happens within is raised as a RanksError with the rank's name before its message; any other
    keeps its class and gets a note. Raises RanksError when the environment variables of a launcher are missing or
    wrong, or not all ranks come within `TIMEOUT`.
    """
    rank, size, local = _place()
    name = f"rank {rank} of {size} ({socket.gethostname()})"
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RanksError(
            f"{name}: the {size} ranks did not come together within {TIMEOUT.seconds // 60} minutes ({reason}); "
            "start them all with the same MASTER_ADDR and MASTER_PORT, which every host must reach"
        ) from error
    ranks = Ranks(rank, size, local, name, dist.PrefixStore("pvlib", store))
    try:
        yield ranks
    except BaseException as error:
        ranks.tell(error)
        if isinstance(error, RanksError):
            raise  # it has a name already
        if type(error).__module__.startswith("pvlib."):
            raise RanksError(f"{name}: {error}") from error
        error.add_note(f"on {name}")
        raise
    finally:
        ranks.leave()


class Ranks:
    """One of the processes that share a study, and how it talks to the others; made by `join`.

    rank: 0 to size - 1. device: the GPU of this rank, where its host has any, otherwise None.
    """

    def __init__(self, rank: int, size: int, local: int, name: str, store: dist.Store):
        self.rank, self.size, self.name = rank, size, name
        self.first = rank == 0
        self.device: torch.device | None = None
        if torch.cuda.is_available():
            self.device = torch.device("cuda", local % torch.cuda.device_count())
            torch.cuda.set_device(self.device)
        self._store = store
        self._beats = {other: (0, time.monotonic()) for other in range(size) if other != rank}
        self._leaving = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def exchange(self, value: Any) -> list[Any]:
        """What every rank gave, by rank; all must call it. Raises RanksError when one is lost."""
        values: list[Any] = [None] * self.size
        self._talk(dist.all_gather_object, values, value)
        return values

    def share(self, value: Any) -> Any:
        """What rank 0 gave; all must call it. Raises RanksError when one is lost."""
        values = [value]
        self._talk(dist.broadcast_object_list, values, src=0)
        return values[0]

    def take(self, items: Sequence[Item], queue: str) -> Iterator[Item]:
        """The items that this rank is to do, of a list that all ranks have: each is given to one of them, in order.

        A rank gets its next item when it asks for it, so that a fast one does more. Raises RanksError as `check`.
        """
        while True:
            self.check()
            index = self._talk(self._store.add, f"{queue}/taken", 1) - 1
            if index >= len(items):
                return
            yield items[index]

    def count(self, queue: str, more: int = 0) -> int:
        """Add to what all ranks finished of a queue, and return it."""
        return self._talk(self._store.add, f"{queue}/done", more)

    def wait(self, queue: str, tick: Callable[[], None]) -> None:
        """Wait until every rank came here; `tick` is called meanwhile. Raises RanksError as `check`."""
        self._talk(self._store.add, f"{queue}/here", 1)
        while self._talk(self._store.add, f"{queue}/here", 0) < self.size:
            self.check()
            tick()
            time.sleep(POLL_SECONDS)
        tick()

    def check(self) -> None:
        """Raises RanksError when a rank told of an error or was not heard of for `SILENCE_SECONDS`."""
        if self._talk(self._store.check, ["error"]):
            message = self._talk(self._store.get, "error").decode()
            raise RanksError(f"{self.name} stops, because of {message}")
        now = time.monotonic()
        for other, (beats, heard) in self._beats.items():
            if (count := self._talk(self._store.add, f"beats/{other}", 0)) != beats:
                self._beats[other] = (count, now)
            elif now - heard > SILENCE_SECONDS:
                raise RanksError(
                    f"{self.name} stops: nothing was heard of rank {other} for {SILENCE_SECONDS:.0f} s, so it was "
                    "killed or its host is gone; finished rows are kept, run the command again to go on"
                )

    def tell(self, error: BaseException) -> None:
        """Let the other ranks know why this one stops; the first such word counts."""
        message = " ".join(f"{self.name}: {type(error).__name__}: {error}".split())
        with contextlib.suppress(RuntimeError):  # nobody is there to be told; the error itself is raised
            self._store.compare_set("error", "", message)

    def leave(self) -> None:
        """End the conversation."""
        self._leaving.set()
        self._heart.join()
        dist.destroy_process_group()

    def _beat(self) -> None:
        try:
            while True:
                self._store.add(f"beats/{self.rank}", 1)
                if self._leaving.wait(BEAT_SECONDS):
                    return
        except RuntimeError:
            return  # the store is gone: the next word of the main thread fails and says so

    def _talk(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except RuntimeError as error:
            message = self._told() or (
                f"the connection to the other ranks broke ({str(error).splitlines()[0]}); one of them was killed or "
                "failed, and finished rows are kept: run the command again to go on"
            )
            raise RanksError(f"{self.name} stops, because of {message}") from error

    def _told(self) -> str:
        try:
            return self._store.get("error").decode() if self._store.check(["error"]) else ""
        except RuntimeError:
            return ""  # the store went with the rank that held it


def _place() -> tuple[int, int, int]:
    """Rank, number of ranks and rank on this host, from the environment."""
    if missing := [name for name in VARIABLES if not os.environ.get(name)]:
        raise RanksError(
            f"the environment has no {', '.join(missing)}; start with `torchrun --nproc-per-node N -m pvlib ...`, "
            "which sets them, or unset RANK and WORLD_SIZE for a single process"
        )
    try:
        rank, size, local, _ = (int(os.environ[name]) for name in VARIABLES if name != "MASTER_ADDR")
    except ValueError as error:
        raise RanksError(
            f"an environment variable of the launcher is no number ({error}); start with torchrun"
        ) from error
    if not 0 <= rank < size or local < 0:
        raise RanksError(
            f"RANK={rank}, WORLD_SIZE={size}, LOCAL_RANK={local} do not fit; start with torchrun"
        )
    return rank, size, local
