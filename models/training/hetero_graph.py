"""How the published event-graph network was trained: losses, class weights, metrics, schedules and its optimiser steps.

Faithful in its quirks, so that a published training run can be repeated; `balanced_sampling` and the class weights
are useful on their own. Which quirk is which is said where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.errors import DataError, SettingsError

LossName = Literal["cross_entropy", "focal"]
Activation = Literal["", "Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid"]
ScheduleName = Literal["WarmupMultiStepLR", "WarmupCosineLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts"]


# --- losses and class weights
# ------------------------------------------------------------------------------------------


def balanced_class_weights(labels: Sequence[int] | np.ndarray, n_classes: int) -> Tensor:
    """``N / (n_classes * count)`` of every class, ``[n_classes]``.

    Raises
    ------
    DataError
        If a class has no clip (the published code fails later, in the loss).
    """
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=n_classes)
    if len(counts) != n_classes or not counts.all():
        raise DataError(
            f"{int((counts == 0).sum())} of {n_classes} classes have no clip, so their weights cannot be balanced.",
            "Leave these classes out or add clips.",
        )
    return torch.tensor(counts.sum() / (n_classes * counts), dtype=torch.float32)


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = 0.5, gamma: float = 2.0) -> Tensor:
    """Mean over clips of ``-alpha (1 - p)^gamma log p``, p the softmax of ``[batch, n_classes]``.

    Lin et al.: Focal Loss for Dense Object Detection. ICCV 2017. The target is one-hot plus 1e-6 for every class, as
    in the library that the published code calls.
    """
    log_p = logits.log_softmax(dim=1)
    target = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype) + 1e-6
    return (target * -alpha * (1.0 - log_p.exp()) ** gamma * log_p).sum(dim=1).mean()


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    loss: LossName = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    activation: Activation = "",
) -> Tensor:
    """The training loss of ``[batch, n_classes]`` and true classes ``[batch]``.

    Smoothing and weights belong to the cross entropy and leave the focal loss alone; `activation` is applied to the
    logits first (published option; a cross entropy of sigmoids learns slowly).
    """
    if activation:
        functions = {
            "Sigmoid": torch.sigmoid,
            "Softmax": lambda x: x.softmax(dim=1),
            "LogSoftmax": lambda x: x.log_softmax(dim=1),
            "LogSigmoid": nn.functional.logsigmoid,
        }
        logits = functions[activation](logits)
    if loss == "focal":
        return focal_loss(logits, labels)
    return nn.functional.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)


def parameter_norms(network: nn.Module) -> Tensor:
    """Half the sum of the parameters' L2 norms (not squared): the published regulariser."""
    return 0.5 * torch.stack([parameter.norm() for parameter in network.parameters()]).sum()


# --- metrics
# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What the published evaluator reports about a whole test set."""

    mean_average_precision: float
    accuracy: float
    loss: float
    roc_auc: float


