"""The augmentations of the published audio-tagging recipes, apart from their random draws."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def mono_without_mean(waveform: Tensor) -> Tensor:
    """First channel of ``[channels, samples]`` without the mean over *all* channels, as published."""
    return (waveform - waveform.mean())[0]


def mix_waveforms(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """``weight * first + (1 - weight) * second`` of ``[samples]`` without their means; as long as the first.

    A shorter partner is padded with zeros at its end, a longer one cut (Gong et al.: PSLA, section III-C).
    """
    first, second = first - first.mean(), second - second.mean()
    length = first.shape[0]
    second = torch.nn.functional.pad(second, (0, max(0, length - second.shape[0])))[:length]
    mixed = weight * first + (1 - weight) * second
    return mixed - mixed.mean()


def mix_targets(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Targets ``[n_classes]`` of a mixture; a label that both clips have reaches 1."""
    return weight * first + (1 - weight) * second


def mixing_weight(generator: torch.Generator) -> float:
    """A draw from Beta(10, 10): mixtures are close to half and half."""
    # Beta(10, 10) from twenty exponential draws: torch's own sampler takes no generator.
    gammas = -torch.rand(20, generator=generator, dtype=torch.float64).clamp(min=1e-300).log()
    return float(gammas[:10].sum() / gammas.sum())


class MaskDraws(NamedTuple):
    """Uniform draws in 0..1 for `mask_spectrogram`."""

    frequency_width: float
    frequency_start: float
    time_width: float
    time_start: float

    @classmethod
    def random(cls, generator: torch.Generator) -> MaskDraws:
        """Fresh draws."""
        return cls(*torch.rand(4, generator=generator).tolist())


def mask_spectrogram(log_mel: Tensor, frequency_mask: int, time_mask: int, draws: MaskDraws) -> Tensor:
    """SpecAugment of ``[frames, n_mels]`` *before* normalisation: one stripe of bands, then one of frames, becomes 0.

    ``width = u1 * mask``, ``start = int(u2 * (size - width))``, ``end = start + int(width)`` (Park et al., Interspeech 2019;
    widths of 0 switch a mask off). On un-normalised log-mel, 0 is loud.
    """
    masked = log_mel.clone()
    stripes = ((1, frequency_mask, *draws[:2]), (0, time_mask, *draws[2:]))
    for axis, largest, width_draw, start_draw in stripes:
        if largest:
            width = width_draw * largest
            start = int(start_draw * (log_mel.shape[axis] - width))
            masked.narrow(axis, start, int(width)).zero_()
    return masked


def add_noise_and_roll(features: Tensor, noise: Tensor, amplitude: float, shift: int) -> Tensor:
    """Speech Commands' augmentation of normalised features ``[frames, n_mels]``.

    Parameters
    ----------
    noise
        Uniform in 0..1, of the features' shape.
    amplitude
        Uniform in 0..1; a tenth of it scales the noise.
    shift
        Frames to roll by, -10 to 9.
    """
    return (features + noise * amplitude / 10).roll(shift, dims=0)
