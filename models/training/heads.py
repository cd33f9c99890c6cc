"""Losses of networks with several classifiers over one representation, such as verbs and nouns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def heads_cross_entropy(logits: Tensor, targets: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Cross entropy of every head, averaged over the batch: ``[n_heads]``; published models minimise the mean of them.

    Parameters
    ----------
    logits
        ``[batch, sum(sizes)]``, the heads one after the other.
    targets
        Per head class indices ``[batch]`` or probabilities ``[batch, size]``.
    """
    parts = logits.split(list(sizes), dim=-1)
    return torch.stack([nn.functional.cross_entropy(p, t) for p, t in zip(parts, targets, strict=True)])
