"""Persona: what somebody wrote, and what others recall of them, to Big Five traits and two 64-d embeddings; emotion.

For each trait, with A+ and A- the anchor messages of its poles and x a sentence of the chat:

    d(x) = mean of cos(x, a) over A+ - mean of cos(x, a) over A-
    sentences = tanh((mean of d over the chat - m) / s), m, s mean and deviation of d over the other traits' anchors
    chat = w_s sentences + w_l lexicon;  trait = (1 - w_r) chat + w_r recall where there is a recall

m is where messages stand that are about something else: the zero of the scale is not a property of any population.
Names follow the seed: `persona_emb`, `text_style_emb`, `emotion_emb`. Nothing here has been validated on people: the
traits are those that a text *shows*.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pvlib import persona_words
from pvlib.config import EMOTIONS, TRAITS, Persona

Encode = Callable[[Sequence[str]], Tensor]  # texts -> (n, d) of norm 1, such as text_encoder.TextEncoder

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*|\n+")
_SIDES = [side for poles in persona_words.ANCHORS.values() for side in poles]
_ANCHOR_TEXTS, _ANCHOR_COUNTS = [text for side in _SIDES for text in side], [len(side) for side in _SIDES]
_MAX_SENTENCE_WORDS = 100  # of an unpunctuated text, so that the encoder reads all of it


class PersonaError(ValueError):
    """A chat, recall, trait, emotion or feedback that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class PersonaProfile:
    """What was read off one person's texts.

    traits: Big Five, each in -1..1, 0 the average. sentences, lexicon: what either says by itself, in -1..1.
    read_share: share of the sentences that the encoder can read (Latin script); the lexicon knows Chinese as well.
    text_style_emb: (64,).
    """

    traits: dict[str, float]
    sentences: dict[str, float]
    lexicon: dict[str, float]
    words: int
    read_share: float
    text_style_emb: Tensor
    settings: Persona

    @property
    def persona_emb(self) -> Tensor:
        """The traits as a 64-d condition, see `persona_embedding`."""
        return persona_embedding(self.traits, self.settings)


