"""The picture track: in step with the sound, upright, and read only where it is looked at."""

from __future__ import annotations

import io
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import models.video
from models.clip import Clip, MediaLimits, open_clip
from models.errors import MediaError
from tests.models.media_files import chirp, grey, with_pyav


def _flash(container_format: str, codec: str, video_codec: str, sound_from: float = 0.0, **kwargs: Any) -> bytes:
    """Two seconds; at 1.0 s of the file one white frame and one beep of 40 ms."""
    pictures = [grey(255 if i == 25 else 0) for i in range(50)]
    t = np.arange(round(48_000 * (2 - sound_from))) / 48_000 + sound_from
    beep = np.where((t >= 1.0) & (t < 1.04), 0.5 * np.sin(2 * np.pi * 1000 * t), 0)[None].astype(np.float32)
    return with_pyav(
        container_format, codec, beep, pictures=pictures, video_codec=video_codec, sound_from=sound_from, **kwargs
    )


VIDEOS = [("mp4", "aac", "libx264"), ("mov", "aac", "mpeg4"), ("webm", "libopus", "libvpx-vp9")]


@pytest.mark.parametrize("sound_from", [0.0, 0.5])
@pytest.mark.parametrize("kind", VIDEOS, ids=lambda kind: kind[0])
def test_picture_and_sound_stay_together(kind: tuple[str, str, str], sound_from: float) -> None:
    clip = open_clip(_flash(*kind, sound_from=sound_from))
    assert clip.video is not None
    assert clip.notes == ()
    beep = float(np.flatnonzero(np.abs(clip.waveform[0]) > 0.1)[0] / clip.sample_rate)
    # The codec's first block may be kept where the sound starts late: the clip then begins that much earlier.
    assert beep == pytest.approx(1.0 - sound_from, abs=0.025)
    assert clip.video.duration == pytest.approx(clip.duration, abs=0.05)
    times = [beep + 0.003, beep - 0.003, beep + 0.043, beep + 0.037, -5.0, 99.0]
    assert [frame.mean() > 128 for frame in clip.video.frames(times)] == [True, False, False, True, False, False]


@pytest.mark.parametrize("kind", VIDEOS, ids=lambda kind: kind[0])
def test_video_properties_and_thumbnails(kind: tuple[str, str, str], tmp_path: Path) -> None:
    data = _flash(*kind)
    path = tmp_path / "video"
    path.write_bytes(data)
    clips = [open_clip(data), open_clip(path), pickle.loads(pickle.dumps(open_clip(data)))]
    assert len({clip.content_hash for clip in clips}) == 1
    for clip in clips:
        assert clip.video is not None
        assert (clip.video.width, clip.video.height, clip.video.frame_rate) == (64, 48, 25.0)
        assert clip.video.frames([0.1, 1.5], size=(30, 20)).shape == (2, 30, 20, 3)
        assert clip.video.frames([]).shape == (0, 48, 64, 3)
        thumbnails = clip.video.thumbnails(5, 24)
        assert thumbnails.shape == (5, 24, 32, 3) and thumbnails.dtype == np.uint8
        assert [t.mean() > 128 for t in thumbnails] == [False, False, True, False, False]


def _ever_brighter(gop_size: int) -> bytes:
    """20 s of 10 frames per second; frame i is 10 + i bright (a ramp, so that the encoder adds no keyframes)."""
    pictures = [grey(10 + i, 16, 16) for i in range(200)]
    return with_pyav("mp4", "aac", chirp(48_000, 20), pictures=pictures, frame_rate=10, gop_size=gop_size)


FAR_TIMES = [15.5, 0.5, 7.5, 7.9, 19.95, 8.0, 1.0, 0.0]
FAR_BRIGHTNESS = [165, 15, 85, 89, 209, 90, 20, 10]


