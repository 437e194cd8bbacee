"""The studio behind HTTP: the seed's six endpoints and the page, on loopback unless asked otherwise.

What a client sends is bounded before it is read, answered in JSON, and never kept: an upload lives in a temporary
folder until its answer is made. An error is `{"error": one line}`. From a browser only the page itself may call: a
request of another site is refused, and one under a name that is not this machine's, which somebody else may have made
lead here.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from pvlib import __version__
from pvlib.audio import AudioError
from pvlib.config import ConfigError
from pvlib.dashboard import studio as work
from pvlib.dashboard.studio import Busy, Order, Studio
from pvlib.hub import WeightsError
from pvlib.persona import PersonaError
from pvlib.text import TextError
from pvlib.voice import SynthesisError

PAGE = Path(__file__).parent / "page"
MAX_BYTES = 32_000_000  # of one request: ten minutes of speech at 24 kHz are 29 MB
WAV = "audio/wav"
STATUS: dict[type[Exception], int] = {
    AudioError: 422,
    TextError: 422,
    PersonaError: 422,
    ConfigError: 422,
    SynthesisError: 500,
    WeightsError: 503,
    Busy: 503,
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ServerError(OSError):
    """The server cannot start; the message says why and what to do."""


class CloneForm(BaseModel):
    """What `/api/clone` takes, as a form."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field("", description="what to say; needed")
    reference: UploadFile | None = Field(
        None, description="the recording: wav, flac, ogg or mp3; left out, the demo sample speaks"
    )
    reference_text: str = Field("", description="what the recording says; empty: the recogniser listens")
    seed: int = Field(0, ge=0, lt=2**32)
    chat: str = Field("", description="messages of the person who speaks, one per line")
    traits: str = Field("", description='JSON, such as {"openness": 0.5}; goes before the chat')
    emotion: str = Field("", description="neutral, happy, sad or angry")
    emotion_strength: float | None = Field(None, description="0 to 1, left out 1")
    gate: str = Field("", description="FiLM: auto, always or off")
    env_weight: float | None = Field(None, description="0 the studio, 1 the recording's microphone")
    settings: str = Field("", description='JSON, such as {"steps": 16}: the paper\'s parameter table')


class Chat(BaseModel):
    """What `/api/persona/analyze` takes."""

    model_config = ConfigDict(extra="forbid")

    chat: str | list[str] = Field(description="messages of one person, in order")
    recalls: dict[str, float] = Field(
        {}, description="trait: -1 to 1, what somebody says who knows the person"
    )


class Correction(BaseModel):
    """What `/api/persona/calibrate` takes."""

    model_config = ConfigDict(extra="forbid")

    traits: dict[str, float] = Field(description="all five traits, each -1 to 1")
    feedback: str = Field(
        description="such as 'more cheerful' or 'a bit less nervous', in English or Chinese"
    )


