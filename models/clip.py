"""The clip: decoded sound, with its video if it has one, and the way back into a sound file."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import unicodedata
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from models.decoding import DecodedSound, read_sound, to_float32
from models.errors import MediaError
from models.media import MediaLimits, MediaSource, spoken_duration
from models.video import UnreadableVideoError, VideoTrack

__all__ = ["Clip", "MediaLimits", "VideoTrack", "encode_flac", "encode_wav", "open_clip"]

_MAX_NAME = 120
_VERY_SHORT = 0.1  # seconds
_CACHED_RATES = 3
_SILENT_RATE = 16_000  # Hz, of the silence that stands in for the sound of a video without sound


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded media: what every model, explanation and page starts from.

    Attributes
    ----------
    waveform
        float32 `[channels, samples]`, C-contiguous and read-only, in the file's own rate and channels. Full scale
        is 1; values beyond it are kept.
    sample_rate
        Hz.
    name
        What to call the clip. Text from outside: escape it where it is shown, never use it as a path.
    content_hash
        sha256 of the decoded content (rate, samples, and the source file if there is video); the name has no part
        in it.
    video
        The picture track, or None.
    notes
        Sentences for the user about what was odd in the file or was mended.
    """

    waveform: np.ndarray
    sample_rate: int
    name: str
    content_hash: str
    video: VideoTrack | None = None
    notes: tuple[str, ...] = ()
    _resampled: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.waveform.shape[0])

    @property
    def n_samples(self) -> int:
        """Samples per channel."""
        return int(self.waveform.shape[1])

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.n_samples / self.sample_rate

    def mono(self) -> np.ndarray:
        """Mix the channels to their mean, float32 `[samples]`; the caller's own copy."""
        mean: np.ndarray = self.waveform.mean(axis=0, dtype=np.float32)
        return mean

    def at(self, sample_rate: int) -> np.ndarray:
        """Give the mono sound at another sample rate (Hz), float32 `[samples]`; the caller's own copy.

        Resampled with soxr's high quality, whose delay is compensated; the last few rates are remembered.
        """
        resampled = self._resampled.get(sample_rate)
        if resampled is None:
            resampled = _resample(self.mono(), self.sample_rate, sample_rate)
            while len(self._resampled) >= _CACHED_RATES:
                self._resampled.pop(next(iter(self._resampled)), None)
            self._resampled[sample_rate] = resampled
        return resampled.copy()

    def excerpt(self, start: float, end: float) -> Clip:
        """Cut out the part between two times in seconds; times outside the clip are moved to its ends.

        Raises
        ------
        MediaError
            If nothing lies between the two times.
        """
        if not (np.isfinite(start) and np.isfinite(end)):
            raise MediaError("The beginning and the end of an excerpt must be numbers.")
        first, last = (int(np.clip(round(t * self.sample_rate), 0, self.n_samples)) for t in (start, end))
        if last <= first:
            raise MediaError(
                f"There is no sound between {start:.3g} s and {end:.3g} s: the clip lasts {self.duration:.3g} s.",
                "Choose a beginning before the end, both within the clip.",
            )
        start, end = first / self.sample_rate, last / self.sample_rate
        return _build(
            self.waveform[:, first:last].copy(),
            self.sample_rate,
            self.name,
            self.video.excerpt(start, end) if self.video else None,
            [f"An excerpt from {start:.2f} s to {end:.2f} s of a clip of {self.duration:.2f} s."],
        )

    @classmethod
    def from_array(cls, waveform: Any, sample_rate: int, name: str = "clip") -> Clip:
        """Make a clip of samples.

        Parameters
        ----------
        waveform
            `[samples]` or `[channels, samples]`: floats with full scale 1, or integers, which are scaled to that.
        sample_rate
            Hz.

        Raises
        ------
        MediaError
            If the array has another shape, is empty, holds no real numbers, or the rate or the number of channels
            is outside the default limits.
        """
        samples = np.asarray(waveform)
        if not (
            np.issubdtype(samples.dtype, np.floating)
            or np.issubdtype(samples.dtype, np.signedinteger)
            or samples.dtype == np.uint8
        ):
            raise MediaError(f"A waveform must hold real numbers, not {samples.dtype}.", "Give floats or integers.")
        if samples.ndim not in (1, 2):
            raise MediaError(
                f"A waveform must be [samples] or [channels, samples], but has {samples.ndim} dimensions.",
                "Leave out the batch dimension.",
            )
        samples = np.atleast_2d(samples)
        if samples.size == 0:
            raise MediaError("The waveform is empty.", "Give at least one sample.")
        limits = MediaLimits()
        if samples.shape[0] > limits.max_channels:
            raise MediaError(
                f"A waveform of shape {samples.shape} would have {samples.shape[0]} channels; the limit is "
                f"{limits.max_channels}.",
                "The shape must be [channels, samples]: transpose the array if it is [samples, channels].",
            )
        if not isinstance(sample_rate, Real) or not float(sample_rate).is_integer():
            raise MediaError(f"The sample rate must be a whole number of Hz, not {sample_rate!r}.")
        limits.check_sound(samples.shape[0], int(sample_rate))
        limits.check_length(samples.shape[1], samples.shape[0], int(sample_rate))
        return _build(np.array(to_float32(samples), order="C"), int(sample_rate), name, None, [])


