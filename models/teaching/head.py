"""Training the head alone, on embeddings that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.card import Task
from models.network import Network
from models.teaching.course import Course, StateFile, run
from models.teaching.objective import KEPT_WEIGHT, class_weights, example_loss, kept_loss

STEPS = 200
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.1
_USUAL_SIZE = 80.0  # how far embeddings are from their mean (sum over a vector), for which the rate is right
_AT_ONCE = 256  # embeddings of a step; of more, a random part is taken


@dataclass(frozen=True, eq=False)
class HeadData:
    """Embeddings to train a head on.

    Attributes
    ----------
    hidden, targets
        ``[n, ...]`` and ``[n, n_classes]``; rows without examples of their own have the base's answers as targets.
    kept
        Rows for which the base's opinion is to be kept, and its logits ``[len(kept), old]``.
    """

    hidden: Tensor
    targets: Tensor
    kept: Tensor
    before: Tensor

    def where(self, chosen: Tensor) -> HeadData:
        """The rows for which a bool ``[n]`` is true."""
        own = chosen[self.kept]
        place = chosen.cumsum(dim=0) - 1
        rows = chosen.nonzero()[:, 0].to(self.hidden.device)
        before = self.before[own.nonzero()[:, 0].to(self.before.device)]
        return HeadData(self.hidden[rows], self.targets[rows], place[self.kept[own]], before)


@torch.no_grad()
def _read_by(network: Network, layers: Collection[str], hidden: Tensor) -> dict[str, Tensor]:
    """What layers of the head read, by their names."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.__setitem__(name, inputs[0])
        )
        for name in layers
    ]
    try:
        network.forward_head(hidden)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def suited_rate(network: Network, parameters: dict[str, nn.Parameter], data: HeadData) -> float:
    """A learning rate for embeddings of any size: of small ones, Adam has to go further to say something else."""
    n_classes = data.targets.shape[1]
    layers = [
        name.removesuffix(".weight")
        for name, value in parameters.items()
        if name.endswith(".weight") and value.ndim >= 2 and value.shape[0] == n_classes
    ]
    sizes = []
    for name, inputs in _read_by(network, layers, data.hidden).items():
        values = _vectors(inputs, parameters[f"{name}.weight"][0].numel(), len(data.targets))
        if values is not None and len(values) > 1:
            sizes.append(float((values - values.mean(dim=0)).abs().sum(dim=1).mean()))
    size = max(sizes, default=_USUAL_SIZE)
    return LEARNING_RATE * min(20.0, max(1.0, _USUAL_SIZE / max(size, 1e-6)))


@torch.no_grad()
def prototype_rows(network: Network, rows: dict[str, int], data: HeadData) -> None:
    """Start new classes where their examples are: a row points from the mean of all clips to the mean of its own.

    Of layers that pool (attention), new rows stay the mean of the old ones.
    """
    layers = {name.removesuffix(".weight") for name in rows if name.endswith(".weight")}
    layers = {name for name in layers if "att" not in name.rpartition(".")[2]}
    for name, inputs in _read_by(network, layers, data.hidden).items():
        layer = network.get_submodule(name)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        old = rows[f"{name}.weight"]
        values = _vectors(inputs, weight[0].numel(), len(data.targets))
        if values is None:
            continue
        middle = values.mean(dim=0)
        size = weight[:old].flatten(1).norm(dim=1).mean()
        for label in range(old, weight.shape[0]):
            own = values[data.targets[:, label] > 0.5]
            if not len(own):
                continue
            direction = own.mean(dim=0) - middle
            row = direction / direction.norm().clamp(min=1e-6) * size
            weight[label] = row.view_as(weight[label])
            if isinstance(bias, Tensor):
                bias[label] = -row @ (own.mean(dim=0) + middle) / 2


def _vectors(inputs: Tensor, width: int, n: int) -> Tensor | None:
    """What a layer reads as one vector a clip ``[n, width]``; None if it cannot be told."""
    if len(inputs) != n:
        return None
    if inputs.ndim == 2 and inputs.shape[1] == width:
        return inputs
    if inputs.ndim > 2 and inputs.shape[1] == width:
        return inputs.flatten(2).mean(dim=2)
    if inputs.ndim > 2 and inputs.shape[-1] == width:
        return inputs.flatten(1, -2).mean(dim=1)
    return None


def train_head(
    network: Network,
    parameters: dict[str, nn.Parameter],
    data: HeadData,
    task: Task,
    course: Course,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    n_new: int = 0,
    favour: float = 0.0,
    state_file: StateFile | None = None,
    validate: Callable[[], float | None] | None = None,
    resume: bool = False,
) -> None:
    """Some hundred steps over all embeddings at once; the network stays in evaluation mode.

    Parameters
    ----------
    n_new, favour
        How many classes, the last ones, are new, and by how much their logits are lowered in the loss
        (`models.teaching.favour`).
    """
    weights = class_weights(data.targets)
    n_classes = data.targets.shape[1]
    lowered = torch.zeros(n_classes, device=data.targets.device)
    lowered[n_classes - n_new :] = favour
    n = len(data.targets)
    place = torch.full((n,), -1, dtype=torch.long)
    place[data.kept] = torch.arange(len(data.kept))

    def loss_at(step: int) -> Tensor:
        chosen = torch.arange(n)
        if n > _AT_ONCE:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            chosen = torch.randperm(n, generator=generator)[:_AT_ONCE]
        everything = n <= _AT_ONCE
        hidden = data.hidden if everything else data.hidden[chosen]
        targets = data.targets if everything else data.targets[chosen]
        logits = network.forward_head(hidden)
        loss = example_loss(logits - lowered, targets, weights if everything else weights[chosen], task)
        kept = place[chosen] >= 0
        if len(data.kept) and bool(kept.any()):
            loss = loss + KEPT_WEIGHT * kept_loss(logits[kept], data.before[place[chosen][kept]], task)
        return loss

    run(
        [(parameters, learning_rate)], steps, loss_at, course, state_file, weight_decay=WEIGHT_DECAY,
        validate=validate, resume=resume,
    )  # fmt: skip
