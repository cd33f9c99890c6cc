"""Slot attention, and the two ways in which Play It Back uses it to say which moments stand out.

Locatello et al.: Object-Centric Learning with Slot Attention. NeurIPS 2020, arXiv 2006.15055.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Slots(NamedTuple):
    """Result of slot attention.

    Attributes
    ----------
    slots
        ``[batch, slots, d]``.
    attention
        Share of every slot in every token in the last iteration (before it is normalised over tokens), ``[batch, slots,
        tokens]``.
    """

    slots: Tensor
    attention: Tensor


class SlotAttention(nn.Module):
    """Slots compete for tokens over a few iterations.

    Parameters
    ----------
    width_in, width
        Size of tokens and of slots.
    hidden
        Inside the slots' own MLP.
    own_starts
        Every slot has a learned start of its own and nothing is random. Otherwise the slots share one mean and
        deviation and start from noise (as published, also in evaluation).
    """

    def __init__(
        self, width_in: int, width: int, n_slots: int = 2, iterations: int = 3, hidden: int | None = None,
        own_starts: bool = False, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_slots, self.iterations, self.eps, self.own_starts = n_slots, iterations, eps, own_starts
        self.slots_mu = nn.Parameter(torch.randn(1, n_slots if own_starts else 1, width))
        if not own_starts:
            self.slots_sigma = nn.Parameter(torch.randn(1, 1, width).abs())
        hidden = max(width, 128) if hidden is None else hidden
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width_in, width)
        self.to_v = nn.Linear(width_in, width)
        self.gru = nn.GRUCell(width, width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.norm_input = nn.LayerNorm(width_in)
        self.norm_slots = nn.LayerNorm(width)
        self.norm_pre_ff = nn.LayerNorm(width)

    def logits(self, slots: Tensor, keys: Tensor) -> Tensor:
        """Scaled products of slots and keys, ``[batch, slots, tokens]``."""
        return self.to_q(self.norm_slots(slots)) @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5

    def keys_and_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``[batch, tokens, width]`` each."""
        normed = self.norm_input(tokens)
        return self.to_k(normed), self.to_v(normed)

    def iterate(self, slots: Tensor, keys: Tensor, values: Tensor) -> Slots:
        """The iterations, from start vectors ``[batch, slots, width]``."""
        attention = slots
        for _ in range(self.iterations):
            attention = self.logits(slots, keys).softmax(dim=1) + self.eps
            weights = attention / attention.sum(dim=2, keepdim=True)
            update = weights @ values
            # Sizes from shapes, not from tuples of numbers: GRUCell reads a matrix.
            slots = self.gru(update.flatten(0, 1), slots.flatten(0, 1)).unflatten(0, (-1, self.n_slots))
            slots = slots + self.fc2(self.fc1(self.norm_pre_ff(slots)).relu())
        return Slots(slots, attention)

    def forward(self, tokens: Tensor, noise: Tensor | None = None) -> Slots:
        """Slots of ``[batch, tokens, width_in]``; `noise` ``[batch, slots, width]`` where the start is random."""
        keys, values = self.keys_and_values(tokens)
        start = self.slots_mu.expand(tokens.shape[0], self.n_slots, -1)
        if not self.own_starts:
            drawn = torch.randn_like(start) if noise is None else noise
            start = start + self.slots_sigma * drawn
        return self.iterate(start, keys, values)


class TimePosition(nn.Module):
    """Adds a linear map of (time, 1 - time) to every step."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, steps]``."""
        ramp = torch.from_numpy(np.linspace(0.0, 1.0, x.shape[2]).astype(np.float32)).to(x)
        return x + self.embedding(torch.stack([ramp, 1.0 - ramp], dim=1)).T


class SaliencySlots(nn.ModuleDict):
    """The published slot module: *channels* are the tokens, and every slot is a time course of `resolution` steps."""

    def __init__(
        self, channels: int, resolution: int, n_slots: int = 2, iterations: int = 3, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.resolution = resolution
        # Published names: positions in a Sequential whose other members have no weights.
        self["0"] = TimePosition(channels)
        self["3"] = SlotAttention(resolution, resolution, n_slots, iterations, eps=eps)

    def at_resolution(self, x: Tensor) -> Tensor:
        """``[batch, channels, steps]`` with positions, resized to `resolution` steps."""
        return nn.functional.interpolate(self["0"](x), size=self.resolution, mode="nearest")

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Slots:
        """``[batch, channels, steps]`` to slots ``[batch, 2, resolution]``, attention ``[batch, 2, channels]``."""
        return self["3"](self.at_resolution(x), noise)


class TimeSlots(SlotAttention):
    """The corrected slot module: time-frequency tokens are the tokens, and slot 0 is what stands out."""

    def __init__(self, width_in: int, width: int, iterations: int = 3) -> None:
        super().__init__(width_in, width, 2, iterations, hidden=width, own_starts=True)

    def evidence(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds that a token belongs to slot 0, ``[batch, tokens]`` within -10..10, and the slots ``[batch, 2, d]``.

        The bound keeps weighted means over tokens finite whatever the slots say.
        """
        keys, values = self.keys_and_values(tokens)
        slots = self.iterate(self.slots_mu.expand(tokens.shape[0], -1, -1), keys, values).slots
        logits = self.logits(slots, keys)
        return 10.0 * torch.tanh((logits[:, 0] - logits[:, 1]) / 10.0), slots
