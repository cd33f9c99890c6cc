"""What the Fourier-mixing baselines FNet and FFNet share: everything but their layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.frame_tagging import FrameScores
from models.network import Network, NetworkConfig, log_odds


class FourierConfig(NetworkConfig):
    """Settings of both; the families have their published ones as defaults."""

    n_mels: int
    n_layers: int
    hidden_size: int
    intermediate_size: int
    eps: float = 1e-12
    dropout: float = 0.1


class FourierInput(nn.Module):
    """Layer norm, projection and dropout of the input features."""

    def __init__(self, n_mels: int, width: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(n_mels, eps=eps)
        self.hidden_mapping = nn.Linear(n_mels, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, frames, width]``."""
        return self.dropout(self.hidden_mapping(self.layer_norm(features)))


class FourierPooler(nn.Module):
    """Frame scores weighted by attention over time.

    Parameters
    ----------
    sigmoid
        FFNet: sigmoid of both. FNet: softmax over time of the attention, and scores *without* a sigmoid, only clamped to
        0..1 (a quirk that its checkpoints depend on).
    """

    def __init__(self, width: int, n_classes: int, sigmoid: bool) -> None:
        super().__init__()
        self.att = nn.Linear(width, n_classes)
        self.fc = nn.Linear(width, n_classes)
        self.sigmoid = sigmoid

    def forward(self, hidden: Tensor) -> FrameScores:
        """Scores of ``[batch, frames, width]``."""
        raw_scores, raw_attention = self.fc(hidden), self.att(hidden)
        scores = raw_scores.sigmoid() if self.sigmoid else raw_scores
        attention = raw_attention.sigmoid() if self.sigmoid else raw_attention.softmax(dim=1)
        scores, attention = scores.clamp(1e-7, 1.0 - 1e-7), attention.clamp(1e-7, 1.0 - 1e-7)
        attention = attention / attention.sum(dim=1, keepdim=True)
        return FrameScores((attention * scores).sum(dim=1), scores, attention, attention, None)


def fourier_real(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Real part of the Fourier transform along some axes (Lee-Thorp et al.: FNet. NAACL 2022)."""
    return torch.fft.fftn(x.float(), dim=axes).real


class FourierEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same."""
        for layer in self.layer:
            hidden = layer(hidden)
        return hidden


class FourierNetwork(Network):
    """The network around the layers; the hidden representation is ``[batch, frames, hidden_size]``.

    Attributes
    ----------
    Layer
        The layer that is stacked, made from width, inner width, epsilon and dropout.
    sigmoid
        See `FourierPooler`.
    """

    Config = FourierConfig
    config: FourierConfig
    Layer: ClassVar[type[nn.Module]]
    sigmoid: ClassVar[bool]

    def __init__(self, config: FourierConfig) -> None:
        super().__init__(config)
        width, eps = config.hidden_size, config.eps
        self.input = FourierInput(config.n_mels, width, eps, config.dropout)
        self.encoder = FourierEncoder(
            [self.Layer(width, config.intermediate_size, eps, config.dropout) for _ in range(config.n_layers)]
        )
        self.pooler = FourierPooler(width, config.n_classes, self.sigmoid)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, frames, hidden_size]``."""
        return self.encoder(self.input(features))

    def pool(self, hidden: Tensor) -> FrameScores:
        """Frame scores and their weights."""
        return self.pooler(hidden)

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, frames, hidden_size]``."""
        return log_odds(self.pool(hidden).output)

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The published features for the number of bands."""
        assert isinstance(config, FourierConfig)
        return audio_tagging_frontend(config.n_mels)

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> NetworkConfig:
        """Everything can be read from the shapes."""
        hidden, n_mels = state_dict["input.hidden_mapping.weight"].shape
        sizes = {
            "n_classes": state_dict["pooler.fc.weight"].shape[0],
            "n_mels": n_mels,
            "hidden_size": hidden,
            "intermediate_size": state_dict["encoder.layer.0.feed_forward.weight"].shape[0],
            "n_layers": len({key.split(".")[2] for key in state_dict if key.startswith("encoder.layer.")}),
        }
        return cls.Config.model_validate(sizes | dict(hints))
