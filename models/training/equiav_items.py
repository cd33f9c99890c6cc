"""What EquiAV reads: features of a recording, mixed training items, soft labels (specification, section 3)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import MediaError, SettingsError
from models.frontends.kaldi import KaldiFbank, KaldiFbankConfig


@functools.lru_cache(maxsize=8)
def equiav_frontend(sample_rate: int, target_length: int, n_mels: int, mean: float, std: float) -> KaldiFbank:
    """The Kaldi front end with EquiAV's normalisation: one deviation, padding with raw zeros."""
    config = KaldiFbankConfig(
        sample_rate=sample_rate, n_mels=n_mels, target_length=target_length, padding="zero", mean=mean, std_scale=std
    )
    return KaldiFbank(config)


def normalized_features(
    waveform: Tensor,
    sample_rate: int,
    target_length: int,
    n_mels: int,
    mean: float,
    std: float,
    *,
    pad_short: bool = False,
) -> Tensor:
    """Features ``[target_length, n_mels]`` of ``[samples]`` at its own rate.

    Raises
    ------
    MediaError
        If the sound is shorter than one analysis frame (25 ms) and `pad_short` is not set. The published code silently goes
        on with a constant instead.
    """
    frontend = equiav_frontend(sample_rate, target_length, n_mels, mean, std)
    if waveform.shape[0] < frontend.win_length and not pad_short:
        raise MediaError(
            f"The sound has {waveform.shape[0]} samples, less than one analysis frame ({frontend.win_length}).",
            "Use a longer clip, or allow padding with silence (pad_short).",
        )
    return frontend(waveform.unsqueeze(0))[0]


def centered_channel(waveform: np.ndarray | Tensor, *, mono: bool = False) -> Tensor:
    """``[channels, samples]`` to the one channel that is analysed.

    Parameters
    ----------
    mono
        False: the mean over all channels is removed and the first channel analysed (published inference). True: channels
        are averaged first (published training of the household model).
    """
    samples = torch.tensor(np.asarray(waveform), dtype=torch.float32)
    samples = samples if samples.ndim == 2 else samples.unsqueeze(0)
    if mono:
        samples = samples.mean(dim=0, keepdim=True)
    return samples[0] - samples.mean()


def mix_waveforms(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Mixup of ``[samples]`` each: the second is cut or zero-padded to the first; the mean is removed again."""
    length = first.shape[0]
    fitted = torch.nn.functional.pad(second[:length], (0, max(0, length - second.shape[0])))
    mixed = weight * first + (1 - weight) * fitted
    return mixed - mixed.mean()


def shift_in_time(features: Tensor, rng: np.random.Generator) -> Tensor:
    """Roll ``[frames, n_mels]`` along time by a uniform integer in ``[-frames, frames)``: published training noise."""
    return features.roll(int(rng.integers(-features.shape[0], features.shape[0])), 0)


def soft_labels(
    labels: Iterable[int],
    n_classes: int,
    smoothing: float = 0.0,
    mixed: Iterable[int] | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Multi-hot target ``[n_classes]``.

    Every class starts with ``smoothing / n_classes``; a positive class is set to ``1 - smoothing``. With `mixed` (the labels
    of the item mixed in) positives add ``weight * (1 - smoothing)`` and ``(1 - weight) * (1 - smoothing)`` instead.

    Raises
    ------
    SettingsError
        If a label is outside ``0 .. n_classes - 1``.
    """
    target = torch.full((n_classes,), smoothing / n_classes)
    first, second = list(labels), None if mixed is None else list(mixed)
    for label in [*first, *(second or [])]:
        if not 0 <= label < n_classes:
            raise SettingsError(f"Class {label} does not exist: there are {n_classes} classes.")
    if second is None:
        target[first] = 1.0 - smoothing
        return target
    for label in first:
        target[label] += weight * (1.0 - smoothing)
    for label in second:
        target[label] += (1.0 - weight) * (1.0 - smoothing)
    return target


@dataclass(frozen=True)
class ItemSettings:
    """How training items are made; the defaults are those of the published fine-tuning of the household model.

    Attributes
    ----------
    mixup
        Probability of mixing in a second item, chosen uniformly, with a weight from Beta(10, 10).
    smoothing
        Label smoothing.
    noise
        Roll the features along time (published: always on in training).
    mono
        Average the channels (household model), or remove the mean over all channels and take the first (EquiAV).
    """

    n_classes: int
    target_length: int = 1024
    n_mels: int = 128
    mean: float = -4.346
    std: float = 4.332
    mixup: float = 0.0
    smoothing: float = 0.0
    noise: bool = True
    mono: bool = True


def draw_training_item(
    load: Callable[[int], tuple[np.ndarray, int]],
    labels: Sequence[Sequence[int]],
    index: int,
    settings: ItemSettings,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Features ``[target_length, n_mels]`` and target ``[n_classes]`` of one training item.

    Parameters
    ----------
    load
        Gives the samples ``[channels, samples]`` and the rate of an item; the first item's rate is used for both of a mix.
    labels
        Classes of every item.
    """
    samples, sample_rate = load(index)
    waveform = centered_channel(samples, mono=settings.mono)
    if settings.mixup > 0 and rng.random() < settings.mixup:
        partner, weight = int(rng.integers(0, len(labels))), float(rng.beta(10.0, 10.0))
        waveform = mix_waveforms(waveform, centered_channel(load(partner)[0], mono=settings.mono), weight)
        target = soft_labels(labels[index], settings.n_classes, settings.smoothing, labels[partner], weight)
    else:
        target = soft_labels(labels[index], settings.n_classes, settings.smoothing)
    features = normalized_features(
        waveform, sample_rate, settings.target_length, settings.n_mels, settings.mean, settings.std
    )
    return (shift_in_time(features, rng) if settings.noise else features), target
