"""scikit-learn's handwritten digits: 1,797 real images of 8 by 8 pixels that come inside that package."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

__all__ = ["Digits", "load_held_out_digits", "load_training_digits"]

_HELD_OUT_FRACTION = 0.2
_SPLIT_SEED = 0
_LARGEST_GREY_VALUE = 16.0


class Digits(NamedTuple):
    """Images of digits, and the digit on each.

    Attributes
    ----------
    images : torch.Tensor, float32, shape (N, 1, 8, 8)
        Grey values between 0 (paper) and 1 (ink), on the CPU.
    labels : torch.Tensor, int64, shape (N,)
        The digit on each image, 0 to 9.
    """

    images: torch.Tensor
    labels: torch.Tensor


def load_training_digits() -> Digits:
    """Return the 1,437 digits that the network is trained on."""
    return _split_digits()[0]


def load_held_out_digits() -> Digits:
    """Return the 360 digits that training never sees: a fixed fifth of all, with each digit in proportion."""
    return _split_digits()[1]


def _split_digits() -> tuple[Digits, Digits]:
    grey_values, labels = load_digits(return_X_y=True)
    images = (grey_values / _LARGEST_GREY_VALUE).astype("float32").reshape(-1, 1, 8, 8)
    parts = train_test_split(
        images, labels, test_size=_HELD_OUT_FRACTION, random_state=_SPLIT_SEED, stratify=labels
    )
    train_images, held_out_images, train_labels, held_out_labels = (torch.from_numpy(part) for part in parts)
    return Digits(train_images, train_labels), Digits(held_out_images, held_out_labels)
