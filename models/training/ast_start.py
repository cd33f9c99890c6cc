"""Starting AST from weights that were trained on images (DeiT) or on AudioSet."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from models.errors import CheckpointError
from models.families.ast import AST, ASTConfig
from models.layers.position_grid import adapt_positions

AUDIOSET_GRID = (12, 101)


def adapt_deit(state_dict: Mapping[str, Tensor], config: ASTConfig) -> dict[str, Tensor]:
    """Entries of a DeiT state dict (``pos_embed``, ``patch_embed.proj.weight``, ...) under AST's names and in its shapes.

    The patch convolution is summed over the three colours (not averaged); positions are cropped or interpolated; DeiT's
    own classifiers are dropped.
    """
    adapted = {}
    for key, value in state_dict.items():
        if key.startswith(("head.", "head_dist.")):
            continue
        if key == "patch_embed.proj.weight":
            value = value.sum(dim=1, keepdim=True)
        elif key == "pos_embed":
            side = math.isqrt(value.shape[1] - 2)
            if side * side != value.shape[1] - 2:
                raise CheckpointError(
                    f"These image weights have {value.shape[1] - 2} positions, which is no square.",
                    "Use a distilled DeiT with patches of 16 x 16.",
                )
            value = adapt_positions(value, (side, side), config.grid)
        adapted[f"v.{key}"] = value
    return adapted


def adapt_audioset(state_dict: Mapping[str, Tensor], config: ASTConfig) -> dict[str, Tensor]:
    """Entries of a published AudioSet AST for another input size, without its classifier.

    Raises
    ------
    CheckpointError
        If strides other than 10 are wanted: its patch convolution has these.
    """
    if (config.frequency_stride, config.time_stride) != (10, 10):
        raise CheckpointError(
            "The published AudioSet weights were trained with strides 10/10, "
            f"not {config.frequency_stride}/{config.time_stride}.",
            "Set frequency_stride and time_stride to 10.",
        )
    adapted = {
        key: value for key, value in state_dict.items() if not key.startswith(("mlp_head.", "v.head.", "v.head_dist."))
    }
    adapted["v.pos_embed"] = adapt_positions(state_dict["v.pos_embed"], AUDIOSET_GRID, config.grid)
    return adapted


@torch.no_grad()
def start_from(network: AST, adapted: Mapping[str, Tensor]) -> AST:
    """Put adapted weights into a freshly built AST; its classifier keeps its random start.

    Raises
    ------
    CheckpointError
        If an entry is missing, left over or of another shape.
    """
    expected = {key: value for key, value in network.state_dict().items() if not key.startswith("mlp_head.")}
    wrong = sorted(
        set(expected) ^ set(adapted)
        | {key for key in set(expected) & set(adapted) if expected[key].shape != adapted[key].shape}
    )
    if wrong:
        raise CheckpointError(
            f"The weights do not fit this AST in {len(wrong)} entries ({', '.join(wrong[:3])}).",
            "Choose the model_size that the weights were made for.",
        )
    network.load_state_dict(dict(adapted), strict=False)
    return network
