"""From a clip with a picture to what an audio-visual network reads.

`read_frames` is what the workbench uses. `published_clip` reproduces, step by step and with its quirks, how the
published event-graph network loads a file, so that figures measured with it can be repeated:

- padding a short clip turns its frames to floating point, and such frames are not divided by 255;
- one resampling filter, made for 44.1 kHz, serves all sample rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import MediaError
from models.video import VideoTrack
from models.video_frames import crop_offsets, resized_shape

RESIZED = (128, 171)  # height and width before the crop; the aspect ratio is not kept
CROP = 112
# Mean and deviation of Kinetics-400 in RGB, as the video backbone was trained.
PIXEL_MEAN = (0.43216, 0.394666, 0.37645)
PIXEL_STD = (0.22803, 0.22145, 0.216989)
_CHUNK_BYTES = 64 * 2**20
_FRAMES_AT_ONCE = 8  # of large pictures, as floating point


def fit_picture(frames: Tensor) -> Tensor:
    """Resize ``[n, 3, height, width]`` to 128 x 171 (bilinear, not antialiased) and cut out the middle 112 x 112.

    uint8 stays uint8, rounded half to even, as torchvision 0.13's video preset does; floats keep their scale.
    """
    top, left = (round((size - CROP) / 2) for size in RESIZED)
    parts = []
    for part in frames.split(_FRAMES_AT_ONCE):
        resized = nn.functional.interpolate(part.float(), size=RESIZED, mode="bilinear", align_corners=False)
        cropped = resized[:, :, top : top + CROP, left : left + CROP]
        parts.append(cropped.round().to(torch.uint8) if frames.dtype == torch.uint8 else cropped)
    return torch.cat(parts)


def normalize_picture(frames: Tensor) -> Tensor:
    """``(x - mean) / std`` per colour for ``[..., 3, height, width]`` in 0..1."""
    mean = torch.tensor(PIXEL_MEAN, device=frames.device)[:, None, None]
    std = torch.tensor(PIXEL_STD, device=frames.device)[:, None, None]
    return (frames - mean) / std


def blank_frames(n_frames: int, size: int | None = None) -> Tensor:
    """Frames that are 0 after `normalize_picture` (mean grey): what stands for a picture that is not there."""
    side = size or CROP
    return torch.tensor(PIXEL_MEAN)[None, :, None, None].expand(n_frames, 3, side, side)


def read_pixels(
    video: VideoTrack | None, seconds: float = 10.0, frame_rate: float = 20.0, size: int | None = None
) -> Tensor:
    """The frames of `read_frames` that there are, uint8 ``[at most n_frames, 3, side, side]``.

    Raises
    ------
    MediaError
        If the video cannot be decoded.
    """
    n_frames = int(seconds * frame_rate)
    if video is None:
        return torch.empty(0, 3, size or CROP, size or CROP, dtype=torch.uint8)
    times = [i / frame_rate for i in range(n_frames) if i / frame_rate < video.duration] or [0.0]
    if size is not None:
        height, width = resized_shape(video.height, video.width, size)
        top, left = crop_offsets(height, width, size)
        square = video.frames(times, (height, width))[:, top : top + size, left : left + size]
        return torch.from_numpy(square.copy()).permute(0, 3, 1, 2).contiguous()
    # Large pictures are decoded a few at a time: 200 frames of Full HD are 1.2 GB.
    chunk = max(1, _CHUNK_BYTES // (3 * video.width * video.height))
    parts = []
    for start in range(0, len(times), chunk):
        pictures = torch.from_numpy(video.frames(times[start : start + chunk])).permute(0, 3, 1, 2)
        parts.append(fit_picture(pictures))
    return torch.cat(parts)


def fill_up(pixels: Tensor, n_frames: int) -> Tensor:
    """uint8 frames ``[n, 3, side, side]`` as float32 in 0..1, followed by mean grey up to `n_frames`."""
    grey = blank_frames(max(0, n_frames - len(pixels)), pixels.shape[-1])
    return torch.cat([pixels.float() / 255.0, grey])


def read_frames(
    video: VideoTrack | None, seconds: float = 10.0, frame_rate: float = 20.0, size: int | None = None
) -> Tensor:
    """The frames that a network reads, float32 ``[n_frames, 3, side, side]`` in 0..1.

    Frame i is the picture on show at ``i / frame_rate``. After the end of the video, or without one, frames are mean
    grey.

    Parameters
    ----------
    size
        None: 112 x 112 pixels from the middle of the picture, as published. A number: the middle
        square of the picture, scaled to that side.

    Raises
    ------
    MediaError
        If the video cannot be decoded.
    """
    return fill_up(read_pixels(video, seconds, frame_rate, size), int(seconds * frame_rate))


@dataclass(frozen=True, eq=False)
class PublishedClip:
    """A clip as the published loader hands it to the network.

    Attributes
    ----------
    video
        float32 ``[3, frames, 112, 112]``, normalised.
    audio
        float32 ``[channels, samples]``.
    video_fps, audio_fps
        Rates in Hz; `audio_fps` is a whole number, 16000 for an ordinary clip.
    video_len, audio_len
        Whole seconds.
    """

    video: Tensor
    audio: Tensor
    video_fps: float
    audio_fps: float
    video_len: int
    audio_len: int

    @property
    def frames(self) -> Tensor:
        """The video in the form that networks read, ``[frames, 3, 112, 112]`` in 0..1 (far above 1 after the quirk)."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
        return self.video.transpose(0, 1) * std + mean


