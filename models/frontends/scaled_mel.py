"""Log-mel on the Slaney scale, each band stretched to -10..10 over the clip: an alternative input of SlowFast with LEP."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from models.errors import SettingsError
from models.frontends.base import FrontEnd, FrontEndConfig, register_frontend
from models.frontends.htk_mel import stft_magnitude
from models.frontends.slaney import slaney_banks, slaney_edges


class ScaledMelConfig(FrontEndConfig):
    """Settings of `ScaledMel`; `clip_seconds` as in `models.frontends.htk_mel.HtkMelConfig`."""

    kind: str = "scaled_mel"
    padding: Literal["zero", "silence", "repeat"] = "repeat"
    target_length: int | None = Field(default=512, ge=1)
    n_fft: int = Field(default=2048, ge=2)
    hop_length: int = Field(default=512, ge=1)
    clip_seconds: float = Field(default=5.119, gt=0.0)


@register_frontend("scaled_mel")
class ScaledMel(FrontEnd):
    """``ln(1 + B |STFT|)`` with triangles of equal area, then ``-10 + 20 (x - min) / (max - min)`` per band and clip.

    Reproduces two quirks that a checkpoint trained on it depends on: the signal fills only the first third of the frames
    (the rest repeats the last one), and clips shorter than the crop are not stretched at all.
    """

    Config = ScaledMelConfig
    config: ScaledMelConfig
    window: Tensor

    def __init__(self, config: ScaledMelConfig) -> None:
        super().__init__(config)
        self.n_fft = self.win_length = config.n_fft
        self.hop_length, self.centered, self.floor = config.hop_length, True, 0.0
        nyquist = config.sample_rate / 2
        self._edges = slaney_edges(config.n_mels, 0.0, nyquist)
        banks = slaney_banks(config.n_mels, config.n_fft, config.sample_rate, 0.0, nyquist)
        self.register_buffer("filterbank", banks, persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of every band in Hz, float64 ``[n_mels]``."""
        return self._edges[1:-1]

    @property
    def window_samples(self) -> int:
        """Samples of one published crop."""
        return round(self.config.clip_seconds * self.sample_rate) - 1

    def frames_for(self, n_samples: int) -> int:
        """Frames of `log_mel`, which lengthens what is too short to be mirrored."""
        return super().frames_for(max(n_samples, self.n_fft // 2 + 1))

    @property
    def silence(self) -> float:
        """Value of a band that is silent throughout."""
        return -10.0

    def log_mel(self, waveform: Tensor) -> Tensor:
        """``ln(1 + S)``, ``[batch, frames, n_mels]``; the ends are mirrored, so at least half a window is needed."""
        if waveform.shape[1] <= self.n_fft // 2:
            waveform = torch.nn.functional.pad(waveform, (0, self.n_fft // 2 + 1 - waveform.shape[1]))
        return torch.log1p(
            stft_magnitude(waveform, self.window, self.n_fft, self.hop_length, "reflect") @ self.filterbank.T
        )

    def normalize(self, log_mel: Tensor) -> Tensor:
        """Every band of every clip to -10..10; a constant band to -10."""
        low, high = log_mel.amin(dim=1, keepdim=True), log_mel.amax(dim=1, keepdim=True)
        span = high - low
        return 20.0 * (log_mel - low) / torch.where(span > 0, span, torch.ones_like(span)) - 10.0

    def denormalize(self, features: Tensor) -> Tensor:
        """Not possible.

        Raises
        ------
        SettingsError
            Always: the range of a clip's bands is not kept.
        """
        raise SettingsError("These features cannot be turned back into levels: every band was stretched on its own.")

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of ``[batch, samples]``; shorter clips than `window_samples` are padded but not stretched."""
        if waveform.ndim == 2 and waveform.shape[1] < self.window_samples:
            return self.fit_length(self.log_mel(waveform)).contiguous()
        return super().forward(waveform)
