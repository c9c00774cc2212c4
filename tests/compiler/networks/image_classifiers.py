"""Image classifiers of transformers: convolutions, depthwise convolutions, attention."""

from __future__ import annotations

import torch
import transformers

from tests.compiler.networks.network import Inputs, Network, batch_of
from tests.compiler.networks.seeded import seeded
from tests.compiler.networks.wrapping import Logits

__all__ = ["CLASSIFIERS"]


def images(batch: int) -> Inputs:
    return {"pixel_values": torch.rand(batch, 3, 32, 32)}


@seeded
def resnet() -> torch.nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic", num_labels=10
    )
    return Logits(transformers.ResNetForImageClassification(config))


@seeded
def mobilenet() -> torch.nn.Module:
    config = transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=10)
    return Logits(transformers.MobileNetV2ForImageClassification(config))


@seeded
def vit() -> torch.nn.Module:
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    return Logits(transformers.ViTForImageClassification(config))


@seeded
def convnext() -> torch.nn.Module:
    config = transformers.ConvNextConfig(
        hidden_sizes=[16, 32], depths=[1, 2], num_stages=2, image_size=32, num_labels=10
    )
    return Logits(transformers.ConvNextForImageClassification(config))


CLASSIFIERS = {
    "ResNet": Network(resnet, images, batch_of("pixel_values")),
    "MobileNetV2": Network(mobilenet, images, batch_of("pixel_values")),
    "ViT": Network(vit, images, batch_of("pixel_values"), "bf16"),
    "ConvNeXt": Network(convnext, images, batch_of("pixel_values")),
}