class PersonaExtractor:
    """Reads traits and text style off chats and recalls. The anchors are embedded once, when it is made."""

    def __init__(self, encode: Encode, settings: Persona | None = None) -> None:
        self.encode = encode
        self.settings = settings or Persona()
        embedded = iter(encode(_ANCHOR_TEXTS).split(_ANCHOR_COUNTS))
        anchors = {trait: [next(embedded), next(embedded)] for trait in persona_words.ANCHORS}
        self._directions = torch.stack(
            [anchors[trait][0].mean(0) - anchors[trait][1].mean(0) for trait in TRAITS]
        )
        others = [
            torch.cat([side for name in TRAITS if name != trait for side in anchors[name]])
            for trait in TRAITS
        ]
        about_others = [other @ way for other, way in zip(others, self._directions, strict=True)]
        self._mean = torch.stack([d.mean() for d in about_others])
        self._deviation = torch.stack([d.std() for d in about_others])
        self._usual = torch.cat([side for poles in anchors.values() for side in poles]).mean(0)

    def __call__(
        self, chat: str | Sequence[str] = (), structured_recalls: Mapping[str, float] | None = None
    ) -> PersonaProfile:
        """Traits and text style of one person.

        chat: that person's messages, in order, or one text. structured_recalls: trait -> -1..1, what somebody who
        knew the person says; traits that are not mentioned rest on the chat alone.
        A chat of fewer than `min_words` words (an empty one, one word) says nothing: traits 0, text style zeros. The
        encoder is English: of a chat in another script only the lexicon speaks (it knows some Chinese), and a chat
        in a third script is neutral, which `read_share` tells.
        Raises PersonaError on a chat that is not text or longer than `max_chars`, and on an unusable recall.
        """
        return self.batch([chat], [structured_recalls or {}])[0]

    def batch(
        self,
        chats: Sequence[str | Sequence[str]],
        recalls: Sequence[Mapping[str, float]] | None = None,
    ) -> list[PersonaProfile]:
        """Several people at once, as if one by one but with one call of the encoder. recalls: one mapping per chat."""
        messages = [check_chat(chat, self.settings) for chat in chats]
        told = [check_recalls(one) for one in recalls or [{}] * len(messages)]
        if len(told) != len(messages):
            raise PersonaError(
                f"{len(messages)} chats, {len(told)} recalls; give one mapping, {{}} for none, per chat"
            )
        pieces = [[piece for message in chat for piece in sentences(message)] for chat in messages]
        legible = [[piece for piece in own if is_latin(piece)] for own in pieces]
        texts = [piece for own in legible for piece in own]
        embedded = self.encode(texts).split([len(own) for own in legible]) if texts else [None] * len(pieces)
        return [self._profile(*person) for person in zip(messages, told, pieces, embedded, strict=True)]

    def _profile(
        self, messages: list[str], recalls: dict[str, float], pieces: list[str], embedded: Tensor | None
    ) -> PersonaProfile:
        words = sum(len(_WORD.findall(message)) for message in messages)
        readable = 0 if embedded is None else len(embedded)
        by_sentence, by_word = dict.fromkeys(TRAITS, 0.0), dict.fromkeys(TRAITS, 0.0)
        style = torch.zeros(self.settings.embedding_dim)
        enough = words >= self.settings.min_words
        if enough:
            meaning = torch.zeros_like(self._usual)
            if readable:
                by_sentence = self.score(embedded)
                meaning = embedded.mean(0) - self._usual
            by_word = lexicon_scores(messages)
            style = text_style_embedding(messages, meaning, self.settings)
        weight = self.settings.recall_weight if enough else 1.0
        traits = {}
        for trait in TRAITS:
            own = (
                self.settings.sentence_weight * by_sentence[trait]
                + self.settings.lexicon_weight * by_word[trait]
            )
            traits[trait] = (1 - weight) * own + weight * recalls[trait] if trait in recalls else own
        share = readable / len(pieces) if pieces else 0.0
        return PersonaProfile(traits, by_sentence, by_word, words, share, style, self.settings)

    def score(self, embedded: Tensor) -> dict[str, float]:
        """What sentences (n, d) of norm 1 say about each trait, in -1..1."""
        distance = (embedded @ self._directions.T).mean(0) - self._mean
        return dict(zip(TRAITS, torch.tanh(distance / self._deviation).tolist(), strict=True))


def check_chat(chat: str | Sequence[str], settings: Persona | None = None) -> list[str]:
    """A chat as a list of messages, broken characters replaced. Raises PersonaError on no text or too much."""
    limit = (settings or Persona()).max_chars
    messages = [chat] if isinstance(chat, str) else chat
    if not isinstance(messages, Sequence) or isinstance(messages, bytes):
        raise PersonaError(f"a chat is a text or a list of messages, not {type(chat).__name__}")
    for position, message in enumerate(messages):
        if not isinstance(message, str):
            raise PersonaError(
                f"message {position} of the chat is {type(message).__name__}, not text; hand in strings"
            )
    if (length := sum(map(len, messages))) > limit:
        raise PersonaError(
            f"the chat has {length:,} characters, at most {limit:,} are read; hand in its latest part"
        )
    return [message.encode("utf-8", "replace").decode("utf-8") for message in messages]


