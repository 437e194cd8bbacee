"""Training of the CTC recogniser on the mini world.

Batches are whole utterances of like length, or short pieces cut at word boundaries, since the one-second clip
must be read as well; where a piece ends inside a word, the word keeps its first letters in proportion. The
log-mels are disturbed in the ways of other voices, of a vocoder or of a room: stretched in time and over the bands,
reverberant, noisy, smeared, with parts missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jiwer
import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio, recognizer
from pvlib.config import MINI, Profile
from pvlib.text import heard_until
from pvlib.training import machine
from pvlib.training.common import Ema, Run, autocast, batches_by_length, chosen_device, muon_and_adamw
from pvlib.training.features import MelCache, mel_cache, on_device, pad, pieces
from pvlib.training.schedule import Schedule
from pvlib.world import corpus as world
from pvlib.world.build import VOICES

NAME = "recognizer"
STEPS = 30_000
BATCH_FRAMES = 7_000  # padded mel frames of one batch, 75 s
MAX_ROWS = 128
PEAK_RATE = 2e-3
WARMUP = 150
CLEAN_SHARE = 0.15  # share of batches left as they are
TEMPO = (0.75, 1.33)  # a clone's length is guessed from one second of speech, and its judge must not mind
GUESS_SHARE = 0.3  # share of the loss on the guesses between the blocks
GAPS_PER_SECOND, LONGEST_GAP = 0.8, 20  # missing moments: how many at most, how many frames
PIECE_SHARE = 0.45  # share of batches made of short pieces
FIRST_STEPS = 400  # before them nearly all batches are short pieces: CTC finds its alignments sooner
FIRST_PIECE_SHARE = 0.9
PIECE_SECONDS = (0.6, 3.0)
EVALUATE_EVERY = 600
DEV_UTTERANCES = 200
TURNS = ("train", VOICES, VOICES)  # the split of one batch after another: the second has more voices
HARD_ROOMS, HARD_VOICES = ("hall",), "klatt"  # read worst on the dev split: utterances of these come twice
FRAME_RATE = audio.SAMPLE_RATE / audio.HOP_LENGTH


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
    Raises CorpusError without a corpus, TrainingError on a damaged or foreign state.
    """
    machine.prepare(threads)
    steps = steps or STEPS
    device = chosen_device(device)
    sources = {split: Source(split, device, limit) for split in dict.fromkeys(TURNS)}
    torch.manual_seed(profile.seed)
    run, model, ema, optimizers = _parts(profile, device, larger)
    run.take_up(profile) if from_weights else run.resume()
    schedule = Schedule(run, steps=steps, minutes=minutes, peak=PEAK_RATE, warmup=WARMUP)
    batches = {
        split: source.batches(profile.seed, start=batches_before(run.step, split), larger=larger)
        for split, source in sources.items()
    }

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng([profile.seed, index])
        torch.manual_seed(profile.seed + 1000 * index)  # of dropout, on whatever device
        split = TURNS[index % len(TURNS)]
        source, rows = sources[split], next(batches[split])
        whole = rng.random() >= (FIRST_PIECE_SHARE if index < FIRST_STEPS else PIECE_SHARE)
        mel, frames, sentences = source.speech(rows, None if whole else rng)
        if rng.random() >= CLEAN_SHARE:
            mel, frames = augment(mel, frames, rng)
        rate = schedule.apply(*optimizers)
        model.train()
        model.zero_grad(set_to_none=True)
        with autocast(device):
            guesses = model.guesses(mel, frames)
        symbols, lengths = [model.encode(s) for s in sentences], guesses[-1][1].cpu()  # waits for a GPU once
        *between, loss = [ctc_loss(log_probs, lengths, symbols) for log_probs, _ in guesses]
        early = sum(between) / max(1, len(between))
        ((1 - GUESS_SHARE) * loss + GUESS_SHARE * early).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        ema.update()
        return {"loss": loss.detach(), "rate": rate}

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        evaluate=lambda: evaluate(model, ema),
        evaluate_every=EVALUATE_EVERY,
    )
    _export(run, profile, model, ema)


class Source:
    """The utterances of a split; their mels lie on one device."""

    def __init__(self, split: str, device: torch.device, limit: int | None = None):
        """limit: first utterances only. Raises CorpusError where the split was not built."""
        self.corpus, cache = world.open_split(split), mel_cache(split)
        self.sizes, self._offsets = cache.lengths, cache.offsets.tolist()
        self._texts = self.corpus.table["text"].tolist()
        self._mels = on_device(cache.frames, device)
        self._drawn = drawn(self.corpus, limit)

    def batches(self, seed: int, start: int, larger: int) -> Iterator[list[int]]:
        """Endless batches of utterances of like length; the first `start` are left out."""
        sizes = [self.sizes[i] for i in self._drawn]
        options = {"seed": seed, "start": start, "max_rows": MAX_ROWS, "larger": larger}
        for batch in batches_by_length(sizes, BATCH_FRAMES, **options):
            yield [self._drawn[k] for k in batch]

    def speech(
        self, rows: list[int], rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor, list[str]]:
        """Mels (b, n, 100), their lengths (b,) and what is said: of whole utterances, or with `rng` of short pieces."""
        if rng is None:
            taken = [(0, self.sizes[i], self._texts[i]) for i in rows]
        else:
            seconds = rng.uniform(*PIECE_SECONDS)
            taken = [piece(self.corpus.words(i), self.sizes[i], seconds, rng) for i in rows]
        first, stop, sentences = zip(*taken, strict=True)
        starts = [self._offsets[i] + a for i, a in zip(rows, first, strict=True)]
        mel, frames = pieces(self._mels, starts, [b - a for a, b in zip(first, stop, strict=True)])
        return mel, frames, list(sentences)


