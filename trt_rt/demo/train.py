"""Train the network of the demonstration: ``python -m trt_rt.demo.train`` (about ten seconds on a CPU).

Everything is seeded. The held-out digits influence nothing: neither the number of epochs nor a choice among
several runs. The same machine and PyTorch version give the same weights, others nearly the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

from trt_rt.demo.data import Digits, load_held_out_digits, load_training_digits
from trt_rt.demo.network import WEIGHTS_PATH, DigitsNet, save_weights

__all__ = ["EPOCHS", "main", "measure_accuracy", "train"]

EPOCHS = 60
_BATCH_SIZE = 64
_PEAK_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
_LARGEST_SHIFT = 1
_SEED = 0


def train(digits: Digits, epochs: int = EPOCHS, seed: int = _SEED) -> DigitsNet:
    """Train a network on the CPU: AdamW, one learning-rate cycle, images shifted by up to one pixel.

    Parameters
    ----------
    digits : Digits
        The digits to learn from.
    epochs : int
        The number of passes over the images.
    seed : int
        Seed of the weights, the order of the images and their shifts. The caller's generator is not changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DigitsNet()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=_PEAK_LEARNING_RATE,
            epochs=epochs,
            steps_per_epoch=-(-len(digits.labels) // _BATCH_SIZE),
        )
        for _ in range(epochs):
            for chosen in torch.randperm(len(digits.labels)).split(_BATCH_SIZE):
                loss = F.cross_entropy(network(_shift(digits.images[chosen])), digits.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval().requires_grad_(False)


def measure_accuracy(network: torch.nn.Module, digits: Digits) -> float:
    """Return the fraction, 0 to 1, of `digits` that `network` reads correctly."""
    with torch.inference_mode():
        predictions = network(digits.images).argmax(dim=1)
    return int((predictions == digits.labels).sum()) / len(digits.labels)


def _shift(images: torch.Tensor) -> torch.Tensor:
    """Move each image by a random whole number of pixels, and fill the border with paper."""
    count, _, height, width = images.shape
    padded = F.pad(images, [_LARGEST_SHIFT] * 4)
    top, left = torch.randint(0, 2 * _LARGEST_SHIFT + 1, (2, count, 1, 1))
    rows = top + torch.arange(height).view(1, -1, 1)
    columns = left + torch.arange(width).view(1, 1, -1)
    return padded[torch.arange(count).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


def main() -> None:
    """Train, write the weights, and print how many held-out digits the network reads correctly."""
    parser = argparse.ArgumentParser(description="Train the network of the demonstration.")
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS_PATH, help="where the weights go (default: %(default)s)"
    )
    out: Path = parser.parse_args().out
    network = train(load_training_digits())
    save_weights(network, out)
    accuracy = measure_accuracy(network, load_held_out_digits())
    print(f"{accuracy:.2%} of the held-out digits read correctly; weights in {out}")


if __name__ == "__main__":
    main()
