"""What people wish of a voice, as they write it: messages, traits, an emotion; checked, and as `voice.Job` takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pvlib import hub, persona, persona_chinese
from pvlib.config import TRAITS, Profile
from pvlib.persona import PersonaError, PersonaExtractor


def reader(profile: Profile, chat: str | Sequence[str]) -> PersonaExtractor:
    """The extractor for a chat, each of its encoders read once.

    The Chinese one is read for messages that it reads, where the profile has it. Raises PersonaError on what is no
    chat, WeightsError.
    """
    chinese = any(persona_chinese.is_chinese(message) for message in persona.check_chat(chat))
    return _reader(profile.reads_chinese and chinese)


@lru_cache(maxsize=2)
def _reader(chinese: bool) -> PersonaExtractor:
    encode = hub.load_text_encoder() if not chinese else _reader(False).encode
    return persona_chinese.load(encode) if chinese else PersonaExtractor(encode)


def conditions(
    profile: Profile,
    *,
    chat: str | Sequence[str] | None = None,
    traits: Mapping[str, float] | None = None,
    emotion: str | None = None,
    strength: float | None = None,
) -> dict[str, Any]:
    """The fields persona, style, emotion and strength of a `voice.Job`; {} where nothing is wished.

    profile: which languages are read. chat: messages of the person who speaks, see `PersonaExtractor`. traits: some of
    the five, each -1..1; they go before what the chat shows, and those that neither names are 0. strength: of the
    emotion, 0..1; None is all of it. Everything is checked before the text encoder is read.
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
        read = reader(profile, chat)(chat)
        shown, found["style"] = read.traits, read.text_style_emb
    if told or chat is not None:
        found["persona"] = shown | told
    return found
