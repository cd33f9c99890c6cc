"""Training the event graph as published: iterations instead of epochs, an evaluation now and then, early stopping."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.utils.data import DataLoader

from models.checkpoint import save_checkpoint
from models.errors import SettingsError
from models.frontends import FrontEnd
from models.network import Network
from models.training.clips import TrainingClips, collate
from models.training.config import TrainConfig
from models.training.hetero_graph import (
    Activation,
    LossName,
    PublishedLoop,
    PublishedSolver,
    balanced_class_weights,
    balanced_sampling,
    classification_loss,
    evaluate_logits,
    parameter_norms,
)
from models.training.run_state import load_state, random_states, save_state, set_random_states, state_path
from models.training.trainer import EpochReport, make_card, prepare_training

_LEAST_GAIN = 1e-4


class EventGraphLoop(BaseModel):
    """Settings of the loop ``event_graph``; `optimizer.batch_size` of the recipe counts, its other settings do not.

    Attributes
    ----------
    solver
        Optimizer and schedule under their published names, see `models.training.hetero_graph.PublishedSolver`.
    loss, label_smoothing, class_weights, activation
        See `models.training.hetero_graph.classification_loss`.
    parameter_norms
        Add half the sum of all parameters' norms (published option).
    balanced
        Draw clips of rare classes more often (repeat factors), as the predecessor did.
    evaluate_every
        Iterations between evaluations on the validation folds, and between saved states.
    patience
        Stop after so many evaluations without a lower loss.
    keep
        ``best``: the weights with the lowest validation loss; ``last``, which is what the published code keeps by mistake.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    solver: dict[str, Any] = Field(default_factory=dict)
    loss: LossName = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: bool = False
    activation: Activation = ""
    parameter_norms: bool = False
    balanced: bool = False
    evaluate_every: int = Field(default=1000, ge=1)
    patience: int = Field(default=5, ge=1)
    keep: str = Field(default="best", pattern="^(best|last)$")


def settings_of(config: TrainConfig) -> tuple[EventGraphLoop, PublishedSolver]:
    """Settings of the loop and its solver.

    Raises
    ------
    SettingsError
        If one is unknown or not valid.
    """
    try:
        loop = EventGraphLoop.model_validate(config.loop.settings)
        unknown = sorted(set(loop.solver) - set(PublishedSolver.model_fields))
        if unknown:
            raise SettingsError(
                f"The solver has no setting {unknown[0]!r}.", f"Known are: {', '.join(PublishedSolver.model_fields)}."
            )
        return loop, PublishedSolver.model_validate(loop.solver)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise SettingsError(f"The settings of the loop 'event_graph' are not valid: {details}.") from error


class Rounds:
    """Endless indices: every round is a fresh permutation, or a balanced draw; batches go on across rounds."""

    def __init__(self, labels: Tensor, balanced: bool, generator: torch.Generator) -> None:
        self.labels, self.balanced, self.generator = labels, balanced, generator
        self.waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next indices."""
        while len(self.waiting) < count:
            if self.balanced:
                fresh = balanced_sampling(self.labels.numpy(), self.generator)
            else:
                fresh = torch.randperm(len(self.labels), generator=self.generator)
            self.waiting += fresh.tolist()
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


@torch.no_grad()
def logits_of(
    network: Network, frontend: FrontEnd, clips: TrainingClips, batch_size: int, workers: int
) -> tuple[Tensor, Tensor]:
    """Logits and true classes of all clips, in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    logits, labels = [], []
    for batch in DataLoader(
        clips, batch_size, collate_fn=collate, num_workers=workers, generator=torch.Generator()
    ):  # fmt: skip
        frames = None if batch.frames is None else batch.frames.to(device)
        logits.append(network(frontend(batch.waveforms.to(device)), frames).float().cpu())
        labels.append(batch.targets.argmax(dim=1))
    network.train()
    return torch.cat(logits), torch.cat(labels)


