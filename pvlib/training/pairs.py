"""Where the adapters' trainer takes its rows: a clip of a speaker, and another sentence of the same speaker.

`Source` is what the trainer asks for; `Pairs` is the mini world's, `libritts.LibriPairs` that of recorded speech.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pvlib import audio, backbone, hub, laag, paths, persona
from pvlib.adapters import Conditions, tempo_input
from pvlib.config import TRAITS, Profile
from pvlib.text import MARKS_BEHIND
from pvlib.training import backbone as pretraining
from pvlib.training.common import Speech, TrainingError, chosen_device
from pvlib.training.features import pad
from pvlib.training.recognizer import first_second
from pvlib.world import corpus as world

NAME = "adapters"
STUDIO = "studio"
CLIPS_PER_SPEAKER = 8  # neutral ones, whose first seconds are embedded
EMOTIONAL_TIMES = 3  # as often as a neutral sentence: each emotion is then a fifth of the rows


@dataclass(frozen=True)
class FirstSeconds:
    """embedding: (k, 192) of the clips; rooms, speakers, places ("room number", an impulse response): of each."""

    embedding: Tensor
    rooms: list[str]
    speakers: list[str]
    places: list[str]


class Source(Protocol):
    """Rows to train on, by the number of the sentence.

    lengths: mel frames of each sentence; to_studio, in_room: the sentences of steps with env_weight 0 and 1. data: what
    the card says of it; rooms: the classes that OES learns; unlabelled: parts of the condition that are always zero.
    """

    model: backbone.Backbone
    corpus: Speech
    data: str
    lengths: list[int]
    to_studio: list[int]
    in_room: list[int]
    rooms: list[str]
    unlabelled: tuple[str, ...]

    def batch(self, sentences: list[int], env_weight: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Rows of one step; see `Pairs.batch`."""
        ...

    def first_seconds(self) -> FirstSeconds:
        """The clips, for OES."""
        ...

    def tempos(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """What tempo depends on in each sentence (`adapters.tempo_input`), the log of how many times as long as usual
        it lasts, (n,), and its speaker's number, (n,); None where the speech has no such labels."""
        ...

    def dev(self) -> Source:
        """The same of other speakers."""
        ...


class Pairs:
    """Clip and sentence of one speaker of the mini world, by the number of the sentence."""

    data = "the mini world, train split: a second of a speaker, then another sentence of the same"
    unlabelled = ("style",)  # the world's texts have no style

    def __init__(self, split: str, profile: Profile, model: backbone.Backbone, limit: int | None = None):
        self.rows = pretraining.Rows(split, model, limit, profile)
        self.profile, self.model = profile, model
        table = self.rows.corpus.table.iloc[:limit]
        long = table["samples"].to_numpy() >= audio.CLIP_SAMPLES
        heard = [
            first_second(self.rows.corpus.words(i), profile.recognizer.alphabet) if long[i] else ""
            for i in range(len(table))
        ]
        self.heard = heard
        self.corpus = self.rows.corpus
        usable = np.array([bool(text) for text in heard])
        self.table = table
        self.rooms = sorted(set(table["room"]))
        speakers, rooms = table["speaker"].to_numpy(), table["room"].to_numpy()
        neutral = table["emotion"].to_numpy() == "neutral"
        clips = _clips(speakers, rooms, usable & neutral)
        self.clips: list[tuple[np.ndarray, np.ndarray]] = []  # of each sentence: anywhere, and in its room
        of = {name: clips[speakers[clips] == name] for name in set(speakers)}
        for i in range(len(table)):
            others = of[speakers[i]][of[speakers[i]] != i]
            self.clips.append((others, others[rooms[others] == rooms[i]]))
        studio = rooms == STUDIO
        often = np.repeat(np.arange(len(table)), np.where(neutral, 1, EMOTIONAL_TIMES))
        self.to_studio = [int(i) for i in often if studio[i] and len(self.clips[i][0])]
        self.in_room = [int(i) for i in often if len(self.clips[i][1])]
        if not self.to_studio or not self.in_room:
            raise TrainingError(
                "no speaker of the corpus has a neutral clip beside another sentence in the studio and in one "
                "room; build a larger corpus (`pvlib world build`)"
            )
        self.embeddings = embeddings(split, profile, clips.tolist())
        self.lengths = self.rows.lengths
        settings = replace(profile.persona, keep_strength=True)  # the corpus has faint personas too
        self.personas = torch.stack(
            [
                persona.persona_embedding({t: float(row[t]) for t in TRAITS}, settings)
                for _, row in table.iterrows()
            ]
        )
        self.emotions = torch.stack(
            [
                persona.emotion_embedding(e, float(s))
                for e, s in zip(table["emotion"], table["strength"], strict=True)
            ]
        )

    def batch(self, sentences: list[int], env_weight: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Rows of one step: mel (b, m, 100), frames (b,), text (b, nt), alignment (b, n), clip tokens (b,), Conditions.

        sentences: their numbers; env_weight: 0 takes clips of any room, 1 of the sentence's own.
        """
        cfm, corpus, model = self.model.cfm, self.rows.corpus, self.model
        mels, items, trues, clips = [], [], [], []
        for i in sentences:
            j = int(rng.choice(self.clips[i][env_weight]))
            clips.append(j)
            clip = np.asarray(self.rows.cache.mel(j, 0, audio.CLIP_FRAMES), dtype=np.float32)
            clip = clip[: len(clip) // cfm.stack * cfm.stack]
            sentence = np.asarray(self.rows.cache.mel(i), dtype=np.float32)
            mels.append(np.concatenate([clip, sentence]))
            heard = laag.boundary(self.heard[j])
            items.append(
                backbone.Item(
                    torch.from_numpy(clip), heard, corpus.table.text.iat[i], len(clip) + len(sentence)
                )
            )
            true = self.rows.alignment(i)
            trues.append(torch.where(true >= 0, true + len(heard), -1))
        mel, frames = pad(mels)
        known = torch.tensor([cfm.tokens(len(item.mel)) for item in items])
        index = model.alignment_of(items)
        if index is not None:
            index = index.cpu()
            for row, true in enumerate(trues):
                index[row, known[row] : known[row] + len(true)] = true
        text = model.encode([item.reference_text + item.text for item in items])
        conditions = Conditions(
            torch.stack([self.embeddings[j] for j in clips]),
            self.personas[sentences],
            torch.zeros(len(sentences), self.profile.adapters.style_dim),
            self.emotions[sentences],
        )
        return mel, frames, text, index, known, conditions

    def first_seconds(self) -> FirstSeconds:
        """The clips that were embedded, in the order of their numbers."""
        known = sorted(self.embeddings)
        rows = self.table.iloc[known]
        embedding = torch.stack([self.embeddings[i] for i in known])
        places = (rows["room"] + " " + rows["place"].astype(str)).tolist()
        return FirstSeconds(embedding, rows["room"].tolist(), rows["speaker"].tolist(), places)

    def tempos(self) -> tuple[Tensor, Tensor, Tensor]:
        """From the first to the last word, against what the letters of average speech would last."""
        corpus, n = self.rows.corpus, len(self.table)
        texts = [text.rstrip(MARKS_BEHIND) for text in self.table["text"]]
        expected = torch.tensor([self.model.seconds_of(text) for text in texts])
        words = [corpus.words(i) for i in range(n)]
        lasts = torch.tensor([said[-1][2] - said[0][1] for said in words])
        speaker = torch.from_numpy(pd.factorize(self.table["speaker"])[0])
        said = tempo_input(self.personas, self.emotions)
        return said, (lasts / expected.clamp(min=1e-3)).log(), speaker

    def dev(self) -> Pairs:
        """The dev split: other speakers, other sentences."""
        return Pairs("dev", self.profile, self.model)


def _clips(speakers: np.ndarray, rooms: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Up to CLIPS_PER_SPEAKER usable utterances of each speaker, from as many rooms as there are: sorted numbers."""
    found = pd.DataFrame({"i": np.flatnonzero(usable), "speaker": speakers[usable], "room": rooms[usable]})
    turn = found.groupby(["speaker", "room"]).cumcount()
    found = found.assign(turn=turn).sort_values(["speaker", "turn", "i"], kind="stable")
    return np.sort(found.groupby("speaker").head(CLIPS_PER_SPEAKER)["i"].to_numpy())


def embeddings(split: str, profile: Profile, utterances: list[int]) -> dict[int, Tensor]:
    """The speaker embedding of the first second of each utterance, kept beside the training state.

    Minutes of work on first use, with a progress bar; used again while encoder, corpus and utterances are the same.
    """
    corpus = world.open_split(split)
    made_of = [hub.fingerprint("speaker_encoder", profile), corpus.table[["utterance", "samples"]].to_csv()]
    key = hashlib.sha256(repr((made_of, utterances)).encode()).hexdigest()[:16]
    path = paths.TRAINING / NAME / f"first-seconds-{split}-{key}.npy"
    if not path.exists():
        encoder, parts = hub.load_speaker_encoder(profile, chosen_device()), []
        for first in tqdm(range(0, len(utterances), 64), desc=f"first seconds of {split}", mininterval=5):
            waves = [corpus.wave(i)[: audio.CLIP_SAMPLES] for i in utterances[first : first + 64]]
            parts.append(encoder.embed(waves).float().cpu().numpy())
        with paths.appearing(path) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate(parts))
    return dict(zip(utterances, torch.from_numpy(np.load(path)), strict=True))
