"""Training of the synthesizer on the mini world: Tacotron 2 in the voices that Resemblyzer hears.

Spectrogram loss is L1 and L2 as in SV2TTS (Jia et al., 2018), before and after the postnet, with the stop token's loss
beside it. What Tacotron is slowest to learn is where to look, and what keeps it slow is that each step waits for the
one before. Both are spared here: the mini world knows when each word is said and the recogniser where its letters are,
so the decoder is told where it looks, all steps at once (`Synthesizer.told`), and its attention learns beside it to
look there (a guide as in Tachibana et al., 2018, sharp where theirs is a wide diagonal). When it speaks, nobody tells
it any time.
Nor does anybody tell it the true past then. So a share of the steps is told nothing of the step before (Liu et al.,
2019, "Maximizing mutual information for Tacotron"), and a growing share what the network itself makes of it (Mihaylova
and Martins, 2019, "Scheduled sampling for transformers": two passes, the second told the first's outcome).
Each row's voice is its own embedding, or that of its first second alone, by the toss of a coin, since one second is
all that there will be.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import alignment
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import MINI, Profile
from pvlib.systems.sv2tts import synthesizer
from pvlib.systems.sv2tts.attention import Failures, guided_loss
from pvlib.text import normalise
from pvlib.training import eight_bits, letters, listening, machine
from pvlib.training.common import Ema, Run, TrainingError, autocast, batches_by_length, chosen_device
from pvlib.training.features import mel_cache
from pvlib.training.schedule import Schedule
from pvlib.training.sv2tts_common import voices
from pvlib.world import corpus as world

NAME = "sv2tts-synthesizer"
STEPS = 10_000
BATCH_FRAMES = 16_000  # padded mel frames of one batch
MAX_ROWS = 64
PEAK_RATE = 2e-3
WARMUP = 100
CLIP_NORM = 1.0
STOP_WEIGHT = 8.0  # of the one step in a hundred that ends an utterance
GUIDE_WEIGHT = 0.2
GUIDED_SHARE = 3  # one row in so many is asked where it would look
FORGOTTEN = 0.2  # share of the decoder's steps that do not know the one before
OWN_PAST = 0.5  # share that knows what the network made of it, reached half-way through the training
POSTNET_FROM = 0.5  # of the training; before, there is little to polish
SECOND_SHARE = 0.5  # of rows whose voice is heard in one second
EVALUATE_EVERY = 500
DEV_UTTERANCES = 64  # of the loss
DEV_TEXTS = 8  # spoken freely while training; at the end four times as many
WATCHED = ("dev_mel", "failed_share", "wer_dev", "cer_dev")  # while training


class Rows:
    """The utterances of a split that are short enough: texts, mels and voices, by number."""

    def __init__(
        self,
        split: str,
        model: synthesizer.Synthesizer,
        limit: int | None = None,
        profile: Profile | None = None,
    ):
        """profile: whose recogniser says where in a word each letter is; None: all words share out evenly."""
        self.model, self.cache, self.corpus = model, mel_cache(split), world.open_split(split)
        texts = self.corpus.table["text"].tolist()
        self.texts = [normalise(text, model.index, "a training text") for text in texts]
        longest = model.config.max_chars
        self.usable = [i for i in range(len(texts))[:limit] if len(self.texts[i]) <= longest]
        if not self.usable:
            raise TrainingError(f"no utterance of {split} has at most {longest} characters; raise max_chars")
        self.centres = None if profile is None else letters.centres(split, profile, limit)
        self.voices = voices(split, self.usable)
        self._paths: dict[int, Tensor] = {}

    @property
    def lengths(self) -> list[int]:
        """Mel frames of each usable utterance."""
        frames = self.cache.lengths
        return [frames[i] for i in self.usable]

    def path(self, i: int) -> Tensor:
        """Which character of utterance i sounds in each frame, to the end of its last step: (n,); silence counts to
        the last."""
        if i not in self._paths:
            per_step, per_second = self.model.config.frames_per_step, SAMPLE_RATE / HOP_LENGTH
            frames = -(-self.cache.lengths[i] // per_step) * per_step
            words = [(word.lower(), start, end) for word, start, end in self.corpus.words(i)]
            middles = None if self.centres is None else self.centres[i]
            edges = alignment.edges_of(self.texts[i], words, frames / per_second, middles)
            found = alignment.from_edges(edges, per_second, frames)
            self._paths[i] = found.cummax(0).values.clamp(min=0).to(torch.int16)
        return self._paths[i]

    def batch(self, indices: list[int], generator: torch.Generator) -> dict[str, Tensor]:
        """Tokens, scaled mels filled with silence to whole decoder steps, voices, and how much of each decoder step
        belongs to each character (b, t, nt)."""
        chosen, per_step = [self.usable[k] for k in indices], self.model.config.frames_per_step
        tokens, token_lengths = self.model.encode([self.texts[i] for i in chosen])
        mels = [torch.from_numpy(np.asarray(self.cache.mel(i), dtype=np.float32)) for i in chosen]
        steps = torch.tensor([-(-len(mel) // per_step) for mel in mels])
        mel = torch.full((len(chosen), int(steps.max()) * per_step, mels[0].shape[1]), synthesizer.SILENCE)
        for row, found in zip(mel, mels, strict=True):
            row[: len(found)] = synthesizer.scaled(found)
        paths = nn.utils.rnn.pad_sequence([self.path(i) for i in chosen], batch_first=True).long()
        sounding = nn.functional.one_hot(paths, tokens.shape[1]).float()
        second = (torch.rand(len(chosen), generator=generator) < SECOND_SHARE).long().numpy()
        return {
            "tokens": tokens,
            "token_lengths": token_lengths,
            "mel": mel,
            "steps": steps,
            "attention": sounding.unflatten(1, (-1, per_step)).mean(2),
            "speakers": torch.from_numpy(self.voices[chosen, second]),
        }


def forget(mel: Tensor, per_step: int, share: float, generator: torch.Generator) -> Tensor:
    """Scaled mels (b, n, 100) with a share of their decoder steps put to the mean of speech, each by its own toss."""
    tossed = torch.rand(len(mel), mel.shape[1] // per_step, 1, generator=generator) < share
    return mel.masked_fill(tossed.repeat_interleave(per_step, 1), 0.0)


def mixed(past: Tensor, own: Tensor, per_step: int, share: float, generator: torch.Generator) -> Tensor:
    """Mels (b, n, 100) with steps of `own` in the place of a share: of each row another share, `share` on average."""
    shares = 2 * share * torch.rand(len(past), 1, 1, generator=generator)
    tossed = torch.rand(len(past), past.shape[1] // per_step, 1, generator=generator) < shares
    return torch.where(tossed.repeat_interleave(per_step, 1).to(past.device), own, past)


def losses(
    model: synthesizer.Synthesizer,
    batch: dict[str, Tensor],
    *,
    past: Tensor | None = None,
    own: float = 0.0,
    generator: torch.Generator | None = None,
    guided: int = 1,
    polish: bool = True,
) -> dict[str, Tensor]:
    """The parts of the loss over true steps, told where to look: mel, stop, guide.

    past: what the decoder is told of the mels, by default all; own: the share of it that is then the network's own;
    guided: one row in so many is asked where it would look; polish: whether the postnet has its say. guide is the
    cross-entropy of the attention in nats, which is never zero where a step spans two characters.
    """
    mel, steps, attention, lengths = (batch[key] for key in ("mel", "steps", "attention", "token_lengths"))
    per_step = model.n_frames_per_step
    past = mel if past is None else past
    with autocast(mel.device):
        memory = model.memory(batch["tokens"], lengths, batch["speakers"])
        if own:
            with torch.no_grad():
                guess, _, _ = model.told(memory, past, attention)
            past = mixed(past, guess.float(), per_step, own, generator)
        before, stop, state = model.told(memory, past, attention)
        after = model.polished(before) if polish else before
        rows = slice(0, -(-len(mel) // guided))
        looks = model.looks(state[rows], memory[rows], lengths[rows], attention[rows])
    place = torch.arange(stop.shape[1], device=stop.device)
    true = place < steps[:, None]
    frames = true.repeat_interleave(per_step, 1)
    distance = mel.new_zeros(())
    for made in (before, after):
        difference = (made.float() - mel)[frames]
        distance = distance + difference.square().mean() + difference.abs().mean()
    ends = (place == steps[:, None] - 1).float()
    stopping = nn.functional.binary_cross_entropy_with_logits(
        stop.float()[true], ends[true], pos_weight=mel.new_tensor(STOP_WEIGHT)
    )
    return {"mel": distance, "stop": stopping, "guide": guided_loss(looks, attention[rows], steps[rows])}


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
    run, model, ema, optimizer = _parts(profile, device, larger)
    rows = Rows("train", model, limit, profile)
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
        batch = rows.batch(next(batches), generator)
        past = forget(batch["mel"], model.n_frames_per_step, FORGOTTEN, generator).to(device)
        rate, progress = schedule.apply(optimizer), schedule.progress
        model.train()
        model.zero_grad(set_to_none=True)
        parts = losses(
            model,
            {key: value.to(device) for key, value in batch.items()},
            past=past,
            own=OWN_PAST * min(1.0, 2 * progress),
            generator=generator,
            guided=GUIDED_SHARE,
            polish=progress >= POSTNET_FROM,
        )
        loss = total(parts)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        ema.update()
        return {"loss": loss.detach(), **{k: v.detach() for k, v in parts.items()}, "rate": rate}

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        evaluate=lambda: {k: v for k, v in evaluate(profile, ema.shadow).items() if k in WATCHED},
        evaluate_every=EVALUATE_EVERY,
    )
    _export(run, profile, ema)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, _, ema, _ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, ema)


@torch.no_grad()
def evaluate(profile: Profile, state: dict[str, Tensor], texts: int = DEV_TEXTS) -> dict[str, float]:
    """Weights on the dev split: losses told the truth with fixed dropout, and of free speech the failures.

    `failed_share` is the share of `texts` dev sentences, said by one second of their voices, with any failure; each
    kind is counted beside it. wer_dev and cer_dev (shares) are what the recogniser hears of them through Vocos, where
    the profile has both.
    """
    device = next(iter(state.values())).device
    twin = synthesizer.build(profile.sv2tts_synthesizer).to(device).eval()
    twin.load_state_dict(state)
    rows = Rows("dev", twin, profile=profile)
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
    asked = [rows.usable[k] for k in chosen.tolist()]
    spoken = [twin.infer(rows.texts[i], torch.from_numpy(rows.voices[i, 1]), seed=i) for i in asked]
    counted = sum((piece.failures for piece in spoken), Failures())
    heard = {}
    if listening.possible(profile):
        heard = listening.heard([p.mel for p in spoken], [p.text for p in spoken], profile, device)
    return sums | {
        "texts": len(spoken),
        "failed_share": sum(piece.failures.total > 0 for piece in spoken) / len(spoken),
        "skips": counted.skips,
        "repeats": counted.repeats,
        "runaways": counted.runaways,
        **heard,
    }


def _parts(
    profile: Profile, device: torch.device, larger: int = 1
) -> tuple[Run, synthesizer.Synthesizer, Ema, torch.optim.Optimizer]:
    model = synthesizer.build(profile.sv2tts_synthesizer).to(device)
    ema = Ema(model, 0.998)
    # Muon costs as much as the whole step here: of equal minutes, AdamW makes more
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    parts = {"model": model, "ema": ema, "optimizer": optimizer}
    return Run(NAME, parts, config=profile.sv2tts_synthesizer, larger=larger), model, ema, optimizer


def _export(run: Run, profile: Profile, ema: Ema) -> None:
    state = eight_bits.rounded(NAME, ema.shadow)
    quality = evaluate(profile, state, texts=4 * DEV_TEXTS)
    run.export(
        profile,
        state,
        data=f"the mini world, train split, texts of at most {profile.sv2tts_synthesizer.max_chars} characters; "
        "voices by Resemblyzer; quality on the dev split (speakers never seen)",
        quality={key: round(value, 4) for key, value in quality.items()},
    )
