"""Training of the synthesizer on the mini world: Tacotron 2 in the voices that Resemblyzer hears.

Spectrogram loss is L1 and L2 as in SV2TTS (Jia et al., 2018), before and after the postnet; the stop token and the
guided attention loss beside it. The guide is not the diagonal but the true times of the words, which the mini world
knows: attention is what Tacotron is slowest to learn. When it speaks, nobody tells it any time.
While it learns, the decoder is told the true past, from which the next 43 ms can be guessed without reading the text;
so a share of its steps is told nothing (Liu et al., 2019, "Maximizing mutual information for Tacotron").
Each row's voice is its own embedding, or that of its first second alone, by the toss of a coin, since one second is
all that there will be. Muon steps the matrices, the LSTMs' too: from one state over the same batches, 125 steps lowered
the spectrogram loss by 0.04 more than AdamW's did.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import alignment
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import MINI, Profile
from pvlib.systems.sv2tts import synthesizer
from pvlib.systems.sv2tts.attention import Failures, focus, guided_loss
from pvlib.text import normalise
from pvlib.training import machine
from pvlib.training.common import (
    Ema,
    Run,
    TrainingError,
    batches_by_length,
    chosen_device,
    muon_and_adamw,
)
from pvlib.training.features import mel_cache
from pvlib.training.schedule import Schedule
from pvlib.training.sv2tts_common import voices
from pvlib.world import corpus as world

NAME = "sv2tts-synthesizer"
STEPS = 10_000
BATCH_FRAMES = 6_000  # padded mel frames of one batch
MAX_ROWS = 24
PEAK_RATE = 1e-3
WARMUP = 200
CLIP_NORM = 1.0
STOP_WEIGHT = 8.0  # of the one step in a hundred that ends an utterance
GUIDE_WEIGHT = 6.0
FORGOTTEN = 0.4  # share of the decoder's steps that do not know the one before
SECOND_SHARE = 0.5  # of rows whose voice is heard in one second
EVALUATE_EVERY = 500
DEV_UTTERANCES = 128  # of the loss
DEV_TEXTS = 8  # spoken freely while training; at the end four times as many


class Rows:
    """The utterances of a split that are short enough: texts, mels and voices, by number."""

    def __init__(self, split: str, model: synthesizer.Synthesizer, limit: int | None = None):
        self.model, self.cache, self.corpus = model, mel_cache(split), world.open_split(split)
        texts = self.corpus.table["text"].tolist()
        self.texts = [normalise(text, model.index, "a training text") for text in texts]
        longest = model.config.max_chars
        self.usable = [i for i in range(len(texts))[:limit] if len(self.texts[i]) <= longest]
        if not self.usable:
            raise TrainingError(f"no utterance of {split} has at most {longest} characters; raise max_chars")
        self.voices = voices(split, self.usable)
        self._paths: dict[int, Tensor] = {}

    @property
    def lengths(self) -> list[int]:
        """Mel frames of each usable utterance."""
        frames = self.cache.lengths
        return [frames[i] for i in self.usable]

    def path(self, i: int) -> Tensor:
        """Which character of utterance i sounds at each decoder step: (t,); silence counts to the last."""
        if i not in self._paths:
            per_step = self.model.config.frames_per_step
            steps = -(-self.cache.lengths[i] // per_step)
            words = [(word.lower(), start, end) for word, start, end in self.corpus.words(i)]
            found = alignment.from_words(self.texts[i], words, SAMPLE_RATE / HOP_LENGTH / per_step, steps)
            self._paths[i] = found.cummax(0).values.clamp(min=0).to(torch.int16)
        return self._paths[i]

    def batch(self, indices: list[int], generator: torch.Generator) -> dict[str, Tensor]:
        """Tokens, scaled mels filled with silence to whole decoder steps, and voices of usable utterances."""
        chosen, per_step = [self.usable[k] for k in indices], self.model.config.frames_per_step
        tokens, token_lengths = self.model.encode([self.texts[i] for i in chosen])
        mels = [torch.from_numpy(np.asarray(self.cache.mel(i), dtype=np.float32)) for i in chosen]
        steps = torch.tensor([-(-len(mel) // per_step) for mel in mels])
        mel = torch.full((len(chosen), int(steps.max()) * per_step, mels[0].shape[1]), synthesizer.SILENCE)
        for row, found in zip(mel, mels, strict=True):
            row[: len(found)] = synthesizer.scaled(found)
        path = nn.utils.rnn.pad_sequence([self.path(i) for i in chosen], batch_first=True)
        second = (torch.rand(len(chosen), generator=generator) < SECOND_SHARE).long().numpy()
        return {
            "tokens": tokens,
            "token_lengths": token_lengths,
            "mel": mel,
            "steps": steps,
            "path": path,
            "speakers": torch.from_numpy(self.voices[chosen, second]),
        }


def forget(mel: Tensor, per_step: int, share: float, generator: torch.Generator) -> Tensor:
    """Scaled mels (b, n, 100) with a share of their decoder steps put to the mean of speech, each by its own toss."""
    tossed = torch.rand(len(mel), mel.shape[1] // per_step, 1, generator=generator) < share
    return mel.masked_fill(tossed.repeat_interleave(per_step, 1), 0.0)


def losses(
    model: synthesizer.Synthesizer, batch: dict[str, Tensor], past: Tensor | None = None
) -> dict[str, Tensor]:
    """The parts of the loss over true steps, teacher-forced: mel, stop, guide; and how sharply attention looks.

    past: what the decoder is told of the mels, by default all.
    """
    past = batch["mel"] if past is None else past
    before, after, stop, alignments = model(batch["tokens"], batch["token_lengths"], past, batch["speakers"])
    steps, mel = batch["steps"], batch["mel"]
    place = torch.arange(stop.shape[1], device=stop.device)
    true = place < steps[:, None]
    frames = true.repeat_interleave(model.n_frames_per_step, 1)
    distance = mel.new_zeros(())
    for made in (before, after):
        difference = (made - mel)[frames]
        distance = distance + difference.square().mean() + difference.abs().mean()
    ends = (place == steps[:, None] - 1).float()
    stopping = nn.functional.binary_cross_entropy_with_logits(
        stop[true], ends[true], pos_weight=stop.new_tensor(STOP_WEIGHT)
    )
    return {
        "mel": distance,
        "stop": stopping,
        "guide": guided_loss(alignments, batch["path"], steps),
        "focus": focus(alignments.detach(), steps),
    }


def total(parts: dict[str, Tensor]) -> Tensor:
    """The loss that is minimised."""
    return parts["mel"] + parts["stop"] + GUIDE_WEIGHT * parts["guide"]


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    limit: int | None = None,
    from_weights: bool = False,
    larger: int = 1,
) -> None:
    """Train, resuming where the last run stopped, and export at the end.

    steps: in all, default STEPS; minutes: budget of this call; limit: first utterances only, for a trial; larger: so
    many times the usual frames in a step, for a GPU.
    Raises CorpusError without a corpus, TrainingError on a damaged or foreign state or too long utterances.
    """
    machine.prepare(threads)
    steps = steps or STEPS
    device = chosen_device(device)
    torch.manual_seed(profile.seed)
    run, model, ema, optimizers = _parts(profile, device, larger)
    rows = Rows("train", model, limit)
    run.take_up(profile) if from_weights else run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)
    batches = batches_by_length(
        rows.lengths,
        BATCH_FRAMES,
        seed=profile.seed,
        start=run.step,
        max_rows=MAX_ROWS,
        larger=larger,
    )

    def step(index: int) -> dict[str, float]:
        torch.manual_seed(profile.seed + 1000 * index)  # dropout follows from the step alone
        generator = torch.Generator().manual_seed(index)
        chosen = rows.batch(next(batches), generator)
        past = forget(chosen["mel"], model.n_frames_per_step, FORGOTTEN, generator).to(device)
        rate = schedule.apply(*optimizers)
        model.train()
        model.zero_grad(set_to_none=True)
        parts = losses(model, {key: value.to(device) for key, value in chosen.items()}, past)
        loss = total(parts)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
        ema.update()
        return {"loss": loss.detach(), **{k: v.detach() for k, v in parts.items()}, "rate": rate}

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        evaluate=lambda: evaluate(model, ema),
        evaluate_every=EVALUATE_EVERY,
    )
    _export(run, profile, model, ema)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, model, ema, _ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


@torch.no_grad()
def evaluate(model: synthesizer.Synthesizer, ema: Ema, texts: int = DEV_TEXTS) -> dict[str, float]:
    """Averaged weights on the dev split: losses teacher-forced with fixed dropout, attention failures of free speech.

    `failed_share` is the share of `texts` dev sentences with any failure; each kind is counted beside it.
    """
    device = next(model.parameters()).device
    twin = synthesizer.build(model.config).to(device).eval()
    twin.load_state_dict(ema.shadow)
    rows = Rows("dev", twin)
    lengths = rows.lengths
    order = np.unique(np.linspace(0, len(lengths) - 1, min(DEV_UTTERANCES, len(lengths))).astype(int))
    order = sorted(order.tolist(), key=lambda k: lengths[k])
    sums: dict[str, float] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for first in range(0, len(order), MAX_ROWS):
            indices = order[first : first + MAX_ROWS]
            batch = rows.batch(indices, torch.Generator().manual_seed(first))
            for key, value in losses(twin, {k: v.to(device) for k, v in batch.items()}).items():
                sums[f"dev_{key}"] = sums.get(f"dev_{key}", 0.0) + float(value) * len(indices) / len(order)
    chosen = np.unique(np.linspace(0, len(rows.usable) - 1, min(texts, len(rows.usable))).astype(int))
    spoken = []
    for k in chosen.tolist():
        i = rows.usable[k]
        spoken.append(twin.infer(rows.texts[i], torch.from_numpy(rows.voices[i, 1]), seed=i).failures)
    counted = sum(spoken, Failures())
    return sums | {
        "texts": len(spoken),
        "failed_share": sum(found.total > 0 for found in spoken) / len(spoken),
        "skips": counted.skips,
        "repeats": counted.repeats,
        "runaways": counted.runaways,
    }


def _parts(
    profile: Profile, device: torch.device, larger: int = 1
) -> tuple[Run, synthesizer.Synthesizer, Ema, tuple[torch.optim.Optimizer, ...]]:
    model = synthesizer.build(profile.sv2tts_synthesizer).to(device)
    ema = Ema(model, 0.998)
    matrices = [
        weight for name, weight in model.named_parameters() if weight.ndim == 2 and name != "embedding.weight"
    ]
    muon, adam = muon_and_adamw(matrices, model.parameters(), PEAK_RATE, (0.9, 0.99))
    parts = {"model": model, "ema": ema, "muon": muon, "adam": adam}
    run = Run(NAME, parts, config=profile.sv2tts_synthesizer, larger=larger)
    return run, model, ema, (muon, adam)


def _export(run: Run, profile: Profile, model: synthesizer.Synthesizer, ema: Ema) -> None:
    quality = evaluate(model, ema, texts=4 * DEV_TEXTS)
    run.export(
        profile,
        ema.shadow,
        data="the mini world, train split; voices by Resemblyzer; quality on the dev split (speakers never seen)",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
