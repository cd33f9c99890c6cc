"""R3D-18, a residual network of 3-D convolutions on short runs of video frames.

Tran et al.: A Closer Look at Spatiotemporal Convolutions for Action Recognition. CVPR 2018, arXiv 1711.11248.
Parameter names are torchvision's, so that its Kinetics-400 weights fit.
"""

from __future__ import annotations

from torch import Tensor, nn


def _convolution(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv3d(channels_in, channels, 3, stride, padding=1, bias=False), nn.BatchNorm3d(channels)]


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with a shortcut; `stride` acts on time, height and width."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_convolution(channels_in, channels, stride), nn.ReLU())
        self.conv2 = nn.Sequential(*_convolution(channels, channels, 1))
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm3d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, T, H, W]`` to ``[batch, channels, T/stride, H/stride, W/stride]``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class R3D18(nn.Module):
    """The network; its feature is the mean of the last stage over time and space.

    Parameters
    ----------
    width
        Channels of the stem and the first stage (published: 64); each further stage doubles them.
    n_classes
        Outputs of the classifier, which only its own published weights use.
    """

    def __init__(self, width: int = 64, n_classes: int = 400) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(width), nn.ReLU()
        )
        channels = width
        for stage in range(4):
            stage_width = width * 2**stage
            first = BasicBlock(channels, stage_width, 1 if stage == 0 else 2)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, BasicBlock(stage_width, stage_width)))
            channels = stage_width
        self.channels = channels
        self.fc = nn.Linear(channels, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def features(self, video: Tensor) -> Tensor:
        """``[batch, 3, T, H, W]``, normalised, to ``[batch, channels]``."""
        x = self.stem(video)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3, 4))

    def forward(self, video: Tensor) -> Tensor:
        """Logits of the video classes, ``[batch, n_classes]``."""
        return self.fc(self.features(video))
