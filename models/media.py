"""Media files that nobody has checked: what they may be at most, and how they are opened.

Files come from strangers: no name is used as a path, no header is believed before memory is taken, and no file can
make the decoder open another file or a network address.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.container
import av.error
from pydantic import BaseModel, ConfigDict, Field

from models.errors import MediaError

# Self-contained formats only: playlists (HLS, concat, DASH) would make the decoder open other files and addresses.
_CONTAINER_FORMATS = "mov,mp4,m4a,3gp,matroska,webm,mp3,aac,ogg,flac,wav,w64,aiff,caf,avi"
DECODER_ERRORS = (av.error.FFmpegError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, OSError)

# A tag that is not UTF-8 is no reason to refuse a file; from PyAV 19 on (Python 3.12 and later) it is not, without being asked.
_TAGS: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}

UNREADABLE = "This file is not a sound or a video that can be read: it is damaged, incomplete or of another kind."
FORMAT_ADVICE = "Choose a WAV, FLAC, OGG, MP3, M4A, MP4, MOV or WebM file, or save it again in one of these formats."
_TRIM_ADVICE = "Cut out the part that matters with a sound editor and open that, or raise the setting `{setting}`."


class MediaLimits(BaseModel):
    """What a clip may be at most; a file that exceeds a limit is refused with a `MediaError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_seconds: float = Field(default=3600.0, gt=0, description="Longest clip, in seconds.")
    max_bytes: int = Field(default=300 * 2**20, gt=0, description="Largest file, in bytes.")
    max_decoded_bytes: int = Field(default=2 * 2**30, gt=0, description="Largest decoded waveform (float32), in bytes.")
    max_pixels: int = Field(default=3840 * 2160, gt=0, description="Largest video frame, in pixels.")
    max_frame_bytes: int = Field(
        default=2**30, gt=0, description="Most memory for the frames asked for at once, in bytes."
    )
    max_channels: int = Field(default=8, gt=0, description="Most sound channels.")
    min_sample_rate: int = Field(default=100, gt=0, description="Lowest sample rate, in Hz.")
    max_sample_rate: int = Field(default=192_000, gt=0, description="Highest sample rate, in Hz.")

    def check_sound(self, n_channels: int, sample_rate: float) -> None:
        """Refuse a number of channels or a sample rate (Hz) outside the limits with a `MediaError`."""
        if n_channels < 1:
            raise MediaError("The file has no sound channel.", "Choose a file with sound.")
        if n_channels > self.max_channels:
            raise MediaError(
                f"The clip has {n_channels} channels; the limit is {self.max_channels}.",
                "Mix it down to stereo or mono first, or raise the setting `max_channels`.",
            )
        if not self.min_sample_rate <= sample_rate <= self.max_sample_rate:
            raise MediaError(
                f"The clip has a sample rate of {sample_rate:g} Hz; it must be between {self.min_sample_rate} Hz and "
                f"{self.max_sample_rate} Hz.",
                "Convert it to a usual sample rate such as 44100 Hz.",
            )

    def check_seconds(self, seconds: float) -> None:
        """Refuse a duration beyond the limit with a `MediaError`."""
        if seconds > self.max_seconds:
            raise MediaError(
                f"The clip is longer than the limit of {spoken_duration(self.max_seconds)}.",
                _TRIM_ADVICE.format(setting="max_seconds"),
            )

    def check_length(self, n_samples: int, n_channels: int, sample_rate: int) -> None:
        """Refuse more samples per channel than the limits on duration and memory allow with a `MediaError`."""
        self.check_seconds(n_samples / sample_rate)
        if 4 * n_samples * n_channels > self.max_decoded_bytes:
            raise MediaError(
                f"Opened, the clip needs more memory than the limit of {spoken_size(self.max_decoded_bytes)}.",
                _TRIM_ADVICE.format(setting="max_decoded_bytes"),
            )

    def check_frame(self, width: int, height: int) -> None:
        """Refuse a video frame with too many pixels with a `MediaError`."""
        if width * height > self.max_pixels:
            raise MediaError(
                f"The video has frames of {width} x {height} pixels; the limit is {self.max_pixels} pixels.",
                "Save it with a smaller picture, or raise the setting `max_pixels`.",
            )


def spoken_duration(seconds: float) -> str:
    """Seconds as a person says them: '3.2 s', '60 minutes'."""
    if seconds >= 120:
        return f"{seconds / 60:.3g} minutes"
    return f"{seconds:.3g} s" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"


def spoken_size(n_bytes: int) -> str:
    """Bytes as a person says them: '300 MB'."""
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} bytes"


@dataclass(frozen=True)
class MediaSource:
    """The encoded file: its bytes, or the path where they lie. `open` gives a fresh reader each time."""

    content: bytes | Path

    @classmethod
    def of(cls, source: str | Path | bytes | BinaryIO, limits: MediaLimits) -> MediaSource:
        """Take hold of a file and check its size; a `MediaError` says why it cannot be read."""
        if isinstance(source, (str, Path)):
            return cls(_checked_path(Path(source), limits))
        if isinstance(source, (bytes, bytearray, memoryview)):
            content = bytes(source)
        else:
            if source.seekable():
                source.seek(0)
            content = source.read(limits.max_bytes + 1)
        _check_size(len(content), limits)
        return cls(content)

    def open(self) -> BinaryIO:
        """Give a reader at the start of the file; a `MediaError` if the file has gone since."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        try:
            # By descriptor: the decoders must not see a file name, whose ending they would take for the format.
            return os.fdopen(os.open(self.content, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")
        except OSError as error:
            raise MediaError("The file can no longer be read.", "Open it again.") from error

    def sha256(self) -> str:
        """Hash the encoded bytes (hexadecimal)."""
        digest = hashlib.sha256()
        with self.open() as file:
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()


def _checked_path(path: Path, limits: MediaLimits) -> Path:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise MediaError("There is no file at this path.", "Check the path for typing errors.") from error
    except (OSError, ValueError) as error:
        raise MediaError("The file at this path cannot be read.", "Check the path and its permissions.") from error
    if path.is_dir():
        raise MediaError("This path is a folder, not a sound or video file.", "Choose a file in the folder.")
    if not path.is_file():
        raise MediaError("This path is not an ordinary file.", "Choose a sound or video file.")
    if not os.access(path, os.R_OK):
        raise MediaError("The file at this path may not be read.", "Check the permissions of the file.")
    _check_size(status.st_size, limits)
    return path


def _check_size(n_bytes: int, limits: MediaLimits) -> None:
    if n_bytes == 0:
        raise MediaError("The file is empty.", "Choose another file, or copy or download this one again.")
    if n_bytes > limits.max_bytes:
        raise MediaError(
            f"The file is larger than the limit of {spoken_size(limits.max_bytes)}.",
            _TRIM_ADVICE.format(setting="max_bytes"),
        )


@contextmanager
def open_container(source: MediaSource, limits: MediaLimits) -> Iterator[av.container.InputContainer]:
    """Open a file with FFmpeg, restricted to self-contained formats and to the limits, also while it is probed."""
    options = {
        "format_whitelist": _CONTAINER_FORMATS,
        "protocol_whitelist": "none",
        "max_streams": "64",
        "max_pixels": str(limits.max_pixels),
        "threads": "1",
    }
    with source.open() as file:
        try:
            container: av.container.InputContainer = av.open(file, mode="r", options=options, **_TAGS)
        except DECODER_ERRORS as error:
            raise MediaError(UNREADABLE, FORMAT_ADVICE) from error
        with container:
            yield container
