"""Decoding the sound of media files, with libsndfile where it can and with FFmpeg where it cannot.

Limits hold while a file is decoded: a small file that unfolds into hours is stopped as soon as it is too long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import av
import av.audio
import av.container
import numpy as np
import soundfile

from models.errors import MediaError
from models.media import (
    DECODER_ERRORS,
    FORMAT_ADVICE,
    UNREADABLE,
    MediaLimits,
    MediaSource,
    open_container,
    spoken_duration,
)

_SOUNDFILE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"})
# ADTS and bare MP3 have no duration of their own: what is reported for them is a guess from the bit rate.
_FORMATS_WITH_DURATION = frozenset({"mov", "matroska", "flac", "wav", "avi"})

_BLOCK = 8192  # samples; a damaged block is lost as a whole, so it must be short
_UNKNOWN_LENGTH = 2**62  # libsndfile reports a length beyond this where the header gives none


@dataclass
class DecodedSound:
    """A decoded sound track: float32 `[channels, samples]`, its rate in Hz, where it starts in the file's own time."""

    waveform: np.ndarray
    sample_rate: int
    notes: list[str]
    start: float = 0.0
    damaged: bool = False


class _SampleBuffer:
    """Collects decoded blocks and stops as soon as a limit is exceeded."""

    def __init__(self, n_channels: int, sample_rate: int, limits: MediaLimits) -> None:
        limits.check_sound(n_channels, sample_rate)
        self.n_channels, self.sample_rate, self.limits = n_channels, sample_rate, limits
        self.n_samples = 0
        self._blocks: list[np.ndarray] = []

    @property
    def seconds(self) -> float:
        return self.n_samples / self.sample_rate

    def append(self, block: np.ndarray) -> None:
        """Add float32 `[channels, samples]`."""
        self.reserve(block.shape[1])
        self.n_samples += block.shape[1]
        self._blocks.append(np.ascontiguousarray(block))

    def reserve(self, n_samples: int) -> None:
        """Raise a `MediaError` if so many further samples would exceed a limit."""
        self.limits.check_length(self.n_samples + n_samples, self.n_channels, self.sample_rate)

    def waveform(self) -> np.ndarray:
        """All samples in one array; empties the buffer while it copies, so that memory is not taken twice."""
        result = np.empty((self.n_channels, self.n_samples), dtype=np.float32)
        self._blocks.reverse()
        start = 0
        while self._blocks:
            block = self._blocks.pop()
            result[:, start : start + block.shape[1]] = block
            start += block.shape[1]
        return result


def read_sound(source: MediaSource, limits: MediaLimits) -> tuple[DecodedSound | None, bool]:
    """Decode the sound of a file.

    Returns
    -------
    sound
        None if the file has no sound track.
    is_container
        True if the file may also hold a video.

    Raises
    ------
    MediaError
        If the file cannot be read, its sound is empty, or it exceeds a limit.
    """
    sound = read_with_soundfile(source, limits)
    if sound is None:
        return read_with_pyav(source, limits), True
    if sound.damaged:
        # libsndfile may give up at a damaged block where FFmpeg goes on after it.
        try:
            other = read_with_pyav(source, limits)
        except MediaError:
            other = None
        if other is not None and other.waveform.shape[1] > sound.waveform.shape[1] + sound.sample_rate / 10:
            other.notes = [_damaged_parts(other.waveform.shape[1] / other.sample_rate)]
            return other, False
    return sound, False


def _damaged_end(seconds: float) -> str:
    return f"The end of the file is damaged: {spoken_duration(seconds)} could be read."


def _damaged_parts(seconds: float) -> str:
    return f"Part of the file is damaged or missing: {spoken_duration(seconds)} could be read."


class _ForwardReader(soundfile.SoundFile):
    """Reads from the beginning to the end only.

    soundfile seeks after each block it has read, which is inexact in MP3 with a variable bit rate (wrong samples, no
    error) and fails in FLAC streams of unknown length. It does not seek in what it takes to be unseekable.
    """

    def seekable(self) -> bool:
        return False


def read_with_soundfile(source: MediaSource, limits: MediaLimits) -> DecodedSound | None:
    """Decode a plain sound file with libsndfile; None if libsndfile cannot read it."""
    with source.open() as file:
        try:
            sound = _ForwardReader(file)
        except (soundfile.SoundFileError, *DECODER_ERRORS):
            return None
        with sound:
            if sound.format not in _SOUNDFILE_FORMATS:
                return None
            buffer = _SampleBuffer(sound.channels, sound.samplerate, limits)
            promised = sound.frames if sound.frames < _UNKNOWN_LENGTH else 0
            buffer.reserve(promised)
            cut, damaged = _data_is_cut(sound), False
            try:
                while (block := sound.read(_BLOCK, dtype="float32", always_2d=True)).shape[0]:
                    buffer.append(block.T)
            except MediaError:
                raise
            except (soundfile.SoundFileError, *DECODER_ERRORS):
                damaged = True
            # Where an MP3 file has no length of its own, libsndfile counts frames and is one or two too high.
            slack = 2 * 1152 if sound.format == "MP3" else 0
            damaged = damaged or buffer.n_samples < promised - slack
        if sound.format == "OGG":
            cut = _ogg_is_cut(file)
    if buffer.n_samples == 0:
        if damaged or cut:
            return None
        raise MediaError("The file contains no sound: it has 0 samples.", "Choose a file with sound.")
    notes = [_damaged_parts(buffer.seconds)] if damaged else [_damaged_end(buffer.seconds)] if cut else []
    return DecodedSound(buffer.waveform(), buffer.sample_rate, notes, damaged=damaged)