def make(studio: Studio, host: str = "127.0.0.1") -> FastAPI:
    """The application. host: what it listens on; beyond loopback it answers to addresses and to this machine's name."""
    app = FastAPI(
        title="PersonaVoice companion",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # the usual ones take their scripts from elsewhere
        redoc_url=None,
    )
    names = {"localhost"} if is_loopback(host) else {"localhost", host.lower(), socket.gethostname().lower()}
    for kind in (*STATUS, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _failed)

    @app.middleware("http")
    async def guarded(request: Request, answer: Callable[[Request], Any]) -> Response:
        """Refuse, unread, what is too large or from elsewhere; add headers to every answer."""
        refusal = _refusal(request, names)
        response = JSONResponse({"error": refusal[1]}, refusal[0]) if refusal else await answer(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/api/health")
    def health() -> dict[str, Any]:
        """Whether the server is well: version, device, weights."""
        return studio.health()

    @app.get("/api/architecture")
    def architecture() -> dict[str, Any]:
        """The module graph of the loaded pipeline with counted sizes, and the inference table."""
        return studio.architecture()

    @app.get("/api/demo/sample")
    def sample(request: Request) -> Response:
        """The bundled one-second clip and its texts; with `Accept: audio/wav` the sound alone."""
        if WAV in request.headers.get("accept", ""):
            return Response(work.DEMO.read_bytes(), media_type=WAV)
        return JSONResponse(studio.demo())

    @app.post("/api/clone")
    def clone(
        request: Request, form: Annotated[CloneForm, Form(media_type="multipart/form-data")]
    ) -> Response:
        """Say a text in the voice of a recording; with `Accept: audio/wav` the sound alone."""
        with tempfile.TemporaryDirectory(prefix="pvlib-") as folder:
            take = studio.clone(_order(form, Path(folder)))
        if WAV in request.headers.get("accept", ""):
            return Response(work.wav(take.wave), media_type=WAV)
        return JSONResponse(take.facts | {"audio": work.encoded(take.wave)})

    @app.post("/api/persona/analyze")
    def analyze(chat: Chat) -> dict[str, Any]:
        """Big Five traits and embeddings that a chat shows."""
        return studio.read(chat.chat, chat.recalls)

    @app.post("/api/persona/calibrate")
    def calibrate(correction: Correction) -> dict[str, Any]:
        """Traits after feedback in plain words."""
        return studio.calibrate(correction.traits, correction.feedback)

    for file in PAGE.iterdir():
        path = "/" if file.name == "index.html" else f"/{file.name}"
        app.get(path, include_in_schema=False)(_handed_out(file))
    return app


def _handed_out(file: Path) -> Callable[[], FileResponse]:
    def answer() -> FileResponse:
        return FileResponse(file)

    return answer


def _order(form: CloneForm, folder: Path) -> Order:
    """The form as an order, its upload written into `folder`."""
    settings = _json("settings", form.settings)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    for field, name, value in (
        ("gate", "film_gate", form.gate or None),
        ("env_weight", "env_weight", form.env_weight),
    ):
        if value is not None and name in settings:
            raise ConfigError(f"{field} and settings both give {name}; leave one out")
        settings |= {} if value is None else {name: value}
    source: dict[str, Any] = {}
    if form.reference is not None:
        path = folder / "upload"  # the sender's name for it names no file here
        path.write_bytes(form.reference.file.read())
        source = {"recording": path, "name": _shown(form.reference.filename or "the upload")}
    return Order(
        form.text,
        seed=form.seed,
        reference_text=form.reference_text.strip() or None,
        chat=form.chat.splitlines() if form.chat.strip() else None,
        traits=_json("traits", form.traits) or None,
        emotion=form.emotion or None,
        strength=form.emotion_strength,
        settings=settings,
        **source,
    )


def _shown(name: str) -> str:
    """A sender's file name as messages may show it: its last part, printable, of moderate length."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-60:] or "the upload"


def _json(field: str, text: str) -> dict[str, Any]:
    """A field that holds a JSON object; {} of an empty one. Raises ConfigError."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'{field}: write a JSON object of names and values, such as {{"name": 0.5}}')
    return found


# Bounds, and errors in one line


def _refusal(request: Request, names: set[str]) -> tuple[int, str] | None:
    """Status and words of a refusal; None where there is none."""
    headers = request.headers
    host, site = headers.get("host", ""), headers.get("sec-fetch-site", "none")
    if not _is_own(host, names):
        port = (request.scope.get("server") or ("", 80))[1]
        return 400, f"{_shown(host)} is not this server's name; open http://127.0.0.1:{port}"
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in ("same-origin", "none") and not (request.method == "GET" and link):
        return 403, "another site's page may not use this server; open its own page"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return 403, f"a page of {_shown(origin)} may not use this server; open its own page"
    if "transfer-encoding" in headers:
        return 411, "send the request in one piece, with its Content-Length"
    if request.method not in ("POST", "PUT", "PATCH"):
        return None
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return 411, "say how long the request is: a Content-Length is needed"
    if int(length) > MAX_BYTES:
        return 413, (
            f"the request has {int(length) / 1e6:,.0f} MB, at most {MAX_BYTES / 1e6:.0f} are read; "
            "one second of speech is enough"
        )
    return None


def _is_own(host: str, names: set[str]) -> bool:
    """Whether a Host header names this server: a name of its own, or an address, which nobody can redirect."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return address.is_loopback or len(names) > 1


def is_loopback(host: str) -> bool:
    """Whether what listens on this host can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _failed(request: Request, error: Exception) -> JSONResponse:
    """The status and the line of an error. One that nobody foresaw is told to the log, not to the client."""
    status, words = _told(request, error)
    headers = HEADERS | ({"Retry-After": "30"} if isinstance(error, Busy) else {})
    plain = " ".join(words.split()).encode("utf-8", "replace").decode()  # half a character has no UTF-8
    return JSONResponse({"error": plain}, status, headers)


def _told(request: Request, error: Exception) -> tuple[int, str]:
    if any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in (error, error.__cause__)):
        return (
            507,
            f"no space left in {tempfile.gettempdir()}, where the server keeps a sound while it works on it",
        )
    for kind, status in STATUS.items():
        if isinstance(error, kind):
            return status, str(error)
    if isinstance(error, RequestValidationError):
        return 422, _invalid(error)
    if isinstance(error, HTTPException):
        return error.status_code, f"{request.url.path}: {error.detail}"
    return 500, "an error that nobody foresaw; the server's log has it"


def _invalid(error: RequestValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"the request is no JSON: {first['msg']}"
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return f"{_shown(where)}: {first['msg']}"


# On a socket


def listen(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ServerError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ServerError(f"cannot listen on {host}, port {port}: {reason}; choose another --port") from error


def address(listening: socket.socket) -> str:
    """Where a browser finds the page of a listening socket."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until interrupted."""
    uvicorn.Server(_config(app)).run(sockets=[listening])


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=1)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """A server on a free port of loopback, in a thread that ends with the block; yields its address."""
    listening = listen(port=0)
    server = uvicorn.Server(_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
