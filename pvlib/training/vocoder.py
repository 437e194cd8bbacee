"""Training of the vocoder on the mini world: spectral reconstruction first, then against discriminators.

The generator is Vocos whole; the discriminators are its own classes, narrower, since two cores must run them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from vocos.discriminators import DiscriminatorP, DiscriminatorR
from vocos.loss import DiscriminatorLoss, FeatureMatchingLoss, GeneratorLoss

from pvlib import audio, vocoder
from pvlib.config import MINI, Profile
from pvlib.speaker import GE2E
from pvlib.training import machine
from pvlib.training.common import Ema, Run, TrainingError, autocast, chosen_device, muon_and_adamw
from pvlib.training.features import on_device, stretches
from pvlib.training.schedule import Schedule
from pvlib.world import corpus as world

NAME = "vocoder"
STEPS = 16_000
BATCH = 4
CRITIC_ROWS = 2  # crops of a batch that the discriminators see
# 152 hops, 1.6 s. Each layer sees where a crop ends: of crops of 0.4 s that is everywhere, and what is learnt from
# it is lost on whole utterances (log-mel error of unseen speakers 0.12 in such crops, 0.16 outside).
CROP_SAMPLES = 38_912
PEAK_RATE, BETAS = 1e-3, (0.8, 0.9)
WARMUP = 100
ADVERSARIAL_FROM = 0.9  # share of the run after which the discriminators join
MEL_WEIGHT = 45.0  # as Vocos weighs it
STFT_WEIGHT = 2.0
RESOLUTION_WEIGHT = 0.5  # of the spectral discriminators beside the periodic ones
FFT_SIZES = (2048, 1024, 512)
PERIODS = (2, 3, 5, 7, 11)
EMA_DECAY = 0.998
EVALUATE_EVERY = 1000
DEV_UTTERANCES = 16
DATA = "the mini world, train split; quality on 64 utterances of the dev split (speakers never seen)"


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
    many times the usual crops in a step, for a GPU.
    Raises CorpusError without a corpus, TrainingError on a damaged or foreign state or too short utterances.
    """
    machine.prepare(threads)
    steps = steps or STEPS
    device = chosen_device(device)
    crops = Crops(world.open_split("train"), device, limit)
    torch.manual_seed(profile.seed)
    run, model, ema, critics, optimizers, critic_optimizer = _parts(profile, device, larger)
    run.take_up(profile) if from_weights else run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)

    heard = larger * CRITIC_ROWS

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng([profile.seed, index])
        wave = crops.batch(larger * BATCH, rng)
        rate = schedule.apply(*optimizers, critic_optimizer)
        model.train()
        with autocast(device):
            made = model(audio.mel(wave))
        values = {"rate": rate} | dict.fromkeys(("critic", "fooling", "matching"), float("nan"))
        adversarial = schedule.progress >= ADVERSARIAL_FROM
        if adversarial:
            chosen = critics.choose(rng)
            critic_optimizer.zero_grad(set_to_none=True)
            with autocast(device):
                loss = critics.critic_loss(wave[:heard], made[:heard].detach(), chosen)
            loss.backward()
            critic_optimizer.step()
            values["critic"] = loss.detach()
        model.zero_grad(set_to_none=True)
        mel, stft = mel_loss(made, wave), stft_loss(made, wave)
        loss = MEL_WEIGHT * mel + STFT_WEIGHT * stft
        if adversarial:
            with autocast(device):
                fooling, matching = critics.generator_loss(wave[:heard], made[:heard], chosen)
            loss = loss + fooling + matching
            values |= {"fooling": fooling.detach(), "matching": matching.detach()}
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        for optimizer in optimizers:
            optimizer.step()
        ema.update()
        return {"mel": mel.detach(), "stft": stft.detach()} | values

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        log_every=50,
        evaluate=lambda: evaluate(model, ema),
        evaluate_every=EVALUATE_EVERY,
    )
    _export(run, profile, model, ema)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, model, ema, *_ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


