"""The mini profile with networks so small that a test can build them, and an encoder that hears one voice only."""

from __future__ import annotations

from dataclasses import replace

import torch

from pvlib.config import MINI, Inference

TINY = replace(
    MINI,
    name="tiny",
    inference=Inference(steps=2),
    backbone=replace(MINI.backbone, dim=32, depth=2, heads=2, dim_head=16, text_dim=16, conv_layers=1),
    vocoder=replace(MINI.vocoder, dim=16, intermediate_dim=32, num_layers=1),
    speaker_encoder=replace(MINI.speaker_encoder, channels=(16, 16, 16, 16, 48)),
    recognizer=replace(MINI.recognizer, channels=16, hidden=16),
)


class Recogniser:
    """Hears what it was told to hear, and keeps what it heard."""

    def __init__(self, hears: str = "hello there"):
        self.hears, self.heard = hears, []

    def transcribe(self, waves):
        self.heard += waves
        return [self.hears for _ in waves]


class Encoder:
    """Every wave has the same voice."""

    def embed(self, waves):
        return torch.nn.functional.normalize(torch.ones(len(waves), 192), dim=-1)
