"""Averages over the epochs of a run, or over several models: of weights and of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import fill_network, hash_weights, load_recognizer
from models.errors import CheckpointError, SettingsError
from models.recognizer import Recognizer


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential average that soon forgets its first values, for `torch.optim.swa_utils.AveragedModel`.

    With a fixed decay a short run would end with a good part of its beginning: 0.998 keeps 9 % of it after 1200 steps. So
    the decay of step n is at most (1 + n) / (10 + n).
    """

    def average(averaged: Tensor, value: Tensor, steps: Tensor | int) -> Tensor:
        count = float(steps)
        share = min(decay, (1.0 + count) / (10.0 + count))
        return averaged + (1.0 - share) * (value - averaged)

    return average


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


_ALIKE = {
    "family": "architecture", "config": "settings of the network", "labels": "classes",
    "label_groups": "groups of classes", "task": "task", "frontend": "front end",
}  # fmt: skip


def average_checkpoints(names: Sequence[str | Path], name: str = "average", device: str | None = None) -> Recognizer:
    """The recognizer whose weights are the mean of several checkpoints', such as of epochs or runs of one recipe.

    Parameters
    ----------
    names
        Names or folders of two or more checkpoints of the same architecture, classes and front end.
    name
        Of the average.
    device
        Default: the GPU if there is one.

    Raises
    ------
    SettingsError
        If they are fewer than two.
    CheckpointError
        If they are not alike; names what differs.
    """
    if len(names) < 2:
        raise SettingsError("An average needs at least two checkpoints.", "Name each with an --average of its own.")
    first, average, parents = load_recognizer(names[0], "cpu"), WeightAverage(), []
    for place, one in enumerate(names):
        recognizer = first if place == 0 else load_recognizer(one, "cpu")
        for key, meaning in _ALIKE.items():
            if getattr(recognizer.card, key) != getattr(first.card, key):
                raise CheckpointError(
                    f"{recognizer.name} and {first.name} cannot be averaged: they differ in their {meaning}.",
                    "Average checkpoints of one recipe; of other models, average the predictions (several --model).",
                )
        average.add(recognizer.network.state_dict())
        parents.append({"name": recognizer.name, "content_hash": recognizer.card.content_hash})
    mean = average.state_dict(first.network.state_dict())
    fill_network(first.network, mean, name)
    card = first.card.model_copy(
        update={
            "name": name, "title": "", "description": f"Mean of the weights of {len(names)} checkpoints.", "metrics": [],
            "parent": None, "training": {"average_of": parents}, "content_hash": hash_weights(mean),
        }
    )  # fmt: skip
    averaged = Recognizer(first.network, first.frontend, card).requires_grad_(False)
    return averaged.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


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
