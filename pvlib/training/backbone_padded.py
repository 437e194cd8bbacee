"""Train the second backbone: text padded behind its characters, as F5-TTS v1 reads it.

No input tells this one which character sounds where: attention has to find out, which is the difference that is
studied. It begins as the first backbone, and its lower blocks learn first what those of the first make of the same
noisy speech when they are told the alignment (after Hinton et al., 2015, "Distilling the Knowledge in a Neural
Network"); then all of it learns by flow matching. So the two know equally much of speech. While it learns, some of its
heads are shown where to look (`backbone.Guide`). Near the noise, where text and length alone say what sounds when, it
learns slowest, and the more slowly the longer the text. The last stage therefore draws most of its times there, guides
more blocks, and takes many small steps on `Pieces` of a few words, half of them as a clone is made: a second of sound,
and all that follows hidden.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from itertools import chain, islice

import torch
from f5_tts.model.utils import lens_to_mask, mask_from_frac_lengths
from torch import Tensor

from pvlib import backbone, hub
from pvlib.audio import CLIP_FRAMES, HOP_LENGTH, SAMPLE_RATE
from pvlib.config import MINI, Profile
from pvlib.training import backbone as first
from pvlib.training import machine
from pvlib.training.common import Ema, Run, autocast, batches_by_length, chosen_device
from pvlib.training.schedule import Progress

NAME = first.PADDED
STEPS = 10_000
LOWER_STEPS = 2_200  # in which the lower blocks learn alone
EARLY_FROM, EARLY = 3_216, 2.0  # the step from which times crowd near the noise; the power of the times
EARLY_BLOCKS, EARLY_WEIGHT = (1, 2, 3, 4), 0.5  # guided from that step on; share in the loss
PIECE_FRAMES, PIECE_SECONDS, PIECES = 2_500, (1.5, 6.0), 4  # of a step then; of a piece; of an utterance
CLONED, LEAST_BEHIND = 0.5, 8  # share of the pieces that begin with a clip; tokens that have to follow it
LOWER_BLOCKS = 3
EVALUATE_EVERY = 2_000
WHOLE_RATE, EARLY_RATE = 0.4, 0.6  # of the peak rate, once all of it learns; from EARLY_FROM on
UNUSED = (
    "text_embed.timing.",
    "text_embed.place.",
)  # parts of the first backbone that padded text has no use for


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: torch.device | None = None,
    limit: int | None = None,
    from_weights: bool = False,
    larger: int = 1,
) -> None:
    """Train the second backbone, or go on where the last run stopped, and export its averaged weights.

    Arguments as of `backbone.train`. Raises WeightsError without the first backbone, or without a recogniser.
    """
    own, steps = profile.with_padded_text(), steps or STEPS
    machine.prepare(threads)
    device = chosen_device(device)
    torch.manual_seed(first.SEED)
    teacher = hub.load_backbone(profile, device)
    model = begun(own, teacher).to(device)
    for each in (teacher, model):
        first.quicken(each.transformer.transformer_blocks, device)
    rows = first.Rows("train", model, limit, own, device)
    pieces = Pieces(rows)
    guide = first.Guide(model)
    muon, adam = first.optimisers(model)
    ema = Ema(model)
    run = Run(
        NAME, {"model": model, "muon": muon, "adam": adam, "ema": ema}, config=own.backbone, larger=larger
    )
    run.take_up(own) if from_weights else run.resume()
    model.train()

    def shared_out(lengths: list[int], frames: int, start: int) -> Iterator[list[int]]:
        return batches_by_length(lengths, frames, seed=first.SEED, start=start, larger=larger)

    batches = chain(
        islice(shared_out(rows.lengths, first.FRAMES_PER_STEP, run.step), max(0, EARLY_FROM - run.step)),
        shared_out(pieces.lengths, PIECE_FRAMES, max(run.step, EARLY_FROM)),
    )
    schedule = Progress(run, steps, minutes)

    def step(number: int) -> dict[str, Tensor]:
        torch.manual_seed(first.SEED + 1000 * number)  # as in the first backbone's training
        random.seed(number)
        early = number >= EARLY_FROM
        given = (pieces if early else rows).batch(
            next(batches), torch.Generator().manual_seed(number), first.TEMPO
        )
        share = first.learning_rate(number, schedule.progress)
        if number < LOWER_STEPS:
            return follow(model, teacher, (muon, adam), ema, given, share, guide)
        rate, options = WHOLE_RATE, {}
        if early:
            guide.watch(EARLY_BLOCKS, EARLY_WEIGHT)
            rate = EARLY_RATE
            options = {"hidden": to_be_made(model.cfm, model.cfm.tokens(given[1])), "early": EARLY}
        found = first.learn(model, None, (muon, adam), ema, given, rate * share, guide=guide, **options)
        del found["hearing"]  # so that the log has the same columns throughout
        return found

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        evaluate=lambda: first.evaluate(own, ema.shadow, device),
        evaluate_every=EVALUATE_EVERY,
    )
    export(profile, run=run, ema=ema, device=device)


def export(profile: Profile = MINI, **given) -> None:
    """As `backbone.export`; the card tells as which weights of the first backbone this one began."""
    first.export(profile, name=NAME, more={"began_as": hub.fingerprint("backbone", profile)}, **given)


class Pieces(first.Rows):
    """A few successive words of a training utterance each: stretches as long as a clip and a short text."""

    def __init__(self, rows: first.Rows):
        """Of these rows, whose sounds and letters it shares. Which words is drawn once, from a seed of its own."""
        vars(self).update(vars(rows))
        generator = torch.Generator().manual_seed(first.SEED)
        self._pieces = [
            (i, *cut(self.corpus.table.text.iat[i], super(Pieces, self).edges(i), frames, generator))
            for i, frames in enumerate(self.lengths)
            for _ in range(PIECES)
        ]
        self.lengths = [end - begin for *_, begin, end in self._pieces]
        self._starts = torch.tensor([int(self._starts[i]) + begin for i, *_, begin, _ in self._pieces])

    def edges(self, i: int) -> Tensor:
        """Where each character of piece i begins and ends: (nt, 2) seconds of the piece."""
        utterance, start, stop, begin, _ = self._pieces[i]
        return (super().edges(utterance)[start:stop] - begin * HOP_LENGTH / SAMPLE_RATE).clamp(min=0)

    def text(self, i: int) -> Tensor:
        """Vocabulary indices of what piece i says: (nt,)."""
        utterance, start, stop, *_ = self._pieces[i]
        return super().text(utterance)[start:stop]


def cut(text: str, edges: Tensor, frames: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Successive words at random, half of the time the last ones: characters start..stop, mel frames begin..end.

    edges: (nt, 2) seconds; frames: of the utterance. The length is drawn log-uniform from PIECE_SECONDS, then filled
    with whole words, at least one.
    """
    words = [match.span() for match in re.finditer(r"\S+", text)]
    begins, ends = edges[[a for a, _ in words], 0], edges[[b - 1 for _, b in words], 1]
    length, place, side = torch.rand(3, generator=generator).tolist()
    seconds = PIECE_SECONDS[0] * (PIECE_SECONDS[1] / PIECE_SECONDS[0]) ** length
    if side < 0.5:
        one, other = min(len(words) - 1, int((begins < ends[-1] - seconds).sum())), len(words) - 1
    else:
        one = int(place * len(words))
        other = max(one, int((ends <= begins[one] + seconds).sum()) - 1)
    begin = 0 if one == 0 else int(begins[one] * SAMPLE_RATE / HOP_LENGTH)
    end = frames if other == len(words) - 1 else math.ceil(ends[other] * SAMPLE_RATE / HOP_LENGTH)
    begin = min(begin, frames - 1)
    return words[one][0], words[other][1], begin, min(frames, max(begin + 1, end))


