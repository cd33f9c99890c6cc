"""Weights with which clips are drawn, so that rare classes are heard as often as common ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.errors import DataError


def sampling_weights(
    labels: Sequence[Sequence[str]],
    average_precisions: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Weight of every clip, float64 ``[n]``: the sum over its labels of ``1000 / (count + 0.01)`` (PSLA, section III-B).

    Parameters
    ----------
    labels
        Classes of every clip.
    average_precisions
        Badly learnt classes with their average precision: their weight grows by ``0.4 / AP``.
    """
    counts: dict[str, int] = {}
    for present in labels:
        for label in present:
            counts[label] = counts.get(label, 0) + 1
    weights = {label: 1000.0 / (count + 0.01) for label, count in counts.items()}
    for label, precision in (average_precisions or {}).items():
        if label in weights:
            weights[label] += 0.4 / precision
    return np.array([sum(weights[label] for label in present) for present in labels], dtype=np.float64)


def write_weights(path: Path, weights: np.ndarray) -> None:
    """One number a line, as published recipes keep them beside the annotation (``NAME_weight.csv``)."""
    np.savetxt(path, weights, delimiter=",")


def read_weights(path: Path, expected: int) -> np.ndarray:
    """The weights of a file, float64 ``[expected]``.

    Raises
    ------
    DataError
        If it cannot be read or belongs to another annotation.
    """
    try:
        weights = np.loadtxt(path, delimiter=",", ndmin=1)
    except (OSError, ValueError) as error:
        raise DataError(f"The sampling weights {path.name} cannot be read: {error}") from error
    if weights.shape != (expected,):
        raise DataError(
            f"{path.name} has {weights.size} weights for {expected} clips.",
            "Make the weights anew from this annotation.",
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise DataError(f"{path.name} holds weights that are negative, all zero or not numbers.")
    return weights
