"""From systems and utterances to rows: synthesise, judge, write after every small batch, go on where it stopped.

One process does it alone, or several share it (`pvlib.study.ranks`). What is shared out are the batches that one
process would form of the missing rows: a row can depend in its last decimals on what else is in its batch, so it
does not matter who makes a batch, but it would matter to form others. They lie in one queue, the systems in turn and of
each the longest texts first. Every process takes the next batch when it has finished one, so that long texts and slow
machines balance by themselves and nobody waits before the queue is empty.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import hub, paths, systems
from pvlib.audio import SAMPLE_RATE
from pvlib.config import Inference, Profile, get_profile
from pvlib.metrics.judges import Exhibit, Judges, Panel
from pvlib.metrics.proxies import panel
from pvlib.study import compiled
from pvlib.study import manifest as manifests
from pvlib.study import rows as row_files
from pvlib.study.manifest import Manifest, ManifestError
from pvlib.study.ranks import Ranks, RanksError
from pvlib.systems.base import Request, Result, System
from pvlib.systems.external.environment import ExternalError
from pvlib.systems.fingerprint import digest

T = TypeVar("T")

JUDGED = ("secs_ecapa_clip", "secs_ecapa_speaker", "secs_ge2e_clip", "secs_ge2e_speaker", "dnsmos")


def evaluate(
    profile: Profile | str = "mini",
    names: Iterable[str | System] | None = None,
    samples: int | None = None,
    *,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> pd.DataFrame:
    """Rows of every system on a sample of the manifest, computed where they are missing; columns as `rows.COLUMNS`.

    names: systems or variants by name ("personavoice@steps=8"), or objects that follow the protocol; by default those
    of `systems.MAIN` that the profile has weights for, and the rows of `systems.EXTERNAL` that are finished already.
    samples: utterances of the sample; seed: of its order; manifest: another one than the profile's, for instance
    `manifest.demo()`; the profile has a default for each. Interrupted at any time, the same call loses no finished
    batch. ranks: the processes that share the work, each of which makes the same call and gets all rows.
    Raises ManifestError, WeightsError, RowsError, ConfigError, and RanksError where ranks share it.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    compiled.compile_librosa()
    device = ranks.device if ranks and device is None else device
    manifest = manifest or manifests.read(profile.manifest)
    judges = judges or shared_judges(profile, device)
    chosen, requests = _asked(profile, names, samples, seed, manifest, judges, device)
    if ranks:
        tables = _evaluate_shared(chosen, requests, manifest, judges, profile, progress, ranks)
    else:
        tables = []
        while chosen:  # a system that is through takes its models with it
            tables.append(_evaluate_one(chosen.pop(0), requests, manifest, judges, profile, progress))
    return pd.concat(tables, ignore_index=True)


def finished(
    profile: Profile | str,
    names: Iterable[str | System] | None = None,
    samples: int | None = None,
    *,
    seed: int | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
) -> pd.DataFrame | None:
    """What `evaluate` would return, where all rows are there already; None where one is missing. Computes nothing."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifest or manifests.read(profile.manifest)
    judges = judges or shared_judges(profile)
    chosen, requests = _asked(profile, names, samples, seed, manifest, judges, None)
    keys = list(_by_key(requests, manifest))
    stores = [working(system, judges, profile) for system in chosen]
    if any(store.missing(keys) for store in stores):
        return None
    return pd.concat([store.get(keys) for store in stores], ignore_index=True)


def _asked(
    profile: Profile,
    names: Iterable[str | System] | None,
    samples: int | None,
    seed: int | None,
    manifest: Manifest,
    judges: Panel,
    device: torch.device | str | None,
) -> tuple[list[System], list[Request]]:
    _check_enrolment(manifest, profile, judges)
    if samples is None:
        samples = min(profile.default_samples, len(manifest.table))
    requests = manifest.requests(manifest.sample(samples, profile.seed if seed is None else seed))
    usual = systems.present(profile, systems.MAIN) if names is None else names
    chosen = [systems.create(name, profile, device) if isinstance(name, str) else name for name in usual]
    if names is None:
        chosen += finished_externals(profile, list(_by_key(requests, manifest)), judges, device)
    return chosen, requests


def finished_externals(
    profile: Profile, keys: Sequence[str], judges: Panel, device: torch.device | str | None = None
) -> list[System]:
    """Systems from outside that are installed here and have a row for every key, in the order of `systems.EXTERNAL`."""
    found = []
    for name in systems.EXTERNAL:
        try:
            system = systems.create(name, profile, device)
        except ExternalError:
            continue  # not installed, so nobody made rows with it as it is now
        if not working(system, judges, profile).missing(keys):
            found.append(system)
    return found


def shared_judges(profile: Profile, device: torch.device | str | None = None) -> Judges:
    """The judges of a profile, loaded once in a process; the inference table does not concern them."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return _judges(replace(profile, inference=Inference()), str(device))


