"""Train the adapters: OES and tempo first, each by itself, then FiLM and the adapters' own copies of the last blocks.

A row is what a clone is: one neutral second of a speaker, then another sentence of the same speaker, all of it hidden.
The sentence has the emotion and the traits that the condition names. Half of the rows go to the studio, whatever room
the clip is in (env_weight 0), half stay in the clip's room (env_weight 1). Now and then the voice, or the emotion, is
left out of the condition, so that a clone may go without. The backbone is frozen: its blocks keep nothing for the
backward pass, which begins at the copies. The same loop trains on the mini world and on recorded speech (`Source`).
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pvlib import audio, backbone, config, hub
from pvlib.adapters import Adapters, Conditions
from pvlib.config import MINI, Profile
from pvlib.training import backbone as pretraining
from pvlib.training import machine, separation
from pvlib.training.common import Ema, Run, TrainingError, autocast, batches_by_length, chosen_device
from pvlib.training.libritts import LibriPairs
from pvlib.training.pairs import NAME, Pairs, Source
from pvlib.training.schedule import Progress

STEPS = 3_000
FRAMES_PER_STEP = 4_000
PEAK_RATE, WARM_UP_STEPS = 1e-3, 100
STUDIO_SHARE = 0.5  # share of the steps whose rows are taken to the studio
SILENT_SHARE = 0.1  # of the rows: without voice, and without emotion
DEV_BATCHES = 8
SEED = 2


@dataclass(frozen=True)
class Recipe:
    """What the size of the backbone decides.

    tuned_share: of the rate, for the copies of its blocks. recompute: see `Adapters.modulating`.
    """

    tuned_share: float
    recompute: bool


SMALL = Recipe(tuned_share=0.5, recompute=False)
OFFICIAL = Recipe(tuned_share=0.01, recompute=True)  # 1e-5, the rate of F5-TTS's own fine-tuning


def recipe(profile: Profile) -> Recipe:
    """How the adapters of a profile's backbone are trained."""
    return SMALL if profile.embedded else OFFICIAL


@dataclass(frozen=True)
class MadeFor:
    """What a training state belongs to: one configuration, one backbone and, of LibriTTS, one subset."""

    adapters: config.Adapters
    backbone_sha256: str
    speech: str | None = None


def separate(module: Adapters, pairs: Source) -> dict[str, float]:
    """Train OES on the first seconds of the split (`separation.fit`). Returns the last losses.

    Raises TrainingError on clips of one speaker or of one room.
    """
    heard = pairs.first_seconds()
    if len(set(heard.rooms)) < 2 or len(set(heard.speakers)) < 2:
        raise TrainingError(
            "OES needs clips of two speakers and of two rooms at least; train on a larger corpus"
        )
    named = (np.array(names, dtype=object) for names in (heard.rooms, heard.speakers, heard.places))
    labels = [torch.from_numpy(pd.factorize(names, sort=True)[0]) for names in named]
    device = module.oes.env_basis.device
    losses = separation.fit(module.oes.cpu(), heard.embedding, *labels)
    module.oes.to(device)
    return losses


