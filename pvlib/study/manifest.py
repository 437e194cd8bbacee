"""The utterances of a study: read, validated, sampled, and turned into requests."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pvlib import audio, paths
from pvlib.config import PAPER
from pvlib.systems.base import Request
from pvlib.text import heard_until

COLUMNS = ("utterance", "speaker", "text", "words", "bucket", "audio", "clip", "seed")
BUCKETS = ("ultra-short", "short", "long")
ULTRA_SHORT_WORDS = 4  # at most
SHORT_WORDS = 8  # at most; the paper's "short" is both
DEMO = "demo"
# what reading a damaged .npz raises
DAMAGED = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, zlib.error)


class ManifestError(ValueError):
    """A manifest that is missing, incomplete or contradicts itself; the message names the file and the row."""


def bucket_of(words: int) -> str:
    """The text-length bucket of a sentence: at most 4 words, at most 8, more."""
    return BUCKETS[(words > ULTRA_SHORT_WORDS) + (words > SHORT_WORDS)]


@dataclass(frozen=True, eq=False)
class Manifest:
    """A table of utterances, the folder its sound lies in, and what is known of each speaker's voice.

    enrolment: speaker -> {"ecapa": (192,), "ge2e": (256,)}, the mean embedding of the speaker's other speech.
    ecapa_sha256: the weights that made the first of them ("" where there is no enrolment).
    """

    name: str
    table: pd.DataFrame
    folder: Path
    enrolment: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    ecapa_sha256: str = ""

    def sample(self, size: int | None = None, seed: int = 42) -> pd.DataFrame:
        """The first `size` utterances of a fixed order in which every beginning is a fair sample.

        Each prefix holds the buckets in the manifest's proportions (to within one utterance) and, among those, speakers
        as evenly as can be; in a manifest of a single bucket the numbers of words take the buckets' part. A smaller
        sample is part of a larger one. None takes all.
        Raises ManifestError on a size below 1 or above the manifest's.
        """
        size = len(self.table) if size is None else size
        if not 1 <= size <= len(self.table):
            raise ManifestError(
                f"{self.name}: a sample of {size} of {len(self.table)} utterances; choose 1 to all"
            )
        return self.table.iloc[_order(self.table, seed)[:size]].reset_index(drop=True)

    def reseeded(self, number: int) -> Manifest:
        """The same utterances from other noise: `number` is added to each seed."""
        return replace(self, table=self.table.assign(seed=self.table["seed"] + number))

    def requests(self, rows: pd.DataFrame | None = None) -> list[Request]:
        """Rows as requests, clips read from disk, their true words where the manifest has word times.

        Raises AudioError on a clip that cannot be read, ManifestError on a damaged file of word times.
        """
        rows = self.table if rows is None else rows
        impostors, times = _impostors(self.table), word_times(self.name)
        return [
            self._request(row, impostors[row.utterance], times.get(row.utterance))
            for row in rows.itertuples()
        ]

    def _request(
        self, row: object, impostor: tuple[str, str] | None, times: list[tuple[str, float, float]] | None
    ) -> Request:
        clip = audio.load(self.folder / row.clip)
        if len(clip) != audio.CLIP_SAMPLES:
            raise ManifestError(
                f"{self.folder / row.clip}: {len(clip)} samples at 24 kHz instead of {audio.CLIP_SAMPLES}; "
                f"{_remedy(paths.MANIFESTS / self.name, paths.DATA)}"
            )
        return Request(
            utterance=row.utterance,
            speaker=row.speaker,
            text=row.text,
            clip=clip,
            audio_path=self.folder / row.audio if row.audio else None,
            true_samples=int(row.samples) if "samples" in self.table else None,
            seed=int(row.seed),
            words=int(row.words),
            bucket=row.bucket,
            impostor_audio=self.folder / impostor[0] if impostor else None,
            impostor_text=impostor[1] if impostor else "",
            clip_text=None if times is None else heard_until(times, audio.CLIP_SECONDS),
        )


def read(name: str) -> Manifest:
    """A committed manifest, `data/manifests/<name>.csv`, with its enrolment embeddings where there are some.

    Raises ManifestError.
    """
    path = paths.MANIFESTS / f"{name}.csv"
    try:
        table = pd.read_csv(path, dtype={"utterance": str, "speaker": str}, keep_default_na=False)
    except FileNotFoundError as error:
        raise ManifestError(f"{path} is missing; {_remedy(path)}") from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read: {error}; {_remedy(path)}") from error
    check(table, path, paths.DATA)
    world = name.partition("-")[0]  # all manifests of one world share its speakers
    enrolment, sha256 = _enrolment(paths.MANIFESTS / f"{world}-enrolment.npz", table)
    return Manifest(name, table, paths.DATA, enrolment, sha256)


def word_times(name: str) -> dict[str, list[tuple[str, float, float]]]:
    """Utterance -> (word, start, end in s) of its true recording; empty where a manifest has no word times.

    Raises ManifestError when the file of word times is damaged.
    """
    path = paths.MANIFESTS / f"{name}-words.json"
    if not path.exists():
        return {}
    try:
        times = json.loads(path.read_text(encoding="utf-8"))
        return {
            utterance: [(str(word), float(start), float(end)) for word, start, end in words]
            for utterance, words in times.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} cannot be read ({error}); restore it with `git checkout -- {path}`"
        ) from error


def demo(seed: int = 0) -> Manifest:
    """The demo clip with its texts, which plays the part of the paper's `1111.mp3`: `data/samples/demo.*`.

    It has no true recordings and no enrolment. Raises ManifestError when it is missing.
    """
    path = paths.SAMPLES / "demo.json"
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))["texts"]
        rows = [(demo_name(item["name"]), item["text"], len(item["text"].split())) for item in texts]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path} is no demo table ({error}); restore it with `git checkout -- {path.parent}`"
        ) from error
    table = pd.DataFrame(rows, columns=["utterance", "text", "words"])
    table = table.assign(
        speaker=DEMO, bucket=table["words"].map(bucket_of), audio="", clip="demo.wav", seed=seed
    )
    return Manifest(DEMO, table, paths.SAMPLES)


def demo_name(name: str) -> str:
    """The utterance name of a demo text: "short, second" is demo-short_second."""
    return f"{DEMO}-{'_'.join(re.findall(r'[a-z0-9]+', name.lower()))}"


def check(table: pd.DataFrame, path: Path, folder: Path) -> None:
    """Raises ManifestError when columns or sound files are missing, names repeat, or words and buckets disagree."""
    if missing := [column for column in COLUMNS if column not in table]:
        raise ManifestError(f"{path}: no column {', '.join(missing)}")
    if table.empty:
        raise ManifestError(f"{path}: no utterances")
    if table["utterance"].duplicated().any():
        raise ManifestError(
            f"{path}: {table['utterance'][table['utterance'].duplicated()].iloc[0]} appears twice"
        )
    for row in table.itertuples():
        if row.words != len(row.text.split()) or row.bucket != bucket_of(row.words):
            raise ManifestError(f"{path}: {row.utterance}: words or bucket do not fit the text {row.text!r}")
        for file in (row.audio or row.clip, row.clip):  # not every recording is kept
            if not (folder / file).is_file():
                raise ManifestError(
                    f"{path}: {row.utterance}: {folder / file} is missing; {_remedy(path, paths.DATA)}"
                )


def _remedy(manifest: Path, lost: Path | None = None) -> str:
    """How to get back a manifest or what belongs to it: LibriTTS is prepared, all else is committed."""
    if manifest.name.startswith(PAPER.manifest.partition("-")[0]):
        return "make it with `pvlib data prepare`"
    return f"restore it with `git checkout -- {lost or manifest}`"


def sha256(name: str) -> str:
    """SHA-256 of a manifest's file."""
    return hashlib.sha256((paths.MANIFESTS / f"{name}.csv").read_bytes()).hexdigest()


