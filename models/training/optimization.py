"""Optimizers and learning-rate schedules of recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from models.errors import SettingsError
from models.training.config import OptimizerConfig, ScheduleConfig
from models.training.equiav import WarmupCosine
from models.training.playback_published import learning_rate as playback_rate
from models.training.sgd import LearningRatePolicy, build_sgd

_WARMUP_EVERY = 50


def parameter_groups(network: nn.Module, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """Trainable parameters with their weight decay and rate.

    Raises
    ------
    SettingsError
        If nothing is left to train.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if not named:
        raise SettingsError("No parameter is left to train.", "Freeze fewer (optimizer.frozen).")

    def decays(name: str, parameter: nn.Parameter) -> bool:
        if settings.decay_of == "matrices":
            return parameter.ndim > 1
        return settings.decay_of == "all" or "bn" not in name

    groups: list[dict[str, Any]] = []
    for head in (False, True) if settings.head_learning_rate is not None else (False,):
        rate = settings.head_learning_rate if head else settings.learning_rate
        for decay in (True, False):
            chosen = [
                p for name, p in named
                if decays(name, p) == decay
                and (settings.head_learning_rate is None or name.startswith(tuple(settings.head_names)) == head)
            ]  # fmt: skip
            if chosen:
                groups.append({"params": chosen, "weight_decay": settings.weight_decay if decay else 0.0, "lr": rate})
    return groups


def build_optimizer(network: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a recipe, over the parameters that require a gradient.

    Raises
    ------
    SettingsError
        If nothing is left to train.
    """
    groups = parameter_groups(network, settings)
    optimizer: torch.optim.Optimizer
    if settings.kind == "sgd" and settings.decay_of == "not_batch_norm" and settings.head_learning_rate is None:
        optimizer = build_sgd(
            network, settings.learning_rate, momentum=settings.momentum, nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
    elif settings.kind == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        optimizer = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=nesterov)
    elif settings.kind == "adam":
        optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, betas=settings.betas)
    else:
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


class RateSchedule:
    """Sets the learning rates; all it remembers lies in the optimizer's groups, so it goes on where they do.

    Parameters
    ----------
    schedule, settings
        Of the recipe.
    steps_per_epoch
        Optimizer steps.
    """

    def __init__(self, schedule: ScheduleConfig, settings: OptimizerConfig, steps_per_epoch: int) -> None:
        self.schedule, self.settings, self.steps_per_epoch = schedule, settings, steps_per_epoch

    def before_step(self, groups: Sequence[dict[str, Any]], step: int) -> None:
        """Set the rates of a step (counted from 0)."""
        if self.schedule.kind == "milestones":
            last = self.schedule.warmup_steps
            if last and step <= last and step % _WARMUP_EVERY == 0:
                for group in groups:
                    group["lr"] = group["base_lr"] * step / last
            return
        factor = FACTORS[self.schedule.kind](self.schedule, self.settings, step, self.steps_per_epoch)
        for group in groups:
            group["lr"] = group["base_lr"] * factor

    def after_epoch(self, groups: Sequence[dict[str, Any]], epoch: int) -> None:
        """An epoch (counted from 1) is over."""
        if self.schedule.kind == "milestones" and epoch in self.schedule.milestones:
            for group in groups:
                group["lr"] *= self.schedule.decay


def _cosine(schedule: ScheduleConfig, settings: OptimizerConfig, step: int, per_epoch: int) -> float:
    total = settings.epochs * per_epoch
    warmup = max(1, round(settings.warmup_epochs * per_epoch))
    falling = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, total - warmup)))
    return min((step + 1) / warmup, falling)


def _steps(schedule: ScheduleConfig, settings: OptimizerConfig, step: int, per_epoch: int) -> float:
    policy = LearningRatePolicy(
        settings.learning_rate, "steps", schedule.steps, schedule.factors, settings.epochs,
        warmup_epochs=settings.warmup_epochs, warmup_start=schedule.start,
    )  # fmt: skip
    return policy.at(step / per_epoch) / settings.learning_rate


def _play_it_back(schedule: ScheduleConfig, settings: OptimizerConfig, step: int, per_epoch: int) -> float:
    base = settings.learning_rate
    rate = playback_rate(step / per_epoch, base, schedule.end, settings.epochs, settings.warmup_epochs, schedule.start)
    return rate / base


def _half_cosine(schedule: ScheduleConfig, settings: OptimizerConfig, step: int, per_epoch: int) -> float:
    rate = WarmupCosine(
        settings.learning_rate, schedule.start, schedule.end, settings.warmup_epochs, settings.epochs, per_epoch
    )
    return rate(step) / settings.learning_rate


# Share of the base rate in a step.
FACTORS: dict[str, Callable[[ScheduleConfig, OptimizerConfig, int, int], float]] = {
    "cosine": _cosine,
    "steps": _steps,
    "play_it_back": _play_it_back,
    "half_cosine": _half_cosine,
}