@dataclass(frozen=True)
class Together:
    """Corpora as a card counts them."""

    corpora: tuple[world.Corpus, ...]

    def __len__(self) -> int:
        return sum(map(len, self.corpora))

    @property
    def hours(self) -> float:
        """Hours of speech."""
        return sum(corpus.hours for corpus in self.corpora)


def export(profile: Profile = MINI, *, device: str | torch.device | None = None) -> None:
    """Write the averaged weights of the saved state, finished or not, to data/checkpoints."""
    run, model, ema, _ = _parts(profile, chosen_device(device))
    run.require()
    _export(run, profile, model, ema)


def batches_before(step: int, split: str) -> int:
    """How many of the first `step` batches come from a split."""
    rounds, rest = divmod(step, len(TURNS))
    return rounds * TURNS.count(split) + TURNS[:rest].count(split)


def drawn(corpus: world.Corpus, limit: int | None = None) -> list[int]:
    """The utterances of an epoch: all, or the first `limit`, the hard ones twice."""
    table = corpus.table[:limit]
    hard = table["room"].isin(HARD_ROOMS) | table["base_voice"].str.contains(HARD_VOICES)
    return np.repeat(np.arange(len(table)), 1 + hard.to_numpy()).tolist()


def piece(
    words: list[tuple[str, float, float]], frames: int, seconds: float, rng: np.random.Generator
) -> tuple[int, int, str]:
    """A short stretch of an utterance: (first frame, last frame + 1, its text).

    It starts at the very beginning or in the gap before a word and ends anywhere; the word it ends in keeps
    its first letters in proportion to what is left of it.
    """
    first = int(rng.integers(len(words))) if rng.random() < 0.7 else 0
    start = 0.0 if first == 0 else 0.5 * (words[first - 1][2] + words[first][1])
    stop = min(start + seconds, frames / FRAME_RATE)
    heard = []
    for word, begin, end in words[first:]:
        if begin >= stop:
            break
        share = min(1.0, (stop - begin) / max(end - begin, 1e-3))
        heard.append(word[: round(share * len(word))])
    a = min(int(start * FRAME_RATE), frames - 1)
    return a, max(a + 1, min(frames, round(stop * FRAME_RATE))), " ".join(heard)


