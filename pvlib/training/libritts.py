"""Rows for the adapters of the official backbone: LibriTTS, which is recorded and labelled with text and speaker only.

Which room a recording was made in is not known, so the rooms are ours: each clip stays as it was recorded or is put
into a simulated place (`world.rooms`), and that label is what OES learns. The studio, env_weight 0, is the recording
as it is; env_weight 1 is the clip's place. What the clip says is what the profile's recogniser hears of its second, as
it is when a voice is cloned. Nobody labelled emotion or persona: these stay zero and FiLM learns nothing about them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pvlib import audio, backbone, hub, laag, paths, text
from pvlib.adapters import Conditions
from pvlib.config import EMOTIONS, Profile
from pvlib.study import libritts, manifest
from pvlib.training.common import TrainingError
from pvlib.training.features import pad
from pvlib.training.pairs import CLIPS_PER_SPEAKER, NAME, STUDIO, FirstSeconds
from pvlib.world.rooms import ROOMS, TEST_PLACES, TRAIN_PLACES, place_in

AS_RECORDED = "as recorded"
PLACES = (AS_RECORDED, *(room for room in ROOMS if room != STUDIO))
LONGEST_SECONDS = 20.0  # of a sentence; attention takes memory by the square of the length
DEV_SHARE = 0.1  # of the speakers
REMEDY = "name the folder of a whole LibriTTS subset, such as LibriTTS/train-clean-100"


class Clip(NamedTuple):
    """The first second of an utterance (its number), and where it is heard."""

    utterance: int
    room: str
    place: int


class LibriPairs:
    """Clip and sentence of one speaker of a LibriTTS tree, by the number of the sentence."""

    unlabelled = ("persona", "style", "emotion")
    rooms = sorted(PLACES)

    def __init__(self, tree: Path, split: str, profile: Profile, model: backbone.Backbone):
        """split: "train", or "dev", a tenth of the speakers in other places of the rooms.

        Speakers of the profile's test set are left out. Raises DataError on a damaged tree, TrainingError where the
        test set is not prepared or too few speakers are left.
        """
        self.tree, self.split, self.profile, self.model, self.corpus = tree, split, profile, model, self
        self.data = (
            f"{tree.name} of LibriTTS without the speakers of the test set: a second of a speaker, then another "
            "sentence of the same; simulated rooms, no labels of emotion and persona"
        )
        self.table = _of_split(libritts.utterances(tree, REMEDY), split, profile, tree)
        self.lengths = [int(s * audio.SAMPLE_RATE) // audio.HOP_LENGTH + 1 for s in self.table["seconds"]]
        chosen = _clips(self.table, split, profile.seed)
        self.clips, self.heard, self.embedding = self._listen(chosen)
        own: dict[str, list[int]] = {}
        for j, clip in enumerate(self.clips):
            own.setdefault(self.table["speaker"].iat[clip.utterance], []).append(j)
        self.choices = [  # of each sentence: the clips of its speaker that were not cut from it
            [j for j in own.get(speaker, []) if self.clips[j].utterance != i]
            for i, speaker in enumerate(self.table["speaker"])
        ]
        self.to_studio = self.in_room = [i for i, choice in enumerate(self.choices) if choice]
        if not self.in_room:
            raise TrainingError(f"{tree}: no speaker has two utterances with words in them; {REMEDY}")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def hours(self) -> float:
        """Hours of speech."""
        return float(self.table["seconds"].sum()) / 3600

    def dev(self) -> LibriPairs:
        """The speakers that are not trained on."""
        return LibriPairs(self.tree, "dev", self.profile, self.model)

    def tempos(self) -> None:
        """Nobody labelled how a sentence of LibriTTS is said."""

    def first_seconds(self) -> FirstSeconds:
        """The clips, each in its room."""
        speakers = [self.table["speaker"].iat[clip.utterance] for clip in self.clips]
        places = [f"{clip.room} {clip.place}" for clip in self.clips]
        return FirstSeconds(self.embedding, [clip.room for clip in self.clips], speakers, places)

    def batch(self, sentences: list[int], env_weight: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Rows of one step, as `Pairs.batch`. env_weight: 0 leaves sentences as recorded, 1 is the clip's place."""
        stack = self.model.cfm.stack
        mels, items, clips = [], [], []
        for i in sentences:
            j = int(rng.choice(self.choices[i]))
            wave = self._wave(i)
            if env_weight:
                wave = self._placed(wave, self.clips[j], rng)
            clip, sentence = (_mel(sound) for sound in (self._second(self.clips[j]), wave))
            clip = clip[: len(clip) // stack * stack]
            said = text.normalise(self.table["text"].iat[i], self.model.vocabulary)
            frames = len(clip) + len(sentence)
            mels.append(np.concatenate([clip, sentence]))
            items.append(backbone.Item(torch.from_numpy(clip), self.heard[j], said, frames))
            clips.append(j)
        mel, frames = pad(mels)
        known = torch.tensor([self.model.cfm.tokens(len(item.mel)) for item in items])
        letters = self.model.encode([item.reference_text + item.text for item in items])
        sizes = self.profile.adapters
        nothing = (torch.zeros(len(clips), n) for n in (sizes.persona_dim, sizes.style_dim, len(EMOTIONS)))
        conditions = Conditions(self.embedding[clips], *nothing)
        return mel, frames, letters, self.model.alignment_of(items), known, conditions

    def _wave(self, i: int) -> np.ndarray:
        return audio.load(libritts.source(self.tree, self.table["utterance"].iat[i]))

    def _second(self, clip: Clip) -> np.ndarray:
        """The clip as it is heard, the same each time."""
        rng = np.random.default_rng([self.profile.seed, clip.utterance])
        return self._placed(self._wave(clip.utterance)[: audio.CLIP_SAMPLES], clip, rng)

    def _placed(self, wave: np.ndarray, clip: Clip, rng: np.random.Generator) -> np.ndarray:
        if clip.room == AS_RECORDED:
            return wave
        return place_in(wave, clip.room, clip.place, self.profile.seed, rng)[0]

    def _listen(self, chosen: list[Clip]) -> tuple[list[Clip], list[str], Tensor]:
        """The clips in which words are heard, what is heard, and their embeddings (k, 192).

        Kept beside the training state, and used again while models, corpus and clips are the same.
        """
        named = [(self.table["utterance"].iat[clip.utterance], *clip) for clip in chosen]
        models = [hub.fingerprint(name, self.profile) for name in ("recognizer", "speaker_encoder")]
        key = hashlib.sha256(repr((models, named, self.profile.seed)).encode()).hexdigest()[:16]
        path = paths.TRAINING / f"{self.profile.name}-{NAME}" / f"first-seconds-{self.split}-{key}.npz"
        if not path.exists():
            heard, embedding = self._heard(chosen)
            try:
                with paths.appearing(path) as partial, partial.open("wb") as file:
                    np.savez(file, heard=np.array(heard), embedding=embedding)
            except OSError as error:
                raise TrainingError(
                    f"cannot write {path}: {error}; make room, or point PVLIB_BUILD at another disk"
                ) from error
        try:
            with np.load(path, allow_pickle=False) as file:
                heard, embedding = file["heard"].tolist(), torch.from_numpy(file["embedding"])
        except manifest.DAMAGED as error:
            raise TrainingError(f"{path} cannot be read ({error!r}); delete it and run again") from error
        kept = [k for k, words in enumerate(heard) if words]
        return [chosen[k] for k in kept], [heard[k] for k in kept], embedding[kept]

    def _heard(self, chosen: list[Clip]) -> tuple[list[str], np.ndarray]:
        """What the recogniser hears in each clip, closed off ("" where nothing), and its embedding (n, 192)."""
        device = self.model.device
        encoder, recogniser = (
            load(self.profile, device) for load in (hub.load_speaker_encoder, hub.load_recognizer)
        )
        heard, parts = [], []
        for first in tqdm(range(0, len(chosen), 64), desc=f"first seconds of {self.split}", mininterval=5):
            waves = [self._second(clip) for clip in chosen[first : first + 64]]
            parts.append(encoder.embed(waves).float().cpu().numpy())
            heard += [self._closed(words) for words in recogniser.transcribe(waves)]
        return heard, np.concatenate(parts)

    def _closed(self, words: str) -> str:
        try:
            return laag.boundary(text.normalise(words, self.model.vocabulary))
        except text.TextError:
            return ""


def _mel(wave: np.ndarray) -> np.ndarray:
    """(m, 100) float32."""
    return audio.mel(torch.from_numpy(wave))[0].T.numpy()


def _of_split(table: pd.DataFrame, split: str, profile: Profile, tree: Path) -> pd.DataFrame:
    """The utterances of a split. Dev speakers are drawn by lot from those that are not in the test set."""
    path = paths.MANIFESTS / f"{profile.manifest}.csv"
    if not path.is_file():
        raise TrainingError(
            f"{path} is not there, and nobody can tell which speakers are tested; run `pvlib data prepare` first"
        )
    tested = set(manifest.read(profile.manifest).table["speaker"])
    if (drawn_from := libritts.folder() / libritts.SPLIT).is_dir():  # a larger test set may take any of them
        tested |= {place.name for place in drawn_from.iterdir() if place.is_dir()}
    everyone = set(table["speaker"])
    people = sorted(everyone - tested, key=lambda s: hashlib.sha256(f"{profile.seed}:{s}".encode()).digest())
    dev = round(DEV_SHARE * len(people)) or 1
    if len(people) <= dev:
        raise TrainingError(
            f"{tree} has {len(everyone)} speakers, {len(everyone & tested)} of them in the test set, so none is left "
            f"to train on; {REMEDY}"
        )
    kept = people[:dev] if split == "dev" else people[dev:]
    return table[table["speaker"].isin(kept) & (table["seconds"] <= LONGEST_SECONDS)].reset_index(drop=True)


def _clips(table: pd.DataFrame, split: str, seed: int) -> list[Clip]:
    """Up to CLIPS_PER_SPEAKER utterances of each speaker by lot, each in another room, all rooms in turn."""
    lots = [hashlib.sha256(f"{seed}:clip:{name}".encode()).hexdigest() for name in table["utterance"]]
    found = []
    for turn, (_, rows) in enumerate(table.assign(lot=lots).groupby("speaker")):
        for k, i in enumerate(rows.sort_values("lot").index[:CLIPS_PER_SPEAKER]):
            rng = np.random.default_rng([seed, 5, int(i)])
            train, test = rng.integers(TRAIN_PLACES), TRAIN_PLACES + rng.integers(TEST_PLACES)
            room = PLACES[(turn + k) % len(PLACES)]
            found.append(Clip(int(i), room, int(test if split == "dev" else train)))
    return found
