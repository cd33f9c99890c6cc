"""Limits hold while a file is decoded, whatever its header says."""

from __future__ import annotations

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import soundfile

import models.decoding
from models.clip import MediaLimits, encode_flac, encode_wav, open_clip
from models.errors import MediaError
from tests.models.media_files import chirp, flac_claiming, grey, with_bytes, with_pyav, with_soundfile


def test_limits_name_themselves() -> None:
    wav = encode_wav(chirp(8000, 1.5, 2), 8000)
    for limits, sentence, setting in (
        (MediaLimits(max_seconds=1.0), "longer than the limit of 1 s", "max_seconds"),
        (MediaLimits(max_bytes=10_000), "larger than the limit of 9.77 kB", "max_bytes"),
        (MediaLimits(max_channels=1), "2 channels; the limit is 1", "max_channels"),
        (MediaLimits(max_decoded_bytes=2**16), "more memory than the limit of 64 kB", "max_decoded_bytes"),
    ):
        for source in (wav, io.BytesIO(wav)):
            with pytest.raises(MediaError, match=sentence) as error:
                open_clip(source, limits=limits)
            assert setting in error.value.advice
    assert open_clip(wav, limits=MediaLimits(max_seconds=1.5)).duration == 1.5


@pytest.mark.parametrize("kind", ["flac", "opus", "vorbis", "m4a", "webm"])
def test_a_long_file_is_stopped_by_the_limit(kind: str) -> None:
    silence = np.zeros((1, 48_000 * 30), dtype=np.float32)
    data = {
        "flac": lambda: flac_claiming(encode_flac(silence, 48_000), 0),
        "opus": lambda: with_soundfile(silence, 48_000, "OGG", "OPUS"),
        "vorbis": lambda: with_soundfile(silence, 48_000, "OGG", "VORBIS"),
        "m4a": lambda: with_pyav("ipod", "aac", silence),
        "webm": lambda: with_pyav("webm", "libopus", silence),
    }[kind]()
    with pytest.raises(MediaError, match="longer than the limit of 20 s") as error:
        open_clip(data, limits=MediaLimits(max_seconds=20))
    assert "max_seconds" in error.value.advice and "sound editor" in error.value.advice


def test_a_bomb_is_stopped_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header gives no length, so only counting can stop it: nothing is decoded beyond the limit."""
    bomb = flac_claiming(encode_flac(np.zeros((1, 44_100 * 60), dtype=np.float32), 44_100), 0)
    assert len(bomb) < 44_100 * 60 / 80
    decoded = []
    read = models.decoding._ForwardReader.read

    def counting_read(self: Any, *args: Any, **kwargs: Any) -> Any:
        block = read(self, *args, **kwargs)
        decoded.append(block.shape[0])
        return block

    monkeypatch.setattr(models.decoding._ForwardReader, "read", counting_read)
    tracemalloc.start()
    with pytest.raises(MediaError, match="longer than the limit of 2 s"):
        open_clip(bomb, limits=MediaLimits(max_seconds=2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2 * 44_100 < sum(decoded) <= 2 * 44_100 + models.decoding._BLOCK
    assert peak < 3 * 4 * 2 * 44_100  # a few times two seconds, not a minute


def test_a_container_bomb_is_stopped_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Raw AAC has no length in it either.
    bomb = with_pyav("adts", "aac", np.zeros((1, 48_000 * 60), dtype=np.float32))
    decoded = []
    frames = models.decoding._audio_frames

    def counting_frames(*args: Any) -> Any:
        for frame in frames(*args):
            decoded.append(frame.samples)
            yield frame

    monkeypatch.setattr(models.decoding, "_audio_frames", counting_frames)
    with pytest.raises(MediaError, match="longer than the limit of 2 s"):
        open_clip(bomb, limits=MediaLimits(max_seconds=2))
    assert sum(decoded) <= 2 * 48_000 + 1024


@pytest.mark.slow
def test_three_hours_are_refused_by_the_default_limit() -> None:
    file = io.BytesIO()
    minute = np.zeros(44_100 * 60, dtype=np.float32)
    with soundfile.SoundFile(file, "w", 44_100, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(180):
            sound.write(minute)
    for data in (file.getvalue(), flac_claiming(file.getvalue(), 0)):
        with pytest.raises(MediaError, match="longer than the limit of 60 minutes"):
            open_clip(data)


def test_a_promise_takes_no_memory() -> None:
    wav = encode_wav(chirp(8000), 8000)
    promised = with_bytes(wav, wav.index(b"data") + 4, struct.pack("<I", 2**31 - 2**20))
    flac = flac_claiming(encode_flac(chirp(8000), 8000), 3000 * 8000)
    tracemalloc.start()
    assert [open_clip(data).n_samples for data in (promised, flac)] == [12_000, 12_000]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_big_frames_are_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = with_pyav("mp4", "aac", chirp(48_000), pictures=[grey(255, 2400, 2400)] * 2)
    monkeypatch.setattr("models.video._decoded", lambda *_: pytest.fail("a frame was decoded"))
    with pytest.raises(MediaError, match="2400 x 2400 pixels; the limit is 4147200 pixels") as error:
        open_clip(bomb, limits=MediaLimits(max_pixels=4147200))
    assert "max_pixels" in error.value.advice


def test_frames_cannot_be_larger_than_the_header_says() -> None:
    """Small in the container's header, large in the stream: the decoder itself refuses."""
    bomb = with_pyav("mp4", "aac", chirp(48_000), pictures=[grey(255, 720, 1280)] * 2)
    at = bomb.index(b"avc1", bomb.index(b"stsd")) + 28
    assert bomb[at : at + 4] == struct.pack(">HH", 1280, 720)
    limits = MediaLimits(max_pixels=64 * 64)
    try:
        clip = open_clip(with_bytes(bomb, at, struct.pack(">HH", 32, 32)), limits=limits)
    except MediaError as error:
        assert "pixels" in error.message
    else:
        assert clip.video is None and "picture of the video cannot be read" in clip.notes[0]
