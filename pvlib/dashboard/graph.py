"""The module graph of a loaded pipeline: what stands where, what flows between, and which conditions were active.

Sizes are counted on the networks that are loaded, settings read off the inference table; nothing is typed twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from pvlib import audio, hub
from pvlib.config import Inference
from pvlib.voice import MAX_REFERENCE_SECONDS, Job, PersonaVoice, Speech


@dataclass(frozen=True)
class Node:
    """One module. core: the paper's letter, "" for none. source: its file. settings: its lines of the inference table.

    column, row: where it stands in the picture, data flowing to the right.
    """

    id: str
    label: str
    does: str
    source: str
    column: float
    row: float
    core: str = ""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edge:
    """What flows from one module to another; shape: of one item, n frames, s samples."""

    source: str
    target: str
    carries: str
    shape: str = ""


NODES = (
    Node("recording", "Recording", "one second of a voice", "pvlib/audio.py", 0, 1),
    Node("chat", "Chat and recalls", "what the person writes, what others say", "pvlib/wishes.py", 0, 3),
    Node("text", "Text", "what is to be said", "pvlib/text.py", 0, 0),
    Node(
        "frontend", "VAD, level", "trims silence, sets the level", "pvlib/frontend.py", 1, 1, "E",
        ("use_silero_vad", "silero_vad_threshold", "use_rms_normalize", "rms_target"),
    ),
    Node("persona", "Persona extractor", "Big Five, text style, emotion", "pvlib/persona.py", 1, 3),
    Node("recognizer", "Recogniser", "what the recording says", "pvlib/recognizer.py", 2, 0.5),
    Node("speaker_encoder", "Speaker encoder", "ECAPA-TDNN: the voice as a vector", "pvlib/speaker.py", 2, 2),
    Node(
        "laag", "LAAG", "cuts, times and guides the text, opens FiLM's gate", "pvlib/laag.py", 3, 0, "A",
        ("use_laag", "laag_chunk_max_chars", "laag_cfg_base", "laag_cfg_alpha", "cross_fade_seconds", "film_gate"),
    ),
    Node(
        "oes", "OES", "parts the voice from its room", "pvlib/oes.py", 3, 2, "B",
        ("use_oes", "env_weight", "oes_env_scale_init"),
    ),
    Node("film", "FiLM", "scales and shifts the last blocks", "pvlib/film.py", 4, 3, "D", ("use_adapters",)),
    Node(
        "backbone", "F5-TTS backbone", "flow matching: noise to mel", "pvlib/backbone.py", 4, 1, "",
        ("steps", "sway_coef", "cfg_strength", "best_of_n"),
    ),
    Node(
        "ceag", "CEAG", "guides attention over the text", "pvlib/ceag.py", 4, 0, "C",
        ("use_ceag", "ceag_lambda_max", "ceag_t_start", "ceag_t_end", "ceag_layers"),
    ),
    Node("vocoder", "Vocos", "mel to waveform", "pvlib/vocoder.py", 5, 1),
    Node("speech", "Speech", "chunks joined, lead silence cut", "pvlib/voice.py", 6, 1),
)  # fmt: skip

EDGES = (
    Edge("recording", "frontend", "samples", "(s,) at 24 kHz"),
    Edge("frontend", "recognizer", "trimmed clip", "(s,)"),
    Edge("frontend", "speaker_encoder", "trimmed clip", "(s,)"),
    Edge("frontend", "backbone", "the clip's mel", f"(n, {audio.N_MELS})"),
    Edge("text", "laag", "letters"),
    Edge("recognizer", "laag", "transcript of the clip"),
    Edge("laag", "backbone", "chunks: text, frames, guidance"),
    Edge("laag", "film", "gate"),
    Edge("speaker_encoder", "oes", "speaker embedding", "(192,)"),
    Edge("oes", "film", "voice without room", "(192,)"),
    Edge("chat", "persona", "messages, recalls"),
    Edge("persona", "film", "persona, style, emotion", "(64,), (64,), (4,)"),
    Edge("film", "backbone", "scale and shift"),
    Edge("ceag", "backbone", "gradient of the entropy"),
    Edge("backbone", "vocoder", "mel", f"(n, {audio.N_MELS})"),
    Edge("vocoder", "speech", "waveform of each chunk", "(s,)"),
)


def architecture(voice: PersonaVoice) -> dict[str, Any]:
    """Nodes, edges and the inference table of a pipeline, ready for JSON.

    Of a node: the fields of `Node`, its settings with their values, `parameters` (0 where there is no network),
    `trained` ("frozen", "adapter" or "") and `on`: whether it takes part under this pipeline's settings.
    """
    networks = networks_of(voice)
    nodes = []
    for node in NODES:
        network = networks.get(node.id)
        size = sum(parameter.numel() for parameter in network.parameters()) if network is not None else 0
        trained = "" if network is None else "adapter" if node.id in ("oes", "film") else "frozen"
        settings = {name: getattr(voice.inference, name) for name in node.settings}
        facts = {"settings": settings, "parameters": size, "trained": trained, "on": is_on(node.id, voice)}
        nodes.append(asdict(node) | facts)
    return {
        "profile": voice.profile.name,
        "nodes": nodes,
        "edges": [asdict(edge) for edge in EDGES],
        "parameters": table(voice.inference),
        "weights": sum(node["parameters"] for node in nodes),
    }


def networks_of(voice: PersonaVoice) -> dict[str, nn.Module]:
    """The network behind each node that has one. FiLM's node holds all of the adapters but OES."""
    found: dict[str, nn.Module] = {
        name: getattr(voice, name) for name in hub.NAMES if isinstance(getattr(voice, name), nn.Module)
    }
    if voice.adapters is not None:
        found["oes"] = voice.adapters.oes
        found["film"] = nn.ModuleList([voice.adapters.film, voice.adapters.blocks, voice.adapters.emotion])
    return found


