"""Augmentations of training batches, on waveforms and on features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.training.config import AugmentConfig


def _uniform(low: float, high: float, size: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def change_speed(waveform: Tensor, speed: float) -> Tensor:
    """Play ``[samples]`` faster or slower, at the same length: the end is repeated or cut.

    Resampled through the spectrum: cheaper interpolation dulls and folds high frequencies, which clips at test time are not.
    """
    samples = waveform.shape[0]
    length = max(2, round(samples / speed))
    # A length with small factors keeps the transform fast; the speed changes by less than a hundredth.
    length = max(2, round(length / 1000) * 1000) if length > 4000 else length
    spectrum = torch.fft.rfft(waveform)
    bins = length // 2 + 1
    spectrum = (
        spectrum[:bins] if bins <= spectrum.shape[0] else nn.functional.pad(spectrum, (0, bins - spectrum.shape[0]))
    )
    stretched = torch.fft.irfft(spectrum, n=length) * (length / samples)
    return stretched.repeat(-(-samples // length))[:samples]


def alter(waveform: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Speed, shift and gain for one clip ``[samples]``."""
    speed = _uniform(*config.speed, 1, generator).item()
    altered = torch.rand((), generator=generator).item() < 0.5
    shift = int(torch.randint(0, waveform.shape[0], (1,), generator=generator))
    gain = 10 ** (_uniform(*config.gain_db, 1, generator) / 20)
    if altered:
        waveform = change_speed(waveform, speed)
    return (waveform.roll(shift) if config.shift else waveform) * gain


def add_noise(waveform: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """White noise of a random level for one clip ``[samples]``; what is beyond full scale is clipped."""
    if config.noise_db is not None:
        level = 10 ** (_uniform(*config.noise_db, 1, generator) / 20)
        waveform = waveform + level * torch.randn(waveform.shape, generator=generator)
    return waveform.clamp(-1.0, 1.0)


def augment_waveforms(
    waveforms: Tensor, targets: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Shift, speed, gain, mixup and noise for a batch ``[batch, samples]`` with targets ``[batch, n_classes]``.

    Mixup is on waveforms, with partners from the same batch; targets are mixed by the same weights (Tokozume et al., 2018).
    """
    batch = waveforms.shape[0]
    mixed = torch.stack([alter(waveform, config, generator) for waveform in waveforms])
    if config.mixup > 0:
        partner = torch.randperm(batch, generator=generator)
        beta = torch.distributions.Beta(config.mixup_beta, config.mixup_beta)
        weight = torch.maximum(drawn := beta.sample((batch,)), 1 - drawn)
        chosen = torch.rand(batch, generator=generator) < config.mixup
        weight = torch.where(chosen, weight, torch.ones(batch)).unsqueeze(1)
        mixed = weight * mixed + (1 - weight) * mixed[partner]
        targets = weight * targets + (1 - weight) * targets[partner]
    return torch.stack([add_noise(waveform, config, generator) for waveform in mixed]), targets


def mask_features(features: Tensor, config: AugmentConfig, silence: float, generator: torch.Generator) -> Tensor:
    """SpecAugment: one stripe of bands and one of frames per clip of ``[batch, frames, n_mels]`` become silence."""
    masked = features.clone()
    for axis, largest in ((1, config.time_mask), (2, config.frequency_mask)):
        size = features.shape[axis]
        if largest <= 0:
            continue
        for index in range(features.shape[0]):
            width = int(torch.rand(1, generator=generator) * (min(largest, size) + 1))
            start = int(torch.rand(1, generator=generator) * (size - width + 1))
            masked[index].narrow(axis - 1, start, width).fill_(silence)
    return masked
