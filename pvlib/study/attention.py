"""What Figure 6 can say in numbers: where each head looks, and how sharply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pvlib import ceag, hub, systems
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.backbone import Item
from pvlib.ceag import AttentionMaps
from pvlib.config import Profile, get_profile
from pvlib.systems.base import Request
from pvlib.voice import SEEDS_PER_JOB, Job, PersonaVoice

NEIGHBOURS = 1  # characters on each side that still count as the character being spoken


@dataclass(frozen=True)
class Look:
    """The attention of one utterance with its places in seconds and characters.

    columns: (n,) the character that sounds at each token, -1 for none. boundary, seconds: end of the reference and of
    the whole. middles: (nt,) where each character sounds (s), NaN where it has no token.
    """

    maps: AttentionMaps
    columns: np.ndarray
    boundary: float
    seconds: float
    middles: np.ndarray

    @property
    def entropy_share(self) -> np.ndarray:
        """Entropy of each token's attention, a share of its largest possible value, mean of blocks and heads: (n,)."""
        return _entropy_share(self.maps.maps.mean(dim=(0, 1))).numpy()

    @property
    def text_entropy_share(self) -> np.ndarray:
        """Entropy over the characters that sound, a share of its largest value, at each step: (steps, layers)."""
        return (self.maps.text_entropy / np.log(len(np.unique(self.columns[self.columns >= 0])))).numpy()


def _entropy_share(weights: Tensor) -> Tensor:
    """Entropy of attention (..., n) as a share of log n: (...)."""
    return -(weights * weights.clamp(min=1e-12).log()).sum(-1) / np.log(weights.shape[-1])


def _spoken(columns: np.ndarray, first: int, size: int) -> tuple[list[int], Tensor, Tensor]:
    """Generated tokens at which a character sounds, which one (k,), and it with its neighbours as ones in (k, size)."""
    spoken = [i for i in range(first, len(columns)) if columns[i] >= 0]
    own = torch.from_numpy(columns[spoken])
    return spoken, own, ((torch.arange(size) - own[:, None]).abs() <= NEIGHBOURS).float()


def item(voice: PersonaVoice, request: Request) -> Item:
    """What the backbone is given for the first chunk of a request."""
    job = Job(
        voice.reference(request.clip, name=f"the clip of {request.utterance}"), request.text, request.seed
    )
    chunk = voice.plan(job)[0]
    return Item(
        mel=job.reference.mel,
        reference_text=job.reference.text,
        text=chunk.text,
        frames=max(chunk.frames, len(job.reference.mel) + 1),
        seed=request.seed * SEEDS_PER_JOB,
        cfg_strength=chunk.cfg_strength,
    )


def watch(
    voice: PersonaVoice,
    request: Request,
    t: float,
    *,
    given: Item | None = None,
    guidance: ceag.Guidance | None = None,
    layers: Sequence[int] | None = None,
) -> Look:
    """Synthesise one request and keep the attention of some layers at the step nearest to time t in 0..1.

    given: what the sampler is given instead, with a strength for the guidance. layers: by default the paper's.
    """
    given, own = given or item(voice, request), voice.inference
    options = {
        "layers": layers or own.ceag_layers,
        "steps": own.steps,
        "sway_coef": own.sway_coef,
        "guidance": guidance,
    }
    maps = ceag.attention_maps(voice.backbone, given, t=t, **options)
    columns = ceag.text_columns(voice.backbone, given).numpy()
    token = voice.backbone.settings.stack * HOP_LENGTH / SAMPLE_RATE  # seconds
    middles = np.full(len(maps.text), np.nan)
    for character in np.unique(columns[columns >= 0]):
        middles[character] = (np.flatnonzero(columns == character).mean() + 0.5) * token
    return Look(maps, columns, maps.reference_tokens * token, len(columns) * token, middles)


def heads(look: Look) -> pd.DataFrame:
    """One line per block and head, over the generated tokens: shares of attention, and the entropy.

    "on the reference": attention paid to the one-second clip; "even attention would pay": its share of all tokens.
    "on its own character": to tokens of the character being spoken and its neighbours; "entropy": share of log n.
    """
    maps, first = look.maps, look.maps.reference_tokens
    size = maps.text_maps.shape[-1]
    spoken, _, near = _spoken(look.columns, first, size)
    counts = np.bincount(look.columns[look.columns >= 0], minlength=size)
    even = float((near @ torch.from_numpy(counts).float()).mean() / len(look.columns))
    lines = []
    for layer, block in enumerate(maps.layers):
        for head in range(maps.maps.shape[1]):
            weights = maps.maps[layer, head, first:]
            own = (maps.text_maps[layer, head, spoken] * near).sum(-1).mean()
            entropy = _entropy_share(weights).mean()
            on_clip = weights[:, :first].sum(-1).mean()
            lines.append((block, head, *(float(x) for x in (on_clip, own, entropy))))
    table = pd.DataFrame(
        lines, columns=["block", "head", "on the reference", "on its own character", "entropy"]
    )
    return table.assign(
        **{"even: on the reference": first / len(look.columns), "even: on its own character": even}
    )


