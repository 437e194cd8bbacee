"""Train the adapters: OES first, by itself, then FiLM and the adapters' own copies of the last blocks.

A row is what a clone is: one neutral second of a speaker, then another sentence of the same speaker, all of it hidden.
The sentence has the emotion and the traits that the condition names. Half of the rows go to the studio, whatever room
the clip is in (env_weight 0), half stay in the clip's room (env_weight 1). Now and then the voice, or the emotion, is
left out of the condition, so that a clone may go without. The backbone is frozen.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pvlib import audio, backbone, config, hub, laag, paths, persona
from pvlib.adapters import Adapters, Conditions
from pvlib.config import MINI, TRAITS, Profile
from pvlib.training import backbone as pretraining
from pvlib.training import machine, separation
from pvlib.training.attention import RowAttention
from pvlib.training.common import Ema, Run, TrainingError, autocast, batches_by_length, chosen_device
from pvlib.training.features import pad
from pvlib.training.recognizer import first_second
from pvlib.world import corpus as world

NAME = "adapters"
STEPS = 3_000
FRAMES_PER_STEP = 4_000
PEAK_RATE, WARM_UP_STEPS = 1e-3, 100
TUNED_SHARE = 0.2  # of the rate, for the copies of the backbone's blocks
STUDIO_SHARE = 0.5  # share of the steps whose rows are taken to the studio
SILENT_SHARE = 0.1  # of the rows: without voice, and without emotion
STUDIO = "studio"
CLIPS_PER_SPEAKER = 8  # neutral ones, whose first seconds are embedded
DEV_BATCHES = 8
SEED = 2


@dataclass(frozen=True)
class MadeFor:
    """What a training state belongs to: one configuration and one backbone."""

    adapters: config.Adapters
    backbone_sha256: str


class Pairs:
    """Clip and sentence of one speaker, by the number of the sentence."""

    def __init__(self, split: str, profile: Profile, model: backbone.Backbone, limit: int | None = None):
        self.rows = pretraining.Rows(split, model, limit)
        self.profile, self.model = profile, model
        table = self.rows.corpus.table.iloc[:limit]
        long = table["samples"].to_numpy() >= audio.CLIP_SAMPLES
        heard = [
            first_second(self.rows.corpus.words(i), profile.recognizer.alphabet) if long[i] else ""
            for i in range(len(table))
        ]
        self.heard = heard
        usable = np.array([bool(text) for text in heard])
        self.table = table
        speakers, rooms = table["speaker"].to_numpy(), table["room"].to_numpy()
        neutral = table["emotion"].to_numpy() == "neutral"
        clips = _clips(speakers, rooms, usable & neutral)
        self.clips: list[tuple[np.ndarray, np.ndarray]] = []  # of each sentence: anywhere, and in its room
        of = {name: clips[speakers[clips] == name] for name in set(speakers)}
        for i in range(len(table)):
            others = of[speakers[i]][of[speakers[i]] != i]
            self.clips.append((others, others[rooms[others] == rooms[i]]))
        studio = rooms == STUDIO
        self.to_studio = [i for i in range(len(table)) if studio[i] and len(self.clips[i][0])]
        self.in_room = [i for i in range(len(table)) if len(self.clips[i][1])]
        if not self.to_studio or not self.in_room:
            raise TrainingError(
                "no speaker of the corpus has a neutral clip beside another sentence in the studio and in one "
                "room; build a larger corpus (`pvlib world build`)"
            )
        self.embeddings = embeddings(split, profile, clips.tolist())
        self.lengths = self.rows.lengths
        settings = replace(profile.persona, keep_strength=True)  # the corpus has faint personas too
        self.personas = torch.stack(
            [
                persona.persona_embedding({t: float(row[t]) for t in TRAITS}, settings)
                for _, row in table.iterrows()
            ]
        )
        self.emotions = torch.stack(
            [
                persona.emotion_embedding(e, float(s))
                for e, s in zip(table["emotion"], table["strength"], strict=True)
            ]
        )

    def batch(self, sentences: list[int], env_weight: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Rows of one step: mel (b, m, 100), frames (b,), text (b, nt), alignment (b, n), clip tokens (b,), Conditions.

        sentences: their numbers; env_weight: 0 takes clips of any room, 1 of the sentence's own.
        """
        cfm, corpus, model = self.model.cfm, self.rows.corpus, self.model
        mels, items, trues, clips = [], [], [], []
        for i in sentences:
            j = int(rng.choice(self.clips[i][env_weight]))
            clips.append(j)
            clip = np.asarray(self.rows.cache.mel(j, 0, audio.CLIP_FRAMES), dtype=np.float32)
            clip = clip[: len(clip) // cfm.stack * cfm.stack]
            sentence = np.asarray(self.rows.cache.mel(i), dtype=np.float32)
            mels.append(np.concatenate([clip, sentence]))
            heard = laag.boundary(self.heard[j])
            items.append(
                backbone.Item(
                    torch.from_numpy(clip), heard, corpus.table.text.iat[i], len(clip) + len(sentence)
                )
            )
            true = self.rows.alignment(i)
            trues.append(torch.where(true >= 0, true + len(heard), -1))
        mel, frames = pad(mels)
        known = torch.tensor([cfm.tokens(len(item.mel)) for item in items])
        index = model.alignment_of(items)
        if index is not None:
            for row, true in enumerate(trues):
                index[row, known[row] : known[row] + len(true)] = true
        text = model.encode([item.reference_text + item.text for item in items])
        conditions = Conditions(
            torch.stack([self.embeddings[j] for j in clips]),
            self.personas[sentences],
            torch.zeros(len(sentences), self.profile.adapters.style_dim),  # the world's texts have no style
            self.emotions[sentences],
        )
        return mel, frames, text, index, known, conditions


def _clips(speakers: np.ndarray, rooms: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Up to CLIPS_PER_SPEAKER usable utterances of each speaker, from as many rooms as there are: sorted numbers."""
    found = pd.DataFrame({"i": np.flatnonzero(usable), "speaker": speakers[usable], "room": rooms[usable]})
    turn = found.groupby(["speaker", "room"]).cumcount()
    found = found.assign(turn=turn).sort_values(["speaker", "turn", "i"], kind="stable")
    return np.sort(found.groupby("speaker").head(CLIPS_PER_SPEAKER)["i"].to_numpy())


def embeddings(split: str, profile: Profile, utterances: list[int]) -> dict[int, Tensor]:
    """The speaker embedding of the first second of each utterance, kept beside the training state.

    Minutes of work on first use, with a progress bar; used again while encoder, corpus and utterances are the same.
    """
    corpus = world.open_split(split)
    made_of = [hub.fingerprint("speaker_encoder", profile), corpus.table[["utterance", "samples"]].to_csv()]
    key = hashlib.sha256(repr((made_of, utterances)).encode()).hexdigest()[:16]
    path = paths.TRAINING / NAME / f"first-seconds-{split}-{key}.npy"
    if not path.exists():
        encoder, parts = hub.load_speaker_encoder(profile, "cpu"), []
        for first in tqdm(range(0, len(utterances), 64), desc=f"first seconds of {split}", mininterval=5):
            waves = [corpus.wave(i)[: audio.CLIP_SAMPLES] for i in utterances[first : first + 64]]
            parts.append(encoder.embed(waves).float().cpu().numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npy")
        np.save(partial, np.concatenate(parts))
        partial.replace(path)
    return dict(zip(utterances, torch.from_numpy(np.load(path)), strict=True))


def separate(module: Adapters, pairs: Pairs) -> dict[str, float]:
    """Train OES on the first seconds of the split (`separation.fit`). Returns the last losses."""
    known = sorted(pairs.embeddings)
    table = pairs.table.iloc[known]
    labels = [torch.from_numpy(pd.factorize(table[name], sort=True)[0]) for name in ("room", "speaker")]
    device = module.oes.env_basis.device
    losses = separation.fit(module.oes.cpu(), torch.stack([pairs.embeddings[i] for i in known]), *labels)
    module.oes.to(device)
    return losses


def train(
    profile: Profile = MINI,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    device: torch.device | None = None,
    limit: int | None = None,
) -> None:
    """Train, or go on where the last run stopped, and export at the end.

    Raises WeightsError without a trained backbone and speaker encoder, TrainingError on an unfit corpus or state.
    """
    machine.prepare(threads)
    device = chosen_device(device)
    torch.manual_seed(SEED)
    model = hub.load_backbone(profile, device)
    model.requires_grad_(False)
    run, module, ema, optimiser = _parts(profile, model)
    pairs = Pairs("train", profile, model, limit)
    film = [*module.film.parameters(), *module.emotion.parameters()]
    if not run.resume():
        module.oes.requires_grad_(True)
        separate(module, pairs)
        module.oes.requires_grad_(False)
        for key, value in module.oes.state_dict().items():
            ema.shadow[f"oes.{key}"].copy_(value)
    steps = steps or STEPS
    if device.type == "cpu":
        for block in (*model.transformer.transformer_blocks, *module.blocks):
            block.attn.processor = RowAttention()
    model.train()
    groups = (pairs.to_studio, pairs.in_room)
    past = [_env_weight(number) for number in range(run.step)]
    batches = [
        batches_by_length(
            [pairs.lengths[i] + audio.CLIP_FRAMES for i in chosen],
            FRAMES_PER_STEP,
            seed=SEED,
            start=past.count(env_weight),
        )
        for env_weight, chosen in enumerate(groups)
    ]

    def step(number: int) -> dict[str, float]:
        rng = np.random.default_rng([SEED, number])
        torch.manual_seed(SEED + 1000 * number)
        random.seed(number)
        env_weight = _env_weight(number)
        sentences = [groups[env_weight][k] for k in next(batches[env_weight])]
        loss = flow_loss(pairs, module, sentences, env_weight, rng, pretraining.drops(model.cfm))
        loss.backward()
        norm = nn.utils.clip_grad_norm_([*film, *module.blocks.parameters()], 1.0)
        rate = min(1.0, (number + 1) / WARM_UP_STEPS) * max(0.02, 1 - number / steps)
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * rate * group["share"]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        ema.update()
        return {"loss": loss.detach(), "norm": norm}

    run.loop(step, steps=steps, minutes=minutes)
    _export(run, profile, ema, pairs)


def export(profile: Profile = MINI) -> None:
    """Write the averaged weights of the run so far to data/checkpoints. Raises TrainingError where there is none."""
    model = hub.load_backbone(profile)
    run, _, ema, _ = _parts(profile, model)
    run.require()
    _export(run, profile, ema, Pairs("train", profile, model))


def _parts(profile: Profile, model: backbone.Backbone) -> tuple[Run, Adapters, Ema, torch.optim.Optimizer]:
    module = Adapters(profile.adapters, model.transformer).to(model.device)
    module.oes.requires_grad_(False)
    film = [*module.film.parameters(), *module.emotion.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": film, "share": 1.0},
            {"params": list(module.blocks.parameters()), "share": TUNED_SHARE},
        ],
        lr=PEAK_RATE,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    ema = Ema(module, 0.998)
    made_for = MadeFor(profile.adapters, hub.fingerprint("backbone", profile))
    run = Run(NAME, {"adapters": module, "optimiser": optimiser, "ema": ema}, config=made_for)
    return run, module, ema, optimiser


def _env_weight(number: int) -> int:
    """Where the rows of a step go: 0 to the studio, 1 where the clip was."""
    return int(np.random.default_rng([SEED, number, 1]).random() >= STUDIO_SHARE)


def flow_loss(
    pairs: Pairs,
    module: Adapters | None,
    sentences: list[int],
    env_weight: int,
    rng: np.random.Generator,
    dropped: tuple[bool, bool],
) -> Tensor:
    """The flow loss of one batch with the adapters, or of the frozen backbone alone. dropped: see `pretraining`."""
    model = pairs.model
    device = model.device
    mel, frames, text, index, known, given = pairs.batch(sentences, env_weight, rng)
    heard, felt = (torch.from_numpy(rng.random((len(sentences), 1)) >= SILENT_SHARE) for _ in range(2))
    given = replace(given, embedding=given.embedding * heard, emotion=given.emotion * felt)
    given = Conditions(*(getattr(given, f.name).to(device) for f in fields(given)))
    mel, frames, text, known = mel.to(device), frames.to(device), text.to(device), known.to(device)
    tokens = model.cfm.tokens(frames)
    place = torch.arange(int(tokens.max()), device=device)[None]
    hidden = (place >= known[:, None]) & (place < tokens[:, None])
    acting = nullcontext()
    if module is not None:
        condition = module.condition(given, float(env_weight))
        acting = module.modulating(model.transformer, condition, silent=dropped[1])
    with model.aligned(None if index is None else index.to(device)), acting, autocast(device):
        stacked = model.cfm.stacked(mel)
        return pretraining.flow_loss(model.cfm, stacked, text, tokens, hidden=hidden, dropped=dropped)


@torch.no_grad()
def quality(
    profile: Profile, module: Adapters, train_pairs: Pairs
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What is told of the weights, and the probes it was told by, all on the dev split (other speakers).

    room_*: a linear reader of rooms, trained on the train split's first seconds, of the whole embedding, the timbre
    and the environment; balanced accuracy, chance 1 / rooms. dev_flow_loss with the adapters, and of the backbone.
    """
    module.eval()
    pairs = Pairs("dev", profile, train_pairs.model)
    rooms = sorted(set(train_pairs.table["room"]))
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


def _part(module: Adapters, pairs: Pairs, part: str, rooms: list[str]) -> tuple[Tensor, Tensor]:
    """One part of the embeddings of first seconds (n, d), and their rooms (n,)."""
    known = sorted(pairs.embeddings)
    whole = torch.stack([pairs.embeddings[i] for i in known])
    timbre, environment = module.oes.split(whole.to(module.oes.env_basis.device))
    label = torch.tensor([rooms.index(room) for room in pairs.table["room"].iloc[known]])
    return {"whole": whole, "timbre": timbre.cpu(), "environment": environment.cpu()}[part], label


def _export(run: Run, profile: Profile, ema: Ema, pairs: Pairs) -> None:
    module = Adapters(profile.adapters, pairs.model.transformer)
    module.load_state_dict(ema.shadow)
    for block in module.blocks:
        block.attn.processor = pairs.model.transformer.transformer_blocks[0].attn.processor
    found, probes = quality(profile, module.to(pairs.model.device), pairs)
    run.export(
        profile,
        ema.shadow | probes,
        data="the mini world, train split: a second of a speaker, then another sentence of the same",
        quality={name: round(value, 4) for name, value in found.items()},
        more={
            "backbone_sha256": run.config["backbone_sha256"],
            "rooms": sorted(set(pairs.table["room"])),
        },
    )
