"""One row per utterance and seed: the schema, the committed files and the working ones.

Working rows lie in `build/results/<profile>/<system>/<key>.csv`, where the key names everything about the system
and the judges that can change them; each row also carries the key of what was asked. So nothing stale is ever read,
and a run that was interrupted finds every row that was finished. Processes that share a study write parts,
`<key>.<part>.csv`, each its own; the first of them, or the next run, puts these together. Beside each file lies a lock:
of the rows for as long as they are written, of a part until its process ends.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from pvlib import paths

COLUMNS = (
    "system",
    "utterance",
    "speaker",
    "words",
    "bucket",
    "reference_seconds",
    "seed",
    "text",
    "reference_text",
    "hypothesis",
    "wer",
    "wer_capped",
    "secs_ecapa_clip",
    "secs_ecapa_speaker",
    "secs_ge2e_clip",
    "secs_ge2e_speaker",
    "dnsmos",
    "generated_seconds",
    "synthesis_seconds",
    "error",
)
PROXIES = ("utmos", "sim_o")  # columns of profiles that name these judges
TEXT_COLUMNS = ("system", "utterance", "speaker", "bucket", "text", "reference_text", "hypothesis", "error")
WHOLE_COLUMNS = ("words", "seed")
NUMBER_COLUMNS = tuple(c for c in COLUMNS if c not in TEXT_COLUMNS + WHOLE_COLUMNS)
FLOAT_FORMAT = "%.6f"
KEY = "key"


class RowsError(RuntimeError):
    """Rows that cannot be read or written; the message names the file and the remedy."""


def to_csv(rows: pd.DataFrame) -> str:
    """Rows as text: fixed column order, six decimals, one kind of line end; the same rows give the same bytes."""
    columns = [c for c in (KEY, *COLUMNS, *PROXIES) if c in rows]
    return rows[columns].to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n")


def _columns(names: Container[str]) -> list[str]:
    """The columns of a row, those of the proxies where they are among the names."""
    return [*COLUMNS, *(column for column in PROXIES if column in names)]


def read_csv(path: Path) -> pd.DataFrame:
    """Rows of a file. Texts stay texts ("none" is a word), an empty number is NaN. Raises RowsError."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        if missing := [c for c in COLUMNS if c not in rows]:
            raise RowsError(f"{path} is not a table of rows (no column {missing[0]}); {_remedy(path)}")
        for column in (*NUMBER_COLUMNS, *(c for c in PROXIES if c in rows)):
            rows[column] = [float(cell) if cell else math.nan for cell in rows[column]]
        for column in WHOLE_COLUMNS:
            rows[column] = rows[column].astype("int64")
    except FileNotFoundError as error:
        raise RowsError(
            f"{path} is missing; `pvlib evaluate` makes working rows, the repository has the rest"
        ) from error
    except (OSError, ValueError) as error:
        raise RowsError(f"{path} cannot be read as rows ({error}); {_remedy(path)}") from error
    return rows


