"""No front end at all: the network reads samples."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.frontends.base import FrontEnd, FrontEndConfig, register_frontend


class WaveformConfig(FrontEndConfig):
    """Settings of `Waveform`; `target_length` is in samples."""

    kind: str = "waveform"
    n_mels: int = 0


@register_frontend("waveform")
class Waveform(FrontEnd):
    """Samples as features: ``[batch, samples]`` becomes ``[batch, samples, 1]``.

    A frame is one sample, so `hop_length`, `win_length` and `n_fft` are 1 and frame times are those of samples. There
    are no mel bands (`n_mels` 0, empty `frequencies` and `filterbank`); the one column of the features is the
    amplitude. Digital silence is 0, which is also what padding appends.
    """

    Config: ClassVar[type[FrontEndConfig]] = WaveformConfig
    n_fft = 1
    win_length = 1
    hop_length = 1
    centered = False
    floor = 0.0

    def __init__(self, config: WaveformConfig) -> None:
        if config.n_mels != 0:
            raise ValueError("a waveform has no mel bands: n_mels must be 0")
        super().__init__(config)
        self.register_buffer("filterbank", torch.zeros(0, 1), persistent=False)

    @property
    def frequencies(self) -> np.ndarray:
        """Empty: samples have no frequency axis."""
        return np.zeros(0)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """The samples themselves, ``[batch, samples, 1]``."""
        return waveform.unsqueeze(2)
