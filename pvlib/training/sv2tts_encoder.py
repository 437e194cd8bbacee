"""Training of a small speaker encoder on the mini world with the GE2E loss (Wan et al., 2018).

Each step draws speakers and utterances of each, one window of every utterance, all of one length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pvlib.config import MINI, Profile
from pvlib.metrics.eer import equal_error_rate
from pvlib.speaker import GE2E
from pvlib.systems.sv2tts import encoder
from pvlib.training import machine
from pvlib.training.common import Ema, Run, TrainingError, chosen_device
from pvlib.training.features import MelCache, mel_cache
from pvlib.training.schedule import Schedule
from pvlib.world import corpus as world

NAME = "sv2tts-encoder"
STEPS = 3000
SPEAKERS = 32  # of a step
UTTERANCES = 5  # of each speaker
WINDOW = (
    0.9,
    1.15,
)  # length of a step's windows, as shares of the configured one (140 to 180 of 160 in the paper)
PEAK_RATE = 1e-3
WARMUP = 100
LOSS_RATE = 0.01  # of w and b beside the network's (the paper's scale of their gradient)
CLIP_NORM = 3.0
EVALUATE_EVERY = 500
DEV_UTTERANCES = 256


class GE2ELoss(nn.Module):
    """The generalised end-to-end loss, in its softmax form, with a learnable scale w and offset b.

    The similarity of utterance i of speaker j to speaker k is w cos(e_ji, c_k) + b, where c_k is the mean of k's
    embeddings, and for k = j that of j's other utterances; the loss of e_ji is the cross-entropy of its own
    speaker (equations 6, 8 and 9).
    """

    def __init__(self, w: float = 10.0, b: float = -5.0):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.tensor(w)), nn.Parameter(torch.tensor(b))

    def similarities(self, embeddings: Tensor) -> Tensor:
        """embeddings: (speakers, utterances, d), unit norm -> (speakers, utterances, speakers).

        Raises ValueError with fewer than two speakers or utterances.
        """
        if embeddings.ndim != 3 or min(embeddings.shape[:2]) < 2:
            raise ValueError(f"two speakers with two utterances are needed, not {tuple(embeddings.shape)}")
        n, m, _ = embeddings.shape
        means = embeddings.mean(1)
        others = (embeddings.sum(1, keepdim=True) - embeddings) / (m - 1)
        unit, cosine = nn.functional.normalize(means, dim=-1), nn.functional.cosine_similarity
        between = nn.functional.normalize(embeddings, dim=-1) @ unit.T
        own = torch.eye(n, dtype=torch.bool, device=embeddings.device)[:, None]
        cosines = torch.where(own, cosine(embeddings, others, dim=-1)[..., None], between)
        return self.w.clamp(min=1e-6) * cosines + self.b

    def forward(self, embeddings: Tensor) -> Tensor:
        """The mean over all utterances; the paper's sum is speakers times utterances of it."""
        scores = self.similarities(embeddings)
        n, m, _ = scores.shape
        return nn.functional.cross_entropy(
            scores.flatten(0, 1), torch.arange(n, device=scores.device).repeat_interleave(m)
        )


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
    machine.prepare(threads)
    steps = steps or STEPS
    device = chosen_device(device)
    cache = mel_cache("train")
    by_speaker = utterances_by_speaker(world.open_split("train"), limit)
    torch.manual_seed(profile.seed)
    run, model, loss_of, ema, optimizer = _parts(profile, device)
    run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng([profile.seed, index])
        mels = batch(cache, by_speaker, model.config.window_frames, rng).to(device)
        rate = schedule.apply(optimizer)
        optimizer.param_groups[1]["lr"] = rate * LOSS_RATE
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(mels.flatten(0, 1)).unflatten(0, mels.shape[:2]))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        ema.update()
        return {
            "loss": loss.detach(),
            "w": loss_of.w.detach().clone(),
            "b": loss_of.b.detach().clone(),
            "rate": rate,
        }

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
    run, model, _, ema, _ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


