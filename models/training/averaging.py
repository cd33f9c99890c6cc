"""Averages over the epochs of a run: of weights and of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor


class WeightAverage:
    """Arithmetic mean of state dicts, one at a time (two copies in memory whatever the number of epochs).

    Parameters
    ----------
    first_twice
        Count the first state dict twice, as PSLA's published loop does.
    """

    def __init__(self, first_twice: bool = False) -> None:
        self._sum: dict[str, Tensor] = {}
        self._count = 0
        self._first_twice = first_twice

    def add(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take one more state dict in; integer counters are averaged too."""
        times = 2 if self._first_twice and not self._count else 1
        for key, value in state_dict.items():
            exact = value.detach().to(torch.float64) * times
            self._sum[key] = exact if key not in self._sum else self._sum[key] + exact
        self._count += times

    def state_dict(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean, in the number types of `like`."""
        return {key: (value / self._count).to(like[key].dtype) for key, value in self._sum.items()}

    def __len__(self) -> int:
        return self._count


def average_state_dicts(state_dicts: Iterable[Mapping[str, Tensor]], first_twice: bool = False) -> dict[str, Tensor]:
    """Mean of several state dicts."""
    average, like = WeightAverage(first_twice), {}
    for state_dict in state_dicts:
        average.add(state_dict)
        like = dict(state_dict)
    return average.state_dict(like)


class PredictionAverage:
    """Running mean of predictions: the ensemble of all epochs so far, or of several models."""

    def __init__(self) -> None:
        self._sum: np.ndarray | None = None
        self._count = 0

    def add(self, scores: np.ndarray) -> np.ndarray:
        """Take ``[n, n_classes]`` in and return the mean so far."""
        self._sum = scores.astype(np.float64) if self._sum is None else self._sum + scores
        self._count += 1
        return self._sum / self._count
