"""Sentence embeddings by a BERT: all-MiniLM-L6-v2 (Reimers and Gurevych, 2019; Wang et al., 2020), English, 384-d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerBase

MAX_TOKENS = 256  # what MiniLM was trained on; longer texts are cut there


class TextEncoder(nn.Module):
    """A BERT whose token states are averaged over the text and scaled to norm 1."""

    def __init__(self, bert: BertModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.bert = bert
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def forward(self, texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """Embeddings (len(texts), width) of norm 1, on the CPU, in order; the cosine of two is their product.

        Texts of like length share a batch. Of a text longer than 256 tokens the rest is not read.
        """
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        result = torch.zeros(len(texts), self.bert.config.hidden_size)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(self.bert.device)
            states = self.bert(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None]
            mean = (states * mask).sum(1) / mask.sum(1)
            result[rows] = nn.functional.normalize(mean, dim=-1).float().cpu()
        return result