def check_recalls(recalls: Mapping[str, float]) -> dict[str, float]:
    """Recalls as {trait: -1..1}. Raises PersonaError on an unknown trait or a value that is no such number."""
    if not isinstance(recalls, Mapping):
        raise PersonaError(f"structured recalls map traits to numbers, {type(recalls).__name__} does not")
    for trait, value in recalls.items():
        if trait not in TRAITS:
            raise PersonaError(f"no trait {trait!r}: choose among {', '.join(TRAITS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise PersonaError(f"the recall of {trait} is {value!r}, not a number; give one from -1 to 1")
        if not -1 <= value <= 1:  # NaN fails as well
            raise PersonaError(f"the recall of {trait} is {value!r}, outside -1 to 1")
    return {trait: float(value) for trait, value in recalls.items()}


def sentences(message: str) -> list[str]:
    """A message cut at sentence ends and line ends; a sentence of more than 100 words in several. No empty ones."""
    pieces = []
    for piece in _SENTENCE_END.split(message):
        parts = piece.split()
        pieces += [
            " ".join(parts[i : i + _MAX_SENTENCE_WORDS]) for i in range(0, len(parts), _MAX_SENTENCE_WORDS)
        ]
    return [piece for piece in pieces if _WORD.search(piece)]


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin, the script that the encoder reads."""
    letters = [c for c in text if c.isalpha()]
    latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return bool(letters) and 2 * latin >= len(letters)


def lexicon_scores(messages: Sequence[str]) -> dict[str, float]:
    """(high - low) / (high + low + 1) of the poles' words in the messages: in -1..1, 0 without any."""
    text = "\n".join(messages).lower()
    scores = {}
    for trait, poles in persona_words.LEXICON.items():
        high, low = (len(_lexicon_pattern(words).findall(text)) for words in poles)
        scores[trait] = (high - low) / (high + low + 1)
    return scores


def _lexicon_pattern(words: Sequence[str]) -> re.Pattern[str]:
    alternatives = []
    for word in sorted(words, key=len, reverse=True):
        if not word.isascii():
            alternatives.append(re.escape(word))
        elif word.endswith("*"):
            alternatives.append(rf"\b{re.escape(word[:-1])}[^\W_]*")
        else:
            alternatives.append(rf"\b{re.escape(word)}\b")
    return re.compile("|".join(alternatives))


# Embeddings


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """The fixed matrix (rows, columns), rows at least columns, whose columns are orthonormal, in fp32.

    QR of standard normal numbers with the diagonal of R made positive, which leaves one answer for every LAPACK.
    """
    return _orthonormal(rows, columns, seed).clone()


@functools.cache
def _orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))
    return torch.from_numpy((q * np.sign(np.diag(r))).astype(np.float32))


def persona_embedding(traits: Mapping[str, float], settings: Persona | None = None) -> Tensor:
    """`persona_emb` (64,): the traits through a fixed orthonormal 64 x 5 matrix, scaled to norm 0.1.

    traits: all five, each -1..1, so that they are centred already. Zero in all of them gives the zero vector, the
    seed's "no persona". With `keep_strength` the norm is 0.1 |traits| / sqrt(5), so that
    a faint persona stays faint; the paper's form keeps the direction alone.
    Raises PersonaError on traits that are missing, unknown, or outside -1..1.
    """
    settings = settings or Persona()
    vector = torch.tensor([_whole(traits)[trait] for trait in TRAITS])
    projected = orthonormal(settings.embedding_dim, len(TRAITS), settings.projection_seed) @ vector
    length = math.sqrt(len(TRAITS)) if settings.keep_strength else float(projected.norm())
    return settings.embedding_norm * projected / (length or 1.0)


def _whole(traits: Mapping[str, float]) -> dict[str, float]:
    checked = check_recalls(traits)
    if missing := [trait for trait in TRAITS if trait not in checked]:
        raise PersonaError(f"no value for {', '.join(missing)}: a persona has all five traits")
    return checked


STYLE_FEATURES = (
    "words per message", "letters per word", "exclamations", "questions", "ellipses", "commas", "capitals",
    "lower-case starts", "first person", "contractions", "emoji", "East Asian characters",
)  # fmt: skip


def style_features(messages: Sequence[str]) -> dict[str, float]:
    """How something is written rather than what: twelve features in 0..1, all 0 for nothing.

    Rates are per message or per word and squashed by x / (1 + x).
    """
    full = [message.strip() for message in messages if _WORD.search(message)]
    if not full:
        return dict.fromkeys(STYLE_FEATURES, 0.0)
    text = "\n".join(full)
    words = _WORD.findall(text)
    n, w = len(full), len(words)
    plain = [word.lower().replace("’", "'") for word in words]
    rates = (
        w / n / 10,
        sum(map(len, words)) / w / 5,
        len(re.findall("[!！]", text)) / n,
        len(re.findall("[?？]", text)) / n,
        len(re.findall(r"\.\.\.|…", text)) / n,
        10 * len(re.findall("[,，、]", text)) / w,
        10 * sum(len(word) > 1 and word.isupper() for word in words) / w,
        sum(message[0].islower() for message in full) / n,
        10
        * sum(word in ("i", "me", "my", "mine", "myself", "我") or word.startswith("i'") for word in plain)
        / w,
        10 * sum("'" in word for word in plain) / w,
        sum(unicodedata.category(c) == "So" for c in text) / n,
        sum(not is_latin(word) and word.isalpha() for word in words) / w,
    )
    return {name: rate / (1 + rate) for name, rate in zip(STYLE_FEATURES, rates, strict=True)}