class Crops:
    """Pieces of CROP_SAMPLES out of a corpus, whose sound lies on one device."""

    def __init__(self, corpus: world.Corpus, device: torch.device, limit: int | None = None):
        """limit: first utterances only. Raises TrainingError where all are too short."""
        samples = corpus.table["samples"].to_numpy()[:limit]
        usable = np.flatnonzero(samples >= CROP_SAMPLES)
        if not len(usable):
            raise TrainingError(f"no utterance has {CROP_SAMPLES} samples; build a corpus of longer speech")
        self._offsets, self._samples = corpus.table["offset"].to_numpy()[usable], samples[usable]
        self._sound = on_device(corpus.sound, device)

    def batch(self, size: int, rng: np.random.Generator) -> Tensor:
        """So many pieces from random places of random utterances, at random levels (-12 to +3 dB): (b, s)."""
        chosen = rng.integers(len(self._samples), size=size)
        starts = self._offsets[chosen] + rng.integers(self._samples[chosen] - CROP_SAMPLES + 1)
        gains = (10 ** (rng.uniform(-12, 3, size) / 20)).astype(np.float32) / 32768
        sound = stretches(self._sound, starts, CROP_SAMPLES)
        wave = torch.from_numpy(gains)[:, None].to(sound.device, non_blocking=True) * sound
        return wave / wave.abs().amax(1, keepdim=True).clamp(min=1.0)


def mel_loss(made: Tensor, wave: Tensor) -> Tensor:
    """Mean absolute difference of the log-mels of two waveforms (b, s)."""
    return (audio.mel(made) - audio.mel(wave)).abs().mean()


def stft_loss(made: Tensor, wave: Tensor) -> Tensor:
    """Spectral convergence and log-magnitude distance, averaged over three resolutions (arXiv 1910.11480)."""
    total = made.new_zeros(())
    for size in FFT_SIZES:
        window = torch.hann_window(size, device=made.device)
        a, b = (
            torch.stft(x, size, size // 4, window=window, return_complex=True).abs().clamp(min=1e-5)
            for x in (made, wave)
        )
        total = total + (a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean()
    return total / len(FFT_SIZES)


class NarrowDiscriminatorP(DiscriminatorP):
    """Vocos's period discriminator with an eighth of the channels; its forward pass is inherited."""

    def __init__(self, period: int):
        nn.Module.__init__(self)  # the wide layers are not even built
        self.period, self.lrelu_slope = period, 0.1
        widths, strides = (1, 16, 32, 64, 128, 128), (3, 3, 3, 3, 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)))
            for a, b, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.conv_post = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, padding=(1, 0)))


class Critics(nn.Module):
    """Discriminators over periods and over resolutions; a step asks some of each, drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.periods = nn.ModuleList(NarrowDiscriminatorP(p) for p in PERIODS)
        self.resolutions = nn.ModuleList(DiscriminatorR(size, channels=16) for size in FFT_SIZES)
        self.losses = (DiscriminatorLoss(), GeneratorLoss(), FeatureMatchingLoss())

    def choose(self, rng: np.random.Generator) -> list[tuple[nn.Module, float]]:
        """Two of the periods and one of the resolutions, with their weights."""
        periods = [self.periods[int(k)] for k in rng.choice(len(self.periods), 2, replace=False)]
        return [(d, 1 / len(periods)) for d in periods] + [
            (self.resolutions[int(rng.integers(len(self.resolutions)))], RESOLUTION_WEIGHT)
        ]

    def critic_loss(self, wave: Tensor, made: Tensor, chosen: list[tuple[nn.Module, float]]) -> Tensor:
        """Hinge loss of the chosen discriminators: true (b, s) against made (b, s)."""
        total = wave.new_zeros(())
        for critic, weight in chosen:
            scores, _ = critic(torch.cat([wave, made]))
            true, false = scores.float().chunk(2)
            total = total + weight * self.losses[0]([true], [false])[0].sum()
        return total

    def generator_loss(
        self, wave: Tensor, made: Tensor, chosen: list[tuple[nn.Module, float]]
    ) -> tuple[Tensor, Tensor]:
        """Adversarial loss of the maker, and the distance of the features that the discriminators see."""
        fooling, matching = wave.new_zeros(()), wave.new_zeros(())
        self.requires_grad_(False)
        for critic, weight in chosen:
            with torch.no_grad():
                _, true = critic(wave)
            score, false = critic(made)
            fooling = fooling + weight * self.losses[1]([score.float()])[0].sum()
            distance = self.losses[2]([[t.float() for t in true]], [[f.float() for f in false]])
            matching = matching + weight * distance.sum()
        self.requires_grad_(True)
        return fooling, matching


def evenly(count: int, limit: int) -> list[int]:
    """Up to so many of `count` utterances, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int)).tolist()


