"""Training more than the head: the last blocks, low-rank additions, or everything, on changed copies of the sounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.recognizer import Recognizer
from models.teaching.contract import TeachSettings
from models.teaching.course import Course, StateFile, run
from models.teaching.listening import changed, features_of, joined
from models.teaching.low_rank import add_low_rank, merge_low_rank
from models.teaching.objective import class_weights, example_loss, kept_loss, opinion_as_targets
from models.teaching.ways import blocks, silent_input

BATCH = 16
LEARNING_RATES = {"last_blocks": 5e-4, "low_rank": 2e-3, "everything": 2e-4}
HEAD_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
KEPT_WEIGHT = 1.0
_SOUNDS = 2000  # heard in a training, if it is not said how many epochs it lasts


@dataclass(frozen=True, eq=False)
class DeepData:
    """Sounds to train on.

    Attributes
    ----------
    waveforms, pictures
        Of every window.
    targets
        ``[n, n_classes]``.
    n_examples
        The first rows are examples; the others are generated, and their targets are the base's answers.
    """

    waveforms: Sequence[Tensor]
    pictures: Sequence[Tensor | None]
    targets: Tensor
    n_examples: int


def default_epochs(n: int) -> int:
    """Passes over `n` sounds: fewer, the more there are."""
    return max(5, min(40, round(_SOUNDS / max(1, n))))


def steps_of(n: int, epochs: int) -> int:
    """Steps of so many epochs."""
    return epochs * math.ceil(n / BATCH)


def opened(
    recognizer: Recognizer, head: dict[str, nn.Parameter], way: str, settings: TeachSettings
) -> dict[str, nn.Parameter]:
    """What is trained besides the head, by name; of ``low_rank``, the additions are put into the network here."""
    network = recognizer.network
    named = {name: value for name, value in network.named_parameters() if name not in head}
    if way == "everything":
        return named
    if way == "low_rank":
        return add_low_rank(network, set(head), settings.rank, settings.seed)
    last = blocks(network, *silent_input(recognizer), set(head))[-settings.blocks :]
    return {name: named[name] for block in last for name in block if name in named}


def rnn_may_learn(network: nn.Module) -> None:
    """GPUs cannot go backwards through recurrent layers in evaluation mode; everything else stays in it.

    Batch norms keep their statistics: those of a few examples would be worse. Dropout and stochastic depth stay off.
    """
    for module in network.modules():
        if isinstance(module, nn.RNNBase) and module.dropout == 0.0:
            module.training = True


def train_deep(
    base: Recognizer,
    recognizer: Recognizer,
    head: dict[str, nn.Parameter],
    deeper: dict[str, nn.Parameter],
    data: DeepData,
    course: Course,
    *,
    epochs: int,
    learning_rate: float,
    head_learning_rate: float,
    settings: TeachSettings,
    state_file: StateFile | None = None,
    validate: Callable[[], float | None] | None = None,
    resume: bool = False,
) -> None:
    """Train head and more; afterwards the network is an ordinary one again.

    Every sound is changed anew whenever it is heard, and the base says what it thinks of the same copy.
    """
    network, task, device = recognizer.network, recognizer.card.task, recognizer.device
    n = len(data.waveforms)
    each = math.ceil(n / BATCH)
    weights = class_weights(data.targets).to(device)
    targets = data.targets.to(device)
    converted = task != base.card.task

    def loss_at(step: int) -> Tensor:
        epoch, number = divmod(step, each)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        rows = torch.randperm(n, generator=generator)[number * BATCH : (number + 1) * BATCH].tolist()
        waveforms = [data.waveforms[row] for row in rows]
        if settings.augment:
            waveforms = [changed(w, settings.seed, row, epoch) for w, row in zip(waveforms, rows, strict=True)]
        frames = joined([data.pictures[row] for row in rows], device)
        with torch.no_grad():
            features = features_of(recognizer, waveforms)
            before = base.network(features) if frames is None else base.network(features, frames)
        logits = network(features) if frames is None else network(features, frames)
        wanted = targets[rows]
        if not converted:
            wanted = opinion_as_targets(wanted, before, task)
        loss = example_loss(logits, wanted, weights[rows], task)
        return loss if converted else loss + KEPT_WEIGHT * kept_loss(logits, before, task)

    rnn_may_learn(network)
    try:
        run(
            [(head, head_learning_rate), (deeper, learning_rate)], epochs * each, loss_at, course, state_file,
            weight_decay=WEIGHT_DECAY, validate=validate, resume=resume,
        )  # fmt: skip
    finally:
        merge_low_rank(network)
        network.eval().requires_grad_(False)
