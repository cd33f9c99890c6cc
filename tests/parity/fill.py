"""Deterministic weights and inputs, so that a parity case needs no weight file.

A case stores only the names and shapes of a model's state dict, the shapes of its
inputs, and the outputs that the original implementation gave for exactly the values
that this module makes from them.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), seed])


def fill_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """The value of the state-dict entry ``name``: a function of its name, shape and seed alone."""
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    noise = _rng(name, seed).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        value = 1.0 + 0.1 * np.abs(noise)
    elif leaf == "running_mean" or leaf.startswith("bias"):
        value = 0.1 * noise
    elif len(shape) <= 1:
        value = 1.0 + 0.1 * noise
    else:
        fan_in = int(np.prod(shape[1:]))
        value = noise / np.sqrt(fan_in)
    return torch.from_numpy(np.asarray(value, dtype=np.float32)).to(dtype)


def fill_state_dict(shapes: dict[str, tuple[list[int], str]], seed: int = 0) -> dict[str, torch.Tensor]:
    """A whole state dict from ``{name: (shape, dtype name)}``, e.g. ``{"fc.weight": ([10, 4], "float32")}``."""
    return {
        name: fill_tensor(name, tuple(shape), getattr(torch, dtype), seed) for name, (shape, dtype) in shapes.items()
    }


def fill_input(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A standard-normal float32 input tensor named ``name``."""
    return torch.from_numpy(_rng("input:" + name, seed).standard_normal(shape).astype(np.float32))