def text_style_embedding(messages: Sequence[str], meaning: Tensor, settings: Persona | None = None) -> Tensor:
    """`text_style_emb` (64,): how and about what somebody writes, of norm 0.1; zeros where there is nothing.

    meaning: (d,) the mean sentence embedding less that of the anchors. It and the style features, less those of the
    anchors, are scaled to norm 1 each and projected by a fixed matrix with orthonormal columns.
    """
    settings = settings or Persona()
    manner = torch.tensor(list(style_features(messages).values())) - _usual_style()
    parts = [torch.nn.functional.normalize(part, dim=0) for part in (manner, meaning.float())]
    joined = torch.cat(parts)
    projected = orthonormal(len(joined), settings.embedding_dim, settings.projection_seed).T @ joined
    return settings.embedding_norm * torch.nn.functional.normalize(projected, dim=0)


@functools.cache
def _usual_style() -> Tensor:
    return torch.tensor(list(style_features(_ANCHOR_TEXTS).values()))


def emotion_embedding(emotion: str | None, strength: float = 1.0) -> Tensor:
    """`emotion_emb` (4,): shares of neutral, happy, sad, angry that sum to 1; zeros for None, the seed's "no emotion".

    strength s in 0..1 lies between neutral and the emotion: (1 - s) neutral + s emotion. An adapter maps it to 64-d.
    Raises PersonaError on an unknown emotion or a strength that is not a number in 0..1.
    """
    if emotion is None:
        return torch.zeros(len(EMOTIONS))
    if emotion not in EMOTIONS:
        raise PersonaError(f"no emotion {emotion!r}: choose one of {', '.join(EMOTIONS)}, or None")
    if (
        isinstance(strength, bool)
        or not isinstance(strength, (int, float, np.number))
        or not 0 <= strength <= 1
    ):
        raise PersonaError(f"the strength of an emotion is {strength!r}; give a number from 0 to 1")
    shares = torch.zeros(len(EMOTIONS))
    shares[0] = 1 - strength
    shares[EMOTIONS.index(emotion)] += strength
    return shares


# Calibration: plain language to changes of traits

_CLAUSE_END = re.compile(r"[.!?;,，。！？；\n]|\bbut\b|但是?|不过")
_NOT = re.compile(r"n't\b|\b(?:not|never|no|without|stop|cannot)\b")
_LESS = re.compile(r"\b(?:less|reduce|lower|decrease)\b")
_TOO = re.compile(r"\b(?:too|overly)\b")
_MORE = re.compile(r"\b(?:more|increase|raise|higher)\b")
_CHINESE_LESS = re.compile(r"[少减别不没太]|降低|过于|过分")
_CHINESE_MORE = re.compile(r"更|再|增加|提高")
_CHINESE_ENOUGH = re.compile(r"不太?够")
_SLIGHTLY = re.compile(r"\b(?:bit|little|slightly|somewhat|touch)\b|一点|有点|稍微|一些|略")
_STRONGLY = re.compile(r"\b(?:much|far|lot|way|really|very)\b|得多|很多|非常|特别")
_TAIL = re.compile(
    r"\s*(?:enough|a bit|a little|a lot|得多|很多|[多少]?一[点些]|太多)"
)  # belongs to the word before it


