"""Networks that people deploy, in small configurations with random weights."""

from __future__ import annotations

from tests.compiler.networks.audio import AUDIO_NETWORKS
from tests.compiler.networks.detection import DETECTOR
from tests.compiler.networks.image_classifiers import CLASSIFIERS
from tests.compiler.networks.language import LANGUAGE_MODELS
from tests.compiler.networks.network import LARGEST_BATCH, Network
from tests.compiler.networks.recommender import MASKED_RANKER, RECOMMENDER
from tests.compiler.networks.unet import UNET

__all__ = ["LARGEST_BATCH", "NETWORKS", "Network"]

NETWORKS: dict[str, Network] = {
    **CLASSIFIERS,
    **LANGUAGE_MODELS,
    **AUDIO_NETWORKS,
    "U-Net": UNET,
    "detector with TopK": DETECTOR,
    "recommender": RECOMMENDER,
    "mask and where": MASKED_RANKER,
}
