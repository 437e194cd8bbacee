"""A large file from the network: resumed where it broke off, checked, and under its name only when it is whole."""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock
from tqdm.auto import tqdm

from pvlib.hub import sha256 as sha256_of

ATTEMPTS = 5  # in a row without a byte received
TIMEOUT = 30.0  # seconds of silence
BLOCK = 1 << 20
PASSING = (408, 429, 500, 502, 503, 504)  # answers of a server that may answer otherwise in a moment
PAUSE = 1.0  # seconds before the first new attempt, twice as long before each one after it


class FetchError(RuntimeError):
    """A file that cannot be had; the message names it and what to do."""


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str = "",
    size: int = 0,
    headers: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
) -> Path:
    """Download `url` to `path`, unless it is there and whole.

    sha256: what the file must hash to; size: its bytes; "" and 0 where they are not known. What has arrived lies in
    `<path>.part` and is kept when the connection breaks or the process is killed: the next call asks for the rest only
    (HTTP Range). Of several processes one fetches, and the others wait. Returns the path.
    Raises FetchError on no network, a refusal, too little space, another size, or a wrong checksum (the part is then
    deleted, since resuming could not mend it).
    """
    if path.is_file() and not damage(path, sha256, size):
        return path
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.is_file() and not damage(path, sha256, size):
                return path  # another process was first
            check_space((path.parent, size - arrived(path)))
            _download(url, part, size, dict(headers or {}), attempts)
            if wrong := damage(part, sha256, size):
                part.unlink()
                raise FetchError(f"{_plain(url)} {wrong}; nothing was kept: run the command again")
            os.replace(part, path)
    except OSError as error:
        raise FetchError(
            f"cannot write {path} ({error.strerror or error}); check that the folder is writable and has space, "
            "then run the command again"
        ) from error
    return path


def arrived(path: Path) -> int:
    """How many bytes of a file that is being fetched to `path` lie here already."""
    return _bytes(_part(path))


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def damage(path: Path, sha256: str = "", size: int = 0) -> str:
    """What is wrong with a file whose hash or size is known: a few words, or "" for nothing."""
    if size and (found := path.stat().st_size) != size:
        return f"has {found:,} bytes instead of {size:,}"
    if sha256 and sha256_of(path) != sha256:
        return "does not match its SHA-256"
    return ""


def check_space(*needs: tuple[Path, int]) -> None:
    """Raises FetchError when a disk has less free than the folders on it, which need not exist yet, are to take.

    needs: folders and the bytes that will go into each.
    """
    disks: dict[int, list[tuple[Path, int]]] = {}
    for folder, needed in needs:
        folder = folder.absolute()
        while not folder.exists():
            folder = folder.parent
        disks.setdefault(folder.stat().st_dev, []).append((folder, needed))
    for own in disks.values():
        needed, free = sum(size for _, size in own), shutil.disk_usage(own[0][0]).free
        if needed > free:
            places = " and ".join(dict.fromkeys(str(folder) for folder, _ in own))
            raise FetchError(
                f"{needed / 1e9:.2f} GB are needed in {places} and {free / 1e9:.2f} GB are free; "
                "make room, or point HF_HOME (models), TORCH_HOME (UTMOS) or PVLIB_BUILD (data) at another disk"
            )


def _download(url: str, part: Path, size: int, headers: dict[str, str], attempts: int) -> None:
    """Append to `part` until it is whole. Raises FetchError, and OSError where it cannot be written."""
    left, most = attempts, 0
    with tqdm(total=size or None, desc=part.stem, unit="B", unit_scale=True, mininterval=1) as bar:
        while True:
            have = _bytes(part)
            if size and have >= size:
                return
            try:
                reply = _open(url, have, headers)
            except (OSError, HTTPException) as error:  # URLError, timeouts and refusals are OSErrors
                code = getattr(error, "code", None)
                if have and code == 416:  # there is nothing beyond what is here
                    return
                left -= 1
                if (code is not None and code not in PASSING) or left <= 0:
                    raise FetchError(_unreachable(url, error, have)) from error
                if code is not None:
                    time.sleep(PAUSE * 2 ** (attempts - left - 1))
                continue
            with reply:
                have = have if reply.status == 206 else 0  # a server without Range starts again
                length = reply.headers["Content-Length"]
                whole = have + int(length) if length else 0
                if size and whole and whole != size:
                    raise FetchError(
                        f"{_plain(url)} now has {whole:,} bytes instead of {size:,}: it has changed at its source; "
                        "look there for the file of this release"
                    )
                bar.n = have
                received, error = _pour(reply, part, "ab" if have else "wb", bar)
            have += received
            if error is None and have >= whole:
                return
            left, most = (attempts if have > most else left - 1), max(most, have)
            if left <= 0:
                raise FetchError(_unreachable(url, error, have)) from error


def _open(url: str, have: int, headers: dict[str, str]) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "pvlib", **headers})
    if have:
        request.add_header("Range", f"bytes={have}-")
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _pour(reply: HTTPResponse, part: Path, mode: str, bar: tqdm) -> tuple[int, Exception | None]:
    """Bytes written, and what ended the reply early (a connection that is closed early just ends)."""
    received = 0
    with open(part, mode) as file:
        while True:
            try:
                block = reply.read(BLOCK)
            except (HTTPException, OSError) as error:  # of the connection: what is written is written below
                return received, error
            if not block:
                return received, None
            file.write(block)
            received += len(block)
            bar.update(len(block))


def _unreachable(url: str, error: Exception | None, have: int) -> str:
    kept = f"; {have:,} bytes are kept, and the same command goes on from there" if have else ""
    code = getattr(error, "code", None)
    if code in PASSING:
        return (
            f"{_plain(url)} answers {code}: its server is busy or broken; run the command again later{kept}"
        )
    if code:
        return f"{_plain(url)} answers {code}: moved, or not public; look for it at its source{kept}"
    reason = getattr(error, "reason", None) or error or "the connection broke off"
    return f"{_plain(url)} could not be fetched ({reason}); check the network and run the command again{kept}"


def _plain(url: str) -> str:
    """Without the signature, which is long and private."""
    return url.partition("?")[0]