def published_clip(
    video: Tensor, video_fps: float, audio: Tensor, audio_fps: int, clip_seconds: int = 10, frame_rate: int = 20
) -> PublishedClip:
    """Load decoded media as the published code does.

    Parameters
    ----------
    video
        uint8 RGB ``[frames, 3, height, width]``.
    audio
        float32 ``[channels, samples]``.

    Raises
    ------
    MediaError
        If there is no frame or no sample.
    """
    if video.ndim != 4 or video.shape[0] == 0 or audio.ndim != 2 or audio.shape[1] == 0 or video_fps <= 0:
        raise MediaError("The clip holds no picture or no sound.", "Choose a video with a sound track.")
    if video_fps < frame_rate:
        repeats = math.ceil(frame_rate / video_fps)
        video = video.repeat_interleave(repeats, dim=0)
        video_fps = video_fps * repeats
    n_frames = video.shape[0]
    video_len = int(n_frames / video_fps)
    if n_frames < int(clip_seconds * video_fps) or video_len < clip_seconds:
        missing = max(0, int(clip_seconds * video_fps) - n_frames)
        # The black frames are floats, which makes the whole video floats: not divided by 255 below (quirk).
        video = torch.cat([video.float(), torch.zeros(missing, *video.shape[1:])])
        video_len = clip_seconds
    n_samples = audio.shape[1]
    audio_len = int(n_samples / audio_fps)
    if n_samples < int(clip_seconds * audio_fps) or audio_len < clip_seconds:
        audio = nn.functional.pad(audio, (0, max(0, int(clip_seconds * audio_fps) - n_samples)))
        audio_len = clip_seconds
    if audio.shape[1] > int(audio_len * audio_fps):
        audio = audio[:, : int(video_len * audio_fps)]
    n_frames = video.shape[0]
    kept = np.linspace(0, n_frames - 1, int(n_frames * frame_rate / video_fps)).astype(np.int64)
    picture = fit_picture(video[torch.from_numpy(kept)])
    picture = normalize_picture(picture.float() / 255.0 if picture.dtype == torch.uint8 else picture)
    wanted = int(clip_seconds * frame_rate)
    picture = picture[:wanted]
    picture = torch.cat([picture, torch.zeros(wanted - len(picture), *picture.shape[1:])])
    audio = published_resample(audio, audio_fps)
    rate = float(audio.shape[1] // video_len)
    return PublishedClip(picture.transpose(0, 1), audio, float(frame_rate), rate, video_len, audio_len)


@lru_cache(maxsize=1)
def _filters_44100() -> Tensor:
    """The 160 windowed sinc filters of 475 taps for 44100 -> 16000 Hz (width 6, roll-off 0.99), ``[160, 1, 475]``."""
    source, target, zeros, rolloff = 441, 160, 6, 0.99
    base = min(source, target) * rolloff
    width = math.ceil(zeros * source / base)
    taps = torch.arange(-width, width + source, dtype=torch.float64) / source
    shift = -torch.arange(target, dtype=torch.float64) / target
    time = ((shift[:, None] + taps) * base).clamp(-zeros, zeros)
    window = torch.cos(time * math.pi / zeros / 2) ** 2
    return (torch.sinc(time) * window * (base / source)).float().unsqueeze(1)


def published_resample(audio: Tensor, sample_rate: int) -> Tensor:
    """``[channels, samples]`` to about 16 kHz with the filters for 44.1 kHz, whatever the rate (quirk).

    Right for 44100 Hz and untouched for 16000 Hz; other rates come out with wrong phases and sometimes another length.
    """
    if sample_rate == 16000:
        return audio
    hop, samples = sample_rate // 100, audio.shape[1]
    padded = nn.functional.pad(audio, (17, 17 + hop)).unsqueeze(1)
    filtered = nn.functional.conv1d(padded, _filters_44100().to(audio.device), stride=hop)
    return filtered.transpose(1, 2).reshape(audio.shape[0], -1)[:, : math.ceil(160 * samples / hop)]
