"""Language models of transformers, with a dynamic sequence."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch.export import Dim

from tests.compiler.networks.network import LARGEST_BATCH, Inputs, Network
from tests.compiler.networks.seeded import seeded
from tests.compiler.networks.wrapping import HiddenStates

__all__ = ["LANGUAGE_MODELS", "LONGEST", "bert_config", "gpt2_config", "padded_text"]

TOKENS = 100
LONGEST = 32

_batch = Dim("batch", min=1, max=LARGEST_BATCH)
_sequence = Dim("sequence", min=2, max=LONGEST)


def bert_config(**changes: Any) -> Any:
    """A small BERT."""
    return transformers.BertConfig(
        vocab_size=TOKENS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
        **changes,
    )


def gpt2_config() -> Any:
    """A small GPT-2."""
    return transformers.GPT2Config(
        vocab_size=TOKENS, n_embd=32, n_layer=2, n_head=4, n_positions=LONGEST, bos_token_id=0, eos_token_id=0
    )


@seeded
def bert() -> torch.nn.Module:
    return HiddenStates(transformers.BertModel(bert_config()))


def padded_text(batch: int) -> Inputs:
    sequence = 7 + batch
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    mask[::2, 5:] = 0
    return {"input_ids": torch.randint(TOKENS, (batch, sequence)), "attention_mask": mask}


class NextToken(torch.nn.Module):
    """A decoder, from tokens to the scores of the token after each."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, use_cache=False).logits


@seeded
def gpt2() -> torch.nn.Module:
    return NextToken(transformers.GPT2LMHeadModel(gpt2_config()))


def text(batch: int) -> Inputs:
    return {"input_ids": torch.randint(TOKENS, (batch, 5 + batch))}


LANGUAGE_MODELS = {
    "BERT": Network(
        bert,
        padded_text,
        {name: {0: _batch, 1: _sequence} for name in ("input_ids", "attention_mask")},
    ),
    "GPT-2": Network(gpt2, text, {"input_ids": {0: _batch, 1: _sequence}}, "bf16"),
}
