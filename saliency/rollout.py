"""Attention rollout: attention of all blocks of a transformer together (Abnar and Zuidema, ACL 2020, arXiv 2005.00928)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import SettingsError
from models.layers.transformer import SelfAttention
from models.network import Network
from models.recognizer import Recognizer


def rolls_out(recognizer: Recognizer) -> bool:
    """Whether attention can be followed through the network's blocks to patches of the sound."""
    return recognizer.supports("token_attention") and "audio" in recognizer.network.modalities


@torch.no_grad()
def attention_rollout(network: Network, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Share of the answer's attention that reaches every patch of ``[1, frames, n_mels]``.

    Every block passes on half of what a token is and half of what it attends to (mean over heads). The answer is read from
    the class and distillation tokens (AST), or from the mean of all patches (EquiAV).

    Returns
    -------
    tuple of np.ndarray
        Shares ``[frequency patches, time patches]``, together 1 (what stays on special tokens is left out), and the centre
        of every time patch in frames.

    Raises
    ------
    SettingsError
        If the network has no such blocks.
    """
    from models.families.ast import AST
    from models.layers.equiav import PATCH, TwoTowerNetwork, three_channels

    if isinstance(network, AST):
        blocks: nn.Module = network.v.blocks
        grid, special, step = network.config.grid, 2, network.config.time_stride

        def run() -> Any:
            return network.forward_features(features)
    elif isinstance(network, TwoTowerNetwork) and "audio" in network.modalities:
        blocks, grid, special, step = network.get_submodule("blocks_a"), network.config.grid("a"), 0, PATCH

        def run() -> Any:
            return network.encode(three_channels(features), "a")
    else:
        raise SettingsError(
            "This network has no attention that could be followed to the sound.", "Use an attribution method instead."
        )
    mixed = _block_attention(blocks, run)
    n_tokens = mixed[0].shape[-1]
    share = mixed[0].new_zeros(n_tokens)
    share[: special or n_tokens] = 1.0 / (special or n_tokens)
    for weights in reversed(mixed):
        share = 0.5 * share + 0.5 * (share @ weights)
    patches = share[special:].reshape(grid).double().cpu().numpy()
    centers = (PATCH - 1) / 2 + step * np.arange(grid[1])
    return patches / max(float(patches.sum()), 1e-12), centers


def _block_attention(blocks: nn.Module, run: Any) -> list[Tensor]:
    """Attention ``[tokens, tokens]`` of every block, mean over heads; a block's heads are let go before the next one runs."""
    found: list[Tensor] = []
    layers = [module for module in blocks.modules() if isinstance(module, SelfAttention)]

    def take(layer: nn.Module, _: Any, __: Any) -> None:
        assert isinstance(layer, SelfAttention) and layer.attention is not None
        found.append(layer.attention[0].mean(dim=0))
        layer.attention = None

    handles = [layer.register_forward_hook(take) for layer in layers]
    try:
        for layer in layers:
            layer.keep_attention = True
        run()
    finally:
        for layer, handle in zip(layers, handles, strict=True):
            layer.keep_attention, layer.attention = False, None
            handle.remove()
    return found
