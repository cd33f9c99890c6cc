"""Bring your own model: any module on log-mel features or samples, as a recognizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.card import Card, Task
from models.errors import SettingsError
from models.frontends import FrontEnd, FrontEndConfig, build_frontend
from models.network import CamLayer, Network, NetworkConfig, log_odds
from models.recognizer import Recognizer
from models.registry import FamilyInfo

Reader = Callable[[Tensor], Tensor]


class CustomNetwork(Network):
    """Somebody else's module with the interface of a network; `read` turns features into its input.

    It has no registered family, so it lives as long as the program: save the module as you always do, and wrap it again.
    """

    info = FamilyInfo(
        name="custom", title="Own model", summary="A module that was wrapped for this run of the program.", citation="",
        views=frozenset({"attribution"}),
    )  # fmt: skip

    def __init__(
        self, module: nn.Module, n_classes: int, read: Reader, answer: Reader, layers: Sequence[CamLayer]
    ) -> None:
        super().__init__(NetworkConfig(n_classes=n_classes))
        self.module = module
        self._read, self._answer, self._layers = read, answer, list(layers)

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Logits already: where a representation ends and a classifier begins is not known."""
        return self._answer(self.module(self._read(features)))

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Unchanged."""
        return hidden

    def cam_layers(self) -> list[CamLayer]:
        """Those that were given."""
        return self._layers


def wrap_module(
    module: nn.Module,
    frontend: FrontEnd | FrontEndConfig | dict[str, Any],
    labels: Sequence[str],
    task: Task = "single-label",
    *,
    name: str = "own-model",
    read: Reader | None = None,
    answer: Reader | None = None,
    probabilities: bool = False,
    cam_layers: Sequence[CamLayer] = (),
) -> Recognizer:
    """A recognizer of any module, which is put into evaluation mode.

    Parameters
    ----------
    module
        From features to logits ``[batch, n_classes]``; differentiable for methods that use gradients.
    frontend
        What it listens with. With the kind ``waveform`` the module gets samples ``[batch, samples]``, otherwise
        ``[batch, frames, n_mels]``.
    labels
        Class names in the order of its outputs.
    task
        ``single-label`` (softmax) or ``multi-label`` (sigmoid).
    read
        Turns ``[batch, frames, n_mels]`` into the module's input, such as ``lambda x: x.transpose(1, 2).unsqueeze(1)``.
    answer
        Picks logits from what the module returns, such as ``lambda out: out.logits``.
    probabilities
        The module answers with probabilities; they are turned back into logits.
    cam_layers
        Layers for Grad-CAM.

    Raises
    ------
    SettingsError
        If labels repeat, or the module cannot read the features or answers with another number of classes.
    """
    labels = [str(label) for label in labels]
    if not labels or len(set(labels)) != len(labels):
        raise SettingsError("Class names have to be different from each other.", "Give one name for each output.")
    if not isinstance(frontend, FrontEnd):
        frontend = build_frontend(frontend)
    if read is None:
        read = _samples if frontend.n_mels == 0 else _unchanged
    pick = answer or _unchanged
    final = (lambda output: _logits(pick(output), task)) if probabilities else pick
    network = CustomNetwork(module, len(labels), read, final, cam_layers)
    if not list(module.parameters()):
        # A recognizer's device is that of its weights.
        network.register_parameter("no_weights", nn.Parameter(torch.zeros(0), requires_grad=False))
    card = Card(
        name=name, family=network.info.name, frontend=frontend.config.model_dump(mode="json"), labels=labels, task=task
    )
    recognizer = Recognizer(network, frontend, card).requires_grad_(False)
    _try(recognizer, module)
    return recognizer


def _unchanged(value: Tensor) -> Tensor:
    return value


def _samples(features: Tensor) -> Tensor:
    return features.squeeze(2)


def _logits(probabilities: Tensor, task: Task) -> Tensor:
    return log_odds(probabilities) if task == "multi-label" else probabilities.clamp_min(1e-7).log()


@torch.no_grad()
def _try(recognizer: Recognizer, module: nn.Module) -> None:
    samples = recognizer.window_samples or recognizer.sample_rate
    features = recognizer.features(torch.zeros(2, samples))
    try:
        logits = recognizer(features)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SettingsError(
            f"{type(module).__name__} cannot read features of the shape {list(features.shape)}: {first}.",
            "Give read, which turns [batch, frames, n_mels] into the module's input, or another front end.",
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, len(recognizer.labels)):
        found = f"a tensor of the shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise SettingsError(
            f"{type(module).__name__} answers two clips with {found}, not with [2, {len(recognizer.labels)}].",
            "Give as many labels as it has outputs, and answer, which picks the logits from what it returns.",
        )