def to_be_made(cfm: backbone.CompanionCFM, tokens: Tensor) -> Tensor:
    """What is to be made of pieces, (b, n): in some all behind a clip, in the others the official random spans.

    tokens: (b,) lengths, on the CPU.
    """
    spans = mask_from_frac_lengths(tokens, torch.zeros(len(tokens)).uniform_(*cfm.frac_lengths_mask))
    clip = int(cfm.tokens(torch.tensor([CLIP_FRAMES])))
    behind = (torch.arange(spans.shape[1]) >= clip).expand_as(spans)
    cloned = (torch.rand(len(tokens)) < CLONED) & (tokens >= clip + LEAST_BEHIND)
    return torch.where(cloned[:, None], behind, spans) & lens_to_mask(tokens, length=spans.shape[1])


def begun(own: Profile, teacher: backbone.Backbone) -> backbone.Backbone:
    """A second backbone with all weights of the first that it has a place for."""
    model = backbone.build(own.backbone)
    state = {k: v for k, v in teacher.state_dict().items() if not any(part in k for part in UNUSED)}
    model.load_state_dict(state)
    return model


def lower(
    model: backbone.Backbone, text: Tensor, given: dict[str, Tensor], dropped: tuple[bool, bool]
) -> Tensor:
    """What the lower blocks make of `corrupted` speech: (b, n, d), the beginning of the official `DiT.forward`."""
    network, mask = model.transformer, given["mask"]
    with torch.no_grad():  # the upper blocks read these too
        time = network.time_embed(given["time"])
    x = network.get_input_embed(
        given["x"],
        given["cond"],
        text,
        drop_audio_cond=dropped[0] or dropped[1],
        drop_text=dropped[1],
        cache=False,
        audio_mask=mask,
    )
    rope = network.rotary_embed.forward_from_seq_len(x.shape[1])
    for block in network.transformer_blocks[:LOWER_BLOCKS]:
        x = block(x, time, mask=mask, rope=rope)
    return x


def follow(
    model: backbone.Backbone,
    teacher: backbone.Backbone,
    optimisers: tuple[torch.optim.Optimizer, ...],
    ema: Ema,
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    share: float,
    guide: first.Guide,
) -> dict[str, Tensor]:
    """One step of the lower blocks towards the teacher's, which are told the alignment. Arguments as of `learn`.

    The loss is the squared difference as a share of the teacher's variance.
    """
    mel, frames, text, index = batch
    tokens, dropped = model.cfm.tokens(frames), first.drops(model.cfm)
    given, _, _ = first.corrupted(model.cfm, model.cfm.stacked(mel), tokens)
    with autocast(mel.device):
        with torch.no_grad(), teacher.aligned(index):
            wanted = lower(teacher, text, given, dropped).float()
        made = lower(model, text, given, dropped).float()
        inside = given["mask"][..., None]
        mean = (wanted * inside).sum((0, 1)) / inside.sum()
        unlike = ((made - wanted) * inside).square().sum() / ((wanted - mean) * inside).square().sum()
        astray = guide(index, tokens, told=not dropped[1])
    (unlike + guide.weight * astray).backward()
    norm = first.stepped(model, optimisers, ema, share)
    return {"loss": unlike.detach(), "norm": norm, "frames": frames.sum(), "attention": astray.detach()}
