"""How much memory a result holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def held_bytes(value: Any) -> int:
    """Bytes of the arrays, bytes and texts inside a result; everything else counts as nothing.

    Arrays that two results share are counted for each of them, so a sum of several is an upper bound.
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(held_bytes(part) for part in value)
    if isinstance(value, dict):
        return sum(held_bytes(part) for part in value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(held_bytes(getattr(value, f.name)) for f in dataclasses.fields(value))
    return 0