def _data_is_cut(sound: soundfile.SoundFile) -> bool:
    """Tell whether a WAV, AIFF or AU header promises more than there is (libsndfile silently takes what there is)."""
    match = re.search(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    # Programs that write to a pipe leave a size of 0 or near 2**31 or 2**32: an unknown length, not damage.
    return match is not None and int(match[2]) < int(match[1]) < 2**31 - 2**16


def _ogg_is_cut(file: BinaryIO) -> bool:
    """Tell whether the last page of an Ogg file is not marked as the end of its stream, or is itself cut off."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 2 * 2**16))  # a page has at most 65307 bytes
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) < 27 or not page[5] & 4 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def read_with_pyav(source: MediaSource, limits: MediaLimits) -> DecodedSound | None:
    """Decode the first sound track of a media file with FFmpeg; None if the file has no sound track."""
    with open_container(source, limits) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        notes = []
        if len(container.streams.audio) > 1:
            notes.append(f"The file has {len(container.streams.audio)} sound tracks; only the first one is used.")
        if stream.codec_context is None:
            raise MediaError("The sound of this file is encoded in a way that cannot be read here.", FORMAT_ADVICE)
        if stream.codec_context.channels:  # known before anything is decoded in all but odd files
            limits.check_sound(
                stream.codec_context.channels, stream.codec_context.sample_rate or limits.min_sample_rate
            )
        promised = _promised_seconds(container, stream)
        if promised is not None:
            limits.check_seconds(promised)
        return _decode_stream(container, stream, limits, promised, notes)


def _promised_seconds(container: av.container.InputContainer, stream: av.audio.AudioStream) -> float | None:
    if _FORMATS_WITH_DURATION.isdisjoint(container.format.name.split(",")):
        return None
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska, WebM
    if tag is not None:  # counted from the beginning of the file, not of the track
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start
    if container.duration is not None and not container.streams.video:
        return container.duration / 1e6 - start
    return None


def _decode_stream(
    container: av.container.InputContainer,
    stream: av.audio.AudioStream,
    limits: MediaLimits,
    promised: float | None,
    notes: list[str],
) -> DecodedSound:
    buffer: _SampleBuffer | None = None
    start = 0.0
    filled = longest = 0
    errors: list[str] = []
    form: tuple[object, ...] = ()
    # Floats of one plane, rate and channels unchanged: PyAV 18.1 reads beyond the planes of planar 8-channel frames.
    to_packed = av.AudioResampler(format="flt")
    for frame in _audio_frames(container, stream, errors):
        if buffer is None:
            buffer = _SampleBuffer(frame.layout.nb_channels, frame.sample_rate, limits)
            start = frame.time or 0.0
            form = _form(frame)
        if _form(frame) != form:
            notes.append(
                "The number of channels or the sample rate changes within the file; only the first "
                f"{spoken_duration(buffer.seconds)} are used."
            )
            promised = None
            break
        if container.streams.video and frame.time is not None:
            # Sound and picture must stay together: a hole in the sound becomes silence.
            gap = round((frame.time - start) * buffer.sample_rate) - buffer.n_samples
            if gap > 0.1 * buffer.sample_rate:
                buffer.reserve(gap)
                buffer.append(np.zeros((buffer.n_channels, gap), dtype=np.float32))
                filled += gap
        longest = max(longest, frame.samples)
        for packed in to_packed.resample(frame):
            buffer.append(packed.to_ndarray().reshape(-1, buffer.n_channels).T)
    if buffer is None or buffer.n_samples == 0:
        if errors:
            raise MediaError(UNREADABLE, FORMAT_ADVICE)
        raise MediaError("The file contains no sound: its sound track is empty.", "Choose a file with sound.")
    if filled:
        notes.append(f"{spoken_duration(filled / buffer.sample_rate)} of missing sound were filled with silence.")
    if errors:
        notes.append(_damaged_parts(buffer.seconds))
    elif promised is not None and buffer.seconds < promised - max(0.25, 0.01 * promised):
        notes.append(_damaged_end(buffer.seconds))
    waveform = buffer.waveform()
    if not errors and promised is not None and stream.duration is not None and stream.time_base is not None:
        # The last frame is filled up by the codec. Only from PyAV 19 on is what the file says of its length heeded, and a clip
        # shall be the same everywhere. Of formats that promise none (raw AAC), the duration is an estimate.
        end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        n_samples = round((end - start) * buffer.sample_rate)
        if 0 < waveform.shape[1] - n_samples < longest:
            waveform = np.ascontiguousarray(waveform[:, :n_samples])
    return DecodedSound(waveform, buffer.sample_rate, notes, start, damaged=bool(errors))


def _form(frame: av.audio.AudioFrame) -> tuple[object, ...]:
    return frame.layout.nb_channels, frame.layout.name, frame.sample_rate, frame.format.name


def _audio_frames(
    container: av.container.InputContainer, stream: av.audio.AudioStream, errors: list[str]
) -> Iterator[av.audio.AudioFrame]:
    """Decode frame after frame; damaged packets are skipped and listed in `errors`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except DECODER_ERRORS as error:
            errors.append(str(error))
            return
        try:
            frames = stream.decode(packet)
        except DECODER_ERRORS as error:
            errors.append(str(error))
            continue
        yield from (frame for frame in frames if frame.samples)


def to_float32(samples: np.ndarray) -> np.ndarray:
    """Any real sample format as float32; integers are scaled by their full scale, unsigned bytes are centred first."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.signedinteger):
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples / full_scale).astype(np.float32)
    with np.errstate(over="ignore"):  # what exceeds float32 becomes infinite, and is mended and noted by the caller
        return samples.astype(np.float32)
