"""The small features of "AudioTagging Done Right": Slaney mel bands every 25 ms, in decibels taken twice."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from models.frontends.base import FrontEnd, FrontEndConfig, register_frontend
from models.frontends.kaldi import KaldiFbankConfig

_LOG_STEP = math.log(6.4) / 27.0


def hz_to_slaney(frequency: float) -> float:
    """Slaney's mel scale: linear (200/3 Hz a mel) below 1 kHz, logarithmic above (Slaney: Auditory Toolbox, 1998)."""
    return frequency * 3.0 / 200.0 if frequency < 1000.0 else 15.0 + math.log(frequency / 1000.0) / _LOG_STEP


def slaney_to_hz(mel: np.ndarray) -> np.ndarray:
    """The inverse of `hz_to_slaney`."""
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(_LOG_STEP * (np.maximum(mel, 15.0) - 15.0)))


def slaney_edges(n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    """Corners of the triangles in Hz, float64 ``[n_mels + 2]``."""
    return slaney_to_hz(np.linspace(hz_to_slaney(f_min), hz_to_slaney(f_max), n_mels + 2))


def slaney_banks(n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Triangles that are linear in Hz, each with area 1, float32 ``[n_mels, n_fft // 2 + 1]``."""
    edges = slaney_edges(n_mels, f_min, f_max)
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    rising = (bins - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins) / widths[1:, None]
    banks = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(banks.astype(np.float32))


class SlaneyDbConfig(FrontEndConfig):
    """Settings of `SlaneyDb`; sizes in samples. `f_max` of 0 means half the sample rate."""

    kind: str = "slaney_db"
    n_mels: int = Field(default=64, ge=1)
    n_fft: int = Field(default=4096, ge=2)
    win_length: int = Field(default=1024, ge=1)
    hop_length: int = Field(default=400, ge=1)
    f_min: float = Field(default=0.0, ge=0.0)
    f_max: float = Field(default=0.0, ge=0.0)


@register_frontend("slaney_db")
class SlaneyDb(FrontEnd):
    """``20 log10(max(power, 1e-10))`` of Slaney mel bands, frames centred on multiples of 25 ms.

    The factor 20 belongs to amplitudes, but is applied to powers: values are twice the usual decibels and silence is -200.
    Published statistics and checkpoints depend on it.
    """

    Config: ClassVar[type[FrontEndConfig]] = SlaneyDbConfig
    window: Tensor
    floor = -200.0
    centered = True

    def __init__(self, config: SlaneyDbConfig) -> None:
        super().__init__(config)
        if config.win_length > config.n_fft:
            raise ValueError(f"win_length ({config.win_length}) must not exceed n_fft ({config.n_fft})")
        self.n_fft, self.win_length, self.hop_length = config.n_fft, config.win_length, config.hop_length
        self._range = (config.f_min, config.f_max or config.sample_rate / 2)
        if not self._range[0] < self._range[1] <= config.sample_rate / 2:
            raise ValueError(f"f_min, f_max {self._range} Hz must rise and end at half the sample rate at most")
        banks = slaney_banks(config.n_mels, config.n_fft, config.sample_rate, *self._range)
        self.register_buffer("filterbank", banks, persistent=False)
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of every band in Hz, float64 ``[n_mels]``."""
        return slaney_edges(self.n_mels, *self._range)[1:-1]

    def mel_power(self, waveform: Tensor) -> Tensor:
        """Band powers ``[batch, frames, n_mels]`` of ``[batch, samples]``."""
        spectrum = torch.stft(
            waveform, self.n_fft, self.hop_length, self.win_length, self.window,
            center=True, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        power = spectrum.real.square() + spectrum.imag.square()
        return power.transpose(1, 2) @ self.filterbank.T

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Twice the decibels of the band powers, ``[batch, frames, n_mels]``."""
        return 20.0 * self.mel_power(waveform).clamp(min=1e-10).log10()


def audio_tagging_frontend(
    n_mels: int, target_length: int | None = None, recipe: Literal["tagging", "linear", "resnet"] = "tagging"
) -> FrontEndConfig:
    """The published front end of the audio-tagging comparison for a number of bands, with AudioSet's statistics.

    More than 100 bands are Kaldi filter banks every 10 ms (1024 frames), fewer are `SlaneyDb` every 25 ms (400 frames).
    Statistics differ between recipes, because they were taken with augmentation on.
    """
    if n_mels > 100:
        return KaldiFbankConfig(
            n_mels=n_mels, target_length=target_length or 1024, padding="zero", mean=-3.6788461, std_scale=8.7479486
        )
    mean, deviation = {
        "tagging": (-29.686901, 40.898224), "linear": (-27.248297, 37.681698), "resnet": (-29.072655, 40.71728),
    }[recipe]  # fmt: skip
    return SlaneyDbConfig(
        n_mels=n_mels, target_length=target_length or 400, padding="zero", mean=mean, std_scale=2 * deviation
    )
