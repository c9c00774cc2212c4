"""Audio: convolutions over the waveform, and an LSTM over its frames."""

from __future__ import annotations

import torch
import transformers
from torch import nn

from tests.compiler.networks.network import Inputs, Network, batch_of
from tests.compiler.networks.seeded import seeded

__all__ = ["AUDIO_NETWORKS"]


class Speech(nn.Module):
    """wav2vec 2.0 with a head for each frame."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.Wav2Vec2Config(
            vocab_size=20,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=64,
            conv_dim=(16, 16, 16),
            conv_stride=(5, 2, 2),
            conv_kernel=(10, 3, 3),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=4,
        )
        self.model = transformers.Wav2Vec2ForCTC(config)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.model(waveform).logits


def waveforms(batch: int) -> Inputs:
    return {"waveform": torch.randn(batch, 800)}


class KeywordSpotter(nn.Module):
    """One-dimensional convolutions with growing dilation, and a pool over time."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, 16, 16, stride=8)]
        for dilation in (1, 2, 4):
            layers += [
                nn.Conv1d(16, 16, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(4, 16),
                nn.GELU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(16, classes)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(waveform.unsqueeze(1)).mean(dim=-1))


class FrameTagger(nn.Module):
    """A bidirectional LSTM over the frames of a spectrogram."""

    def __init__(self, bins: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bins, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(frames)[0])


def spectrograms(batch: int) -> Inputs:
    return {"frames": torch.randn(batch, 20, 16)}


AUDIO_NETWORKS = {
    "wav2vec 2.0": Network(seeded(Speech), waveforms, batch_of("waveform")),
    "keyword spotter": Network(seeded(KeywordSpotter), waveforms, batch_of("waveform")),
    "LSTM": Network(seeded(FrameTagger), spectrograms, batch_of("frames")),
}