@lru_cache(maxsize=2)
def _judges(profile: Profile, device: str) -> Judges:
    return panel(profile, device)


def working(system: System, judges: Panel, profile: Profile) -> row_files.Working:
    """The working rows of a system as it is now."""
    own = system.fingerprint()
    precision = str(hub.precision(own.get("device", "cpu")))  # a machine without bf16 makes other rows
    fingerprint = {"system": own, "judges": judges.fingerprint(), "precision": precision}
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
        "true_samples": request.true_samples,
        "impostor": [_file_sha256(request.impostor_audio), request.impostor_text],
        "enrolment": {name: _sha256(vector.tobytes()) for name, vector in sorted(enrolment.items())},
    }
    return digest(content)


def make_rows(
    system: System, requests: Sequence[Request], manifest: Manifest, judges: Panel
) -> Iterator[dict[str, Any]]:
    """Rows of some requests in their order, made batch by batch; no working row is read or written.

    Raises what the system raises on trouble that concerns all requests, and ValueError as `judge`.
    """
    for batch in _batches(requests, system.batch_size):
        yield from judge(system, batch, system.synthesise(batch), manifest, judges)


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
    by_key = _by_key(requests, manifest)
    todo = _missing(store, by_key)
    with tqdm(
        total=len(by_key),
        initial=len(by_key) - len(todo),
        desc=system.name,
        unit="utterance",
        disable=not progress,
    ) as bar:
        for keys in _batches(todo, system.batch_size):
            batch = {key: by_key[key] for key in keys}
            store.add(*_make(system, batch, manifest, judges, bar.set_postfix_str))
            bar.update(len(keys))
    return store.get(list(by_key))


def _evaluate_shared(
    chosen: list[System | None],
    requests: Sequence[Request],
    manifest: Manifest,
    judges: Panel,
    profile: Profile,
    progress: bool,
    ranks: Ranks,
) -> list[pd.DataFrame]:
    """The same in several processes. Rank 0 says what is missing, each writes its own rows, rank 0 merges them.

    A system that is through is taken out of `chosen`, and its models with it.
    """
    by_key = _by_key(requests, manifest)
    _check_alike(ranks, chosen, judges, by_key)
    stores = [working(system, judges, profile) for system in chosen]
    todo, run = ranks.share(
        ([_missing(store, by_key) for store in stores], uuid.uuid4().hex[:8]) if ranks.first else None
    )
    _check_folder(ranks, run)
    parts = [store.part(f"{run}-rank{ranks.rank}") for store in stores]
    queue = [
        (index, keys)
        for index, system in enumerate(chosen)
        for keys in reversed(_batches(todo[index], system.batch_size))
    ]
    total, missing = len(by_key) * len(chosen), sum(map(len, todo))
    made: list[dict[str, Any]] = [{} for _ in chosen]
    with tqdm(
        total=total,
        initial=total - missing,
        desc=f"{ranks.size} ranks",
        unit="utterance",
        disable=not (progress and ranks.first),
    ) as bar:
        at = 0
        for index, keys in ranks.take(queue, run):  # system by system
            chosen[at:index] = [None] * (index - at)
            at = index
            batch = {key: by_key[key] for key in keys}
            name = chosen[index].name
            rows, seconds = _make(
                chosen[index],
                batch,
                manifest,
                judges,
                lambda what, name=name: bar.set_postfix_str(f"{what}, {name}"),
            )
            parts[index].add(rows, seconds)
            made[index].update(rows)
            bar.update(total - missing + ranks.count(run, len(keys)) - bar.n)
        bar.set_postfix_str("waiting for the other ranks")
        ranks.wait(run, lambda: bar.update(total - missing + ranks.count(run) - bar.n))
    gathered = ranks.exchange([(rows, part.seconds) for rows, part in zip(made, parts, strict=True)])
    tables = None
    if ranks.first:
        for index, store in enumerate(stores):
            rows = {key: row for one in gathered for key, row in one[index][0].items()}
            if rows:
                in_order = {key: rows[key] for key in by_key if key in rows}
                store.add(in_order, {key: took for one in gathered for key, took in one[index][1].items()})
        tables = [store.get(list(by_key)) for store in stores]
    tables = ranks.share(tables)
    for part in parts:
        part.delete()
    return tables


