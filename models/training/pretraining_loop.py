"""Pre-training EquiAV without labels: sounds, one picture of each, and augmented views of both (specification, section 6)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.utils.data import DataLoader

from models.card import Card
from models.checkpoint import save_checkpoint
from models.errors import DataError, SettingsError
from models.families.equiav_pretraining import EquiAVPretraining, EquiAVPretrainingConfig
from models.frontends import build_frontend
from models.training.clips import TrainingClips, draws_of
from models.training.config import TrainConfig
from models.training.equiav import PretrainingLoss, WarmupCosine
from models.training.equiav_views import pretraining_batch, pretraining_step
from models.training.optimization import build_optimizer
from models.training.run_state import load_state, random_states, save_state, set_random_states, state_path
from models.training.start import start_network
from models.training.trainer import EpochReport, read_examples, recipe_for_card, training_part
from models.video import VideoTrack
from models.video_frames import published_frame_times

Items = Sequence[tuple[Tensor, Tensor, Tensor | None]]


class PretrainingLoop(BaseModel):
    """Settings of ``pretraining``: the loss of EquiAV's pre-training. The published ones are the defaults.

    Attributes
    ----------
    inter_temperature, intra_temperature
        Of the contrastive losses between and within modalities; 0: learned, starting at 0.07.
    inter_scale, audio_scale, video_scale
        Shares of the three losses.
    time_mask, frequency_mask
        Largest widths of the augmentation's masks, in frames and bands.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    inter_temperature: float = Field(default=0.07, ge=0)
    intra_temperature: float = Field(default=0.07, ge=0)
    inter_scale: float = Field(default=1 / 3, ge=0)
    audio_scale: float = Field(default=1 / 3, ge=0)
    video_scale: float = Field(default=1 / 3, ge=0)
    time_mask: int = Field(default=192, ge=0)
    frequency_mask: int = Field(default=48, ge=0)


def raw_picture(video: VideoTrack | None, share: float) -> Tensor:
    """One of the ten pictures of a clip in its own size, uint8 ``[height, width, 3]``."""
    if video is None:
        raise DataError("A clip of the data set has no picture.", "Pre-train with videos only.")
    times = published_frame_times(video.duration, video.frame_rate)
    moment = times[min(int(share * len(times)), len(times) - 1)] + 0.25 / (video.frame_rate or 25.0)
    return torch.from_numpy(np.ascontiguousarray(video.frames([moment])[0]))


def together(items: Items) -> tuple[Tensor, list[Tensor]]:
    """Waveforms ``[batch, samples]`` and pictures of any size."""
    return torch.stack([item[0] for item in items]), [item[2] for item in items if item[2] is not None]


def train_pretraining(config: TrainConfig, report: Callable[[EpochReport], None] | None = None) -> Path:
    """Pre-train as a recipe says and write the checkpoint.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    settings = config.optimizer
    try:
        own = PretrainingLoop.model_validate(config.loop.settings)
        network_config = EquiAVPretrainingConfig.model_validate(config.config)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise SettingsError(f"The settings of the pre-training are not valid: {details}.") from error
    set_seed(config.seed)
    network = EquiAVPretraining(network_config)
    part = training_part(config, read_examples(config))
    frontend = build_frontend(config.frontend)
    samples = frontend.window_samples or 10 * frontend.sample_rate
    clips = TrainingClips(part, frontend.sample_rate, samples, picture=raw_picture)
    for start in config.start if not config.resume else ():
        start_network(network, start)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, frontend = network.to(device), frontend.to(device)
    loss = PretrainingLoss(
        own.inter_temperature, own.intra_temperature, own.inter_scale, own.audio_scale, own.video_scale
    ).to(device)
    optimizer = build_optimizer(network, settings)
    learned = list(loss.parameters())
    if learned:
        optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
    drawing = torch.Generator().manual_seed(config.seed)
    order = draws_of(config, clips, drawing)
    batch_size = min(settings.batch_size, len(clips))
    per_epoch = len(clips) // batch_size
    schedule = WarmupCosine(
        settings.learning_rate,
        config.schedule.start,
        config.schedule.end,
        settings.warmup_epochs,
        settings.epochs,
        per_epoch,
    )
    config.output.mkdir(parents=True, exist_ok=True)
    path, history, done = state_path(config), config.output / f"{config.name}.jsonl", 0
    if config.resume:
        state = load_state(path, config)
        network.load_state_dict(state["network"])
        loss.load_state_dict(state["loss"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
        set_random_states(state["random"], drawing)
    lines = history.read_text(encoding="utf-8").splitlines()[:done] if history.is_file() else []
    history.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    started = time.monotonic()
    for epoch in range(done + 1, settings.epochs + 1):
        # Views are drawn anew from seed and epoch, so that there is no state of theirs to keep.
        rng, losses = np.random.default_rng([config.seed, epoch]), []
        loader = DataLoader(
            clips, batch_size, sampler=order, drop_last=True, collate_fn=together, num_workers=config.data.workers
        )  # fmt: skip
        for step, (waveforms, pictures) in enumerate(loader):
            with torch.no_grad():
                waveforms = waveforms.to(device)
                features = frontend(waveforms - waveforms.mean(dim=1, keepdim=True)).cpu()
            shifts = rng.integers(-features.shape[1], features.shape[1], len(features))
            features = torch.stack([clip.roll(int(shift), 0) for clip, shift in zip(features, shifts, strict=True)])
            images = [Image.fromarray(picture.numpy()) for picture in pictures]
            batch = pretraining_batch(features, images, network.config, rng, own.time_mask, own.frequency_mask).to(
                device
            )
            rate = schedule((epoch - 1) * per_epoch + step)
            result = pretraining_step(network, loss, batch, optimizer, rate, settings.gradient_clip or None)
            losses.append(float(result.loss.detach()))
        entry = EpochReport(
            epoch, settings.epochs, sum(losses) / len(losses), float(optimizer.param_groups[0]["lr"]), None,
            time.monotonic() - started,
        )  # fmt: skip
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        save_state(path, config, {
            "network": network.state_dict(), "loss": loss.state_dict(), "optimizer": optimizer.state_dict(),
            "epoch": epoch, "random": random_states(drawing),
        })  # fmt: skip
        if report is not None:
            report(entry)
    card = Card(
        name=config.name, title=config.title, description=config.description, family=config.family,
        config=network.config.model_dump(mode="json"), frontend=frontend.config.model_dump(mode="json"),
        # Its outputs are no classes but the dimensions of the shared space.
        labels=[f"dimension {index}" for index in range(network.config.n_classes)], task="multi-label",
        training={"recipe": recipe_for_card(config), "clips": len(clips)},
        training_data=config.training_data, license=config.license, citation=config.citation,
    )  # fmt: skip
    save_checkpoint(config.output / config.name, network.eval(), card, half=config.half)
    path.unlink(missing_ok=True)
    return config.output / config.name
