"""Train the mini backbone: flow matching by infilling, as the official `CFM.forward` does it, at other times.

Each row shows the model a sentence with 70 to 100 % of its mel hidden. Four rows in five carry the true alignment
of their words, the fifth the one that only text and length foretell, which is all the official inference function
can offer. What is said is decided while there is still more noise than speech, so the times are drawn as densely
there as sway sampling visits them. The learning rate rises, stays, and falls to zero over the last fifth of the
steps, so that a finished run can be taken up again with more of them.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterable, Sequence

import torch
from f5_tts.model.modules import Attention, apply_rotary_pos_emb
from f5_tts.model.utils import lens_to_mask, list_str_to_idx, mask_from_frac_lengths
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils.hooks import RemovableHandle
from tqdm.auto import tqdm

from pvlib import alignment, backbone, hub
from pvlib.attention import RowAttention
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import MINI, Profile
from pvlib.durations import DurationPredictor
from pvlib.recognizer import CTCRecognizer
from pvlib.training import eight_bits, letters, listening, machine
from pvlib.training.common import Ema, Run, autocast, batches_by_length, chosen_device, muon_and_adamw
from pvlib.training.features import mel_cache, on_device
from pvlib.training.schedule import Progress
from pvlib.world.corpus import open_split

STEPS = 20_000
FRAMES_PER_STEP = 5_000
PEAK_RATE, WARM_UP_STEPS, FALL = 8e-4, 300, 0.2
FORETOLD_SHARE = 0.2
TEMPO, TEMPO_SHARE = (
    (0.75, 1.33),
    0.5,
)  # a clone's length is guessed from one second; share of the rows in another
TIMING_STEPS, TIMING_ROWS, TIMING_RATE = 1500, 64, 3e-3
SHORTEST = 0.01  # seconds, added to durations before their logarithm: marks may last nothing
SWAY = -1.0  # of the training times, as of the sampler's
HEARING_DEPTH, HEARING_WEIGHT = 0.5, 0.5  # which block, of the DiT and of the recogniser; share in the loss
GUIDED_BLOCKS, GUIDED_WEIGHT = (1, 2), 0.1  # of padded text; share in the loss
EVALUATE_EVERY = 1000
SEED = 1
NAME, PADDED = "backbone", hub.BACKBONE_PADDED


def fit_timing(timing: DurationPredictor, rows: Rows, steps: int = TIMING_STEPS) -> None:
    """Teach the text encoder how long each character lasts beside the others of its utterance, then how long in all.

    The squared error of log durations, as in FastSpeech (Ren et al., 2019), after each row's own rate is taken out.
    """
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(timing.requires_grad_(True).parameters(), lr=TIMING_RATE, weight_decay=1e-3)
    texts, lasting = (
        rows.corpus.table.text,
        [rows.edges(i).diff(dim=1)[:, 0] for i in range(len(rows.lengths))],
    )

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.randint(len(rows.lengths), (TIMING_ROWS,), generator=generator).tolist()
        true = nn.utils.rnn.pad_sequence([lasting[i] for i in chosen], batch_first=True)
        text, true = moved((timing.encode([texts.iat[i] for i in chosen]), true), timing.out.weight.device)
        return text, true, text > 0

    timing.train()
    for number in tqdm(range(steps), desc="timing", mininterval=5):
        text, true, present = batch()
        error = ((timing(text) + SHORTEST) / (true + SHORTEST)).log() * present
        rate = error.sum(1, keepdim=True) / present.sum(1, keepdim=True)
        loss = ((error - rate) * present).square().sum() / present.sum()
        loss.backward()
        optimiser.param_groups[0]["lr"] = TIMING_RATE * (1 - number / steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    timing.requires_grad_(False).eval()
    with torch.no_grad():
        text, true, _ = batch()
        timing.out.bias += (true.sum() / timing(text).sum()).log()


def learning_rate(step: int, progress: float) -> float:
    """Share of the peak rate: up, flat, and down over the last fifth of the run. progress: share that is done."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (1 - progress) / FALL)


