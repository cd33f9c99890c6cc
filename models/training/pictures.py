"""How the pictures of training clips are read: decoded once into small whole numbers, or anew whenever they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.audio_visual import PIXEL_MEAN, fill_up, read_pixels
from models.errors import DataError
from models.layers.hetero_settings import HeteroGraphConfig
from models.network import Network
from models.video import VideoTrack
from models.video_frames import IMAGENET_MEAN, crop_offsets, published_frame_times, resized_shape


class Pictures:
    """Reads the picture of a clip.

    Attributes
    ----------
    grey
        RGB in 0..1 that stands for a picture that is not there; 0 in the network's own colour scale.
    n_bytes
        Of the pixels of a clip.
    moving
        Whether `frames` follow each other in time.
    """

    grey: tuple[float, float, float]
    n_bytes: int
    moving: bool

    def pixels(self, video: VideoTrack | None) -> Tensor:
        """All that may be asked for of a clip, uint8 RGB ``[n, 3, height, width]``."""
        raise NotImplementedError

    def frames(self, pixels: Tensor, share: float) -> Tensor:
        """What the network reads of the pixels, in 0..1; the number in 0..1 says which of several pictures."""
        raise NotImplementedError

    def __call__(self, video: VideoTrack | None, share: float) -> Tensor:
        """The same without keeping pixels."""
        return self.frames(self.pixels(video), share)


@dataclass(frozen=True)
class AllPictures(Pictures):
    """The frames that the event graph reads, ``[n_frames, 3, side, side]``."""

    seconds: float
    frame_rate: float
    size: int | None
    moving = True
    grey = PIXEL_MEAN

    @property
    def n_bytes(self) -> int:  # type: ignore[override]
        """Of the pixels of a clip."""
        return int(self.seconds * self.frame_rate) * 3 * (self.size or 112) ** 2

    def pixels(self, video: VideoTrack | None) -> Tensor:
        """The frames that there are; none without a video."""
        return read_pixels(video, self.seconds, self.frame_rate, self.size)

    def frames(self, pixels: Tensor, _: float) -> Tensor:
        """All of them, filled up with grey."""
        return fill_up(pixels, int(self.seconds * self.frame_rate))


@dataclass(frozen=True)
class OnePicture(Pictures):
    """One of the ten pictures that EquiAV's data sets keep of a clip, ``[1, 3, size, size]``."""

    size: int
    moving = False
    grey = IMAGENET_MEAN
    n_pictures = 10

    @property
    def n_bytes(self) -> int:  # type: ignore[override]
        """Of the pixels of a clip."""
        return self.n_pictures * 3 * self.size**2

    def _pixels_at(self, video: VideoTrack | None, which: slice) -> Tensor:
        if video is None:
            raise DataError("A clip of the data set has no picture.", "Train with sound alone (data.video: false).")
        times = published_frame_times(video.duration, video.frame_rate, self.n_pictures)[which]
        shift = 0.25 / (video.frame_rate or 25.0)
        found = video.frames([time + shift for time in times])
        height, width = resized_shape(found.shape[1], found.shape[2], self.size)
        top, left = crop_offsets(height, width, self.size)
        parts = []
        for pixels in found:
            image = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BICUBIC)
            parts.append(np.asarray(image.crop((left, top, left + self.size, top + self.size))))
        return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).contiguous()

    def _index(self, share: float) -> int:
        return min(int(share * self.n_pictures), self.n_pictures - 1)

    def pixels(self, video: VideoTrack | None) -> Tensor:
        """All ten."""
        return self._pixels_at(video, slice(None))

    def frames(self, pixels: Tensor, share: float) -> Tensor:
        """One of them."""
        return pixels[self._index(share)].unsqueeze(0).float() / 255.0

    def __call__(self, video: VideoTrack | None, share: float) -> Tensor:
        """Only that one is decoded."""
        index = self._index(share)
        return self._pixels_at(video, slice(index, index + 1)).float() / 255.0


def picture_reader(network: Network) -> Pictures | None:
    """How a network's pictures are read, None if it reads none."""
    if "video" not in network.modalities:
        return None
    config = network.config
    if isinstance(config, HeteroGraphConfig):
        return AllPictures(config.clip_seconds, config.frame_rate, config.frame_size)
    return OnePicture(int(getattr(config, "image_size", 224)))
