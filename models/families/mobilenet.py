"""MobileNetV2 on the log-mel image, the small baseline of the PSLA code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.frontends.kaldi import KaldiFbankConfig
from models.network import CamLayer, Network, NetworkConfig
from models.registry import FamilyInfo, register_family

# expansion, channels, repeats, stride of the first block (Sandler et al., 2018, table 2)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetConfig(NetworkConfig):
    """Settings of MobileNet; `dropout` is on the pooled features, while training (published: none)."""

    dropout: float = 0.0


class ConvNormActivation(nn.Sequential):
    """Convolution, batch norm, ReLU6, with torchvision's names."""

    def __init__(self, channels_in: int, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; a shortcut where the shape stays."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        parts: list[nn.Module] = [] if expansion == 1 else [ConvNormActivation(channels_in, inner, 1)]
        parts += [
            ConvNormActivation(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        ]
        self.conv = nn.Sequential(*parts)
        self.keeps_shape = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, H, W]`` to ``[batch, channels, H / stride, W / stride]``."""
        return x + self.conv(x) if self.keeps_shape else self.conv(x)


class MobileNetV2(nn.Module):
    """The convolutional part and one linear layer."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [ConvNormActivation(1, 32, 3, 2)]
        channels = 32
        for expansion, width, repeats, stride in _STAGES:
            for repeat in range(repeats):
                parts.append(InvertedResidual(channels, width, stride if repeat == 0 else 1, expansion))
                channels = width
        parts.append(ConvNormActivation(channels, 1280, 1))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(1280, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torch's own "fan out" forgets that depthwise kernels reach one channel only.
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)


@register_family(
    FamilyInfo(
        name="mobilenet",
        title="MobileNetV2",
        summary="A small convolutional network on the log-mel image, averaged over time and frequency.",
        citation="Sandler et al.: MobileNetV2. CVPR 2018, arXiv 1801.04381; Gong, Chung, Glass: PSLA. TASLP 2021",
        views=frozenset({"attribution"}),
        published_key="model.features.0.0.weight and model.classifier.weight",
    )
)
class MobileNet(Network):
    """MobileNet; the hidden representation is ``[batch, 1280]``. Reads any number of frames and bands."""

    Config = MobileNetConfig
    config: MobileNetConfig

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__(config)
        self.model = MobileNetV2(config.n_classes)
        self.dropout = nn.Dropout(config.dropout)

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, 1280]``."""
        return self.model.features(features.transpose(1, 2).unsqueeze(1)).mean(dim=(2, 3))

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, 1280]``; the published output is their sigmoid."""
        return self.model.classifier(self.dropout(hidden))

    def cam_layers(self) -> list[CamLayer]:
        """The feature map, and the last blocks at 1/16 and 1/8 of the resolution."""
        chosen = (("feature map", 18, 32), ("block 13", 13, 16), ("block 6", 6, 8))
        # A strided convolution with symmetric padding keeps cell 0 centred on frame 0.
        return [
            CamLayer(name, self.model.features[index], lambda x: x.transpose(2, 3), 0.0, step, 0.0, step)
            for name, index, step in chosen
        ]

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """PSLA's features for AudioSet (1056 frames)."""
        return KaldiFbankConfig(target_length=1056, padding="zero", mean=-4.6476, std_scale=4.5699)

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By torchvision's names behind ``model``."""
        return "model.features.0.0.weight" in state_dict and "model.classifier.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> MobileNetConfig:
        """The number of classes."""
        values = {"n_classes": state_dict["model.classifier.weight"].shape[0]}
        return MobileNetConfig.model_validate(values | dict(hints))
