"""The tensors of a TorchScript program, under the names that they have in its modules."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt.archive.container import Container
from trt_rt.archive.payload import copy_record
from trt_rt.archive.torchscript_objects import StoredTensor
from trt_rt.errors import ArchiveError

__all__ = ["StoredWeights"]


class StoredWeights:
    """Reads the tensors that a program needs.

    Parameters
    ----------
    container : Container
        The file.
    device : torch.device
        Of tensors that were saved on a GPU.

    Attributes
    ----------
    module : torch.nn.Module
        Has the tensors that were read, in submodules as their paths say.
    """

    def __init__(self, container: Container, device: torch.device) -> None:
        self._container = container
        self._device = device
        self._memories: dict[Any, torch.Tensor] = {}
        self.module = torch.nn.Module()

    def read(self, path: str, stored: StoredTensor) -> torch.Tensor:
        """Return a tensor, which `module` then has. Tensors that shared memory share it again.

        Raises
        ------
        ArchiveError
            It reaches beyond its record.
        """
        where = f"{self._container.path}, tensor {path[:80]!r}"
        content = self._container.view(stored.record)
        steps = zip(stored.sizes, stored.strides, strict=True)
        end = stored.offset + 1 + sum((size - 1) * stride for size, stride in steps)
        if all(stored.sizes) and end * stored.dtype.itemsize > len(content):
            raise ArchiveError(f"{where} reaches beyond its record {stored.record!r}.")
        if len(content) % stored.dtype.itemsize:
            raise ArchiveError(f"{where}: its record {stored.record!r} has no whole number of elements.")
        device = self._device if stored.device.startswith("cuda") else torch.device("cpu")
        key = (stored.record, stored.dtype, device)
        if key not in self._memories:
            self._memories[key] = copy_record(content, stored.dtype, device)
        offset = stored.offset if all(stored.sizes) else 0
        tensor = torch.as_strided(self._memories[key], stored.sizes, stored.strides, offset)
        owner, name = self._owner(path, where)
        if stored.is_parameter and (tensor.is_floating_point() or tensor.is_complex()):
            owner.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
        else:
            owner.register_buffer(name, tensor)
        found: torch.Tensor = getattr(owner, name)
        return found

    def _owner(self, path: str, where: str) -> tuple[torch.nn.Module, str]:
        *owners, name = path.split(".")
        module = self.module
        try:
            for owner in owners:
                if owner not in dict(module.named_children()):
                    module.add_module(owner, torch.nn.Module())
                module = module.get_submodule(owner)
            if hasattr(module, name):
                raise KeyError(name)
        except (AttributeError, KeyError) as error:
            raise ArchiveError(f"{where}: its name is not allowed.") from error
        return module, name
