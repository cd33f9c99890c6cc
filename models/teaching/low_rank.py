"""Low-rank additions to linear layers (Hu et al.: LoRA. ICLR 2022, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.network import Network


class LowRank(nn.Module):
    """``W + B A`` with ``A [rank, inputs]`` random and ``B [outputs, rank]`` zero: at first nothing is added."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rank = min(rank, *weight.shape)
        start = torch.randn(rank, weight.shape[1], generator=generator) / math.sqrt(weight.shape[1])
        self.a = nn.Parameter(start.to(weight.device))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its addition."""
        return weight + self.b @ self.a


def linear_layers(network: Network, head: Collection[str]) -> dict[str, nn.Linear]:
    """Linear layers by name, without those of the head (`head` names its parameters)."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" not in head
    }


def add_low_rank(network: Network, head: Collection[str], rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Give every linear layer outside of the head a low-rank addition; returns what is to be trained, by name."""
    generator = torch.Generator().manual_seed(seed)
    added: dict[str, nn.Parameter] = {}
    for name, layer in linear_layers(network, head).items():
        addition = LowRank(layer.weight, rank, generator)
        parametrize.register_parametrization(layer, "weight", addition)
        added |= {f"{name}.low_rank.a": addition.a, f"{name}.low_rank.b": addition.b}
    return added


def merge_low_rank(network: Network) -> None:
    """Add the additions to the weights for good: afterwards the network is an ordinary one."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight") and isinstance(module, nn.Linear):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            module.weight.requires_grad_(False)
