"""Networks that people deploy, in small configurations with random weights."""

from __future__ import annotations

from tests.builds.networks.audio import AUDIO_NETWORKS
from tests.builds.networks.detection import DETECTOR
from tests.builds.networks.image_classifiers import CLASSIFIERS
from tests.builds.networks.language import LANGUAGE_MODELS
from tests.builds.networks.network import LARGEST_BATCH, Network
from tests.builds.networks.recommender import MASKED_RANKER, RECOMMENDER
from tests.builds.networks.unet import UNET

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
