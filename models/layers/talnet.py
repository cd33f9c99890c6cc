"""The convolutional stack of TALNet, shared by CRNN and CNN-Transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator
from torch import Tensor, nn

from models.layers.frame_tagging import FrameTaggingConfig
from models.network import CamLayer


class ConvStackConfig(FrameTaggingConfig):
    """Settings of the convolutional stack; the defaults are the published constructor's.

    Attributes
    ----------
    n_mels
        Mel bands of the input.
    embedding_size
        Channels times remaining bands behind the last layer.
    n_conv_layers, n_pool_layers
        The first must be a multiple of the second; a pooling layer follows every ``n_conv / n_pool`` convolutions.
    kernel_size
        Along time and frequency, odd.
    batch_norm
        Whether the convolutions are normalised.
    dropout
        Before every convolution and around the sequence model, while training.
    """

    n_mels: int = 64
    embedding_size: int = 1024
    n_conv_layers: int = 10
    n_pool_layers: int = 5
    kernel_size: tuple[int, int] = (3, 3)
    batch_norm: bool = True
    dropout: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> ConvStackConfig:
        if self.n_pool_layers < 1 or self.n_conv_layers % self.n_pool_layers:
            raise ValueError("n_conv_layers must be a multiple of n_pool_layers")
        if any(size < 1 or size % 2 == 0 for size in self.kernel_size):
            raise ValueError("kernel_size must be odd")
        bands = self.n_mels >> self.n_pool_layers
        if bands < 1:
            raise ValueError(f"{self.n_mels} mel bands cannot be halved {self.n_pool_layers} times")
        if self.channels[-1] * bands != self.embedding_size:
            raise ValueError(
                f"embedding_size {self.embedding_size} is not the last layer's {self.channels[-1]} channels times "
                f"{bands} remaining bands"
            )
        return self

    @property
    def interval(self) -> int:
        """Convolutions per pooling."""
        return self.n_conv_layers // self.n_pool_layers

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of every convolution; all divisions round down, as published."""
        bands, channels = self.n_mels, []
        for index in range(self.n_conv_layers):
            if (index + 1) % self.interval == 0:
                bands //= 2
                channels.append(self.embedding_size // max(bands, 1))
            else:
                channels.append(2 * self.embedding_size // bands)
        return tuple(channels)

    @property
    def pools(self) -> tuple[tuple[int, int] | None, ...]:
        """Pooling behind every convolution along time and frequency: time is halved twice at most."""
        return tuple(
            None if (index + 1) % self.interval else ((2, 2) if index < 2 * self.interval else (1, 2))
            for index in range(self.n_conv_layers)
        )

    @property
    def frames_per_step(self) -> int:
        """Feature frames per step behind the stack."""
        return 1 << min(2, self.n_pool_layers)


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU, max-pooling. The convolution has a bias even before a batch norm, as published."""

    def __init__(
        self, channels_in: int, channels: int, kernel: tuple[int, int], batch_norm: bool, pool: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
        self.bn = nn.BatchNorm2d(channels) if batch_norm else None
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(pool) if pool else None
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels_in, frames, bands]`` to ``[batch, channels, frames / pool, bands / pool]``."""
        x = self.conv(x)
        x = self.relu(x if self.bn is None else self.bn(x))
        return x if self.pool is None else self.pool(x)


def conv_blocks(config: ConvStackConfig) -> nn.ModuleList:
    """The blocks of the stack, first to last."""
    channels = (1, *config.channels)
    return nn.ModuleList(
        ConvBlock(channels[i], channels[i + 1], config.kernel_size, config.batch_norm, config.pools[i])
        for i in range(config.n_conv_layers)
    )


def run_conv_blocks(blocks: nn.ModuleList, features: Tensor, dropout: float) -> Tensor:
    """``[batch, frames, n_mels]`` to ``[batch, steps, embedding_size]``, channel-major. Time is the image's height."""
    x = features.unsqueeze(1)
    for block in blocks:
        if dropout > 0 and block.training:
            x = nn.functional.dropout(x, dropout)
        x = block(x)
    return x.transpose(1, 2).flatten(2)


def conv_cam_layers(blocks: nn.ModuleList, config: ConvStackConfig) -> list[CamLayer]:
    """The pooled blocks, best first: deep enough to know classes, with more than two bands left."""
    layers = []
    time_step = frequency_step = 1
    for index, pool in enumerate(config.pools):
        if pool is None:
            continue
        time_step, frequency_step = time_step * pool[0], frequency_step * pool[1]
        layers.append(
            CamLayer(
                f"convolution {index + 1} of {config.n_conv_layers}", blocks[index], _same,
                (time_step - 1) / 2, time_step, (frequency_step - 1) / 2, frequency_step,
            )
        )  # fmt: skip
    best = layers[-2:-4:-1] + layers[-1:] if len(layers) > 1 else layers
    return best


def _same(x: Tensor) -> Tensor:
    return x


def without_duplicates(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published files hold every block twice, as ``conv.{i}`` and ``conv{i + 1}``; keep the first name, from either."""
    result: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        head, _, rest = key.partition(".")
        number = head.removeprefix("conv")
        if head != "conv" and head.startswith("conv") and number.isdecimal():
            result.setdefault(f"conv.{int(number) - 1}.{rest}", value)
        else:
            result[key] = value
    return result


def with_duplicates(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The opposite, for files that the published code can load."""
    result = dict(state_dict)
    for key, value in state_dict.items():
        if key.startswith("conv."):
            _, number, rest = key.split(".", 2)
            result[f"conv{int(number) + 1}.{rest}"] = value
    return result


def infer_conv_stack(state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the stack from a published checkpoint's shapes."""
    weights = without_duplicates(state_dict)
    n_conv = len({key.split(".")[1] for key in weights if key.startswith("conv.")})
    channels = tuple(weights[f"conv.{index}.conv.weight"].shape[0] for index in range(n_conv))
    width = weights["fc_prob.weight"].shape[1]
    values: dict[str, Any] = {
        "embedding_size": width,
        "n_conv_layers": n_conv,
        "kernel_size": tuple(weights["conv.0.conv.weight"].shape[2:]),
        "batch_norm": "conv.0.bn.weight" in weights,
    }
    bands = width // channels[-1]
    for n_pool in range(1, n_conv + 1):
        if n_conv % n_pool:
            continue
        for n_mels in range(bands << n_pool, (bands + 1) << n_pool):
            found = values | {"n_pool_layers": n_pool, "n_mels": n_mels} | dict(hints)
            try:
                same = ConvStackConfig.model_validate(
                    {key: value for key, value in found.items() if key in ConvStackConfig.model_fields}
                ).channels
            except ValueError:
                continue
            if same == channels:
                return found
    return values


class ExplainableGRU(nn.GRU):
    """A bidirectional GRU without dropout that can be explained in evaluation mode on a GPU, too.

    cuDNN goes backward through a recurrent network only if it ran in training mode; without dropout that makes no other
    difference, so this module stays in it. Weights start orthogonal and biases 0, as published.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width // 2, batch_first=True, bidirectional=True)
        for name, parameter in self.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter)

    def train(self, mode: bool = True) -> ExplainableGRU:
        """Stay in training mode."""
        super().train(True)
        return self
