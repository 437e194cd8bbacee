"""WaveRNN: sound, sample by sample, from log-mels (Kalchbrenner et al., 2018).

Of torchaudio's class are the network that stretches the mels to the sampling rate, the two residual GRUs and the
layers behind them. Ours are the 16 bits in two parts of 8 (the class has one softmax over all values): both parts
of the last sample go in, `fc3` gives the coarse part, and a small head gives the fine part once it is told which
coarse part was drawn. The paper's recurrent layer does the same with a mask inside one GRU.
Axes: b batch, n mel frames, s samples, c channels.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from pvlib.audio import HOP_LENGTH, N_MELS
from pvlib.config import WaveRNN as Config

PARTS = 256  # values of 8 bits
CONTEXT = 2  # frames on each side that the stretching network looks at (its kernel is 5 frames wide)
SILENCE = 1 << 15  # the 16-bit code of zero


def to_parts(wave: Tensor) -> Tensor:
    """Samples in -1..1 (any shape) -> (..., 2) coarse and fine parts, 0 to 255; beyond full scale is clipped."""
    code = (torch.round(wave.double() * SILENCE) + SILENCE).clamp(0, 2 * SILENCE - 1).long()
    return torch.stack([code >> 8, code & 255], -1)


def to_wave(parts: Tensor) -> Tensor:
    """(..., 2) coarse and fine parts -> float32 samples: (256 coarse + fine - 32768) / 32768."""
    return ((parts[..., 0] * PARTS + parts[..., 1]).float() - SILENCE) / SILENCE


def build(config: Config) -> WaveRNN:
    """An untrained WaveRNN."""
    return WaveRNN(config)


class WaveRNN(torchaudio.models.WaveRNN):
    """torchaudio's WaveRNN with a dual softmax."""

    def __init__(self, config: Config):
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
        self.fc = nn.Linear(2 + N_MELS + self.n_aux, config.n_rnn)  # both parts of the last sample
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

    def forward(self, mel: Tensor, parts: Tensor, heard: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the coarse and the fine part of every sample, each (b, s, 256), for training.

        mel: as `conditioning` takes it, scaled; parts: (b, 1 + s, 2), the sample before the first and all of them;
        heard: (b, s, 2), the sample before each as the network is told it, by default as it was.
        """
        known, (second, third, fourth) = self.conditioning(mel)
        heard = parts[:, :-1] if heard is None else heard
        x = self.fc(torch.cat([_level(heard), known], -1))
        x = x + self.rnn1(x)[0]
        x = x + self.rnn2(torch.cat([x, second], -1))[0]
        x = torch.relu(self.fc1(torch.cat([x, third], -1)))
        x = torch.relu(self.fc2(torch.cat([x, fourth], -1)))
        return self.fc3(x), self.fine(x, parts[:, 1:, 0])

    def fine(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Logits of the fine part, given the features (..., c) and the coarse part (...)."""
        return self.fine2(torch.relu(self.fine1(x) + self.drawn(coarse)))

    @torch.inference_mode()
    def generate(
        self, mel: Tensor, generator: torch.Generator, *, temperature: float = 1.0, hops_at_once: int = 0
    ) -> Tensor:
        """Sound for a batch of mels, drawn sample by sample from silence: parts (b, 256 hops, 2).

        mel: (b, 100, hops + 5), scaled. Draws are Gumbel-max with noise of the generator, the same whatever
        `hops_at_once` is: it bounds the memory of the conditioning, which otherwise grows with the length.
        """
        if self.training:
            raise RuntimeError("WaveRNN is in training mode; call .eval() before .generate()")
        b, hops = mel.shape[0], mel.shape[2] - 1 - 2 * CONTEXT
        size = hops_at_once or hops
        out = torch.empty(b, hops * HOP_LENGTH, 2, dtype=torch.long, device=mel.device)
        zeros = mel.new_zeros(b, self.n_rnn)
        state = (zeros, zeros, to_parts(mel.new_zeros(b)))
        for first in range(0, hops, size):
            last = min(first + size, hops)
            known, others = self.conditioning(mel[:, :, first : last + 1 + 2 * CONTEXT])
            for hop in range(last - first):
                span = slice(hop * HOP_LENGTH, (hop + 1) * HOP_LENGTH)
                noise = gumbel(HOP_LENGTH, 2, b, PARTS, generator=generator).mul_(temperature)
                start = (first + hop) * HOP_LENGTH
                state = self._hop(
                    out[:, start : start + HOP_LENGTH],
                    [
                        x[:, span].transpose(0, 1).contiguous() for x in (known, *others)
                    ],  # (b, s, c) -> (s, b, c)
                    noise,
                    state,
                )
        return out

    def _hop(
        self, out: Tensor, conditions: list[Tensor], noise: Tensor, state: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One hop of samples, the loop that costs all the time. Writes parts into `out` and returns the state."""
        memory1, memory2, parts = state
        linear, relu = nn.functional.linear, torch.relu
        heard = self.fc.weight[:, :2].contiguous()
        known = linear(conditions[0], self.fc.weight[:, 2:], self.fc.bias)  # for the whole hop at once
        gru1, gru2 = (
            (gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0)
            for gru in (self.rnn1, self.rnn2)
        )
        for t, (second, third, fourth) in enumerate(zip(*conditions[1:], strict=True)):
            x = known[t] + linear(_level(parts), heard)
            memory1 = torch.gru_cell(x, memory1, *gru1)
            x = x + memory1
            memory2 = torch.gru_cell(torch.cat([x, second], 1), memory2, *gru2)
            x = x + memory2
            x = relu(self.fc1(torch.cat([x, third], 1)))
            x = relu(self.fc2(torch.cat([x, fourth], 1)))
            coarse = (self.fc3(x) + noise[t, 0]).argmax(1)
            parts = torch.stack([coarse, (self.fine(x, coarse) + noise[t, 1]).argmax(1)], 1)
            out[:, t] = parts
        return memory1, memory2, parts


def gumbel(*shape: int, generator: torch.Generator) -> Tensor:
    """Gumbel noise: the argmax of logits plus it is a draw from their softmax. On the generator's device."""
    uniform = torch.empty(shape, device=generator.device).uniform_(generator=generator)
    return uniform.clamp_(min=1e-30).log_().neg_().log_().neg_()


def _level(parts: Tensor) -> Tensor:
    """Parts as numbers in -1..1."""
    return parts.float() / ((PARTS - 1) / 2) - 1


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
