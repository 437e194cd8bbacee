"""The dashboard's endpoints, asked on a server on loopback: whether each does what the paper says of it."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from pvlib.config import MINI, TRAITS

TEXT = "the quiet river."
STEPS = 4  # of the sampler: the question is whether it answers, not how well it speaks
CHAT = ["Bring the cousins, bring everyone!", "Forty people so far, and I know them all."]
FEEDBACK = "more outgoing"


@lru_cache(maxsize=1)
def answers() -> dict[str, Any]:
    """What each endpoint of the profile `mini` answers: path -> its JSON, `{"error": words}` where it fails."""
    from pvlib.dashboard import api
    from pvlib.dashboard.studio import Studio

    order = {
        "text": TEXT,
        "chat": "\n".join(CHAT),
        "gate": "always",
        "settings": json.dumps({"steps": STEPS}),
    }
    correction = {"traits": dict.fromkeys(TRAITS, 0.0), "feedback": FEEDBACK}
    bodies = {
        "api/health": None,
        "api/architecture": None,
        "api/demo/sample": None,
        "api/clone": urllib.parse.urlencode(order).encode(),
        "api/persona/analyze": json.dumps({"chat": CHAT}).encode(),
        "api/persona/calibrate": json.dumps(correction).encode(),
    }
    with api.serving(api.make(Studio(MINI.name))) as address:
        return {path: _asked(f"{address}/{path}", body) for path, body in bodies.items()}


def _asked(address: str, body: bytes | None) -> Any:
    kind = "application/json" if body and body.startswith(b"{") else "application/x-www-form-urlencoded"
    request = urllib.request.Request(address, body, {"Content-Type": kind})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the machine's proxy is
    try:
        with direct.open(request, timeout=600) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        return {"error": str(error)}


Seen = tuple[bool, str]  # whether it is so, and what was computed to tell


def _of(path: str) -> Callable[[Callable[[Any], Seen]], Callable[[], Seen]]:
    """Ask an endpoint, and look at its answer; where it fails, its error is the answer."""

    def wrapped(look: Callable[[Any], Seen]) -> Callable[[], Seen]:
        @wraps(look)
        def asked() -> Seen:
            found = answers()[path]
            return (False, f"{path}: {found['error']}") if "error" in found else look(found)

        return asked

    return wrapped


def server() -> Seen:
    """Whether there is a server, all of whose endpoints answer."""
    failed = [f"{path}: {found['error']}" for path, found in answers().items() if "error" in found]
    return not failed, "; ".join(failed) or f"{len(answers())} endpoints answer on loopback (`pvlib serve`)"


@_of("api/health")
def health(found: Any) -> Seen:
    """Whether the state of the server is told."""
    return found["status"] == "ok", f"status {found['status']}, {len(found['weights'])} networks looked at"


@_of("api/architecture")
def architecture(found: Any) -> Seen:
    """Whether the module graph is told: all five cores, connected."""
    cores = sorted({node["core"] for node in found["nodes"]} - {""})
    words = f"{len(found['nodes'])} modules, {len(found['edges'])} connections, cores {', '.join(cores)}"
    return cores == list("ABCDE"), words


@_of("api/clone")
def clone(found: Any) -> Seen:
    """Whether a voice is cloned, with a chat behind it. How well it speaks so few steps do not tell."""
    told = {one["node"]: one for one in found["conditions"]}["film"]
    words = f"{found['seconds']:.2f} s of speech at {found['sample_rate']} Hz; FiLM was told: {told['words']}"
    return found["seconds"] > 0 and told["on"] and found["persona"] is not None, words


@_of("api/persona/analyze")
def analyze(found: Any) -> Seen:
    """Whether a chat becomes the five traits of a radar."""
    words = ", ".join(f"{name} {value:+.2f}" for name, value in found["traits"].items())
    return list(found["traits"]) == list(TRAITS) and any(found["traits"].values()), words


@_of("api/persona/calibrate")
def calibrate(found: Any) -> Seen:
    """Whether feedback moves the trait that it names, and no other."""
    moved = [name for name, value in found["traits"].items() if value]
    return moved == ["extraversion"], f"{FEEDBACK!r} moves {', '.join(moved) or 'nothing'}"


@_of("api/demo/sample")
def demo(found: Any) -> Seen:
    """Whether the bundled clip is handed out."""
    words = f"{found['seconds']:.2f} s of sound, {len(found['texts'])} texts"
    return bool(found["audio"]) and bool(found["texts"]), words


@_of("api/clone")
def dashboard(found: Any) -> Seen:
    """Whether a clone's answer holds what the paper's page shows: its mel, the traits, what each core did."""
    mel, cores = found["mel"], len(found["conditions"])
    words = f"a mel of {mel['bands']} x {mel['frames']}, {len(found['persona'])} traits, {cores} conditions"
    return mel["frames"] > 0 and list(found["persona"]) == list(TRAITS) and cores > 0, words


PROPERTIES: dict[str, Callable[[], Seen]] = {
    "a server answers": server,
    "the server tells how it is": health,
    "the server tells the module graph": architecture,
    "the server clones a voice, with a chat behind it": clone,
    "the server reads the five traits off a chat": analyze,
    "the server takes feedback on a persona": calibrate,
    "the server hands out the bundled clip": demo,
    "a clone comes with its mel, its traits and what each core did": dashboard,
}
