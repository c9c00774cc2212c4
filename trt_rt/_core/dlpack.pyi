from collections.abc import Sequence

import torch

def tensor_from_address(
    address: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    owner: object = None,
) -> torch.Tensor: ...
def view_of(owner: torch.Tensor) -> torch.Tensor: ...
def can_view(dtype: torch.dtype) -> bool: ...
