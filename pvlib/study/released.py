"""The per-sample result files of the paper's public repository, read from a checkout that the reader has.

Nothing of that repository is kept here. A file that is not whole, or holds a value that cannot be, is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pvlib.study import reported
from pvlib.study.manifest import bucket_of

COLUMNS = ("system", "record", "idx", "words", "bucket", "secs", "wer", "time", "seconds", "error")


class ReleasedError(ValueError):
    """A checkout without usable per-sample files; the message names the file, the record and the remedy."""


@dataclass(frozen=True)
class Source:
    """Where the samples of one system lie: the file, the keys that lead to the list, and the paper's name of it."""

    system: str
    file: str
    keys: tuple[str, ...]


EVALUATION = "results/eval_200_samples.json"
BASELINES = "results/baseline_external_200.json"
ABLATION = "results/ablation_200_samples.json"
FILES = (EVALUATION, BASELINES, ABLATION)
OURS = reported.PAPER_SYSTEMS["personavoice"]
SYSTEMS = (
    Source(OURS, EVALUATION, ("personavoice_results",)),
    Source("XTTS v2", BASELINES, ("results", "xtts", "results")),
    Source("CosyVoice", BASELINES, ("results", "cosyvoice", "results")),
)
FULL = "full_v8"  # what the ablation takes modules from: an older version than the paper's
WITHOUT = {"wo_td_cfg": "TD-CFG", "wo_ibop": "IBOP", "wo_sbm": "SBM"}
VARIANTS = tuple(Source(name, ABLATION, (name,)) for name in (FULL, *WITHOUT))


@dataclass(frozen=True)
class Released:
    """What the files hold.

    samples: a line per sample, columns as `COLUMNS`. record: where it stands in its file. wer: capped at 1. time,
    seconds: of computing, and of generated speech. A failed sample (it has an `error`, or a `status` other than "ok")
    has the error's text and WER 1; NaN stands for what the file does not give of it.
    version: what the evaluation's metadata calls the system that it measured; "" where it does not say.
    """

    samples: pd.DataFrame
    version: str = ""


def read(folder: Path) -> Released:
    """The per-sample files under the top folder of a checkout.

    Raises ReleasedError when the folder or a file is missing, a file cannot be read, is of another form or holds fewer
    samples than it says, a value is no sensible number, or a sample stands there twice.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise ReleasedError(f"{folder} {what}; give the top folder of a checkout of the paper's repository")
    contents = {file: _json(folder / file) for file in FILES}
    lists = [
        _samples(source, contents[source.file], folder / source.file) for source in (*SYSTEMS, *VARIANTS)
    ]
    samples = pd.DataFrame([row for rows in lists for row in rows], columns=list(COLUMNS))
    metadata = contents[EVALUATION].get("metadata")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    return Released(samples, version if isinstance(version, str) else "")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReleasedError(
            f"{path} is missing; give the top folder of a checkout that has the paper's per-sample files"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ReleasedError(
            f"{path} cannot be read as JSON ({error}); it is truncated or another file: check it out again"
        ) from error


def _samples(source: Source, content: Any, path: Path) -> list[tuple[Any, ...]]:
    holder, records = None, content
    for depth, key in enumerate(source.keys, 1):
        holder = records
        if not isinstance(holder, dict) or key not in holder:
            where = ".".join(source.keys[:depth])
            raise ReleasedError(f"{path} has no {where}: it is not one of the paper's per-sample files")
        records = holder[key]
    where = ".".join(source.keys)
    if not isinstance(records, list) or not records:
        raise ReleasedError(f"{path}: {where} is no list of samples; check the file out again")
    for header in (holder, content.get("metadata")):
        said = header.get("n_samples") if isinstance(header, dict) else None
        if isinstance(said, int) and said != len(records):
            raise ReleasedError(
                f"{path}: {where} holds {len(records)} samples, but the file says {said}; check it out again"
            )
    rows = [_sample(source.system, f"{where}[{k}]", record, path) for k, record in enumerate(records)]
    first: dict[float, str] = {}
    for _, record, idx, *_ in rows:
        if not math.isnan(idx) and first.setdefault(idx, record) != record:
            raise ReleasedError(
                f"{path}: {record} has the idx {idx:.0f} of {first[idx]}; a sample may count only once"
            )
    return rows


def _sample(system: str, where: str, record: Any, path: Path) -> tuple[Any, ...]:
    if not isinstance(record, dict):
        raise ReleasedError(f"{path}: {where} is no record of a sample; check the file out again")
    status = record.get("status", "ok")
    error = str(record.get("error") or ("" if status == "ok" else f"status {status}"))

    def number(key: str, low: float, high: float = math.inf) -> float:
        if error and record.get(key) is None:
            return math.nan
        if key not in record:
            raise ReleasedError(
                f"{path}: {where} has no {key}, and no error explains it; check the file out again"
            )
        value = record[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise ReleasedError(
                f"{path}: {where}: {key} is {json.dumps(value)[:40]}, not a number; check the file out again"
            )
        if not low <= value <= high:
            limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
            raise ReleasedError(
                f"{path}: {where}: {key} is {value:g}, but can only be {limits}; check the file out again"
            )
        return float(value)

    def whole(key: str, low: int) -> float:
        value = number(key, low)
        if value % 1 > 0:  # never of NaN, which a failed sample may have
            raise ReleasedError(
                f"{path}: {where}: {key} is {value:g}, not a whole number; check the file out again"
            )
        return value

    idx, words = whole("idx", 0), whole("text_len", 1)
    bucket = "" if math.isnan(words) else bucket_of(int(words))
    secs = number("secs", -1.001, 1.001)  # a cosine, with room for its rounding
    wer, milliseconds, seconds = number("wer", 0), number("time_ms", 0), number("gen_length_sec", 0)
    if not error and not seconds:
        raise ReleasedError(
            f"{path}: {where}: gen_length_sec is 0, and no error explains it; check the file out again"
        )
    wer = 1.0 if error else min(wer, 1.0)
    return (system, where, idx, words, bucket, secs, wer, milliseconds / 1000, seconds, error)
