"""The iteration that most families are trained with: epochs of batches, a validation after each, and a state to resume."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from models.errors import SettingsError
from models.frontends import FrontEnd
from models.network import Network
from models.recognizer import Recognizer
from models.training.augmentations import AUGMENTATIONS, features_of
from models.training.averaging import WeightAverage
from models.training.clips import Batch, TrainingClips, collate, draws_of
from models.training.config import OptimizerConfig, TrainConfig
from models.training.losses import build_criterion, distilled, label_groups
from models.training.metrics import average_precision
from models.training.optimization import RateSchedule, build_optimizer
from models.training.run_state import load_state, random_states, save_state, set_random_states, state_path
from models.training.sgd import freeze_batch_norm, precise_batch_norm
from models.training.trainer import EpochReport

log = logging.getLogger(__name__)


class Averages:
    """What is kept of the weights: the last ones, their exponential average, or the plain average of some epochs."""

    def __init__(self, network: Network, settings: OptimizerConfig) -> None:
        self.network, self.settings = network, settings
        self.moving: AveragedModel | None = None
        self.epochs: WeightAverage | None = None
        if settings.average_epochs is not None:
            self.epochs = WeightAverage(settings.average_first_twice)
        elif settings.average_decay > 0:
            decay = get_ema_multi_avg_fn(settings.average_decay)
            self.moving = AveragedModel(network, multi_avg_fn=decay, use_buffers=True)

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
    """How far a run is, and its best epoch."""

    epoch: int = 0
    step: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def figure_of(logits: Tensor, targets: Tensor, metric: str, groups: tuple[int, ...] = ()) -> float:
    """Accuracy (of all groups of classes together) or mean average precision of ``[n, n_classes]``."""
    if metric == "mAP":
        # The order of logits is that of probabilities.
        return float(np.nanmean(average_precision(logits.numpy(), targets.numpy())))
    sizes = list(groups) or [logits.shape[1]]
    right = torch.ones(len(logits), dtype=torch.bool)
    for guess, truth in zip(logits.split(sizes, dim=1), targets.split(sizes, dim=1), strict=True):
        right &= guess.argmax(dim=1) == truth.argmax(dim=1)
    return right.float().mean().item()


@torch.no_grad()
def validate(
    network: Network, frontend: FrontEnd, clips: TrainingClips, metric: str = "accuracy", workers: int = 0
) -> float:
    """The metric of a network in evaluation mode; of longer clips the beginning is heard."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    logits, targets = [], []
    # A generator of its own, so that validating leaves the training's random numbers alone.
    loader = DataLoader(clips, 32, collate_fn=collate, num_workers=workers, generator=torch.Generator())
    for batch in loader:
        found = batch.waveforms
        features = features_of(
            found.to(device) if isinstance(found, Tensor) else [w.to(device) for w in found], frontend
        )
        answer = network(features) if batch.frames is None else network(features, batch.frames.to(device))
        logits.append(answer.float().cpu())
        targets.append(batch.targets)
    network.train(was_training)
    return figure_of(torch.cat(logits), torch.cat(targets), metric, label_groups(network))


