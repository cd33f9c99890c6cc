"""Kaldi's filter-bank features, as AST, PSLA and EquiAV read them (25 ms frames every 10 ms)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from models.frontends.base import FrontEnd, FrontEndConfig, register_frontend


def kaldi_mel_banks(n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Triangles that are linear in mel = 1127 ln(1 + f/700), peak 1, float32 ``[n_mels, n_fft // 2 + 1]``.

    The Nyquist bin has weight 0, as in Kaldi. All arithmetic is float32: published features depend on its rounding.
    """
    low, high = (1127.0 * math.log(1.0 + f / 700.0) for f in (f_min, f_max))
    delta = (high - low) / (n_mels + 1)
    index = torch.arange(n_mels, dtype=torch.float32).unsqueeze(1)
    left, center, right = low + index * delta, low + (index + 1.0) * delta, low + (index + 2.0) * delta
    bins = torch.arange(n_fft // 2, dtype=torch.float32) * (sample_rate / n_fft)
    mel = (1127.0 * (1.0 + bins / 700.0).log()).unsqueeze(0)
    rising, falling = (mel - left) / (center - left), (right - mel) / (right - center)
    banks = torch.clamp(torch.minimum(rising, falling), min=0.0)
    return nn.functional.pad(banks, (0, 1))


class KaldiFbankConfig(FrontEndConfig):
    """Settings of `KaldiFbank`; `f_max` of 0 means half the sample rate."""

    kind: str = "kaldi_fbank"
    sample_rate: int = Field(default=16000, ge=100)
    f_min: float = Field(default=20.0, ge=0.0)
    f_max: float = Field(default=0.0, ge=0.0)


@register_frontend("kaldi_fbank")
class KaldiFbank(FrontEnd):
    """Kaldi-compatible log-mel energies (HTK-compatible, no dither, symmetric Hann window, pre-emphasis 0.97).

    With 128 bands at 16 kHz, band 3 contains no FFT bin and is constant (a dead channel of the published models).
    """

    Config: ClassVar[type[FrontEndConfig]] = KaldiFbankConfig
    window: Tensor
    floor = math.log(torch.finfo(torch.float32).eps)

    def __init__(self, config: KaldiFbankConfig) -> None:
        super().__init__(config)
        self.win_length = int(config.sample_rate * 0.025)
        self.hop_length = int(config.sample_rate * 0.010)
        self.n_fft = 1 << (self.win_length - 1).bit_length()
        self.centered = False
        f_max = config.f_max or config.sample_rate / 2
        if not config.f_min < f_max <= config.sample_rate / 2:
            raise ValueError(
                f"f_min, f_max ({config.f_min}, {f_max} Hz) must rise and end at half the sample rate at most"
            )
        self._mel_range = (config.f_min, f_max)
        banks = kaldi_mel_banks(config.n_mels, self.n_fft, config.sample_rate, config.f_min, f_max)
        self.register_buffer("filterbank", banks, persistent=False)
        self.register_buffer("window", torch.hann_window(self.win_length, periodic=False), persistent=False)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of every band in Hz, float64 ``[n_mels]``."""
        low, high = (1127.0 * math.log(1.0 + f / 700.0) for f in self._mel_range)
        mel = low + np.arange(1, self.n_mels + 1) * (high - low) / (self.n_mels + 1)
        return 700.0 * (np.exp(mel / 1127.0) - 1.0)

    def power(self, waveform: Tensor) -> Tensor:
        """Power spectrum of whole frames, ``[batch, frames, n_fft // 2 + 1]``, of ``[batch, samples]``."""
        frames = waveform.unfold(1, self.win_length, self.hop_length)
        frames = frames - frames.mean(dim=2, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - 0.97 * previous) * self.window
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        # re^2 + im^2 rather than abs()^2: the magnitude has no gradient at exact zero.
        return spectrum.real.square() + spectrum.imag.square()

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Natural log of band energies, ``[batch, frames, n_mels]``; only whole frames."""
        energy = self.power(waveform) @ self.filterbank.T
        return energy.clamp(min=torch.finfo(torch.float32).eps).log()
