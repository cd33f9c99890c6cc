"""Fitting a table of learned patch positions to another input size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adapt_positions(positions: Tensor, source: tuple[int, int], target: tuple[int, int], n_special: int = 2) -> Tensor:
    """Positions ``[1, n_special + f * t, D]`` of one patch grid for another one.

    Each axis is cropped around its middle where it gets shorter and interpolated linearly where it gets longer, first
    time, then frequency (Gong, Chung, Glass: AST. Interspeech 2021, section 2.2). Rows of special tokens stay.

    Parameters
    ----------
    source, target
        Patches along frequency and time.
    """
    special, patches = positions[:, :n_special], positions[:, n_special:]
    grid = patches.transpose(1, 2).unflatten(2, source)
    for axis in (3, 2):
        size, wanted = grid.shape[axis], target[axis - 2]
        if wanted <= size:
            grid = grid.narrow(axis, size // 2 - wanted // 2, wanted)
        else:
            shape = (grid.shape[2], wanted) if axis == 3 else (wanted, grid.shape[3])
            grid = nn.functional.interpolate(grid, size=shape, mode="bilinear", align_corners=False)
    return torch.cat([special, grid.flatten(2).transpose(1, 2)], dim=1)