def evaluate_logits(logits: Tensor, labels: Tensor, loss: LossName = "cross_entropy") -> Evaluation:
    """Metrics of all logits ``[n, n_classes]`` and labels ``[n]`` at once.

    Average precision per class on softmax probabilities; classes without a clip count as 0 (quirk; it lowers the mean).
    ROC-AUC is one-vs-rest, macro, NaN where it is not defined. The loss is unweighted and not smoothed.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    probabilities = logits.softmax(dim=1).double().numpy()
    truth = labels.numpy()
    n_classes = logits.shape[1]
    precisions = [
        average_precision_score(truth == c, probabilities[:, c]) if (truth == c).any() else 0.0
        for c in range(n_classes)
    ]
    try:
        # Normalised again: rows of float32 probabilities miss 1 by more than scikit-learn tolerates.
        rows = probabilities / probabilities.sum(axis=1, keepdims=True)
        roc = float(roc_auc_score(truth, rows, multi_class="ovr", average="macro", labels=np.arange(n_classes)))
    except ValueError:
        roc = math.nan
    return Evaluation(
        float(np.sum(precisions) / n_classes),
        float((probabilities.argmax(axis=1) == truth).mean()),
        classification_loss(logits, labels, loss).item(),
        roc,
    )


# --- sampling
# ----------------------------------------------------------------------------------------------------------


def repeat_factors(labels: Sequence[int] | np.ndarray, threshold: float = 0.1) -> np.ndarray:
    """How often each clip should be seen per round, ``max(1, sqrt(threshold / share of its class))``, float64 ``[n]``.

    Gupta, Dollar, Girshick: LVIS. CVPR 2019, section 4 (repeat factor sampling).
    """
    truth = np.asarray(labels, dtype=np.int64)
    shares = np.bincount(truth) / len(truth)
    return np.sqrt(np.maximum(1.0, threshold / shares[truth]))


def balanced_sampling(labels: Sequence[int] | np.ndarray, generator: torch.Generator, threshold: float = 0.1) -> Tensor:
    """Clip indices of one round, shuffled: a clip comes floor(r) times, and once more with the remaining chance."""
    factors = torch.as_tensor(repeat_factors(labels, threshold))
    extra = torch.rand(len(factors), generator=generator, dtype=torch.float64) < factors - factors.floor()
    indices = torch.arange(len(factors)).repeat_interleave(factors.floor().long() + extra)
    return indices[torch.randperm(len(indices), generator=generator)]


# --- schedule and optimiser
# --------------------------------------------------------------------------------------------


class PublishedSolver(BaseModel):
    """Optimiser settings under the names of the published configuration, with its defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    OPTIM: Literal["SGD", "Adam", "AdamW"] = "SGD"
    BASE_LR: float = 0.001
    SAME_LR: bool = True
    MOMENTUM: float = 0.9
    NESTEROV: bool = False
    WEIGHT_DECAY: float = 1e-4
    WEIGHT_DECAY_NORM: float = 0.0
    WEIGHT_DECAY_BIAS: float = 1e-4
    BIAS_LR_FACTOR: float = 1.0
    ADAM_BETA1: float = 0.9
    ADAM_BETA2: float = 0.999
    ADAM_EPS: float = 1e-8
    LR_SCHEDULER_NAME: ScheduleName = "WarmupMultiStepLR"
    LR_SCHEDULER_T_MAX: int = 1000
    WARMUP_ITERS: int = 3000
    WARMUP_FACTOR: float = 0.001
    WARMUP_METHOD: Literal["linear", "constant"] = "linear"
    STEPS: tuple[int, ...] = (100,)
    GAMMA: float = 0.1
    MAX_ITER: int = 500
    ITERS_TO_ACCUMULATE: int = Field(default=1, ge=1)
    MY_CLIP_GRADIENTS: bool = False
    CLIP_VALUE: float = 1.0

    def rate_factor(self, iteration: int) -> float:
        """What the base rate is multiplied by in an iteration (0-based)."""

        def plain(t: int) -> float:
            if self.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
                return float(self.GAMMA ** sum(step <= t for step in self.STEPS if step <= self.MAX_ITER))
            period = self.MAX_ITER if self.LR_SCHEDULER_NAME == "WarmupCosineLR" else self.LR_SCHEDULER_T_MAX
            if self.LR_SCHEDULER_NAME == "CosineAnnealingWarmRestarts":
                t = t % period
            return 0.5 * (1.0 + math.cos(math.pi * t / period))

        warm = self.LR_SCHEDULER_NAME.startswith("Warmup") and iteration < self.WARMUP_ITERS
        if not warm:
            return plain(iteration)
        start = self.WARMUP_FACTOR * plain(0)
        if self.WARMUP_METHOD == "constant":
            return start
        return start + (plain(self.WARMUP_ITERS) - start) * iteration / self.WARMUP_ITERS

    def groups(self, network: nn.Module) -> list[dict[str, object]]:
        """Parameter groups with their base rates.

        Without `SAME_LR` three: ``video_head``, ``audio_head`` (both at a tenth of the rate), everything else. With
        it a group for each parameter, where norms and biases have a weight decay of their own.
        """
        if not self.SAME_LR:
            rest, heads = [], {"video_head": [], "audio_head": []}  # type: ignore[var-annotated]
            for name, parameter in network.named_parameters():
                heads.get(name.split(".")[0], rest).append(parameter)
            return [
                {"params": heads["video_head"], "lr": self.BASE_LR / 10},
                {"params": heads["audio_head"], "lr": self.BASE_LR / 10},
                {"params": rest, "lr": self.BASE_LR},
            ]
        norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
        groups: list[dict[str, object]] = []
        seen: set[nn.Parameter] = set()
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter in seen or not parameter.requires_grad:
                    continue
                seen.add(parameter)
                decay = self.WEIGHT_DECAY_NORM if isinstance(module, norms) else self.WEIGHT_DECAY
                rate = self.BASE_LR
                if name == "bias":
                    decay, rate = self.WEIGHT_DECAY_BIAS, rate * self.BIAS_LR_FACTOR
                groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        return groups

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser for a network."""
        groups = self.groups(network)
        if self.OPTIM == "SGD":
            return torch.optim.SGD(
                groups, self.BASE_LR, self.MOMENTUM, weight_decay=self.WEIGHT_DECAY, nesterov=self.NESTEROV
            )
        cls = torch.optim.Adam if self.OPTIM == "Adam" else torch.optim.AdamW
        betas = (self.ADAM_BETA1, self.ADAM_BETA2)
        return cls(groups, self.BASE_LR, betas, self.ADAM_EPS, self.WEIGHT_DECAY)


def gradient_norm(module: nn.Module) -> float:
    """L2 norm of all gradients in a module; 0 where there are none."""
    gradients = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return torch.stack(gradients).norm().item() if gradients else 0.0


@dataclass(frozen=True)
class StepReport:
    """What happened in one iteration: norms of the accumulated gradient, and whether the optimiser stepped.

    Norms are of the audio backbone, the video backbone and the whole network.
    """

    norms: tuple[float, float, float]
    clipped_norms: tuple[float, float, float]
    stepped: bool


class PublishedLoop:
    """The published training iteration.

    Quirk: gradients are accumulated over `ITERS_TO_ACCUMULATE` batches (not divided by their number) only before the
    first step, and over one batch less before every later one; with 2 there is a step after every batch but the first.

    Parameters
    ----------
    network
        With submodules ``audio_head`` and ``video_head``.
    backward
        Adds the gradients of a loss; several processes also exchange them (`models.training.processes.backward`).
    """

    def __init__(
        self, network: nn.Module, solver: PublishedSolver,
        backward: Callable[[Tensor], None] = torch.autograd.backward,
    ) -> None:  # fmt: skip
        if not hasattr(network, "audio_head") or not hasattr(network, "video_head"):
            raise SettingsError("The published training loop is made for the event-graph network only.")
        self.network = network
        self.solver = solver
        self._backward = backward
        self.optimizer = solver.optimizer(network)
        self.iteration = 0
        self._counter = 0
        self._base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._set_rates()

    def _set_rates(self) -> None:
        # Not torch's scheduler: it counts optimiser steps, the published schedule counts batches.
        factor = self.solver.rate_factor(self.iteration)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    @property
    def rates(self) -> list[float]:
        """Learning rates in force, by group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _norms(self) -> tuple[float, float, float]:
        network = self.network
        return (
            gradient_norm(network.get_submodule("audio_head")),
            gradient_norm(network.get_submodule("video_head")),
            gradient_norm(network),
        )

    def step(self, loss: Tensor) -> StepReport:
        """Backward, clip, step if it is time, and go on in the schedule."""
        self._backward(loss)
        before = self._norms()
        if self.solver.MY_CLIP_GRADIENTS:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.solver.CLIP_VALUE)
        after = self._norms()
        stepped = (self._counter + 1) % self.solver.ITERS_TO_ACCUMULATE == 0
        if stepped:
            self._counter = 0
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._counter += 1
        self.iteration += 1
        self._set_rates()
        return StepReport(before, after, stepped)
