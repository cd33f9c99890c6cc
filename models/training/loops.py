"""Iterations that a family has of its own; `models.training.trainer.train` chooses one by the recipe's ``loop.kind``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils import set_seed
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import SettingsError
from models.training.clips import collate
from models.training.config import TrainConfig
from models.training.equiav import HeadParameters, OnlineSettings, OnlineTrainer, WarmupCosine
from models.training.event_graph_loop import train_event_graph
from models.training.playback_stages import PlaybackStages, train_playback
from models.training.pretraining_loop import train_pretraining
from models.training.run_state import Saver
from models.training.tracking import RunLog
from models.training.trainer import EpochReport, make_card, prepare_training, write_checkpoint

Report = Callable[[EpochReport], None] | None
Settings = TypeVar("Settings", bound=BaseModel)


class OnlineLoop(BaseModel):
    """Settings of ``online``: EquiAV learns from one clip at a time, in the order of the annotation.

    The recipe's optimizer says kind, learning rate, weight decay, epochs (passes; published: 1) and warm-up (in passes), its
    schedule where the rate begins and ends.

    Attributes
    ----------
    freeze_base
        Train the head alone.
    head_lr
        Absolute learning rate of the head; None: that of everything.
    head_params
        What the head is, see `models.training.equiav.is_head_parameter`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    freeze_base: bool = True
    head_lr: float | None = Field(default=None, gt=0)
    head_params: HeadParameters | None = None


def loop_settings(config: TrainConfig, cls: type[Settings]) -> Settings:
    """The settings of a recipe's loop.

    Raises
    ------
    SettingsError
        If one is unknown or not valid.
    """
    try:
        return cls.model_validate(config.loop.settings)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise SettingsError(f"The settings of the loop {config.loop.kind!r} are not valid: {details}.") from error


def playback_stages(config: TrainConfig, report: Report = None) -> Path:
    """Play It Back in corrected mode: the encoder, then slots and decoder, then all (`models.training.playback_stages`)."""
    if config.start or config.data.video:
        raise SettingsError(
            "The loop 'playback_stages' starts from nothing and reads sound only.", "Leave out start and data.video."
        )
    return train_playback(config, loop_settings(config, PlaybackStages), report)


def online(config: TrainConfig, report: Report = None) -> Path:
    """EquiAV, one clip at a time (`models.training.equiav.OnlineTrainer`).

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together, or torchrun started several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            "The loop 'online' learns from one clip at a time, each with the weights that the one before it left, so "
            "there is nothing that several processes could share; torchrun started several.",
            "Start it without torchrun.",
        )
    settings, own = config.optimizer, loop_settings(config, OnlineLoop)
    set_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepared = prepare_training(config)
    network, clips, frontend = prepared.network.to(device), prepared.clips, prepared.frontend.to(device)
    schedule = WarmupCosine(
        settings.learning_rate,
        config.schedule.start,
        config.schedule.end,
        settings.warmup_epochs,
        settings.epochs,
        len(clips),
    )
    trainer = OnlineTrainer(network, OnlineSettings(
        "bceloss" if config.task == "multi-label" else "celoss", settings.kind, settings.weight_decay, schedule,
        own.head_lr, freeze_base=own.freeze_base, head_params=own.head_params, seed=config.seed,
        mixed_precision=settings.mixed_precision == "fp16",
    ))  # fmt: skip
    saver, epoch, done, losses, seconds = Saver(config), 1, 0, 0.0, 0.0
    if config.resume:
        state = saver.load()
        network.load_state_dict(state["network"])
        trainer.load_state_dict(state["trainer"])
        epoch, done, losses, seconds = state["epoch"], state["done"], state["losses"], state["seconds"]
    started = time.monotonic() - seconds
    saver.begin(trainer.steps)

    def save() -> None:
        saver.save({
            "network": network.state_dict(), "trainer": trainer.state_dict(), "epoch": epoch, "done": done,
            "losses": losses, "seconds": time.monotonic() - started,
        }, trainer.steps)  # fmt: skip

    with RunLog(config, epoch - 1, trainer.steps) as records:
        while epoch <= settings.epochs:
            for index in range(done, len(clips)):
                batch = collate([clips[index]])
                assert isinstance(batch.waveforms, torch.Tensor)
                waveform = batch.waveforms.to(device)
                with torch.no_grad():
                    features = frontend(waveform - waveform.mean(dim=1, keepdim=True))
                frames = None if batch.frames is None else batch.frames.to(device)
                inputs = (features,) if frames is None else (features, frames)
                losses += trainer.step(lambda inputs=inputs: network(*inputs), batch.targets.to(device))  # type: ignore[misc]
                done = index + 1
                if saver.due(trainer.steps):
                    save()
            entry = EpochReport(
                epoch, settings.epochs, losses / len(clips), trainer.learning_rate, None, time.monotonic() - started
            )
            records.write(entry, trainer.steps)
            epoch, done, losses = epoch + 1, 0, 0.0
            save()
            if report is not None:
                report(entry)
    network.requires_grad_(True)
    folder = write_checkpoint(config, network.eval(), make_card(config, prepared))
    saver.finish()
    return folder


def event_graph(config: TrainConfig, report: Report = None) -> Path:
    """The event graph, counted in iterations (`models.training.event_graph_loop`)."""
    return train_event_graph(config, report)


def pretraining(config: TrainConfig, report: Report = None) -> Path:
    """EquiAV without labels (`models.training.pretraining_loop`)."""
    return train_pretraining(config, report)


LOOPS: dict[str, Callable[[TrainConfig, Report], Path]] = {
    function.__name__: function for function in (playback_stages, event_graph, online, pretraining)
}