@torch.no_grad()
def pace(module: Adapters, pairs: Source) -> None:
    """Fit the tempo to true lengths by least squares, each speaker having a pace of their own."""
    found = pairs.tempos()
    if found is None:
        return
    said, longer, speaker = found
    x, y = (v - separation.means_of(v, speaker)[speaker] for v in (said, longer[:, None]))
    solution = torch.linalg.lstsq(x, y, driver="gelsd").solution  # of least norm: 64 numbers for five traits
    module.tempo.weight.copy_(solution.T)


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: torch.device | None = None,
    limit: int | None = None,
    speech: Path | None = None,
    larger: int = 1,
) -> None:
    """Train, or go on where the last run stopped, and export at the end.

    speech: a LibriTTS tree; None is the mini world, of which `limit` takes the first utterances. larger: so many times
    the usual frames in a step, for a GPU.
    Raises WeightsError without a trained backbone and speaker encoder, TrainingError on an unfit corpus or state,
    DataError on a damaged tree.
    """
    machine.prepare(threads)
    device = chosen_device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(
            device
        )  # the card tells the most of all that follows, listening included
    torch.manual_seed(SEED)
    model = hub.load_backbone(profile, device)
    model.requires_grad_(False)
    run, module, ema, optimiser = _parts(profile, model, speech, larger)
    pairs = _source(profile, model, speech, limit)
    film = [*module.film.parameters(), *module.emotion.parameters()]
    if not run.resume():
        module.oes.requires_grad_(True)
        separate(module, pairs)
        pace(module, pairs)
        module.oes.requires_grad_(False)
        for part in pairs.unlabelled:
            module.mute(part)
        for key, value in module.state_dict().items():
            ema.shadow[key].copy_(value)
    steps, own = steps or STEPS, recipe(profile)
    pretraining.quicken((*model.transformer.transformer_blocks, *module.blocks), device)
    model.train()
    schedule = Progress(run, steps, minutes)
    groups = (pairs.to_studio, pairs.in_room)
    past = [_env_weight(number) for number in range(run.step)]
    batches = [
        batches_by_length(
            [pairs.lengths[i] + audio.CLIP_FRAMES for i in chosen],
            FRAMES_PER_STEP,
            seed=SEED,
            start=past.count(env_weight),
            larger=larger,
        )
        for env_weight, chosen in enumerate(groups)
    ]

    def step(number: int) -> dict[str, float]:
        rng = np.random.default_rng([SEED, number])
        torch.manual_seed(SEED + 1000 * number)
        random.seed(number)
        env_weight = _env_weight(number)
        sentences = [groups[env_weight][k] for k in next(batches[env_weight])]
        dropped = pretraining.drops(model.cfm)
        loss = flow_loss(pairs, module, sentences, env_weight, rng, dropped, own.recompute)
        loss.backward()
        norm = nn.utils.clip_grad_norm_([*film, *module.blocks.parameters()], 1.0)
        rate = min(1.0, (number + 1) / WARM_UP_STEPS) * max(0.02, 1 - schedule.progress)
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * rate * group["share"]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        ema.update()
        return {"loss": loss.detach(), "norm": norm}

    run.loop(step, steps=steps, minutes=minutes)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    _export(run, profile, ema, pairs, peak)


def export(profile: Profile = MINI, *, speech: Path | None = None) -> None:
    """Write the averaged weights of the run so far to data/checkpoints. Raises TrainingError where there is none.

    speech: what the run was trained on, as in `train`.
    """
    model = hub.load_backbone(profile)
    run, _, ema, _ = _parts(profile, model, speech)
    run.require()
    _export(run, profile, ema, _source(profile, model, speech))


def _source(
    profile: Profile, model: backbone.Backbone, speech: Path | None, limit: int | None = None
) -> Source:
    if speech is None:
        return Pairs("train", profile, model, limit)
    return LibriPairs(speech, "train", profile, model)


def _parts(
    profile: Profile, model: backbone.Backbone, speech: Path | None, larger: int = 1
) -> tuple[Run, Adapters, Ema, torch.optim.Optimizer]:
    module = Adapters(profile.adapters, model.transformer).to(model.device)
    module.oes.requires_grad_(False)
    film = [*module.film.parameters(), *module.emotion.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": film, "share": 1.0},
            {"params": list(module.blocks.parameters()), "share": recipe(profile).tuned_share},
        ],
        lr=PEAK_RATE,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    ema = Ema(module, 0.998)
    subset = None if speech is None else speech.resolve().name
    made_for = MadeFor(profile.adapters, hub.fingerprint("backbone", profile), subset)
    parts = {"adapters": module, "optimiser": optimiser, "ema": ema}
    if speech is None:
        return Run(NAME, parts, config=made_for, larger=larger), module, ema, optimiser
    options = f"--profile {profile.name} --speech {subset}"
    run = Run(NAME, parts, config=made_for, folder=f"{profile.name}-{NAME}", options=options, larger=larger)
    return run, module, ema, optimiser


def _env_weight(number: int) -> int:
    """Where the rows of a step go: 0 to the studio, 1 where the clip was."""
    return int(np.random.default_rng([SEED, number, 1]).random() >= STUDIO_SHARE)


