"""The convolutional front end of wav2vec 2.0, without the transformer behind it.

Baevski, Zhou, Mohamed, Auli: wav2vec 2.0. NeurIPS 2020, arXiv 2006.11477, section 2 (feature encoder).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

# (channels, kernel, stride) of the base model: 400 samples of receptive field every 320 samples.
BASE_LAYERS: tuple[tuple[int, int, int], ...] = ((512, 10, 5), *((512, 3, 2),) * 4, (512, 2, 2), (512, 2, 2))


class ConvBlock(nn.Module):
    """Convolution without bias, group norm over time for the first block, exact GELU."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, normalize: bool) -> None:
        super().__init__()
        self.layer_norm = nn.GroupNorm(channels, channels) if normalize else None
        self.conv = nn.Conv1d(channels_in, channels, kernel, stride, bias=False)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, samples]`` to ``[batch, channels, (samples - kernel) // stride + 1]``."""
        x = self.conv(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return self.activation(x)


class Wav2Vec2FrontEnd(nn.Module):
    """Blocks of `ConvBlock` on raw samples, with torchaudio's parameter names.

    Parameters
    ----------
    layers
        (channels, kernel, stride) of every block.
    """

    def __init__(self, layers: Sequence[tuple[int, int, int]] = BASE_LAYERS) -> None:
        super().__init__()
        self.layers = tuple(layers)
        blocks = []
        channels_in = 1
        for index, (channels, kernel, stride) in enumerate(layers):
            blocks.append(ConvBlock(channels_in, channels, kernel, stride, normalize=index == 0))
            channels_in = channels
        self.conv_layers = nn.ModuleList(blocks)

    @property
    def receptive_field(self) -> int:
        """Samples that one output step depends on (group norm apart)."""
        field, hop = 1, 1
        for _, kernel, stride in self.layers:
            field += (kernel - 1) * hop
            hop *= stride
        return field

    @property
    def hop_length(self) -> int:
        """Samples from one output step to the next."""
        hop = 1
        for _, _, stride in self.layers:
            hop *= stride
        return hop

    def forward(self, waveform: Tensor) -> Tensor:
        """``[batch, samples]`` to ``[batch, steps, channels]``."""
        x = waveform.unsqueeze(1)
        for block in self.conv_layers:
            x = block(x)
        return x.transpose(1, 2)


_GAINS = (0.3, 0.02)


def mel_filters(channels: int, kernel: int, sample_rate: int, f_min: float = 60.0) -> Tensor:
    """Band-pass filters to start a first convolution from, ``[channels, 1, kernel]``: bands as wide and as far apart as mel bands.

    Every band comes in two phases and at two gains. The group norm behind the convolution hardly changes what is far below
    its epsilon and levels what is far above, so that two gains together tell quiet bands from loud ones.
    """
    bands = max(1, channels // (2 * len(_GAINS)))
    low, high = (1127.0 * np.log1p(f / 700.0) for f in (f_min, 0.475 * sample_rate))
    edges = 700.0 * np.expm1(np.linspace(low, high, bands + 2) / 1127.0)
    time = (np.arange(kernel) - (kernel - 1) / 2) / sample_rate
    filters = np.zeros((channels, kernel))
    row = 0
    for gain in _GAINS:
        for before, center, after in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            window = np.exp(-0.5 * (time * 2.0 * (after - before)) ** 2) * np.hanning(kernel)
            for phase in (0.0, np.pi / 2):
                response = window * np.cos(2 * np.pi * center * time + phase)
                response -= window * response.sum() / window.sum()
                if row < channels:
                    filters[row] = gain * response / np.abs(np.fft.rfft(response, 4096)).max()
                row += 1
    return torch.tensor(filters, dtype=torch.float32).unsqueeze(1)


@torch.no_grad()
def start_from_mel(frontend: Wav2Vec2FrontEnd, sample_rate: int) -> None:
    """Set the first convolution to `mel_filters`, the others to random values that keep the size of what comes in."""
    first, *others = [block.conv for block in frontend.conv_layers if isinstance(block, ConvBlock)]
    first.weight.copy_(mel_filters(first.out_channels, first.kernel_size[0], sample_rate))
    for conv in others:
        nn.init.kaiming_normal_(conv.weight)
