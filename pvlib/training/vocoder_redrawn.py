"""The vocoder's last lesson: mels that the backbone drew again (`redrawn`), beside true ones.

Half of the crops of a step are of either kind, and the recording is what both should give. There are no discriminators:
where the backbone was wrong, the sound that was meant is not to be known, and what they ask for in its stead, detail
of any kind, is heard as roughness (on dev, after as many minutes with them, DNSMOS of clones had fallen).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio, hub
from pvlib.config import MINI, Profile
from pvlib.metrics import dnsmos
from pvlib.training import listening, machine, vocoder
from pvlib.training.common import Run, TrainingError, autocast, chosen_device
from pvlib.training.features import on_device, stretches
from pvlib.training.redrawn import Redrawn, redrawn
from pvlib.training.schedule import Progress, set_rate
from pvlib.world import corpus as world

NAME, FOLDER = vocoder.NAME, "vocoder-redrawn"
STEPS = 4_000
PEAK_RATE, WARMUP = 3e-4, 100
TRUE_ROWS, REDRAWN_ROWS = 2, 2
EVALUATE_EVERY = 500


class Beginning:
    """Where this lesson began, at which step of which weights, and the weights that it left: part of its state."""

    def __init__(self) -> None:
        self.step, self.weights = -1, [""]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.weights = state["step"], state["weights"]


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Go on from the embedded vocoder, or where the last run stopped, and export it at the end.

    steps: in all, those of the vocoder before included, default STEPS more; minutes: budget of this call.
    Raises WeightsError without a vocoder, a backbone or a recogniser, CorpusError without a corpus, TrainingError on a
    damaged state or one that is of another vocoder, or where all utterances are too short.
    """
    machine.prepare(threads)
    device = chosen_device(device)
    run, model, ema, optimizers, beginning = _parts(profile, device)
    _begin(run, beginning, profile)
    corpus = world.open_split("train")
    crops, pairs = vocoder.Crops(corpus, device), Pairs(corpus, redrawn(profile, device), device)
    steps = beginning.step + STEPS if steps is None else steps
    progress = Progress(run, steps, minutes, first=beginning.step)

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng([profile.seed, index])
        true = crops.batch(TRUE_ROWS, rng)
        drawn, meant = pairs.batch(REDRAWN_ROWS, rng)
        rate = PEAK_RATE * (1 - progress.progress) * min(1.0, (run.step - beginning.step + 1) / WARMUP)
        set_rate(rate, *optimizers)
        model.train()
        with autocast(device):
            made = model(torch.cat([audio.mel(true), drawn]))
        model.zero_grad(set_to_none=True)
        losses = [
            (vocoder.mel_loss(part, wave), vocoder.stft_loss(part, wave))
            for part, wave in ((made[:TRUE_ROWS], true), (made[TRUE_ROWS:], meant))
        ]
        total = sum(vocoder.MEL_WEIGHT * mel + vocoder.STFT_WEIGHT * stft for mel, stft in losses) / 2
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        for optimizer in optimizers:
            optimizer.step()
        ema.update()
        (mel, stft), (mel_redrawn, stft_redrawn) = ((a.detach(), b.detach()) for a, b in losses)
        return {
            "mel": mel, "stft": stft, "rate": rate, "mel_redrawn": mel_redrawn, "stft_redrawn": stft_redrawn,
        }  # fmt: skip

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        log_every=50,
        evaluate=lambda: vocoder.evaluate(model, ema),
        evaluate_every=EVALUATE_EVERY,
    )
    _export(run, profile, model, ema, beginning)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, model, ema, _, beginning = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema, beginning)


