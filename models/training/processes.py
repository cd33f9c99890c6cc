"""Several processes that make one step together: each hears a part of the batch, and all compute the loss of the whole.

What a network says about its clips is exchanged (`SharedBatch.whole`) before the loss is taken. So a loss may divide by
anything and compare any clips: it is the one that a single process would have, and so is its gradient (`backward`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from models.errors import SettingsError

T = TypeVar("T")


def alone(values: Tensor) -> Tensor:
    """The values of all clips, where one process hears them all."""
    return values


class SharedBatch:
    """A batch of clips of which each process hears a part, as even as may be.

    Parameters
    ----------
    accelerator
        The processes.
    count
        Clips of the batch, over all processes.
    """

    def __init__(self, accelerator: Accelerator, count: int) -> None:
        self.accelerator, self.rank = accelerator, accelerator.process_index
        bounds = np.linspace(0, count, accelerator.num_processes + 1).round().astype(int).tolist()
        self.first, self.last = bounds[self.rank : self.rank + 2]
        self.sizes: list[int] = np.diff(bounds).tolist()

    def mine(self, clips: Sequence[T]) -> Sequence[T]:
        """The clips that this process hears; one that has none hears the first, which does not count."""
        return clips[self.first : self.last] or clips[:1]

    def whole(self, own: Tensor) -> Tensor:
        """Values of all clips, ``[count, ...]``, of this process's ``[part, ...]``; gradients reach only these.

        Nothing that is trained may come after it, or its gradient would be counted once for every process.
        """
        if len(self.sizes) == 1:
            return own
        own = own[: self.sizes[self.rank]]
        padded = own.new_zeros(max(self.sizes), *own.shape[1:])
        padded[: len(own)] = own.detach()
        gathered: Tensor = self.accelerator.gather(padded)
        parts = [part[:size] for part, size in zip(gathered.split(len(padded)), self.sizes, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)


def backward(accelerator: Accelerator, parameters: Iterable[nn.Parameter], loss: Tensor) -> None:
    """Add the gradients of a loss that every process has computed of the whole batch, on all processes alike.

    Each knows the part that goes through its own clips; the gradient is their sum. What does not go through clips (a
    penalty on weights) has to be divided by the number of processes.
    """
    count = accelerator.num_processes
    # Gradients that wait for their step are the same everywhere, and stay so in the mean.
    torch.autograd.backward(loss * count)
    if count == 1:
        return
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean: Tensor = accelerator.reduce(torch.cat([gradient.flatten() for gradient in found]), "mean")
    for gradient, part in zip(found, mean.split([gradient.numel() for gradient in found]), strict=True):
        gradient.copy_(part.view_as(gradient))


def check_processes(accelerator: Accelerator, state: dict[str, Any]) -> None:
    """Refuse to go on from the state of a run that other processes shared: each draws random numbers of its own.

    Raises
    ------
    SettingsError
        If their number has changed.
    """
    before, now = state.get("processes", 1), accelerator.num_processes
    if before != now:
        raise SettingsError(
            f"The interrupted training ran in {before} processes, this one in {now}.",
            "Start it with as many processes as before, or again without resume=true.",
        )