def _enrolment(path: Path, table: pd.DataFrame) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    if not path.is_file():
        return {}, ""
    try:
        with np.load(path, allow_pickle=False) as file:
            speakers = [str(speaker) for speaker in file["speakers"]]
            ecapa, ge2e = file["ecapa"], file["ge2e"]
            made_by = str(file["ecapa_sha256"]) if "ecapa_sha256" in file else ""
        enrolment = {
            speaker: {"ecapa": ecapa[index], "ge2e": ge2e[index]} for index, speaker in enumerate(speakers)
        }
    except DAMAGED as error:
        raise ManifestError(f"{path} cannot be read ({error!r}); {_remedy(path)}") from error
    if absent := sorted(set(table["speaker"]) - set(speakers)):
        raise ManifestError(f"{path}: no embedding of speaker {absent[0]}; {_remedy(path)}")
    return enrolment, made_by


def _order(table: pd.DataFrame, seed: int) -> list[int]:
    """Row positions, buckets interleaved in proportion; within them the speaker used least comes first."""

    def lot(text: str) -> str:
        return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()

    left: dict[str, list[int]] = {}
    strata = table["bucket"] if table["bucket"].nunique() > 1 else table["words"].astype(str)
    for position, stratum in enumerate(strata):
        left.setdefault(stratum, []).append(position)
    turns = sorted(
        ((rank + 0.5) / len(positions), lot(stratum), stratum)
        for stratum, positions in left.items()
        for rank in range(len(positions))
    )
    used = dict.fromkeys(table["speaker"], 0)
    speakers, names = list(table["speaker"]), list(table["utterance"])
    order = []
    for _, _, stratum in turns:
        position = min(left[stratum], key=lambda p: (used[speakers[p]], lot(names[p])))
        left[stratum].remove(position)
        used[speakers[position]] += 1
        order.append(position)
    return order


def _impostors(table: pd.DataFrame) -> dict[str, tuple[str, str] | None]:
    """For each utterance another speaker's recording: (audio, text).

    The next speaker in sorted order, the sentence in the same position of that speaker's list; where it
    has the same text or does not exist, the speaker after that. None when no one else has another text.
    """
    by_speaker = {
        speaker: list(rows.sort_values("utterance").itertuples())
        for speaker, rows in table.groupby("speaker")
    }
    speakers = sorted(by_speaker)
    found: dict[str, tuple[str, str] | None] = {}
    for index, speaker in enumerate(speakers):
        others: Sequence[str] = speakers[index + 1 :] + speakers[:index]
        for position, row in enumerate(by_speaker[speaker]):
            found[row.utterance] = next(
                (
                    (by_speaker[other][position].audio, by_speaker[other][position].text)
                    for other in others
                    if position < len(by_speaker[other])
                    and by_speaker[other][position].text != row.text
                    and by_speaker[other][position].audio
                ),
                None,
            )
    return found
