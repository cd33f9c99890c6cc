"""The training loop of the published audio-tagging recipes (AST, PSLA, "AudioTagging Done Right"), step for step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import SettingsError
from models.network import Network
from models.training.averaging import PredictionAverage, WeightAverage
from models.training.metrics import accuracy, average_precision, d_prime, middle_precision_recall, roc_auc

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
_WARMUP_STEPS, _WARMUP_EVERY = 1000, 50


@dataclass(frozen=True)
class PublishedRecipe:
    """Settings of `train_published`; every published recipe is one.

    Attributes
    ----------
    learning_rate, epochs
        Of Adam with betas (0.95, 0.999) and weight decay 5e-7.
    loss
        ``bce`` on multi-hot targets, or ``cross_entropy`` on the class of the largest target (never with mixup: soft labels
        become class 0).
    metric
        What the best epoch is chosen by.
    warmup
        At steps 0, 50, ... 1000 the learning rate becomes ``learning_rate * step / 1000``.
    milestones, decay
        Behind these epochs the current learning rate is multiplied by `decay`.
    average
        First and last epoch of the averaged weights, or None.
    first_twice
        Count the first of them twice, as PSLA's loop does.
    probabilities_as_logits
        A defect of the published comparison: with any loss but its own, models that output probabilities are trained as if
        these were logits. Only to reproduce its results.
    """

    learning_rate: float
    epochs: int
    loss: Literal["bce", "cross_entropy"] = "bce"
    metric: Literal["mAP", "accuracy"] = "mAP"
    warmup: bool = False
    milestones: tuple[int, ...] = ()
    decay: float = 0.5
    average: tuple[int, int] | None = None
    first_twice: bool = False
    probabilities_as_logits: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Figures of one set of predictions."""

    mean_average_precision: float
    accuracy: float
    mean_auc: float
    precision: float
    recall: float
    d_prime: float

    @classmethod
    def of(cls, scores: np.ndarray, targets: np.ndarray) -> Evaluation:
        """Measure ``[n, n_classes]`` scores against targets."""
        auc = mean_auc(scores, targets)
        precision, recall = middle_precision_recall(scores, targets)
        return cls(main_figure(scores, targets, "mAP"), accuracy(scores, targets), auc, precision, recall, d_prime(auc))

    def main(self, metric: str) -> float:
        """The figure that a recipe names."""
        return self.accuracy if metric == "accuracy" else self.mean_average_precision


def main_figure(scores: np.ndarray, targets: np.ndarray, metric: str) -> float:
    """The figure that a recipe names, ``accuracy`` or ``mAP``; classes without a positive clip are left out."""
    if metric == "accuracy":
        return accuracy(scores, targets)
    return float(np.nanmean(average_precision(scores, targets)))


def mean_auc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean area under the ROC curve over the classes that have one."""
    return float(np.nanmean(roc_auc(scores, targets)))


@dataclass
class PublishedRun:
    """What a run leaves behind.

    Attributes
    ----------
    losses, learning_rates
        Of every step.
    rows
        A row per epoch: metric, AUC, middle precision and recall, d', training and validation loss, metric and AUC of the
        mean of all epochs' predictions, learning rate.
    predictions, averaged_predictions
        Validation scores of the last epoch, and of the averaged weights.
    averaged
        mAP, AUC, middle precision and recall, d' of the averaged weights.
    averaged_weights, best_weights, best_epoch
        State dicts; the best epoch is replaced only by a strictly better one.
    """

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    predictions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    averaged_predictions: np.ndarray | None = None
    averaged: list[float] | None = None
    averaged_weights: dict[str, Tensor] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0


def recipe_loss(recipe: PublishedRecipe, logits: Tensor, targets: Tensor) -> Tensor:
    """Training loss of a batch."""
    outputs = logits.sigmoid() if recipe.probabilities_as_logits else logits
    if recipe.loss == "cross_entropy":
        return nn.functional.cross_entropy(outputs, targets.long().argmax(dim=1))
    return nn.functional.binary_cross_entropy_with_logits(outputs, targets)


def _validation_loss(recipe: PublishedRecipe, network: Network, probabilities: Tensor, targets: Tensor) -> Tensor:
    """The loss that published logs show: models with logits meet it with their sigmoid, as if these were logits."""
    if recipe.loss == "cross_entropy":
        return nn.functional.cross_entropy(probabilities, targets.long().argmax(dim=1))
    if network.info.name == "ast" or recipe.probabilities_as_logits:
        return nn.functional.binary_cross_entropy_with_logits(probabilities, targets)
    return nn.functional.binary_cross_entropy(probabilities.clamp(1e-7, 1 - 1e-7), targets)


@torch.no_grad()
def predict(
    network: Network, batches: Batches, recipe: PublishedRecipe, device: torch.device
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores and targets ``[n, n_classes]`` in evaluation mode, and the mean of the batches' losses."""
    was_training = network.training
    network.eval()
    scores, targets, losses = [], [], []
    for features, target in batches():
        features, target = features.to(device), target.to(device)
        probabilities = network(features).sigmoid()
        losses.append(_validation_loss(recipe, network, probabilities, target).item())
        scores.append(probabilities.cpu())
        targets.append(target.cpu())
    network.train(was_training)
    return torch.cat(scores).numpy(), torch.cat(targets).numpy(), float(np.mean(losses))


