"""Segmentation: a U-Net."""

from __future__ import annotations

import torch
from torch import nn

from tests.compiler.networks.network import Inputs, Network, batch_of
from tests.compiler.networks.seeded import seeded

__all__ = ["UNET"]


def double_convolution(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers += [
            nn.Conv2d(channels, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two levels down and up, with the skip connections that give it its name."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.bottom = (
            double_convolution(1, 8),
            double_convolution(8, 16),
            double_convolution(16, 32),
        )
        self.up_second = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge_second = double_convolution(32, 16)
        self.merge_first = double_convolution(24, 8)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.first(image)
        second = self.second(nn.functional.max_pool2d(first, 2))
        bottom = self.bottom(nn.functional.max_pool2d(second, 2))
        up = self.merge_second(torch.cat([self.up_second(bottom), second], dim=1))
        up = nn.functional.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.merge_first(torch.cat([up, first], dim=1)))


def images(batch: int) -> Inputs:
    return {"image": torch.rand(batch, 1, 32, 32)}


UNET = Network(seeded(UNet), images, batch_of("image"))
