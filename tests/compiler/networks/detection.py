"""Detection: a head that keeps the best boxes of all anchors with TopK."""

from __future__ import annotations

import torch
from torch import nn

from tests.compiler.networks.network import Inputs, Network, batch_of
from tests.compiler.networks.seeded import seeded

__all__ = ["DETECTOR"]


class Detector(nn.Module):
    """One stage: scores and boxes at every place of a feature map, of which the best are returned."""

    def __init__(self, classes: int = 4, kept: int = 10) -> None:
        super().__init__()
        self.kept = kept
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        )
        self.scores = nn.Conv2d(32, classes, 1)
        self.boxes = nn.Conv2d(32, 4, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.features(image)
        best, labels = self.scores(features).flatten(2).sigmoid().max(dim=1)
        scores, places = best.topk(self.kept, dim=1)
        boxes = self.boxes(features).flatten(2).transpose(1, 2)
        chosen = boxes.gather(1, places.unsqueeze(-1).expand(-1, -1, 4))
        return chosen, scores, labels.gather(1, places)


def images(batch: int) -> Inputs:
    return {"image": torch.rand(batch, 3, 32, 32)}


DETECTOR = Network(seeded(Detector), images, batch_of("image"))
