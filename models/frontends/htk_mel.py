"""Log-mel magnitudes as librosa computes them on the HTK mel scale: what SlowFast and Play It Back read."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from models.frontends.base import FrontEnd, FrontEndConfig, register_frontend


def htk_mel_edges(n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    """Corner frequencies of `n_mels` triangles in Hz, float64 ``[n_mels + 2]``; band m is centred on entry ``m + 1``.

    Equally spaced in ``mel = 2595 log10(1 + f / 700)``.
    """
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (f_min, f_max))
    return 700.0 * (10.0 ** (np.linspace(low, high, n_mels + 2) / 2595.0) - 1.0)


def triangles(edges: np.ndarray, n_fft: int, sample_rate: int) -> np.ndarray:
    """Triangular filters of peak 1 that are linear in Hz between `edges`, float64 ``[len(edges) - 2, n_fft // 2 + 1]``."""
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    left, center, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (center - left), (right - bins) / (right - center)
    return np.maximum(0.0, np.minimum(rising, falling))


def htk_mel_banks(n_mels: int, n_fft: int, sample_rate: int, f_min: float = 0.0, f_max: float = 0.0) -> Tensor:
    """HTK filterbank with peak 1, float32 ``[n_mels, n_fft // 2 + 1]``; `f_max` of 0 means half the sample rate.

    Equals ``librosa.filters.mel(htk=True, norm=None)``. Between the first and the last centre the columns sum to 1; the
    bins at 0 Hz and `f_max` are covered by no band (their rounding errors of about 1e-14 are set to 0 here).
    """
    banks = triangles(htk_mel_edges(n_mels, f_min, f_max or sample_rate / 2), n_fft, sample_rate)
    banks[banks < 1e-8] = 0.0
    return torch.from_numpy(banks.astype(np.float32))


def stft_magnitude(
    waveform: Tensor, window: Tensor, n_fft: int, hop_length: int, pad_mode: Literal["constant", "reflect"] = "constant"
) -> Tensor:
    """Magnitudes ``[batch, frames, n_fft // 2 + 1]`` of centred frames of ``[batch, samples]``; `window` sits in the middle.

    The gradient of the magnitude at exact zero is zero, so digital silence does no harm.
    """
    spectrum = torch.stft(
        waveform, n_fft, hop_length, window.shape[0], window, center=True, pad_mode=pad_mode, return_complex=True
    )
    return spectrum.abs().transpose(1, 2)


class HtkMelConfig(FrontEndConfig):
    """Settings of `HtkMel`; the defaults are those of SlowFast for VGG-Sound.

    Attributes
    ----------
    n_fft, win_length, hop_length
        In samples at `sample_rate`.
    f_min, f_max
        In Hz; `f_max` of 0 means half the sample rate.
    compression
        ``log``: ``ln(S + eps)``; ``log1p``: ``ln(1 + S)``.
    eps
        Added before the logarithm.
    clip_seconds
        Length of the published crop. A crop has one sample less than ``round(clip_seconds * sample_rate)`` (the
        published code counts its end twice), which still gives `target_length` frames. None: the fewest samples that do.
    """

    kind: str = "htk_mel"
    padding: Literal["zero", "silence", "repeat"] = "repeat"
    n_fft: int = Field(default=2048, ge=2)
    win_length: int = Field(default=320, ge=1)
    hop_length: int = Field(default=160, ge=1)
    f_min: float = Field(default=0.0, ge=0.0)
    f_max: float = Field(default=0.0, ge=0.0)
    compression: Literal["log", "log1p"] = "log"
    eps: float = Field(default=1e-6, gt=0.0)
    clip_seconds: float | None = Field(default=None, gt=0.0)


@register_frontend("htk_mel")
class HtkMel(FrontEnd):
    """``ln(B |STFT| + eps)``: periodic Hann window, zero padding at both ends, magnitudes rather than powers.

    Source: Kazakos et al., Slow-Fast Auditory Streams for Audio Recognition, ICASSP 2021, arXiv 2103.03516.
    Short clips repeat their last frame. With ``hop_length > win_length`` (the published slow-only models) part of the
    samples never enter the features.
    """

    Config = HtkMelConfig
    config: HtkMelConfig
    window: Tensor

    def __init__(self, config: HtkMelConfig) -> None:
        super().__init__(config)
        if config.win_length > config.n_fft:
            raise ValueError(f"win_length ({config.win_length}) must not exceed n_fft ({config.n_fft})")
        f_max = config.f_max or config.sample_rate / 2
        if not config.f_min < f_max <= config.sample_rate / 2:
            raise ValueError(
                f"f_min, f_max ({config.f_min}, {f_max} Hz) must rise and end at half the sample rate at most"
            )
        self.n_fft, self.win_length, self.hop_length = config.n_fft, config.win_length, config.hop_length
        self.centered = True
        self.floor = float(np.log(config.eps)) if config.compression == "log" else 0.0
        self._edges = htk_mel_edges(config.n_mels, config.f_min, f_max)
        banks = htk_mel_banks(config.n_mels, config.n_fft, config.sample_rate, config.f_min, f_max)
        self.register_buffer("filterbank", banks, persistent=False)
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of every band in Hz, float64 ``[n_mels]``."""
        return self._edges[1:-1]

    @property
    def window_samples(self) -> int | None:
        """Samples of one published crop; without `clip_seconds` the fewest that fill `target_length`."""
        if self.config.clip_seconds is None:
            return super().window_samples
        return round(self.config.clip_seconds * self.sample_rate) - 1

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Compressed band magnitudes, ``[batch, frames, n_mels]``."""
        bands = stft_magnitude(waveform, self.window, self.n_fft, self.hop_length) @ self.filterbank.T
        return torch.log1p(bands) if self.config.compression == "log1p" else (bands + self.config.eps).log()
