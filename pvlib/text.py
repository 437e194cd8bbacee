"""Text as a model can read it: digits and signs spelled out, accents removed, letters in the model's alphabet."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Collection, Sequence

from unidecode import unidecode

MAX_TEXT_CHARS = 10_000
MARKS_BEHIND = " .,;:?!-'"  # what may stand behind the last word of a text

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_CURRENCIES = {"$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("pound", "pounds")}
_SIGNS = {"&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees"}
_MARKS = {  # with a space behind those that may stand between letters or digits without one: 1:100 is no 1,100
    "‘": "'",
    "’": "'",
    "ʼ": "'",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    ";": ", ",
    ":": ", ",
    "。": ". ",
    "，": ", ",
    "、": ", ",
    "！": "! ",
    "？": "? ",
    "；": ", ",
    "：": ", ",
}
_MUTE = '"()[]{}<>*_#|/\\~^`•·'  # marks without a sound: dropped without a word about it

_NUMBER = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<![^\s(\[\"'$€£-])\.\d+"
_MINUS = re.compile(
    r"(?<![^\s(\[\"'])-(?=[$€£]?\.?\d)"
)  # neither a range (3-5, 5%-10%) nor a dash with spaces
_MONEY = re.compile(rf"([$€£])\s?({_NUMBER})(?:\s(thousand|million|billion|trillion)\b)?", re.IGNORECASE)
_ORDINAL = re.compile(rf"(?<!\w)({_NUMBER})(?:st|nd|rd|th)\b", re.IGNORECASE)
_NUMBERS = re.compile(_NUMBER)


def heard_until(words: Sequence[tuple[str, float, float]], seconds: float) -> str:
    """What is heard of timed words before a cut; the word that it falls into keeps its first letters in proportion.

    words: (word, start, end) in seconds from the beginning. Returns them with spaces between, "" where none has begun.
    """
    heard = [
        word[: round(min(1.0, (seconds - begin) / max(end - begin, 1e-3)) * len(word))]
        for word, begin, end in words
        if begin < seconds
    ]
    return " ".join(filter(None, heard))


class TextError(ValueError):
    """Text that cannot be spoken; the message names it and what to do."""


class TextWarning(UserWarning):
    """Text of which a part is not spoken; the message names the part."""


def number_words(number: int) -> str:
    """0 to 999,999 in English words. Raises ValueError outside."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"{number} is outside 0 to 999,999")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = f" {number_words(number % unit)}" if number % unit else ""
    return f"{number_words(number // unit)} {name}{rest}"


def spell_numbers(text: str) -> str:
    """Digits in English words: "3rd" third, "1,000th" one thousandth, "2.5" two point five, "2.5th" two point fifth,
    ".5" point five, "$5" five dollars, "$5 million" five million dollars, "-5" minus five.

    Numbers beyond 999,999 and those with leading zeros are read digit by digit.
    """
    text = _MINUS.sub("minus ", text)
    text = _MONEY.sub(_money_words, text)
    text = _ORDINAL.sub(lambda match: f" {_ordinal_words(match[1])} ", text)
    return _NUMBERS.sub(lambda match: f" {_numeral_words(match[0])} ", text)


def normalise(text: str, vocabulary: Collection[str], name: str = "the text") -> str:
    """The text in characters of the model's vocabulary, spaces single.

    vocabulary: the characters that the model reads (longer entries, the official checkpoint's Chinese syllables, are
    no characters: Chinese is refused). Treatments, in this order: typographic marks become plain ones; signs and
    digits are spelled out in English where the vocabulary lacks them; so do capitals become small and accents of
    Latin letters fall; marks without a sound are dropped.
    What is still unknown is dropped with a TextWarning.
    Raises TextError naming the text when it is not a string, empty, over 10,000 characters, or when no letter
    remains (only punctuation, emoji, another script).
    """
    if not isinstance(text, str):
        raise TextError(f"{name} is {type(text).__name__}, not a string; give the words to speak")
    if not text.strip():
        raise TextError(f"{name} is empty; give the words to speak")
    if len(text) > MAX_TEXT_CHARS:
        raise TextError(
            f"{name} has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are taken: split it"
        )
    known = frozenset(vocabulary)
    spoken = unicodedata.normalize("NFC", text)
    spoken = "".join(c if c in known else _MARKS.get(c, c) for c in spoken)
    if "0" not in known:
        spoken = spell_numbers(spoken)
    spoken = "".join(c if c in known or c not in _SIGNS else f" {_SIGNS[c]} " for c in spoken)
    kept, dropped = [], []
    for character in spoken:
        plain = _plain(character, known)
        kept.append(plain or "")
        if plain is None:
            dropped.append(character)
    result = re.sub(r"\s+([,.?!])", r"\1", " ".join("".join(kept).split()))
    if not any(c.isalnum() for c in result):
        raise TextError(
            f"{name} {_excerpt(text)} has no letter that the model reads; give words in its language"
        )
    if dropped:
        lost = " ".join(dict.fromkeys(dropped))
        warnings.warn(f"{name} {_excerpt(text)}: not spoken: {lost[:60]}", TextWarning, stacklevel=2)
    return result


def _plain(character: str, known: frozenset[str]) -> str | None:
    """A character in the vocabulary's letters; "" and " " for what has no sound, None for what is unknown."""
    if character in known:
        return character
    if character.isspace() or character in _MUTE:
        return " "
    if character.lower() in known:
        return character.lower()
    category = unicodedata.category(character)
    if category == "Mn" or category.startswith("C"):  # loose accents, joiners, control characters
        return "" if category != "Cn" else None
    if unicodedata.name(character, "").startswith("LATIN"):
        letters = unidecode(character)
        for candidate in (letters, letters.lower()):
            if candidate and all(c in known for c in candidate):
                return candidate
    return None


def _numeral_words(numeral: str) -> str:
    whole, _, decimals = numeral.replace(",", "").partition(".")
    read_digits = len(whole) > 6 or (len(whole) > 1 and whole[0] == "0")
    words = _digit_words(whole) if read_digits or not whole else number_words(int(whole))
    return f"{words} point {_digit_words(decimals)}".lstrip() if decimals else words


def _digit_words(digits: str) -> str:
    return " ".join(_ONES[int(digit)] for digit in digits)


def _money_words(match: re.Match[str]) -> str:
    one, many = _CURRENCIES[match[1]]
    if match[3]:
        return f" {_numeral_words(match[2])} {match[3]} {many} "
    return f" {_numeral_words(match[2])} {one if match[2] == '1' else many} "


def _ordinal_words(numeral: str) -> str:
    words = _numeral_words(re.sub(r"^0+(?=\d)", "", numeral))
    head, separator, last = re.fullmatch(r"(?:(.*)([ -]))?(\w+)", words).groups(default="")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = f"{last.removesuffix('y')}ieth" if last.endswith("y") else f"{last}th"
    return f"{head}{separator}{last}"


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
