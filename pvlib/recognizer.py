"""Speech recognition for the word error rate: a small CTC network trained here, and Whisper.

Axes: b batch, n mel frames (93.75 Hz), m steps of the blocks (n / 4), v symbols, c channels.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor, nn

from pvlib import audio
from pvlib.audio import N_MELS, SAMPLE_RATE, AudioError
from pvlib.config import Recognizer
from pvlib.convolution import depthwise

BLANK = 0  # CTC's empty symbol; letter k of the alphabet is symbol k + 1
REREAD_EVERY = 2  # blocks between two guesses
OUTPUTS_PER_STEP = 2  # CTC frames that one step emits, so that fast speech keeps its letters
MAX_BATCH_FRAMES = 24_000  # padded mel frames of one forward pass when transcribing
WHISPER_RATE = 16_000
WHISPER_SECONDS = 30  # longer sound needs Whisper's long-form decoding
WHISPER_BATCH = 8


def normalise(text: str, alphabet: str) -> str:
    """Text as the recogniser writes it: lower case, letters of the alphabet only, single spaces.

    Hyphens and line breaks become spaces; every other unknown character is dropped.
    """
    text = re.sub(r"[-\u2010-\u2015\s]+", " ", text.lower()).replace("\u2019", "'")
    return " ".join("".join(c for c in text if c in alphabet).split())


def build(config: Recognizer) -> CTCRecognizer:
    """An untrained recogniser."""
    return CTCRecognizer(config)


class CTCRecognizer(nn.Module):
    """Strided convolutions over normalised log-mels, residual convolution blocks, and a linear layer to letters.

    Every second block guesses the letters and the next one reads the guess, which CTC's frames, each blind to the
    others' letters, need to spell (self-conditioned CTC; Nozaki & Komatsu, 2021).
    Lengths are honoured everywhere: a row of a batch is transcribed as it would be alone.
    """

    def __init__(self, config: Recognizer):
        super().__init__()
        self.config = config
        self.symbols = len(config.alphabet) + 1
        c = config.channels
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(N_MELS, c, 5, stride=2, padding=2), nn.Conv1d(c, c, 5, stride=2, padding=2)]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(c) for _ in self.convolutions)
        self.blocks = nn.ModuleList(Block(c, config.hidden) for _ in range(config.layers))
        self.norm = nn.LayerNorm(c)
        self.head = nn.Linear(c, OUTPUTS_PER_STEP * self.symbols)
        self.reread = nn.Linear(OUTPUTS_PER_STEP * self.symbols, c)
        nn.init.zeros_(self.reread.weight)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the symbols.

        mel: (b, n, 100) log-mel as `audio.mel` gives it, padded with anything; lengths: (b,) frames.
        Returns (log_probs (b, 2 m, v) float32, lengths (b,)), about 47 frames per second.
        """
        *_, last = self.guesses(mel, lengths)
        return last

    def guesses(self, mel: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What `forward` returns, of the last block and before it of each that passes on its guess."""
        found: list[Tensor] = []
        x, steps = self.hidden(mel, lengths, guesses=found)
        found.append(self._symbols(x))
        return [(log_probs, steps * OUTPUTS_PER_STEP) for log_probs in found]

    def _symbols(self, x: Tensor) -> Tensor:
        """(b, m, c) -> (b, 2 m, v) log-probabilities."""
        x = self.head(self.norm(x)).float()
        return x.reshape(len(x), -1, self.symbols).log_softmax(-1)

    def hidden(
        self, mel: Tensor, lengths: Tensor, blocks: int | None = None, guesses: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the network makes of a mel (see `forward`) after so many blocks, all of them by default.

        Returns ((b, m, c), lengths (b,) in steps of four mel frames); guesses gains the symbols passed on.
        """
        x = standardise(mel, lengths)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x.transpose(1, 2)).transpose(1, 2)  # (b, n, c) -> (b, c, n) and back
            lengths = (lengths + 1) // 2
            mask = _mask(lengths, x.shape[1])[:, :, None]
            x = nn.functional.gelu(norm(x)) * mask
        for number, block in enumerate(self.blocks[:blocks], start=1):
            x = block(x, mask)
            if number % REREAD_EVERY == 0 and number < len(self.blocks):
                guess = self._symbols(x)
                if guesses is not None:
                    guesses.append(guess)
                x = (
                    x + self.reread(guess.exp().reshape(*x.shape[:2], -1))
                ) * mask  # (b, 2 m, v) -> (b, m, c)
        return x, lengths

    def encode(self, text: str) -> list[int]:
        """Symbols of a text, after `normalise`."""
        return [self.config.alphabet.index(c) + 1 for c in normalise(text, self.config.alphabet)]

    def decode(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """Greedy CTC: the best symbol of each frame, repeats merged, blanks dropped."""
        texts = []
        for row, length in zip(log_probs.argmax(-1).cpu(), lengths.tolist(), strict=True):
            symbols = torch.unique_consecutive(row[:length]).tolist()
            text = "".join(self.config.alphabet[s - 1] for s in symbols if s != BLANK)
            texts.append(" ".join(text.split()))
        return texts

    @torch.no_grad()
    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """Lower-case words of each waveform (24 kHz, any lengths), in order; "" where none is heard.

        Raises AudioError, naming the position, on a waveform that is not finite or not one-dimensional.
        """
        if self.training:
            raise RuntimeError("the recogniser is in training mode; call .eval() before .transcribe()")
        device = next(self.parameters()).device
        mels = [audio.mel(_usable(wave, k).to(device))[0].T for k, wave in enumerate(waves)]
        texts = [""] * len(waves)
        batch: list[int] = []
        order = sorted(range(len(waves)), key=lambda i: len(mels[i]))
        for position, i in enumerate(order):
            batch.append(i)
            following = len(mels[order[position + 1]]) if position + 1 < len(order) else MAX_BATCH_FRAMES
            if (len(batch) + 1) * following > MAX_BATCH_FRAMES:
                padded = nn.utils.rnn.pad_sequence([mels[k] for k in batch], batch_first=True)
                lengths = torch.tensor([len(mels[k]) for k in batch], device=device)
                for k, text in zip(batch, self.decode(*self(padded, lengths)), strict=True):
                    texts[k] = text
                batch = []
        return texts


class Block(nn.Module):
    """A ConvNeXt block in time: depthwise convolution over 0.6 s, then two linear layers, added to the input.

    A gate per channel, from the mean over the whole row, adapts the block to voice and room (squeeze and
    excitation, as ContextNet uses it; Han et al., 2020).
    """

    def __init__(self, channels: int, hidden: int, kernel: int = 15):
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, hidden)
        self.narrow = nn.Linear(hidden, channels)
        self.squeeze = nn.Linear(channels, channels // 8)
        self.excite = nn.Linear(channels // 8, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)
        self.dropout = nn.Dropout(0.1)
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (b, m, c), mask (b, m, 1) true inside each row -> (b, m, c), zero in the padding."""
        y = self.norm(depthwise(self.depthwise, x))
        mean = (y * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        gate = 2 * torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(mean))))
        y = self.narrow(nn.functional.gelu(self.widen(y * gate)))
        return (x + self.scale * self.dropout(y)) * mask


class WhisperRecognizer:
    """Whisper through the transformers pipeline, English, greedy.

    Raises OSError (from the Hugging Face client) when the weights are neither cached nor reachable.
    """

    def __init__(self, repository: str, device: str | torch.device = "cpu"):
        import transformers

        device = torch.device(device)
        self.pipeline = transformers.pipeline(
            "automatic-speech-recognition",
            model=repository,
            device=device,
            dtype=torch.float16 if device.type == "cuda" else torch.float32,
        )

    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """Text of each waveform (24 kHz), in order, with Whisper's own case and punctuation.

        Sound of up to 30 s is read 8 at a time. Longer sound is read alone, window after window as far as the
        timestamps of the one before reach, since its features are as long as it is.
        Raises AudioError, naming the position, on a waveform that is not finite or not one-dimensional.
        """
        sounds = []
        for k, wave in enumerate(waves):
            wave = audio.resample(_usable(wave, k).numpy(), SAMPLE_RATE, WHISPER_RATE)
            sounds.append({"raw": wave, "sampling_rate": WHISPER_RATE})
        long = [k for k, sound in enumerate(sounds) if len(sound["raw"]) > WHISPER_SECONDS * WHISPER_RATE]
        short = [k for k in range(len(sounds)) if k not in long]
        texts = [""] * len(sounds)
        for batch, timestamps in [(short, False), *(([k], True) for k in long)]:
            if batch:
                results = self.pipeline(
                    [sounds[k] for k in batch],
                    batch_size=WHISPER_BATCH,
                    return_timestamps=timestamps,
                    generate_kwargs={"language": "english", "task": "transcribe", "num_beams": 1},
                )
                for k, result in zip(batch, results, strict=True):
                    texts[k] = result["text"].strip()
        return texts


def standardise(mel: Tensor, lengths: Tensor) -> Tensor:
    """Remove each band's mean over the row's frames, divide by one deviation per row; padding is zero."""
    mask = _mask(lengths, mel.shape[1])[:, :, None]
    frames = lengths[:, None, None].to(mel.dtype)
    mel = mel.masked_fill(~mask, 0.0)  # whatever lies in the padding, it must not touch the sums
    mel = (mel - mel.sum(1, keepdim=True) / frames) * mask
    deviation = (mel.square().sum((1, 2), keepdim=True) / (frames * mel.shape[2])).sqrt()
    return mel / deviation.clamp(min=1e-3)


def _mask(lengths: Tensor, size: int) -> Tensor:
    """(b, size), true inside each row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _usable(wave: np.ndarray, position: int) -> Tensor:
    """The waveform as a tensor, padded with silence where it is shorter than one analysis window."""
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise AudioError(f"waveform {position} has shape {wave.shape}; one channel of samples is needed")
    if not np.isfinite(wave).all():
        raise AudioError(f"waveform {position} holds samples that are not finite; nothing can be heard in it")
    return torch.from_numpy(np.pad(wave, (0, max(0, audio.WIN_LENGTH - len(wave)))))
