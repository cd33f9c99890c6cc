"""EfficientNet (Tan & Le, ICML 2019), with the names and the padding of the checkpoints that PSLA published."""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.layers.transformer import DropPath

# width and depth multipliers of b0 ... b7
SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))
# repeats, kernel, stride of the first block, expansion, channels in and out
STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip


def scaled_channels(channels: int, scale: float) -> int:
    """``channels * scale``, rounded to a multiple of 8 without losing more than a tenth."""
    rounded = max(8, int(channels * scale + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * scale else rounded


def block_count(b: int) -> int:
    """How many blocks the variant ``b`` has."""
    return sum(math.ceil(SCALES[b][1] * stage[0]) for stage in STAGES)


def head_channels(b: int) -> int:
    """Channels of the variant's feature map."""
    return scaled_channels(1280, SCALES[b][0])


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConvBlock(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int, drop_path: float
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(channels_in, inner, 1, bias=False)
            self._bn0 = _norm(inner)
            self.act0 = nn.SiLU()
        # Padded by half the kernel on all sides, whatever the input's size: a quirk of the package version that the
        # checkpoints were trained with. "Same" padding elsewhere is one-sided for even sizes.
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self.act1 = nn.SiLU()
        squeezed = max(1, int(channels_in * 0.25))
        self._se_reduce = nn.Conv2d(inner, squeezed, 1)
        self.act_se = nn.SiLU()
        self._se_expand = nn.Conv2d(squeezed, inner, 1)
        self.gate = nn.Sigmoid()
        self._project_conv = nn.Conv2d(inner, channels, 1, bias=False)
        self._bn2 = _norm(channels)
        self.drop_path = DropPath(drop_path) if stride == 1 and channels_in == channels else None

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, H, W]`` to ``[batch, channels, H / stride, W / stride]``."""
        out = self.act0(self._bn0(self._expand_conv(x))) if self.expands else x
        out = self.act1(self._bn1(self._depthwise_conv(out)))
        squeezed = self.act_se(self._se_reduce(out.mean(dim=(2, 3), keepdim=True)))
        out = self._bn2(self._project_conv(out * self.gate(self._se_expand(squeezed))))
        return out if self.drop_path is None else x + self.drop_path(out)


class EfficientNet(nn.Module):
    """The convolutional part of variant ``b``, for one-channel images."""

    def __init__(self, b: int) -> None:
        super().__init__()
        width, depth = SCALES[b]
        stem = scaled_channels(32, width)
        self._conv_stem = nn.Conv2d(1, stem, 3, 2, 1, bias=False)
        self._bn0 = _norm(stem)
        self.act_stem = nn.SiLU()
        blocks: list[nn.Module] = []
        total = block_count(b)
        for repeats, kernel, stride, expansion, channels_in, channels in STAGES:
            wide_in, wide_out = scaled_channels(channels_in, width), scaled_channels(channels, width)
            for repeat in range(math.ceil(depth * repeats)):
                first = repeat == 0
                rate = 0.2 * len(blocks) / total
                blocks.append(
                    MBConvBlock(
                        wide_in if first else wide_out, wide_out, kernel, stride if first else 1, expansion, rate
                    )
                )
        self._blocks = nn.ModuleList(blocks)
        self.channels = head_channels(b)
        self._conv_head = nn.Conv2d(scaled_channels(320, width), self.channels, 1, bias=False)
        self._bn1 = _norm(self.channels)
        self.act_head = nn.SiLU()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # The paper's start; torch's own "fan out" forgets that depthwise kernels reach one channel only.
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))

    def forward(self, image: Tensor) -> Tensor:
        """``[batch, 1, n_mels, frames]`` to ``[batch, channels, n_mels / 32, frames / 32]``."""
        x = self.act_stem(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            x = block(x)
        return self.act_head(self._bn1(self._conv_head(x)))