def utterances_by_speaker(corpus: world.Corpus, limit: int | None = None) -> list[np.ndarray]:
    """Utterance indices of each speaker who has at least two. Raises TrainingError with fewer than two of them."""
    speakers = corpus.table["speaker"].to_numpy()[:limit]
    groups = [np.flatnonzero(speakers == name) for name in sorted(set(speakers))]
    groups = [group for group in groups if len(group) >= 2]
    if len(groups) < 2:
        raise TrainingError(
            f"{len(groups)} speakers have two utterances; build the corpus with at least two such speakers"
        )
    return groups


def batch(
    cache: MelCache, by_speaker: list[np.ndarray], window_frames: int, rng: np.random.Generator
) -> Tensor:
    """Windows of a step: (speakers, utterances, n, 100). Who has too few utterances is heard twice in one.

    Utterances shorter than the window are repeated to fill it.
    """
    n = max(2, round(window_frames * rng.uniform(*WINDOW)))
    rows = []
    for k in rng.choice(len(by_speaker), size=min(SPEAKERS, len(by_speaker)), replace=False):
        group = by_speaker[k]
        for i in rng.choice(group, size=UTTERANCES, replace=len(group) < UTTERANCES):
            start = int(rng.integers(max(1, cache.lengths[i] - n + 1)))
            mel = np.asarray(cache.mel(int(i), start, start + n), dtype=np.float32)
            rows.append(np.resize(mel, (n, mel.shape[1])))  # repeats what is too short
    return torch.from_numpy(np.stack(rows)).unflatten(0, (-1, UTTERANCES))


@torch.inference_mode()
def evaluate(
    model: encoder.SpeakerLSTM, ema: Ema, limit: int = DEV_UTTERANCES, beside: GE2E | None = None
) -> dict[str, float]:
    """Averaged weights on the dev split: equal error rate (a share) over all pairs of its utterances.

    beside: Resemblyzer, to be measured on the same pairs. `same` and `different` are mean similarities.
    """
    corpus, cache = world.open_split("dev"), mel_cache("dev")
    twin = encoder.build(model.config).to(next(model.parameters()).device).eval()
    twin.load_state_dict(ema.shadow)
    rows = np.unique(np.linspace(0, len(corpus) - 1, min(limit, len(corpus))).astype(int)).tolist()
    device = next(twin.parameters()).device
    mels = [torch.from_numpy(np.asarray(cache.mel(i), dtype=np.float32)).to(device) for i in rows]
    own = torch.stack([twin.embed_mel(mel)[0] for mel in mels]).cpu().numpy()
    names = corpus.table["speaker"].to_numpy()[rows]
    same, pairs = names[:, None] == names, np.triu(np.ones((len(rows), len(rows)), dtype=bool), 1)
    scores = own @ own.T
    found = {
        "eer_dev": equal_error_rate(scores[pairs], same[pairs]),
        "same": float(scores[pairs & same].mean()),
        "different": float(scores[pairs & ~same].mean()),
    }
    if beside is not None:
        other = beside.embed([corpus.wave(i) for i in rows]).numpy()
        found["eer_dev_resemblyzer"] = equal_error_rate((other @ other.T)[pairs], same[pairs])
    return found


def _parts(
    profile: Profile, device: torch.device
) -> tuple[Run, encoder.SpeakerLSTM, GE2ELoss, Ema, torch.optim.Optimizer]:
    model, loss = encoder.build(profile.sv2tts_encoder).to(device), GE2ELoss().to(device)
    ema = Ema(model, 0.995)
    optimizer = torch.optim.Adam(
        [{"params": model.parameters()}, {"params": loss.parameters()}], lr=PEAK_RATE
    )
    parts = {"model": model, "loss": loss, "ema": ema, "optimizer": optimizer}
    return Run(NAME, parts, config=profile.sv2tts_encoder), model, loss, ema, optimizer


def _export(run: Run, profile: Profile, model: encoder.SpeakerLSTM, ema: Ema) -> None:
    quality = evaluate(model, ema, limit=10**9, beside=GE2E())
    run.export(
        profile,
        ema.shadow,
        data="the mini world, train split; quality on the dev split (speakers and sentences never seen)",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