def _remedy(path: Path) -> str:
    """What to do about damaged rows: committed ones are restored, working ones made again."""
    committed = paths.RESULTS in path.parents
    return f"restore it with `git checkout -- {path}`" if committed else "delete it and run again"


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all. Raises RowsError naming the path."""
    try:
        with paths.appearing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RowsError(
            f"cannot write {path}: {error}; check that the folder is writable and has space"
        ) from error
    return path


VARIANTS = "variants"  # the place, in that of a profile, of rows on a share of the study: the ablations


def seed_part(number: int) -> str:
    """The place, in that of a profile, of rows from other noise (`Manifest.reseeded`)."""
    return f"seed-{number}"


def part_of(profile: str, manifest: str) -> str:
    """The place, under `data/results`, of rows of another manifest than the profile's own: mini/ultra-short.

    manifest: named after its world, "mini-ultra-short". The functions below take the result for `profile`.
    """
    return f"{profile}/{manifest.partition('-')[2]}"


def committed_path(profile: str, system: str) -> Path:
    """Where the recorded rows of a system lie."""
    return paths.RESULTS / profile / f"{system}.csv"


def is_recorded(profile: str) -> bool:
    """Whether rows were recorded at a place."""
    return (paths.RESULTS / profile / "provenance.json").exists()


def committed(profile: str, systems: Iterable[str] | None = None) -> pd.DataFrame:
    """Recorded rows of some systems, by default of all that provenance names. Raises RowsError."""
    systems = provenance(profile)["systems"] if systems is None else systems
    return pd.concat([read_csv(committed_path(profile, system)) for system in systems], ignore_index=True)


def provenance(profile: str) -> dict[str, Any]:
    """`provenance.json` of the recorded rows. Raises RowsError when nothing was recorded or the file is damaged."""
    path = paths.RESULTS / profile / "provenance.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["systems"], content["machine"]
    except FileNotFoundError as error:
        raise RowsError(
            f"{path} is missing: nothing was recorded for {profile}; `pvlib reproduce --record` does"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RowsError(
            f"{path} cannot be read ({error!r}); restore it with `git checkout -- {path}`"
        ) from error
    return content


class Working:
    """The working rows of one system under one key, and the wall time that each took.

    Every `add` writes all of them anew, whole; rows that another process added meanwhile are kept. part: names those
    of one process among several that share a study, which nobody else takes over while it lives.
    """

    def __init__(self, profile: str, system: str, key: str, fingerprint: dict[str, Any], part: str = ""):
        self.profile, self.system, self.key, self.fingerprint = profile, system, key, fingerprint
        folder = paths.WORKING_ROWS / profile / system
        stem = key[:16] + (f".{part}" if part else "")
        self.path = folder / f"{stem}.csv"
        self.card_path = folder / f"{stem}.json"
        self._is_part, self._lock = bool(part), FileLock(folder / f"{stem}.lock")
        self._rows = self._read()
        self.seconds, self._rest = self._read_seconds()

    def get(self, keys: Sequence[str]) -> pd.DataFrame:
        """The finished rows among those asked for, in their order, without the key column."""
        here = [key for key in keys if key in self._rows.index]
        return self._rows.loc[here].reset_index(drop=True)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys that have no row yet."""
        return [key for key in keys if key not in self._rows.index]

    def wall_seconds(self, keys: Sequence[str]) -> float | None:
        """What rows took, in all processes together; None where that is not known of these rows alone.

        A card without the seconds of each row has one sum, of all rows that it had.
        """
        known = [self.seconds[key] for key in keys if key in self.seconds]
        if len(known) == len(keys):
            return sum(known)
        summed = {key for key in self._rows.index if key not in self.seconds}
        return sum(known) + self._rest if self._rest and summed <= set(keys) else None

    def add(
        self, rows: dict[str, dict[str, Any]], seconds: Mapping[str, float], more_seconds: float = 0.0
    ) -> None:
        """Add rows by key and the wall time that each took, and write. Raises RowsError.

        more_seconds: of rows whose own time is not known, together.
        """
        self._take()
        try:
            columns = _columns(set().union(*rows.values()))
            new = pd.DataFrame(list(rows.values()), index=list(rows), columns=columns)
            old = self._read()
            old = old.drop(index=old.index.intersection(new.index))
            # a frame without rows has no types, and would take those of the other
            merged = pd.concat([frame for frame in (old, new) if len(frame)] or [new])
            write_text(self.path, to_csv(merged.rename_axis(KEY).reset_index()))
            self._rows = self._read()
            before, rest = self._read_seconds()
            self.seconds = before | {key: round(took, 6) for key, took in seconds.items()}
            self._rest = rest + more_seconds
            card = {
                "system": self.system,
                "wall_seconds": round(sum(self.seconds.values()) + self._rest, 6),
                "row_seconds": self.seconds,
                "fingerprint": self.fingerprint,
            }
            write_text(self.card_path, json.dumps(card, indent=2, sort_keys=True) + "\n")
        finally:
            if not self._is_part:
                self._lock.release()

    def part(self, name: str) -> Working:
        """The rows of one process, in files of its own beside these. name: without a dot."""
        return Working(self.profile, self.system, self.key, self.fingerprint, name)

    def absorb(self) -> None:
        """Take over rows and cost of the parts whose process has ended, and delete their files. Raises RowsError."""
        for path in sorted(self.path.parent.glob(f"{self.path.stem}.*.csv")):
            part = self.part(path.stem.partition(".")[2])
            if part._take(wait=False):
                self.add(part._read().to_dict("index"), *part._read_seconds())
                part.delete()

    def delete(self) -> None:
        """Delete the files; what is missing already is no error. Raises RowsError."""
        for path in (self.path, self.card_path, Path(self._lock.lock_file)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RowsError(f"cannot delete {path}: {error}; delete it by hand") from error
        self._lock.release(force=True)

    def _take(self, wait: bool = True) -> bool:
        """Keep other processes from these files; False where one has them and `wait` is False. Raises RowsError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=wait)
        except Timeout:
            return False
        except OSError as error:
            raise RowsError(
                f"cannot write {self.path}: {error}; check that the folder is writable and has space"
            ) from error
        return True

    def _read(self) -> pd.DataFrame:
        if not self.path.exists():
            return pd.DataFrame(columns=list(COLUMNS))
        rows = read_csv(self.path)
        if KEY not in rows:
            raise RowsError(f"{self.path} has lost its keys; delete it and run again")
        return rows.set_index(KEY)[_columns(rows)]

    def _read_seconds(self) -> tuple[dict[str, float], float]:
        """The seconds of each row by key, and those that are known as a sum only."""
        try:
            card = json.loads(self.card_path.read_text(encoding="utf-8"))
            seconds = {key: float(took) for key, took in card.get("row_seconds", {}).items()}
            return seconds, max(0.0, round(float(card["wall_seconds"]) - sum(seconds.values()), 3))
        except (FileNotFoundError, NotADirectoryError):
            return {}, 0.0
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RowsError(f"{self.card_path} cannot be read ({error}); delete it and run again") from error
