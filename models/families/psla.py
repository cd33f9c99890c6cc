"""PSLA: EfficientNet on the log-mel image, pooled over time by several attention heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.frontends import FrontEndConfig
from models.frontends.kaldi import KaldiFbankConfig
from models.layers.attention_pooling import (
    Activation,
    AttentionPooling,
    HeadScores,
    MeanPooling,
    MultiHeadAttentionPooling,
    PooledScores,
)
from models.layers.efficientnet import SCALES, EfficientNet, MBConvBlock, block_count, head_channels
from models.network import CamLayer, Network, NetworkConfig, log_odds
from models.registry import FamilyInfo, register_family


class PSLAConfig(NetworkConfig):
    """Settings of PSLA.

    Attributes
    ----------
    b
        Size of the EfficientNet, 0 to 7; the published checkpoints are of size 2.
    heads
        Attention heads: 4, 1, or 0 for the mean over time.
    activation
        Of the published attention heads.
    corrected_head
        Softmax attention over linear class scores with logits as output, instead of the published probabilities.
    normalize_heads
        Divide the output by the sum of the learned head weights, so that it stays a probability. The published code does
        not: trained weights give outputs above 1, which are clamped here.
    """

    b: int = Field(2, ge=0, le=7)
    heads: Literal[0, 1, 4] = 4
    activation: Activation = "sigmoid"
    corrected_head: bool = False
    normalize_heads: bool = False


@register_family(
    FamilyInfo(
        name="psla",
        title="PSLA (EfficientNet with attention)",
        summary="An EfficientNet on the log-mel image whose time steps are pooled by four attention heads.",
        citation="Gong, Chung, Glass: PSLA: Improving Audio Tagging with Pretraining, Sampling, Labeling, and Aggregation. "
        "TASLP 2021, arXiv 2102.01243",
        views=frozenset({"attribution", "time_attention"}),
        published_key="effnet._conv_stem.weight",
    )
)
class PSLA(Network):
    """PSLA; the hidden representation is ``[batch, channels, steps]``, one step per 32 frames (320 ms).

    Quirks kept because checkpoints depend on them: every convolution is padded by half its kernel on all sides,
    ``softmax`` runs over classes, attention is clamped before it is normalised, and head weights need not sum to 1.
    """

    Config = PSLAConfig
    config: PSLAConfig

    def __init__(self, config: PSLAConfig) -> None:
        super().__init__(config)
        self.effnet = EfficientNet(config.b)
        channels, logits = self.effnet.channels, config.corrected_head
        self.attention: nn.Module
        if config.heads == 0:
            self.attention = MeanPooling(channels, config.n_classes, logits)
        elif config.heads == 1:
            self.attention = AttentionPooling(channels, config.n_classes, config.activation, logits)
        else:
            self.attention = MultiHeadAttentionPooling(channels, config.n_classes, config.activation, logits)

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, channels, steps]``.

        Raises
        ------
        SettingsError
            If the features do not have about 128 mel bands: four rows of the map are averaged.
        """
        image = self.effnet(features.transpose(1, 2).unsqueeze(1))
        if not 4 <= image.shape[2] <= 7:
            raise SettingsError(
                f"PSLA reads features with 128 mel bands, not {features.shape[2]}.", "Use a front end with n_mels: 128."
            )
        return image[:, :, :4].mean(dim=2)

    def pool(self, hidden: Tensor) -> PooledScores | HeadScores:
        """Attention, scores and their product for a hidden representation."""
        pooled: PooledScores | HeadScores = self.attention(hidden)
        if self.config.normalize_heads and isinstance(pooled, HeadScores):
            total = pooled.head_weight.sum()
            pooled = pooled._replace(output=pooled.output / total, head_weight=pooled.head_weight / total)
        return pooled

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, channels, steps]``."""
        output = self.pool(hidden).output
        return output if self.config.corrected_head else log_odds(output)

    def cam_layers(self) -> list[CamLayer]:
        """The feature map, and the last blocks at 1/16 and 1/8 of the resolution."""
        layers = [self._cam("feature map", self.effnet.act_head, 32)]
        step, last = 2, {}
        for index, block in enumerate(self.effnet._blocks):
            assert isinstance(block, MBConvBlock)
            step *= block._depthwise_conv.stride[0]
            last[step] = index
        layers += [self._cam(f"block {last[s] + 1}", self.effnet._blocks[last[s]], s) for s in (16, 8)]
        return layers

    @staticmethod
    def _cam(name: str, module: nn.Module, step: int) -> CamLayer:
        # A strided convolution with symmetric padding keeps cell 0 centred on frame 0.
        return CamLayer(name, module, lambda x: x.transpose(2, 3), 0.0, step, 0.0, step)

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over heads of ``head weight * attention * score`` per step: sums to the output."""
        contributions = self.pool(self.forward_features(features)).contributions
        return contributions, torch.arange(contributions.shape[2]) * 32.0

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """AudioSet's features (1056 frames); divided by one deviation, not two."""
        return KaldiFbankConfig(target_length=1056, padding="zero", mean=-4.6476, std_scale=4.5699)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the name of the EfficientNet."""
        return "effnet._conv_stem.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> PSLAConfig:
        """Everything but the activation (``sigmoid`` unless said otherwise) can be read from the shapes.

        Raises
        ------
        CheckpointError
            If there is no EfficientNet of that shape.
        """
        channels = state_dict["effnet._conv_head.weight"].shape[0]
        blocks = len({key.split(".")[2] for key in state_dict if key.startswith("effnet._blocks.")})
        sizes = [b for b in range(len(SCALES)) if head_channels(b) == channels and block_count(b) == blocks]
        if not sizes:
            raise CheckpointError(f"No EfficientNet has {blocks} blocks and {channels} channels.")
        heads = 4 if "attention.head_weight" in state_dict else 1 if "attention.att.weight" in state_dict else 0
        name = "attention.cla.0.weight" if heads == 4 else "attention.cla.weight"
        values: dict[str, Any] = {"n_classes": state_dict[name].shape[0], "b": sizes[0], "heads": heads}
        return PSLAConfig.model_validate(values | dict(hints))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Drop the ImageNet classifier that older files carry along."""
        return {key: value for key, value in state_dict.items() if not key.startswith("effnet._fc.")}
