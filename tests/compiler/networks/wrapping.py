"""Models of transformers return records; an engine returns tensors."""

from __future__ import annotations

import torch

__all__ = ["HiddenStates", "Logits"]


class Logits(torch.nn.Module):
    """An image classifier, from pixels to the scores of the classes."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


class HiddenStates(torch.nn.Module):
    """An encoder of text, from tokens and the mask of their padding to its states and the pooled one."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        result = self.model(input_ids, attention_mask=attention_mask)
        return result.last_hidden_state, result.pooler_output
