"""Training of the speaker encoder on the mini world: additive angular margin over its speakers.

Each step draws different speakers, a random crop of one utterance of each, all of one length, and disturbs
them with a random room, colour and noise on top of those that the corpus simulates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio, speaker
from pvlib.config import MINI, Profile
from pvlib.metrics.eer import equal_error_rate
from pvlib.training import machine
from pvlib.training.common import Ema, Run, TrainingError, autocast, chosen_device
from pvlib.training.schedule import Schedule
from pvlib.world import corpus as world

NAME = "speaker_encoder"
STEPS = 1100
BATCH = 48
CROP_SECONDS = (1.0, 2.4)
PEAK_RATE = 2e-3
WARMUP = 80
MARGINS = ((0.15, 0.0), (0.35, 0.1), (1.01, 0.2))  # (until this share of the run, margin in radians)
SCALE = 30.0
EVALUATE_EVERY = 200
DEV_UTTERANCES = 256
REVERBERATION_SECONDS = 0.4


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    limit: int | None = None,
) -> None:
    """Train, resuming where the last run stopped, and export at the end.

    steps: in all, default STEPS; minutes: budget of this call; limit: first utterances only, for a trial.
    Raises CorpusError without a corpus, TrainingError on a damaged or foreign state or too few speakers.
    """
    from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper

    machine.prepare(threads)
    steps = steps or STEPS
    device = chosen_device(device)
    corpus = world.open_split("train")
    by_speaker = utterances_by_speaker(corpus, limit)
    torch.manual_seed(profile.seed)
    run, model, ema, classifier, optimizer = _parts(profile, len(by_speaker), device)
    run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)
    losses = [(until, LogSoftmaxWrapper(AdditiveAngularMargin(margin, SCALE))) for until, margin in MARGINS]

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng([profile.seed, index])
        length = round(rng.uniform(*CROP_SECONDS) * audio.SAMPLE_RATE)
        labels = rng.choice(len(by_speaker), size=min(BATCH, len(by_speaker)), replace=False)
        crops = np.stack([crop(corpus, by_speaker[k], length, rng) for k in labels])
        waves = augment(torch.from_numpy(crops).to(device), rng)
        targets = torch.from_numpy(labels).to(device)[:, None]
        rate = schedule.apply(optimizer)
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            embeddings = model(waves)
        cosines = classifier(embeddings.float()[:, None])
        loss_of = next(loss for until, loss in losses if schedule.progress < until)
        loss = loss_of(cosines, targets)
        loss.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *classifier.parameters()], 5.0)
        optimizer.step()
        ema.update()
        right = (cosines[:, 0].argmax(-1) == targets[:, 0]).float().mean()
        return {"loss": float(loss.detach()), "accuracy": float(right), "rate": rate}

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
    speakers = len(utterances_by_speaker(world.open_split("train"), None))
    run, model, ema, *_ = _parts(profile, speakers, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


def utterances_by_speaker(corpus: world.Corpus, limit: int | None) -> list[np.ndarray]:
    """Utterance indices of each speaker, of those long enough for a one-second crop."""
    table = corpus.table.iloc[:limit]
    usable = table["samples"].to_numpy() >= audio.CLIP_SAMPLES
    speakers = table["speaker"].to_numpy()
    groups = [np.flatnonzero(usable & (speakers == name)) for name in sorted(set(speakers))]
    groups = [g for g in groups if len(g)]
    if len(groups) < 2:
        raise TrainingError(
            f"{len(groups)} speakers have a second of speech; build the corpus with at least two"
        )
    return groups


def crop(corpus: world.Corpus, utterances: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` samples (24 kHz) of a random utterance, repeated where it is shorter -> samples at 16 kHz."""
    wave = corpus.wave(int(rng.choice(utterances)))
    if len(wave) < length:
        wave = np.tile(wave, -(-length // len(wave)))
    start = int(rng.integers(len(wave) - length + 1))
    return audio.resample(wave[start : start + length], audio.SAMPLE_RATE, speaker.RATE)


def augment(waves: Tensor, rng: np.random.Generator) -> Tensor:
    """A random room, colour, noise and level for each row: waves (b, s) at 16 kHz, same shape returned."""
    generator = torch.Generator(device=waves.device).manual_seed(int(rng.integers(2**31)))
    b, samples = waves.shape
    device = waves.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    # room: a click and a decaying tail of noise, for half of the rows
    tail = int(REVERBERATION_SECONDS * speaker.RATE)
    seconds = torch.arange(tail, device=device) / speaker.RATE
    response = noise(b, tail) * torch.exp(-6.9 * seconds / uniform(0.08, 0.6, b, 1))
    response = response / response.norm(dim=1, keepdim=True) * uniform(0.0, 0.9, b, 1)
    response = response * (uniform(0, 1, b, 1) < 0.5)
    response[:, 0] = 1.0
    # colour: gains in decibels at seven knots over the band, and a low-pass for one row in five
    size = 2 ** int(np.ceil(np.log2(samples + tail)))
    bins = size // 2 + 1
    knots = nn.functional.interpolate(
        6.0 * noise(b, 1, 7).clamp(-2, 2), size=bins, mode="linear", align_corners=True
    )[:, 0]
    hertz = torch.linspace(0, speaker.RATE / 2, bins, device=device)
    cutoff = torch.where(uniform(0, 1, b, 1) < 0.2, uniform(2500.0, 7000.0, b, 1), 1e9)
    decibels = knots * uniform(0, 1, b, 1) - 24.0 * torch.log2((hertz / cutoff).clamp(min=1.0))
    spectrum = torch.fft.rfft(waves, size) * torch.fft.rfft(response, size) * 10 ** (decibels / 20)
    waves = torch.fft.irfft(spectrum, size)[:, :samples]
    # noise, white to brown, at 8 to 45 dB below the speech
    shaped = torch.fft.rfft(noise(b, samples))
    slope = torch.arange(1, shaped.shape[1] + 1, device=device) ** -uniform(0.0, 1.0, b, 1)
    hiss = torch.fft.irfft(shaped * slope, samples)
    level = waves.norm(dim=1, keepdim=True) / hiss.norm(dim=1, keepdim=True).clamp(min=1e-9)
    waves = waves + hiss * level * 10 ** (-uniform(8.0, 45.0, b, 1) / 20)
    return waves * 10 ** (uniform(-12.0, 6.0, b, 1) / 20)


def evaluate(model: speaker.SpeakerEncoder, ema: Ema, limit: int = DEV_UTTERANCES) -> dict[str, float]:
    """Averaged weights on the dev split: equal error rates (shares) over all pairs of its utterances.

    `eer_dev` whole utterances; `eer_dev_rooms` with same-speaker pairs from different rooms only;
    `eer_dev_one_second` first second against whole utterance; `same`, `different` mean similarities.
    """
    corpus = world.open_split("dev")
    twin = speaker.build(model.config).to(next(model.parameters()).device).eval()
    twin.load_state_dict(ema.shadow)
    rows = np.unique(np.linspace(0, len(corpus) - 1, min(limit, len(corpus))).astype(int))
    waves = [corpus.wave(int(i)) for i in rows]
    whole = twin.embed(waves).cpu().numpy()
    second = twin.embed([np.resize(w, audio.CLIP_SAMPLES) for w in waves]).cpu().numpy()
    names = corpus.table["speaker"].to_numpy()[rows]
    rooms = corpus.table["room"].to_numpy()[rows]
    same, moved = names[:, None] == names, rooms[:, None] != rooms
    pairs = np.triu(np.ones_like(same), 1)
    scores = whole @ whole.T
    across = pairs & (moved | ~same)
    mixed = ~np.eye(len(rows), dtype=bool)
    return {
        "eer_dev": equal_error_rate(scores[pairs], same[pairs]),
        "eer_dev_rooms": equal_error_rate(scores[across], same[across]),
        "eer_dev_one_second": equal_error_rate((second @ whole.T)[mixed], same[mixed]),
        "same": float(scores[pairs & same].mean()),
        "different": float(scores[pairs & ~same].mean()),
    }


def _parts(
    profile: Profile, speakers: int, device: torch.device
) -> tuple[Run, speaker.SpeakerEncoder, Ema, nn.Module, torch.optim.Optimizer]:
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    model = speaker.build(profile.speaker_encoder).to(device)
    classifier = Classifier(profile.speaker_encoder.embedding_dim, out_neurons=speakers).to(device)
    ema = Ema(model, 0.995)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *classifier.parameters()], lr=PEAK_RATE, weight_decay=1e-2, fused=True
    )
    parts = {"model": model, "classifier": classifier, "ema": ema, "optimizer": optimizer}
    return Run(NAME, parts, config=profile.speaker_encoder), model, ema, classifier, optimizer


def _export(run: Run, profile: Profile, model: speaker.SpeakerEncoder, ema: Ema) -> None:
    quality = evaluate(model, ema, limit=10**9)
    run.export(
        profile,
        ema.shadow,
        data="the mini world, train split; quality on the dev split (speakers and sentences never seen)",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
