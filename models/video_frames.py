"""Pictures as networks read them: shorter side to size, centre crop, ImageNet's colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

if TYPE_CHECKING:
    from models.video import VideoTrack

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_picture(picture: Tensor) -> Tensor:
    """RGB in 0..1, ``[..., 3, height, width]``, to ImageNet's scale."""
    mean = torch.tensor(IMAGENET_MEAN, device=picture.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=picture.device).view(3, 1, 1)
    return (picture - mean) / std


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with the shorter side at `size`; the longer one is rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def crop_offsets(height: int, width: int, size: int) -> tuple[int, int]:
    """Top and left of the centre crop; halves are rounded to even, as the published pipelines do."""
    return round((height - size) / 2), round((width - size) / 2)


def to_tensor(image: Image.Image) -> Tensor:
    """A picture as RGB in 0..1, float32 ``[3, height, width]``; grey pictures get three equal channels."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 255.0).permute(2, 0, 1).contiguous()


def prepare_picture(image: Image.Image, size: int = 224) -> Tensor:
    """The published preprocessing of one frame: Pillow's bicubic resize on 8 bits, centre crop, ImageNet's scale.

    Returns
    -------
    Tensor
        float32 ``[3, size, size]``.
    """
    image = image.convert("RGB")
    height, width = resized_shape(image.height, image.width, size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    top, left = crop_offsets(height, width, size)
    return normalize_picture(to_tensor(image.crop((left, top, left + size, top + size))))


def prepare_frames(frames: Tensor, size: int) -> Tensor:
    """Differentiable counterpart of `prepare_picture` for ``[batch, 3, height, width]`` in 0..1."""
    height, width = resized_shape(frames.shape[-2], frames.shape[-1], size)
    if (height, width) != tuple(frames.shape[-2:]):
        frames = nn.functional.interpolate(
            frames, size=(height, width), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0.0, 1.0)
    top, left = crop_offsets(height, width, size)
    return normalize_picture(frames[..., top : top + size, left : left + size])


def published_frame_times(duration: float, frame_rate: float, n_frames: int = 10) -> list[float]:
    """When the frames of the published folders (``frame_0`` to ``frame_9``) were taken, in seconds.

    The first ten seconds are divided into `n_frames` parts; the frame before each part's first one is read.
    """
    rate = frame_rate or 25.0
    total = min(round(duration * rate), int(rate * 10))
    return [max(0, int(i * total / n_frames) - 1) / rate for i in range(n_frames)]


def read_published_frame(video: VideoTrack, index: int = 5) -> Tensor:
    """One frame of a video as published test sets use it (number 5 of 10), RGB in 0..1, float32 ``[1, 3, height, width]``.

    Raises
    ------
    MediaError
        If the video cannot be decoded.
    """
    time = published_frame_times(video.duration, video.frame_rate)[index]
    # A little later than the frame's first moment, so that rounding does not pick the one before it.
    pixels = video.frames([time + 0.25 / (video.frame_rate or 25.0)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0


def read_middle_frame(video: VideoTrack | None, start: float, seconds: float | None, size: int) -> Tensor:
    """`read_published_frame` of a part of a video, ``[1, 1, 3, height, width]``; without one, mean grey of that size.

    Raises
    ------
    MediaError
        If the video cannot be decoded.
    """
    if video is None:
        return torch.tensor(IMAGENET_MEAN)[None, None, :, None, None].expand(1, 1, 3, size, size)
    return read_published_frame(video if seconds is None else video.excerpt(start, start + seconds)).unsqueeze(0)
