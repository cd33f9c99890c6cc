"""Videos that are unlike most: what is there of them works, and what is missing is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.clip import Clip, open_clip
from models.errors import MediaError
from tests.models.media_files import chirp, with_pyav

SECONDS = 1.0


def growing(n: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A bright bar that grows from left to right: the mean brightness tells the time."""
    pictures = []
    for i in range(n):
        picture = np.full((height, width, 3), 40, np.uint8)
        picture[:, : max(1, width * i // n)] = 220
        pictures.append(picture)
    return pictures


def time_in(clip: Clip, times: list[float]) -> np.ndarray:
    """The share of the clip that the brightness of the pictures at `times` tells."""
    assert clip.video is not None
    return (clip.video.frames(times).mean(axis=(1, 2, 3)) - 40) / 180


ODD: dict[str, dict[str, Any]] = {
    "240 pictures a second": {"pictures": growing(240), "frame_rate": 240},
    "5 pictures a second": {"pictures": growing(5), "frame_rate": 5},
    "portrait": {"pictures": growing(25, 96, 54)},
    "a size that is no multiple of 16": {"pictures": growing(25, 50, 62)},
    "a very wide picture": {"pictures": growing(25, 16, 320)},
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_pictures_keep_their_time(kind: str) -> None:
    clip = open_clip(with_pyav("mp4", "aac", chirp(48000, SECONDS, 2), 48000, **ODD[kind]))
    step = 1 / ODD[kind].get("frame_rate", 25)
    times = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(time_in(clip, times), times, atol=step + 0.04)
    assert clip.duration == pytest.approx(SECONDS, abs=0.05) and clip.notes == ()


def test_a_changing_frame_rate_keeps_its_time(tmp_path: Path) -> None:
    """25 pictures in the first half second, 5 in the second."""
    import av

    path = tmp_path / "changing.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000, layout="mono")
        video: Any = container.add_stream("libx264", rate=50)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        pictures = growing(50)
        from fractions import Fraction

        for number in [*range(25), 25, 30, 35, 40, 45]:
            frame = av.VideoFrame.from_ndarray(pictures[number], format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 50)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(chirp(48000, SECONDS)[None, 0], format="flt", layout="mono")
        samples.sample_rate, samples.pts = 48000, 0
        resampler = av.AudioResampler(format=sound.format.name, frame_size=1024)  # type: ignore[union-attr]
        for part in [*resampler.resample(samples), *resampler.resample(None)]:
            container.mux(sound.encode(part))  # type: ignore[union-attr]
        container.mux(sound.encode(None))  # type: ignore[union-attr]
    times = [0.11, 0.31, 0.49, 0.55, 0.65, 0.85]
    shown = [0.10, 0.30, 0.48, 0.50, 0.60, 0.80]
    np.testing.assert_allclose(time_in(open_clip(path), times), shown, atol=0.025)


def test_a_single_picture_is_a_picture_and_a_cover_is_none() -> None:
    clip = open_clip(with_pyav("mp4", "aac", chirp(48000, SECONDS, 2), 48000, pictures=growing(1)))
    assert clip.video is not None and clip.duration == pytest.approx(SECONDS, abs=0.05)
    assert clip.video.frames([0.0, 0.9]).shape == (2, 48, 64, 3)
    cover = with_pyav(
        "mp4", "aac", chirp(48000, SECONDS, 2), 48000, pictures=growing(1), video_codec="mjpeg", cover=True
    )
    assert open_clip(cover).video is None


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_damaged_stream_keeps_what_can_be_read(share: float) -> None:
    data = bytearray(with_pyav("mp4", "aac", chirp(48000, SECONDS, 2), 48000, pictures=growing(50), frame_rate=50))
    at = int(share * len(data))
    data[at : at + 600] = b"\xff" * 600
    clip = open_clip(bytes(data))
    assert clip.duration > 0.5 * SECONDS and clip.video is not None
    assert clip.video.frames([0.0, 0.5, 0.99]).shape == (3, 48, 64, 3)


def test_without_sound_it_is_silent_where_that_is_wanted() -> None:
    data = with_pyav("mp4", None, pictures=growing(25))
    clip = open_clip(data, require_audio=False)
    assert clip.video is not None and not clip.waveform.any() and "no sound" in clip.notes[0]
    assert clip.duration == pytest.approx(SECONDS, abs=0.05)
    with pytest.raises(MediaError, match="no sound"):
        open_clip(data)


FIVE_MINUTES = """
import resource, sys
import numpy as np
from models.clip import open_clip
from models.prediction import predict
from tests.workbench.test_pictures import equiav

recognizer = equiav("multimodal")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clip = open_clip(sys.argv[1])
assert abs(clip.duration - 300) < 0.1
assert clip.video.thumbnails(24, 45).shape[0] == 24
predict(recognizer, clip.at(16000)[: 16000 * 60], video=clip.video)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_five_minutes_do_not_exhaust_the_memory(tmp_path: Path) -> None:
    """3000 pictures of 640 x 360 would be 2 GB; they are decoded where they are looked at."""
    pictures = growing(50, 360, 640)
    sound = np.tile(chirp(48000, 10.0), 30)
    path = tmp_path / "long.mp4"
    path.write_bytes(with_pyav("mp4", "aac", sound, 48000, pictures=pictures * 60, frame_rate=10, gop_size=50))
    done = subprocess.run(
        [sys.executable, "-c", FIVE_MINUTES, str(path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert int(done.stdout) < 700, f"{done.stdout} MiB more"
