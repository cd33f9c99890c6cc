"""Training Play It Back in corrected mode: first the encoder, then what selects and what decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.card import Card
from models.errors import SettingsError
from models.families.play_it_back import PlayItBack, PlayItBackConfig
from models.training.augment import mask_features
from models.training.averaging import moving_average
from models.training.clips import TrainingClips, key_of
from models.training.config import TrainConfig
from models.training.losses import distilled
from models.training.plan import EpochPlan
from models.training.playback_copies import CopiedClips, Drawn, FreshClips, HeldOutClips
from models.training.playback_inputs import encoder_inputs, explore, explored_share
from models.training.playback_published import learning_rate
from models.training.playback_slots import answer_loss, decoder_loss, slot_loss, valid_frames
from models.training.processes import SharedBatch, alone, backward, check_processes
from models.training.provenance import provenance
from models.training.run_state import Saver, not_finite
from models.training.sections import SamplingConfig
from models.training.tracking import RunLog
from models.training.trainer import (
    EpochReport,
    begin,
    load_teacher,
    measured_frontend,
    read_examples,
    training_part,
    write_checkpoint,
)
from models.training.waveforms import load_waveforms

Report = Callable[[EpochReport], None] | None
# From values of the clips at hand to those of the whole batch.
Together = Callable[[Tensor], Tensor]
# Purposes of a draw's random numbers, beside those of `models.training.playback_copies`; of those of a step.
_INPUTS, _HIDE, _EXPLORE = range(202, 205)
_PASS = 210


class PlaybackStages(BaseModel):
    """Settings of the stages beside those of the recipe, which are the encoder's; `optimizer.batch_size` is over all processes.

    Attributes
    ----------
    decoder_epochs
        Second stage: slots and decoder, the encoder frozen.
    joint_epochs
        Third stage: the encoder too, at a tenth of its rate, by the decoder's loss only.
    answer_epochs
        Last stage: the decoder alone, on mixed clips too and with the teacher's answers. The encoder knows the plain
        training clips after one pass; only where it is unsure does the decoder learn what further passes are good for.
    slot_learning_rate, decoder_learning_rate
        AdamW for the slots, `decoder_optimizer` for the decoder.
    decoder_optimizer
        ``sgd`` with Nesterov momentum (as published), or ``adamw``, which needs fewer epochs.
    copies
        Augmented copies of the clips whose features are computed once and kept (half of them with mix-up, which only the
        first stage hears); 0: clips are augmented anew for every step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder_epochs: int = Field(default=20, ge=0)
    joint_epochs: int = Field(default=0, ge=0)
    answer_epochs: int = Field(default=0, ge=0)
    slot_learning_rate: float = Field(default=1e-3, gt=0)
    decoder_learning_rate: float = Field(default=5e-3, gt=0)
    decoder_optimizer: Literal["sgd", "adamw"] = "sgd"
    copies: int = Field(default=0, ge=0)


def encoder_step(
    network: PlayItBack, drawn: Drawn, config: TrainConfig, silence: float, together: Together = alone
) -> Tensor:
    """Loss of the encoder alone; a teacher has heard the whole clip."""
    inputs = encoder_inputs(network, drawn.features, drawn.generators(_INPUTS))
    inputs = torch.cat([
        mask_features(clip, config.augment, silence, generator)
        for clip, generator in zip(inputs.split(1), drawn.generators(_HIDE), strict=True)
    ])  # fmt: skip
    tokens, _ = network.encoder(inputs.unsqueeze(1))
    logits = [together(z) for z in network.encoder.classify(network.encoder.pool(tokens))]
    smoothing, sizes = config.optimizer.label_smoothing, list(network.config.heads)
    truth = together(drawn.targets).split(sizes, dim=1)
    if config.task == "single-label":
        truth = tuple(y * (1 - smoothing) + smoothing / y.shape[1] for y in truth)
    own = answer_loss(logits, list(truth), config.task == "multi-label")
    soft = None if drawn.soft is None else together(drawn.soft)
    return distilled(config, own, torch.cat(logits, dim=1), soft)


def playback_step(
    network: PlayItBack, drawn: Drawn, config: TrainConfig, progress: float, generator: torch.Generator,
    together: Together = alone,
) -> Tensor:  # fmt: skip
    """Loss of decoder and slots; `generator` says in which pass the slots are trained."""
    multi_label = config.task == "multi-label"
    passes = network.listen(drawn.features, choose=explore(explored_share(progress), drawn.generators(_EXPLORE)))
    total = decoder_loss(network, passes, drawn.targets, multi_label, together)
    heard = passes[int(torch.randint(0, len(passes), (1,), generator=generator))]
    valid = valid_frames(network, drawn.features, heard, None)
    return total + slot_loss(network, heard, valid, drawn.targets, multi_label, together).total


def answer_step(network: PlayItBack, drawn: Drawn, config: TrainConfig, together: Together = alone) -> Tensor:
    """Loss of the decoder alone; what is right is partly what the teacher says."""
    passes = network.listen(drawn.features, choose=explore(explored_share(1.0), drawn.generators(_EXPLORE)))
    targets = drawn.targets
    if drawn.soft is not None and config.teacher is not None:
        share = config.teacher.weight
        said = drawn.soft.sigmoid() if config.task == "multi-label" else drawn.soft.softmax(dim=1)
        targets = (1 - share) * targets + share * said
    return decoder_loss(network, passes, targets, config.task == "multi-label", together)