def augment(mel: Tensor, lengths: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Disturb log-mels (b, n, 100): tempo, vocal tract, room, noise, smear, jitter, missing parts."""
    generator = torch.Generator(device=mel.device).manual_seed(int(rng.integers(2**31)))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=mel.device)

    if rng.random() < 0.5:
        tempo = float(np.exp(rng.uniform(*np.log(TEMPO))))
        size = max(1, round(mel.shape[1] * tempo))
        mel = nn.functional.interpolate(mel.transpose(1, 2), size=size, mode="linear").transpose(1, 2)
        lengths = (lengths * tempo).long().clamp(1, size)
    b, n, bands = mel.shape
    # voice: the bands shifted in proportion, as by a longer or shorter vocal tract
    place = torch.arange(bands, device=mel.device) * uniform(0.88, 1.14, b, 1)
    below = place.long().clamp(max=bands - 2)
    share = (place - below).clamp(0, 1)[:, None]
    lower, upper = (mel.gather(2, i[:, None].expand(b, n, bands)) for i in (below, below + 1))
    mel = torch.lerp(lower, upper, share)
    # room: a tail of sound that decays by 60 dB in 0.1 to 0.8 s, for half of the rows
    decay = 10 ** (-6 / (uniform(0.1, 0.8, b, 1, 1) * FRAME_RATE))
    energy = torch.exp(2 * mel)
    tail = energy
    for reach in (1, 2, 4, 8, 16, 32):  # sums of a geometric series, doubled in length each time
        tail = tail + decay**reach * nn.functional.pad(tail, (0, 0, reach, 0))[:, :n]
    weight = uniform(0.0, 1.0, b, 1, 1) * (uniform(0, 1, b, 1, 1) < 0.5) * (1 - decay) / decay
    mel = 0.5 * torch.log(energy + weight * (tail - energy))
    # noise: a floor below the row's own level, tilted over the bands
    tilt = uniform(-2.0, 2.0, b, 1, 1) * torch.linspace(-0.5, 0.5, bands, device=mel.device)
    floor = mel.mean((1, 2), keepdim=True) - uniform(1.5, 9.0, b, 1, 1) + tilt
    mel = torch.logaddexp(mel, floor)
    # smear over bands and over time, each of a random strength
    share = uniform(0.0, 0.6, b, 1, 1) * (uniform(0, 1, b, 1, 1) < 0.5)
    padded = nn.functional.pad(mel[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    blurred = (padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] + padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]) / 4
    mel = mel + share * (blurred - mel)
    jitter = torch.randn(mel.shape, generator=generator, device=mel.device)
    mel = mel + uniform(0.0, 0.35, b, 1, 1) * jitter
    # missing parts take the row's mean, which is zero after standardising
    mean = mel.mean((1, 2), keepdim=True)
    band, moment = torch.arange(bands, device=mel.device), torch.arange(n, device=mel.device)
    for _ in range(2):
        at, width = uniform(0, bands, b, 1), uniform(0, 24, b, 1)
        mel = torch.where(((band >= at) & (band < at + width))[:, None, :], mean, mel)
    for _ in range(1 + int(rng.integers(0, 1 + int(GAPS_PER_SECOND * n / FRAME_RATE)))):
        at, width = uniform(0, 1, b, 1) * lengths[:, None], uniform(0, LONGEST_GAP, b, 1)
        mel = torch.where(((moment >= at) & (moment < at + width))[:, :, None], mean, mel)
    return mel, lengths


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
    """CTC loss per letter: log_probs (b, m, v), lengths (b,) best on the CPU, one list of symbols per row."""
    sizes = torch.tensor([len(t) for t in targets])
    flat = torch.tensor([s for t in targets for s in t], dtype=torch.long, device=log_probs.device)
    total = nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        flat,
        lengths,
        sizes,
        blank=recognizer.BLANK,
        reduction="sum",
        zero_infinity=True,
    )
    return total / sizes.sum().clamp(min=1)


def evaluate(model: recognizer.CTCRecognizer, ema: Ema, limit: int = DEV_UTTERANCES) -> dict[str, float]:
    """Averaged weights on the dev split: error rates of whole utterances, of letters in first seconds."""
    corpus, cache = world.open_split("dev"), mel_cache("dev")
    twin = recognizer.build(model.config).to(next(model.parameters()).device).eval()
    twin.load_state_dict(ema.shadow)
    rows = np.unique(np.linspace(0, len(corpus) - 1, min(limit, len(corpus))).astype(int)).tolist()
    alphabet = model.config.alphabet
    whole = [recognizer.normalise(corpus.table["text"].iat[i], alphabet) for i in rows]
    heard = _read(twin, cache, [(i, None) for i in rows])
    second = [first_second(corpus.words(i), alphabet) for i in rows]
    heard_second = _read(twin, cache, [(i, audio.CLIP_FRAMES) for i in rows])
    pairs = [(a, b) for a, b in zip(second, heard_second, strict=True) if a]
    return {
        "wer_dev": jiwer.wer(whole, heard),
        "cer_dev": jiwer.cer(whole, heard),
        "cer_dev_one_second": jiwer.cer([a for a, _ in pairs], [b for _, b in pairs])
        if pairs
        else float("nan"),
    }


@torch.inference_mode()
def _read(model: recognizer.CTCRecognizer, cache: MelCache, items: list[tuple[int, int | None]]) -> list[str]:
    device, texts = next(model.parameters()).device, []
    for first in range(0, len(items), 16):
        mel, lengths = pad([cache.mel(i, 0, stop) for i, stop in items[first : first + 16]])
        texts += model.decode(*model(mel.to(device), lengths.to(device)))
    return texts


def first_second(words: list[tuple[str, float, float]], alphabet: str) -> str:
    """What is heard in the first second; the word it ends in keeps its first letters in proportion."""
    return recognizer.normalise(heard_until(words, audio.CLIP_SECONDS), alphabet)


def _parts(
    profile: Profile, device: torch.device, larger: int = 1
) -> tuple[Run, recognizer.CTCRecognizer, Ema, tuple[torch.optim.Optimizer, ...]]:
    model = recognizer.build(profile.recognizer).to(device)
    ema = Ema(model, 0.998)
    matrices = [weight for block in model.blocks for weight in (block.widen.weight, block.narrow.weight)]
    muon, adam = muon_and_adamw(matrices, model.parameters(), PEAK_RATE, (0.9, 0.98))
    parts = {"model": model, "ema": ema, "muon": muon, "adam": adam}
    run = Run(NAME, parts, config=profile.recognizer, larger=larger)
    return run, model, ema, (muon, adam)


def _export(run: Run, profile: Profile, model: recognizer.CTCRecognizer, ema: Ema) -> None:
    quality = evaluate(model, ema, limit=10**9)
    run.export(
        profile,
        ema.shadow,
        data="the mini world, both training splits; quality on the dev split (speakers and sentences never seen)",
        quality={key: round(value, 4) for key, value in quality.items()},
        corpus=Together(tuple(world.open_split(split) for split in dict.fromkeys(TURNS))),
    )