def open_clip(
    source: str | Path | bytes | BinaryIO,
    *,
    name: str | None = None,
    limits: MediaLimits | None = None,
    require_audio: bool = True,
) -> Clip:
    """Open a sound or video file.

    Parameters
    ----------
    source
        A path, the bytes of a file, or an open binary file (read from its beginning).
    name
        What to call the clip; by default the file's own name. Never used as a path.
    limits
        What a clip may be at most; default `MediaLimits()`.
    require_audio
        False to accept a video without sound, which gets silence at 16 kHz.

    Raises
    ------
    MediaError
        If the file cannot be read, holds no sound, or exceeds a limit.
    """
    limits = limits or MediaLimits()
    media = MediaSource.of(source, limits)
    if name is None:
        own_name = source if isinstance(source, (str, Path)) else getattr(source, "name", None)
        name = str(own_name) if isinstance(own_name, (str, Path)) else ""
    sound, is_container = read_sound(media, limits)
    video = None
    if is_container:
        try:
            video = VideoTrack.of(media, limits, sound.start if sound is not None else None)
        except UnreadableVideoError:
            if sound is None:
                raise
            sound.notes.append("The picture of the video cannot be read; only its sound is used.")
    if sound is None:
        sound = _silence_for(video, limits, require_audio)
    return _build(sound.waveform, sound.sample_rate, name, video, sound.notes)


def _silence_for(video: VideoTrack | None, limits: MediaLimits, require_audio: bool) -> DecodedSound:
    if video is None:
        raise MediaError("The file holds neither sound nor moving pictures.", "Choose a sound or video file.")
    if require_audio:
        raise MediaError("The video has no sound.", "Choose a video with a sound track.")
    n_samples = max(1, round(video.duration * _SILENT_RATE))
    limits.check_length(n_samples, 1, _SILENT_RATE)
    note = "The video has no sound; silence stands in for it."
    return DecodedSound(np.zeros((1, n_samples), dtype=np.float32), _SILENT_RATE, [note])


def _build(waveform: np.ndarray, sample_rate: int, name: str, video: VideoTrack | None, notes: list[str]) -> Clip:
    """Mend the samples, note what is odd about them, and seal them with their hash."""
    notes = [*notes, *_mend(waveform), *_describe(waveform, sample_rate)]
    waveform.flags.writeable = False
    digest = hashlib.sha256(f"{sample_rate} Hz, {waveform.shape[0]} channels\n".encode())
    digest.update(waveform.data)
    if video is not None:
        digest.update(f"{video.source_hash} from {video.start:.6f} s".encode())
    return Clip(waveform, sample_rate, clean_name(name), digest.hexdigest(), video, tuple(notes))


def _mend(waveform: np.ndarray) -> list[str]:
    """Replace by silence, in place, what is not a finite number."""
    n_mended = 0
    for channel in waveform:  # one channel at a time bounds the memory of the comparison
        odd = ~np.isfinite(channel)
        n_mended += int(odd.sum())
        channel[odd] = 0.0
    if not n_mended:
        return []
    what = "1 sample that was not a number was" if n_mended == 1 else f"{n_mended} samples that were not numbers were"
    return [f"{what} replaced by silence."]


def _describe(waveform: np.ndarray, sample_rate: int) -> list[str]:
    notes = []
    peak = max(float(waveform.max()), -float(waveform.min()))
    if peak == 0.0:
        notes.append("The file is silent.")
    elif peak > 16.0:
        notes.append(f"The loudest sample is {peak:.3g} times full scale; the file may have been scaled wrongly.")
    if waveform.shape[1] < _VERY_SHORT * sample_rate:
        n_samples = waveform.shape[1]
        notes.append(
            f"The clip is very short ({n_samples} {'sample' if n_samples == 1 else 'samples'}, "
            f"{spoken_duration(n_samples / sample_rate)}); a model hears silence after it."
        )
    return notes


