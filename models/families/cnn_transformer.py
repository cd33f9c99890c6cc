"""CNN-Transformer: TALNet's convolutional stack, one transformer layer applied several times, pooled frame scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.frame_tagging import FrameTagger, infer_pooling
from models.layers.post_norm import PositionalEncoding, PostNormLayer
from models.layers.talnet import (
    ConvStackConfig,
    conv_blocks,
    conv_cam_layers,
    infer_conv_stack,
    run_conv_blocks,
    without_duplicates,
)
from models.network import CamLayer, NetworkConfig
from models.registry import FamilyInfo, register_family

N_HEADS = 8


class CNNTransformerConfig(ConvStackConfig):
    """Settings of CNN-Transformer; see also `ConvStackConfig`.

    Attributes
    ----------
    n_trans_layers
        How often the one layer is applied (its weights are shared).
    addpos
        Add a table of positions to the input features, which are multiplied by 8.
    target_length
        Frames in that table.
    transformer_dropout
        Inside the layer, while training.
    """

    n_trans_layers: int = 2
    addpos: bool = False
    target_length: int = 400
    transformer_dropout: float = 0.5

    @model_validator(mode="after")
    def _check_transformer(self) -> CNNTransformerConfig:
        if self.embedding_size < N_HEADS:
            raise ValueError(f"embedding_size must be at least {N_HEADS}, one per attention head")
        if self.addpos and self.n_mels % 2:
            raise ValueError("addpos needs an even number of mel bands")
        return self


@register_family(
    FamilyInfo(
        name="cnn_transformer",
        title="CNN-Transformer",
        summary="Convolutions and a shared transformer layer that score every 40 ms and pool the scores over time.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448",
        views=frozenset({"attribution", "time_attention"}),
        published_key="enc_layer.slf_attn.w_qs.weight",
    )
)
class CNNTransformer(FrameTagger):
    """CNN-Transformer; the hidden representation is ``[batch, steps, embedding_size]``, one step per 4 frames.

    Quirks kept because checkpoints depend on them: one layer is applied `n_trans_layers` times, positions run over the mel
    bands of the *input* features, and convolutions have a bias before their batch norm.
    """

    Config = CNNTransformerConfig
    config: CNNTransformerConfig

    def __init__(self, config: CNNTransformerConfig) -> None:
        super().__init__(config)
        width = config.embedding_size
        self.positional_encoding = PositionalEncoding(config.n_mels, config.target_length) if config.addpos else None
        self.conv = conv_blocks(config)
        self.dropout = nn.Dropout(config.dropout)
        self.enc_layer = PostNormLayer(width, width, config.transformer_dropout, N_HEADS)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(config.n_trans_layers))
        self.build_head(width)

    @property
    def frames_per_step(self) -> int:
        """Four, unless there are fewer than two poolings."""
        return self.config.frames_per_step

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, steps, embedding_size]``.

        Raises
        ------
        SettingsError
            If there are more frames than the table of positions has.
        """
        if self.positional_encoding is not None:
            if features.shape[1] > self.config.target_length:
                raise SettingsError(
                    f"This model knows positions of {self.config.target_length} frames, not of {features.shape[1]}.",
                    "Cut the clip, or set the front end's target_length.",
                )
            features = self.positional_encoding(features)
        sequence = self.dropout(run_conv_blocks(self.conv, features, self.config.dropout))
        for relu in self.relus:
            sequence = self.enc_layer(sequence, relu)
        return self.dropout(sequence)

    @torch.no_grad()
    def self_attention(self, features: Tensor) -> Tensor:
        """Attention weights ``[batch, application, head, query step, key step]`` of every application of the layer."""
        attention = self.enc_layer.slf_attn
        try:
            attention.keep_attention = True
            self.forward_features(features)
            return torch.stack(attention.kept, dim=1)
        finally:
            attention.keep_attention, attention.kept = False, []

    def cam_layers(self) -> list[CamLayer]:
        """Pooled convolution blocks."""
        return conv_cam_layers(self.conv, self.config)

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The published features for the number of bands; as many frames as there are positions."""
        assert isinstance(config, CNNTransformerConfig)
        return audio_tagging_frontend(config.n_mels, config.target_length if config.addpos else None)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the name of the shared layer."""
        return "enc_layer.slf_attn.w_qs.weight" in state_dict and "fc_prob.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> CNNTransformerConfig:
        """All but `n_trans_layers` and a pooling without weights can be read from the shapes."""
        if "n_trans_layers" not in hints:
            raise CheckpointError(
                "The checkpoint does not say how often its transformer layer is applied.",
                "Give n_trans_layers (the published recipe uses 2).",
            )
        table = state_dict.get("positional_encoding.pe")
        values: dict[str, Any] = {"addpos": table is not None}
        if table is not None:
            values |= {"target_length": table.shape[1]}
            hints = {"n_mels": table.shape[2]} | dict(hints)
        values |= infer_conv_stack(state_dict, hints) | infer_pooling(state_dict, hints)
        return CNNTransformerConfig.model_validate(values | dict(hints))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Keep one of the two names of every convolution."""
        return without_duplicates(state_dict)
