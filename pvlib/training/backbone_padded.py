"""Train the second backbone: text padded behind its characters, as F5-TTS v1 reads it.

No input tells this one which character sounds where: attention has to find out, which is the difference that is
studied. It begins as the first backbone, and its lower blocks learn first what those of the first make of the same
noisy speech when they are told the alignment (after Hinton et al., 2015, "Distilling the Knowledge in a Neural
Network"); then all of it learns by flow matching. So the two know equally much of speech. While it learns, two of its
heads are shown where to look (`backbone.Guide`).
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from pvlib import backbone, hub
from pvlib.config import MINI, Profile
from pvlib.training import backbone as first
from pvlib.training import machine
from pvlib.training.common import Ema, Run, autocast, batches_by_length, chosen_device
from pvlib.training.schedule import Progress

NAME = first.PADDED
STEPS, LOWER_STEPS = 4_200, 2_200  # in all; in which the lower blocks learn alone
LOWER_BLOCKS = 3
EVALUATE_EVERY = 2_000
WHOLE_RATE = 0.4  # of the peak rate, once all of it learns
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
    guide = first.Guide(model)
    muon, adam = first.optimisers(model)
    ema = Ema(model)
    run = Run(
        NAME, {"model": model, "muon": muon, "adam": adam, "ema": ema}, config=own.backbone, larger=larger
    )
    run.take_up(own) if from_weights else run.resume()
    model.train()
    batches = batches_by_length(
        rows.lengths, first.FRAMES_PER_STEP, seed=first.SEED, start=run.step, larger=larger
    )
    schedule = Progress(run, steps, minutes)

    def step(number: int) -> dict[str, Tensor]:
        torch.manual_seed(first.SEED + 1000 * number)  # as in the first backbone's training
        random.seed(number)
        given = rows.batch(next(batches), torch.Generator().manual_seed(number), first.TEMPO)
        share = first.learning_rate(number, schedule.progress)
        if number < LOWER_STEPS:
            return follow(model, teacher, (muon, adam), ema, given, share, guide)
        found = first.learn(model, None, (muon, adam), ema, given, WHOLE_RATE * share, guide=guide)
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
    (unlike + first.GUIDED_WEIGHT * astray).backward()
    norm = first.stepped(model, optimisers, ema, share)
    return {"loss": unlike.detach(), "norm": norm, "frames": frames.sum(), "attention": astray.detach()}
