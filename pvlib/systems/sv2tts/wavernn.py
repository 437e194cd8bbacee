"""WaveRNN: sound, sample by sample, from log-mels (Kalchbrenner et al., 2018).

Of torchaudio's class are the network that stretches the mels to the sampling rate, the two residual GRUs and the
layers behind them. Ours are the 16 bits in two parts of 8 (the class has one softmax over all values): `fc3` gives
the coarse part, and a small head gives the fine part once it is told which coarse part was drawn. The paper's
recurrent layer does the same with a mask inside one GRU.
What is drawn is not the sample but what is new in it, beyond what linear prediction foretells (`prediction`), and its
16 bits are companded, so that the coarse part alone is speech with little noise. Both are LPCNet's (Valin & Skoglund,
2019), and make a network of this size learn to speak in an hour.
Axes: b batch, n mel frames, s samples, c channels.
"""

from __future__ import annotations

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn

from pvlib.audio import HOP_LENGTH, N_MELS
from pvlib.config import WaveRNN as Config
from pvlib.systems.sv2tts import prediction
from pvlib.systems.sv2tts.prediction import STRETCH
from pvlib.systems.sv2tts.synthesizer import unscaled

PARTS = 256  # values of 8 bits
CONTEXT = 2  # frames on each side that the stretching network looks at (its kernel is 5 frames wide)
SILENCE = 1 << 15  # the 16-bit code of zero
MU = 255  # of the companding (ITU-T G.711)


def to_parts(wave: Tensor) -> Tensor:
    """Values in -1..1 (any shape) -> (..., 2) coarse and fine parts, 0 to 255; beyond full scale is clipped.

    The 16-bit code is of the companded value.
    """
    code = (torch.round(companded(wave.double()) * SILENCE) + SILENCE).clamp(0, 2 * SILENCE - 1).long()
    return torch.stack([code >> 8, code & 255], -1)


def to_wave(parts: Tensor) -> Tensor:
    """(..., 2) coarse and fine parts -> float32 values, the inverse of `to_parts`."""
    level = levels(parts)
    return torch.sign(level) * torch.expm1(level.abs() * np.log1p(MU)) / MU


def companded(wave: Tensor) -> Tensor:
    """sign(x) ln(1 + 255 |x|) / ln 256, which spaces values as the ear needs them: finely where it is quiet."""
    return torch.sign(wave) * torch.log1p(MU * wave.abs()) / np.log1p(MU)


def levels(parts: Tensor) -> Tensor:
    """(..., 2) coarse and fine parts -> companded values in -1..1: (256 coarse + fine - 32768) / 32768."""
    return ((parts[..., 0] * PARTS + parts[..., 1]).float() - SILENCE) / SILENCE


def build(config: Config) -> WaveRNN:
    """An untrained WaveRNN."""
    return WaveRNN(config)


