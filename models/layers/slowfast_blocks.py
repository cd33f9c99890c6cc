"""The residual blocks of Auditory SlowFast: convolutions factored into time-only and frequency-only ones.

All convolutions are 2-D without bias, with kernels written (time, frequency). Kazakos et al., ICASSP 2021, arXiv 2103.03516.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


@functools.cache
def slow_index(n_frames: int, alpha: int) -> Tensor:
    """Frames of the fast stream that the slow one reads: ``floor(linspace(0, n_frames - 1, n_frames // alpha))``.

    The arithmetic is float32 on the CPU: rounding decides some entries (frame 52, not 53, for 160 frames and alpha 4).
    """
    # The cached tensor may be made in inference mode first and needed for a gradient later.
    with torch.inference_mode(False):
        return torch.linspace(0, n_frames - 1, n_frames // alpha, dtype=torch.float32, device="cpu").long()


class StemPathway(nn.Module):
    """Convolution, batch norm, ReLU and max pooling; a quarter of the frames and bands remain."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, (kernel, 7), (2, 2), (kernel // 2, 3), bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, 1, frames, n_mels]`` to ``[batch, width, frames / 4, n_mels / 4]``."""
        return self.pool(self.relu(self.bn(self.conv(x))))


class Fuse(nn.Module):
    """Lateral connection: the fast stream, brought to the slow one's steps, is appended to its channels."""

    def __init__(self, channels: int, ratio: int, kernel: int, alpha: int) -> None:
        super().__init__()
        self.conv_f2s = nn.Conv2d(channels, channels * ratio, (kernel, 1), (alpha, 1), (kernel // 2, 0), bias=False)
        self.bn = nn.BatchNorm2d(channels * ratio)
        self.relu = nn.ReLU()

    def forward(self, x: Sequence[Tensor]) -> list[Tensor]:
        """``[slow, fast]`` to ``[slow with more channels, fast]``."""
        slow, fast = x
        return [torch.cat([slow, self.relu(self.bn(self.conv_f2s(fast)))], dim=1), fast]


class BlockShape(NamedTuple):
    """Sizes of a residual block.

    Attributes
    ----------
    channels_in, inner, channels
        Before it, within its bottleneck, and behind it.
    kernel, dilation
        Size of the time-only convolution; dilation of the frequency-only one.
    strides
        In frequency, of the time-only and the frequency-only convolution.
    groups
        Of the frequency-only convolution.
    """

    channels_in: int
    inner: int
    channels: int
    kernel: int
    strides: tuple[int, int]
    groups: int
    dilation: int


class Bottleneck(nn.Module):
    """Time-only, frequency-only and 1x1 convolution."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        inner, kernel, (before, stride) = shape.inner, shape.kernel, shape.strides
        self.a = nn.Conv2d(shape.channels_in, inner, (kernel, 1), (1, before), (kernel // 2, 0), bias=False)
        self.a_bn = nn.BatchNorm2d(inner)
        self.a_relu = nn.ReLU()
        self.b = nn.Conv2d(
            inner, inner, (1, 3), (1, stride), (0, shape.dilation), (1, shape.dilation), groups=shape.groups, bias=False
        )
        self.b_bn = nn.BatchNorm2d(inner)
        self.b_relu = nn.ReLU()
        self.c = nn.Conv2d(inner, shape.channels, 1, bias=False)
        self.c_bn = nn.BatchNorm2d(shape.channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, T, F]`` to ``[batch, channels, T, F / stride]``."""
        return self.c_bn(self.c(self.b_relu(self.b_bn(self.b(self.a_relu(self.a_bn(self.a(x))))))))


class ResBlock(nn.Module):
    """``ReLU(shortcut + bottleneck)``; the shortcut is a strided 1x1 convolution where the shape changes."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        stride = shape.strides[0] * shape.strides[1]
        self.has_shortcut = shape.channels_in != shape.channels or stride != 1
        if self.has_shortcut:
            self.branch1 = nn.Conv2d(shape.channels_in, shape.channels, 1, (1, stride), bias=False)
            self.branch1_bn = nn.BatchNorm2d(shape.channels)
        self.branch2 = Bottleneck(shape)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, T, F]`` to ``[batch, channels, T, F / stride]``."""
        shortcut = self.branch1_bn(self.branch1(x)) if self.has_shortcut else x
        return self.relu(shortcut + self.branch2(x))
