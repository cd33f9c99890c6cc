"""The iteration that most families are trained with: steps of batches, a validation after each epoch, a state to resume."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from models.errors import SettingsError
from models.frontends import FrontEnd
from models.network import Network
from models.recognizer import Recognizer
from models.training.augmentations import AUGMENTATIONS
from models.training.averaging import WeightAverage, moving_average
from models.training.clips import Batch, TrainingClips, collate
from models.training.config import OptimizerConfig, TrainConfig
from models.training.distillation import Projection, Teacher, embeddings_of
from models.training.losses import Criterion, build_criterion, distilled
from models.training.optimization import RateSchedule, build_optimizer
from models.training.plan import EpochPlan
from models.training.provenance import annotation_hash
from models.training.run_state import Saver, not_finite
from models.training.sgd import freeze_batch_norm, precise_batch_norm
from models.training.tracking import RunLog
from models.training.trainer import EpochReport
from models.training.validation import validate

log = logging.getLogger(__name__)
_TRACKED_EVERY = 10  # steps


class Averages:
    """What is kept of the weights: the last ones, their exponential average, or the plain average of some epochs."""

    def __init__(self, network: Network, settings: OptimizerConfig) -> None:
        self.network, self.settings = network, settings
        self.moving: AveragedModel | None = None
        self.epochs: WeightAverage | None = None
        if settings.average_epochs is not None:
            self.epochs = WeightAverage(settings.average_first_twice)
        elif settings.average_decay > 0:
            self.moving = AveragedModel(network, avg_fn=moving_average(settings.average_decay), use_buffers=True)

    @property
    def current(self) -> Network:
        """The network to validate, and to keep if nothing else is wanted."""
        if self.moving is None:
            return self.network
        assert isinstance(self.moving.module, Network)
        return self.moving.module

    def after_step(self) -> None:
        """The optimizer made a step."""
        if self.moving is not None:
            self.moving.update_parameters(self.network)

    def after_epoch(self, epoch: int) -> None:
        """An epoch (counted from 1) is over."""
        first, last = self.settings.average_epochs or (0, 0)
        if self.epochs is not None and first <= epoch <= last:
            self.epochs.add({key: value.detach().cpu() for key, value in self.network.state_dict().items()})

    def state(self) -> dict[str, Any]:
        """What to go on from."""
        moving = self.moving.state_dict() if self.moving is not None else {}
        return {"moving": moving, "epochs": dict(vars(self.epochs)) if self.epochs is not None else {}}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        if self.moving is not None:
            self.moving.load_state_dict(state["moving"])
        if self.epochs is not None:
            vars(self.epochs).update(state["epochs"])


@dataclass
class Progress:
    """How far a run is, and its best epoch.

    Attributes
    ----------
    epoch
        Whole epochs.
    within, losses
        Steps of the epoch after them, and the sum of their losses.
    step
        All steps.
    seconds
        Time that all of it took.
    """

    epoch: int = 0
    within: int = 0
    losses: float = 0.0
    step: int = 0
    seconds: float = 0.0
    best: float = float("-inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


class Learner(nn.Module):
    """Network and loss together: all that computes gradients lies in the one module that processes keep alike.

    Parameters
    ----------
    network, criterion
        What is trained, and the recipe's own loss.
    projection
        To a teacher's embeddings, where they are learned too.
    """

    def __init__(self, network: Network, criterion: Criterion, projection: Projection | None = None) -> None:
        super().__init__()
        self.network, self.criterion, self.projection = network, criterion, projection

    def forward(
        self, features: Tensor, frames: Tensor | None, targets: Tensor, embeddings: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Loss, logits, and the distance to a teacher's embeddings if there are any."""
        if self.projection is None or embeddings is None:
            return *self.criterion(self.network, self.network, features, frames, targets), None
        with embeddings_of(self.network) as heard:
            loss, logits = self.criterion(self.network, self.network, features, frames, targets)
        return loss, logits, self.projection(heard[-1], embeddings)


