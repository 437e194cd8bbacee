"""Persona: from what somebody wrote to traits, embeddings, emotion and calibration."""

from __future__ import annotations

import hashlib

from pvlib import paths

CHATS = paths.DATA / "personas" / "chats.yaml"
FROZEN = "0228324b763fc07e81953c2bf4298c556790af81c560551cc7bf41dcf2cc9fbb"


def test_the_labelled_chats_are_the_frozen_ones():
    content = CHATS.read_text(encoding="utf-8")  # line ends of any system read as \n
    assert hashlib.sha256(content.encode("utf-8")).hexdigest() == FROZEN