def train_published(
    network: Network,
    train_batches: Batches,
    validation_batches: Batches,
    recipe: PublishedRecipe,
    report: Callable[[int, list[float]], None] | None = None,
) -> PublishedRun:
    """Train as the published code does, in float32.

    Parameters
    ----------
    train_batches, validation_batches
        Called once an epoch, they give batches of features ``[batch, frames, n_mels]`` and targets ``[batch, n_classes]``.
    report
        Called after every epoch with its number and row.

    Raises
    ------
    SettingsError
        If the loss stops being a number, or fewer epochs are run than are to be averaged.
    """
    if recipe.average is not None and recipe.average[1] > recipe.epochs:
        raise SettingsError(
            f"Weights of epochs {recipe.average[0]} to {recipe.average[1]} are to be averaged, but only {recipe.epochs} are run.",
            "Run more epochs or average fewer.",
        )
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=(0.95, 0.999), weight_decay=5e-7)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.milestones), gamma=recipe.decay)
    run, average, ensemble = PublishedRun(), WeightAverage(recipe.first_twice), PredictionAverage()
    step, best = 0, -np.inf
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        total = seen = 0.0
        for features, targets in train_batches():
            if recipe.warmup and step <= _WARMUP_STEPS and step % _WARMUP_EVERY == 0:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * step / _WARMUP_STEPS
            run.learning_rates.append(optimizer.param_groups[0]["lr"])
            loss = recipe_loss(recipe, network(features.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            value = loss.item()
            run.losses.append(value)
            total, seen, step = total + value * len(features), seen + len(features), step + 1
        if not np.isfinite(total):
            raise SettingsError(f"The loss is not a number any more in epoch {epoch}.", "Lower the learning rate.")
        scores, expected, validation_loss = predict(network, validation_batches, recipe, device)
        figures, together = Evaluation.of(scores, expected), ensemble.add(scores)
        main = figures.main(recipe.metric)
        row = [
            main, figures.mean_auc, figures.precision, figures.recall, figures.d_prime, total / seen, validation_loss,
            main_figure(together, expected, recipe.metric), mean_auc(together, expected), optimizer.param_groups[0]["lr"],
        ]  # fmt: skip
        run.rows.append(row)
        run.predictions = scores
        if main > best:
            best, run.best_epoch = main, epoch
            run.best_weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
        if recipe.average is not None and recipe.average[0] <= epoch <= recipe.average[1]:
            average.add(network.state_dict())
        schedule.step()
        if report is not None:
            report(epoch, row)
    if recipe.average is not None:
        trained = {key: value.detach().clone() for key, value in network.state_dict().items()}
        run.averaged_weights = average.state_dict(trained)
        network.load_state_dict(run.averaged_weights)
        run.averaged_predictions, expected, _ = predict(network, validation_batches, recipe, device)
        network.load_state_dict(trained)
        figures = Evaluation.of(run.averaged_predictions, expected)
        run.averaged = [
            figures.mean_average_precision, figures.mean_auc, figures.precision, figures.recall, figures.d_prime
        ]  # fmt: skip
    return run
