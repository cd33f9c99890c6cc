"""What a student learns from a teacher beside the labels: its answers, and what its head reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.frontends import FrontEnd
from models.network import Network
from models.recognizer import Recognizer
from models.training.sections import TeacherConfig

_WITHOUT_WINDOW = 5  # seconds


class Lesson(NamedTuple):
    """A teacher's logits ``[batch, n_classes]``, and its embeddings ``[batch, size]`` if they are learned too."""

    logits: Tensor
    embeddings: Tensor | None


@torch.no_grad()
def channel_axis(network: Network, hidden: Tensor) -> int:
    """Which axis of what a head reads are the channels: the one that the head's first weight is made for.

    Convolutions give ``[batch, channels, steps]``, sequences ``[batch, steps, channels]``.
    """
    sizes: list[int] = []
    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    handles = [
        module.register_forward_pre_hook(lambda module, _: sizes.append(module.weight.shape[1])) for module in weighted
    ]
    try:
        network.forward_head(hidden)
    finally:
        for handle in handles:
            handle.remove()
    axes = [axis for axis in (1, hidden.ndim - 1) if sizes and hidden.shape[axis] == sizes[0]]
    return axes[0] if axes else 1


def pooled(hidden: Tensor, axis: int) -> Tensor:
    """One vector a clip ``[batch, channels]``: the largest value of every channel, over all positions.

    A sound that is heard for a moment counts as much as one that lasts.
    """
    return hidden.movedim(axis, 1).flatten(2).amax(dim=2) if hidden.ndim > 2 else hidden


class Teacher:
    """Answers for a student; its embeddings are normalised over their channels.

    Parameters
    ----------
    recognizer
        The teacher.
    settings
        Of the recipe.
    """

    def __init__(self, recognizer: Recognizer, settings: TeacherConfig) -> None:
        self.recognizer, self.settings = recognizer, settings
        self._axis: int | None = None

    @torch.no_grad()
    def listen(self, waveforms: Tensor) -> Lesson:
        """What it says to ``[batch, samples]``."""
        network = self.recognizer.network
        features = self.recognizer.features(waveforms)
        if self.settings.embedding_weight == 0:
            return Lesson(self.recognizer(features), None)
        hidden = network.forward_features(features)
        if self._axis is None:
            self._axis = channel_axis(network, hidden)
        vectors = pooled(hidden, self._axis).float()
        return Lesson(network.forward_head(hidden), nn.functional.layer_norm(vectors, vectors.shape[1:]))

    @torch.no_grad()
    def projection_of(self, student: Network, frontend: FrontEnd) -> Projection | None:
        """The map from a student's embeddings to this teacher's, if they are learned."""
        if self.settings.embedding_weight == 0:
            return None
        silence = torch.zeros(1, frontend.window_samples or _WITHOUT_WINDOW * frontend.sample_rate)
        device = next(student.parameters()).device
        # Batch norms count what they hear while they are trained.
        training = student.training
        student.eval()
        hidden = student.forward_features(frontend(silence.to(device)))
        axis = channel_axis(student, hidden)
        student.train(training)
        wanted = self.listen(silence.to(device)).embeddings
        assert wanted is not None
        return Projection(hidden.shape[axis], wanted.shape[1], axis)


class Projection(nn.Module):
    """A linear map from a student's embeddings to its teacher's, for training only (Romero et al.: FitNets, 2015).

    Parameters
    ----------
    size, wanted
        Channels of a student's embedding, and of a teacher's.
    axis
        Of the student's channels.
    """

    def __init__(self, size: int, wanted: int, axis: int) -> None:
        super().__init__()
        self.linear, self.axis = nn.Linear(size, wanted), axis

    def forward(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared distance of what the student's head reads to a teacher's embeddings ``[batch, wanted]``."""
        return nn.functional.mse_loss(self.linear(pooled(hidden, self.axis)).float(), wanted)


@contextmanager
def embeddings_of(network: Network) -> Iterator[list[Tensor]]:
    """What the head reads, of every call of the network meanwhile."""
    heard: list[Tensor] = []
    original = network.forward_head

    def reading(hidden: Tensor) -> Tensor:
        heard.append(hidden)
        return original(hidden)

    network.forward_head = reading  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        del network.forward_head