@pytest.mark.parametrize(("gop_size", "most_decoded"), [(5, 100), (400, 280)])
def test_far_frames_are_found_with_little_decoding(
    gop_size: int, most_decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long steps seek; where there is only one keyframe, seeking again and again would decode the start each time."""
    video = open_clip(_ever_brighter(gop_size)).video
    assert video is not None
    decoded = []
    read = models.video._decoded

    def counting(*args: Any) -> Any:
        for time, frame in read(*args):
            decoded.append(time)
            yield time, frame

    monkeypatch.setattr(models.video, "_decoded", counting)
    brightness = video.frames(FAR_TIMES).mean(axis=(1, 2, 3))
    assert brightness == pytest.approx(FAR_BRIGHTNESS, abs=2)
    decoded.clear()
    video.frames([0.0, 5.0, 10.0, 15.0, 19.95])
    assert len(decoded) <= most_decoded


def test_seeking_too_far_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a wrong index lands behind the time that was asked for, or at the end of the file."""
    seek = models.video._seek
    for error in (3.0, 1000.0):
        monkeypatch.setattr(
            models.video, "_seek", lambda c, s, time, error=error: seek(c, s, None if time is None else time + error)
        )
        video = open_clip(_ever_brighter(5)).video
        assert video is not None
        assert video.frames(FAR_TIMES).mean(axis=(1, 2, 3)) == pytest.approx(FAR_BRIGHTNESS, abs=2)


def test_a_frame_that_grows_within_the_file_is_not_decoded() -> None:
    """Small black pictures, then one large white one: the header and the first frames are within the limit."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream: Any = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        large: Any = av.CodecContext.create("mjpeg", "w")
        large.width, large.height, large.pix_fmt, large.time_base = 640, 480, "yuvj420p", Fraction(1, 10)
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(0), format="rgb24")))
        for packet in large.encode(
            av.VideoFrame.from_ndarray(grey(255, 480, 640), format="rgb24").reformat(format="yuvj420p")
        ):
            packet.stream, packet.pts, packet.dts = stream, 10, 10
            packet.time_base = Fraction(1, 10)
            container.mux(packet)
    for max_pixels, brightness in ((640 * 480, 255), (64 * 48, 0)):
        video = open_clip(file.getvalue(), limits=MediaLimits(max_pixels=max_pixels), require_audio=False).video
        assert video is not None and (video.width, video.height) == (64, 48)
        assert video.frames([1.05]).mean() == pytest.approx(brightness, abs=3)


@pytest.mark.parametrize(("rotation", "white_side"), [(90, "left"), (-90, "right"), (180, "bottom")])
def test_rotation_is_honoured(rotation: int, white_side: str) -> None:
    picture = grey(0)
    picture[:24] = 255
    data = with_pyav("mp4", "aac", chirp(48_000), pictures=[picture] * 5, rotation=rotation)
    video = open_clip(data).video
    assert video is not None
    assert (video.width, video.height) == ((64, 48) if rotation == 180 else (48, 64))
    for size in (None, (96, 80)):
        frame = video.frames([0.1], size)[0]
        assert frame.shape[:2] == (size or (video.height, video.width))
        sides = {"left": frame[:, :8], "right": frame[:, -8:], "top": frame[:8], "bottom": frame[-8:]}
        assert [side for side, pixels in sides.items() if pixels.mean() > 250] == [white_side]


def test_colours_are_right() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:] = 200, 60, 30
    video = open_clip(with_pyav("mp4", "aac", chirp(48_000), pictures=[picture] * 5)).video
    assert video is not None
    assert video.frames([0.1])[0].mean(axis=(0, 1)) == pytest.approx([200, 60, 30], abs=6)


def test_a_cover_is_no_video() -> None:
    data = with_pyav("mp4", "aac", chirp(48_000), pictures=[grey(99)], video_codec="mjpeg", cover=True)
    with av.open(io.BytesIO(data)) as container:
        assert len(container.streams.video) == 1
    clip = open_clip(data)
    assert clip.video is None and clip.notes == ()
    plain = open_clip(with_pyav("mp4", "aac", chirp(48_000)))
    assert clip.content_hash == plain.content_hash


@pytest.mark.parametrize(("container_format", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_video_without_sound_on_request(container_format: str, codec: str) -> None:
    data = with_pyav(container_format, None, pictures=[grey(255 * (i % 2)) for i in range(50)], video_codec=codec)
    with pytest.raises(MediaError, match=r"The video has no sound\.") as error:
        open_clip(data)
    assert "sound track" in error.value.advice
    clip = open_clip(data, require_audio=False)
    assert clip.waveform.shape == (1, 32_000) and clip.sample_rate == 16_000 and not clip.waveform.any()
    assert "silence stands in" in clip.notes[0]
    assert clip.video is not None
    assert clip.video.frames([0.0, 0.04, 0.08]).mean(axis=(1, 2, 3)) == pytest.approx([0, 255, 0], abs=3)


def test_video_is_part_of_the_hash_and_of_excerpts() -> None:
    clip = open_clip(_flash("mp4", "aac", "libx264"))
    assert clip.content_hash != Clip.from_array(clip.waveform, clip.sample_rate).content_hash
    part = clip.excerpt(0.9, 1.2)
    assert part.video is not None and part.duration == pytest.approx(0.3)
    assert part.video.duration == pytest.approx(0.3)
    assert [frame.mean() > 128 for frame in part.video.frames([0.05, 0.12, 0.2])] == [False, True, False]
    again = part.excerpt(0.05, 0.3)
    assert again.video is not None
    assert [frame.mean() > 128 for frame in again.video.frames([0.0, 0.07, 0.2])] == [False, True, False]


def test_a_hole_in_the_sound_keeps_it_with_the_picture() -> None:
    """The beep comes after the hole, and still together with the flash."""
    clip = open_clip(_flash("webm", "libopus", "libvpx-vp9", hole=(0.3, 0.7)))
    assert clip.video is not None and "of missing sound were filled with silence" in clip.notes[0]
    beep = float(np.flatnonzero(np.abs(clip.waveform[0]) > 0.1)[0] / clip.sample_rate)
    assert beep == pytest.approx(1.0, abs=0.005)
    assert [frame.mean() > 128 for frame in clip.video.frames([beep - 0.01, beep + 0.02])] == [False, True]


def test_too_many_frames_at_once_are_refused() -> None:
    video = open_clip(_flash("mp4", "aac", "libx264"), limits=MediaLimits(max_frame_bytes=10_000)).video
    assert video is not None
    for times, size, sentence in (
        ([0.0] * 100, None, "100 video frames of 64 x 48 pixels need more memory"),
        ([0.0], (10**6, 10**6), "more memory"),
        ([0.0], (0, 5), "at least 1 x 1"),
        ([float("nan")], (5, 5), "numbers"),
    ):
        with pytest.raises(MediaError, match=sentence):
            video.frames(times, size)


def test_a_video_whose_file_has_gone_says_so(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(_flash("mp4", "aac", "libx264"))
    video = open_clip(path).video
    path.unlink()
    assert video is not None
    with pytest.raises(MediaError, match="can no longer be read"):
        video.frames([0.0])
