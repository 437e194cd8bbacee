"""Rules for the length of a text, given one second of its speaker, on development speakers, whose lengths are known.

Nothing is trained. `errors` and `priors` are what `Inference.letter_prior_seconds` and `letter_pause_seconds` were
chosen by: `python -m pvlib.training.durations`, after `pvlib world build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pvlib import laag
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE, AudioError
from pvlib.config import Inference
from pvlib.text import TextError
from pvlib.voice import PersonaVoice, Reference
from pvlib.world.corpus import Corpus, open_split
from pvlib.world.publish import clip

PRIORS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 100.0)
PAUSES = (0.0, 0.06, 0.09, 0.12, 0.15, 0.18)
RULES = ("official formula", "letters", "true length")


def references(voice: PersonaVoice, corpus: Corpus) -> dict[str, Reference]:
    """The one-second clip of each speaker's first utterance that can be cloned from: speaker -> reference."""
    found: dict[str, Reference] = {}
    for i, speaker in enumerate(corpus.table.speaker):
        if speaker not in found:
            try:
                found[speaker] = voice.reference(clip(corpus.wave(i)), name=f"the clip of {speaker}")
            except (AudioError, TextError):
                continue
    return found


def planned(
    voice: PersonaVoice, known: dict[str, Reference], texts: Sequence[Corpus], inference: Inference
) -> pd.DataFrame:
    """Every text of the splits by every rule: columns split, words, rule, seconds, true_seconds, error.

    error: the natural logarithm of seconds over true_seconds. The true length is rounded to whole frames, as an oracle
    has it. Texts of speakers without a reference are left out.
    """
    lines = []
    per_second = SAMPLE_RATE / HOP_LENGTH
    for corpus in texts:
        for row in corpus.table.itertuples():
            if row.speaker not in known:
                continue
            reference = known[row.speaker]
            frames, text = len(reference.wave) // HOP_LENGTH, f" {row.text}"
            letters = laag.letter_duration(frames, reference.text, text, inference, voice.backbone.seconds_of)
            made = (
                laag.duration(frames, reference.text, text, inference) - frames,
                letters - frames,
                row.samples // HOP_LENGTH,
            )
            true = row.samples / SAMPLE_RATE
            lines += [
                (corpus.split, len(row.text.split()), rule, n / per_second, true)
                for rule, n in zip(RULES, made, strict=True)
            ]
    table = pd.DataFrame(lines, columns=["split", "words", "rule", "seconds", "true_seconds"])
    return table.assign(error=np.log(table["seconds"] / table["true_seconds"]))


def errors(planned: pd.DataFrame) -> pd.DataFrame:
    """Root mean square error of each rule by number of words: 1 to 4, 5 to 8, more."""
    groups = planned["words"].where(planned["words"] <= 4, np.where(planned["words"] <= 8, "5-8", "more"))
    square = planned.assign(square=planned["error"] ** 2, length=groups.astype(str))
    return np.sqrt(square.pivot_table("square", "rule", "length", "mean")).loc[list(RULES)]


def priors(
    voice: PersonaVoice, known: dict[str, Reference], texts: Sequence[Corpus], inference: Inference
) -> pd.DataFrame:
    """Root mean square error of the letters on texts of at most 4 words: a line per prior, a column per pause."""
    found = {}
    for pause in PAUSES:
        for prior in PRIORS:
            other = replace(inference, letter_prior_seconds=prior, letter_pause_seconds=pause)
            made = planned(voice, known, texts, other)
            short = made[(made["rule"] == "letters") & (made["words"] <= 4)]
            found[prior, pause] = float(np.sqrt((short["error"] ** 2).mean()))
    table = pd.Series(found).unstack()
    return table.rename_axis(index="prior (s)", columns="pause (s)")


def main() -> None:
    """Print both tables."""
    voice = PersonaVoice.load("mini")
    dev = open_split("dev")
    known = references(voice, dev)
    texts = [dev, open_split("dev-short")]
    print(priors(voice, known, texts, voice.inference).round(4).to_string())
    print(errors(planned(voice, known, texts, voice.inference)).round(3).to_string())


if __name__ == "__main__":
    main()
