"""Training of WaveRNN on the mini world: the next sample's two parts from the true past and the mel.

Between a fifth and seven tenths of the run the smallest blocks of the recurrent weights are pruned away, more and
more of them; what is left goes on learning. A run taken up from embedded weights lets them all grow again before.
Muon steps the matrices of the GRUs and of the layers around them.
The past is told wrongly, too loud or too quiet and noisy, as the network itself will get it wrong when it speaks: told
the true one alone, it learns to go on as loud as before whatever the mel says, and speaks ever louder. What it is to
draw stays the true news of the sample: the filter forgets within milliseconds what was said too loud.
Many short crops make a step, for the products of the GRUs are small: one GRU and one core see 18,600 samples a second
in 8 crops of 3,072, 77,000 in 64 of 768. On a CPU each thread takes a share of the crops with a copy of the network: 64
crops of 1,280 went at 22,800 samples a second on two cores so, at 17,600 with both threads at each product.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio
from pvlib.audio import HOP_LENGTH
from pvlib.config import MINI, Folding, Profile
from pvlib.speaker import GE2E
from pvlib.systems.sv2tts import prediction, sparse, wavernn
from pvlib.systems.sv2tts.prediction import STRETCH
from pvlib.systems.sv2tts.synthesizer import scaled
from pvlib.systems.sv2tts.vocoders import FoldedWaveRNN
from pvlib.systems.sv2tts.wavernn import CONTEXT
from pvlib.training import machine
from pvlib.training.common import Ema, Run, TrainingError, autocast, chosen_device, muon_and_adamw
from pvlib.training.features import mel_cache, on_device, stretches
from pvlib.training.schedule import Schedule
from pvlib.world import corpus as world

NAME = "sv2tts-vocoder"
STEPS = 2_000
BATCH = 48
FEWEST_CROPS = 12  # of one thread
CROP_HOPS = 4  # 1,024 samples, 43 ms
LOUDER = 0.2  # of the past as it is told, in nepers, standard deviation
NOISIER = 0.15  # standard deviation of the noise in it at most, as a share of the crop's own
PEAK_RATE = 2e-3
WARMUP = 40
CLIP_NORM = 4.0
THIN_EVERY = 20  # steps between two prunings
EVALUATE_EVERY = 250
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
    torch.manual_seed(profile.seed)
    run, model, ema, optimizers = _parts(profile, device, larger)
    crops = Crops("train", model.before, limit, device)
    most = max(1, larger * BATCH // FEWEST_CROPS)
    threads = min(torch.get_num_threads(), most) if device.type == "cpu" else 1
    shared = Shared(profile, model, threads)
    run.take_up(profile, sparse.unsettle) if from_weights else run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)
    config = profile.sv2tts_vocoder

    def step(index: int) -> dict[str, float]:
        mel, wave = crops.batch(larger * BATCH, np.random.default_rng([profile.seed, index]))
        rate = schedule.apply(*optimizers)
        share = sparse.schedule(schedule.progress, config.sparsity)
        if index % THIN_EVERY == 0 and share > 0:
            sparse.thin(model, share, config.sparse_block)
        news, foretold = model.news(mel, wave)
        told = model.told_of(*misheard(news, foretold, wave, seed=index))
        coarse, fine = shared.backward(mel, told, wavernn.to_parts(news[:, STRETCH:]))
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
        ema.update()
        return {
            "coarse": coarse,
            "fine": fine,
            "norm": norm,
            "pruned": share,
            "rate": rate,
        }

    with shared.pool:
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
    """Short stretches of a split with the mel around them, and the `before` samples that come before.

    Mels and sound of the whole split lie on one device, on the CPU as mapped files.
    """

    def __init__(self, split: str, before: int, limit: int | None = None, device: torch.device | None = None):
        self.corpus, self.cache, self.before = world.open_split(split), mel_cache(split), before
        device = device or torch.device("cpu")
        self.frames = CROP_HOPS + 1 + 2 * CONTEXT
        self.usable = np.array([i for i, n in enumerate(self.cache.lengths[:limit]) if n >= self.frames])
        if not len(self.usable):
            raise TrainingError(f"no utterance of {split} has {self.frames} mel frames; build longer speech")
        self._mel = on_device(self.cache.frames, device)
        self._sound = on_device(self.corpus.sound, device)

    def batch(self, rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`cut` at random places of random utterances."""
        chosen = rng.choice(self.usable, rows)
        places = np.array(self.cache.lengths)[chosen] - self.frames + 1
        return self.cut(chosen, (rng.random(rows) * places).astype(np.int64))

    def cut(self, utterances: np.ndarray, first: np.ndarray) -> tuple[Tensor, Tensor]:
        """Stretches that begin with these mel frames: scaled mels (b, 100, hops + 5) and sound (b, before + samples),
        its high tones raised."""
        start = (first + CONTEXT) * HOP_LENGTH - self.before - 1  # frame k is centred on sample 256 k
        mel = stretches(self._mel, self.cache.offsets[utterances] + first, self.frames)
        sample = self.corpus.table.offset.to_numpy()[utterances] + start
        wave = stretches(self._sound, sample, self.before + 1 + CROP_HOPS * HOP_LENGTH) / 32768
        return scaled(mel).transpose(1, 2), prediction.raised(wave)[:, 1:]