class Pairs:
    """Crops of mels that were drawn again, behind the second that was not, and of the recordings they belong to."""

    def __init__(self, corpus: world.Corpus, made: Redrawn, device: torch.device):
        """Raises TrainingError where all are too short."""
        self.frames = vocoder.CROP_SAMPLES // audio.HOP_LENGTH + 1
        lengths = np.diff(made.offsets)
        sound, samples = corpus.table["offset"].to_numpy(), corpus.table["samples"].to_numpy()
        lengths = np.minimum(lengths, samples[made.utterances] // audio.HOP_LENGTH)
        usable = np.flatnonzero(lengths >= audio.CLIP_FRAMES + self.frames)
        if not len(usable):
            raise TrainingError(
                f"no mel that was drawn again has {audio.CLIP_FRAMES + self.frames} frames; build a corpus of "
                "longer speech"
            )
        self._places = lengths[usable] - audio.CLIP_FRAMES - self.frames + 1
        self._mel_offsets, self._offsets = made.offsets[usable], sound[made.utterances[usable]]
        self._mels, self._sound = on_device(made.frames, device), on_device(corpus.sound, device)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """So many mels (b, 100, n) and waves (b, s), at random levels (-12 to +3 dB, less where that would clip)."""
        chosen = rng.integers(len(self._places), size=size)
        first = audio.CLIP_FRAMES + rng.integers(self._places[chosen])
        mel = stretches(self._mels, self._mel_offsets[chosen] + first, self.frames).transpose(1, 2)
        starts = self._offsets[chosen] + audio.HOP_LENGTH * first
        wave = stretches(self._sound, starts, vocoder.CROP_SAMPLES) / 32768
        gain = torch.from_numpy((10 ** (rng.uniform(-12, 3, size) / 20)).astype(np.float32))[:, None]
        gain = gain.to(wave.device).minimum(1 / wave.abs().amax(1, keepdim=True).clamp(min=1e-4))
        floor = float(np.log(audio.MEL_FLOOR))
        return (mel + gain.log()[..., None]).clamp(min=floor), gain * wave


@torch.no_grad()
def clones(profile: Profile, model: nn.Module, count: int = listening.UTTERANCES) -> dict[str, float]:
    """Mean DNSMOS of clones in dev voices, and of the true dev mels that `vocoder.evaluate` takes, by this vocoder."""
    device = next(model.parameters()).device
    speaker = hub.load_backbone(profile, device)
    asked, _ = listening.items(speaker, profile, count)
    mels = []
    for first in range(0, len(asked), listening.TOGETHER):
        batch = asked[first : first + listening.TOGETHER]
        made = speaker.sample(batch, steps=profile.inference.steps)
        mels += [mel[len(item.mel) :].T for mel, item in zip(made, batch, strict=True)]
    corpus = world.open_split("dev")
    true = [audio.mel(torch.from_numpy(corpus.wave(i)))[0] for i in vocoder.evenly(len(corpus), len(mels))]
    scores = {
        name: [dnsmos.overall(model.decode(mel[None].to(device))[0].float().cpu().numpy()) for mel in spoken]
        for name, spoken in (("dnsmos_clones", mels), ("dnsmos_true_mels", true))
    }
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _parts(profile: Profile, device: torch.device):
    model, ema, optimizers = vocoder.generator(profile, device, PEAK_RATE)
    beginning = Beginning()
    parts = {
        "model": model, "ema": ema, "muon": optimizers[0], "adam": optimizers[1], "beginning": beginning,
    }  # fmt: skip
    run = Run(NAME, parts, config=profile.vocoder, folder=FOLDER, command=FOLDER)
    return run, model, ema, optimizers, beginning


def _begin(run: Run, beginning: Beginning, profile: Profile) -> None:
    """Take up the state, or the embedded weights where there is none."""
    run.take_up(profile)
    run.from_weights = False  # as always here, which the command need not tell
    present = hub.fingerprint(NAME, profile)
    if beginning.step < 0:
        beginning.step, beginning.weights = run.step, [present]
    elif present not in beginning.weights:
        raise TrainingError(
            f"{run.state_path} goes on from another vocoder than the present weights; delete it to begin at these"
        )


def _export(run: Run, profile: Profile, model: Any, ema: Any, beginning: Beginning) -> None:
    twin = vocoder.averaged(model, ema)
    quality = vocoder.evaluate(model, ema, limit=64) | clones(profile, twin)
    run.export(
        profile,
        ema.shadow,
        data=f"{vocoder.DATA}, at the last also mels that the backbone drew again",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
    beginning.weights = [beginning.weights[0], hub.fingerprint(NAME, profile)]
    run.save()
