"""ResNet with attention pooling over time, as compared in "AudioTagging Done Right" and PSLA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.frontends import FrontEndConfig
from models.frontends.kaldi import KaldiFbankConfig
from models.frontends.slaney import audio_tagging_frontend
from models.layers.attention_pooling import Activation, AttentionPooling, PooledScores
from models.network import CamLayer, Network, NetworkConfig, log_odds
from models.registry import FamilyInfo, register_family


class ResNetAttentionConfig(NetworkConfig):
    """Settings of the attention ResNet; the defaults are the published ResNet-50.

    Attributes
    ----------
    block, layers, width
        Residual block, blocks per stage, channels of the first stage.
    activation
        Of the published attention head.
    corrected_head
        Softmax attention over linear class scores with logits as output (what models trained here use), instead of the
        published probabilities.
    legacy_832
        The published checkpoints for 64 mel bands x 400 frames reshape the map ``[2048, 2, 13]`` to ``[832, 4, 16]``, which
        mixes channels, frequency and time. Such a model cannot say anything about time.
    dropout
        On the pooled features, while training.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    activation: Activation = "sigmoid"
    corrected_head: bool = False
    legacy_832: bool = False
    dropout: float = 0.0


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., 2016)."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.downsample = shortcut(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, H, W]`` to ``[batch, channels, H/stride, W/stride]``."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 and a shortcut; four times as many channels out."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.relu3 = nn.ReLU()
        self.downsample = shortcut(channels_in, channels * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, H, W]`` to ``[batch, 4 * channels, H/stride, W/stride]``."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(out)))))
        return self.relu3(out + (x if self.downsample is None else self.downsample(x)))


def shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module | None:
    """A strided 1x1 convolution where the shape changes, else nothing."""
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class ResNet(nn.Module):
    """The convolutional part, with torchvision's names and a one-channel stem."""

    def __init__(self, config: ResNetAttentionConfig) -> None:
        super().__init__()
        block = BasicBlock if config.block == "basic" else Bottleneck
        self.conv1 = nn.Conv2d(1, config.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = config.width
        for stage, depth in enumerate(config.layers):
            width = config.width * 2**stage
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(channels, width, 2 if index == 0 and stage > 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """``[batch, 1, n_mels, frames]`` to ``[batch, channels, n_mels / 32, frames / 32]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x


@register_family(
    FamilyInfo(
        name="resnet_attention",
        title="ResNet with attention pooling",
        summary="A residual network on the log-mel image whose time steps are pooled by learned attention.",
        citation="Li, Qu, Huang, Metze: AudioTagging Done Right. Interspeech 2022, arXiv 2203.13448; "
        "Gong, Chung, Glass: PSLA. TASLP 2021, arXiv 2102.01243",
        views=frozenset({"attribution", "time_attention"}),
        published_key="model.layer4 and attention.att.weight",
    )
)
class ResNetAttention(Network):
    """Attention ResNet; the hidden representation is ``[batch, channels, steps]``, one step per 32 frames."""

    Config = ResNetAttentionConfig
    config: ResNetAttentionConfig

    def __init__(self, config: ResNetAttentionConfig) -> None:
        super().__init__(config)
        self.model = ResNet(config)
        channels = 832 if config.legacy_832 else self.model.channels
        self.attention = AttentionPooling(channels, config.n_classes, config.activation, logits=config.corrected_head)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def views(self) -> frozenset[str]:
        """What this configuration can show; legacy checkpoints mix time, frequency and channels before their attention."""
        return self.info.views - {"time_attention"} if self.config.legacy_832 else self.info.views

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, channels, steps]``."""
        image = self.model(features.transpose(1, 2).unsqueeze(1))
        if self.config.legacy_832:
            if image[0].numel() % (832 * 4):
                raise SettingsError(
                    f"A legacy ResNet reads 385 to 416 frames of 64 mel bands, not {features.shape[1]} of {features.shape[2]}.",
                    "Use the front end it was trained with (slaney_db, 64 bands, 400 frames).",
                )
            image = image.reshape(image.shape[0], 832, 4, -1)
        return image.mean(dim=2)

    def pool(self, hidden: Tensor) -> PooledScores:
        """Attention, scores and their product for a hidden representation."""
        return self.attention(self.dropout(hidden))

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, channels, steps]``."""
        output = self.pool(hidden).output
        return output if self.config.corrected_head else log_odds(output)

    def cam_layers(self) -> list[CamLayer]:
        """The last three stages, best (coarsest) first."""
        names = ("layer4", "layer3", "layer2")
        layers = []
        for name, step in zip(names, (32, 16, 8), strict=True):
            module = getattr(self.model, name)
            # A strided convolution with symmetric padding keeps cell 0 centred on frame 0.
            layers.append(CamLayer(f"stage {name[-1]}", module, lambda x: x.transpose(2, 3), 0.0, step, 0.0, step))
        return layers

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``attention * scores`` per step: sums to the output."""
        if self.config.legacy_832:
            raise CheckpointError(
                "This checkpoint mixes time, frequency and channels before its attention, so its attention has no time.",
                "Use an attribution method instead.",
            )
        pooled = self.pool(self.forward_features(features))
        steps = pooled.attention.shape[2]
        return pooled.contributions, torch.arange(steps) * 32.0

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """PSLA's features for AudioSet (1056 frames); for legacy checkpoints 400 frames of 64 bands."""
        assert isinstance(config, ResNetAttentionConfig)
        if config.legacy_832:
            return audio_tagging_frontend(64, recipe="resnet")
        return KaldiFbankConfig(target_length=1056, padding="zero", mean=-4.6476, std_scale=4.5699)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By torchvision's stage names beside an attention head."""
        return "model.layer4.0.conv1.weight" in state_dict and "attention.att.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> ResNetAttentionConfig:
        """Everything but the activation can be read from the shapes."""
        depth = tuple(
            len({key.split(".")[2] for key in state_dict if key.startswith(f"model.layer{stage}.")})
            for stage in range(1, 5)
        )
        values: dict[str, Any] = {
            "n_classes": state_dict["attention.att.weight"].shape[0],
            "layers": depth,
            "width": state_dict["model.conv1.weight"].shape[0],
            "block": "bottleneck" if "model.layer1.0.conv3.weight" in state_dict else "basic",
            "legacy_832": state_dict["attention.att.weight"].shape[1] == 832,
        }
        return ResNetAttentionConfig.model_validate(values | dict(hints))
