"""The convolutional front end of wav2vec 2.0, without the transformer behind it.

Baevski, Zhou, Mohamed, Auli: wav2vec 2.0. NeurIPS 2020, arXiv 2006.11477, section 2 (feature encoder).
"""

from __future__ import annotations

from collections.abc import Sequence

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