def flow_loss(
    pairs: Source,
    module: Adapters | None,
    sentences: list[int],
    env_weight: int,
    rng: np.random.Generator,
    dropped: tuple[bool, bool],
    recompute: bool = False,
) -> Tensor:
    """The flow loss of one batch with the adapters, or of the frozen backbone alone.

    dropped: see `pretraining`; recompute: see `Adapters.modulating`.
    """
    model = pairs.model
    device = model.device
    mel, frames, text, index, known, given = pairs.batch(sentences, env_weight, rng)
    heard, felt = (torch.from_numpy(rng.random((len(sentences), 1)) >= SILENT_SHARE) for _ in range(2))
    given = replace(given, embedding=given.embedding * heard, emotion=given.emotion * felt)
    given = Conditions(*(getattr(given, f.name).to(device) for f in fields(given)))
    mel, text = mel.to(device), text.to(device)
    tokens = model.cfm.tokens(frames)
    place = torch.arange(int(tokens.max()))[None]
    hidden = (place >= known[:, None]) & (place < tokens[:, None])
    acting = nullcontext()
    if module is not None:
        condition = module.condition(given, float(env_weight))
        acting = module.modulating(model.transformer, condition, silent=dropped[1], recompute=recompute)
    with model.aligned(None if index is None else index.to(device)), acting, autocast(device):
        stacked = model.cfm.stacked(mel)
        return pretraining.flow_loss(model.cfm, stacked, text, tokens, hidden=hidden, dropped=dropped)


@torch.no_grad()
def quality(module: Adapters, train_pairs: Source) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What is told of the weights, and the probes it was told by, all on the dev split (other speakers).

    room_*: a linear reader of rooms, trained on the train split's first seconds, of the whole embedding, the timbre
    and the environment; balanced accuracy, chance 1 / rooms. dev_flow_loss with the adapters, and of the backbone.
    """
    module.eval()
    pairs, rooms = train_pairs.dev(), train_pairs.rooms
    found, probes = {}, {}
    for part in ("whole", "timbre", "environment"):
        x, label = _part(module, train_pairs, part, rooms)
        with torch.enable_grad():
            reader = separation.probe(x, label, len(rooms))
        probes[f"probes.{part}.weight"], probes[f"probes.{part}.bias"] = reader
        found[f"room_{part}"] = separation.accuracy(reader, *_part(module, pairs, part, rooms))
    for name, acting in (("dev_flow_loss", module), ("dev_flow_loss_of_backbone", None)):
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            for env_weight, chosen in enumerate((pairs.to_studio, pairs.in_room)):
                order = batches_by_length(
                    [pairs.lengths[i] + audio.CLIP_FRAMES for i in chosen], FRAMES_PER_STEP, seed=SEED
                )
                for number in range(DEV_BATCHES // 2):
                    sentences = [chosen[k] for k in next(order)]
                    rng = np.random.default_rng([SEED, env_weight, number])
                    args = (sentences, env_weight, rng, (False, False))
                    losses.append(float(flow_loss(pairs, acting, *args)))
        found[name] = sum(losses) / len(losses)
    return found, probes


def _part(module: Adapters, pairs: Source, part: str, rooms: list[str]) -> tuple[Tensor, Tensor]:
    """One part of the embeddings of first seconds (n, d), and their rooms (n,)."""
    heard = pairs.first_seconds()
    whole = heard.embedding
    timbre, environment = module.oes.split(whole.to(module.oes.env_basis.device))
    label = torch.tensor([rooms.index(room) for room in heard.rooms])
    return {"whole": whole, "timbre": timbre.cpu(), "environment": environment.cpu()}[part], label


def _export(run: Run, profile: Profile, ema: Ema, pairs: Source, peak: int | None = None) -> None:
    """peak: bytes of the GPU's memory that training took at its highest."""
    module = Adapters(profile.adapters, pairs.model.transformer)
    module.load_state_dict(ema.shadow)
    for block in module.blocks:
        block.attn.processor = pairs.model.transformer.transformer_blocks[0].attn.processor
    found, probes = quality(module.to(pairs.model.device), pairs)
    run.export(
        profile,
        ema.shadow | probes,
        data=pairs.data,
        quality={name: round(value, 4) for name, value in found.items()},
        more={"backbone_sha256": run.config["backbone_sha256"], "rooms": pairs.rooms}
        | ({} if peak is None else {"peak_gpu_gb": round(peak / 1e9, 3)}),
        corpus=pairs.corpus,
    )
