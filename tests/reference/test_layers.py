"""Layers and functions that networks use can be built, and compute what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.reference.harness import Session
from trt_rt import reference as trt

IMAGE, SEQUENCE = (2, 4, 16, 16), (2, 8, 16)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        results = self.function(x)
        return results if isinstance(results, torch.Tensor) else tuple(results)


ON_IMAGES: list[nn.Module] = [
    nn.Conv2d(4, 6, 3, padding="same"),
    nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=2),
    nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1),
    nn.BatchNorm2d(4),
    nn.GroupNorm(2, 4),
    nn.InstanceNorm2d(4, affine=True),
    nn.LocalResponseNorm(2),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.AvgPool2d(2),
    nn.LPPool2d(2, 2),
    nn.AdaptiveAvgPool2d(3),
    nn.AdaptiveMaxPool2d(3),
    nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=1.5, mode="bilinear"),
    nn.Upsample(size=9, mode="bicubic", align_corners=True),
    nn.PixelShuffle(2),
    nn.PixelUnshuffle(2),
    nn.ReflectionPad2d(1),
    nn.ReplicationPad2d(1),
    nn.ZeroPad2d(1),
    nn.Unfold(3),
    nn.Dropout2d(),
    nn.Sequential(nn.Flatten(), nn.LazyLinear(3)),
    Function(lambda x: F.grid_sample(x, torch.zeros(2, 4, 4, 2), align_corners=False)),
    Function(lambda x: F.interpolate(x, size=(5, 5), mode="bilinear", antialias=True)),
    Function(lambda x: F.affine_grid(x[:, 0, :2, :3], (2, 1, 4, 4), align_corners=False)),
    Function(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
]
ON_SEQUENCES: list[nn.Module] = [
    nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1, enable_nested_tensor=False
    ),
    Function(lambda x: nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)),
    nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True),
    nn.GRU(16, 8, batch_first=True),
    nn.RNN(16, 8, batch_first=True),
    nn.utils.parametrizations.weight_norm(nn.Linear(16, 4)),
    nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 3), dim=2),
    nn.LayerNorm(16),
    nn.RMSNorm(16),
    nn.PReLU(),
    nn.Linear(16, 3, bias=False),
    *(
        kind()
        for kind in (
            *(nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
            *(nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Softshrink),
            *(nn.Hardshrink, nn.LogSigmoid, nn.GLU, nn.Dropout),
        )
    ),
    Function(lambda x: torch.einsum("bij,bkj->bik", x, x)),
    Function(lambda x: [x.softmax(-1), x.log_softmax(-1), F.normalize(x), F.cosine_similarity(x, x, -1)]),
    Function(lambda x: [x[:, ::2], x[..., 0], x[:, None], x[torch.tensor([0, 1, 1])], x[x > 0]]),
    Function(lambda x: [x.sum(), x.mean(-1), x.amax(1), x.argmax(-1), x.std(-1), x.norm(), x.logsumexp(1)]),
    Function(lambda x: [x.cumsum(1), x.cumprod(1), *x.topk(2), *x.sort(stable=True), x.argsort(), x.prod(1)]),
    Function(lambda x: [*x.split(4, 1), *x.chunk(2, 1), *x.unbind(0), torch.cat([x, x], 1), x.roll(1, 1)]),
    Function(
        lambda x: [x.repeat(1, 2, 1), x.tile(2), x.flip(0), x.repeat_interleave(2, 1), x.unfold(1, 2, 1)]
    ),
    Function(
        lambda x: [
            x.tril(),
            x.diagonal(0, 1, 2),
            torch.diag_embed(x),
            *torch.meshgrid(x[0, 0], x[0, 1], indexing="ij"),
        ]
    ),
    Function(lambda x: [x.gather(1, torch.zeros(2, 1, 16).long()), x.index_select(1, torch.tensor([0]))]),
    Function(
        lambda x: [x.scatter(1, torch.zeros(2, 1, 16).long(), x), x.index_add(1, torch.tensor([0]), x[:, :1])]
    ),
    Function(
        lambda x: [x.masked_fill(x > 0, 0.0), x.masked_select(x > 0), x.nonzero(), torch.where(x > 0, x, 0.0)]
    ),
    Function(
        lambda x: [
            torch.unique(x),
            torch.searchsorted(torch.tensor([0.0, 1.0]), x),
            F.one_hot(x.long().abs(), 9),
        ]
    ),
    Function(
        lambda x: [
            F.embedding(x.long().clamp(0, 3), torch.ones(4, 3)),
            torch.cdist(x, x),
            torch.fft.rfft(x).abs(),
        ]
    ),
    Function(
        lambda x: [torch.baddbmm(torch.zeros(2, 8, 8), x, x.mT), torch.outer(x[0, 0], x[0, 0]), x[0] @ x[0].T]
    ),
    Function(lambda x: [torch.stft(x[:, 0], 8, window=torch.hann_window(8), return_complex=True).abs()]),
    Function(lambda x: [torch.linalg.inv(x[:, :4, :4] + 9 * torch.eye(4)), torch.linalg.det(x[:, :4, :4])]),
    Function(
        lambda x: [x.abs().rsqrt(), x.round(decimals=1), x % 3, torch.atan2(x, x + 9), torch.isnan(x), 2**x]
    ),
    Function(
        lambda x: [x.new_zeros(2, 3), torch.arange(3) * x[0, 0, 0], torch.full_like(x, 2), torch.ones(3)]
    ),
]
CASES = [*((module, IMAGE) for module in ON_IMAGES), *((module, SEQUENCE) for module in ON_SEQUENCES)]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_layer(number: int) -> None:
    module, shape = CASES[number]
    torch.manual_seed(number)
    x = torch.randn(shape)
    with torch.no_grad():
        expected = module.eval()(x)
    results = Session(trt.build(module, (x,))).run(x)
    for result, reference in zip(results, tree_leaves(expected), strict=True):
        torch.testing.assert_close(result, reference.reshape(result.shape), rtol=1e-5, atol=1e-5)
