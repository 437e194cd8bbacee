"""PersonaVoice with the clip's text laid out as the official function must: over all frames, the new ones included.

Nothing of the paper: a control. The backbone of the profile `mini` is told where each letter lies. Our pipeline knows
where the clip ends and keeps the clip's text before it; the official function gives both texts as one. Where both would
put the boundary differently, the start of what is new is cut off with the clip.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from pvlib.backbone import Backbone
from pvlib.systems.fingerprint import module_path, source_hash
from pvlib.systems.personavoice import PersonaVoiceSystem
from pvlib.voice import PersonaVoice


class PersonaVoiceSpread(PersonaVoiceSystem):
    """The pipeline in everything else. With padded text conditioning nothing is laid out, and it is the pipeline."""

    def fingerprint(self) -> dict[str, Any]:
        found = super().fingerprint()
        own = {__name__: source_hash(module_path(__name__))}
        return found | {"sources": found["sources"] | own}

    @property
    def voice(self) -> PersonaVoice:
        if self._voice is None:
            voice = super().voice
            voice.backbone = spread(voice.backbone)
        return self._voice


def spread(backbone: Backbone) -> Backbone:
    """The same weights, every row's text spread over all its frames."""
    twin = copy.copy(backbone)
    twin.alignment_of = lambda items: Backbone.alignment_of(
        twin, [replace(item, pinned=False) for item in items]
    )
    return twin
