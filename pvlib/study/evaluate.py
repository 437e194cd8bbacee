"""From systems and utterances to rows: synthesise, judge, write after every small batch, go on where it stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import hub, systems
from pvlib.audio import SAMPLE_RATE
from pvlib.config import Inference, Profile, get_profile
from pvlib.metrics.judges import Exhibit, Judges, Panel
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.manifest import Manifest, ManifestError
from pvlib.systems.base import Request, Result, System
from pvlib.systems.fingerprint import digest

JUDGED = ("secs_ecapa_clip", "secs_ecapa_speaker", "secs_ge2e_clip", "secs_ge2e_speaker", "dnsmos")


def evaluate(
    profile: Profile | str = "mini",
    names: Iterable[str | System] = systems.NAMES,
    samples: int | None = None,
    *,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows of every system on a sample of the manifest, computed where they are missing; columns as `rows.COLUMNS`.

    names: systems or variants by name ("personavoice@steps=8"), or objects that follow the protocol.
    samples: utterances of the sample; seed: of its order; manifest: another one than the profile's, for instance
    `manifest.demo()`; the profile has a default for each. Interrupted at any time, the same call loses no finished
    batch.
    Raises ManifestError, WeightsError, RowsError, ConfigError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifest or manifests.read(profile.manifest)
    judges = judges or shared_judges(profile, device)
    _check_enrolment(manifest, profile, judges)
    if samples is None:
        samples = min(profile.default_samples, len(manifest.table))
    requests = manifest.requests(manifest.sample(samples, profile.seed if seed is None else seed))
    chosen = [systems.create(name, profile, device) if isinstance(name, str) else name for name in names]
    tables = [_evaluate_one(s, requests, manifest, judges, profile, progress) for s in chosen]
    return pd.concat(tables, ignore_index=True)


def shared_judges(profile: Profile, device: torch.device | str | None = None) -> Judges:
    """The judges of a profile, loaded once in a process; the inference table does not concern them."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return _judges(replace(profile, inference=Inference()), str(device))


@lru_cache(maxsize=2)
def _judges(profile: Profile, device: str) -> Judges:
    return Judges(profile, device)


def working(system: System, judges: Panel, profile: Profile) -> row_files.Working:
    """The working rows of a system as it is now."""
    fingerprint = {"system": system.fingerprint(), "judges": judges.fingerprint()}
    return row_files.Working(profile.name, system.name, digest(fingerprint), fingerprint)


def row_key(request: Request, enrolment: dict[str, np.ndarray]) -> str:
    """What was asked, in one hash: the request with the content of its sounds, and the speaker's enrolment."""
    content: dict[str, Any] = {
        "utterance": request.utterance,
        "speaker": request.speaker,
        "text": request.text,
        "seed": request.seed,
        "words": request.words,
        "bucket": request.bucket,
        "clip": _sha256(np.ascontiguousarray(request.clip).tobytes()),
        "audio": _file_sha256(request.audio_path),
        "clip_text": request.clip_text,
        "impostor": [_file_sha256(request.impostor_audio), request.impostor_text],
        "enrolment": {name: _sha256(vector.tobytes()) for name, vector in sorted(enrolment.items())},
    }
    return digest(content)


def judge(
    system: System,
    requests: Sequence[Request],
    results: Sequence[Result],
    manifest: Manifest,
    judges: Panel,
) -> list[dict[str, Any]]:
    """Rows of one batch. A failed result counts as WER 1 and has no similarity and no sound quality.

    The error rate, and the column `text`, are of what the waveform is meant to say, which for an impostor is not the
    text of the request; words and bucket remain the request's. Raises ValueError when a system lost a result.
    """
    if len(results) != len(requests):
        raise ValueError(f"{system.name} returned {len(results)} results for {len(requests)} requests")
    heard = [index for index, result in enumerate(results) if result.wave is not None]
    exhibits = [
        Exhibit(
            results[i].wave,
            _spoken(requests[i], results[i]),
            requests[i].clip,
            manifest.enrolment.get(requests[i].speaker, {}),
        )
        for i in heard
    ]
    verdicts = dict(zip(heard, judges.judge(exhibits), strict=True))
    table = []
    for index, (request, result) in enumerate(zip(requests, results, strict=True)):
        verdict = asdict(verdicts[index]) if index in verdicts else _failed()
        seconds = float("nan") if result.wave is None else len(result.wave) / SAMPLE_RATE
        table.append(
            {
                "system": system.name,
                "utterance": request.utterance,
                "speaker": request.speaker,
                "words": request.words,
                "bucket": request.bucket,
                "reference_seconds": len(request.clip) / SAMPLE_RATE,
                "seed": request.seed,
                "text": _spoken(request, result),
                "reference_text": result.reference_text,
                **verdict,
                "generated_seconds": seconds,
                "synthesis_seconds": result.seconds,
                "error": result.error,
            }
        )
    return table


def _evaluate_one(
    system: System,
    requests: Sequence[Request],
    manifest: Manifest,
    judges: Panel,
    profile: Profile,
    progress: bool,
) -> pd.DataFrame:
    store = working(system, judges, profile)
    by_key = {row_key(r, manifest.enrolment.get(r.speaker, {})): r for r in requests}
    # sentences of like length share a batch, so that little of it is padding
    todo = sorted(store.missing(list(by_key)), key=lambda key: len(by_key[key].text))
    if todo:
        store.add({}, 0.0)  # an unwritable place is told before the work, not after
    with tqdm(
        total=len(by_key),
        initial=len(by_key) - len(todo),
        desc=system.name,
        unit="utterance",
        disable=not progress,
    ) as bar:
        for start in range(0, len(todo), system.batch_size):
            keys = todo[start : start + system.batch_size]
            batch = [by_key[key] for key in keys]
            begun = time.perf_counter()
            bar.set_postfix_str("synthesising")
            results = system.synthesise(batch)
            bar.set_postfix_str("judging")
            table = judge(system, batch, results, manifest, judges)
            store.add(dict(zip(keys, table, strict=True)), time.perf_counter() - begun)
            bar.update(len(keys))
    return store.get(list(by_key))


def _failed() -> dict[str, Any]:
    return {"hypothesis": "", "wer": 1.0, "wer_capped": 1.0, **dict.fromkeys(JUDGED, float("nan"))}


def _spoken(request: Request, result: Result) -> str:
    return request.text if result.spoken_text is None else result.spoken_text


def _check_enrolment(manifest: Manifest, profile: Profile, judges: Panel) -> None:
    """Enrolment embeddings of other weights would make wrong similarities."""
    if not manifest.ecapa_sha256 or not isinstance(judges, Judges):
        return
    if (own := hub.fingerprint("speaker_encoder", profile)) != manifest.ecapa_sha256:
        raise ManifestError(
            f"the enrolment embeddings of {manifest.name} were made by another speaker encoder "
            f"({manifest.ecapa_sha256[:12]}, not {own[:12]}); run `pvlib world enrol`"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_sha256(path: Path | None) -> str:
    return "" if path is None else _sha256(path.read_bytes())
