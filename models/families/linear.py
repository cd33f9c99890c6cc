"""A linear baseline: every frame is scored by itself, without any nonlinearity but layer norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.frame_tagging import FrameTagger, FrameTaggingConfig, TimePooling
from models.network import NetworkConfig
from models.registry import FamilyInfo, register_family


class LinearConfig(FrameTaggingConfig):
    """Settings of the linear baseline: `n_layers` pairs of layer norm and linear layer behind the first linear layer."""

    n_mels: int = 64
    n_layers: int = 3
    hidden_size: int = 128
    dropout: float = 0.1
    pooling: TimePooling = "att"


@register_family(
    FamilyInfo(
        name="linear",
        title="Linear baseline",
        summary="Linear layers on single frames, pooled by attention over time: what the loudness of bands alone can tell.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448",
        views=frozenset({"attribution", "time_attention"}),
        published_key="linear.0.weight and fc_att.weight, without linear_in",
    )
)
class Linear(FrameTagger):
    """Linear baseline; the hidden representation is ``[batch, frames, hidden_size]``.

    As published, there is no activation between the layers, and dropout comes before every one of them.
    """

    Config = LinearConfig
    config: LinearConfig

    def __init__(self, config: LinearConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = [nn.Linear(config.n_mels, config.hidden_size)]
        for _ in range(config.n_layers):
            layers += [nn.LayerNorm(config.hidden_size), nn.Linear(config.hidden_size, config.hidden_size)]
        self.linear = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.dropout)
        self.build_head(config.hidden_size)

    @property
    def frames_per_step(self) -> int:
        """Every frame is a step."""
        return 1

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, frames, hidden_size]``."""
        for layer in self.linear:
            features = layer(self.dropout(features))
        return features

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The published features for the number of bands."""
        assert isinstance(config, LinearConfig)
        return audio_tagging_frontend(config.n_mels, recipe="linear")

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the list of linear layers beside frame attention."""
        return (
            "linear.0.weight" in state_dict and "fc_att.weight" in state_dict and "linear_in.weight" not in state_dict
        )

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> LinearConfig:
        """Everything can be read from the shapes."""
        hidden, n_mels = state_dict["linear.0.weight"].shape
        count = len({key.split(".")[1] for key in state_dict if key.startswith("linear.")})
        values: dict[str, Any] = {
            "n_classes": state_dict["fc_prob.weight"].shape[0], "n_mels": n_mels, "hidden_size": hidden,
            "n_layers": (count - 1) // 2,
        }  # fmt: skip
        return LinearConfig.model_validate(values | dict(hints))