def run(
    config: TrainConfig,
    network: Network,
    frontend: FrontEnd,
    clips: TrainingClips,
    teacher: Recognizer | None,
    accelerator: Accelerator,
    validation: TrainingClips | None,
    report: Callable[[EpochReport], None] | None,
) -> Network:
    """The optimisation itself; returns the network with the weights that are kept.

    Raises
    ------
    EarwitnessError
        If the loss stops being a number, or there is nothing to resume.
    """
    settings, device = config.optimizer, accelerator.device
    generator, drawing = torch.Generator().manual_seed(config.seed), torch.Generator().manual_seed(config.seed + 1)
    loader: Any = DataLoader(
        clips,
        min(settings.batch_size, len(clips)),  # a data set smaller than a batch is one batch
        sampler=draws_of(config, clips, drawing),
        drop_last=True,
        collate_fn=collate,
        num_workers=config.data.workers,
    )
    freeze(network, settings)
    criterion = build_criterion(config, network, clips.examples).to(device)
    model, optimizer, loader = accelerator.prepare(
        network, build_optimizer(network, settings), loader, device_placement=[True, True, False]
    )
    network = accelerator.unwrap_model(model)
    averages, progress = Averages(network, settings), Progress()
    schedule = RateSchedule(config.schedule, settings, max(1, len(loader) // settings.accumulate))
    groups = optimizer.param_groups
    path, history = state_path(config), config.output / f"{config.name}.jsonl"
    if config.resume:
        state = load_state(path, config)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        averages.load(state["averages"])
        progress = Progress(**state["progress"])
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        set_random_states(state["random"], generator, drawing)
        groups = optimizer.param_groups
    lines = history.read_text(encoding="utf-8").splitlines()[: progress.epoch] if history.is_file() else []
    history.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    seconds = json.loads(lines[-1])["seconds"] if lines else 0.0
    prepare = AUGMENTATIONS[config.augment.kind]
    board = tensorboard(config) if accelerator.is_main_process else None

    def prepared(batch: Batch) -> tuple[Tensor, Tensor, Tensor | None, Tensor | list[Tensor]]:
        with torch.no_grad():
            features, targets, heard = prepare(batch, frontend, config.augment, generator, device)
        return features, targets, None if batch.frames is None else batch.frames.to(device), heard

    started = time.monotonic() - seconds
    for epoch in range(progress.epoch + 1, settings.epochs + 1):
        model.train()
        freeze(network, settings)
        losses: list[Tensor] = []
        for parts in bundles(loader, settings.accumulate):
            schedule.before_step(groups, progress.step)
            for batch in parts:
                features, targets, frames, heard = prepared(batch)
                soft = None
                if teacher is not None:
                    assert isinstance(heard, Tensor)
                    with torch.no_grad():
                        soft = teacher(teacher.features(heard))
                with accelerator.autocast() if criterion.reads_parts else contextlib.nullcontext():
                    own, logits = criterion(model, network, features, frames, targets)
                loss = distilled(config, own, logits, soft)
                if not torch.isfinite(loss):
                    raise SettingsError(
                        f"The loss is not a number any more in epoch {epoch}.", "Lower optimizer.learning_rate."
                    )
                accelerator.backward(loss / len(parts) if len(parts) > 1 else loss)
                losses.append(loss.detach())
            if settings.gradient_clip > 0:
                accelerator.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            averages.after_step()
            progress.step += 1
        progress.epoch = epoch
        if settings.precise_batch_norm:
            inputs = (prepared(batch)[0] for batch in islice(loader, settings.precise_batch_norm))
            precise_batch_norm(network, inputs, settings.precise_batch_norm)
        averages.after_epoch(epoch)
        schedule.after_epoch(groups, epoch)
        schedule.before_step(groups, progress.step)
        figure = None
        if validation is not None:
            figure = validate(averages.current, frontend, validation, config.validation.metric, config.data.workers)
            if figure > progress.best:
                progress.best, progress.best_epoch = figure, epoch
                if config.validation.keep == "best":
                    weights = averages.current.state_dict()
                    progress.best_weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
        entry = EpochReport(
            epoch, settings.epochs, torch.stack(losses).mean().item(), float(groups[0]["lr"]), figure,
            time.monotonic() - started,
        )  # fmt: skip
        if accelerator.is_main_process:
            with history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")
            if board is not None:
                for name in ("loss", "learning_rate", "validation_accuracy"):
                    value = getattr(entry, name)
                    if value is not None:
                        board.add_scalar(name, value, epoch)
            scaler = accelerator.scaler
            save_state(path, config, {
                "network": network.state_dict(), "optimizer": optimizer.state_dict(), "averages": averages.state(),
                "progress": vars(progress), "scaler": scaler.state_dict() if scaler is not None else {},
                "random": random_states(generator, drawing),
            })  # fmt: skip
        if report is not None:
            report(entry)
        patience = config.validation.patience
        if patience is not None and epoch - progress.best_epoch >= patience:
            log.info("Stopped early: no better figure since epoch %d.", progress.best_epoch)
            break
    if board is not None:
        board.close()
    kept = averages.current
    if averages.epochs is not None and len(averages.epochs):
        kept.load_state_dict(averages.epochs.state_dict(kept.state_dict()))
    elif progress.best_weights:
        kept.load_state_dict(progress.best_weights)
    kept.requires_grad_(True)
    path.unlink(missing_ok=True)
    return kept


def freeze(network: nn.Module, settings: OptimizerConfig) -> None:
    """Take out of training what a recipe freezes; to be called after every ``train()``."""
    if settings.frozen:
        for name, parameter in network.named_parameters():
            if name.startswith(tuple(settings.frozen)):
                parameter.requires_grad_(False)
    if settings.freeze_batch_norm:
        freeze_batch_norm(network)


def bundles(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; what is left over at the end is dropped, unless there is nothing else."""
    waiting: list[Batch] = []
    whole = False
    for batch in batches:
        waiting.append(batch)
        if len(waiting) == size:
            yield waiting
            waiting, whole = [], True
    if waiting and not whole:
        yield waiting


def tensorboard(config: TrainConfig) -> Any:
    """A writer of TensorBoard logs beside the checkpoint, None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(config.output / f"{config.name}-tensorboard"))
