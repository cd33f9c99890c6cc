"""Losses, learning-rate schedule, mix-up and a metric with which Play It Back was published."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.training.metrics import average_precision


def rank_loss(predictions: Sequence[Tensor], labels: Tensor, margin: float = 0.05) -> Tensor:
    """Published "rank" loss of the passes' predictions ``[batch, n_classes]``, per clip ``[batch]``.

    ``sum over passes a < b of (|x_a - x_b| + margin) / (b - a)`` on the true class (`labels` ``[batch]``) or on all
    classes of multi-hot `labels` ``[batch, n_classes]``, where the margin counts for every class. It is smallest when
    all passes say the same, so it orders nothing; published training gives it no gradient.
    """
    if labels.ndim == 1:
        scores = [x.gather(1, labels[:, None]) for x in predictions]
    else:
        scores = [x * labels for x in predictions]
    total = torch.zeros(labels.shape[0], device=labels.device)
    for a in range(len(scores)):
        for b in range(a + 1, len(scores)):
            total = total + ((scores[a] - scores[b]).abs() + margin).sum(dim=1) / (b - a)
    return total


def published_loss(
    prediction: Tensor, pass_predictions: Tensor, target: Tensor, positive: Sequence[Tensor] = (),
    negative: Sequence[Tensor] = (), labels: Tensor | None = None, multi_label: bool = False,
) -> Tensor:  # fmt: skip
    """The published total of one group of classes: final answer, 0.1 x every pass, 0.1 x both rank losses.

    Parameters
    ----------
    prediction, pass_predictions
        Logits ``[batch, n_classes]`` and ``[passes, batch, n_classes]``.
    target
        Class indices or probabilities (multi-hot if `multi_label`).
    positive, negative, labels
        Slot-weighted predictions per pass and the labels the rank losses read; left out if empty.
    """

    def fit(logits: Tensor) -> Tensor:
        if multi_label:
            return nn.functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
        return nn.functional.cross_entropy(logits, target)

    total = fit(prediction) + 0.1 * sum((fit(one) for one in pass_predictions), prediction.new_zeros(()))
    if labels is not None and len(positive) > 0:
        total = total + 0.1 * (rank_loss(positive, labels).mean() + rank_loss(negative, labels).mean())
    return total


def smoothed_target(labels: Tensor, n_classes: int, smoothing: float = 0.1) -> Tensor:
    """One-hot ``[batch, n_classes]`` with ``smoothing / n_classes`` everywhere."""
    one_hot = nn.functional.one_hot(labels, n_classes).float()
    return one_hot * (1.0 - smoothing) + smoothing / n_classes


def mixed_target(labels: Tensor, n_classes: int, weight: float, smoothing: float = 0.1) -> Tensor:
    """Target of a batch mixed with itself in reverse order, ``weight`` of the own label."""
    own = smoothed_target(labels, n_classes, smoothing)
    return weight * own + (1.0 - weight) * own.flip(0)


def mix_levels(
    features: Tensor, lengths: Sequence[int], weight: float, box: tuple[float, float, int, int] | None = None
) -> tuple[Tensor, float]:
    """Mix a batch of features of all levels with itself in reverse order.

    Parameters
    ----------
    features
        ``[batch, frames of all levels, n_mels]``.
    lengths
        Frames of every level.
    weight
        Share of the own clip (mix-up).
    box
        Instead of mixing, paste this box of the partner (CutMix): start and end as shares of the clip, first band and
        band after the last; the same moments at every level.

    Returns
    -------
    tuple
        Mixed features, and the share of the own clip.
    """
    partner = features.flip(0)
    if box is None:
        return weight * features + (1.0 - weight) * partner, weight
    start, end, low, high = box
    mixed, offset = features.clone(), 0
    for length in lengths:
        rows = slice(offset + round(start * length), offset + round(end * length))
        mixed[:, rows, low:high] = partner[:, rows, low:high]
        offset += length
    return mixed, 1.0 - (end - start) * (high - low) / features.shape[2]


def draw_mix(
    n_mels: int, generator: torch.Generator, alpha: float = 0.3, switch: float = 0.5
) -> tuple[float, tuple[float, float, int, int] | None]:
    """Random arguments for `mix_levels`: mix-up, or with probability `switch` a CutMix box of side sqrt(1 - share)."""

    def uniform() -> float:
        return torch.rand((), generator=generator).item()

    if uniform() < switch:
        side = math.sqrt(uniform())
        time, band = uniform(), uniform() * n_mels
        start, end = max(time - side / 2, 0.0), min(time + side / 2, 1.0)
        low, high = max(round(band - side * n_mels / 2), 0), min(round(band + side * n_mels / 2), n_mels)
        return 1.0, (start, end, low, high)
    shapes = torch.full((2,), alpha, dtype=torch.float64)
    first, second = torch._standard_gamma(shapes, generator=generator).clamp(min=1e-30).tolist()
    return first / (first + second), None


def learning_rate(
    epoch: float, base: float, end: float, epochs: float, warmup_epochs: float = 0.0, warmup_start: float = 1e-8,
    cosine_after_warmup: bool = True,
) -> float:  # fmt: skip
    """Published schedule at a fractional epoch: linear warm-up, then a cosine from `base` to `end`."""
    offset = warmup_epochs if cosine_after_warmup else 0.0

    def cosine(at: float) -> float:
        return end + (base - end) * 0.5 * (1.0 + math.cos(math.pi * (at - offset) / (epochs - offset)))

    if epoch < warmup_epochs:
        return warmup_start + epoch * (cosine(warmup_epochs) - warmup_start) / warmup_epochs
    return cosine(epoch)


def sample_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average precision per *clip* over classes, mean over clips with a label: the published training curves' "mAP".

    Both are ``[n, n_classes]``.
    """
    return float(np.nanmean(average_precision(scores.T, targets.T)))