def train_event_graph(config: TrainConfig, report: Callable[[EpochReport], None] | None = None) -> Path:
    """Train the event graph with its published loop and write the checkpoint.

    Reports count evaluations: epoch n is over after ``n * evaluate_every`` iterations.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    own, solver = settings_of(config)
    set_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepared = prepare_training(config)
    network, clips, frontend = prepared.network.to(device), prepared.clips, prepared.frontend.to(device)
    labels = clips.targets.argmax(dim=1)
    weights = balanced_class_weights(labels.numpy(), clips.targets.shape[1]).to(device) if own.class_weights else None
    network.train()
    loop = PublishedLoop(network, solver)
    generator = torch.Generator().manual_seed(config.seed)
    rounds = Rounds(labels, own.balanced, generator)
    batch_size, workers = config.optimizer.batch_size, config.data.workers
    best, waited, best_weights = float("inf"), 0, {k: v.clone() for k, v in network.state_dict().items()}
    config.output.mkdir(parents=True, exist_ok=True)
    path, history = state_path(config), config.output / f"{config.name}.jsonl"
    if config.resume:
        state = load_state(path, config)
        network.load_state_dict(state["network"])
        restore_loop(loop, state["loop"])
        rounds.waiting = list(state["waiting"])
        best, waited, best_weights = state["best"], state["waited"], state["best_weights"]
        set_random_states(state["random"], generator)
    done = -(-loop.iteration // own.evaluate_every)
    lines = history.read_text(encoding="utf-8").splitlines()[:done] if history.is_file() else []
    history.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    started, total = time.monotonic(), -(-solver.MAX_ITER // own.evaluate_every)
    while loop.iteration < solver.MAX_ITER and waited < own.patience:
        losses = []
        count = min(own.evaluate_every, solver.MAX_ITER - loop.iteration)
        order = [rounds.take(batch_size) for _ in range(count)]
        for batch in DataLoader(clips, batch_sampler=order, collate_fn=collate, num_workers=workers):
            with torch.no_grad():
                features = frontend(batch.waveforms.to(device))
            logits = network(features, None if batch.frames is None else batch.frames.to(device))
            loss = classification_loss(
                logits, batch.targets.argmax(dim=1).to(device), own.loss, label_smoothing=own.label_smoothing,
                class_weights=weights, activation=own.activation,
            )  # fmt: skip
            losses.append(loss.item())
            loop.step(loss + parameter_norms(network) if own.parameter_norms else loss)
        done += 1
        if not torch.tensor(losses).isfinite().all():
            raise SettingsError("The loss is not a number any more.", "Lower BASE_LR in loop.solver.")
        figure = None
        if prepared.validation is not None:
            found = evaluate_logits(*logits_of(network, frontend, prepared.validation, batch_size, workers), own.loss)
            figure, waited = found.accuracy, waited + 1
            if found.loss + _LEAST_GAIN < best:
                best, waited = found.loss, 0
                best_weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
        entry = EpochReport(done, total, sum(losses) / len(losses), max(loop.rates), figure, time.monotonic() - started)
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        save_state(path, config, {
            "network": network.state_dict(), "loop": loop_state(loop), "waiting": rounds.waiting, "best": best,
            "waited": waited, "best_weights": best_weights, "random": random_states(generator),
        })  # fmt: skip
        if report is not None:
            report(entry)
    if own.keep == "best" and prepared.validation is not None:
        network.load_state_dict(best_weights)
    save_checkpoint(config.output / config.name, network.eval(), make_card(config, prepared), half=config.half)
    path.unlink(missing_ok=True)
    return config.output / config.name


def loop_state(loop: PublishedLoop) -> dict[str, Any]:
    """What a published loop goes on from; gradients may be waiting for their step."""
    gradients = {name: p.grad for name, p in loop.network.named_parameters() if p.grad is not None}
    return {
        "optimizer": loop.optimizer.state_dict(), "iteration": loop.iteration, "counter": loop._counter,
        "gradients": gradients,
    }  # fmt: skip


def restore_loop(loop: PublishedLoop, state: dict[str, Any]) -> None:
    """Go on from `loop_state`."""
    loop.optimizer.load_state_dict(state["optimizer"])
    loop.iteration, loop._counter = state["iteration"], state["counter"]
    for name, parameter in loop.network.named_parameters():
        gradient = state["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
