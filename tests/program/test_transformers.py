"""Models of transformers, small and with random weights, as programs that compute what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt

pytest.importorskip("transformers", reason="the package transformers is not installed")

import transformers

from tests.compiler.networks import NETWORKS
from tests.compiler.networks.language import LONGEST, bert_config, gpt2_config, padded_text

pytestmark = pytest.mark.slow


class Classifier(nn.Module):
    """BERT with a head for a few classes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = transformers.BertForSequenceClassification(bert_config(num_labels=3))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


class Speech(nn.Module):
    """Whisper's encoder."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=64,
            num_mel_bins=16,
            max_source_positions=20,
            decoder_layers=1,
            decoder_attention_heads=4,
            decoder_ffn_dim=64,
            vocab_size=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        self.encoder = transformers.WhisperModel(config).encoder

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.encoder(features).last_hidden_state


class Decoder(nn.Module):
    """GPT-2 over a KV cache of constant size, in buffers of its own: one token a call."""

    def __init__(self) -> None:
        super().__init__()
        config = gpt2_config()
        self.model = transformers.GPT2LMHeadModel(config)
        shape = (config.n_layer, 1, config.n_head, LONGEST, config.n_embd // config.n_head)
        self.register_buffer("keys", torch.zeros(shape))
        self.register_buffer("values", torch.zeros(shape))

    def forward(self, token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        body = self.model.transformer
        x = body.wte(token) + body.wpe(position)
        length = self.keys.shape[3]
        seen = (torch.arange(length, device=token.device) <= position).view(1, 1, 1, length)
        for number, block in enumerate(body.h):
            attention = block.attn
            heads = [
                part.view(1, 1, attention.num_heads, attention.head_dim).transpose(1, 2)
                for part in attention.c_attn(block.ln_1(x)).split(attention.split_size, dim=2)
            ]
            self.keys[number].index_copy_(2, position, heads[1])
            self.values[number].index_copy_(2, position, heads[2])
            found = nn.functional.scaled_dot_product_attention(
                heads[0], self.keys[number], self.values[number], attn_mask=seen
            )
            x = x + attention.c_proj(found.transpose(1, 2).reshape(1, 1, -1))
            x = x + block.mlp(block.ln_2(x))
        return self.model.lm_head(body.ln_f(x))


def eight_tokens(batch: int) -> dict[str, torch.Tensor]:
    return {key: value[:, :8] for key, value in padded_text(batch).items()}


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], dict[str, torch.Tensor]]]] = {
    "BERT classifier": (
        Classifier,
        lambda batch: {key: value[:, :8] for key, value in padded_text(batch).items()},
    ),
    "ViT": (NETWORKS["ViT"].make, NETWORKS["ViT"].inputs),
    "Whisper encoder": (Speech, lambda batch: {"features": torch.randn(batch, 16, 40)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_one_engine_and_right(name: str) -> None:
    make, inputs = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    batch = torch.export.Dim("batch", min=1, max=4)
    example = inputs(3)
    program = trt_rt.compile(
        model,
        kwarg_inputs=example,
        dynamic_shapes={key: {0: batch} for key in example},
        backend="reference",
    )
    assert len(program.partition.engines) == 1
    for size in (1, 4):
        given = inputs(size)
        with torch.no_grad():
            torch.testing.assert_close(program(**given), model(**given))


def generate(step: Callable[..., torch.Tensor], prompt: list[int], count: int) -> list[int]:
    """Greedy decoding, one token a call."""
    tokens = list(prompt)
    for position in range(len(prompt) + count - 1):
        scores = step(torch.tensor([[tokens[position]]]), torch.tensor([position]))
        if position >= len(prompt) - 1:
            tokens.append(int(scores[0, -1].argmax()))
    return tokens


def test_a_decoder_with_a_cache_generates_what_eager_pytorch_does() -> None:
    torch.manual_seed(0)
    model = Decoder().eval()
    # Larger weights than those of a fresh model, whose next token hardly depends on the ones before.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    example: tuple[Any, ...] = (torch.tensor([[1]]), torch.tensor([0]))
    program = trt_rt.compile(model, inputs=example, backend="reference")
    assert len(program.partition.engines) == 1
    with torch.no_grad():
        # transformers' own generation, without a cache of ours, says what is right.
        prompt = [3, 1, 4]
        wanted = list(prompt)
        for _ in range(20):
            wanted.append(int(model.model(torch.tensor([wanted]), use_cache=False).logits[0, -1].argmax()))
        assert generate(model, prompt, 20) == wanted
    assert generate(program, prompt, 20) == wanted
    assert len(set(wanted)) > 5
