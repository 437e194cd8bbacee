"""Training of WaveRNN on the mini world: the next sample's two parts from the true past and the mel.

Between a fifth and seven tenths of the run the smallest blocks of the recurrent weights are pruned away, more and
more of them; what is left goes on learning. A run taken up from embedded weights lets them all grow again before.
Muon steps the matrices of the GRUs and of the layers around them: from one state, over the same 100 batches, the loss
of the coarse part was lower by a tenth of a nat than with AdamW.
The past is told wrongly, too loud or too quiet and noisy, as the network itself will get it wrong when it speaks: told
the true one alone, it learns to go on as loud as before whatever the mel says, and speaks ever louder.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio
from pvlib.audio import HOP_LENGTH
from pvlib.config import MINI, Folding, Profile
from pvlib.speaker import GE2E
from pvlib.systems.sv2tts import sparse, wavernn
from pvlib.systems.sv2tts.synthesizer import scaled
from pvlib.systems.sv2tts.vocoders import FoldedWaveRNN
from pvlib.systems.sv2tts.wavernn import CONTEXT
from pvlib.training import machine
from pvlib.training.common import Ema, Run, TrainingError, autocast, chosen_device, muon_and_adamw
from pvlib.training.features import MelCache, mel_cache
from pvlib.training.schedule import Schedule
from pvlib.world import corpus as world

NAME = "sv2tts-vocoder"
STEPS = 20_000
BATCH = 8
CROP_HOPS = 12  # 3,072 samples, 128 ms
LOUDER = 0.2  # of the past as it is told, in nepers, standard deviation
NOISIER = 0.15  # standard deviation of the noise in it at most, as a share of the crop's own
PEAK_RATE = 1e-3
WARMUP = 100
CLIP_NORM = 4.0
THIN_EVERY = 20  # steps between two prunings
EVALUATE_EVERY = 500
DEV_CROPS = 96
DEV_COPIES = 4  # utterances copied whole at the end, of at most
COPY_FRAMES = 281  # three seconds


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
    many times the usual rows in a step, for a GPU.
    Raises CorpusError without a corpus, TrainingError on a damaged or foreign state or too short utterances.
    """
    machine.prepare(threads)
    steps = steps or STEPS
    device = chosen_device(device)
    crops = Crops("train", limit)
    torch.manual_seed(profile.seed)
    run, model, ema, optimizers = _parts(profile, device, larger)
    run.take_up(profile, sparse.unsettle) if from_weights else run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)
    config = profile.sv2tts_vocoder

    def step(index: int) -> dict[str, float]:
        mel, parts = crops.batch(larger * BATCH, np.random.default_rng([profile.seed, index]))
        rate = schedule.apply(*optimizers)
        share = sparse.schedule(schedule.progress, config.sparsity)
        if index % THIN_EVERY == 0 and share > 0:
            sparse.thin(model, share, config.sparse_block)
        model.train()
        model.zero_grad(set_to_none=True)
        with autocast(device):
            heard = misheard(parts[:, :-1], torch.Generator().manual_seed(index))
            coarse, fine = losses(model, mel.to(device), parts.to(device), heard.to(device))
        (coarse + fine).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
        ema.update()
        return {
            "coarse": coarse.detach(),
            "fine": fine.detach(),
            "norm": norm,
            "pruned": share,
            "rate": rate,
        }

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        evaluate=lambda: evaluate(profile, model, ema),
        evaluate_every=EVALUATE_EVERY,
    )
    _export(run, profile, model, ema)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, model, ema, _ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


