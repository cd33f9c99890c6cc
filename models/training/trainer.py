"""Training a recognizer from a recipe."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.card import Card
from models.checkpoint import load_recognizer, save_checkpoint
from models.data import READERS, ExampleSet
from models.errors import SettingsError
from models.frontends import FrontEnd, build_frontend
from models.network import Network
from models.recognizer import Recognizer
from models.registry import family
from models.training.augment import augment_waveforms, mask_features
from models.training.config import TrainConfig
from models.training.waveforms import load_waveforms


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch; `validation_accuracy` is None without validation folds."""

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    validation_accuracy: float | None
    seconds: float


def read_examples(config: TrainConfig) -> ExampleSet:
    """All examples of a recipe's data set.

    Raises
    ------
    SettingsError
        If the format is unknown.
    """
    reader = READERS.get(config.data.format)
    if reader is None:
        raise SettingsError(
            f"There is no data format named {config.data.format!r}.", f"Known are: {', '.join(READERS)}."
        )
    return reader(config.data.root, **config.data.options)


def measured_frontend(config: TrainConfig, waveforms: Tensor) -> FrontEnd:
    """The recipe's front end, with mean and twice the deviation of the training features (as AST normalises)."""
    frontend = build_frontend(config.frontend)
    if config.normalize == "given":
        return frontend
    values = torch.cat([frontend.log_mel(part).flatten() for part in waveforms.split(64)])
    # Digital silence in cut-off recordings says nothing about the sounds and would widen the scale.
    heard = values[values > frontend.floor + 1e-3]
    statistics = {"mean": round(heard.mean().item(), 4), "std_scale": round(2 * heard.std().item(), 4)}
    return build_frontend(config.frontend | statistics)


def soft_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with mixed targets ``[batch, n_classes]``."""
    smoothed = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return -(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean()


@torch.no_grad()
def score(recognizer: Recognizer, waveforms: Tensor, batch_size: int = 32) -> Tensor:
    """Probabilities ``[n, n_classes]`` of waveforms ``[n, samples]``."""
    parts = [
        recognizer.probabilities(recognizer(recognizer.features(part))).cpu() for part in waveforms.split(batch_size)
    ]
    return torch.cat(parts)


def train(config: TrainConfig, report: Callable[[EpochReport], None] | None = None) -> Path:
    """Train as a recipe says and write the checkpoint.

    Returns
    -------
    Path
        The checkpoint's folder, ``config.output / config.name``.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    set_seed(config.seed)
    accelerator = Accelerator(mixed_precision=config.optimizer.mixed_precision)
    device = accelerator.device
    examples = read_examples(config)
    held_out = set(config.data.validation_folds) | set(config.data.test_folds)
    part = examples.folds(set(config.data.train_folds) - held_out)
    network_class = family(config.family)
    frontend = build_frontend(config.frontend)
    samples = frontend.window_samples or 5 * frontend.sample_rate
    waveforms, targets = load_waveforms(part, frontend.sample_rate, samples)
    frontend = measured_frontend(config, waveforms).to(device)
    network = network_class(network_class.Config.model_validate(config.config | {"n_classes": len(examples.labels)}))
    teacher = load_recognizer(config.teacher.checkpoint, device) if config.teacher else None
    if teacher is not None and list(teacher.labels) != list(examples.labels):
        raise SettingsError(
            "The teacher knows other classes than the data set.", "Choose a teacher with the same ones."
        )
    card = Card(
        name=config.name, title=config.title, description=config.description, family=config.family,
        config=network.config.model_dump(mode="json"), frontend=frontend.config.model_dump(mode="json"),
        labels=list(examples.labels), task=config.task, training_data=config.training_data,
        training={"recipe": config.model_dump(mode="json", exclude={"output", "data"}), "clips": len(part.examples)},
        parent=teacher.card.content_hash if teacher else None, license=config.license, citation=config.citation,
    )  # fmt: skip
    folder = config.output / config.name
    history = config.output / f"{config.name}.jsonl"
    config.output.mkdir(parents=True, exist_ok=True)
    history.unlink(missing_ok=True)

    validation = None
    if config.data.validation_folds:
        validation = load_waveforms(examples.folds(config.data.validation_folds), frontend.sample_rate, samples)
    averaged = run(config, network, frontend, (waveforms, targets), teacher, accelerator, validation, history, report)
    save_checkpoint(folder, averaged, card, half=config.half)
    return folder


def run(
    config: TrainConfig,
    network: Network,
    frontend: FrontEnd,
    data: tuple[Tensor, Tensor],
    teacher: Recognizer | None,
    accelerator: Accelerator,
    validation: tuple[Tensor, Tensor] | None,
    history: Path,
    report: Callable[[EpochReport], None] | None,
) -> Network:
    """The optimisation itself; returns the network with averaged weights."""
    settings, device = config.optimizer, accelerator.device
    waveforms, targets = data
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(waveforms, targets), settings.batch_size, shuffle=True, drop_last=True
    )
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    total = settings.epochs * len(loader)
    warmup = max(1, round(settings.warmup_epochs * len(loader)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / (total - warmup)))),
    )
    model, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    average = AveragedModel(
        accelerator.unwrap_model(model), multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay), use_buffers=True
    )
    generator = torch.Generator().manual_seed(config.seed)
    started = time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        model.train()
        losses = []
        for batch, target in loader:
            mixed, target = augment_waveforms(batch.cpu(), target.cpu(), config.augment, generator)
            mixed, target = mixed.to(device), target.to(device)
            with torch.no_grad():
                features = frontend(mixed)
                features = mask_features(features, config.augment, frontend.silence, generator)
                soft = teacher(teacher.features(mixed)) if teacher is not None else None
            logits = model(features)
            loss = loss_of(config, logits.float(), target, soft)
            if not torch.isfinite(loss):
                raise SettingsError(
                    f"The loss is not a number any more in epoch {epoch}.", "Lower optimizer.learning_rate."
                )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.update_parameters(accelerator.unwrap_model(model))
            losses.append(loss.detach())
        right = None
        if validation is not None:
            right = validate(average.module, frontend, validation)
        entry = EpochReport(
            epoch, settings.epochs, torch.stack(losses).mean().item(), schedule.get_last_lr()[0], right,
            time.monotonic() - started,
        )  # fmt: skip
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        if report is not None:
            report(entry)
    return average.module


def loss_of(config: TrainConfig, logits: Tensor, target: Tensor, soft: Tensor | None) -> Tensor:
    """Training loss of one batch: the labels, and the teacher's answers if there are any."""
    if config.task == "multi-label":
        own = nn.functional.binary_cross_entropy_with_logits(logits, target)
    else:
        own = soft_cross_entropy(logits, target, config.optimizer.label_smoothing)
    if soft is None or config.teacher is None:
        return own
    heat, weight = config.teacher.temperature, config.teacher.weight
    distance = nn.functional.kl_div(
        (logits / heat).log_softmax(dim=1), (soft / heat).log_softmax(dim=1), log_target=True, reduction="batchmean"
    )
    return (1 - weight) * own + weight * heat**2 * distance


@torch.no_grad()
def validate(network: Network, frontend: FrontEnd, data: tuple[Tensor, Tensor]) -> float:
    """Accuracy in evaluation mode."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    waveforms, targets = data
    guesses = torch.cat([network(frontend(part.to(device))).argmax(dim=1).cpu() for part in waveforms.split(32)])
    network.train(was_training)
    return (guesses == targets.argmax(dim=1)).float().mean().item()
