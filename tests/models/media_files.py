"""Sound and video files made for the tests, each with the encoder of its kind."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.stream import Disposition

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def chirp(sample_rate: int, seconds: float = 1.5, n_channels: int = 1) -> np.ndarray:
    """A rising tone with a different level in each channel: any shift, swap or scaling shows."""
    t = np.arange(round(sample_rate * seconds)) / sample_rate
    tone = 0.5 * np.sin(2 * np.pi * (300 + 400 * t) * t) * np.exp(-(((t - seconds / 2) / 0.4) ** 2))
    return np.stack([tone * (1 - 0.1 * channel) for channel in range(n_channels)]).astype(np.float32)


def noise(sample_rate: int, seconds: float) -> np.ndarray:
    """White noise: it does not compress, so half of the file is half of the sound."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (1, round(sample_rate * seconds)))
    return samples.astype(np.float32)


def with_soundfile(waveform: np.ndarray, sample_rate: int, file_format: str, subtype: str) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate, len(waveform), format=file_format, subtype=subtype) as sound:
        for start in range(0, waveform.shape[1], 4096):
            sound.write(waveform[:, start : start + 4096].T)
    return file.getvalue()


def with_pyav(
    container_format: str,
    codec: str | None,
    waveform: np.ndarray | None = None,
    sample_rate: int = 48_000,
    *,
    pictures: list[np.ndarray] | None = None,
    video_codec: str = "libx264",
    frame_rate: int = 25,
    rotation: int = 0,
    cover: bool = False,
    sound_from: float = 0.0,
    hole: tuple[float, float] = (0.0, 0.0),
    gop_size: int = 12,
    options: dict[str, str] | None = None,
) -> bytes:
    """A media file; `sound_from` is the time of the first sample in the file, sound within `hole` (s) is left out."""
    # Not in memory: to write its index first, the muxer opens an MP4 file again.
    with (
        tempfile.TemporaryDirectory() as folder,
        av.open(f"{folder}/file", "w", format=container_format, options=options or {}) as container,
    ):
        sound: Any = None
        video: Any = None
        if codec is not None and waveform is not None:
            sound = container.add_stream(codec, rate=sample_rate, layout=LAYOUTS[len(waveform)])
        if pictures:
            video = container.add_stream(video_codec, rate=frame_rate)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = "yuvj420p" if cover else "yuv420p"
            video.gop_size = gop_size
            if video_codec == "libx264":
                video.options = {"sc_threshold": "0"}  # keyframes where gop_size says, not where the picture changes
            if rotation:
                video.set_display_rotation(rotation)
            if cover:
                video.disposition = Disposition.attached_pic
            for picture in pictures:
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(video.encode(None))
        if sound is not None and waveform is not None:
            step = 960  # what Opus takes; packed, because PyAV 18.1 cannot make planar 8-channel frames
            resampler = av.AudioResampler(format=sound.format.name)
            for start in range(0, waveform.shape[1], step):
                if hole[0] <= start / sample_rate < hole[1]:
                    continue
                packed = np.ascontiguousarray(waveform[:, start : start + step].T).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=LAYOUTS[len(waveform)])
                frame.sample_rate, frame.pts = sample_rate, start + round(sound_from * sample_rate)
                for converted in resampler.resample(frame):
                    container.mux(sound.encode(converted))
            container.mux(sound.encode(None))
        container.close()
        return Path(folder, "file").read_bytes()


def grey(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_bytes(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def flac_claiming(flac: bytes, n_samples: int) -> bytes:
    """The same file with another number of samples in its header (0: unknown)."""
    field = ((flac[21] & 0xF0) << 32 | n_samples).to_bytes(5, "big")
    return with_bytes(flac, 21, field)