class StandardLoop:
    """Trains a network as a recipe says; one object a run.

    Parameters
    ----------
    config
        The recipe.
    network, frontend, clips, validation
        See `models.training.trainer.Preparation`.
    teacher
        Whose answers are learned too, if there is one.
    accelerator
        Device, precision, and the processes that share the work.
    """

    def __init__(
        self, config: TrainConfig, network: Network, frontend: FrontEnd, clips: TrainingClips,
        validation: TrainingClips | None, teacher: Recognizer | None, accelerator: Accelerator,
    ) -> None:  # fmt: skip
        settings, self.device = config.optimizer, accelerator.device
        self.config, self.frontend, self.clips, self.validation = config, frontend, clips, validation
        self.teacher = Teacher(teacher, config.teacher) if teacher is not None and config.teacher is not None else None
        self.accelerator = accelerator
        self.plan = EpochPlan(config, clips, accelerator.process_index, accelerator.num_processes)
        if accelerator.num_processes > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(self.device)
        freeze(self.network, settings)
        self.learner = self.build_learner().to(self.device)
        self.model, self.optimizer = accelerator.prepare(self.learner, self.build_optimizer())
        self.averages, self.progress = Averages(self.network, settings), Progress()
        self.schedule = RateSchedule(config.schedule, settings, self.plan.steps)
        self.saver = Saver(config, main=accelerator.is_main_process)
        self.collate: Callable[..., Any] = collate
        self._prepare = AUGMENTATIONS[config.augment.kind]
        self._started = time.monotonic()

    def build_learner(self) -> nn.Module:
        """Network and loss."""
        projection = self.teacher.projection_of(self.network, self.frontend) if self.teacher is not None else None
        return Learner(self.network, build_criterion(self.config, self.network, self.clips.examples), projection)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The recipe's optimizer."""
        optimizer = build_optimizer(self.network, self.config.optimizer)
        projection = getattr(self.learner, "projection", None)
        if projection is not None:
            rate = self.config.optimizer.learning_rate
            optimizer.add_param_group({"params": list(projection.parameters()), "lr": rate, "base_lr": rate})
        return optimizer

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return groups

    @cached_property
    def data_hash(self) -> str:
        """Hash of the annotation and the sizes of all files."""
        return annotation_hash(self.clips.examples)

    def resume(self) -> None:
        """Go on from the last saved state.

        Raises
        ------
        EarwitnessError
            If there is none, or it is of another training.
        """
        state = self.saver.load()
        if state["step_size"] != self.plan.step_size:
            raise SettingsError(
                f"The interrupted training of {self.config.name} made steps of {state['step_size']} clips, "
                f"this one would make steps of {self.plan.step_size}.",
                "Start it with as many processes as before, on the same data.",
            )
        if state["data"] != self.data_hash:
            raise SettingsError(
                f"The data has changed since the training of {self.config.name} was interrupted.",
                "Bring back the clips and the annotation as they were, or start again without resume=true.",
            )
        self.learner.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averages.load(state["averages"])
        self.progress = Progress(**state["progress"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def save(self) -> None:
        """Write the state."""
        progress, scaler = self.progress, self.accelerator.scaler
        progress.seconds = time.monotonic() - self._started
        if self.accelerator.is_main_process:
            self.saver.save({
                "network": self.learner.state_dict(), "optimizer": self.optimizer.state_dict(),
                "averages": self.averages.state(), "progress": vars(progress), "step_size": self.plan.step_size,
                "data": self.data_hash,
                "scaler": scaler.state_dict() if scaler is not None else {},
            }, progress.step)  # fmt: skip

    def _heard(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor, Tensor | list[Tensor]]:
        """Features, pictures, targets, and the waveforms that a teacher hears."""
        with torch.no_grad():
            features, targets, heard = self._prepare(batch, self.frontend, self.config.augment, self.device)
        return features, None if batch.frames is None else batch.frames.to(self.device), targets, heard

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Any]:
        """What this process hears in an epoch, from a step on."""
        return iter(DataLoader(
            self.clips, batch_sampler=self.plan.batches(epoch, first_step), collate_fn=self.collate,
            num_workers=self.config.data.workers, generator=torch.Generator(),
        ))  # fmt: skip

    def loss(self, batch: Any, epoch: int, step: int, part: int) -> Tensor:
        """The mean loss of a part of a step; its random numbers are those of its place."""
        features, frames, targets, heard = self._heard(batch)
        lesson = None
        if self.teacher is not None:
            assert isinstance(heard, Tensor)
            lesson = self.teacher.listen(heard)
        self.plan.seed_network(epoch, step, part)
        own, logits, distance = self.model(features, frames, targets, lesson.embeddings if lesson else None)
        loss = distilled(self.config, own, logits, lesson.logits if lesson else None)
        if distance is not None and self.teacher is not None:
            loss = loss + self.teacher.settings.embedding_weight * distance
        return loss

    def step(self, batches: Iterator[Any], epoch: int, step: int) -> float:
        """One step of the optimizer (counted from 0 in its epoch); returns the loss, over all processes.

        Raises
        ------
        SettingsError
            If the loss or the gradient is not a number; the weights are left as they were.
        """
        self.schedule.before_step(self.groups, self.progress.step)
        clip, number, rate = self.config.optimizer.gradient_clip, self.progress.step + 1, float(self.groups[0]["lr"])
        total = torch.zeros((), device=self.device)
        for part in range(self.plan.parts):
            batch, last = next(batches), part == self.plan.parts - 1
            # Processes exchange gradients once a step.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                own = self.loss(batch, epoch, step, part) * self.plan.share(part)
                self.accelerator.backward(own)
            total += own.detach()
        # Every process learns the same, so that all of them stop.
        loss = float(self.accelerator.reduce(total, "mean"))
        if not math.isfinite(loss):
            raise not_finite("The loss", epoch, number, rate)
        if clip > 0:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
            # In half precision such steps are left out by the scaler.
            if self.accelerator.scaler is None and norm is not None and not math.isfinite(float(norm)):
                raise not_finite("The gradient", epoch, number, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages.after_step()
        return loss

    def epoch(self, epoch: int, records: RunLog) -> None:
        """The steps of an epoch (counted from 1) that are left to do."""
        self.model.train()
        freeze(self.network, self.config.optimizer)
        progress = self.progress
        batches = self.batches(epoch, progress.within)
        for step in range(progress.within, self.plan.steps):
            loss = self.step(batches, epoch, step)
            progress.step, progress.within, progress.losses = progress.step + 1, step + 1, progress.losses + loss
            if progress.step % _TRACKED_EVERY == 0:
                records.track({"step/loss": loss, "step/learning_rate": float(self.groups[0]["lr"])}, progress.step)
            if self.saver.due(progress.step):
                self.save()

    def end_epoch(self, epoch: int) -> EpochReport:
        """Averages, statistics, schedule and validation after an epoch."""
        config, progress, settings = self.config, self.progress, self.config.optimizer
        if settings.precise_batch_norm:
            self.plan.seed_network(epoch, self.plan.steps, 0)
            inputs = (self._heard(batch)[0] for batch in islice(self.batches(epoch), settings.precise_batch_norm))
            precise_batch_norm(self.network, inputs, settings.precise_batch_norm)
        self.averages.after_epoch(epoch)
        self.schedule.after_epoch(self.groups, epoch)
        self.schedule.before_step(self.groups, progress.step)
        figure = None
        if self.validation is not None:
            figure = validate(
                self.averages.current, self.frontend, self.validation, config.validation.metric, config.data.workers,
                self.accelerator,
            )  # fmt: skip
            if figure > progress.best:
                progress.best, progress.best_epoch = figure, epoch
                if config.validation.keep == "best":
                    weights = self.averages.current.state_dict()
                    progress.best_weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
        mean = progress.losses / self.plan.steps
        progress.epoch, progress.within, progress.losses = epoch, 0, 0.0
        return EpochReport(
            epoch, settings.epochs, mean, float(self.groups[0]["lr"]), figure, time.monotonic() - self._started
        )

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or there was no better figure for too long."""
        patience, progress = self.config.validation.patience, self.progress
        if patience is not None and progress.epoch and progress.epoch - progress.best_epoch >= patience:
            log.info("Stopped early: no better figure since epoch %d.", progress.best_epoch)
            return True
        return progress.epoch >= self.config.optimizer.epochs

    def run(self, report: Callable[[EpochReport], None] | None = None) -> Network:
        """Everything from the beginning, or from where it stopped; returns the network with the weights that are kept.

        Raises
        ------
        EarwitnessError
            If the loss stops being a number, there is nothing to resume, or the disk is full.
        """
        main = self.accelerator.is_main_process
        if self.config.resume:
            self.resume()
        progress = self.progress
        self._started = time.monotonic() - progress.seconds
        self.saver.begin(progress.step)
        with RunLog(self.config, progress.epoch, progress.step, main=main) as records:
            while not self.over:
                epoch = progress.epoch + 1
                self.epoch(epoch, records)
                entry = self.end_epoch(epoch)
                records.write(entry, progress.step)
                self.save()
                if report is not None and main:
                    report(entry)
        return self.kept()

    def kept(self) -> Network:
        """The network with the weights that the recipe keeps."""
        kept, averages = self.averages.current, self.averages
        if averages.epochs is not None and len(averages.epochs):
            kept.load_state_dict(averages.epochs.state_dict(kept.state_dict()))
        elif self.progress.best_weights:
            kept.load_state_dict(self.progress.best_weights)
        kept.requires_grad_(True)
        return kept


def freeze(network: nn.Module, settings: OptimizerConfig) -> None:
    """Take out of training what a recipe freezes; to be called after every ``train()``."""
    if settings.frozen:
        for name, parameter in network.named_parameters():
            if name.startswith(tuple(settings.frozen)):
                parameter.requires_grad_(False)
    if settings.freeze_batch_norm:
        freeze_batch_norm(network)