def averaged(model: vocoder.Vocoder, ema: Ema) -> vocoder.Vocoder:
    """A vocoder of the averaged weights, on the device of the one in training."""
    twin = vocoder.build(model.config).to(next(model.parameters()).device).eval()
    twin.load_state_dict(ema.shadow)
    return twin


def evaluate(model: vocoder.Vocoder, ema: Ema, limit: int = DEV_UTTERANCES) -> dict[str, float]:
    """Averaged weights on the dev split: log-mel error and GE2E similarity, for Griffin-Lim as well."""
    corpus = world.open_split("dev")
    device, twin, judge = next(model.parameters()).device, averaged(model, ema), GE2E()
    errors: dict[str, list[float]] = {"vocoder": [], "griffin_lim": []}
    similarities: dict[str, list[float]] = {"vocoder": [], "griffin_lim": []}
    for i in evenly(len(corpus), limit):
        wave = torch.from_numpy(corpus.wave(i)).to(device)
        mel = audio.mel(wave)
        for name, made in (("vocoder", twin.decode(mel)), ("griffin_lim", vocoder.griffin_lim(mel, 32))):
            errors[name].append(float((audio.mel(made) - mel).abs().mean()))
            a, b = judge.embed([made[0].cpu().numpy(), wave.cpu().numpy()])
            similarities[name].append(float(a @ b))
    return {
        "mel_error": float(np.mean(errors["vocoder"])),
        "mel_error_griffin_lim": float(np.mean(errors["griffin_lim"])),
        "ge2e_similarity": float(np.mean(similarities["vocoder"])),
        "ge2e_similarity_griffin_lim": float(np.mean(similarities["griffin_lim"])),
    }


def generator(
    profile: Profile, device: torch.device, peak: float
) -> tuple[vocoder.Vocoder, Ema, tuple[torch.optim.Muon, torch.optim.AdamW]]:
    """An untrained vocoder, its average and its optimisers: Muon for the matrices of its blocks, AdamW for the rest."""
    model = vocoder.build(profile.vocoder).to(device)
    matrices = [
        weight for block in model.backbone.convnext for weight in (block.pwconv1.weight, block.pwconv2.weight)
    ]
    return model, Ema(model, EMA_DECAY), muon_and_adamw(matrices, model.parameters(), peak, BETAS)


def _parts(
    profile: Profile, device: torch.device, larger: int = 1
) -> tuple[Run, vocoder.Vocoder, Ema, Critics, tuple[torch.optim.Optimizer, ...], torch.optim.Optimizer]:
    model, ema, (muon, adam) = generator(profile, device, PEAK_RATE)
    critics = Critics().to(device)
    critic_adam = torch.optim.AdamW(
        critics.parameters(), lr=PEAK_RATE, betas=BETAS, weight_decay=1e-2, fused=True
    )
    parts = {
        "model": model, "ema": ema, "critics": critics, "muon": muon, "adam": adam, "critic_adam": critic_adam,
    }  # fmt: skip
    run = Run(NAME, parts, config=profile.vocoder, larger=larger)
    return run, model, ema, critics, (muon, adam), critic_adam


def _export(run: Run, profile: Profile, model: vocoder.Vocoder, ema: Ema) -> None:
    quality = evaluate(model, ema, limit=64)
    run.export(
        profile,
        ema.shadow,
        data=DATA,
        quality={key: round(value, 4) for key, value in quality.items()},
    )