def summary(look: Look, table: pd.DataFrame) -> list[str]:
    """Sentences on `heads`: which head looks back at the voice, which at what it says, and how sharply."""
    voice = table.loc[table["on the reference"].idxmax()]
    words = table.loc[table["on its own character"].idxmax()]
    even = table.iloc[0]
    text = look.text_entropy_share
    return [
        f"The generated part pays the one-second reference {table['on the reference'].mean():.1%} of its attention, "
        f"mean of all heads; even attention would pay {even['even: on the reference']:.1%}. Most by head "
        f"{voice['head']:.0f} of block {voice['block']:.0f}: {voice['on the reference']:.1%}.",
        f"To the character being spoken and its neighbours: {table['on its own character'].mean():.1%}; even "
        f"attention would pay {even['even: on its own character']:.1%}. Most by head {words['head']:.0f} of block "
        f"{words['block']:.0f}: {words['on its own character']:.1%}.",
        f"Entropy over the text is between {text.min():.1%} and {text.max():.1%} of its largest value on the way from "
        f"noise to speech; the sharpest single head has {table['entropy'].min():.1%} over all tokens.",
    ]


# A backbone that nothing tells where a character sounds


@dataclass(frozen=True)
class Search:
    """How the second backbone looks for the text of one utterance, and where the first one was told that it lies.

    look: attention in all blocks. table: a line per block and head, the one that finds most first; over the generated
    tokens, "on its own character": attention to the character that the first backbone has there and to its neighbours,
    "even" what even attention would pay, "characters away": the distance from that character to the one looked at most.
    """

    look: Look
    told: Look
    table: pd.DataFrame

    @property
    def best(self) -> tuple[int, int]:
        """Block and head that find most."""
        line = self.table.iloc[0]
        return int(line["block"]), int(line["head"])

    @property
    def picture(self) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray, float, float]:
        """The best head, as `pictures.attention_text` takes it; the line is where the first backbone was told."""
        maps, told, (block, head) = self.look.maps, self.told, self.best
        layer = maps.layers.index(block)
        on_text, sharpness = (
            maps.text_maps[layer, head].numpy(),
            _entropy_share(maps.maps[layer, head]).numpy(),
        )
        return on_text, list(maps.text), told.middles, sharpness, told.boundary, told.seconds


def second(profile: Profile | str) -> PersonaVoice | None:
    """The pipeline with the second backbone; None where a profile has none, or no weights of it."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if profile.backbone_padded is None or systems.lacking("personavoice@padded_text=True", profile):
        return None
    return PersonaVoice.load(profile.name, padded_text=True)


def search(voice: PersonaVoice | None, request: Request, t: float, told: Look) -> Search | None:
    """Watch the second backbone say what the first one said in `told`; None without a voice."""
    if voice is None:
        return None
    look = watch(voice, request, t, layers=range(voice.backbone.settings.depth))
    return Search(look, told, found_by_head(look, told))


def found_by_head(look: Look, told: Look) -> pd.DataFrame:
    """The table of `Search`."""
    maps = look.maps
    spoken, own, near = _spoken(told.columns, maps.reference_tokens, maps.text_maps.shape[-1])
    even = float(near.sum(-1).mean() / maps.maps.shape[-1])
    lines = []
    for layer, block in enumerate(maps.layers):
        for head in range(maps.maps.shape[1]):
            weights = maps.text_maps[layer, head, spoken]
            away = (weights.argmax(-1) - own).abs().float().mean()
            lines.append((block, head, float((weights * near).sum(-1).mean()), even, float(away)))
    columns = ["block", "head", "on its own character", "even", "characters away"]
    return pd.DataFrame(lines, columns=columns).sort_values(
        "on its own character", ascending=False, ignore_index=True
    )


def search_text(found: Search | None) -> str:
    """One sentence on `search`: does any head find the text, and how nearly."""
    if found is None:
        return (
            "Whether attention finds a text that nothing lays out is not seen: there are no weights of such a "
            f"backbone (`pvlib train {hub.BACKBONE_PADDED}` makes those of the profile `mini`)."
        )
    line, n = found.table.iloc[0], len(found.table)
    return (
        "In the second backbone, to which nothing tells where the text sounds while it speaks, head "
        f"{line['head']:.0f} of block {line['block']:.0f} pays {line['on its own character']:.1%} to the "
        "character that the first backbone has at "
        f"that place and its neighbours, where even attention would pay {line['even']:.1%}; what it looks at most is "
        f"{line['characters away']:.1f} characters away on average. Median of the {n} heads: "
        f"{found.table['on its own character'].median():.1%}; the first head of some blocks was shown the place in "
        "training (README, Departures from F5-TTS)."
    )
