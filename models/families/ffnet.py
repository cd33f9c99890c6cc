"""FFNet: Fourier mixing over width and over time in turn, each with a feed-forward part of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.families.fnet import FNetEncoder, fourier_sizes
from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.fourier import FourierInput, FourierPooler, fourier_real
from models.layers.frame_tagging import FrameScores
from models.network import Network, NetworkConfig, log_odds
from models.registry import FamilyInfo, register_family


class FFNetConfig(NetworkConfig):
    """Settings of FFNet; the defaults are the published ones."""

    n_mels: int = 64
    n_layers: int = 10
    hidden_size: int = 128
    intermediate_size: int = 256
    eps: float = 1e-12
    dropout: float = 0.1


class FFNetLayer(nn.Module):
    """Mixing over width, feed-forward, mixing over time, feed-forward.

    The second residual sum adds the layer's *input*, not the first part's output: a quirk that weights depend on.
    """

    def __init__(self, width: int, inner: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.mixing_layer_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward = nn.Linear(width, inner)
        self.act = nn.GELU()
        self.output_dense = nn.Linear(inner, width)
        self.mixing_layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.feed_forward2 = nn.Linear(width, inner)
        self.act2 = nn.GELU()
        self.output_dense2 = nn.Linear(inner, width)
        self.output_layer_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same."""
        mixed = self.mixing_layer_norm(fourier_real(hidden, (2,)) + hidden)
        out = self.output_dense(self.act(self.feed_forward(mixed)))
        mixed = self.mixing_layer_norm2(fourier_real(out, (1,)) + hidden)
        out = self.output_dense2(self.act2(self.feed_forward2(mixed)))
        return self.output_layer_norm(self.dropout(out) + mixed)


@register_family(
    FamilyInfo(
        name="ffnet",
        title="FFNet",
        summary="A baseline that mixes width and time by separate Fourier transforms.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448",
        views=frozenset({"attribution"}),
        published_key="encoder.layer.0.mixing_layer_norm2.weight",
    )
)
class FFNet(Network):
    """FFNet; the hidden representation is ``[batch, frames, hidden_size]``.

    The published pooler cannot run, because its number of classes is undefined; here `n_classes` defines it.
    """

    Config = FFNetConfig
    config: FFNetConfig

    def __init__(self, config: FFNetConfig) -> None:
        super().__init__(config)
        width, eps = config.hidden_size, config.eps
        self.input = FourierInput(config.n_mels, width, eps, config.dropout)
        self.encoder = FNetEncoder(
            [FFNetLayer(width, config.intermediate_size, eps, config.dropout) for _ in range(config.n_layers)]
        )
        self.pooler = FourierPooler(width, config.n_classes, sigmoid=True)
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
        assert isinstance(config, FFNetConfig)
        return audio_tagging_frontend(config.n_mels)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the second mixing norm of a layer."""
        return "encoder.layer.0.mixing_layer_norm2.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> FFNetConfig:
        """Everything can be read from the shapes."""
        return FFNetConfig.model_validate(fourier_sizes(state_dict) | dict(hints))
