"""Decoding with a key-value cache: the engine writes into the caller's cache, and nothing is copied.

Two of the engine's outputs use the memory of its inputs ``keys`` and ``values`` (aliased I/O).

Run it: python examples/decode_with_cache.py
"""

import torch

import trt_rt
from trt_rt import reference

TOKENS, WIDTH, STEPS = 40, 16, 12


class Decoder(torch.nn.Module):
    """One attention layer that decodes one token a call, at `position` of its cache."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(TOKENS, WIDTH)
        self.projection = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.head = torch.nn.Linear(WIDTH, TOKENS)

    def forward(
        self, token: torch.Tensor, position: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        query, key, value = self.projection(self.embedding(token)).split(WIDTH, dim=-1)
        keys.index_copy_(0, position, key)
        values.index_copy_(0, position, value)
        scores = (query @ keys.T / WIDTH**0.5).masked_fill(torch.arange(STEPS) > position, -torch.inf)
        return self.head(torch.softmax(scores, dim=-1) @ values)


def generate(decode: torch.nn.Module) -> list[int]:
    """Decode greedily from token 1."""
    keys, values = torch.zeros(STEPS, WIDTH), torch.zeros(STEPS, WIDTH)
    token, tokens = torch.tensor([1]), []
    for step in range(STEPS):
        token = decode(token, torch.tensor([step]), keys, values).argmax(-1)
        tokens.append(int(token))
    assert keys.all(dim=1).all(), "the decoder has written every row of the caller's cache"
    return tokens


torch.manual_seed(0)
network = Decoder().eval()
example = (torch.tensor([1]), torch.tensor([0]), torch.zeros(STEPS, WIDTH), torch.zeros(STEPS, WIDTH))
with torch.inference_mode():
    tokens = generate(network)
    with trt_rt.Engine.from_bytes(reference.build(network, example), device="cpu") as engine:
        module = trt_rt.TRTModule(engine)
        assert set(module.aliased_io.values()) == {"keys", "values"}
        assert generate(module) == tokens
print(f"{STEPS} tokens, the same as PyTorch's: {tokens}")
