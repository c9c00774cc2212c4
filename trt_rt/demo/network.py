"""The network of the demonstration, and its trained weights, which are part of the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

__all__ = [
    "IMAGE_SHAPE",
    "NUM_CLASSES",
    "WEIGHTS_PATH",
    "DigitsNet",
    "digits",
    "load_trained_network",
    "save_weights",
]

IMAGE_SHAPE = (1, 8, 8)
"""Channels, height and width of one image, in pixels."""

NUM_CLASSES = 10

WEIGHTS_PATH = Path(__file__).with_name("digits.npz")
"""The output of ``python -m trt_rt.demo.train``: one float32 array per parameter, by PyTorch's name."""


class DigitsNet(nn.Module):
    """A small convolutional network that reads one handwritten digit per image.

    Three 3x3 convolutions with ReLU, a 2x2 max-pooling after the second and after the third, one linear
    layer: 15,338 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(32 * 2 * 2, NUM_CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score images.

        Parameters
        ----------
        images : torch.Tensor, float32, shape (N, 1, 8, 8)
            Grey values between 0 (paper) and 1 (ink).

        Returns
        -------
        torch.Tensor, float32, shape (N, 10)
            Logits, one per digit.
        """
        scores: torch.Tensor = self.classifier(self.features(images).flatten(1))
        return scores


def digits() -> tuple[DigitsNet, tuple[torch.Tensor]]:
    """Return the trained network and a batch of 64 images, on the GPU if there is one.

    For ``trt-rt bench trt_rt.demo.network:digits``.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.rand(64, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(0))
    return load_trained_network().to(device), (images.to(device),)


def save_weights(network: DigitsNet, path: Path) -> None:
    """Write the parameters of `network` to `path` as a compressed ``.npz`` without pickled objects."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_trained_network(path: Path = WEIGHTS_PATH) -> DigitsNet:
    """Return the trained network on the CPU, in evaluation mode, with gradients switched off.

    Parameters
    ----------
    path : Path
        A file that :func:`save_weights` wrote. No code in it is ever run (``allow_pickle=False``).

    Raises
    ------
    OSError
        The file does not exist or cannot be read.
    ValueError, TypeError, RuntimeError
        The file has another format, or the parameters of another network.
    """
    with np.load(path, allow_pickle=False) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    network = DigitsNet()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
