"""What every training run shares: a resumable loop state, a log, a time budget, and the export with its card."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm.auto import tqdm

from pvlib import hub, paths
from pvlib.config import Profile
from pvlib.training import eight_bits
from pvlib.world import corpus as world

STOPPING = (signal.SIGINT, signal.SIGTERM)
POOL = 512  # utterances that are sorted by length together


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message names the cause and the remedy."""


class Stopped(TrainingError):
    """Somebody asked the run to stop. Its state is saved."""

    status = 130  # of the command that ends with it


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives; the second of a kind does what it did before."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may listen to signals
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    try:
        for number in STOPPING:
            signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def chosen_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; None: the GPU where there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def machine_name() -> str:
    """Processor, GPU where there is one, and torch, for a card."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {os.cpu_count()} cores, {gpu}torch {torch.__version__}"


def autocast(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bf16 autocast where the hardware multiplies bf16 (`hub.precision`), else none."""
    capable = hub.precision(device) == torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and capable)


def muon_and_adamw(
    matrices: list[nn.Parameter], others: Iterable[nn.Parameter], rate: float, betas: tuple[float, float]
) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the weight matrices of the inner layers, AdamW for all of `others` that is not among them.

    Muon (Jordan et al., 2024) makes a matrix' step orthogonal; scaled to AdamW's usual size, both share a rate.
    """
    taken = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in others if id(parameter) not in taken]
    return (
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=betas, weight_decay=0.01, fused=True),
    )


class Speech(Protocol):
    """A corpus, as far as a card speaks of it."""

    @property
    def hours(self) -> float: ...

    def __len__(self) -> int: ...


class Run:
    """The life of one training: counts steps and seconds, logs, checkpoints atomically, resumes.

    parts: everything with `state_dict`/`load_state_dict` that must survive (model, optimiser, schedule).
    The state lies in build/training/<folder>/state.pt, beside it the losses in log.csv and what evaluations on the
    dev split found in dev.csv. folder: by default the name. options: what the command has beside name and budget.
    larger: how many times the usual size its steps have, which the command tells too. command: what `pvlib train` calls
    it, by default the name.
    """

    def __init__(
        self,
        name: str,
        parts: dict[str, Any],
        *,
        config: object,
        save_every_seconds: float = 120.0,
        folder: str | None = None,
        options: str = "",
        larger: int = 1,
        command: str | None = None,
    ):
        self.name, self.parts, self.config = name, parts, asdict(config)
        self.folder = paths.TRAINING / (folder or name)
        if larger > 1:
            options += f" --larger {larger}"
        trained_as = command or name.removesuffix("_encoder")
        self.command = " ".join(f"pvlib train {trained_as} {options}".split())
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state_path = self.folder / "state.pt"
        self.step, self.seconds = 0, 0.0
        self.spent = 0.0  # seconds of this call, its evaluations too
        self.from_weights = False
        self.commands: list[str] = []  # one for each time the run was taken up with other settings
        self.machines: list[str] = []  # all that it was trained on, in order
        self.save_every_seconds = save_every_seconds

    def resume(self) -> bool:
        """Load the last state where there is one, and drop what was logged after it. Returns whether there was.

        Raises TrainingError on a damaged state or one of another configuration.
        """
        if there := self._load():
            for name in ("log.csv", "dev.csv"):
                self._forget(self.folder / name)
        return there

    def _load(self) -> bool:
        if not self.state_path.exists():
            return False
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise TrainingError(
                f"{self.state_path} cannot be read ({error}); delete it to start {self.name} from nothing"
            ) from error
        if state["config"] != self.config:
            raise TrainingError(
                f"{self.state_path} is of another configuration; delete it or restore the configuration"
            )
        for key, part in self.parts.items():
            try:
                part.load_state_dict(state["parts"][key])
            except (RuntimeError, KeyError, ValueError) as error:  # say, a corpus with more speakers
                raise TrainingError(
                    f"the {key} in {self.state_path} does not fit ({error}); was it trained on another corpus? "
                    f"delete it to start {self.name} from nothing"
                ) from error
        self.step, self.seconds = state["step"], state["seconds"]
        self.commands = list(state.get("commands", []))
        self.machines = list(state.get("machines", []))
        torch.set_rng_state(state["rng"])
        return True

    def take_up(
        self,
        profile: Profile,
        renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda weights: weights,
    ) -> bool:
        """Begin at the embedded weights: their steps, seconds, commands and logs. The optimisers start anew.

        For runs whose parts "model" and "ema" hold what is exported; renamed: from its names to those of the model in
        training. Where there is a state, it is resumed. True.
        Raises WeightsError where the weights are missing, damaged or of another configuration, and as `resume` does.
        """
        if self.resume():
            return True
        path, card = hub.weights_path(self.name, profile), hub.read_card(self.name, profile)
        weights = renamed(hub.read_weights(self.name, profile))
        model, ema = self.parts["model"], self.parts["ema"]
        model.load_state_dict(model.state_dict() | weights)
        ema.load_state_dict({"shadow": weights, "updates": card["steps"]})
        self.step, self.seconds = card["steps"], card["seconds"]
        self.commands, self.machines = [card["command"]], card["machine"].split("; ")
        self.from_weights = True
        for name in ("log.csv", "dev.csv"):
            if (log := path.with_name(f"{self.name}.{name}")).exists():
                shutil.copyfile(log, self.folder / name)
        return True

    def require(self) -> None:
        """Load the last state to look at it; a run that goes on meanwhile keeps its logs.

        Raises TrainingError as `resume` does, and where there is none.
        """
        if not self._load():
            raise TrainingError(f"{self.state_path} is not there: run `{self.command}` first")

    def _forget(self, path: Path) -> None:
        """Drop what was logged after the state was saved: those steps are done again."""
        if path.exists():
            self._copy_log(path, path)

    def _copy_log(self, path: Path, target: Path) -> None:
        """A log as far as the present step, without lines that a kill or a full disk cut short."""
        with path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= self.step]
        with paths.appearing(target) as partial, partial.open("w", newline="") as file:
            csv.writer(file).writerows([header, *kept] if header else [])

    def save(self) -> None:
        """Write the state beside the old one, then swap: a full disk or a kill leaves the old one whole."""
        state = {
            "config": self.config,
            "parts": {key: part.state_dict() for key, part in self.parts.items()},
            "step": self.step,
            "seconds": self.seconds,
            "commands": self.commands,
            "machines": self.machines,
            "rng": torch.get_rng_state(),
        }
        try:
            with paths.appearing(self.state_path) as partial:
                torch.save(state, partial)
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"cannot save {self.state_path}: {error}; free some space and run again, step {self.step} is lost, "
                "the state before it is whole"
            ) from error

    def log(self, values: dict[str, float], file_name: str = "log.csv") -> None:
        """Append one line to log.csv, or to dev.csv what an evaluation found; columns that are new to it it gets."""
        path = self.folder / file_name
        try:
            self._append(path, values)
        except OSError as error:
            raise TrainingError(
                f"cannot write {path}: {error}; free some space and run again, the last state is whole"
            ) from error

    def _append(self, path: Path, values: dict[str, float]) -> None:
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            **{k: round(float(v), 5) for k, v in values.items()},
        }
        columns = _with_columns(path, list(row))
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerow(row)

    def loop(
        self,
        train_step: Callable[[int], dict[str, float]],
        *,
        steps: int,
        minutes: float | None = None,
        log_every: int = 25,
        evaluate: Callable[[], dict[str, float]] | None = None,
        evaluate_every: int = 0,
    ) -> None:
        """Call `train_step(step)` until `steps` are done in all, or `minutes` of this call have passed.

        train_step: returns what the log tells, numbers or tensors of one number. Ctrl-C or SIGTERM lets it finish its
        step; the state is saved and Stopped raised. Raises TrainingError where another process trains the same.
        """
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                self._loop(train_step, steps, minutes, log_every, evaluate, evaluate_every)
        except Timeout as error:
            raise TrainingError(
                f"{self.name} is in training already, by another process on {self.folder}; wait for it or stop it"
            ) from error

    def _loop(
        self,
        train_step: Callable[[int], dict[str, float]],
        steps: int,
        minutes: float | None,
        log_every: int,
        evaluate: Callable[[], dict[str, float]] | None,
        evaluate_every: int,
    ) -> None:
        self._note_command(steps, minutes)
        if not self.step:  # what an earlier run from nothing logged is not this one's
            for name in ("log.csv", "dev.csv"):
                (self.folder / name).unlink(missing_ok=True)
        start = last_save = last = time.monotonic()
        sums: dict[str, float | Tensor] = {}
        count = 0
        bar = tqdm(total=steps, initial=self.step, desc=self.name, dynamic_ncols=True, mininterval=5)
        with bar, _stopping() as asked:
            while self.step < steps:
                values = train_step(self.step)
                self.step += 1
                now = time.monotonic()
                self.seconds += now - last
                self.spent = now - start
                last = now
                for key, value in values.items():
                    sums[key] = sums.get(key, 0.0) + value
                count += 1
                bar.update(1)
                if self.step % log_every == 0:  # only here does a GPU have to be waited for
                    means = {key: float(value) / count for key, value in sums.items()}
                    self.log(means)
                    bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()})
                    sums, count = {}, 0
                if evaluate and evaluate_every and self.step % evaluate_every == 0:
                    self.log(evaluate(), "dev.csv")
                    last = time.monotonic()
                if now - last_save > self.save_every_seconds:
                    self.save()
                    last_save = now
                if asked or (minutes is not None and now - start > minutes * 60):
                    break
        self.save()
        if asked:
            raise Stopped(f"{self.name}: stopped at step {self.step}; `{self.command}` goes on from there")

    def _note_command(self, steps: int, minutes: float | None) -> None:
        command = f"{self.command} --steps {steps}"
        if minutes is not None:
            command += f" --minutes {minutes:g}"
        command += f" --threads {torch.get_num_threads()}{' --from-weights' * self.from_weights}"
        if machine_name() not in self.machines:
            self.machines.append(machine_name())
        if not self.commands or not self.commands[-1].endswith(command):
            self.commands.append(f"from step {self.step}: {command}" if self.step else command)

    def export(
        self,
        profile: Any,
        state_dict: dict[str, Tensor],
        *,
        data: str,
        quality: dict,
        more: dict | None = None,
        corpus: Speech | None = None,
    ) -> Path:
        """Write the weights, their card and the logs to data/checkpoints/<profile>. The card counts the corpus used.

        state_dict: of a network in `eight_bits.NAMES`, `eight_bits.rounded`. more: what else the card tells. corpus:
        None is the train split of the mini world.
        """
        corpus = world.open_split("train") if corpus is None else corpus
        path = hub.save_weights(
            self.name,
            profile,
            state_dict,
            {
                "config": self.config,
                "data": data,
                "utterances": len(corpus),
                "hours": round(corpus.hours, 2),
                "command": "; ".join(self.commands),
                "steps": self.step,
                "seconds": round(self.seconds),
                "machine": "; ".join(self.machines) or "not recorded",
                "quality": quality,
                **(more or {}),
            },
        )
        for log in (self.folder / "log.csv", self.folder / "dev.csv"):
            if log.exists():
                self._copy_log(log, path.with_name(f"{self.name}.{log.name}"))
        return eight_bits.shrink(self.name, profile) if self.name in eight_bits.NAMES else path


def _with_columns(path: Path, wanted: list[str]) -> list[str]:
    """The columns of a CSV file, which has all that are wanted from now on; a missing or empty file gets its header."""
    columns: list[str] = []
    rows: list[dict[str, str]] = []
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            if set(wanted) <= set(columns):
                return columns
            rows = list(reader)
    columns += [name for name in wanted if name not in columns]
    with paths.appearing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return columns


class Ema:
    """Exponential moving average of a module's parameters; `decay` ramps up over the first steps."""

    def __init__(self, module: nn.Module, decay: float = 0.999):
        self.module, self.decay, self.updates = module, decay, 0
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def take(self, module: nn.Module) -> None:
        """Begin the average anew at the module's present state."""
        for key, value in module.state_dict().items():
            self.shadow[key].copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Fold the module's present state into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = self.module.state_dict()
        floats = [k for k, v in state.items() if v.dtype.is_floating_point]
        torch._foreach_lerp_([self.shadow[k] for k in floats], [state[k] for k in floats], 1 - decay)
        for key in state.keys() - set(floats):
            self.shadow[key].copy_(state[key])

    def state_dict(self) -> dict[str, Any]:
        """The averaged parameters and the number of updates."""
        return {"shadow": self.shadow, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.updates = state["updates"]
        for key, value in state["shadow"].items():
            self.shadow[key].copy_(value)


def batches_by_length(
    lengths: list[int], budget: int, *, seed: int, start: int = 0, max_rows: int = 64, larger: int = 1
) -> Iterator[list[int]]:
    """Endless batches of indices of like length, each of at most `budget` padded units.

    lengths: one per utterance. Deterministic in `seed`; `start` skips that many batches, so that a resumed run
    sees the batches an unbroken one would have seen. larger: so many times the budget, the rows, and the utterances
    that are sorted by length together.
    """
    budget, pool, max_rows = larger * budget, larger * POOL, larger * max_rows
    epoch, given = 0, 0
    while True:
        generator = torch.Generator().manual_seed(seed + epoch)
        order = torch.randperm(len(lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        for first in range(0, len(order), pool):
            group = sorted(order[first : first + pool], key=lambda i: lengths[i])
            batch: list[int] = []
            for index in group:
                if batch and ((len(batch) + 1) * lengths[index] > budget or len(batch) >= max_rows):
                    batches.append(batch)
                    batch = []
                batch.append(index)
            batches.append(batch)
        for k in torch.randperm(len(batches), generator=generator).tolist():
            if given >= start:
                yield batches[k]
            given += 1
        epoch += 1