def is_on(node: str, voice: PersonaVoice) -> bool:
    """Whether a module takes part under the settings of this pipeline. FiLM's gate is asked text by text besides."""
    settings, adapted = voice.inference, voice.adapters is not None
    return {
        "frontend": settings.use_silero_vad or settings.use_rms_normalize,
        "laag": settings.use_laag,
        "oes": adapted and settings.use_oes,
        "film": adapted and settings.film_gate != "off",
        "ceag": settings.use_ceag,
        "chat": adapted,
        "persona": adapted,
    }.get(node, True)


def table(inference: Inference) -> list[dict[str, Any]]:
    """The inference table: name, value, and the default, which is the paper's."""
    return [
        {"name": field.name, "value": getattr(inference, field.name), "default": field.default}
        for field in fields(Inference)
    ]


def conditions(voice: PersonaVoice, job: Job, speech: Speech, seconds: float) -> list[dict[str, Any]]:
    """What each core did to one utterance: node, on, words. seconds: of the recording, before the front end."""
    settings, chunks = voice.inference, speech.chunks
    film = _film(voice, speech)
    guided = ", ".join(sorted({f"{chunk.cfg_strength:g}" for chunk in chunks}))
    before, behind = min(seconds, MAX_REFERENCE_SECONDS), len(job.reference.wave) / audio.SAMPLE_RATE
    level = f"its level times {job.reference.gain:.2f}"
    rows = [
        ("frontend", True, f"{before:.2f} s of the recording became {behind:.2f} s, {level}"),
        (
            "laag",
            True,
            f"{_many(len(chunks), 'chunk')}, guidance {guided}, {speech.frames} mel frames generated",
        ),
        ("oes", film, f"environment weight {settings.env_weight:g}"),
        ("film", film, _heard(voice, job)),
        ("ceag", True, f"from {settings.ceag_t_start:g} to {settings.ceag_t_end:g} of the flow"),
    ]
    found = []
    for node, asked, words in rows:
        on = asked and is_on(node, voice)
        shut = film is False and node in ("oes", "film") and voice.adapters is not None
        found.append({"node": node, "on": on, "words": words if on else _shut(voice) if shut else "off"})
    return found


def took_part(voice: PersonaVoice, job: Job, speech: Speech, *, heard: bool, chat: bool) -> list[str]:
    """The nodes that had a part in one utterance. heard: the recogniser listened; chat: messages were handed in."""
    film = _film(voice, speech)
    asked = {
        "recognizer": heard,
        "chat": chat and film,
        "persona": bool(job.asks) and film,
        "oes": film,
        "film": film,
    }
    return [node.id for node in NODES if asked.get(node.id, True) and is_on(node.id, voice)]


def _film(voice: PersonaVoice, speech: Speech) -> bool:
    """Whether FiLM's gate was open for a chunk of an utterance."""
    return voice.adapters is not None and any(chunk.film for chunk in speech.chunks)


def _heard(voice: PersonaVoice, job: Job) -> str:
    """What FiLM is told, and what of it these adapters have learnt nothing about."""
    if voice.adapters is None:
        return ""
    told = ["the voice"] if voice.inference.use_oes else []
    told += [
        part if voice.adapters.hears(part) else f"{part}, which these adapters never learnt"
        for part in job.asks
    ]
    return "; ".join(told) or "nothing"


def _shut(voice: PersonaVoice) -> str:
    return f"FiLM's gate is closed for this text (film_gate={voice.inference.film_gate}), so nothing of it is heard"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
