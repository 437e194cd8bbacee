"""Stage 2, the synthesizer: Tacotron 2 that knows whose voice it is to speak in.

The network is torchaudio's. Ours is the voice: its embedding is tiled and concatenated to the encoder's output at
every character, as in SV2TTS, so that each attention step reads it again; a layer behind, where text and voice meet
(one vowel differs from voice to voice); several mel frames per decoder step; and a way through the decoder for the
training, `told`, which knows where to look and so needs no step-by-step attention.
Axes: b batch, n mel frames, nt characters, t decoder steps (of `frames_per_step` frames), d channels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, log
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchaudio.models import Tacotron2

from pvlib import laag
from pvlib.audio import HOP_LENGTH, MEL_FLOOR, N_MELS, SAMPLE_RATE
from pvlib.config import AttentionLimits
from pvlib.config import Synthesizer as Config
from pvlib.systems.sv2tts.attention import Failures, failures
from pvlib.text import TextWarning, normalise

SEEDS_PER_TEXT = 1000  # piece k of a text draws its dropout from seed * 1000 + k
KERNEL = 5  # of the text encoder's convolutions
TEXT_DROPOUT = 0.1  # between them; torchaudio's 0.5 is for 512 channels
VOICE_GAIN = 16.0  # an embedding has length 1: so loud its 256 channels are about as large as the text's
PAD = 0  # token of padding; character k of the vocabulary is token k + 1
SENTENCE_ENDS = (".", "?", "!")
MEL_MEAN, MEL_SPREAD = -2.0, 2.0  # about those of log-mels of speech
SILENCE = (log(MEL_FLOOR) - MEL_MEAN) / MEL_SPREAD  # a scaled mel at its floor


@dataclass(frozen=True)
class Piece:
    """One piece of a text, spoken: mel (n, 100), alignment (t, nt), and what went wrong with it."""

    text: str
    mel: Tensor
    alignment: Tensor
    stopped: bool
    failures: Failures


class TextStage(Protocol):
    """Stage 2. Raises TextError on a text that it cannot read."""

    def speak(self, text: str, embedding: Tensor, seed: int = 0) -> list[Piece]:
        """embedding: (256,) of the voice."""
        ...


def scaled(mel: Tensor) -> Tensor:
    """Log-mels of `audio.mel` brought to about zero mean and unit variance."""
    return (mel - MEL_MEAN) / MEL_SPREAD


def unscaled(mel: Tensor) -> Tensor:
    """The inverse of `scaled`, no lower than the floor of `audio.mel`."""
    return (mel * MEL_SPREAD + MEL_MEAN).clamp(min=log(MEL_FLOOR))


def build(config: Config) -> Synthesizer:
    """An untrained synthesizer."""
    return Synthesizer(config)


class Synthesizer(Tacotron2):
    """torchaudio's Tacotron 2 whose decoder reads text and voice side by side."""

    def __init__(self, config: Config, limits: AttentionLimits | None = None):
        memory_dim = config.text_dim + config.speaker_dim
        super().__init__(
            n_mels=N_MELS,
            n_symbol=len(config.vocabulary) + 1,
            n_frames_per_step=config.frames_per_step,
            symbol_embedding_dim=config.text_dim,
            encoder_embedding_dim=memory_dim,
            encoder_n_convolution=config.encoder_layers,
            encoder_kernel_size=KERNEL,
            decoder_rnn_dim=config.decoder_dim,
            attention_rnn_dim=config.attention_rnn_dim,
            attention_hidden_dim=config.attention_dim,
            attention_location_n_filter=config.location_filters,
            attention_location_kernel_size=config.location_kernel,
            prenet_dim=config.prenet_dim,
            postnet_n_convolution=config.postnet_layers,
            postnet_embedding_dim=config.postnet_dim,
        )
        # the class makes encoder and decoder equally wide; only the decoder has the voice beside the text
        self.encoder = type(self.encoder)(config.text_dim, config.encoder_layers, KERNEL)
        self.meeting = nn.Sequential(
            nn.Linear(memory_dim, config.mix_dim), nn.GELU(), nn.Linear(config.mix_dim, memory_dim)
        )
        # torchaudio lets the postnet begin with noise as loud as speech: here it begins with silence
        nn.init.zeros_(self.postnet.convolutions[-1][1].weight)
        self.config, self.limits = config, limits or AttentionLimits()
        self.index = {character: k + 1 for k, character in enumerate(config.vocabulary)}

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Texts in the model's letters -> tokens (b, nt), padded, and lengths (b,)."""
        rows = [torch.tensor([self.index[c] for c in text]) for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD), lengths

    def beside(self, tokens: Tensor, lengths: Tensor, speakers: Tensor) -> Tensor:
        """Text and voice side by side: (b, nt) tokens and (b, 256) voices -> (b, nt, text + voice channels)."""
        # Convolutions reach past the end of a text: padding enough behind every row, whatever its company.
        tokens = nn.functional.pad(tokens, (0, self.config.encoder_layers * (KERNEL // 2)), value=PAD)
        x = self.embedding(tokens).transpose(1, 2)
        for convolution in self.encoder.convolutions:
            x = nn.functional.dropout(convolution(x).relu(), TEXT_DROPOUT, self.training)
        packed = nn.utils.rnn.pack_padded_sequence(
            x.transpose(1, 2).float(), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        with torch.autocast(x.device.type, enabled=False):  # packed rows are no faster in bf16
            encoded, _ = self.encoder.lstm(packed)
        encoded, _ = nn.utils.rnn.pad_packed_sequence(encoded, batch_first=True)
        return torch.cat([encoded, VOICE_GAIN * speakers[:, None].expand(-1, encoded.shape[1], -1)], -1)

    def memory(self, tokens: Tensor, lengths: Tensor, speakers: Tensor) -> Tensor:
        """What the attention reads: `beside`, and added to it what text and voice say together; the same shapes."""
        beside = self.beside(tokens, lengths, speakers)
        return beside + self.meeting(beside)

    def forward(
        self, tokens: Tensor, token_lengths: Tensor, mel: Tensor, speakers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Teacher-forced, for training.

        tokens: (b, nt) with lengths (b,); mel: (b, n, 100) scaled, n a multiple of `frames_per_step`; speakers:
        (b, 256). Returns mel before and after the postnet (b, n, 100), stop logits (b, t), alignments (b, t, nt).
        """
        if mel.shape[1] % self.n_frames_per_step:
            raise ValueError(f"{mel.shape[1]} frames are no multiple of {self.n_frames_per_step} per step")
        # A transposed view of (b, n, 100) is what lets torchaudio's decoder group frames into steps.
        before, stop, alignments = self.decoder(
            self.memory(tokens, token_lengths, speakers),
            mel.contiguous().transpose(1, 2),
            memory_lengths=token_lengths,
        )
        before = before.transpose(1, 2)  # (b, 100, n) -> (b, n, 100)
        return before, self.polished(before), stop, alignments

    def told(self, memory: Tensor, past: Tensor, attention: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder told both what it said and where it looks, so that all steps run at once.

        memory: (b, nt, channels) of `memory`; past: (b, n, 100) scaled mels, of which step t knows those before it;
        attention: (b, t, nt). Returns the mel before the postnet (b, n, 100), stop logits (b, t) and the states of
        the attention's LSTM (b, t, d), from which `looks` tells where it would have looked. The same numbers as
        `forward` gives with this attention, but for the draws of the dropout.
        """
        decoder = self.decoder
        context = attention.to(memory.dtype) @ memory
        known = decoder.prenet(_later(past.unflatten(1, (-1, self.n_frames_per_step)).flatten(2)))
        state = _run(decoder.attention_rnn, torch.cat([known, _later(context).to(known.dtype)], -1))
        state = nn.functional.dropout(state, decoder.attention_dropout, self.training)
        spoken = _run(decoder.decoder_rnn, torch.cat([state, context.to(state.dtype)], -1))
        spoken = nn.functional.dropout(spoken, decoder.decoder_dropout, self.training)
        spoken = torch.cat([spoken, context.to(spoken.dtype)], -1)
        mel = decoder.linear_projection(spoken).unflatten(2, (self.n_frames_per_step, -1)).flatten(1, 2)
        return mel, decoder.gate_layer(spoken).squeeze(2), state

    def looks(self, state: Tensor, memory: Tensor, token_lengths: Tensor, attention: Tensor) -> Tensor:
        """Where each step would look after the steps before it looked as `attention` says: log-weights (b, t, nt)."""
        layer = self.decoder.attention_layer
        before = torch.stack([_later(attention), _later(attention.cumsum(1))], 2)  # (b, t, 2, nt)
        places = layer.location_layer(before.flatten(0, 1)).unflatten(0, attention.shape[:2])
        energies = layer.v(
            torch.tanh(places + layer.query_layer(state)[:, :, None] + layer.memory_layer(memory)[:, None])
        )
        padding = torch.arange(memory.shape[1], device=memory.device) >= token_lengths[:, None]
        return energies.squeeze(3).float().masked_fill(padding[:, None], -torch.inf).log_softmax(-1)

    def polished(self, before: Tensor) -> Tensor:
        """Mel before the postnet -> mel behind it, both (b, n, 100)."""
        return before + self.postnet(before.transpose(1, 2)).transpose(1, 2)

    @torch.inference_mode()
    def infer(self, text: str, embedding: Tensor, seed: int) -> Piece:
        """One text in the model's letters, spoken freely, with the dropout that Tacotron's prenet never leaves off.

        Decoding ends by itself, or at a limit in proportion to the text, which counts as a runaway. The caller's
        random state is left alone.
        """
        device = self.embedding.weight.device
        tokens, lengths = (t.to(device) for t in self.encode([text]))
        memory = self.memory(tokens, lengths, embedding.to(device)[None].float())
        seconds = self.limits.seconds_per_char * len(text) + self.limits.seconds_more
        limit = ceil(seconds * SAMPLE_RATE / HOP_LENGTH / self.n_frames_per_step)
        self.decoder.decoder_max_step = limit
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            with warnings.catch_warnings():  # of the limit: it is counted below
                warnings.simplefilter("ignore")
                before, steps, stop, alignments = self.decoder.infer(memory, lengths)
        after = self.polished(before.transpose(1, 2))
        stopped = bool(torch.sigmoid(stop).max() > self.decoder.gate_threshold)
        t = int(steps[0])
        # torchaudio lays a batch's steps end to end: for one row (nt, t)
        alignment = alignments.T[:t].float().cpu()
        mel = unscaled(after[0, : t * self.n_frames_per_step].float())
        found = failures(alignment, stopped, self.n_frames_per_step, self.limits)
        return Piece(text, mel.cpu(), alignment, stopped, found)

    def speak(self, text: str, embedding: Tensor, seed: int = 0) -> list[Piece]:
        """A text of any length in the voice of an embedding (256,): its pieces in order.

        What is longer than the texts of the training is split at sentences, clauses or words, with a TextWarning
        that says so; what does not end a sentence is made to (`ended`). Raises TextError (see `text.normalise`).
        """
        if self.training:
            raise RuntimeError("the synthesizer is in training mode; call .eval() before .speak()")
        spoken = normalise(text, self.index)
        pieces = laag.chunk(spoken, self.config.max_chars, self.config.min_chars)
        if len(pieces) > 1:
            warnings.warn(
                f"the text has {len(spoken)} characters, more than the {self.config.max_chars} of the "
                f"synthesizer's training: it is spoken in {len(pieces)} pieces",
                TextWarning,
                stacklevel=2,
            )
        return [
            self.infer(ended(piece), embedding, seed * SEEDS_PER_TEXT + k) for k, piece in enumerate(pieces)
        ]


def ended(piece: str) -> str:
    """A piece of a text with a full stop behind it, unless it ends a sentence already.

    Every text of the training ended one. Behind "... the river," the decoder does not know that it is to stop.
    """
    return piece if piece.endswith(SENTENCE_ENDS) else piece.rstrip(" ,-") + "."


def _later(x: Tensor) -> Tensor:
    """(b, t, d) one step later, zeros first."""
    return nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]


def _run(cell: nn.LSTMCell, x: Tensor) -> Tensor:
    """A cell over all steps of (b, t, d) from a state of zeros, by the library's fused loop: several times as fast."""
    with torch.device("meta"):
        loop = nn.LSTM(cell.input_size, cell.hidden_size, batch_first=True)
    return functional_call(loop, {f"{name}_l0": weight for name, weight in cell.named_parameters()}, (x,))[0]