class WaveRNN(torchaudio.models.WaveRNN):
    """torchaudio's WaveRNN with a dual softmax, over what linear prediction leaves of each sample."""

    def __init__(self, config: Config):
        if not (0 < config.order < STRETCH and 0 < config.heard < STRETCH):
            raise ValueError(
                f"an order of {config.order}, {config.heard} heard: give 1 to {STRETCH - 1} each"
            )
        super().__init__(
            upsample_scales=list(config.upsample_scales),
            n_classes=PARTS,
            hop_length=HOP_LENGTH,
            n_res_block=config.res_blocks,
            n_rnn=config.n_rnn,
            n_fc=config.n_fc,
            kernel_size=2 * CONTEXT + 1,
            n_freq=N_MELS,
            n_hidden=config.res_hidden,
            n_output=config.res_hidden,
        )
        self.config = config
        self.told = config.heard + 2  # what was drawn last, what is foretold, the last sample
        self.before = STRETCH + config.order  # samples before the first that `news` needs
        self.fc = nn.Linear(self.told + N_MELS + self.n_aux, config.n_rnn)
        self.drawn = nn.Embedding(PARTS, config.n_fc)  # the coarse part just drawn
        self.fine1 = nn.Linear(config.n_fc, config.n_fc)
        self.fine2 = nn.Linear(config.n_fc, PARTS)

    def conditioning(self, mel: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What each sample knows of the mel.

        mel: (b, 100, hops + 5) scaled: the hops + 1 frames around the samples, and two more on each side. Frame k is
        centred on sample 256 k, so half a hop is cut from both ends.
        Returns the stretched mel with the first auxiliary channels (b, s, c), and the other three (b, s, c).
        """
        stretched, auxiliary = self.upsample(mel)
        half = HOP_LENGTH // 2
        stretched, auxiliary = (x[..., half:-half].transpose(1, 2) for x in (stretched, auxiliary))
        first, *others = auxiliary.split(self.n_aux, -1)[:4]
        return torch.cat([stretched, first], -1), others

    def filters(self, mel: Tensor, first: int, count: int) -> Tensor:
        """Prediction filters (b, count, order) of the stretches from number `first` on, 0 where the samples begin.

        mel: as `conditioning` takes it.
        """
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            first += CONTEXT * HOP_LENGTH // STRETCH
            between = prediction.at_stretches(unscaled(mel.float()), first, count)
            return prediction.filters(between, self.config.order)

    def news(self, mel: Tensor, wave: Tensor) -> tuple[Tensor, Tensor]:
        """What linear prediction leaves of each sample, and what it foretells: each (b, 64 + s).

        mel: as `conditioning` takes it; wave: (b, before + s), raised. The first 64 are of samples before the first.
        """
        weights = self.filters(mel, -1, wave.shape[1] // STRETCH)
        foretold = prediction.predicted(wave, weights)
        return wave[:, self.config.order :] - foretold, foretold

    def told_of(self, news: Tensor, foretold: Tensor, wave: Tensor) -> Tensor:
        """What the network is told of the past before each sample: (b, s, told), companded.

        news, foretold: (b, 64 + s) of `news`; wave: (b, before + s), raised.
        """
        last = news[:, STRETCH - self.config.heard : -1].unfold(1, self.config.heard, 1)
        samples = torch.stack([foretold[:, STRETCH:], wave[:, self.before - 1 : -1]], -1)
        return companded(torch.cat([last, samples], -1))

    def forward(self, mel: Tensor, told: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the coarse and the fine part of every sample, each (b, s, 256), for training.

        mel: as `conditioning` takes it; told: (b, s, told) of `told_of`; coarse: (b, s), the part drawn of each sample.
        """
        known, (second, third, fourth) = self.conditioning(mel)
        x = self.fc(torch.cat([told, known], -1))
        x = x + self.rnn1(x)[0]
        x = x + self.rnn2(torch.cat([x, second], -1))[0]
        x = torch.relu(self.fc1(torch.cat([x, third], -1)))
        x = torch.relu(self.fc2(torch.cat([x, fourth], -1)))
        return self.fc3(x), self.fine(x, coarse)

    def fine(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Logits of the fine part, given the features (..., c) and the coarse part (...)."""
        return self.fine2(torch.relu(self.fine1(x) + self.drawn(coarse)))

    @torch.inference_mode()
    def generate(
        self, mel: Tensor, generator: torch.Generator, *, temperature: float = 1.0, hops_at_once: int = 0
    ) -> Tensor:
        """Sound for a batch of mels, drawn sample by sample from silence: (b, 256 hops), its high tones raised.

        mel: (b, 100, hops + 5), scaled. Draws are Gumbel-max with noise of the generator, the same whatever
        `hops_at_once` is: it bounds the memory of the conditioning, which otherwise grows with the length. Where the
        convolutions round differently in a smaller window, a draw can turn out otherwise, and what follows it.
        """
        if self.training:
            raise RuntimeError("WaveRNN is in training mode; call .eval() before .generate()")
        b, hops = mel.shape[0], mel.shape[2] - 1 - 2 * CONTEXT
        size = hops_at_once or hops
        out = mel.new_empty(b, hops * HOP_LENGTH)
        state = self.start(mel)
        for first in range(0, hops, size):
            last = min(first + size, hops)
            window = mel[:, :, first : last + 1 + 2 * CONTEXT]
            known, others = self.conditioning(window)
            weights = self.filters(window, 0, (last - first) * HOP_LENGTH // STRETCH)
            for start in range(0, (last - first) * HOP_LENGTH, STRETCH):
                span = slice(start, start + STRETCH)
                noise = gumbel(STRETCH, 2, b, PARTS, generator=generator).mul_(temperature)
                # each step's channels side by side in memory: (b, s, c) -> (s, b, c)
                conditions = [x[:, span].transpose(0, 1).contiguous() for x in (known, *others)]
                place = first * HOP_LENGTH + start
                to = out[:, place : place + STRETCH]
                state = self._stretch(to, conditions, weights[:, start // STRETCH], noise, state)
        return out

    def start(self, mel: Tensor) -> tuple[Tensor, ...]:
        """The state before the first sample of a batch: no memory, nothing said."""
        b, config = len(mel), self.config
        sizes = (config.n_rnn, config.n_rnn, config.order, config.heard)
        return tuple(mel.new_zeros(b, size) for size in sizes)

    def _stretch(
        self, out: Tensor, conditions: list[Tensor], weights: Tensor, noise: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Samples that share a filter (b, order), the loop that costs all the time; fills `out`, returns the state.

        state: memories of the GRUs, the last samples (b, order), the last news companded (b, heard).
        """
        memory1, memory2, samples, news = state
        linear, relu = nn.functional.linear, torch.relu
        hear = self.fc.weight[:, : self.told].contiguous()
        known = linear(conditions[0], self.fc.weight[:, self.told :], self.fc.bias)  # all steps at once
        weights = weights.flip(1)  # oldest first
        gru1, gru2 = (
            (gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0)
            for gru in (self.rnn1, self.rnn2)
        )
        for t, (second, third, fourth) in enumerate(zip(*conditions[1:], strict=True)):
            foretold = (samples * weights).sum(1, keepdim=True)
            told = torch.cat([news, companded(torch.cat([foretold, samples[:, -1:]], 1))], 1)
            x = known[t] + linear(told, hear)
            memory1 = torch.gru_cell(x, memory1, *gru1)
            x = x + memory1
            memory2 = torch.gru_cell(torch.cat([x, second], 1), memory2, *gru2)
            x = x + memory2
            x = relu(self.fc1(torch.cat([x, third], 1)))
            x = relu(self.fc2(torch.cat([x, fourth], 1)))
            coarse = (self.fc3(x) + noise[t, 0]).argmax(1)
            parts = torch.stack([coarse, (self.fine(x, coarse) + noise[t, 1]).argmax(1)], 1)
            news = torch.cat([news[:, 1:], levels(parts)[:, None]], 1)
            out[:, t] = (foretold[:, 0] + to_wave(parts)).clamp(-1, 1)
            samples = torch.cat([samples[:, 1:], out[:, t : t + 1]], 1)
        return memory1, memory2, samples, news


def gumbel(*shape: int, generator: torch.Generator) -> Tensor:
    """Gumbel noise: the argmax of logits plus it is a draw from their softmax. On the generator's device."""
    uniform = torch.empty(shape, device=generator.device).uniform_(generator=generator)
    return uniform.clamp_(min=1e-30).log_().neg_().log_().neg_()


# Folding: one long sequence as many short ones, so that they can be spoken at the same time


def fold(x: Tensor, length: int, overlap: int, context: int = 0) -> Tensor:
    """A sequence (s + context, ...) as folds (k, length + 2 overlap + context, ...), `length + overlap` steps apart.

    So neighbours share `overlap` steps, and the `context` that each of them needs besides. The last fold is filled
    up with the last step. Raises ValueError where length or overlap is out of range.
    """
    if length < 1 or overlap < 0:
        raise ValueError(f"folds of {length} steps with an overlap of {overlap} cannot be made")
    k, stride = folds(len(x) - context, length, overlap), length + overlap
    lacking = k * stride + overlap + context - len(x)
    padded = torch.cat([x, x[-1:].expand(lacking, *x.shape[1:])])
    return padded.unfold(0, stride + overlap + context, stride).movedim(
        -1, 1
    )  # (k, ..., steps) -> (k, steps, ...)


def folds(steps: int, length: int, overlap: int) -> int:
    """How many folds a sequence of so many steps needs."""
    return max(1, -(-(steps - overlap) // (length + overlap)))


def unfold(parts: Tensor, overlap: int, steps: int, warm_up: int = 0) -> Tensor:
    """Folds (k, length + 2 overlap) joined to one sequence (steps,), the overlaps cross-faded.

    In an overlap the earlier fold alone is heard for `warm_up` steps, then a straight line leads over to the later
    one. Where both agree, the result is that value exactly, so that `unfold(fold(x))` is x.
    Raises ValueError when the warm-up is longer than the overlap.
    """
    if not 0 <= warm_up <= overlap:
        raise ValueError(f"a warm-up of {warm_up} steps does not fit in an overlap of {overlap}")
    fade = overlap - warm_up
    rise = torch.zeros(overlap, dtype=parts.dtype, device=parts.device)
    rise[warm_up:] = torch.arange(1, fade + 1, device=parts.device) / (fade + 1)
    whole, stride = parts[0], parts.shape[1] - overlap
    joined = [whole[:stride]]
    tail = whole[stride:]
    for part in parts[1:]:
        joined += [tail + (part[:overlap] - tail) * rise, part[overlap:stride]]
        tail = part[stride:]
    return torch.cat([*joined, tail])[:steps]
