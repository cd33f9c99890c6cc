"""Scenes as video files: H.264 and AAC in mp4, which every browser plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    frame_rate: float,
    waveform: NDArray[np.floating],
    sample_rate: int,
    *,
    quality: int = 23,
    preset: str = "veryfast",
    audio_bit_rate: int = 128_000,
) -> None:
    """Write pictures and sound to an mp4 file.

    Parameters
    ----------
    frames
        uint8 RGB `[n, height, width, 3]`, even height and width.
    waveform
        Mono `[samples]`.
    quality
        x264's constant rate factor: less is better and larger.

    Raises
    ------
    SettingsError
        If height or width is odd.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise SettingsError(f"A video of {width} x {height} pixels cannot be written.", "Use even numbers of pixels.")
    rate = Fraction(frame_rate).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # One thread: the same content gives the same bytes.
        options = {"crf": str(quality), "preset": preset, "threads": "1"}
        video = container.add_stream("libx264", rate=rate, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=sample_rate, layout="mono")
        audio.bit_rate = audio_bit_rate
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = np.ascontiguousarray(waveform, dtype=np.float32)[None]
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
