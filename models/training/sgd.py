"""SGD as Auditory SlowFast was trained: parameter groups, learning-rate policies, frozen and precise batch norm.

Source: the published configurations of Kazakos et al., ICASSP 2021 (arXiv 2103.03516).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LearningRatePolicy:
    """Learning rate over fractional epochs ``e = epoch + iteration / iterations per epoch``.

    Attributes
    ----------
    base
        Learning rate that the others are relative to.
    policy
        ``steps``: ``base * factors[i]`` with the last i for which ``steps[i] <= e``; ``cosine``: from `base` to `end`.
    steps, factors
        Epochs and factors of ``steps``, both of the same length.
    epochs
        Length of training; beyond it the last factor, or the cosine, goes on.
    warmup_epochs, warmup_start
        Linear rise from `warmup_start` to what the policy gives at `warmup_epochs`; 0 or less: none.
    """

    base: float
    policy: Literal["steps", "cosine"] = "steps"
    steps: Sequence[float] = (0,)
    factors: Sequence[float] = (1.0,)
    epochs: float = 50
    end: float = 0.0
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.factors) or not self.steps:
            raise ValueError("steps and factors need the same length, at least one")

    def at(self, epoch: float) -> float:
        """Learning rate at a fractional epoch."""
        if epoch < self.warmup_epochs:
            target = self._policy(self.warmup_epochs)
            return self.warmup_start + (target - self.warmup_start) * epoch / self.warmup_epochs
        return self._policy(epoch)

    def _policy(self, epoch: float) -> float:
        if self.policy == "cosine":
            return self.end + (self.base - self.end) * (math.cos(math.pi * epoch / self.epochs) + 1.0) * 0.5
        reached = [index for index, step in enumerate(self.steps) if step <= epoch]
        return self.base * self.factors[reached[-1] if reached else 0]


VGGSOUND_POLICY = LearningRatePolicy(0.01, "steps", (0, 30, 40), (1.0, 0.1, 0.01), 50)
EPIC_POLICY = LearningRatePolicy(0.001, "steps", (0, 20, 25), (1.0, 0.1, 0.01), 30)


def build_sgd(
    network: nn.Module,
    learning_rate: float,
    *,
    momentum: float = 0.9,
    dampening: float = 0.0,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    norm_weight_decay: float = 0.0,
) -> torch.optim.SGD:
    """SGD over the trainable parameters; those of batch norms (``bn`` in the name) have their own weight decay."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if "bn" in name], "weight_decay": norm_weight_decay},
        {"params": [p for name, p in named if "bn" not in name], "weight_decay": weight_decay},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=learning_rate, momentum=momentum, dampening=dampening, nesterov=nesterov,
    )  # fmt: skip


def freeze_batch_norm(
    network: nn.Module, keep: Sequence[str] = ("s1.pathway0_stem.bn", "s1.pathway1_stem.bn", "s1_fuse.bn")
) -> int:
    """Fix statistics and scales of all batch norms but `keep`; call it after every ``network.train()``.

    What to do for small batches, and what the EPIC-KITCHENS models were fine-tuned with.

    Returns
    -------
    int
        How many were fixed.
    """
    frozen = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name not in keep:
            module.eval()
            module.requires_grad_(False)
            frozen += 1
    return frozen


@torch.no_grad()
def precise_batch_norm(network: nn.Module, batches: Iterable[Tensor], limit: int = 200) -> int:
    """Replace the running statistics of the batch norms in training mode by those of the population of `batches`.

    Every batch counts the same: mean of the batches' means, and mean of their squares less its square. Frozen batch norms
    keep their statistics (Wu, Johnson: Rethinking "Batch" in BatchNorm, 2021, arXiv 2105.07576).

    Parameters
    ----------
    batches
        Inputs of the network; at most `limit` are used.

    Returns
    -------
    int
        How many batches were used; with none the statistics stay as they are.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    sums: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double().transpose(0, 1).flatten(1)
        mean, square = sums.get(norm, (torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])))
        sums[norm] = (mean + x.mean(dim=1), square + x.square().mean(dim=1))

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    used = 0
    try:
        for batch in batches:
            if used >= limit:
                break
            network(batch)
            used += 1
    finally:
        for handle in handles:
            handle.remove()
    for norm in norms:
        if norm in sums and norm.running_mean is not None and norm.running_var is not None:
            mean, square = (value / used for value in sums[norm])
            norm.running_mean.copy_(mean)
            norm.running_var.copy_((square - mean.square()).clamp(min=0.0))
    return used
