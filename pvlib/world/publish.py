"""Write what the repository keeps of the mini world: manifests, audio, trials, embeddings, the demo clip.

Everything is read off the built corpus, so this is run again when the world or the speaker encoder changes.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import audio, hub, paths
from pvlib.config import MINI, Profile
from pvlib.speaker import GE2E
from pvlib.study.manifest import bucket_of
from pvlib.world.corpus import Corpus, open_split

DEMO_TEXTS = {  # the four texts of the paper's 1111.mp3 table, by their lengths
    "short": "the sky is.",
    "short, second": "a red boat.",
    "medium": "we sing at night.",
    "long": "the quiet river carried our little boat past the old bridge, and the captain promised a warm supper "
    "behind the harbor.",
}
DIFFERENT_PER_SAME = 5


def publish(profile: Profile = MINI) -> None:
    """Write manifest, clips, utterances, word times, trials and demo; embeddings where the encoder is at hand."""
    test = open_split("test")
    folder = paths.DATA / "audio" / profile.name
    rows = [_utterance_row(test, i, folder) for i in tqdm(range(len(test)), desc="test audio", mininterval=2)]
    table = pd.DataFrame(rows)
    _write_table(paths.MANIFESTS / f"{profile.manifest}.csv", table)
    words = {row["utterance"]: test.words(i) for i, row in enumerate(rows)}
    _write_json(paths.MANIFESTS / f"{profile.manifest}-words.json", words)
    _write_table(paths.MANIFESTS / f"{profile.name}-ultra-short.csv", ultra_short(table))
    _write_table(paths.MANIFESTS / "mini-trials.csv", trials(table))
    _scrambled(folder)
    _demo()


def _utterance_row(corpus: Corpus, i: int, folder) -> dict:
    row, wave = corpus.table.iloc[i], corpus.wave(i)
    name = row.utterance
    audio.write(folder / f"{name}.ogg", wave)
    audio.write(folder / "clips" / f"{name}.flac", clip(wave))
    count = len(row.text.split())
    return {
        "utterance": name,
        "speaker": row.speaker,
        "base_voice": row.base_voice,
        "accent": row.accent,
        "room": row.room,
        "snr_db": row.snr_db,
        "emotion": row.emotion,
        "text": row.text,
        "words": count,
        "bucket": bucket_of(count),
        "seconds": round(len(wave) / audio.SAMPLE_RATE, 4),
        "audio": f"audio/{folder.name}/{name}.ogg",
        "clip": f"audio/{folder.name}/clips/{name}.flac",
        "seed": _seed(name),
    }


def ultra_short(table: pd.DataFrame) -> pd.DataFrame:
    """The manifest of the split test-short, texts of one to four words; table: of the test set.

    Each row speaks from the clip of its speaker's first test utterance. The true recordings are too many to keep:
    `audio` is empty, and what stays of them is `samples`, their length at 24 kHz.
    """
    corpus = open_split("test-short")
    clips = table.sort_values("utterance").groupby("speaker")["clip"].first()
    rows = []
    for row in corpus.table.itertuples():
        count = len(row.text.split())
        rows.append(
            {
                **{name: getattr(row, name) for name in ("utterance", "speaker", "base_voice", "accent")},
                **{name: getattr(row, name) for name in ("room", "snr_db", "emotion", "text")},
                "words": count,
                "bucket": bucket_of(count),
                "seconds": round(row.samples / audio.SAMPLE_RATE, 4),
                "samples": row.samples,
                "audio": "",
                "clip": clips[row.speaker],
                "seed": _seed(row.utterance),
            }
        )
    return pd.DataFrame(rows)


def _seed(utterance: str) -> int:
    return int(hashlib.sha256(utterance.encode()).hexdigest()[:7], 16)


def clip(wave: np.ndarray) -> np.ndarray:
    """The first second, as the paper's evaluation cuts it; a shorter utterance is followed by silence."""
    return np.pad(wave, (0, max(0, audio.CLIP_SAMPLES - len(wave))))[: audio.CLIP_SAMPLES]


def trials(table: pd.DataFrame) -> pd.DataFrame:
    """Verification pairs in different rooms: every same-speaker pair, and five different-speaker pairs for each."""
    rng = np.random.default_rng(MINI.seed)
    names, people, rooms = (table[c].tolist() for c in ("utterance", "speaker", "room"))
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if rooms[i] != rooms[j]]
    same = [p for p in pairs if people[p[0]] == people[p[1]]]
    other = [p for p in pairs if people[p[0]] != people[p[1]]]
    chosen = rng.choice(len(other), size=DIFFERENT_PER_SAME * len(same), replace=False)
    rows = [(1, *p) for p in same] + [(0, *other[k]) for k in sorted(chosen)]
    return pd.DataFrame(
        [(label, names[i], names[j]) for label, i, j in rows], columns=["label", "first", "second"]
    )


def _scrambled(folder) -> None:
    corpus = open_split("test-scrambled")
    rows = []
    for i in range(len(corpus)):
        row = corpus.table.iloc[i]
        audio.write(folder / "scrambled" / f"{row.utterance}.ogg", corpus.wave(i))
        path = f"audio/{folder.name}/scrambled/{row.utterance}.ogg"
        rows.append({"utterance": row.utterance, "speaker": row.speaker, "text": row.text, "audio": path})
    _write_table(paths.MANIFESTS / "mini-scrambled.csv", pd.DataFrame(rows))


def _demo() -> None:
    """One studio second of a dev speaker, who is in neither training nor test."""
    dev = open_split("dev")
    studio = dev.table.index[(dev.table.room == "studio") & (dev.table.emotion == "neutral")]
    wave = dev.wave(int(studio[dev.table.samples[studio] > 3 * audio.CLIP_SAMPLES][0]))
    audio.write(paths.SAMPLES / "demo.wav", clip(wave))
    _write_json(
        paths.SAMPLES / "demo.json", {"texts": [{"name": k, "text": v} for k, v in DEMO_TEXTS.items()]}
    )


def enrol(profile: Profile = MINI) -> None:
    """Mean embeddings of each test speaker's other speech, by both encoders, with the hash of ours."""
    corpus = open_split("test-enrol")
    encoders = {"ecapa": hub.load_speaker_encoder(profile, torch.device("cpu")), "ge2e": GE2E()}
    people = sorted(set(corpus.table.speaker))
    means: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    for person in tqdm(people, desc="enrolment"):
        waves = [corpus.wave(i) for i in np.flatnonzero(np.array(corpus.table.speaker.tolist()) == person)]
        for name, encoder in encoders.items():
            mean = encoder.embed(waves).mean(0)
            means[name].append((mean / mean.norm()).numpy())
    weights = paths.CHECKPOINTS / profile.name / "speaker_encoder.safetensors"
    path = paths.MANIFESTS / f"{profile.name}-enrolment.npz"
    with paths.appearing(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            speakers=np.array(people),
            **{name: np.stack(rows).astype(np.float32) for name, rows in means.items()},
            ecapa_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        )


def _write_json(path, value) -> None:
    with paths.appearing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n")


def _write_table(path, table: pd.DataFrame) -> None:
    with paths.appearing(path) as partial:
        table.to_csv(partial, index=False)