def _feedback_pattern() -> tuple[re.Pattern[str], dict[str, tuple[str, int]]]:
    known, alternatives = {}, []
    for trait, poles in persona_words.FEEDBACK.items():
        for direction, words in zip((1, -1), poles, strict=True):
            for word in words:
                known[word] = (trait, direction)
    for word in sorted(known, key=len, reverse=True):
        if not word.isascii():
            alternatives.append(f"(?:{word})")
        elif word.endswith("y"):
            alternatives.append(rf"\b{word[:-1]}(?:y|ier|ily|iness)\b")
        elif word.endswith("e"):
            alternatives.append(rf"\b{re.escape(word)}(?:r|ly|ness)?\b")
        else:
            alternatives.append(rf"\b{re.escape(word)}(?:er|ly|ness)?\b")
    return re.compile("|".join(f"({a})" for a in alternatives)), known


def read_feedback(feedback: str, settings: Persona | None = None) -> dict[str, float]:
    """What plain-language feedback in English or Chinese asks for: trait -> change, before clamping.

    "more cheerful", "less nervous", "not warm enough", "too shy", "a bit calmer"; 更外向一点, 别那么紧张, 不够温柔.
    One wish moves a trait by `calibration_step`, half of it with "a bit", twice with "much"; a bare word means more of
    it. Wishes of one clause share its direction, unless each brings its own: "less shy and more polite".
    Raises PersonaError when it is not text, too long, or names nothing that is known.
    """
    settings = settings or Persona()
    if not isinstance(feedback, str):
        raise PersonaError(f"feedback is text, not {type(feedback).__name__}")
    if len(feedback) > 2000:
        raise PersonaError(f"the feedback has {len(feedback):,} characters; say it in at most 2,000")
    pattern, known = _feedback_pattern()
    order = sorted(known, key=len, reverse=True)
    changes: dict[str, float] = {}
    for clause in _CLAUSE_END.split(feedback.lower().replace("’", "'")):
        start, sign, degree = 0, 1.0, 1.0
        found = list(pattern.finditer(clause))
        for place, match in enumerate(found):
            before, rest = clause[start : match.start()], clause[match.end() :]
            if place + 1 < len(found):
                tail = _TAIL.match(rest)
                rest = tail[0] if tail else ""
            start = match.end() + len(rest)
            word = order[match.lastindex - 1]
            if word.isascii():
                told = _english_direction(before, rest, match[0] != word and match[0].endswith("er"))
            else:
                told = _chinese_direction(before, rest)
            if told is not None:
                sign, degree = told, 1.0
            if _SLIGHTLY.search(before + rest):
                degree = 0.5
            elif _STRONGLY.search(before + rest):
                degree = 2.0
            trait, direction = known[word]
            change = sign * degree * direction * settings.calibration_step
            changes[trait] = changes.get(trait, 0.0) + change
    if not changes:
        raise PersonaError(
            f"{feedback[:60]!r} names no trait that is known; say for instance 'more cheerful', 'less nervous', "
            "'a bit warmer', 更外向一点, 别那么紧张"
        )
    return changes


def _english_direction(before: str, after: str, comparative: bool) -> float | None:
    """1 for more, -1 for less, 0 for as it is, None where nothing says."""
    enough = after.lstrip().startswith("enough")
    if _NOT.search(before):
        return 1.0 if enough or _LESS.search(before) else -1.0
    if enough:
        return 0.0
    if _LESS.search(before) or _TOO.search(before):
        return -1.0
    return 1.0 if comparative or _MORE.search(before) else None


def _chinese_direction(before: str, after: str) -> float | None:
    around = (before + after).replace("特别", "")
    if _CHINESE_ENOUGH.search(around):
        return 1.0
    if _CHINESE_LESS.search(around):
        return -1.0
    return 1.0 if _CHINESE_MORE.search(around) else None


def calibrate(
    traits: Mapping[str, float], feedback: str, settings: Persona | None = None
) -> dict[str, float]:
    """The traits after feedback in plain language (`read_feedback`), held within -1..1; the others stay as they are.

    Raises PersonaError on traits that are not whole and on feedback that says nothing known.
    """
    changes = read_feedback(feedback, settings)
    return {
        trait: min(1.0, max(-1.0, value + changes.get(trait, 0.0))) for trait, value in _whole(traits).items()
    }