def _by_key(requests: Sequence[Request], manifest: Manifest) -> dict[str, Request]:
    return {row_key(r, manifest.enrolment.get(r.speaker, {})): r for r in requests}


def _missing(store: row_files.Working, by_key: dict[str, Request]) -> list[str]:
    """Keys without a row; sentences of like length are neighbours, so that little of a batch is padding."""
    store.absorb()
    todo = sorted(store.missing(list(by_key)), key=lambda key: len(by_key[key].text))
    if todo:
        store.add({}, {})  # an unwritable place is told before the work, not after
    return todo


def _batches(asked: Sequence[T], size: int) -> list[Sequence[T]]:
    return [asked[start : start + size] for start in range(0, len(asked), size)]


def _make(
    system: System,
    batch: dict[str, Request],
    manifest: Manifest,
    judges: Panel,
    say: Callable[[str], None],
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Rows of one batch by key, and the wall time of each in seconds: an even share of the batch's."""
    begun = time.perf_counter()
    requests = list(batch.values())
    say("synthesising")
    results = system.synthesise(requests)
    say("judging")
    table = judge(system, requests, results, manifest, judges)
    share = (time.perf_counter() - begun) / len(batch)
    return dict(zip(batch, table, strict=True)), dict.fromkeys(batch, share)


def _check_alike(ranks: Ranks, chosen: Sequence[System], judges: Panel, by_key: dict[str, Request]) -> None:
    """Rows of different weights, sources, packages or sounds must not be mixed."""
    facts = {
        "utterances or sounds": digest(list(by_key)),
        "precision": str(hub.precision(ranks.device or "cpu")),
    }
    for name, fingerprint in [("the judges", judges.fingerprint())] + [
        (s.name, s.fingerprint()) for s in chosen
    ]:
        facts |= {f"{part} of {name}": digest(value) for part, value in fingerprint.items()}
    everyone = ranks.exchange((ranks.name, facts))
    for name, others in everyone[1:]:
        if other := [fact for fact in facts if others.get(fact) != everyone[0][1].get(fact)]:
            raise RanksError(
                f"{name} has other {', '.join(other)} than rank 0; give all hosts the same checkout, packages, "
                "data and kind of device"
            )


def _check_folder(ranks: Ranks, run: str) -> None:
    """All ranks must see the folder that rank 0 writes."""
    marker = paths.WORKING_ROWS / f".{run}"
    if ranks.first:
        row_files.write_text(marker, run)
    ranks.share(None)
    seen = ranks.exchange((ranks.name, marker.exists()))
    if ranks.first:
        marker.unlink(missing_ok=True)
    if blind := [name for name, sees in seen if not sees]:
        raise RanksError(
            f"{blind[0]} does not see {paths.WORKING_ROWS} of rank 0; let PVLIB_BUILD name a folder that all "
            "hosts share"
        )


def _failed() -> dict[str, Any]:
    return {"hypothesis": "", "wer": 1.0, "wer_capped": 1.0, **dict.fromkeys(JUDGED, float("nan"))}


def _spoken(request: Request, result: Result) -> str:
    return request.text if result.spoken_text is None else result.spoken_text


def _check_enrolment(manifest: Manifest, profile: Profile, judges: Panel) -> None:
    """Enrolment embeddings of other weights would make wrong similarities."""
    if not manifest.ecapa_sha256 or not isinstance(judges, Judges):
        return
    if (own := hub.fingerprint("speaker_encoder", profile)) != manifest.ecapa_sha256:
        if manifest.name.partition("-")[0] != profile.manifest.partition("-")[0]:
            remedy = f"it belongs to another profile than {profile.name}: give that one"
        else:
            remedy = f"run `pvlib {'world enrol' if profile.embedded else 'data prepare --skip-download'}`"
        raise ManifestError(
            f"the enrolment embeddings of {manifest.name} were made by another speaker encoder "
            f"({manifest.ecapa_sha256[-12:]}, not {own[-12:]}); {remedy}"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_sha256(path: Path | None) -> str:
    return "" if path is None else _sha256(path.read_bytes())
