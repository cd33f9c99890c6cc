"""The clip itself: identity, resampling, excerpts, names, and the way back into a file."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import models.decoding
from models.clip import Clip, MediaLimits, clean_name, encode_flac, encode_wav, open_clip
from models.errors import MediaError
from models.media import MediaSource
from tests.models.media_files import chirp, with_soundfile


def test_integers_come_back_exactly() -> None:
    whole = np.array([[-32768, -1, 0, 1, 32767]], dtype=np.int16)
    expected = whole.astype(np.float32) / 32768
    clip = open_clip(with_soundfile(expected, 8000, "WAV", "PCM_16"))
    assert np.array_equal(clip.waveform, expected)
    assert np.array_equal(open_clip(encode_wav(clip.waveform, 8000)).waveform, expected)
    assert np.array_equal(open_clip(encode_flac(clip.waveform, 8000)).waveform, expected)


def test_same_content_has_the_same_hash_whatever_its_name(tmp_path: Path) -> None:
    waveform = chirp(16_000, n_channels=2)
    path = tmp_path / "a.wav"
    path.write_bytes(encode_wav(waveform, 16_000, "FLOAT"))
    with path.open("rb") as file:
        file.read(10)  # an upload that somebody has looked into is still read from its beginning
        clips = [
            open_clip(path),
            open_clip(str(path), name="b"),
            open_clip(path.read_bytes()),
            open_clip(file),
            Clip.from_array(waveform, 16_000),
        ]
    assert len({clip.content_hash for clip in clips}) == 1
    assert [clip.name for clip in clips] == ["a.wav", "b", "clip", "a.wav", "clip"]
    others = [Clip.from_array(waveform, 16_001), Clip.from_array(waveform[:, 1:], 16_000), clips[0].excerpt(0, 0.5)]
    others.append(Clip.from_array(waveform.reshape(1, -1), 16_000))
    assert len({clip.content_hash for clip in [clips[0], *others]}) == 5


def test_mono_is_the_mean_and_a_copy() -> None:
    waveform = chirp(8000, n_channels=3)
    clip = Clip.from_array(waveform, 8000)
    mono = clip.mono()
    assert mono.dtype == np.float32 and np.allclose(mono, waveform.mean(axis=0), atol=1e-7)
    mono[:] = 0
    waveform[:] = 0
    assert clip.mono().any()
    with pytest.raises(ValueError, match="read-only"):
        clip.waveform[0, 0] = 1


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44_100, 16_000), (8000, 32_000), (192_000, 1000), (16_000, 16_000)]
)
def test_resampling_keeps_time_and_pitch(from_rate: int, to_rate: int) -> None:
    def tone(rate: int) -> np.ndarray:
        t = np.arange(2 * rate) / rate
        return (0.5 * np.sin(2 * np.pi * 20 * t) * np.hanning(2 * rate)).astype(np.float32)

    clip = Clip.from_array(tone(from_rate), from_rate)
    resampled = clip.at(to_rate)
    assert resampled.dtype == np.float32 and resampled.shape == (2 * to_rate,)
    assert np.allclose(resampled, tone(to_rate), atol=1e-3)
    resampled[:] = 0
    assert clip.at(to_rate).any()


def test_resampling_never_gives_nothing_and_remembers_little() -> None:
    clip = Clip.from_array(np.ones(1), 192_000)
    for rate in (8000, 16_000, 22_050, 32_000, 44_100):
        assert clip.at(rate).shape == (1,)
    assert len(clip._resampled) == 3
    for rate in (0, -1, 10**9):
        with pytest.raises(MediaError, match="resampled"):
            clip.at(rate)


def test_excerpt() -> None:
    clip = Clip.from_array(chirp(8000, n_channels=2), 8000, "a")
    part = clip.excerpt(0.5, 1.0)
    assert np.array_equal(part.waveform, clip.waveform[:, 4000:8000]) and part.waveform.base is None
    assert part.name == "a" and part.notes == ("An excerpt from 0.50 s to 1.00 s of a clip of 1.50 s.",)
    assert clip.excerpt(-3, 99).n_samples == clip.n_samples
    for start, end in ((1.0, 0.5), (0.5, 0.5), (9, 10), (0, float("nan"))):
        with pytest.raises(MediaError):
            clip.excerpt(start, end)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.float16, np.float64])
def test_from_array_scales_integers(dtype: Any) -> None:
    if np.issubdtype(dtype, np.floating):
        samples = np.array([-1.0, 0.0, 0.5], dtype)
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        samples = np.array([low, (low + high + 1) // 2, low + 3 * ((high - low + 1) // 4)], dtype)
    assert Clip.from_array(samples, 8000).waveform.tolist() == [[-1.0, 0.0, 0.5]]


@pytest.mark.parametrize(
    ("waveform", "sample_rate", "sentence"),
    [
        (np.zeros((2, 3, 4)), 8000, "3 dimensions"),
        (np.float32(1), 8000, "0 dimensions"),
        (np.zeros(0), 8000, "empty"),
        (np.zeros((8000, 2)), 8000, "8000 channels"),
        (np.zeros(5, complex), 8000, "real numbers"),
        (np.zeros(5, bool), 8000, "real numbers"),
        (["a"], 8000, "real numbers"),
        (np.zeros(5), 8000.5, "whole number"),
        (np.zeros(5), "x", "whole number"),
        (np.zeros(5), float("nan"), "whole number"),
        (np.zeros(5), 0, "must be between"),
        (np.zeros(5), -8000, "must be between"),
    ],
)
def test_from_array_refuses(waveform: Any, sample_rate: Any, sentence: str) -> None:
    with pytest.raises(MediaError, match=sentence):
        Clip.from_array(waveform, sample_rate)


def test_from_array_notes_and_leaves_its_argument_alone() -> None:
    samples = np.array([np.nan, 0.5, np.inf] * 1000, np.float32)
    assert Clip.from_array(samples, 8000).notes == ("2000 samples that were not numbers were replaced by silence.",)
    assert np.isnan(samples[0])
    samples[:] = 1  # still writable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../et<b>c/é clip.wav", "é clip.wav"),
        (r"C:\Users\me\clip.wav", "clip.wav"),
        ("a\r\nb\x00c\x1b[31m.wav", "abc[31m.wav"),
        ("\u202egpj.exe\u200b.wav", "gpj.exe.wav"),
        ("x" * 500 + ".wav", "x" * 120),
        ("", "clip"),
        ("\n", "clip"),
        ("/", "clip"),
        ("folder/", "folder"),
    ],
)
def test_names_are_for_show_only(name: str, shown: str) -> None:
    assert clean_name(name) == shown
    assert open_clip(encode_wav(chirp(8000), 8000), name=name).name == shown


@pytest.mark.parametrize("n_channels", [1, 2, 8])
def test_wav_and_flac_come_back(n_channels: int) -> None:
    waveform = chirp(22_050, n_channels=n_channels)
    for data, step in (
        (encode_wav(waveform, 22_050, "FLOAT"), 0),
        (encode_wav(waveform, 22_050, "PCM_16"), 2**-16),
        (encode_flac(waveform, 22_050, "PCM_16"), 2**-16),
        (encode_flac(waveform, 22_050, "PCM_24"), 2**-24),
    ):
        for decoded, rate in (soundfile.read(io.BytesIO(data), always_2d=True), _with_ffmpeg(data)):
            assert rate == 22_050 and decoded.shape == waveform.T.shape
            assert np.abs(decoded - waveform.T).max() <= step


def _with_ffmpeg(data: bytes) -> tuple[np.ndarray, int]:
    """The same file through the other decoder, which checks the header that is written by hand."""
    sound = models.decoding.read_with_pyav(MediaSource(data), MediaLimits())
    assert sound is not None
    return sound.waveform.T, sound.sample_rate


def test_encoding_never_normalises_and_clips_integers_only() -> None:
    loud = np.array([[2.0, -3.0, 0.001, -0.001]], np.float32)
    assert np.array_equal(open_clip(encode_wav(loud, 8000, "FLOAT")).waveform, loud)
    for data in (encode_wav(loud, 8000), encode_flac(loud, 8000)):
        clipped = open_clip(data).waveform
        assert np.allclose(clipped, [[1.0, -1.0, 0.001, -0.001]], atol=2**-15)
    assert not open_clip(encode_wav(np.zeros((1, 8000)), 8000)).waveform.any()


def test_encoding_is_reproducible_and_takes_odd_sizes() -> None:
    waveform = chirp(8000)[:, :1001]
    assert encode_wav(waveform, 8000, "FLOAT") == encode_wav(waveform, 8000, "FLOAT")
    assert np.array_equal(open_clip(encode_wav(waveform[0], 8000, "FLOAT")).waveform, waveform)
    wav = encode_wav(waveform, 8000)
    assert struct.unpack("<I", wav[4:8])[0] == len(wav) - 8


@pytest.mark.parametrize("encode", [encode_wav, encode_flac])
def test_encoding_refuses(encode: Callable[..., bytes]) -> None:
    for waveform in (np.zeros((1, 0)), np.zeros((1, 2, 3)), np.array([[np.nan]]), np.array([[np.inf]])):
        with pytest.raises(MediaError):
            encode(waveform, 8000)
    with pytest.raises(MediaError, match="PCM_8"):
        encode(np.zeros((1, 5)), 8000, "PCM_8")
