"""Recommendation: embeddings and an MLP, and scores under a mask."""

from __future__ import annotations

import torch
from torch import nn

from tests.compiler.networks.network import Inputs, Network, batch_of
from tests.compiler.networks.seeded import seeded

__all__ = ["MASKED_RANKER", "RECOMMENDER"]


class Recommender(nn.Module):
    """As DLRM: an embedding for each categorical feature, their products with the dense ones, an MLP."""

    def __init__(self, sizes: tuple[int, ...] = (50, 20, 10), width: int = 16, dense: int = 8) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.dense = nn.Sequential(nn.Linear(dense, width), nn.ReLU())
        features = len(sizes) + 1
        self.top = nn.Sequential(nn.Linear(width + features**2, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, dense: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        bottom = self.dense(dense)
        features = [bottom] + [embed(categories[:, i]) for i, embed in enumerate(self.embeddings)]
        stacked = torch.stack(features, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
        return self.top(torch.cat([bottom, products], dim=1)).squeeze(-1).sigmoid()


def clicks(batch: int) -> Inputs:
    return {"dense": torch.rand(batch, 8), "categories": torch.randint(10, (batch, 3))}


class MaskedRanker(nn.Module):
    """Scores candidates against a query; those that are masked out rank last and weigh nothing."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width)

    def forward(
        self, query: torch.Tensor, candidates: torch.Tensor, available: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scores = (self.candidate(candidates) @ self.query(query).unsqueeze(-1)).squeeze(-1)
        scores = torch.where(available, scores, torch.full_like(scores, -1e4))
        weights = scores.softmax(dim=-1).masked_fill(~available, 0.0)
        return weights, scores.argsort(dim=-1, descending=True)


def candidates(batch: int) -> Inputs:
    available = torch.ones(batch, 12, dtype=torch.bool)
    available[:, 3::4] = False
    return {
        "query": torch.randn(batch, 16),
        "candidates": torch.randn(batch, 12, 16),
        "available": available,
    }


RECOMMENDER = Network(seeded(Recommender), clicks, batch_of("dense", "categories"), "bf16")
MASKED_RANKER = Network(seeded(MaskedRanker), candidates, batch_of("query", "candidates", "available"))
