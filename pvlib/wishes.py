"""What people wish of a voice, as they write it: messages, traits, an emotion; checked, and as `voice.Job` takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pvlib import hub, persona
from pvlib.config import TRAITS
from pvlib.persona import PersonaError, PersonaExtractor


@lru_cache(maxsize=1)
def reader() -> PersonaExtractor:
    """The extractor with its text encoder, read once. Raises WeightsError."""
    return PersonaExtractor(hub.load_text_encoder())


def conditions(
    *,
    chat: str | Sequence[str] | None = None,
    traits: Mapping[str, float] | None = None,
    emotion: str | None = None,
    strength: float | None = None,
) -> dict[str, Any]:
    """The fields persona, style, emotion and strength of a `voice.Job`; {} where nothing is wished.

    chat: messages of the person who speaks, see `PersonaExtractor`. traits: some of the five, each -1..1; they go
    before what the chat shows, and those that neither names are 0. strength: of the emotion, 0..1; None is all of it.
    Everything is checked before the text encoder is read.
    Raises PersonaError naming what cannot be used, WeightsError.
    """
    if strength is not None and emotion is None:
        raise PersonaError(f"a strength of {strength!r}: of which emotion? name one as well")
    if chat is None and not traits and emotion is None:
        return {}
    strength = 1.0 if strength is None else strength
    persona.emotion_embedding(emotion, strength)
    told = persona.check_recalls(traits or {})
    found: dict[str, Any] = {"emotion": emotion, "strength": strength}
    shown = dict.fromkeys(TRAITS, 0.0)
    if chat is not None:
        read = reader()(persona.check_chat(chat))
        shown, found["style"] = read.traits, read.text_style_emb
    if told or chat is not None:
        found["persona"] = shown | told
    return found