def drops(cfm: backbone.CompanionCFM) -> tuple[bool, bool]:
    """Whether this batch goes without its visible sound, and whether without any condition."""
    return random.random() < cfm.audio_drop_prob, random.random() < cfm.cond_drop_prob


class Hearing(nn.Module):
    """Representation alignment: a middle block of the DiT should know what the recogniser hears in the true speech.

    Flow matching alone learns slowly what sounds where, since most of its loss is detail that nobody can foretell.
    Two linear layers lead from the block's tokens to the recogniser's own inner features of the clean mel, and
    one minus their cosine joins the loss (Yu et al., 2024, "REPA"; Choi et al., 2025, for text to speech). The
    recogniser stays as it is and hears recordings only, never what the backbone makes; the layers are not exported.
    """

    def __init__(self, model: backbone.Backbone, ears: CTCRecognizer):
        super().__init__()
        dim, channels = model.settings.dim, ears.config.channels
        self.project = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, channels))
        self._ears = (ears.eval().requires_grad_(False),)  # in a tuple: no part of this module's state
        self._stack = model.settings.stack
        self._seen: list[Tensor] = []
        block = model.transformer.transformer_blocks[math.ceil(HEARING_DEPTH * model.settings.depth) - 1]
        block.register_forward_hook(lambda module, given, made: self._seen.append(made))

    def forward(self, mel: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
        """The loss for the DiT pass just made. mel: (b, m, 100) clean, not stacked; frames, tokens: (b,) lengths."""
        made = self.project(self._seen.pop())  # (b, n, c)
        (ears,) = self._ears
        frames, tokens = moved((frames, tokens), mel.device)
        with torch.no_grad():
            heard, steps = ears.hidden(mel, frames, math.ceil(HEARING_DEPTH * len(ears.blocks)))
            heard = heard.float()
            share = lens_to_mask(steps, length=heard.shape[1])[..., None] / steps.sum()
            heard = heard - (heard * share).sum((0, 1))
            heard = heard / (heard.square() * share).sum((0, 1)).sqrt().clamp(min=1e-3)
            at = (torch.arange(made.shape[1], device=mel.device) * self._stack + self._stack // 2) // 4
            heard = heard[:, at.clamp(max=heard.shape[1] - 1)]
        likeness = nn.functional.cosine_similarity(made.float(), heard, dim=-1)
        return 1 - _mean(likeness, lens_to_mask(tokens, length=made.shape[1]))


class Guide:
    """Guided attention, for padded text: in some blocks the first head should look at the character that sounds.

    Flow matching alone finds out only late where in its text a token belongs. The mini world knows when each word is
    said, so the cross-entropy between that head's attention and the true character joins the loss (after Tachibana
    et al., 2018, who only ask for a diagonal). The network stays the official one; when it speaks, nothing guides it.
    """

    def __init__(self, model: backbone.Backbone):
        self._layers = [block.attn for block in model.transformer.transformer_blocks]
        self._seen: list[tuple[Attention, Tensor, Tensor]] = []
        self._hooks: list[RemovableHandle] = []
        self.blocks: tuple[int, ...] = ()
        self.watch(GUIDED_BLOCKS, GUIDED_WEIGHT)

    def watch(self, blocks: tuple[int, ...], weight: float) -> None:
        """From now on guide these blocks and no others; weight: share of this loss in the whole."""
        self.weight = weight
        if blocks != self.blocks:
            for hook in self._hooks:
                hook.remove()
            watched = [self._layers[number] for number in blocks]
            self._hooks = [layer.register_forward_pre_hook(self._see, with_kwargs=True) for layer in watched]
            self.blocks = blocks

    def _see(self, layer: Attention, _: tuple, given: dict) -> None:
        self._seen.append((layer, given["x"], given["rope"][0]))

    def __call__(self, index: Tensor, tokens: Tensor, told: bool = True) -> Tensor:
        """The loss for the DiT pass just made, zero where it was not told the text.

        index: (b, n) positions in the text, -1 where none; tokens: (b,) lengths.
        """
        seen, self._seen = self._seen, []
        if not told:
            return torch.zeros((), device=index.device)
        inside = lens_to_mask(tokens, length=index.shape[1])
        (inside,) = moved((inside,), index.device)
        losses = []
        for layer, x, angles in seen:
            size = layer.inner_dim // layer.heads
            query, key = (
                apply_rotary_pos_emb(
                    nn.functional.linear(x, part.weight[:size], part.bias[:size])[:, None], angles
                )[:, 0]
                for part in (layer.to_q, layer.to_k)
            )
            scores = (query @ key.transpose(1, 2)).float() * size**-0.5
            scores = scores.masked_fill(~inside[:, None], -torch.inf)
            missed = nn.functional.cross_entropy(scores.transpose(1, 2), index.clamp(min=0), reduction="none")
            losses.append(_mean(missed, (index >= 0) & inside))
        return torch.stack(losses).mean()


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean where `chosen` is true, without asking the device how many that are."""
    return (values * chosen).sum() / chosen.sum()


def flow_loss(
    cfm: backbone.CompanionCFM,
    mel: Tensor,
    text: Tensor,
    tokens: Tensor,
    sway_coef: float | None = SWAY,
    hidden: Tensor | None = None,
    dropped: tuple[bool, bool] | None = None,
    early: float = 1.0,
) -> Tensor:
    """The loss of the official `CFM.forward` on its own random numbers, with the times swayed; None: not swayed.

    mel: (b, n, d) stacked; text: (b, nt) vocabulary indices; tokens: (b,) lengths, on the CPU so that a GPU need not be
    waited for. hidden: (b, n) what is to be made, by default a random span; dropped: whether the visible sound, and
    whether everything, is dropped, by default drawn. early: power of the times, over 1 for more of them near the noise.
    Uniform times are right for unit variance; log-mels vary more, and their content shows through the noise before a
    fifth of the way is gone.
    """
    given, hidden, velocity = corrupted(cfm, mel, tokens, sway_coef, hidden, early)
    drop_clip, drop_all = drops(cfm) if dropped is None else dropped
    made = cfm.transformer(text=text, drop_audio_cond=drop_clip or drop_all, drop_text=drop_all, **given)
    return _mean((made - velocity).square().mean(-1), hidden)


def corrupted(
    cfm: backbone.CompanionCFM,
    mel: Tensor,
    tokens: Tensor,
    sway_coef: float | None = SWAY,
    hidden: Tensor | None = None,
    early: float = 1.0,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Speech on its way from noise: what the transformer is given of it, what is hidden (b, n), the velocity (b, n, d).

    Arguments as of `flow_loss`.
    """
    mask = lens_to_mask(tokens, length=mel.shape[1])
    if hidden is None:
        share = torch.zeros(len(mel), device=tokens.device).uniform_(*cfm.frac_lengths_mask)
        hidden = mask_from_frac_lengths(tokens, share) & mask
    mask, hidden = moved((mask, hidden), mel.device)
    noise = torch.randn_like(mel)
    times = torch.rand(len(mel), device=mel.device)
    if sway_coef is not None:
        times = times + sway_coef * (torch.cos(math.pi / 2 * times) - 1 + times)
    times = times**early
    t = times[:, None, None]
    visible = mel.masked_fill(hidden.unsqueeze(-1), 0.0)
    given = {"x": (1 - t) * noise + t * mel, "cond": visible, "time": times, "mask": mask}
    return given, hidden, mel - noise


def optimisers(model: backbone.Backbone, *others: nn.Module) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices of attention and feed-forward, AdamW for everything else, also of the other modules."""
    matrices = [
        parameter
        for name, parameter in model.transformer.transformer_blocks.named_parameters()
        if parameter.ndim == 2 and "attn_norm" not in name
    ]
    rest = [parameter for module in (model, *others) for parameter in module.parameters()]
    return muon_and_adamw(matrices, rest, PEAK_RATE, (0.9, 0.99))


class Rows:
    """Training rows: mel, vocabulary indices and alignment, by number. Everything lies on one device."""

    def __init__(
        self,
        split: str,
        model: backbone.Backbone,
        limit: int | None = None,
        profile: Profile | None = None,
        device: torch.device | None = None,
    ):
        """profile: whose recogniser says where in a word each letter is; None: all words share out evenly."""
        self.corpus, self.cache, self.model = open_split(split), mel_cache(split), model
        self.device = device or torch.device("cpu")
        self.lengths = self.cache.lengths[:limit]
        self.centres = None if profile is None else letters.centres(split, profile, limit)
        self._frames = on_device(self.cache.frames, self.device)  # (frames of the split, 100)
        self._starts = torch.from_numpy(self.cache.offsets)
        self._texts: dict[int, Tensor] = {}
        self._edges: dict[int, Tensor] = {}

    def edges(self, i: int) -> Tensor:
        """Where each character of utterance i begins and ends: (nt, 2) seconds."""
        if i not in self._edges:
            text, total = self.corpus.table.text.iat[i], self.corpus.table.samples.iat[i] / SAMPLE_RATE
            centres = None if self.centres is None else self.centres[i]
            self._edges[i] = alignment.edges_of(text, self.corpus.words(i), total, centres)
        return self._edges[i]

    def alignment(self, i: int, stretch: float = 1.0) -> Tensor:
        """The true alignment of utterance i, said so many times as long: (tokens,) positions in its text."""
        per_second = SAMPLE_RATE / HOP_LENGTH / self.model.settings.stack
        tokens = self.model.cfm.tokens(max(1, round(stretch * self.lengths[i])))
        return alignment.from_edges(stretch * self.edges(i), per_second, tokens)

    def text(self, i: int) -> Tensor:
        """Vocabulary indices of what utterance i says: (nt,)."""
        if i not in self._texts:
            self._texts[i] = list_str_to_idx([self.corpus.table.text.iat[i]], self.model.vocabulary)[0]
        return self._texts[i]

    def mels(self, indices: list[int], stretch: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Mels side by side, each so many times as long: (b, m, 100), padded with zeros, and on the CPU frames (b,)."""
        given = torch.tensor([self.lengths[i] for i in indices])
        frames = torch.tensor(
            [max(1, round(s * self.lengths[i])) for i, s in zip(indices, stretch, strict=True)]
        )
        starts, stops, given, slower = moved(
            (self._starts[indices], frames, given, torch.tensor(stretch)), self.device
        )
        place = torch.arange(int(frames.max()), device=self.device)
        inside = (place < stops[:, None])[..., None]
        at = ((place + 0.5) / slower[:, None] - 0.5).clamp(min=0).minimum(given[:, None] - 1)
        below = at.long()
        above = (below + 1).minimum(given[:, None] - 1)
        mel, following = (
            self._frames[(starts[:, None] + k).where(inside[..., 0], 0)].float() for k in (below, above)
        )
        return mel.lerp(following, (at - below)[..., None]).masked_fill(~inside, 0.0), frames

    def batch(
        self, indices: list[int], generator: torch.Generator, tempo: tuple[float, float] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Mel (b, m, 100), its frames (b,) on the CPU, text (b, nt), alignment (b, n).

        The alignment is the true one or, where text is laid out by durations, sometimes what they foretell; None where
        text is stretched evenly.

        tempo: range of the speeds at which a share of the rows is said, log-uniform; None: all as they are.
        """
        pad, embedding = nn.utils.rnn.pad_sequence, self.model.transformer.text_embed
        stretch = [1.0] * len(indices)
        if tempo is not None:
            changed, place = torch.rand(2, len(indices), generator=generator).tolist()
            slowest, quickest = (math.log(t) for t in tempo)
            speeds = [math.exp(slowest + (quickest - slowest) * u) for u in place]
            stretch = [1 / v if u < TEMPO_SHARE else 1.0 for u, v in zip(changed, speeds, strict=True)]
        mel, frames = self.mels(indices, stretch)
        tokens = self.model.cfm.tokens(frames)
        text = pad([self.text(i) for i in indices], batch_first=True, padding_value=backbone.FILLER)
        conditioning = self.model.settings.text_conditioning
        if conditioning == "average":
            return mel, frames, *moved((text,), self.device), None
        true = [self.alignment(i, s) for i, s in zip(indices, stretch, strict=True)]
        true = pad(true, batch_first=True, padding_value=-1)
        if conditioning == "padded":
            return mel, frames, *moved((text, true), self.device)
        foretold = torch.rand(len(indices), 1, generator=generator) < FORETOLD_SHARE
        text, true, foretold, lengths = moved((text, true, foretold, tokens), self.device)
        return mel, frames, text, embedding.align(text, lengths, true.shape[1]).where(foretold, true)


def moved(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors on a device, which need not have come to the end of its queue for it."""
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def quicken(blocks: Iterable[nn.Module], device: torch.device) -> None:
    """On a CPU, attention row by row in some DiT blocks: the same numbers sooner."""
    if device.type == "cpu":
        for block in blocks:
            block.attn.processor = RowAttention()


def learn(
    model: backbone.Backbone,
    hearing: Hearing | None,
    optimisers: Sequence[torch.optim.Optimizer],
    ema: Ema,
    given: tuple[Tensor, Tensor, Tensor, Tensor | None],
    share: float,
    *,
    mixed: bool = True,
    guide: Guide | None = None,
    hidden: Tensor | None = None,
    early: float = 1.0,
) -> dict[str, Tensor]:
    """One step on a batch of `Rows.batch`: its losses, the norm of the gradient and the frames it learnt from.

    hearing: None leaves representation alignment out, guide: None guided attention; share: of the peak rate; mixed:
    `autocast` where it is quicker; hidden, early: as of `flow_loss`. Its parts have names in the profiler
    (`training.speed`).
    """
    mel, frames, text, index = given
    tokens = model.cfm.tokens(frames)
    dropped = drops(model.cfm)
    with model.aligned(index), autocast(mel.device, mixed):
        with record_function("flow"):
            options = {"hidden": hidden, "dropped": dropped, "early": early}
            loss = flow_loss(model.cfm, model.cfm.stacked(mel), text, tokens, **options)
        with record_function("hearing"):
            unlike = loss.new_zeros(()) if hearing is None else hearing(mel, frames, tokens)
        with record_function("guide"):
            astray = loss.new_zeros(()) if guide is None else guide(index, tokens, told=not dropped[1])
    with record_function("backward"):
        (loss + HEARING_WEIGHT * unlike + (0 if guide is None else guide.weight) * astray).backward()
    norm = stepped(model, optimisers, ema, share)
    found = {"loss": loss.detach(), "hearing": unlike.detach(), "norm": norm, "frames": frames.sum()}
    return found if guide is None else found | {"attention": astray.detach()}


def stepped(
    model: backbone.Backbone, optimisers: Sequence[torch.optim.Optimizer], ema: Ema, share: float
) -> Tensor:
    """Step and average after a backward pass, at a share of the peak rate; the norm that the gradient had."""
    with record_function("optimisers"):
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = PEAK_RATE * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    with record_function("average"):
        ema.update()
    return norm


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
    """Train the backbone, or go on where the last run stopped, and export its averaged weights.

    larger: so many times the usual frames in a step, for a GPU.
    Raises WeightsError without a trained recogniser, which it learns to foretell (`Hearing`).
    """
    steps = steps or STEPS
    machine.prepare(threads)
    device = chosen_device(device)
    torch.manual_seed(SEED)
    model = backbone.build(profile.backbone)
    model.to(device)
    rows = Rows("train", model, limit, profile, device)
    hearing = Hearing(model, hub.load_recognizer(profile, device)).to(device)
    muon, adam = optimisers(model, hearing)
    ema = Ema(model)
    parts = {"model": model, "hearing": hearing, "muon": muon, "adam": adam, "ema": ema}
    run = Run(NAME, parts, config=profile.backbone, larger=larger)
    begun = run.take_up(profile) if from_weights else run.resume()
    if not begun and profile.backbone.text_conditioning == "durations":
        fit_timing(model.transformer.text_embed.timing, rows)
        ema.take(model)
    quicken(model.transformer.transformer_blocks, device)
    model.train()
    batches = batches_by_length(rows.lengths, FRAMES_PER_STEP, seed=SEED, start=run.step, larger=larger)
    schedule = Progress(run, steps, minutes)

    def step(number: int) -> dict[str, float]:
        torch.manual_seed(SEED + 1000 * number)  # noise, times and spans follow from the step alone,
        random.seed(number)  # so that a run taken up again is the run it would have been
        generator = torch.Generator().manual_seed(number)
        given = rows.batch(next(batches), generator, TEMPO)
        return learn(model, hearing, (muon, adam), ema, given, learning_rate(number, schedule.progress))

    run.loop(
        step,
        steps=steps,
        minutes=minutes,
        evaluate=lambda: evaluate(profile, ema.shadow, device),
        evaluate_every=EVALUATE_EVERY,
    )
    export(profile, run=run, ema=ema, device=device)


def _of(name: str, profile: Profile) -> Profile:
    """The profile whose `backbone` is the one of that name."""
    return profile.with_padded_text() if name == PADDED else profile


def averaged(profile: Profile = MINI, name: str = NAME) -> tuple[backbone.Backbone, Run]:
    """The averaged weights of the run so far, to look at while it trains. Raises TrainingError where there is none."""
    profile = _of(name, profile)
    model = backbone.build(profile.backbone)
    ema = Ema(model)
    parts = {"model": copy.deepcopy(model), "ema": ema}
    run = Run(name, parts, config=profile.backbone)
    run.require()
    model.load_state_dict(ema.shadow)
    return model.eval(), run


def export(
    profile: Profile = MINI,
    *,
    run: Run | None = None,
    ema: Ema | None = None,
    device: torch.device | None = None,
    name: str = NAME,
    more: dict[str, str] | None = None,
) -> None:
    """Write the averaged weights of the run so far to data/checkpoints.

    device: where they are evaluated. more: what else the card tells.
    """
    profile = _of(name, profile)
    if run is None or ema is None:
        model, run = averaged(profile, name)
        state = model.state_dict()
    else:
        state = ema.shadow
    keep = {k: v for k, v in state.items() if not k.startswith("cfm.mel_spec.")}
    keep = eight_bits.rounded(name, keep)
    measured = evaluate(profile, keep, device, short=name == PADDED)
    run.export(
        profile,
        keep,
        data="the mini world, train split; quality on the dev split (speakers and sentences never seen)",
        quality={key: round(value, 4) for key, value in measured.items()},
        more=more,
    )


def evaluate(
    profile: Profile, state: dict[str, Tensor], device: torch.device | None = None, short: bool = False
) -> dict[str, float]:
    """The flow loss on the dev split; and where recogniser and vocoder are trained, what they hear of dev sentences.

    short: of very short ones too.
    """
    model = backbone.build(profile.backbone)
    model.load_state_dict(state, strict=False)
    model.to(device or torch.device("cpu")).eval()
    found = {"dev_flow_loss": dev_loss(model, profile)}
    if listening.possible(profile):
        found |= listening.error_rates(model, profile)
        if short:
            rates = listening.error_rates(model, profile, words=listening.SHORT)
            found |= {f"{name}_short": rate for name, rate in rates.items()}
    return found


@torch.no_grad()
def dev_loss(model: backbone.Backbone, profile: Profile, batches: int = 12) -> float:
    """The flow-matching loss on dev utterances, with fixed noise, times and spans."""
    device = model.device
    rows = Rows("dev", model, profile=profile, device=device)
    order = batches_by_length(rows.lengths, FRAMES_PER_STEP, seed=SEED)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(SEED)
        random.seed(SEED)
        losses = []
        for number in range(batches):
            mel, frames, text, index = rows.batch(next(order), torch.Generator().manual_seed(number))
            with model.aligned(index), autocast(device):
                stacked, tokens = model.cfm.stacked(mel), model.cfm.tokens(frames)
                losses.append(float(flow_loss(model.cfm, stacked, text, tokens)))
    return sum(losses) / len(losses)
