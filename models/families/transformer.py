"""Transformer: a projection of every frame, post-norm layers, and frame scores pooled over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.frame_tagging import FrameTagger, FrameTaggingConfig, infer_pooling
from models.layers.post_norm import PostNormAttention, PostNormLayer
from models.network import NetworkConfig
from models.registry import FamilyInfo, register_family

N_HEADS = 8
_POOLED_FRAMES = 4


class TransformerConfig(FrameTaggingConfig):
    """Settings of Transformer.

    Attributes
    ----------
    n_mels, embedding_size
        Bands of the input and width of the layers.
    n_trans_layers
        Layers, each with weights of its own.
    dropout
        While training.
    """

    n_mels: int = 64
    embedding_size: int = 1024
    n_trans_layers: int = 2
    dropout: float = 0.5

    @model_validator(mode="after")
    def _check(self) -> TransformerConfig:
        if self.embedding_size < N_HEADS:
            raise ValueError(f"embedding_size must be at least {N_HEADS}, one per attention head")
        return self


@register_family(
    FamilyInfo(
        name="transformer",
        title="Transformer",
        summary="A transformer on single frames whose scores are pooled over time; it does not know their order.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448",
        views=frozenset({"attribution", "time_attention"}),
        published_key="linear_in.weight and layer_stack.0.slf_attn.w_qs.weight",
    )
)
class Transformer(FrameTagger):
    """Transformer; the hidden representation is ``[batch, steps, embedding_size]``, one step per 4 frames.

    It has no positional encoding (as published): but for the windows of the final max-pooling, the order of frames does not
    matter to it.
    """

    Config = TransformerConfig
    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        width = config.embedding_size
        self.linear_in = nn.Linear(config.n_mels, width)
        self.layer_norm_in = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.layer_stack = nn.ModuleList(
            PostNormLayer(width, 2 * width, config.dropout, N_HEADS) for _ in range(config.n_trans_layers)
        )
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(config.n_trans_layers))
        self.pool_frames = nn.MaxPool1d(_POOLED_FRAMES)
        nn.init.xavier_uniform_(self.linear_in.weight)
        self.build_head(width)

    @property
    def frames_per_step(self) -> int:
        """Four frames are max-pooled into one step."""
        return _POOLED_FRAMES

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, steps, embedding_size]``."""
        sequence = self.dropout(self.layer_norm_in(self.linear_in(features)))
        for layer, relu in zip(self.layer_stack, self.relus, strict=True):
            sequence = layer(sequence, relu)
        sequence = self.dropout(sequence)
        return self.pool_frames(sequence.transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def self_attention(self, features: Tensor) -> Tensor:
        """Attention weights ``[batch, layer, head, query frame, key frame]``."""
        attentions = [module for module in self.layer_stack.modules() if isinstance(module, PostNormAttention)]
        try:
            for attention in attentions:
                attention.keep_attention = True
            self.forward_features(features)
            return torch.stack([attention.kept[0] for attention in attentions], dim=1)
        finally:
            for attention in attentions:
                attention.keep_attention, attention.kept = False, []

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The published features for the number of bands."""
        assert isinstance(config, TransformerConfig)
        return audio_tagging_frontend(config.n_mels)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the projection and the stack of layers."""
        return "linear_in.weight" in state_dict and "layer_stack.0.slf_attn.w_qs.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> TransformerConfig:
        """Everything but a pooling without weights can be read from the shapes."""
        width, n_mels = state_dict["linear_in.weight"].shape
        depth = len({key.split(".")[1] for key in state_dict if key.startswith("layer_stack.")})
        values: dict[str, Any] = {"n_mels": n_mels, "embedding_size": width, "n_trans_layers": depth}
        return TransformerConfig.model_validate(values | infer_pooling(state_dict, hints) | dict(hints))