def optimizers(
    network: PlayItBack, stage: str, config: TrainConfig, stages: PlaybackStages
) -> list[torch.optim.Optimizer]:
    """Of the encoder; of slots and decoder; of all; of the decoder."""
    settings = config.optimizer
    if stage == "encoder":
        return [
            torch.optim.AdamW(
                network.encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
            )
        ]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.decoder.parameters() if p.ndim > 1], "weight_decay": 1e-4},
        {"params": [p for p in network.decoder.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = stages.decoder_learning_rate
    found: list[torch.optim.Optimizer] = [
        torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
        if stages.decoder_optimizer == "sgd"
        else torch.optim.AdamW(groups, lr=rate),
    ]
    if stage != "answer":
        found.insert(0, torch.optim.AdamW(network.time_slots.parameters(), lr=stages.slot_learning_rate))
    if stage == "joint":
        found.append(torch.optim.AdamW(network.encoder.parameters(), lr=settings.learning_rate / 10))
    return found


class Stage:
    """One stage of a training: its optimizers, their rates, and the moving average of the weights that it ends with.

    Parameters
    ----------
    name, epochs
        ``encoder``, ``playback``, ``joint`` or ``answer``, and how long it takes.
    """

    def __init__(
        self, name: str, epochs: int, network: PlayItBack, config: TrainConfig, stages: PlaybackStages,
        accelerator: Accelerator,
    ) -> None:  # fmt: skip
        self.name, self.epochs, self.network, self.settings = name, epochs, network, config.optimizer
        self.accelerator = accelerator
        self.active = optimizers(network, name, config, stages)
        self.bases = [[group["lr"] for group in one.param_groups] for one in self.active]
        decay = self.settings.average_decay
        self.average = AveragedModel(network, avg_fn=moving_average(decay)) if decay > 0 else None
        # What an earlier stage left behind would count when gradients are clipped.
        network.zero_grad(set_to_none=True)
        network.train()
        network.encoder.train(name in ("encoder", "joint"))
        network.encoder.requires_grad_(name in ("encoder", "joint"))

    @property
    def rate(self) -> float:
        """Learning rate of the first optimizer."""
        return float(self.active[0].param_groups[0]["lr"])

    def set_rates(self, progress: float) -> None:
        """Warm-up and cosine decay; `progress` goes from 0 to 1."""
        warm = min(self.settings.warmup_epochs, self.epochs / 4)
        for one, rates in zip(self.active, self.bases, strict=True):
            for group, base in zip(one.param_groups, rates, strict=True):
                group["lr"] = learning_rate(progress * self.epochs, base, 0.0, self.epochs, warm, base / 100)

    def step(self, loss: Tensor) -> None:
        """Go one step down."""
        for one in self.active:
            one.zero_grad(set_to_none=True)
        backward(self.accelerator, self.network.parameters(), loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip or float("inf"))
        for one in self.active:
            one.step()
        if self.average is not None:
            self.average.update_parameters(self.network)

    @property
    def current(self) -> PlayItBack:
        """The average if there is one, else the network."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, PlayItBack)
        return network

    def finish(self) -> None:
        """Give the network the weights that the next stage builds on."""
        self.network.load_state_dict(self.current.state_dict())

    def state(self) -> dict[str, Any]:
        """What to go on from."""
        average = {} if self.average is None else self.average.state_dict()
        return {"optimizers": [one.state_dict() for one in self.active], "average": average}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for one, values in zip(self.active, state["optimizers"], strict=True):
            one.load_state_dict(values)
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def train_playback(config: TrainConfig, stages: PlaybackStages | None = None, report: Report = None) -> Path:
    """Train a corrected Play It Back as a recipe says, stage after stage, and write the checkpoint.

    Several processes share each batch (`models.training.processes`).

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    stages = stages or PlaybackStages()
    accelerator = begin(config)
    device, main = accelerator.device, accelerator.is_main_process
    # Some readers render what they read.
    with accelerator.main_process_first():
        examples = read_examples(config)
    part = training_part(config, examples)
    settings = PlayItBackConfig.model_validate(config.config | {"n_classes": len(examples.labels)})
    if not settings.corrected or settings.playbacks == 0:
        raise SettingsError(
            "Only corrected models with playback are trained in stages.",
            "Set config.schedule.corrected to true and config.playbacks to 1 or more.",
        )
    rate, samples = settings.schedule.sample_rate, settings.schedule.clip_samples
    heard = TrainingClips(part, rate, samples)
    heard.keep()
    frontend = PlayItBack.default_frontend(settings).model_dump() | config.frontend
    every = heard.first(len(heard), torch.Generator())
    fitted = measured_frontend(config.model_copy(update={"frontend": frontend}), every).to(device)
    network = PlayItBack(settings).to(device)
    # Whatever a machine rounds differently, all begin alike.
    broadcast(list(network.state_dict().values()))
    teacher = load_teacher(config, examples.labels, rate, device)
    clips = FreshClips(heard, fitted, config.augment, teacher, device)
    parts, validation = {"train": part}, None
    if config.data.validation_folds:
        parts["validation"] = examples.folds(config.data.validation_folds)
        validation = HeldOutClips(
            *load_waveforms(parts["validation"], rate, samples), fitted, stages.copies > 0, accelerator
        )
    card = Card(
        name=config.name, title=config.title, description=config.description, family=config.family,
        config=settings.model_dump(mode="json"), frontend=fitted.config.model_dump(mode="json"),
        labels=list(examples.labels), label_groups=list(settings.groups), task=config.task,
        training_data=config.training_data, license=config.license, citation=config.citation,
        training=provenance(config, parts, accelerator.num_processes) | {"stages": stages.model_dump()},
        parent=teacher.card.content_hash if teacher is not None else None,
    ) if main else None  # fmt: skip
    config.output.mkdir(parents=True, exist_ok=True)
    saver = Saver(config, main=main)
    run_stages(config, stages, network, clips, saver, accelerator, validation, report)
    if card is not None:
        write_checkpoint(config, network.eval(), card)
        # Only now: a run that ends before its checkpoint is whole can still be resumed.
        saver.finish()
    accelerator.wait_for_everyone()
    return config.output / config.name


def plan_of(config: TrainConfig, clips: TrainingClips) -> EpochPlan:
    """Which clips make which step, and everything random about them: as for a single process, whatever their number."""
    return EpochPlan(config.model_copy(update={
        "augment": config.augment.model_copy(update={"kind": "standard"}), "sampling": SamplingConfig(),
        "optimizer": config.optimizer.model_copy(update={"accumulate": 1}),
    }), clips)  # fmt: skip


def run_stages(
    config: TrainConfig, stages: PlaybackStages, network: PlayItBack, clips: FreshClips, saver: Saver,
    accelerator: Accelerator, validation: HeldOutClips | None = None, report: Report = None,
) -> None:  # fmt: skip
    """The optimisation itself; after every epoch everything is saved that is needed to go on (`resume`).

    Random numbers follow from the seed, the epoch and the place in it; none are kept.

    Raises
    ------
    EarwitnessError
        If the loss stops being a number, or there is nothing to resume.
    """
    settings = config.optimizer
    steps = plan_of(config, clips.clips)
    source = CopiedClips(clips, stages.copies, network.clock(), steps, accelerator) if stages.copies else clips
    plan = [("encoder", settings.epochs), ("playback", stages.decoder_epochs), ("joint", stages.joint_epochs)]
    plan.append(("answer", stages.answer_epochs))
    total, done, last, seconds = sum(epochs for _, epochs in plan), 0, 0, 0.0
    state = saver.load() if config.resume else None
    if state is not None:
        check_processes(accelerator, state)
        network.load_state_dict(state["network"])
        done, seconds = state["done"], state["seconds"]
    main, per_epoch, started = accelerator.is_main_process, steps.steps, time.monotonic() - seconds
    shared = SharedBatch(accelerator, steps.step_size)
    with RunLog(config, done, done * per_epoch, main=main) as records:
        for name, epochs in plan:
            first, last = last, last + epochs
            if done >= last:
                continue
            stage = Stage(name, epochs, network, config, stages, accelerator)
            if state is not None and done > first:
                stage.load(state["stage"])
            while done < last:
                losses, epoch = [], done + 1
                order = steps.order(epoch)
                for step in range(per_epoch):
                    progress = (done - first + step / per_epoch) / epochs
                    stage.set_rates(progress)
                    # No mix-up where the slots are trained: a mixed clip has no single truth to find.
                    drawn = source.draw(shared.mine(steps.draws(epoch, order, step)), name in ("encoder", "answer"))
                    steps.seed_network(epoch, step, accelerator.process_index)
                    if name == "encoder":
                        loss = encoder_step(network, drawn, config, clips.frontend.silence, shared.whole)
                    elif name == "answer":
                        loss = answer_step(network, drawn, config, shared.whole)
                    else:
                        generator = torch.Generator().manual_seed(key_of(config.seed, epoch, step, _PASS))
                        loss = playback_step(network, drawn, config, progress, generator, shared.whole)
                    if not torch.isfinite(loss):
                        raise not_finite("The loss", epoch, done * per_epoch + step + 1, stage.rate)
                    stage.step(loss)
                    losses.append(loss.item())
                done += 1
                if done == last:
                    stage.finish()
                figure = None if validation is None else validation.accuracy(stage.current, name == "encoder")
                seconds = time.monotonic() - started
                entry = EpochReport(done, total, float(np.mean(losses)), stage.rate, figure, seconds)
                records.write(entry, done * per_epoch, stage=name)
                saver.save({
                    "network": network.state_dict(), "stage": stage.state(), "done": done, "seconds": seconds,
                    "processes": accelerator.num_processes,
                }, done * per_epoch)  # fmt: skip
                if report is not None and main:
                    report(entry)
    network.requires_grad_(True)
