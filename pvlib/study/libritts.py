"""The test set of the paper profile: 200 utterances of LibriTTS dev-clean, laid out as the mini world's test set.

LibriTTS (Zen et al., 2019; OpenSLR 60, CC BY 4.0) is 24 kHz read speech with normalised text. Which 200 utterances the
paper drew is not published; this draw has its numbers of short and long texts. What LibriTTS does not know stays
empty in the manifest: base_voice, accent, room, snr_db and emotion. It has no times of words either, so there is no
`libritts-test-words.json`, and figures that need them leave them out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import soundfile
from torch import Tensor
from tqdm.auto import tqdm

from pvlib import audio, hub, paths
from pvlib.config import PAPER, Profile
from pvlib.fetch import arrived, check_space, damage, fetch
from pvlib.hub import WeightsError
from pvlib.metrics import wer
from pvlib.study import manifest
from pvlib.study.manifest import BUCKETS, Manifest, bucket_of

URL = "https://www.openslr.org/resources/60/dev-clean.tar.gz"
SIZE = 1_291_469_655  # bytes
SHA256 = "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a"  # torchaudio.datasets.LIBRITTS
UNPACKED = 1_700_000_000  # bytes, rounded up
SPLIT = "LibriTTS/dev-clean"
RECORDINGS = 5736  # in the whole of it (TensorFlow Datasets' count of libritts/dev_clean)
STALE_SECONDS = 86_400.0  # after which a half-unpacked folder is nobody's

QUOTAS = dict(zip(BUCKETS, (22, 31, 147), strict=True))  # the paper's 200: at most 4 words, 5 to 8, more
ENROLMENT_UTTERANCES = 10  # of each speaker's other speech
ENROLMENT_SECONDS = 2.0  # at least


class DataError(RuntimeError):
    """A corpus that is missing, damaged or not what it should be; the message says what to do."""


class LibriTTSWarning(UserWarning):
    """Something that the test set has to do without; the message says how to get it."""


class Encoder(Protocol):
    """What turns sound into voices: `speaker.SpeakerEncoder`, `speaker.GE2E`."""

    def embed(self, waves: list[np.ndarray]) -> Tensor: ...


def prepare(samples: int | None = None, skip_download: bool = False, profile: Profile = PAPER) -> Manifest:
    """Download, unpack, choose, cut and write the test set; what is done already is not done again.

    samples: utterances, 1 to 200 (None: all); a smaller set is part of a larger one. skip_download: use the archive or
    the tree that lies in `folder()`. Writes `data/manifests/libritts-test.csv`, recordings and one-second clips under
    `data/audio/libritts`, and the enrolment embeddings where the speaker encoder's weights can be had.
    Warns where the tree is not the whole of dev-clean. Raises DataError, FetchError, ManifestError.
    """
    samples = sum(QUOTAS.values()) if samples is None else samples
    _check_samples(samples)
    tree = corpus(skip_download)
    if (count := sum(1 for _ in tree.glob("*/*/*.wav"))) != RECORDINGS:
        warnings.warn(
            f"{tree} holds {count:,} recordings instead of {RECORDINGS:,}, so this is not the draw that others get; "
            f"{_again(tree)}, if it was to be the whole",
            LibriTTSWarning,
            stacklevel=2,
        )
    found = utterances(tree)
    chosen = select(found, samples, profile.seed)
    result = write(chosen, tree, profile)
    try:
        enrol(found, chosen, tree, profile)
    except WeightsError as error:
        _enrolment(profile).unlink(missing_ok=True)
        warnings.warn(
            f"no enrolment embeddings, so no similarity to the speaker's other speech: {error}; then run "
            f"`pvlib data prepare{flag(samples)} --skip-download`",
            LibriTTSWarning,
            stacklevel=2,
        )
        return result
    return manifest.read(profile.manifest)


def flag(samples: int | None) -> str:
    """What `pvlib data prepare` is told for so many utterances; "" for all."""
    return "" if samples in (None, sum(QUOTAS.values())) else f" --samples {samples}"


def folder() -> Path:
    """Where the archive and the unpacked corpus lie."""
    return paths.BUILD / "libritts"


def corpus(skip_download: bool = False) -> Path:
    """The unpacked dev-clean, downloaded and unpacked where it is not there yet. Raises DataError and FetchError."""
    tree, archive = folder() / SPLIT, folder() / "dev-clean.tar.gz"
    if tree.is_dir():
        return tree
    if not skip_download:
        left = 0 if archive.is_file() else SIZE - arrived(archive)
        check_space((folder(), UNPACKED + max(0, left)))
        fetch(URL, archive, sha256=SHA256, size=SIZE)
    elif not archive.is_file():
        raise DataError(
            f"LibriTTS dev-clean is not in {folder()}; put dev-clean.tar.gz from {URL} or the folder {SPLIT} there, or "
            "leave out --skip-download"
        )
    elif wrong := damage(archive, SHA256, SIZE):
        raise DataError(f"{archive} {wrong}; delete it and run `pvlib data prepare`")
    return unpack(archive, folder())


def unpack(archive: Path, into: Path) -> Path:
    """Unpack LibriTTS/dev-clean from a tar archive; it appears whole or not at all. Returns its folder.

    Only plain files and folders below LibriTTS are taken, by tarfile's `data` filter: nothing can land outside.
    Raises DataError on an archive that breaks off, is none, is hostile or holds no dev-clean, and on a full disk.
    """
    partial = into / f".unpacking.{os.getpid()}"
    for left in into.glob(".unpacking.*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tqdm(tar, desc="unpack", unit=" files", mininterval=2):
                if not (member.isfile() or member.isdir()):
                    raise DataError(
                        f"{archive}: {member.name} is a link or a device, not a file; do not use it"
                    )
                tar.extract(member, partial, filter="data")
        if not (partial / SPLIT).is_dir():
            raise DataError(f"{archive} holds no {SPLIT}; is it dev-clean.tar.gz of {URL}?")
        (into / SPLIT).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / SPLIT, into / SPLIT)
    except tarfile.FilterError as error:
        raise DataError(f"{archive}: {error}; this is not the official archive, do not use it") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} breaks off or is no archive ({error}); delete it and run `pvlib data prepare` again"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot unpack {archive} into {into} ({error.strerror or error}); make room, or point PVLIB_BUILD at "
            "another disk"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return into / SPLIT


def utterances(tree: Path, remedy: str | None = None) -> pd.DataFrame:
    """What can be used of a LibriTTS tree `speaker/chapter/name.wav`: utterance, speaker, text, words, bucket, seconds.

    An utterance shorter than a second is left out, since its clip would be padded, and so is one like "Hmm.", of which
    the error rate's normalisation leaves no word. remedy: what an error tells to do;
    None: to prepare dev-clean again. Raises DataError when there are none, when a recording has no text, or is not
    24 kHz.
    """
    remedy, rows = remedy or _again(tree), []
    for path in tqdm(sorted(tree.glob("*/*/*.wav")), desc="read", unit=" files", mininterval=2):
        script = path.with_suffix(".normalized.txt")
        try:
            info = soundfile.info(path)
            text = " ".join(script.read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError, soundfile.LibsndfileError) as error:
            raise DataError(f"{path} or its text cannot be read ({error}); {remedy}") from error
        if info.samplerate != audio.SAMPLE_RATE:
            raise DataError(f"{path} has {info.samplerate} Hz; LibriTTS has {audio.SAMPLE_RATE}; {remedy}")
        count = len(text.split())
        if info.frames >= audio.CLIP_SAMPLES and wer.normalise(text):
            seconds = round(info.frames / info.samplerate, 4)
            rows.append((path.stem, path.parts[-3], text, count, bucket_of(count), seconds))
    if not rows:
        raise DataError(f"{tree} holds no utterances; {remedy}")
    return pd.DataFrame(rows, columns=["utterance", "speaker", "text", "words", "bucket", "seconds"])


def select(table: pd.DataFrame, samples: int, seed: int) -> pd.DataFrame:
    """Draw utterances: text lengths in the paper's proportions, speakers as evenly as can be, all by lot from the seed.

    The draw is one sequence, so that a smaller sample is its beginning. Sorted by utterance. Raises DataError when
    there are too few of a length, or on samples outside 1 to 200.
    """
    _check_samples(samples)
    turns = sorted(((rank + 0.5) / quota, b) for b, quota in QUOTAS.items() for rank in range(quota))[
        :samples
    ]
    lots = [hashlib.sha256(f"{seed}:{name}".encode()).hexdigest() for name in table["utterance"]]
    left = {bucket: list(np.flatnonzero(table["bucket"] == bucket)) for bucket in BUCKETS}
    speakers = table["speaker"].tolist()
    used = dict.fromkeys(speakers, 0)
    chosen = []
    for _, bucket in turns:
        if not left[bucket]:
            needed = sum(other == bucket for _, other in turns)
            raise DataError(
                f"only {len(chosen)} of {samples} utterances can be drawn: {needed} {bucket} texts are needed, and the "
                "corpus has fewer; use the whole of dev-clean"
            )
        position = min(left[bucket], key=lambda p: (used[speakers[p]], lots[p]))
        left[bucket].remove(position)
        used[speakers[position]] += 1
        chosen.append(position)
    return table.iloc[sorted(chosen)].reset_index(drop=True)


def _check_samples(samples: int) -> None:
    total = sum(QUOTAS.values())
    if not 1 <= samples <= total:
        raise DataError(f"a test set of {samples} utterances; choose 1 to {total}")


def write(chosen: pd.DataFrame, tree: Path, profile: Profile = PAPER) -> Manifest:
    """Copy the recordings, cut the clips and write the manifest, which comes last. Raises DataError and AudioError."""
    from pvlib.world.publish import clip

    target = paths.DATA / "audio" / "libritts"
    rows = []
    try:
        (target / "clips").mkdir(parents=True, exist_ok=True)
        (target / ".gitignore").write_text("*\n")  # LibriTTS is not ours to publish
        for row in tqdm(chosen.itertuples(), total=len(chosen), desc="clips", mininterval=2):
            original, copy = source(tree, row.utterance), target / f"{row.utterance}.wav"
            with paths.appearing(copy) as partial:
                shutil.copyfile(original, partial)
            audio.write(target / "clips" / f"{row.utterance}.flac", clip(audio.load(original)))
            rows.append(_row(row))
        path = paths.MANIFESTS / f"{profile.manifest}.csv"
        with paths.appearing(path) as partial:
            pd.DataFrame(rows).to_csv(partial, index=False)
    except OSError as error:
        raise DataError(
            f"cannot write the test set ({error}); check that {paths.DATA} is writable and has space"
        ) from error
    _enrolment(profile).unlink(missing_ok=True)  # it belongs to the draw before this one
    return manifest.read(profile.manifest)


def enrol(
    table: pd.DataFrame,
    chosen: pd.DataFrame,
    tree: Path,
    profile: Profile = PAPER,
    encoders: Mapping[str, Encoder] | None = None,
) -> Path:
    """Write the mean embedding of each speaker's other speech: utterances that are not in the test set, by lot.

    encoders: "ecapa" and "ge2e" (None: the profile's). Raises WeightsError when their weights cannot be had, DataError
    when a speaker has no other speech.
    """
    if encoders is None:
        from pvlib.speaker import GE2E

        encoders = {"ecapa": hub.load_speaker_encoder(profile), "ge2e": GE2E()}
    others = table[~table["utterance"].isin(chosen["utterance"]) & (table["seconds"] >= ENROLMENT_SECONDS)]
    people = sorted(set(chosen["speaker"]))
    means: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    for person in tqdm(people, desc="enrolment", mininterval=2):
        names = others["utterance"][others["speaker"] == person].tolist()
        if not names:
            raise DataError(f"speaker {person} has no other speech in {tree}; {_again(tree)}")
        names.sort(key=lambda name: hashlib.sha256(f"{profile.seed}:enrol:{name}".encode()).hexdigest())
        waves = [audio.load(source(tree, name)) for name in names[:ENROLMENT_UTTERANCES]]
        for name, encoder in encoders.items():
            mean = encoder.embed(waves).mean(0)
            means[name].append((mean / mean.norm()).cpu().numpy())
    path = _enrolment(profile)
    try:
        with paths.appearing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                speakers=np.array(people),
                **{name: np.stack(rows).astype(np.float32) for name, rows in means.items()},
                ecapa_sha256=hub.fingerprint("speaker_encoder", profile),
            )
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror or error}); make room, and run the command again"
        ) from error
    return path


def _row(row) -> dict[str, object]:
    return {
        "utterance": row.utterance,
        "speaker": row.speaker,
        "base_voice": "",
        "accent": "",
        "room": "",
        "snr_db": "",
        "emotion": "",
        "text": row.text,
        "words": row.words,
        "bucket": row.bucket,
        "seconds": row.seconds,
        "audio": f"audio/libritts/{row.utterance}.wav",
        "clip": f"audio/libritts/clips/{row.utterance}.flac",
        "seed": int(hashlib.sha256(row.utterance.encode()).hexdigest()[:7], 16),
    }


def source(tree: Path, name: str) -> Path:
    """The recording of an utterance: 84_121123_000007_000001 lies in 84/121123."""
    speaker, chapter, *_ = name.split("_")
    return tree / speaker / chapter / f"{name}.wav"


def _enrolment(profile: Profile) -> Path:
    return paths.MANIFESTS / f"{profile.manifest.removesuffix('-test')}-enrolment.npz"


def _again(tree: Path) -> str:
    return f"delete {tree} and run `pvlib data prepare` again"
