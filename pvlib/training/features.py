"""Log-mels of a whole split, computed once and kept as a memory-mapped file beside the corpus."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from pvlib import audio, paths
from pvlib.training.common import TrainingError, chosen_device
from pvlib.world import corpus as world


@dataclass(frozen=True)
class MelCache:
    """frames: (N, 100) float16 log-mels of all utterances in a row; offsets: (utterances + 1,)."""

    frames: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> list[int]:
        """Mel frames of each utterance."""
        return np.diff(self.offsets).tolist()

    def mel(self, i: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames start..stop of utterance i: (n, 100) float16."""
        first, last = int(self.offsets[i]), int(self.offsets[i + 1])
        return self.frames[first + start : last if stop is None else min(last, first + stop)]


def mel_cache(split: str) -> MelCache:
    """The log-mels (`audio.mel`) of a split; built with a progress bar when absent or of another corpus.

    The file is build/world/<split>.mel.npy; <split>.mel.json beside it names the corpus it was made of.
    Raises CorpusError when the corpus is missing, TrainingError when the file cannot be written.
    """
    corpus = world.open_split(split)
    samples = corpus.table["samples"].to_numpy(dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(samples // audio.HOP_LENGTH + 1)])
    path, card = paths.WORLD / f"{split}.mel.npy", paths.WORLD / f"{split}.mel.json"
    key = _fingerprint(corpus, samples)
    if not _matches(path, card, key):
        _build(corpus, split, offsets, path, card, key)
    return MelCache(np.load(path, mmap_mode="r"), offsets)


def on_device(mapped: np.ndarray, device: torch.device) -> torch.Tensor:
    """A mapped file as a tensor on a device; on the CPU it stays mapped, and must not be written to."""
    with warnings.catch_warnings():  # which torch dislikes of a file that is read-only
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped).to(device)


def pad(mels: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mels of unequal length side by side: (b, n, 100) float32 padded with zeros, and lengths (b,)."""
    lengths = torch.tensor([len(m) for m in mels])
    batch = torch.zeros(len(mels), int(lengths.max()), audio.N_MELS)
    for row, m in zip(batch, mels, strict=True):
        row[: len(m)] = torch.from_numpy(np.asarray(m, dtype=np.float32))
    return batch, lengths


def stretches(rows: torch.Tensor, starts: np.ndarray, size: int) -> torch.Tensor:
    """Stretches of `size` out of mapped rows (N, ...), from each of `starts` (b,) on: (b, size, ...) float32."""
    first = torch.from_numpy(starts).to(rows.device, non_blocking=True)
    return rows[first[:, None] + torch.arange(size, device=rows.device)].float()


def pieces(frames: torch.Tensor, starts: list[int], lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What `pad` gives for pieces of all frames of a split in a row (N, 100), on the device where those lie.

    starts, lengths: of each piece in frames, a whole number of at least 1.
    """
    first, count = torch.tensor([starts, lengths]).to(frames.device, non_blocking=True)
    place = torch.arange(max(lengths), device=frames.device)
    inside = place < count[:, None]
    rows = (first[:, None] + place).where(inside, 0)  # (b, n)
    mel = frames.index_select(0, rows.flatten()).float().unflatten(0, rows.shape)
    return mel.masked_fill(~inside[..., None], 0.0), count


def _fingerprint(corpus: world.Corpus, samples: np.ndarray) -> str:
    digest = hashlib.sha256(samples.tobytes())
    for i in np.linspace(0, len(samples) - 1, 9).astype(int):
        digest.update(corpus.wave(int(i)).tobytes())
    return digest.hexdigest()


def _matches(path: os.PathLike, card: os.PathLike, key: str) -> bool:
    try:
        with open(card) as file:
            return json.load(file)["corpus"] == key and os.path.getsize(path) > 0
    except (OSError, ValueError, KeyError):
        return False


def _build(corpus: world.Corpus, split: str, offsets: np.ndarray, path, card, key: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.float16, shape=(int(offsets[-1]), audio.N_MELS)
        )
        if hasattr(os, "posix_fallocate"):
            # that there is no room is an error here, and a signal once the file is mapped
            with open(partial, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(partial))
        device = chosen_device()
        for i in tqdm(range(len(corpus)), desc=f"mels of {split}", mininterval=5):
            mel = audio.mel(torch.from_numpy(corpus.wave(i)).to(device))[0].T
            frames[offsets[i] : offsets[i + 1]] = mel.half().cpu().numpy()
        frames.flush()
        del frames
        card.unlink(missing_ok=True)
        os.replace(partial, path)
        card_partial = card.with_name(f".{card.name}.{os.getpid()}.part")
        card_partial.write_text(json.dumps({"corpus": key}))
        os.replace(card_partial, card)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error}; free some space and run again") from error
    finally:
        partial.unlink(missing_ok=True)
