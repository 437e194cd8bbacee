"""Word error rate: normalised as Whisper's evaluation does, uncapped, capped and over a whole corpus."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import jiwer


class EmptyReference(ValueError):
    """A reference text without a word left after normalisation: no error rate can be taken against it."""


@lru_cache(maxsize=1)
def _normaliser():
    from whisper.normalizers import EnglishTextNormalizer

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Lower case, no punctuation, contractions and numbers spelled one way (Whisper's English normaliser).

    What it leaves of a row of dots is no word and is removed here.
    """
    return " ".join(word for word in _normaliser()(text).split() if any(map(str.isalnum, word)))


def _reference(text: str) -> str:
    words = normalise(text)
    if not words:
        raise EmptyReference(f"no word is left of the reference text {text!r}; remove it from the manifest")
    return words


def count(reference: str, hypothesis: str) -> tuple[int, int]:
    """Word errors (substitutions, deletions, insertions together) and words of the reference, both normalised.

    Raises EmptyReference.
    """
    words = _reference(reference)
    out = jiwer.process_words(words, normalise(hypothesis))
    return out.substitutions + out.deletions + out.insertions, len(words.split())


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate of one utterance, at least 0, above 1 when words were added. Raises EmptyReference."""
    errors, words = count(reference, hypothesis)
    return errors / words


def capped(value: float) -> float:
    """The paper's per-utterance error rate: never above 1."""
    return min(value, 1.0)


def corpus_wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """All word errors over all reference words. Raises EmptyReference, or ValueError on unequal lengths or none."""
    counts = [count(r, h) for r, h in zip(references, hypotheses, strict=True)]
    if not counts:
        raise ValueError("no utterances: the corpus error rate needs at least one")
    return sum(errors for errors, _ in counts) / sum(words for _, words in counts)
