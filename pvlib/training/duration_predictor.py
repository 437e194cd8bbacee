"""Training of the duration predictor: texts of the mini world, each at the rate of a second of the same speaker.

What is trained is what will be computed: seconds of the text times how much slower than expected the clip is
(`laag.letter_duration`, with its prior), held against the true length. Half of the rows are a few words cut out of an
utterance by their true times, so that short texts are no rarity.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pvlib import durations, hub, laag
from pvlib.audio import SAMPLE_RATE
from pvlib.config import MINI, Profile
from pvlib.text import heard_until
from pvlib.training import machine
from pvlib.training.common import Ema, Run, chosen_device
from pvlib.training.schedule import Schedule
from pvlib.world.corpus import Corpus, open_split

NAME = hub.DURATION_PREDICTOR
STEPS = 3000
ROWS = 64
PEAK_RATE, WARMUP = 2e-3, 100
SPAN_SHARE, SPAN_WORDS = 0.5, 8  # of rows that are cut out, and the most words of one
CLIP_SECONDS = 1.0
DEV_SPLITS = ("dev", "dev-short")
GROUPS = {"1_4": (1, 4), "5_8": (5, 8), "9_more": (9, 1000)}  # words, of the card's figures


class Rows:
    """A split's utterances: texts with true lengths, and what is heard of each in its first second."""

    def __init__(self, split: str):
        self.corpus: Corpus = open_split(split)
        table = self.corpus.table
        self.seconds = table["samples"].to_numpy() / SAMPLE_RATE
        self.clips = [self._clip(i) for i in range(len(table))]
        self.mates = {  # a speaker's utterances that say something in their first second
            name: [k for k in rows.index if self.clips[k]] for name, rows in table.groupby("speaker")
        }

    def _clip(self, i: int) -> tuple[str, float] | None:
        """The text of utterance i's first second, closed off, and its seconds from the first word on."""
        words = self.corpus.words(i)
        heard = heard_until(words, CLIP_SECONDS)
        if not heard:
            return None
        return laag.boundary(heard.lower()), min(CLIP_SECONDS, float(self.seconds[i])) - words[0][1]

    def span(self, i: int, first: int, count: int) -> tuple[str, float]:
        """`count` words of utterance i, as a text, and their seconds."""
        words = self.corpus.words(i)[first : first + count]
        text = " ".join(self.corpus.table.text.iat[i].split()[first : first + count])
        return text, words[-1][2] - words[0][1]

    def row(self, i: int, rng: np.random.Generator, pause: float) -> tuple[str, float, str, float]:
        """Text, its seconds, and a clip of the same speaker (text, seconds), at random. pause: around the words."""
        table = self.corpus.table
        mates = self.mates[table.speaker.iat[i]]
        clip = self.clips[mates[rng.integers(len(mates))]] if mates else (laag.boundary("a"), 0.1)
        if rng.random() < SPAN_SHARE:
            total = len(self.corpus.words(i))
            count = int(rng.integers(1, min(SPAN_WORDS, total) + 1))
            text, seconds = self.span(i, int(rng.integers(total - count + 1)), count)
            return text, seconds + pause, *clip
        return table.text.iat[i], float(self.seconds[i]), *clip


def log_error(
    model: durations.DurationPredictor, rows: list[tuple[str, float, str, float]], profile: Profile
) -> Tensor:
    """ln(predicted / true length) of rows (text, seconds, clip's text, its seconds): (b,)."""
    inference, device = profile.inference, model.out.weight.device
    texts, seconds, clips, lengths = zip(*rows, strict=True)
    expected = model(model.encode([" " + text for text in texts]).to(device)).sum(1)
    of_clip = model(model.encode(clips).to(device)).sum(1)
    prior = inference.letter_prior_seconds
    slowness = (torch.tensor(lengths, device=device) + prior) / (of_clip + prior)
    made = inference.letter_pause_seconds + slowness * expected
    return (made / torch.tensor(seconds, device=device, dtype=made.dtype)).log()


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Train, resuming where the last run stopped, and export at the end; minutes of one core.

    steps: in all, default STEPS; minutes: budget of this call. Raises CorpusError without a corpus, TrainingError on
    a damaged or foreign state.
    """
    machine.prepare(threads)
    steps = steps or STEPS
    torch.manual_seed(profile.seed)
    run, model, ema, optimizer = _parts(profile, chosen_device(device))
    rows = Rows("train")
    run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)
    pause = profile.inference.letter_pause_seconds

    def step(index: int) -> dict[str, float]:
        torch.manual_seed(profile.seed + 1000 * index)  # dropout follows from the step alone
        rng = np.random.default_rng([profile.seed, index])
        chosen = [rows.row(int(i), rng, pause) for i in rng.integers(len(rows.seconds), size=ROWS)]
        rate = schedule.apply(optimizer)
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss = log_error(model, chosen, profile).square().mean()
        loss.backward()
        optimizer.step()
        ema.update()
        return {"loss": float(loss.detach()), "rate": rate}

    run.loop(step, steps=steps, minutes=minutes)
    _export(run, profile, model, ema)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, model, ema, _ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


@torch.no_grad()
def evaluate(
    model: durations.DurationPredictor, profile: Profile, splits: tuple[str, ...]
) -> dict[str, float]:
    """Root mean square of `log_error` by number of words, over all utterances of the splits.

    The clip is that of the speaker's first utterance which says something in its first second, in the first split.
    """
    model.eval()
    first = Rows(splits[0])
    clips = {name: first.clips[mates[0]] for name, mates in first.mates.items() if mates}
    found: dict[str, list[float]] = {name: [] for name in GROUPS}
    for split in splits:
        rows = first if split == splits[0] else Rows(split)
        table = rows.corpus.table
        asked = [
            (table.text.iat[i], float(rows.seconds[i]), *clips[table.speaker.iat[i]])
            for i in range(len(table))
            if table.speaker.iat[i] in clips
        ]
        for start in range(0, len(asked), ROWS):
            part = asked[start : start + ROWS]
            for row, error in zip(part, log_error(model, part, profile).tolist(), strict=True):
                words = len(row[0].split())
                group = next(name for name, (low, high) in GROUPS.items() if low <= words <= high)
                found[group].append(error**2)
    return {
        f"rms_log_error_{name}": float(np.mean(errors)) ** 0.5 for name, errors in found.items() if errors
    }


def _parts(
    profile: Profile, device: torch.device
) -> tuple[Run, durations.DurationPredictor, Ema, torch.optim.Optimizer]:
    model = durations.DurationPredictor(profile.duration_predictor).to(device)
    ema = Ema(model, 0.995)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    parts = {"model": model, "ema": ema, "optimizer": optimizer}
    return Run(NAME, parts, config=profile.duration_predictor), model, ema, optimizer


def _export(run: Run, profile: Profile, model: durations.DurationPredictor, ema: Ema) -> None:
    model.load_state_dict(ema.shadow)
    quality = evaluate(model, profile, DEV_SPLITS)
    run.export(
        profile,
        ema.shadow,
        data="the mini world, train split, each text with a second of the same speaker; quality on dev speakers",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
