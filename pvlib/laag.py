"""Core A, length-adaptive generation: chunk, guide, gate, splice (seed, LAAG; formulas from its architecture document).

Pure functions of text, lengths and arrays. Axes: n mel frames, c mel channels, s samples at 24 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import Inference

CEAG_BASE = 0.25  # strength of entropy guidance at L_ref tokens
CEAG_SLOPE = 0.5
CEAG_RANGE = (0.4, 2.0)
ENGLISH_WORD_TOKENS = 1.5  # one English word counts as one and a half Chinese characters

GATE_MODES = ("auto", "always", "off")
SPLICE_ORDERS = ("time", "bands", "misread")

_FULL_STOPS = ".!?。！？"
_CLAUSE_ENDS = ",;:-、，；："
_SENTENCES = re.compile(
    r"(?<=[.!?])(?<!\bmr\.)(?<!\bmrs\.)(?<!\bms\.)(?<!\bdr\.)(?<!\bst\.)\s+|(?<=[.!?][\"'”’)])\s+|(?<=[。！？])\s*",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r"(?<=[,;:])\s+|(?<=[、，；：])\s*|\s+(?=[-–—]\s)")
_WORDS = re.compile(r"\s+")
_CHINESE = r"[\u3400-\u9fff]"
_LETTER = rf"(?:(?!{_CHINESE})[^\W\d_])"
_TOKENS = re.compile(
    rf"(?P<chinese>{_CHINESE})|(?P<number>\d+(?:[.,]\d+)*)|(?P<word>{_LETTER}+(?:['’-]{_LETTER}+)*)"
)


@dataclass(frozen=True)
class Chunk:
    """One piece of text with everything the sampler needs to know about it."""

    text: str  # as handed to the model, behind the reference's text
    frames: int  # mel frames in all, the reference's included
    cfg_strength: float
    ceag_lambda: float
    film: bool


# Chunks


def chunk(text: str, max_chars: int = 135, min_chars: int = 10) -> list[str]:
    """Cut a text into pieces of at most `max_chars` characters, no word lost, none cut unless it is longer itself.

    Cuts fall between sentences; within a sentence that is too long between clauses; then between words; a word that
    is too long is cut into even parts. Of all ways with the fewest pieces the most even one is taken. A piece
    under `min_chars` joins its neighbour, or shares its words evenly where both together are too long; it stays
    as it is where the text itself is shorter or the neighbour is one giant word. Joined again the pieces equal the
    text up to spaces.
    Raises ValueError when min_chars is more than half of max_chars.
    """
    if not 0 < 2 * min_chars <= max_chars:
        raise ValueError(
            f"min_chars = {min_chars} must be positive and at most half of max_chars = {max_chars}"
        )
    text = " ".join(text.split())
    if not text:
        return []
    pieces = _split(text, max_chars, [_SENTENCES, _CLAUSES, _WORDS])
    return _without_scraps(pieces, max_chars, min_chars)


def _split(text: str, max_chars: int, separators: list[re.Pattern[str]]) -> list[str]:
    """Pieces of at most max_chars, cut at the first separator that suffices."""
    if len(text) <= max_chars:
        return [text]
    if not separators:
        parts = -(-len(text) // max_chars)
        bounds = [round(k * len(text) / parts) for k in range(parts + 1)]
        return [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    pieces: list[str] = []
    fitting: list[str] = []
    for unit in filter(None, separators[0].split(text)):
        if len(unit) <= max_chars:
            fitting.append(unit)
            continue
        pieces += _pack_evenly(fitting, max_chars)
        pieces += _split(unit, max_chars, separators[1:])
        fitting = []
    return pieces + _pack_evenly(fitting, max_chars)


def _pack_evenly(units: list[str], max_chars: int) -> list[str]:
    """Fill pieces greedily under the lowest cap that needs no more of them than max_chars does."""
    if not units:
        return []
    fewest = len(_pack(units, max_chars))
    low, high = max(map(len, units)), max_chars
    while low < high:
        cap = (low + high) // 2
        if len(_pack(units, cap)) <= fewest:
            high = cap
        else:
            low = cap + 1
    return _pack(units, low)


def _pack(units: list[str], cap: int) -> list[str]:
    pieces = [units[0]]
    for unit in units[1:]:
        joined = _join(pieces[-1], unit)
        if len(joined) <= cap:
            pieces[-1] = joined
        else:
            pieces.append(unit)
    return pieces


def _join(left: str, right: str) -> str:
    """Side by side with a space between, none after East Asian writing."""
    return left + ("" if left[-1] >= "\u3000" else " ") + right


def _without_scraps(pieces: list[str], max_chars: int, min_chars: int) -> list[str]:
    """Join each piece under min_chars with the one before it (the first with the next)."""
    whole: list[str] = []
    for piece in pieces:
        if whole and min(len(piece), len(whole[-1])) < min_chars:
            whole[-1:] = _merge(whole[-1], piece, max_chars, min_chars)
        else:
            whole.append(piece)
    return whole


def _merge(left: str, right: str, max_chars: int, min_chars: int) -> list[str]:
    """Both in one, or cut anew at the space nearest the middle; unchanged where no space keeps the limits."""
    joined = _join(left, right)
    if len(joined) <= max_chars:
        return [joined]
    spaces = [match.start() for match in _WORDS.finditer(joined)]
    allowed = range(min_chars, max_chars + 1)
    cuts = [s for s in spaces if s in allowed and len(joined) - s - 1 in allowed]
    if not cuts:
        return [left, right]
    cut = min(cuts, key=lambda s: abs(s - len(joined) / 2))
    return [joined[:cut], joined[cut + 1 :]]


# Length rules


def token_length(text: str) -> float:
    """L: Chinese characters + 1.5 x English words + numbers."""
    kinds = [match.lastgroup for match in _TOKENS.finditer(text)]
    return kinds.count("chinese") + ENGLISH_WORD_TOKENS * kinds.count("word") + kinds.count("number")


def guidance(text: str, inference: Inference) -> float:
    """Classifier-free guidance of a chunk: clamp(base (1 + a (L_ref - L) / L_ref), min, max).

    With the paper's a = 0 it is the base, 2.5, at every length. Without LAAG it is `cfg_strength`. A text under
    `short_text_bytes` takes `short_text_cfg` where one is set (the boost of the retired Best-of-N trial).
    """
    if inference.short_text_cfg is not None and is_short(text, inference):
        return inference.short_text_cfg
    if not inference.use_laag:
        return inference.cfg_strength
    reference = inference.laag_reference_tokens
    shortness = (reference - token_length(text)) / reference
    strength = inference.laag_cfg_base * (1 + inference.laag_cfg_alpha * shortness)
    return min(max(strength, inference.laag_cfg_min), inference.laag_cfg_max)


def is_short(text: str, inference: Inference) -> bool:
    """Whether a text has under `short_text_bytes` bytes, outer spaces apart."""
    return len(text.strip().encode("utf-8")) < inference.short_text_bytes


def lambda_ceag(text: str, inference: Inference) -> float:
    """Strength of entropy guidance of a chunk: 0.25 clamp(1 + 0.5 (L - L_ref) / L_ref, 0.4, 2).

    The parameter table's `ceag_lambda_max` (0.20) is no part of this formula of the architecture document.
    """
    reference = inference.laag_reference_tokens
    factor = 1 + CEAG_SLOPE * (token_length(text) - reference) / reference
    return CEAG_BASE * min(max(factor, CEAG_RANGE[0]), CEAG_RANGE[1])


def gate(chunks: Sequence[str], mode: str = "auto") -> bool:
    """Whether FiLM acts. auto: from two chunks on (the paper's); always; off. Raises ValueError on another mode."""
    if mode not in GATE_MODES:
        raise ValueError(f"no FiLM gate {mode!r}: choose one of {', '.join(GATE_MODES)}")
    return mode == "always" or (mode == "auto" and len(chunks) > 1)


def duration(reference_frames: int, reference_text: str, text: str, inference: Inference) -> int:
    """Mel frames in all by the official formula: the clip's own rate of bytes, carried over to the new text.

    reference_frames: whole hops of the clip, samples // 256 (93 for one second). text: as handed to the model, a
    leading space included; under 10 bytes of it without outer spaces the official flow slows down to speed 0.3.
    Raises ValueError on an empty reference text, whose rate is unknown.
    """
    reference_bytes = len(reference_text.encode("utf-8"))
    if not reference_bytes:
        raise ValueError("the reference text is empty: its speaking rate is unknown")
    speed = inference.short_text_speed if is_short(text, inference) else inference.speed
    return reference_frames + int(reference_frames / reference_bytes * len(text.encode("utf-8")) / speed)


def letter_duration(
    reference_frames: int,
    reference_text: str,
    text: str,
    inference: Inference,
    seconds_of: Callable[[str], float],
) -> int:
    """Mel frames in all by the letters: the expected seconds of the text at a steadied speaking rate of the clip.

    seconds_of: expected seconds of a text in average speech, the sum over its characters. With S the seconds of the
    clip, E those expected of its text and k = `letter_prior_seconds`, the clip is taken to be (S + k) / (E + k) times
    as slow as the average: at its own rate S / E when k is 0, at the average in the limit. To the text come
    `letter_pause_seconds`, and a piece lasts at least `letter_floor_seconds`. reference_frames: whole hops of the clip,
    samples // 256. No short text is treated apart.
    Raises ValueError on an empty reference text and on a rate that is not known (E + k = 0).
    """
    if not reference_text:
        raise ValueError("the reference text is empty: its speaking rate is unknown")
    per_second = SAMPLE_RATE / HOP_LENGTH
    prior = inference.letter_prior_seconds
    expected = seconds_of(reference_text) + prior
    if expected <= 0:
        raise ValueError(f"no letter of {reference_text!r} has a length; set letter_prior_seconds above 0")
    slowness = (reference_frames / per_second + prior) / expected
    seconds = inference.letter_pause_seconds + slowness * seconds_of(text) / inference.speed
    return reference_frames + round(max(seconds, inference.letter_floor_seconds) * per_second)


# Boundaries


def boundary(reference_text: str, hardening: bool = True) -> str:
    """The reference's text closed off: a full stop where the sentence has none, then one space.

    A clause mark at the end becomes a full stop; East Asian full stops take no space. Without hardening only the
    space is added, as the official inference function does by itself. Raises ValueError when empty.
    """
    text = " ".join(reference_text.split())
    if not text:
        raise ValueError("the reference text is empty")
    if hardening and text[-1] not in _FULL_STOPS:
        text = text.rstrip(_CLAUSE_ENDS + " ") + "."
    return text if text[-1] >= "\u3000" else text + " "


def trim_lead(wave: np.ndarray, inference: Inference) -> np.ndarray:
    """Remove silence from the start: what stays under 2 % of the peak, at most 300 ms. (s,) -> (s,).

    Part of the boundary hardening: without it the wave stays as it is.
    """
    if not len(wave) or not inference.boundary_hardening:
        return wave
    loud = np.abs(wave) >= inference.lead_trim_peak * np.abs(wave).max()
    return wave[min(int(loud.argmax()), inference.lead_trim_ms * SAMPLE_RATE // 1000) :]


def overlap_frames(seconds: float) -> int:
    """The cross-fade in whole mel frames: 14 for 0.15 s."""
    return round(seconds * SAMPLE_RATE / HOP_LENGTH)


def splice_mel(mels: Sequence[Tensor], seconds: float = 0.15, order: str = "time") -> Tensor:
    """Chunks' mels [(n, 100)] after one another, overlapping in a linear cross-fade of equal gain.

    An overlap is never longer than either side. order: "time"; or a mistake of (n, mel) for (mel, n), of which the
    paper says only that it was mended: "bands" fades along the mel axis, so that low bands of the overlap come from
    the one chunk and high bands from the other; "misread" takes each chunk's buffer for one in the other order.
    Raises ValueError on nothing, or on another order.
    """
    if order not in SPLICE_ORDERS:
        raise ValueError(f"no splice order {order!r}: choose one of {', '.join(SPLICE_ORDERS)}")
    if order == "misread":
        mels = [part.reshape(part.shape[::-1]).T for part in mels]
    whole = _first(mels)
    for part in mels[1:]:
        k = min(overlap_frames(seconds), len(whole), len(part))
        size = part.shape[1] if order == "bands" else k
        rise = torch.linspace(0, 1, size, dtype=part.dtype, device=part.device)
        rise = rise[None] if order == "bands" else rise[:, None]
        faded = whole[len(whole) - k :] * (1 - rise) + part[:k] * rise
        whole = torch.cat([whole[: len(whole) - k], faded, part[k:]])
    return whole


def splice_wave(waves: Sequence[np.ndarray], seconds: float = 0.15) -> np.ndarray:
    """Chunks' waves [(s,)] after one another, cross-faded like the mels and as the official function does."""
    whole = _first(waves)
    for part in waves[1:]:
        k = min(int(seconds * SAMPLE_RATE), len(whole), len(part))
        rise = np.linspace(0, 1, k, dtype=part.dtype)
        faded = whole[len(whole) - k :] * (1 - rise) + part[:k] * rise
        whole = np.concatenate([whole[: len(whole) - k], faded, part[k:]])
    return whole


def _first(parts: Sequence[Tensor] | Sequence[np.ndarray]) -> Tensor | np.ndarray:
    if not parts:
        raise ValueError("nothing to splice")
    return parts[0]


# The plan


def plan(
    reference_frames: int,
    reference_text: str,
    text: str,
    inference: Inference,
    *,
    gate_mode: str = "auto",
    generated_frames: int | None = None,
    seconds_of: Callable[[str], float] | None = None,
) -> list[Chunk]:
    """What to sample for one text: chunks with length, guidance and FiLM gate.

    reference_frames: samples // 256 of the clip; reference_text: already closed off by `boundary`. With LAAG each
    chunk gets a leading space, which the model may lose in place of the first sound; without LAAG the text
    stays whole and FiLM is off. Without chunking it is one piece, guided and gated like any; without boundary
    hardening it has no leading space. generated_frames: the frames wanted in all (an oracle's duration), shared by
    bytes with the overlaps added back, as the official function shares a fixed duration; default: its formula, or
    with `seconds_of` that of `letter_duration`.
    """
    if not inference.use_laag:
        pieces, film = [text], False
    else:
        pieces = [text]
        if inference.laag_chunking:
            pieces = chunk(text, inference.laag_chunk_max_chars, inference.laag_chunk_min_chars)
        film = gate(pieces, gate_mode)
    lead = " " if inference.use_laag and inference.boundary_hardening else ""
    sizes = [len(piece.encode("utf-8")) for piece in pieces]
    chunks = []
    for piece, size in zip(pieces, sizes):
        if generated_frames is None and seconds_of is None:
            frames = duration(reference_frames, reference_text, lead + piece, inference)
        elif generated_frames is None:
            frames = letter_duration(reference_frames, reference_text, lead + piece, inference, seconds_of)
        else:
            overlaps = overlap_frames(inference.cross_fade_seconds) * (len(pieces) - 1)
            frames = reference_frames + max(1, round((generated_frames + overlaps) * size / sum(sizes)))
        chunks.append(
            Chunk(lead + piece, frames, guidance(piece, inference), lambda_ceag(piece, inference), film)
        )
    return chunks
