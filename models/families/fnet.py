"""FNet: Fourier transforms over time and width instead of attention (Lee-Thorp et al., NAACL 2022), on log-mel frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.fourier import FourierInput, FourierPooler, fourier_real
from models.layers.frame_tagging import FrameScores
from models.network import Network, NetworkConfig, log_odds
from models.registry import FamilyInfo, register_family


class FNetConfig(NetworkConfig):
    """Settings of FNet; the defaults are the published ones."""

    n_mels: int = 128
    n_layers: int = 50
    hidden_size: int = 256
    intermediate_size: int = 512
    eps: float = 1e-12
    dropout: float = 0.1


class FNetLayer(nn.Module):
    """Fourier mixing and a feed-forward part, each with a normalised residual sum."""

    def __init__(self, width: int, inner: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.mixing_layer_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward = nn.Linear(width, inner)
        self.act = nn.GELU()
        self.output_dense = nn.Linear(inner, width)
        self.output_layer_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same."""
        mixed = self.mixing_layer_norm(fourier_real(hidden, (1, 2)) + hidden)
        out = self.output_dense(self.act(self.feed_forward(mixed)))
        return self.output_layer_norm(self.dropout(out) + mixed)


class FNetEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same."""
        for layer in self.layer:
            hidden = layer(hidden)
        return hidden


@register_family(
    FamilyInfo(
        name="fnet",
        title="FNet",
        summary="A baseline that mixes frames by Fourier transforms instead of attention.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448; "
        "Lee-Thorp, Ainslie, Eckstein, Ontanon: FNet. NAACL 2022, arXiv 2105.03824",
        views=frozenset({"attribution"}),
        published_key="encoder.layer.0.mixing_layer_norm.weight",
    )
)
class FNet(Network):
    """FNet; the hidden representation is ``[batch, frames, hidden_size]``.

    As published, frame scores are clamped to 0..1 without a sigmoid. Every layer mixes all frames, so a frame's weight in
    the pooling says little about that moment of the clip: there is no time attention to show.
    """

    Config = FNetConfig
    config: FNetConfig

    def __init__(self, config: FNetConfig) -> None:
        super().__init__(config)
        width, eps = config.hidden_size, config.eps
        self.input = FourierInput(config.n_mels, width, eps, config.dropout)
        self.encoder = FNetEncoder(
            [FNetLayer(width, config.intermediate_size, eps, config.dropout) for _ in range(config.n_layers)]
        )
        self.pooler = FourierPooler(width, config.n_classes, sigmoid=False)
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
        assert isinstance(config, FNetConfig)
        return audio_tagging_frontend(config.n_mels)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the one mixing norm a layer."""
        return (
            "encoder.layer.0.mixing_layer_norm.weight" in state_dict
            and "encoder.layer.0.mixing_layer_norm2.weight" not in state_dict
        )

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> FNetConfig:
        """Everything can be read from the shapes."""
        return FNetConfig.model_validate(fourier_sizes(state_dict) | dict(hints))


def fourier_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings that FNet's and FFNet's shapes tell."""
    hidden, n_mels = state_dict["input.hidden_mapping.weight"].shape
    return {
        "n_classes": state_dict["pooler.fc.weight"].shape[0],
        "n_mels": n_mels,
        "hidden_size": hidden,
        "intermediate_size": state_dict["encoder.layer.0.feed_forward.weight"].shape[0],
        "n_layers": len({key.split(".")[2] for key in state_dict if key.startswith("encoder.layer.")}),
    }
