"""Pooling over time with learned attention, as PSLA and the attention ResNet use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Activation = Literal["sigmoid", "softmax", "relu", "linear"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    # Over the class axis for both attention and classifier: a quirk of the published code that checkpoints depend on.
    "softmax": lambda x: torch.softmax(x, dim=1),
    "relu": torch.relu,
    "linear": lambda x: x,
}


class PooledScores(NamedTuple):
    """What attention pooling computes.

    Attributes
    ----------
    output
        ``[batch, n_classes]``: probabilities in the published mode, logits in the corrected one.
    attention
        ``[batch, n_classes, steps]``, sums to 1 over time.
    scores
        ``[batch, n_classes, steps]``: what each step says; ``(attention * scores).sum(-1) == output``.
    """

    output: Tensor
    attention: Tensor
    scores: Tensor

    @property
    def contributions(self) -> Tensor:
        """``[batch, n_classes, steps]``: sums over time to the output."""
        return self.attention * self.scores


class HeadScores(NamedTuple):
    """What attention pooling with several heads computes.

    Attributes
    ----------
    output
        ``[batch, n_classes]``.
    attention, scores
        ``[batch, heads, n_classes, steps]``.
    head_weight
        ``[heads]``: learned, need not sum to 1.
    """

    output: Tensor
    attention: Tensor
    scores: Tensor
    head_weight: Tensor

    @property
    def contributions(self) -> Tensor:
        """``[batch, n_classes, steps]``: sums over time to the output."""
        return torch.einsum("h,bhct->bct", self.head_weight, self.attention * self.scores)


def published_attention(raw_attention: Tensor, raw_scores: Tensor, activation: Activation) -> PooledScores:
    """``a = clamp(act(att)), a / sum_t a, c = act(cla), sum_t a c`` for ``[batch, n_classes, steps]`` (PSLA, eq. 1)."""
    act = _ACTIVATIONS[activation]
    attention = act(raw_attention).clamp(1e-7, 1.0 - 1e-7)
    attention = attention / attention.sum(dim=2, keepdim=True)
    scores = act(raw_scores)
    return PooledScores((attention * scores).sum(dim=2), attention, scores)


class AttentionPooling(nn.Module):
    """One attention head over time for ``[batch, channels, steps]``.

    Parameters
    ----------
    channels, n_classes
        Sizes of the two 1x1 convolutions ``att`` and ``cla``.
    activation
        Published mode: applied to attention and scores, the output is a probability.
    logits
        Corrected mode: attention is a softmax over time, scores are linear and the output is a logit. Saturated
        probabilities have vanishing gradients, which is what explanations are made of.
    """

    def __init__(self, channels: int, n_classes: int, activation: Activation = "sigmoid", logits: bool = False) -> None:
        super().__init__()
        self.att = nn.Conv2d(channels, n_classes, kernel_size=1)
        self.cla = nn.Conv2d(channels, n_classes, kernel_size=1)
        self.activation: Activation = activation
        self.logits = logits
        for layer in (self.att, self.cla):
            bound = math.sqrt(6.0 / channels)
            nn.init.uniform_(layer.weight, -bound, bound)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        if logits:
            # Start from plain averaging: random attention on few clips locks onto single steps.
            nn.init.zeros_(self.att.weight)

    def forward(self, hidden: Tensor) -> PooledScores:
        """Pool ``[batch, channels, steps]``."""
        column = hidden.unsqueeze(3)
        raw_attention, raw_scores = self.att(column).squeeze(3), self.cla(column).squeeze(3)
        if self.logits:
            attention = raw_attention.softmax(dim=2)
            return PooledScores((attention * raw_scores).sum(dim=2), attention, raw_scores)
        return published_attention(raw_attention, raw_scores, self.activation)


class MultiHeadAttentionPooling(nn.Module):
    """Several attention heads, added up with learned weights (PSLA, section III-D).

    Parameters
    ----------
    channels, n_classes, activation, logits
        As in `AttentionPooling`.
    n_heads
        The published code always makes four.
    """

    def __init__(
        self, channels: int, n_classes: int, activation: Activation = "sigmoid", logits: bool = False, n_heads: int = 4
    ) -> None:
        super().__init__()
        self.att = nn.ModuleList(nn.Conv2d(channels, n_classes, kernel_size=1) for _ in range(n_heads))
        self.cla = nn.ModuleList(nn.Conv2d(channels, n_classes, kernel_size=1) for _ in range(n_heads))
        self.head_weight = nn.Parameter(torch.full((n_heads,), 1.0 / n_heads))
        self.activation: Activation = activation
        self.logits = logits

    def forward(self, hidden: Tensor) -> HeadScores:
        """Pool ``[batch, channels, steps]``."""
        column = hidden.unsqueeze(3)
        heads = []
        for att, cla in zip(self.att, self.cla, strict=True):
            raw_attention, raw_scores = att(column).squeeze(3), cla(column).squeeze(3)
            if self.logits:
                attention = raw_attention.softmax(dim=2)
                heads.append(PooledScores((attention * raw_scores).sum(dim=2), attention, raw_scores))
            else:
                heads.append(published_attention(raw_attention, raw_scores, self.activation))
        output = torch.stack([head.output for head in heads], dim=2) @ self.head_weight
        return HeadScores(
            output,
            torch.stack([head.attention for head in heads], dim=1),
            torch.stack([head.scores for head in heads], dim=1),
            self.head_weight,
        )


class MeanPooling(nn.Module):
    """Mean over time of the class scores: the published "no attention" head, always with a sigmoid."""

    def __init__(self, channels: int, n_classes: int, logits: bool = False) -> None:
        super().__init__()
        self.cla = nn.Conv2d(channels, n_classes, kernel_size=1)
        self.logits = logits
        bound = math.sqrt(6.0 / channels)
        nn.init.uniform_(self.cla.weight, -bound, bound)
        assert self.cla.bias is not None
        nn.init.zeros_(self.cla.bias)

    def forward(self, hidden: Tensor) -> PooledScores:
        """Pool ``[batch, channels, steps]``."""
        raw = self.cla(hidden.unsqueeze(3)).squeeze(3)
        scores = raw if self.logits else raw.sigmoid()
        return PooledScores(scores.mean(dim=2), torch.full_like(scores, 1.0 / scores.shape[2]), scores)
