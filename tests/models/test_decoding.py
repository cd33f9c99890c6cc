"""Media files: every format comes back, every bad file gets a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models.clip import encode_flac, encode_wav, open_clip
from models.errors import MediaError
from tests.models.media_files import chirp, flac_claiming, grey, half, noise, with_bytes, with_pyav, with_soundfile

# Each row: how the file is made, rate, channels, lowest correlation, how many samples the codec may add at the end.
FORMATS: dict[str, tuple[Callable[[np.ndarray, int], bytes], int, int, float, int]] = {
    "wav u8": (lambda x, r: with_soundfile(x, r, "WAV", "PCM_U8"), 8_000, 1, 0.999, 0),
    "wav 16": (lambda x, r: with_soundfile(x, r, "WAV", "PCM_16"), 44_100, 2, 0.99999, 0),
    "wav 24": (lambda x, r: with_soundfile(x, r, "WAV", "PCM_24"), 96_000, 1, 0.99999, 0),
    "wav 32": (lambda x, r: with_soundfile(x, r, "WAV", "PCM_32"), 16_000, 3, 0.99999, 0),
    "wav float": (lambda x, r: with_soundfile(x, r, "WAV", "FLOAT"), 192_000, 1, 0.99999, 0),
    "wav double": (lambda x, r: with_soundfile(x, r, "WAV", "DOUBLE"), 11_025, 8, 0.99999, 0),
    "wav u-law": (lambda x, r: with_soundfile(x, r, "WAV", "ULAW"), 8_000, 1, 0.999, 0),
    "aiff": (lambda x, r: with_soundfile(x, r, "AIFF", "PCM_16"), 22_050, 2, 0.99999, 0),
    "flac": (lambda x, r: with_soundfile(x, r, "FLAC", "PCM_16"), 44_100, 8, 0.99999, 0),
    "ogg vorbis": (lambda x, r: with_soundfile(x, r, "OGG", "VORBIS"), 32_000, 2, 0.999, 0),
    "ogg opus": (lambda x, r: with_pyav("ogg", "libopus", x, r), 48_000, 2, 0.999, 0),
    "mp3 variable": (lambda x, r: with_soundfile(x, r, "MP3", "MPEG_LAYER_III"), 44_100, 1, 0.999, 0),
    "mp3 constant": (lambda x, r: with_pyav("mp3", "libmp3lame", x, r), 44_100, 2, 0.999, 0),
    "mp3 no length": (
        lambda x, r: with_pyav("mp3", "libmp3lame", x, r, options={"write_xing": "0"}),
        44_100,
        1,
        0,
        4608,
    ),
    "m4a": (lambda x, r: with_pyav("ipod", "aac", x, r), 44_100, 2, 0.999, 0),
    "mp4 5.1": (lambda x, r: with_pyav("mp4", "aac", x, r), 48_000, 6, 0.999, 0),
    "mov pcm": (lambda x, r: with_pyav("mov", "pcm_s16le", x, r), 44_100, 2, 0.9999, 0),
    "webm": (lambda x, r: with_pyav("webm", "libopus", x, r), 48_000, 1, 0.999, 960),
    "webm 7.1": (lambda x, r: with_pyav("webm", "libopus", x, r), 48_000, 8, 0.999, 960),
    # Raw AAC does not say how many samples its encoder put in front (1024 here), so it cannot be aligned.
    "aac raw": (lambda x, r: with_pyav("adts", "aac", x, r), 44_100, 1, 0, 3072),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_back(kind: str) -> None:
    make, sample_rate, n_channels, correlation, padding = FORMATS[kind]
    original = chirp(sample_rate, n_channels=n_channels)
    clip = open_clip(make(original, sample_rate), name=f"chirp of {kind}")
    assert (clip.sample_rate, clip.n_channels) == (sample_rate, n_channels)
    assert clip.waveform.dtype == np.float32 and clip.waveform.flags.c_contiguous
    assert 0 <= clip.n_samples - original.shape[1] <= padding
    assert clip.duration == clip.n_samples / sample_rate
    assert clip.notes == () and clip.video is None
    for index, (decoded, channel) in enumerate(zip(clip.waveform, original, strict=True)):
        if kind == "mp4 5.1" and index == 3:
            continue  # AAC keeps only the lowest tones of the bass channel
        part = decoded[: len(channel)]
        assert np.abs(part).max() == pytest.approx(np.abs(channel).max(), rel=0.15)
        assert np.corrcoef(part, channel)[0, 1] > correlation or correlation == 0


def test_file_endings_do_not_matter(tmp_path: Path) -> None:
    for ending in (".raw", ".mp4", ".m3u8", ""):
        path = tmp_path / f"sound{ending}"
        path.write_bytes(encode_wav(chirp(8000), 8000))
        assert open_clip(path).sample_rate == 8000


def _wav_with_nan() -> bytes:
    samples = chirp(8000)
    samples[0, [5, 6, 7]] = np.nan, np.inf, -np.inf
    return with_soundfile(samples, 8000, "WAV", "FLOAT")


def _png() -> bytes:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "rgb24", Fraction(1, 25)
    return b"".join(bytes(packet) for packet in encoder.encode(av.VideoFrame.from_ndarray(grey(9), format="rgb24")))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "The file is empty"),
    "one byte": (lambda: b"R", "not a sound or a video"),
    "text": (lambda: b"These are words, not sounds.\n" * 300, "not a sound or a video"),
    "web page": (lambda: b"<!doctype html><title>404</title>", "not a sound or a video"),
    "zeros": (lambda: bytes(50_000), "not a sound or a video"),
    "random": (lambda: np.random.default_rng(1).bytes(50_000), "not a sound or a video"),
    "mp3 headers only": (lambda: b"\xff\xfb\x90\x00" * 5000, "not a sound or a video"),
    "wav header only": (lambda: with_soundfile(np.zeros((1, 0)), 8000, "WAV", "PCM_16"), "contains no sound"),
    "half an mp4": (lambda: half(with_pyav("mp4", "aac", chirp(48_000))), "damaged, incomplete"),
    "start of an mp3": (lambda: with_pyav("mp3", "libmp3lame", chirp(48_000))[:300], "damaged, incomplete"),
    "picture": (lambda: _png(), "not a sound or a video"),
    "nine channels": (lambda: encode_wav(np.zeros((9, 100)), 8000), "9 channels; the limit is 8"),
    "thousands of channels": (
        lambda: with_bytes(encode_wav(np.zeros((1, 9000)), 8000), 22, b"\xff\xff"),
        "65535 channels; the limit is 8|not a sound or a video",
    ),
    "rate too high": (lambda: encode_wav(chirp(8000), 384_000), "384000 Hz; it must be between 100 Hz and 192000 Hz"),
    "rate too low": (lambda: encode_wav(chirp(8000), 1), "sample rate of 1 Hz"),
    "video without sound": (lambda: with_pyav("mp4", None, pictures=[grey(0)] * 5), "The video has no sound"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bad_files_are_refused_with_a_sentence(kind: str) -> None:
    make, sentence = REFUSED[kind]
    with pytest.raises(MediaError, match=sentence) as error:
        open_clip(make(), name="sound.wav")
    assert error.value.message.endswith(".") and error.value.advice.endswith(".")


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{name}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {name}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{name}</BaseURL></MPD>',
    "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("folder", ["", "absolute"])
def test_a_file_cannot_open_another_file(
    kind: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.mp3"
    secret.write_bytes(with_pyav("mp3", "libmp3lame", chirp(48_000)))
    text = PLAYLISTS[kind].format(name=secret if folder else secret.name).encode()
    playlist = tmp_path / "playlist.m3u8"
    playlist.write_bytes(text)
    for source in (text, playlist):
        with pytest.raises(MediaError, match="not a sound or a video"):
            open_clip(source)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("missing.wav", "no file at this path"),
        ("https://example.org/a.mp3", "no file at this path"),
        ("a\0b.wav", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        (".", "folder"),
    ],
)
def test_bad_paths(source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (source, Path(source)):
        with pytest.raises(MediaError, match=sentence):
            open_clip(path)


NOTED: dict[str, tuple[Callable[[], bytes], str, float, float]] = {  # the note, and how many seconds must be there
    "nan": (_wav_with_nan, "^3 samples that were not numbers were replaced by silence.$", 1.5, 1.5),
    "too large for float32": (
        lambda: with_soundfile(np.array([[1e300] + [0.1] * 8000]), 8000, "WAV", "DOUBLE"),
        "^1 sample that was not a number was replaced by silence.$", 1.0, 1.01,
    ),
    "silence": (lambda: encode_wav(np.zeros((2, 8000)), 8000), "^The file is silent.$", 1.0, 1.0),
    "one sample": (lambda: encode_wav(np.full((1, 1), 0.5), 8000), r"very short \(1 sample, 0.12 ms\)", 0.0, 0.001),
    "scaled wrongly": (lambda: encode_wav(chirp(8000) * 32768, 8000, "FLOAT"), "times full scale", 1.5, 1.5),
    "cut mp3": (lambda: half(with_pyav("mp3", "libmp3lame", noise(48_000, 3))), "damaged or missing", 1.3, 1.6),
    "changing channels": (
        lambda: with_pyav("adts", "aac", chirp(44_100), 44_100) + with_pyav("adts", "aac", chirp(48_000, 1, 2)),
        "changes within the file; only the first 1.53 s", 1.5, 1.6,
    ),
    "cut wav": (lambda: half(encode_wav(noise(8000, 2), 8000)), "end of the file is damaged: 0.99", 0.98, 1.0),
    "cut aiff": (lambda: half(with_soundfile(noise(8000, 2), 8000, "AIFF", "PCM_16")), "end .* damaged", 0.98, 1.0),
    "cut flac": (lambda: half(encode_flac(noise(8000, 4), 8000)), "damaged or missing: 1", 1.0, 2.0),
    "cut ogg": (lambda: half(with_soundfile(noise(44_100, 9), 44_100, "OGG", "VORBIS")), "end .* damaged", 2.0, 4.5),
    "cut webm": (lambda: half(with_pyav("webm", "libopus", noise(48_000, 3))), "end of the file is damaged", 1.3, 1.6),
    "cut mp4": (
        lambda: half(with_pyav("mp4", "aac", noise(48_000, 3), options={"movflags": "faststart"})),
        "damaged or missing", 1.0, 1.6,
    ),
    "hole in flac": (lambda: with_bytes(encode_flac(noise(8000, 9), 8000), 70_000, bytes(9)), "missing: 8", 8.0, 8.9),
    "hole in mp3": (
        lambda: with_bytes(with_pyav("mp3", "libmp3lame", noise(48_000, 3)), 9000, bytes(999)), "missing: 2", 2.5, 3,
    ),
    "hole in aac": (
        lambda: with_bytes(with_pyav("adts", "aac", noise(48_000, 3)), 9000, bytes(999)), "missing: 2", 2.5, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOTED)
def test_what_can_be_mended_is_kept_with_a_note(kind: str) -> None:
    make, note, shortest, longest = NOTED[kind]
    clip = open_clip(make())
    assert len(clip.notes) == 1
    assert re.search(note, clip.notes[0]) and clip.notes[0].endswith(".")
    assert shortest <= clip.duration <= longest
    assert np.isfinite(clip.waveform).all()


def test_damage_does_not_falsify_what_came_before_it() -> None:
    original = noise(44_100, 3)
    clip = open_clip(half(with_soundfile(original, 44_100, "WAV", "PCM_16")))
    assert np.allclose(clip.waveform, original[:, : clip.n_samples], atol=1e-4)


def test_unknown_length_is_no_damage() -> None:
    wav = encode_wav(chirp(8000), 8000)
    at = wav.index(b"data") + 4
    assert open_clip(with_bytes(wav, at, b"\xff\xff\xff\xff")).notes == ()
    flac = with_soundfile(chirp(44_100), 44_100, "FLAC", "PCM_16")
    streamed = open_clip(flac_claiming(flac, 0))
    assert streamed.notes == () and np.array_equal(streamed.waveform, open_clip(flac).waveform)
