"""Batches of clean and augmented views, and one step of EquiAV's pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.errors import SettingsError
from models.families.equiav_pretraining import EquiAVPretraining, EquiAVPretrainingConfig
from models.training.equiav import PretrainingLoss, PretrainingResult
from models.training.equiav_augment import (
    audio_vector,
    augment_picture,
    augment_spectrogram,
    draw_audio_augmentation,
    draw_video_augmentation,
    video_vector,
)
from models.video_frames import prepare_picture


class PretrainingBatch(NamedTuple):
    """What `EquiAVPretraining.forward_views` reads, in its order."""

    audio: Tensor
    video: Tensor
    audio_view: Tensor
    video_view: Tensor
    audio_vector: Tensor
    video_vector: Tensor
    audio_centroid: Tensor
    video_centroid: Tensor

    def to(self, device: torch.device | str) -> PretrainingBatch:
        """The batch on a device."""
        return PretrainingBatch(*(tensor.to(device) for tensor in self))


def pretraining_batch(
    features: Tensor,
    pictures: Sequence[Image.Image],
    config: EquiAVPretrainingConfig,
    rng: np.random.Generator,
    time_mask: int = 192,
    frequency_mask: int = 48,
) -> PretrainingBatch:
    """Draw views and parameter vectors for normalised features ``[batch, frames, n_mels]`` and a raw frame of each clip.

    Raises
    ------
    SettingsError
        If there is not one picture for every sound.
    """
    if len(pictures) != features.shape[0]:
        raise SettingsError(f"There are {len(pictures)} pictures for {features.shape[0]} sounds.", "Give one for each.")
    frames, n_mels = features.shape[1:]
    audio_size, video_size, size = config.audio_vector_size, config.video_vector_size, config.image_size
    items = []
    for spectrogram, picture in zip(features, pictures, strict=True):
        clean = spectrogram.expand(3, -1, -1)
        heard = draw_audio_augmentation(frames, n_mels, rng, audio_size, time_mask, frequency_mask)
        seen = draw_video_augmentation(picture.height, picture.width, rng, video_size)
        many_heard = [
            draw_audio_augmentation(frames, n_mels, rng, audio_size, time_mask, frequency_mask)
            for _ in range(config.n_centroid)
        ]
        many_seen = [draw_video_augmentation(size, size, rng, video_size) for _ in range(config.n_centroid)]
        items.append(
            (
                clean,
                prepare_picture(picture, size),
                augment_spectrogram(clean, heard),
                augment_picture(picture, seen, size),
                audio_vector(heard, frames, n_mels, audio_size),
                video_vector(seen, picture.height, picture.width, video_size),
                torch.stack([audio_vector(one, frames, n_mels, audio_size) for one in many_heard]),
                torch.stack([video_vector(one, size, size, video_size) for one in many_seen]),
            )
        )
    return PretrainingBatch(*(torch.stack(column) for column in zip(*items, strict=True)))


def pretraining_step(
    network: EquiAVPretraining,
    loss: PretrainingLoss,
    batch: PretrainingBatch,
    optimizer: torch.optim.Optimizer,
    learning_rate: float | None = None,
    max_norm: float | None = None,
) -> PretrainingResult:
    """One update; returns the losses before it.

    Parameters
    ----------
    learning_rate
        Set in every group before the update, as the published schedule does.
    max_norm
        Clip the gradient to this norm (published: 0.01, with mixed precision only).

    Raises
    ------
    SettingsError
        If the loss is not a number; the weights are left as they were.
    """
    network.train()
    optimizer.zero_grad(set_to_none=True)
    result: PretrainingResult = loss(network.forward_views(*batch))
    if not torch.isfinite(result.loss):
        raise SettingsError("The loss is not a number any more.", "Lower the learning rate.")
    result.loss.backward()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return result
