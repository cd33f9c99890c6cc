"""What a step minimises: the right answers for examples, and the base's opinion where it is to be kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.card import Task

SMOOTHING = 0.1  # of the targets of single-label models
TEMPERATURE = 2.0
KEPT_WEIGHT = 0.5  # of the base's opinion


def class_weights(targets: Tensor) -> Tensor:
    """A weight for every row ``[n]`` with mean 1, such that all classes count alike (rows of several: their rarest class)."""
    present = targets > 0.5
    counts = present.sum(dim=0).clamp(min=1).float()
    weights = torch.where(present, 1.0 / counts, torch.zeros_like(targets)).amax(dim=1)
    # Rows without a clear class (a base's undecided answers) count like the average row.
    clear = weights > 0
    if not bool(clear.any()):
        return torch.ones(len(targets))
    weights = torch.where(clear, weights, weights[clear].mean())
    return weights / weights.mean()


def example_loss(logits: Tensor, targets: Tensor, weights: Tensor, task: Task) -> Tensor:
    """Weighted mean of the cross entropies (single-label, smoothed) or of the summed binary ones (multi-label)."""
    if task == "multi-label":
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    else:
        losses = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=SMOOTHING)
    return (losses * weights).sum() / weights.sum()


def kept_loss(logits: Tensor, before: Tensor, task: Task) -> Tensor:
    """Distance to the base's logits ``[n, old]`` on the old classes (Li, Hoiem: Learning without Forgetting, 2016).

    Single-label: how the old classes compare with each other, at a temperature; multi-label: each by itself.
    """
    own = logits[:, : before.shape[1]]
    if task == "multi-label":
        target = before.sigmoid()
        floor = nn.functional.binary_cross_entropy_with_logits(before, target, reduction="none")
        return (nn.functional.binary_cross_entropy_with_logits(own, target, reduction="none") - floor).sum(dim=1).mean()
    target = (before / TEMPERATURE).softmax(dim=1)
    own = (own / TEMPERATURE).log_softmax(dim=1)
    return nn.functional.kl_div(own, target, reduction="batchmean") * TEMPERATURE**2


def opinion_as_targets(targets: Tensor, before: Tensor, task: Task) -> Tensor:
    """Targets of new examples: for old classes that a multi-label example does not name, what the base thinks of them.

    A person who adds "church bells" to a clip does not say that there is no "dog" in it.
    """
    if task != "multi-label":
        return targets
    filled = targets.clone()
    old = before.shape[1]
    filled[:, :old] = torch.maximum(filled[:, :old], before.sigmoid())
    return filled