def misheard(news: Tensor, foretold: Tensor, wave: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `WaveRNN.told_of` takes, each row at another level, and noise of its own strength in what was drawn."""
    generator = torch.Generator().manual_seed(seed)
    gain = torch.exp(LOUDER * torch.randn(len(news), 1, generator=generator)).to(news.device)
    strength = NOISIER * torch.rand(len(news), 1, generator=generator).to(news.device)
    noise = torch.randn(news.shape, generator=generator).to(news.device)
    noise = strength * news.std(1, keepdim=True) * noise
    return gain * (news + noise), gain * foretold, gain * wave


def losses(model: wavernn.WaveRNN, mel: Tensor, told: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the coarse and of the fine part, in nats per sample; their sum is that of 16 bits.

    told: (b, s, told) of the past; parts: (b, s, 2) of what was new in each sample.
    """
    coarse, fine = model(mel, told, parts[..., 0])
    cross_entropy = nn.functional.cross_entropy
    return (
        cross_entropy(coarse.flatten(0, 1).float(), parts[..., 0].flatten()),
        cross_entropy(fine.flatten(0, 1).float(), parts[..., 1].flatten()),
    )


class Shared:
    """The gradient of a step, its crops shared by threads, each with a network of its own but the same weights.

    Batch norm sees the crops of one thread, and keeps the running statistics of the first, so that the number of
    threads is part of a run. No thread has fewer than `FEWEST_CROPS` of a whole step.
    """

    def __init__(self, profile: Profile, model: wavernn.WaveRNN, threads: int):
        self.model, self.threads = model, threads
        device = next(model.parameters()).device
        self.copies = [wavernn.build(profile.sv2tts_vocoder).to(device) for _ in range(threads - 1)]
        for copy in self.copies:
            sparse.attach(copy)
        # each of these threads computes alone; the number of threads of the caller stays what it is
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Set the gradients of the model to those of the mean of `losses`; returns the two losses.

        batch: what `losses` takes, a row for each crop.
        """
        state = self.model.state_dict()
        for copy in self.copies:
            copy.load_state_dict(state)
        shares = list(zip(*(x.chunk(self.threads) for x in batch), strict=True))
        networks = [self.model, *self.copies][: len(shares)]
        if len(shares) == 1:
            found = [_gradients(self.model, *batch)]
        else:
            found = list(self.pool.map(lambda network, share: _gradients(network, *share), networks, shares))
        weights = [len(share[0]) / len(batch[0]) for share in shares]

        def mean(values: Iterable[Tensor]) -> Tensor:
            return sum(weight * value for weight, value in zip(weights, values, strict=True))

        gradients = zip(*(gradient for _, _, gradient in found), strict=True)
        for parameter, parts in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = mean(parts)
        return mean(coarse for coarse, _, _ in found), mean(fine for _, fine, _ in found)


def _gradients(network: wavernn.WaveRNN, *batch: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    network.train()
    device = batch[0].device  # a GPU would keep the memory of the GRUs in bf16
    with autocast(device, device.type == "cpu"):
        coarse, fine = losses(network, *batch)
    gradients = torch.autograd.grad(coarse + fine, list(network.parameters()))
    return coarse.detach(), fine.detach(), gradients


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
    crops = Crops("dev", twin.before, device=device)
    mel, wave = crops.batch(DEV_CROPS, np.random.default_rng(0))
    news, foretold = twin.news(mel, wave)
    told = twin.told_of(news, foretold, wave)
    coarse, fine = losses(twin, mel, told, wavernn.to_parts(news[:, STRETCH:]))
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
