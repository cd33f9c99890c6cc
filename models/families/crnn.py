"""CRNN: TALNet's convolutional stack, a bidirectional GRU, and frame scores pooled over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.frame_tagging import FrameTagger, infer_pooling
from models.layers.talnet import (
    ConvStackConfig,
    ExplainableGRU,
    conv_blocks,
    conv_cam_layers,
    infer_conv_stack,
    run_conv_blocks,
    without_duplicates,
)
from models.network import CamLayer, NetworkConfig
from models.registry import FamilyInfo, register_family


class CRNNConfig(ConvStackConfig):
    """Settings of CRNN; see `ConvStackConfig`. The published code fixes 527 classes, here `n_classes` counts."""


@register_family(
    FamilyInfo(
        name="crnn",
        title="CRNN (TALNet)",
        summary="Convolutions and a recurrent network that score every 40 ms and pool the scores over time.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448; "
        "Wang, Li, Metze: A comparison of five multiple instance learning pooling functions. ICASSP 2019",
        views=frozenset({"attribution", "time_attention"}),
        published_key="gru.weight_ih_l0 and fc_prob.weight",
    )
)
class CRNN(FrameTagger):
    """CRNN; the hidden representation is ``[batch, steps, embedding_size]``, one step per 4 frames.

    Quirks kept because checkpoints depend on them: convolutions have a bias before their batch norm, and sizes are rounded
    down. Published files name every convolution twice; here it has one name. The poolings ``h-att`` and ``all`` are those
    of the published variant that its command line cannot reach.
    """

    Config = CRNNConfig
    config: CRNNConfig

    def __init__(self, config: CRNNConfig) -> None:
        super().__init__(config)
        self.conv = conv_blocks(config)
        width = config.embedding_size
        self.gru = ExplainableGRU(width)
        self.dropout = nn.Dropout(config.dropout)
        self.build_head(width)

    @property
    def frames_per_step(self) -> int:
        """Four, unless there are fewer than two poolings."""
        return self.config.frames_per_step

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, steps, embedding_size]``."""
        sequence = self.dropout(run_conv_blocks(self.conv, features, self.config.dropout))
        sequence, _ = self.gru(sequence)
        return self.dropout(sequence)

    def cam_layers(self) -> list[CamLayer]:
        """Pooled convolution blocks."""
        return conv_cam_layers(self.conv, self.config)

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The published features: filter banks every 10 ms for more than 100 bands, else Slaney mels every 25 ms."""
        assert isinstance(config, CRNNConfig)
        return audio_tagging_frontend(config.n_mels)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the GRU beside the doubled convolutions."""
        return {"gru.weight_ih_l0", "fc_prob.weight"} <= set(state_dict)

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> CRNNConfig:
        """Everything but a pooling without weights can be read from the shapes."""
        values = infer_conv_stack(state_dict, hints) | infer_pooling(state_dict, hints)
        return CRNNConfig.model_validate(values | dict(hints))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Keep one of the two names of every convolution."""
        return without_duplicates(state_dict)
