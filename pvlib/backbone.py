"""The backbone: the official F5-TTS classes, small enough for two cores, and our own sampler over them.

Axes: b batch, n tokens, m mel frames, nt characters, d channels.
`CompanionCFM` is a CFM whose transformer may see several mel frames as one token; its `sample` takes and returns
100-channel frames and frame counts, so that the official inference function works on it unchanged.
`Backbone.sample` integrates the same equation for many rows at once: a noise seed, a guidance strength and a
character alignment per row, and a mask that keeps padding out of the attention.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from f5_tts.model.backbones.dit import DiT, TextEmbedding
from f5_tts.model.cfm import CFM
from f5_tts.model.modules import DiTBlock
from f5_tts.model.utils import get_epss_timesteps, lens_to_mask, list_str_to_idx
from torch import Tensor, nn

from pvlib import alignment, attention, ceag, config, retired
from pvlib.audio import HOP_LENGTH, N_FFT, N_MELS, SAMPLE_RATE, WIN_LENGTH
from pvlib.convolution import depthwise
from pvlib.durations import DurationPredictor
from pvlib.text import MARKS_BEHIND, TextError

BOUNDARY_SECONDS = 0.12  # the mark between reference and generated text sounds this long
FILLER = -1
LONGEST_FRAMES = (
    8_192  # of a row of aligned text, 87 s: no more than the official encoder of padded text counts
)


class SkipDiT(DiT):
    """The official DiT with one more skip connection: the velocity is what its layers make, minus the input x.

    The velocity is speech minus noise, y - n, so plain layers must carry the noise of all channels of x from end to
    end, and that leaves little of a narrow network to the speech (Li & He, 2025, "Back to Basics: Let Denoising
    Generative Models Denoise"). Here they make y (1 + t) - n t: the speech alone at t = 0, where what is said is
    decided, and never more than twice of it. Loss and sampler are those of the velocity.
    """

    def forward(self, x: Tensor, cond: Tensor, text: Tensor, time: Tensor, **options) -> Tensor:
        """As the official `DiT.forward`: (b, n, d), with `cfg_infer` the conditional rows before the others."""
        made = super().forward(x, cond, text, time, **options).float()
        return made - x.float().repeat(len(made) // len(x), 1, 1)


class LocalBlock(DiTBlock):
    """The official block behind a depthwise convolution over neighbouring tokens, whose result joins its input.

    Formants glide from one sound to the next within a few tokens. Attention has to learn from speech what a neighbour
    is; a convolution knows it (Gulati et al., 2020, "Conformer"). Zero at first: the official block.
    """

    def __init__(self, dim: int, kernel: int, **options):
        super().__init__(dim, **options)
        self.local = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        nn.init.zeros_(self.local.weight)
        nn.init.zeros_(self.local.bias)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None, rope: tuple | None = None) -> Tensor:
        """As the official block: x (b, n, d), t (b, d), mask (b, n) true inside each row."""
        seen = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
        return super().forward(x + depthwise(self.local, seen), t, mask=mask, rope=rope)


class PaddedTextEmbedding(TextEmbedding):
    """The official text encoder; outside training each row of a batch is encoded at its own length.

    The official one fills a batch up to its longest row. The global response norm of its blocks counts that filler
    before the mask takes it out, so that what a shorter row reads depends on its company.
    """

    def forward(self, text: Tensor, seq_len: int | Tensor, drop_text: bool = False) -> Tensor:
        """text: (b, nt) vocabulary indices, filler -1. Returns (b, n, d), n the longest of `seq_len`."""
        if self.training or not torch.is_tensor(seq_len):
            return super().forward(text, seq_len, drop_text)
        rows = [
            super(PaddedTextEmbedding, self).forward(row[None], n, drop_text)[0]
            for row, n in zip(text, seq_len.tolist(), strict=True)
        ]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)


class AlignedTextEmbedding(TextEmbedding):
    """The official text encoder, its output stretched over the tokens by an alignment.

    Where `durations` is set, `timing` foretells how long each character lasts (else all last equally: average
    upsampling), and two features per token, how far into its character it is and how long that lasts, are added.
    """

    def __init__(self, vocabulary: Mapping[str, int], text_dim: int, *, conv_layers: int, durations: bool):
        size = len(vocabulary)
        super().__init__(size, text_dim, mask_padding=True, average_upsampling=True, conv_layers=conv_layers)
        self.durations = durations
        if durations:
            characters = "".join(sorted(vocabulary, key=vocabulary.__getitem__))
            timing = DurationPredictor(config.DurationPredictor(vocabulary=characters))
            self.timing = timing.requires_grad_(False).eval()
            self.place = nn.Linear(2, text_dim)
        self.given: Tensor | None = None  # an alignment (b, n), in place of its own
        self.said: Tensor | None = None  # a text (b, nt), in place of the one that it is called with

    def train(self, mode: bool = True) -> AlignedTextEmbedding:
        """As usual, but `timing` has its own training and then stays as it is."""
        super().train(mode)
        if self.durations:
            self.timing.eval()
        return self

    @torch.no_grad()
    def seconds(self, text: Tensor) -> Tensor:
        """Foretold seconds of each character in average speech: text (b, nt), filler -1 -> (b, nt), 0 for filler."""
        with torch.autocast(text.device.type, enabled=False):
            return self.timing(text + 1)

    def align(self, text: Tensor, lengths: Tensor, n: int) -> Tensor:
        """The alignment (b, n) of a text (b, nt), filler -1, over rows of `lengths` tokens."""
        if not self.durations:
            return alignment.average((text != FILLER).sum(1), lengths, n)
        return alignment.weighted(self.seconds(text), torch.zeros_like(lengths), lengths, n)

    def forward(self, text: Tensor, seq_len: int | Tensor, drop_text: bool = False) -> Tensor:
        """text: (b, nt) vocabulary indices, filler -1. Returns (b, n, d), n the longest of `seq_len`."""
        if not torch.is_tensor(seq_len):
            seq_len = torch.full((text.shape[0],), int(seq_len), device=text.device)
        text = text if self.said is None else self.said
        if self.given is None:
            index = self.align(text, seq_len, int(seq_len.max()))
        else:
            index = self.given

        silent = (text == FILLER).unsqueeze(-1)
        tokens = torch.zeros_like(text) if drop_text else text + 1
        x = self.text_embed(tokens)
        if self.extra_modeling:  # without convolutions the official encoder adds no positions either
            x = (x + self.freqs_cis[: text.shape[1]]).masked_fill(silent, 0.0)
            for block in self.text_blocks:
                x = _masked(block, x, silent)

        x = x.gather(
            1, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        )  # (b, nt, d) -> (b, n, d)
        if self.durations and not drop_text:
            x = x + self.place(alignment.within(index).to(x.dtype))
        return x.masked_fill((index < 0).unsqueeze(-1), 0.0)


def _masked(block: nn.Module, x: Tensor, silent: Tensor) -> Tensor:
    """An official ConvNeXtV2 block that padding does not reach.

    The block normalises over the whole row, padding included, so a row would depend on the longest text of its batch;
    here the padding (b, nt, 1) is zero where that norm is taken.
    """
    y = block.dwconv(x.transpose(1, 2)).transpose(1, 2)  # (b, nt, d) -> (b, d, nt) and back
    y = block.act(block.pwconv1(block.norm(y))).masked_fill(silent, 0.0)
    return (x + block.pwconv2(block.grn(y))).masked_fill(silent, 0.0)


class CompanionCFM(CFM):
    """The official CFM over tokens of `stack` mel frames. Its interface speaks of frames."""

    def __init__(self, transformer: nn.Module, *, stack: int, vocab_char_map: dict[str, int]):
        mel_kwargs = dict(
            n_fft=N_FFT,
            hop_length=HOP_LENGTH,
            win_length=WIN_LENGTH,
            n_mel_channels=N_MELS,
            target_sample_rate=SAMPLE_RATE,
            mel_spec_type="vocos",
        )
        super().__init__(transformer, mel_spec_kwargs=mel_kwargs, vocab_char_map=vocab_char_map)
        self.stack = stack
        self.num_channels = N_MELS * stack

    def stacked(self, mel: Tensor) -> Tensor:
        """(b, m, 100) -> (b, ceil(m / stack), 100 stack); the last frame is repeated to fill up."""
        b, m, _ = mel.shape
        mel = F.pad(mel.transpose(1, 2), (0, -m % self.stack), mode="replicate").transpose(1, 2)
        return mel.reshape(b, -1, self.num_channels)

    def unstacked(self, tokens: Tensor) -> Tensor:
        """(b, n, 100 stack) -> (b, n stack, 100)."""
        return tokens.reshape(tokens.shape[0], -1, N_MELS)

    def tokens(self, frames: int | Tensor) -> int | Tensor:
        """How many tokens hold so many frames."""
        return -(-frames // self.stack)

    def check_length(self, letters: int, tokens: int, name: str) -> None:
        """Refuse a row that goes beyond the 8,192 positions that a text encoder with convolution layers counts.

        letters: of the reference's text and the new one; tokens: of both sounds; name: of the text, for the message.
        The official encoder fills the text up to the tokens and counts those (87 s); an aligned one counts letters, and
        takes no longer sound either, which attention would pay for by its square. Without convolution layers no encoder
        counts: padded text then has no limit, and aligned text that of its sound alone.
        Raises TextError.
        """
        embedding = self.transformer.text_embed
        most = getattr(embedding, "precompute_max_pos", math.inf)
        have, take = "", ""
        if isinstance(embedding, AlignedTextEmbedding):
            if letters > most:
                have, take = f"{letters:,} letters", f"{most:,}"
            most = LONGEST_FRAMES // self.stack
        if not have and tokens > most:
            have, take = (f"{n * self.stack * HOP_LENGTH / SAMPLE_RATE:.1f} s" for n in (tokens, most))
        if have:
            raise TextError(
                f"{name}: {have} together with the reference, and the backbone takes at most {take}; split the text, "
                "or take a reference that says more in its time"
            )

    def room(self, letters: int, frames: int) -> int:
        """So many mel frames in all, or as many more as a text of so many letters takes, the reference's included.

        Padded text is cut where the tokens end, and average upsampling leaves out its beginning: each letter needs a
        token and the sound one more, as in the official `CFM.sample`. Stretched by durations, a text fits into any
        number.
        """
        if letters < self.tokens(frames) or self._stretches():
            return frames
        return (letters + 1) * self.stack

    def whole_tokens(self, frames: int | Tensor) -> int | Tensor:
        """How many tokens so many frames fill: as many of a reference are given, since half a token cannot be made."""
        return frames // self.stack

    @torch.no_grad()
    def sample(self, cond: Tensor, text, duration: int | Tensor, *, lens: Tensor | None = None, **options):
        """The official `CFM.sample`: cond (b, samples) or (b, m, 100), durations in mel frames.

        As there, a row lasts at least a frame for each letter and one more, whatever its duration says. Where several
        frames make a token and the text is not stretched by durations, it lasts so many tokens: each letter needs one.
        Raises TextError on a row that is too long (`check_length`).
        """
        if cond.ndim == 2:
            cond = self.mel_spec(cond).transpose(1, 2)
        if isinstance(text, list):
            text = list_str_to_idx(text, self.vocab_char_map).to(cond.device)
        letters = (text != FILLER).sum(1)
        asked = torch.as_tensor(duration, device=cond.device).expand(len(cond))
        asked = torch.maximum(asked, letters + 1)
        if not self._stretches():
            asked = torch.where(letters < self.tokens(asked), asked, (letters + 1) * self.stack)
        for row, count, frames in zip(text, letters.tolist(), asked.tolist(), strict=True):
            self.check_length(count, self.tokens(frames), repr(self._read(row[:40])))
        if self.stack == 1:
            return super().sample(cond, text, asked, lens=lens, **options)
        b, m, _ = cond.shape
        lens = torch.full((b,), m, device=cond.device) if lens is None else lens
        with self._said(text):
            out, trajectory = super().sample(
                self.stacked(cond),
                text[:, :1] if self._stretches() else text,  # which would be counted against the tokens
                self.tokens(asked),
                lens=self.whole_tokens(lens),
                **options,
            )
        longest = int(torch.maximum(asked, lens + 1).max())
        out = self.unstacked(out)[:, :longest]
        known = (lens_to_mask(lens, length=m)).unsqueeze(-1)
        out[:, :m] = torch.where(known[:, : out.shape[1]], cond[:, : out.shape[1]].to(out.dtype), out[:, :m])
        return out, torch.stack([self.unstacked(step)[:, :longest] for step in trajectory])

    def _stretches(self) -> bool:
        """Whether a text fits into any number of tokens."""
        return getattr(self.transformer.text_embed, "durations", False)

    def _read(self, row: Tensor) -> str:
        """The characters of a text (nt,)."""
        characters = {index: character for character, index in self.vocab_char_map.items()}
        return "".join(characters[i] for i in row.tolist() if i != FILLER)

    @contextmanager
    def _said(self, text: Tensor) -> Iterator[None]:
        """Let an encoder that stretches texts read this one (b, nt), whatever it is called with."""
        if not self._stretches():
            yield
            return
        embedding = self.transformer.text_embed
        embedding.said = text
        try:
            yield
        finally:
            embedding.said = None


@dataclass(frozen=True)
class Item:
    """One row to sample: reference mel (m, 100) with its text, the text to say, and all frames, reference included."""

    mel: Tensor
    reference_text: str
    text: str
    frames: int
    seed: int = 0
    cfg_strength: float = 2.5
    pinned: bool = (
        True  # the reference text keeps to the reference frames; needs the "durations" conditioning
    )
    ceag_lambda: float = 0.0  # strength of entropy guidance, where the sampler is given one


class Backbone(nn.Module):
    """A frozen flow-matching model and the ways to sample it."""

    def __init__(self, settings: config.Backbone, vocabulary: dict[str, int]):
        super().__init__()
        self.settings, self.vocabulary = settings, vocabulary
        conditioning = settings.text_conditioning
        if conditioning not in ("padded", "average", "durations"):
            raise config.ConfigError(f"no text conditioning {conditioning!r}: padded, average or durations")
        block = dict(
            dim=settings.dim,
            heads=settings.heads,
            dim_head=settings.dim_head,
            dropout=0.0,
            ff_mult=settings.ff_mult,
            pe_attn_head=settings.pe_attn_head,
            attn_mask_enabled=settings.attn_mask_enabled,
        )
        with warnings.catch_warnings():  # about the memory that a mask takes on a GPU, in every run
            warnings.filterwarnings("ignore", message="attn_mask_enabled")
            transformer = (SkipDiT if settings.input_skip else DiT)(
                depth=0 if settings.local_kernel else settings.depth,
                mel_dim=settings.mel_dim,
                text_num_embeds=len(vocabulary),
                text_dim=settings.text_dim,
                text_mask_padding=True,
                conv_layers=settings.conv_layers,
                **block,
            )
            if settings.local_kernel:
                transformer.depth = settings.depth
                transformer.transformer_blocks = nn.ModuleList(
                    LocalBlock(kernel=settings.local_kernel, **block) for _ in range(settings.depth)
                )
                transformer.initialize_weights()
        if conditioning == "padded":
            transformer.text_embed = PaddedTextEmbedding(
                len(vocabulary), settings.text_dim, mask_padding=True, conv_layers=settings.conv_layers
            )
        else:
            transformer.text_embed = AlignedTextEmbedding(
                vocabulary,
                settings.text_dim,
                conv_layers=settings.conv_layers,
                durations=conditioning == "durations",
            )
        self.cfm = CompanionCFM(transformer, stack=settings.stack, vocab_char_map=vocabulary)
        self.precision = torch.float32

    @property
    def transformer(self) -> DiT:
        """The official DiT."""
        return self.cfm.transformer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Characters to vocabulary indices: (b, nt), filler -1. Unknown characters become index 0, the space."""
        return list_str_to_idx(list(texts), self.vocabulary).to(self.device)

    @contextmanager
    def aligned(self, index: Tensor | None) -> Iterator[None]:
        """Use this alignment (b, n) for the calls inside; None leaves it to the text encoder."""
        embedding = self.transformer.text_embed
        if index is None or not isinstance(embedding, AlignedTextEmbedding):
            yield
            return
        embedding.given = index
        try:
            yield
        finally:
            embedding.given = None

    def weights_of(self, text: str) -> Tensor:
        """Expected seconds of each character: (nt,)."""
        return self.transformer.text_embed.seconds(self.encode([text]))[0]

    def seconds_of(self, text: str) -> float:
        """Expected seconds of a text in average speech; needs the "durations" conditioning."""
        return float(self.weights_of(text).sum())

    def alignment_of(self, items: Sequence[Item]) -> Tensor | None:
        """The alignment (b, n) of rows: reference text over reference tokens, a short mark, then the new text.

        Rows that are not pinned spread all their text over all their tokens, as the official function must.
        """
        if self.settings.text_conditioning != "durations":
            return None
        per_second = SAMPLE_RATE / HOP_LENGTH / self.settings.stack
        n = max(self.cfm.tokens(item.frames) for item in items)
        rows = []
        texts = [item.reference_text + item.text for item in items]
        seconds = self.transformer.text_embed.seconds(self.encode(texts)).cpu()
        for item, text, weights in zip(items, texts, seconds, strict=True):
            total, known = self.cfm.tokens(item.frames), self.cfm.tokens(item.mel.shape[0])
            weights = weights[None, : len(text)]
            if not item.pinned:
                rows.append(alignment.weighted(weights, torch.tensor([0]), torch.tensor([total]), n)[0])
                continue
            spoken = len(item.reference_text.rstrip(MARKS_BEHIND))
            boundary = len(item.reference_text)
            pause = min(round(BOUNDARY_SECONDS * per_second), (total - known) // 4)
            row = torch.full((n,), -1, dtype=torch.long)
            for first, last, start, stop in (
                (0, spoken, 0, known),
                (spoken, boundary, known, known + pause),
                (boundary, weights.shape[1], known + pause, total),
            ):
                if last > first and stop > start:
                    part = alignment.weighted(
                        weights[:, first:last], torch.tensor([start]), torch.tensor([stop]), n
                    )[0]
                    row = torch.where(part >= 0, part + first, row)
            rows.append(row)
        return torch.stack(rows).to(self.device)

    @torch.inference_mode(False)  # entropy guidance differentiates, whatever the caller's mode
    @torch.no_grad()
    def sample(
        self,
        items: Sequence[Item],
        *,
        steps: int = 32,
        sway_coef: float | None = -1.0,
        integrator: retired.Integrator = retired.EULER,
        guidance: ceag.Guidance | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Tensor]:
        """Sample rows together. Returns one mel (frames, 100) per item; its first frames are the reference.

        steps: Euler steps (NFE); 5, 6, 7, 10, 12 and 16 take the official pruned time grid. sway_coef: sway
        sampling, None for an even grid. integrator: changes of the step, by default none. guidance: entropy guidance,
        each row by its `ceag_lambda`, by default none. progress(done, steps) is called after each step.
        Raises ValueError on an item whose frames do not exceed its reference, TextError on one that is too long
        (`CompanionCFM.check_length`).
        """
        if not items:
            return []
        for item in items:
            if item.frames <= item.mel.shape[0]:
                raise ValueError(
                    f"{item.frames} frames for {item.text!r} leave nothing to say after the reference"
                )
            letters = len(item.reference_text + item.text)
            self.cfm.check_length(letters, self.cfm.tokens(item.frames), repr(item.text[:40]))
        device, cfm = self.device, self.cfm
        lengths = torch.tensor([cfm.tokens(item.frames) for item in items], device=device)
        known = torch.tensor([cfm.whole_tokens(item.mel.shape[0]) for item in items], device=device)
        n = int(lengths.max())
        text = self.encode([item.reference_text + item.text for item in items])
        cond = torch.zeros(len(items), n, cfm.num_channels, device=device)
        for row, item in enumerate(items):
            cond[row, : known[row]] = cfm.stacked(item.mel[None].float().to(device))[0, : known[row]]
        generators = [torch.Generator().manual_seed(item.seed) for item in items]
        mask = lens_to_mask(lengths) if len(items) > 1 else None
        strength = torch.tensor([item.cfg_strength for item in items], device=device)[:, None, None]

        x, direction = self._noise(cond, lengths, generators), None
        times = self.times(steps, sway_coef)
        precision = (
            torch.autocast(device.type, dtype=self.precision)
            if self.precision != torch.float32
            else nullcontext()
        )
        guide = None if guidance is None else ceag.Guide(self, guidance, items, cond, text, mask)
        self.eval()
        try:
            with self.aligned(self.alignment_of(items)), attention.row_by_row(self.transformer), precision:
                for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
                    velocity = self.velocity(x, cond, text, t, mask, integrator.guidance(strength, t))
                    if guide:
                        velocity = velocity - guide(x, t)
                    direction = integrator.direction(velocity, direction)
                    x = x + (s - t) * direction
                    if integrator.noise:
                        x = x + integrator.spread(t, s) * self._noise(cond, lengths, generators)
                    if progress:
                        progress(k + 1, len(times) - 1)
        finally:
            self.transformer.clear_cache()
        mels = cfm.unstacked(x.float())
        return [
            torch.cat([item.mel.float().to(device), mels[row, item.mel.shape[0] : item.frames]]).cpu()
            for row, item in enumerate(items)
        ]

    @staticmethod
    def _noise(like: Tensor, lengths: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Normal noise (b, n, d), each row of its own generator and zero behind its length."""
        noise = torch.zeros_like(like)
        for row, (length, generator) in enumerate(zip(lengths.tolist(), generators, strict=True)):
            noise[row, :length] = torch.randn(length, like.shape[-1], generator=generator).to(like.device)
        return noise

    def times(self, steps: int, sway_coef: float | None) -> Tensor:
        """Times 0..1 of the official sampler: (steps + 1,), pruned for the few NFE it knows, then swayed."""
        t = get_epss_timesteps(steps, device=self.device, dtype=torch.float32)
        return t if sway_coef is None else t + sway_coef * (torch.cos(math.pi / 2 * t) - 1 + t)

    def velocity(
        self, x: Tensor, cond: Tensor, text: Tensor, t: Tensor, mask: Tensor | None, strength: Tensor
    ) -> Tensor:
        """The guided velocity at time t, conditional and unconditional rows in one pass: (b, n, d)."""
        both = self.transformer(
            x=x, cond=cond, text=text, time=t, mask=mask, cfg_infer=True, cache=True
        ).float()
        conditional, unconditional = both.chunk(2)
        return conditional + (conditional - unconditional) * strength


def build(settings: config.Backbone, vocabulary: dict[str, int] | None = None) -> Backbone:
    """An untrained backbone. Without a vocabulary (paper: the checkpoint's vocab.txt) the configured characters."""
    if vocabulary is None:
        if not settings.vocabulary:
            raise config.ConfigError("this backbone needs the vocabulary of its checkpoint")
        vocabulary = {character: i for i, character in enumerate(settings.vocabulary)}
    return Backbone(settings, vocabulary)
