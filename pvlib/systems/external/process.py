"""A worker process in another interpreter: lines of JSON over pipes, time limits, an end that leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from pvlib.config import Externals
from pvlib.systems.external.environment import ExternalError

LAST_LINES = 6  # of a worker's standard error, repeated when it fails


class Worker:
    """A process that answers requests one by one, and a temporary folder that it shares with us.

    It starts here and is ended by `close`, when nobody holds this object any more, or when this process ends. Raises
    ExternalError where it cannot be started.
    """

    def __init__(self, name: str, command: Sequence[str], variables: Mapping[str, str], limits: Externals):
        self.name, self.limits = name, limits
        folder = tempfile.TemporaryDirectory(prefix=f"pvlib-{name}-")
        self.folder = Path(folder.name)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=self.folder,
                env=dict(variables),
                start_new_session=True,  # a group of its own, which can be ended as a whole
            )
        except OSError as error:
            folder.cleanup()
            raise ExternalError(f"{name}: cannot start {command[0]} ({error})") from error
        self.close = weakref.finalize(self, _end, self.process, folder, limits.stop_seconds)
        self._heard: Queue[str] = Queue()
        self._said: deque[str] = deque(maxlen=LAST_LINES)
        # these hold the pipes and not this object, or it would never be let go
        self._listeners = [
            threading.Thread(target=_listen, args=(stream, keep, end), daemon=True)
            for stream, keep, end in (
                (self.process.stdout, self._heard.put, ""),
                (self.process.stderr, self._said.append, None),
            )
        ]
        for listener in self._listeners:
            listener.start()

    def ready(self) -> dict[str, Any]:
        """What it says when it has loaded its models. Raises ExternalError as `ask`."""
        return self._answer(self.limits.start_seconds, "while it loaded its models")

    def ask(self, request: Mapping[str, Any], about: str) -> dict[str, Any]:
        """The answer to a request. about: what is asked for, for messages.

        Raises ExternalError when the process is dead, is silent for longer than the limit (it is then ended), or says
        what is no answer.
        """
        doing = f"while it said {about}"
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._dead(doing) from error
        return self._answer(self.limits.request_seconds, doing)

    def _answer(self, seconds: float, doing: str) -> dict[str, Any]:
        try:
            line = self._heard.get(timeout=seconds)
        except Empty:
            self.close()
            raise ExternalError(
                f"{self.name}: its worker gave no answer within {seconds:g} s {doing}, and was ended"
                f"{self._last_words()}; finished rows are kept"
            ) from None
        if not line:
            raise self._dead(doing)
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError) as error:
            self.close()
            raise ExternalError(f"{self.name}: its worker said {line[:80]!r} {doing}, no answer") from error

    def _dead(self, doing: str) -> ExternalError:
        self.close()
        status = self.process.returncode
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        return ExternalError(
            f"{self.name}: its worker ended with {how} {doing}{self._last_words()}; finished rows are kept"
        )

    def _last_words(self) -> str:
        self._listeners[1].join(self.limits.stop_seconds)
        said = " | ".join(line.strip() for line in self._said if line.strip())
        return f" (its last words: {said})" if said else ""


def _listen(stream: Iterable[str], keep: Callable[[str], None], end: str | None) -> None:
    with contextlib.suppress(ValueError, OSError):  # the stream is closed while we wait for it
        for line in stream:
            keep(line)
    if end is not None:
        keep(end)


def _end(process: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str], seconds: float) -> None:
    """Close the worker's input, upon which it ends; kill it and what it started when it does not."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(OSError):  # nobody is left
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    folder.cleanup()
