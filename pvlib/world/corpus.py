"""The corpus on disk: one file of 16-bit samples and one line of JSON per utterance, for each split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from pvlib import paths


class CorpusError(RuntimeError):
    """The corpus is missing or cut short; the message says what to run."""


class Corpus:
    """A split of the mini world, read-only.

    table: one row per utterance (utterance, speaker, base_voice, accent, room, place, snr_db, emotion, strength,
    five traits, text, offset, samples).
    """

    def __init__(self, folder: Path, split: str):
        index, sound = folder / f"{split}.jsonl", folder / f"{split}.pcm"
        if not index.exists() or not sound.exists():
            raise CorpusError(f"{index} is not there: run `pvlib world build`")
        self.split = split
        try:
            with index.open() as file:
                rows = [json.loads(line) for line in file]
            self._words = [row.pop("word_times") for row in rows]
            self.table = pd.DataFrame(rows)
            needed = int(self.table.samples.sum()) * 2  # they follow one another
        except (ValueError, KeyError, AttributeError) as error:
            raise CorpusError(f"{index} is damaged ({error}); run `pvlib world build --force`") from error
        if sound.stat().st_size != needed:
            raise CorpusError(
                f"{sound} holds {sound.stat().st_size} bytes where its index needs {needed}: it was cut short; "
                "run `pvlib world build --force`"
            )
        self._sound = np.memmap(sound, dtype=np.int16, mode="r")

    def __len__(self) -> int:
        return len(self.table)

    def wave(self, i: int) -> np.ndarray:
        """Utterance i: (samples,) float32 at 24 kHz."""
        offset, samples = int(self.table.offset.iat[i]), int(self.table.samples.iat[i])
        return self._sound[offset : offset + samples].astype(np.float32) / 32768

    @property
    def sound(self) -> np.ndarray:
        """All utterances in a row: (samples of the split,) int16, mapped; `table.offset` says where each begins."""
        return self._sound

    def words(self, i: int) -> list[tuple[str, float, float]]:
        """The words of utterance i with start and end in seconds."""
        return [tuple(word) for word in self._words[i]]

    @property
    def hours(self) -> float:
        """Hours of speech."""
        return float(self.table.samples.sum()) / 24_000 / 3600


def open_split(split: str) -> Corpus:
    """A split of the built world: one of `build.SPLITS`. Raises CorpusError."""
    return Corpus(paths.WORLD, split)