class Crops:
    """Short stretches of a split with the mel around them."""

    def __init__(self, split: str, limit: int | None = None):
        self.corpus, self.cache = world.open_split(split), mel_cache(split)
        needed = CROP_HOPS + 1 + 2 * CONTEXT
        self.usable = [i for i, n in enumerate(self.cache.lengths[:limit]) if n >= needed]
        if not self.usable:
            raise TrainingError(f"no utterance of {split} has {needed} mel frames; build longer speech")

    def batch(self, rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Scaled mels (b, 100, hops + 5) and parts (b, 1 + samples, 2), the sample before the crop in front."""
        made = [crop(self.corpus, self.cache, int(rng.choice(self.usable)), rng) for _ in range(rows)]
        mels, parts = zip(*made, strict=True)
        return torch.stack(mels), torch.stack(parts)


def crop(corpus: world.Corpus, cache: MelCache, i: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random stretch of utterance i: mel (100, CROP_HOPS + 5), scaled, and parts (1 + 256 CROP_HOPS, 2)."""
    frames = CROP_HOPS + 1 + 2 * CONTEXT
    first = int(rng.integers(cache.lengths[i] - frames + 1))
    mel = torch.from_numpy(np.asarray(cache.mel(i, first, first + frames), dtype=np.float32))
    start = (first + CONTEXT) * HOP_LENGTH  # of the sound: frame k is centred on sample 256 k
    wave = corpus.wave(i)[start - 1 : start + CROP_HOPS * HOP_LENGTH]
    return scaled(mel).T, wavernn.to_parts(torch.from_numpy(wave))


def misheard(parts: Tensor, generator: torch.Generator) -> Tensor:
    """Parts (b, s, 2), each row at another level and with white noise of its own strength."""
    wave = wavernn.to_wave(parts)
    gain = torch.exp(LOUDER * torch.randn(len(wave), 1, generator=generator))
    strength = NOISIER * torch.rand(len(wave), 1, generator=generator) * wave.std(1, keepdim=True)
    return wavernn.to_parts(gain * wave + strength * torch.randn(wave.shape, generator=generator))


def losses(
    model: wavernn.WaveRNN, mel: Tensor, parts: Tensor, heard: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the coarse and of the fine part, in nats per sample; their sum is that of 16 bits.

    heard: the past (b, s, 2) as the network is told it, by default as it was.
    """
    coarse, fine = model(mel, parts, heard)
    cross_entropy = nn.functional.cross_entropy
    return (
        cross_entropy(coarse.flatten(0, 1).float(), parts[:, 1:, 0].flatten()),
        cross_entropy(fine.flatten(0, 1).float(), parts[:, 1:, 1].flatten()),
    )


def averaged(profile: Profile, model: wavernn.WaveRNN, ema: Ema) -> wavernn.WaveRNN:
    """An ordinary WaveRNN of the averaged weights, pruned as the model is."""
    twin = wavernn.build(profile.sv2tts_vocoder).to(next(model.parameters()).device)
    twin.load_state_dict(sparse.settle(ema.shadow, model.state_dict()))
    return twin.eval()


@torch.no_grad()
def evaluate(profile: Profile, model: wavernn.WaveRNN, ema: Ema, copies: int = 0) -> dict[str, float]:
    """Averaged weights on the dev split: nats per sample, share of zeros in the recurrent weights.

    copies: so many utterances are also spoken from their mels, folded, which takes long; their log-mel error and
    GE2E similarity to the original.
    """
    twin = averaged(profile, model, ema)
    device = next(twin.parameters()).device
    crops = Crops("dev")
    mel, parts = crops.batch(DEV_CROPS, np.random.default_rng(0))
    coarse, fine = losses(twin, mel.to(device), parts.to(device))
    found = {
        "dev_coarse_nats": float(coarse),
        "dev_fine_nats": float(fine),
        "zeros": sparse.share_of_zeros(twin.state_dict()),
    }
    if not copies:
        return found
    judge, stage = GE2E(), FoldedWaveRNN(twin, Folding())
    errors, similarities = [], []
    for i in np.unique(np.linspace(0, len(crops.usable) - 1, min(copies, len(crops.usable))).astype(int)):
        wave = torch.from_numpy(crops.corpus.wave(crops.usable[i])[: (COPY_FRAMES - 1) * HOP_LENGTH])
        mel = audio.mel(wave.to(device))
        made = stage.decode(mel)
        errors.append(float((audio.mel(made) - mel).abs().mean()))
        a, b = judge.embed([made[0].cpu().numpy(), wave.numpy()])
        similarities.append(float(a @ b))
    return found | {
        "mel_error": float(np.mean(errors)),
        "ge2e_similarity": float(np.mean(similarities)),
    }


def _parts(
    profile: Profile, device: torch.device, larger: int = 1
) -> tuple[Run, wavernn.WaveRNN, Ema, tuple[torch.optim.Optimizer, ...]]:
    model = wavernn.build(profile.sv2tts_vocoder).to(device)
    sparse.attach(model)
    ema = Ema(model, 0.998)
    ends = ("drawn.", "fc3.", "fine2.")  # what reads and writes the 256 values
    matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and not name.startswith(ends)]
    muon, adam = muon_and_adamw(matrices, model.parameters(), PEAK_RATE, (0.9, 0.99))
    parts = {"model": model, "ema": ema, "muon": muon, "adam": adam}
    run = Run(NAME, parts, config=profile.sv2tts_vocoder, larger=larger)
    return run, model, ema, (muon, adam)


def _export(run: Run, profile: Profile, model: wavernn.WaveRNN, ema: Ema) -> None:
    quality = evaluate(profile, model, ema, copies=DEV_COPIES)
    run.export(
        profile,
        averaged(profile, model, ema).state_dict(),
        data="the mini world, train split; quality on the dev split (speakers never seen)",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
