"""Pre-training EquiAV without labels: sounds, one picture of each, and augmented views of both (specification, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from models.card import Card
from models.errors import DataError, SettingsError
from models.families.equiav_pretraining import EquiAVPretraining, EquiAVPretrainingConfig
from models.frontends import FrontEnd, build_frontend
from models.training.clips import Draw, Item, TrainingClips, key_of
from models.training.config import TrainConfig
from models.training.equiav import PretrainingLoss, PretrainingResult
from models.training.equiav_views import PretrainingBatch, pretraining_batch
from models.training.provenance import provenance
from models.training.run_state import Saver
from models.training.standard_loop import StandardLoop
from models.training.start import start_network
from models.training.trainer import EpochReport, begin, read_examples, training_part, write_checkpoint
from models.video import VideoTrack
from models.video_frames import published_frame_times

_VIEWS = 4  # purpose of a clip's random numbers


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


def together(items: Sequence[Item]) -> tuple[Tensor, list[Tensor], list[Draw]]:
    """Waveforms ``[batch, samples]``, pictures of any size, and how each was drawn."""
    pictures = [item.frames for item in items if item.frames is not None]
    return torch.stack([item.waveform for item in items]), pictures, [item.draw for item in items]


class Views(nn.Module):
    """Network and loss together, for `StandardLoop`."""

    def __init__(self, network: EquiAVPretraining, criterion: PretrainingLoss) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion

    def forward(self, *views: Tensor) -> Tensor:
        """Loss of what `EquiAVPretraining.forward_views` reads."""
        result: PretrainingResult = self.criterion(self.network.forward_views(*views))
        return result.loss


class PretrainingRun(StandardLoop):
    """Steps, states and processes are those of every training; what is heard, seen and compared is not.

    With several processes every sound is compared with the pictures of all, but, as published, gradients of the comparison
    between modalities reach only a process's own: one process with larger batches learns slightly differently.
    """

    def __init__(
        self, config: TrainConfig, own: PretrainingLoop, network: EquiAVPretraining, frontend: FrontEnd,
        clips: TrainingClips, accelerator: Accelerator,
    ) -> None:  # fmt: skip
        self.own, self.equiav = own, network.config
        self.criterion = PretrainingLoss(
            own.inter_temperature, own.intra_temperature, own.inter_scale, own.audio_scale, own.video_scale
        )
        # The published schedule, and the last weights.
        optimizer = config.optimizer.model_copy(update={"average_decay": 0.0, "average_epochs": None})
        schedule = config.schedule.model_copy(update={"kind": "half_cosine"})
        settings = config.model_copy(update={"optimizer": optimizer, "schedule": schedule})
        super().__init__(settings, network, frontend, clips, None, None, accelerator)
        self.collate = together
        self.saver = Saver(config, main=accelerator.is_main_process)

    def build_learner(self) -> nn.Module:
        """Network and contrastive losses."""
        assert isinstance(self.network, EquiAVPretraining)
        return Views(self.network, self.criterion)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The recipe's, with the temperatures if they are learned."""
        optimizer = super().build_optimizer()
        learned = list(self.criterion.parameters())
        if learned:
            rate = self.config.optimizer.learning_rate
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0, "lr": rate, "base_lr": rate})
        return optimizer

    def loss(self, batch: Any, epoch: int, step: int, part: int) -> Tensor:
        """Loss of views drawn from each clip's own random numbers."""
        waveforms, pictures, draws = batch
        with torch.no_grad():
            waveforms = waveforms.to(self.device)
            features = self.frontend(waveforms - waveforms.mean(dim=1, keepdim=True)).cpu()
        views = [
            self._views(clip, Image.fromarray(picture.numpy()), draw)
            for clip, picture, draw in zip(features, pictures, draws, strict=True)
        ]
        self.plan.seed_network(epoch, step, part)
        return self.model(*(torch.cat(column).to(self.device) for column in zip(*views, strict=True)))

    def _views(self, features: Tensor, picture: Image.Image, draw: Draw) -> PretrainingBatch:
        rng = np.random.default_rng(key_of(draw.key, _VIEWS))
        rolled = features.roll(int(rng.integers(-features.shape[0], features.shape[0])), 0)
        return pretraining_batch(
            rolled[None], [picture], self.equiav, rng, self.own.time_mask, self.own.frequency_mask
        )  # fmt: skip


def train_pretraining(config: TrainConfig, report: Callable[[EpochReport], None] | None = None) -> Path:
    """Pre-train as a recipe says and write the checkpoint.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    try:
        own = PretrainingLoop.model_validate(config.loop.settings)
        network_config = EquiAVPretrainingConfig.model_validate(config.config)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise SettingsError(f"The settings of the pre-training are not valid: {details}.") from error
    accelerator = begin(config)
    network = EquiAVPretraining(network_config)
    part = training_part(config, read_examples(config))
    frontend = build_frontend(config.frontend)
    samples = frontend.window_samples or 10 * frontend.sample_rate
    clips = TrainingClips(part, frontend.sample_rate, samples, picture=raw_picture)
    for start in config.start if not config.resume else ():
        start_network(network, start)
    loop = PretrainingRun(config, own, network, frontend.to(accelerator.device), clips, accelerator)
    trained = loop.run(report)
    if accelerator.is_main_process:
        card = Card(
            name=config.name, title=config.title, description=config.description, family=config.family,
            config=network.config.model_dump(mode="json"), frontend=frontend.config.model_dump(mode="json"),
            # Its outputs are no classes but the dimensions of the shared space.
            labels=[f"dimension {index}" for index in range(network.config.n_classes)], task="multi-label",
            training=provenance(config, {"train": part}, accelerator.num_processes),
            training_data=config.training_data, license=config.license, citation=config.citation,
        )  # fmt: skip
        write_checkpoint(config, trained.eval(), card)
        loop.saver.finish()
    accelerator.wait_for_everyone()
    return config.output / config.name