def clean_name(name: str) -> str:
    """Make a name to show: the last part of a path without control or direction characters, at most 120 long.

    It is still text from outside and must be escaped where it is shown.
    """
    base = re.split(r"[\\/]", name.rstrip("\\/"))[-1]
    visible = "".join(c for c in base if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp"))
    return visible.strip()[:_MAX_NAME] or "clip"


def _resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """float32 `[samples]` at another rate, its length rounded to the nearest sample and never 0."""
    if not 0 < to_rate <= MediaLimits().max_sample_rate:
        raise MediaError(f"A sound cannot be resampled to {to_rate} Hz.")
    if from_rate == to_rate:
        return samples
    n_samples = max(1, round(len(samples) * to_rate / from_rate))
    resampled = soxr.resample(samples, from_rate, to_rate, quality="HQ")[:n_samples]
    return np.pad(resampled, (0, n_samples - len(resampled))).astype(np.float32, copy=False)


def _checked_for_encoding(waveform: np.ndarray) -> np.ndarray:
    samples = np.atleast_2d(np.asarray(waveform, dtype=np.float32))
    if samples.ndim != 2 or samples.size == 0:
        raise MediaError(f"Only [channels, samples] with at least one sample can be encoded, not {samples.shape}.")
    if not np.isfinite(samples).all():
        raise MediaError("The sound holds values that are not numbers and cannot be encoded.")
    return samples


def _to_integers(samples: np.ndarray, bits: int) -> np.ndarray:
    """Float samples as integers of so many bits, clipped at full scale; the inverse of decoding such integers."""
    full_scale = 2 ** (bits - 1)
    return np.clip(np.rint(samples * np.float32(full_scale)), -full_scale, full_scale - 1).astype(np.int32)


def encode_wav(waveform: np.ndarray, sample_rate: int, subtype: Literal["PCM_16", "FLOAT"] = "PCM_16") -> bytes:
    """Write a WAV file of float32 `[channels, samples]`: never normalised, clipped to full scale as PCM_16 only.

    The same samples give the same bytes (libsndfile would write the time of day into FLOAT files).

    Raises
    ------
    MediaError
        If there are no samples, some are not numbers, or the file would exceed 4 GB.
    """
    samples = _checked_for_encoding(waveform)
    if subtype == "PCM_16":
        tag, bits, data = 1, 16, _to_integers(samples, 16).astype("<i2").T.tobytes()
    elif subtype == "FLOAT":
        tag, bits, data = 3, 32, samples.astype("<f4", copy=False).T.tobytes()
    else:
        raise MediaError(f"WAV files are written as PCM_16 or FLOAT, not as {subtype!r}.")
    n_channels, n_samples = samples.shape
    if len(data) > 2**32 - 1024:
        raise MediaError("The sound is too long for a WAV file (4 GB).", "Save a shorter part, or save it as FLAC.")
    frame_size = n_channels * bits // 8
    form = struct.pack("<HHIIHHH", tag, n_channels, sample_rate, sample_rate * frame_size, frame_size, bits, 0)
    head = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, n_samples)
    body = head + b"data" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encode_flac(waveform: np.ndarray, sample_rate: int, subtype: Literal["PCM_16", "PCM_24"] = "PCM_16") -> bytes:
    """Write a FLAC file of float32 `[channels, samples]` (1 to 8 channels): never normalised, clipped to full scale.

    Raises
    ------
    MediaError
        If there are no samples, some are not numbers, or there are more than 8 channels.
    """
    samples = _checked_for_encoding(waveform)
    if subtype not in ("PCM_16", "PCM_24"):
        raise MediaError(f"FLAC files are written as PCM_16 or PCM_24, not as {subtype!r}.")
    if samples.shape[0] > 8:
        raise MediaError(f"A FLAC file holds at most 8 channels, not {samples.shape[0]}.")
    bits = 16 if subtype == "PCM_16" else 24
    integers = _to_integers(samples, bits) << (32 - bits)
    file = io.BytesIO()
    soundfile.write(file, integers.T, sample_rate, format="FLAC", subtype=subtype)
    return file.getvalue()
