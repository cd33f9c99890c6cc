"""The picture track of a clip, decoded only where it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import av
import av.container
import av.stream
import av.video
import numpy as np
from av.stream import Disposition

from models.errors import MediaError
from models.media import DECODER_ERRORS, MediaLimits, MediaSource, open_container

_NOT_MOVING = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_PHOTOGRAPHS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")  # names of their decoders
_SEEK_BEYOND = 4.0  # seconds; nearer frames are reached faster by decoding on than by seeking back to a keyframe


class UnreadableVideoError(MediaError):
    """The picture track of a file cannot be decoded."""

    def __init__(self) -> None:
        super().__init__("The picture of the video cannot be read.", "Save the video again in another format.")


@dataclass(frozen=True, eq=False)
class VideoTrack:
    """A video track whose frames are read when asked for.

    Attributes
    ----------
    width, height
        Size of the upright picture in pixels (rotation stored in the file is applied).
    frame_rate
        Average frames per second; 0 if the file does not say.
    duration
        Seconds from the clip's first sample to the end of the track.
    """

    width: int
    height: int
    frame_rate: float
    duration: float
    source: MediaSource
    source_hash: str
    limits: MediaLimits
    start: float = 0.0  # the file's own time at which the clip begins, in seconds

    @classmethod
    def of(cls, source: MediaSource, limits: MediaLimits, sound_start: float | None) -> VideoTrack | None:
        """Find the moving picture of a file; None if it has none (a still cover image is none).

        Parameters
        ----------
        sound_start
            The file's own time of the first sound sample in seconds; None if the file has no sound.

        Raises
        ------
        MediaError
            If the frames are larger than the limit, or cannot be decoded.
        """
        with open_container(source, limits) as container:
            stream = _moving_picture(container)
            if stream is None:
                return None
            context = stream.codec_context
            limits.check_frame(context.width, context.height)
            first = next(_decoded(container, stream, limits), None)
            if first is None:
                raise UnreadableVideoError
            first_time, frame = first
            width, height = (frame.width, frame.height)[:: -1 if frame.rotation % 180 else 1]
            rate = stream.average_rate or stream.guessed_rate
            start = first_time if sound_start is None else sound_start
            end = _end_of_track(container, stream)
        if end is None:
            end = _last_packet_end(source, limits)
        return cls(
            width=width,
            height=height,
            frame_rate=float(rate) if rate else 0.0,
            duration=max(0.0, end - start),
            source=source,
            source_hash=source.sha256(),
            limits=limits,
            start=start,
        )

    def excerpt(self, start: float, end: float) -> VideoTrack:
        """Cut out the track between two times of the clip, in seconds."""
        return replace(self, start=self.start + start, duration=max(0.0, min(end, self.duration) - start))

    def frames(self, times: Sequence[float], size: tuple[int, int] | None = None) -> np.ndarray:
        """Read the pictures on show at the given times, uint8 RGB `[n, height, width, 3]`.

        Parameters
        ----------
        times
            Seconds from the beginning of the clip, in any order; before the first and after the last frame, that
            frame is shown.
        size
            `(height, width)` in pixels to which every frame is scaled; None keeps the video's own size.

        Raises
        ------
        MediaError
            If the frames would need more memory than the limit, or cannot be decoded.
        """
        height, width = size or (self.height, self.width)
        if height < 1 or width < 1 or not np.all(np.isfinite(times)):
            raise MediaError("Video frames need a size of at least 1 x 1 pixel and times that are numbers.")
        n_bytes = len(times) * height * width * 3
        if n_bytes > self.limits.max_frame_bytes or height * width > self.limits.max_pixels:
            raise MediaError(
                f"{len(times)} video frames of {width} x {height} pixels need more memory than allowed.",
                "Ask for fewer or smaller frames, or raise the setting `max_frame_bytes`.",
            )
        result = np.empty((len(times), height, width, 3), dtype=np.uint8)
        order = np.argsort(np.asarray(times, dtype=float), kind="stable")
        targets = [self.start + float(times[i]) for i in order]
        with open_container(self.source, self.limits) as container:
            stream = _moving_picture(container)
            if stream is None:
                raise MediaError("The video has changed since it was opened.", "Open it again.")
            last: tuple[av.VideoFrame, np.ndarray] | None = None
            for index, frame in zip(order, _frames_on_show(container, stream, targets, self.limits), strict=True):
                if last is None or last[0] is not frame:
                    last = frame, _upright(frame, height, width)
                result[index] = last[1]
        return result

    def thumbnails(self, n: int, height: int) -> np.ndarray:
        """`n` small pictures from the middles of `n` equal parts of the track, uint8 `[n, height, width, 3]`."""
        width = max(1, round(height * self.width / self.height))
        return self.frames([(i + 0.5) * self.duration / n for i in range(n)], (height, width))


def _moving_picture(container: av.container.InputContainer) -> av.video.VideoStream | None:
    for stream in container.streams.video:
        # A cover often does not say that it is one, but is a single photograph.
        cover = stream.frames == 1 and stream.codec_context is not None and stream.codec_context.name in _PHOTOGRAPHS
        still = bool(stream.disposition & _NOT_MOVING) or cover
        if not still and stream.codec_context is not None and stream.codec_context.width > 0:
            return stream
    return None


def _decoded(
    container: av.container.InputContainer, stream: av.video.VideoStream, limits: MediaLimits
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with their time in the file, in order of display; damaged packets are skipped."""
    if not stream.codec_context.is_open:
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
        stream.codec_context.thread_count = 2
    step = 1 / float(stream.average_rate or 25)
    time = -step
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, *DECODER_ERRORS):
            return
        try:
            frames = stream.decode(packet)
        except DECODER_ERRORS:
            continue
        for frame in frames:
            time = frame.time if frame.time is not None else time + step
            yield time, frame


def _frames_on_show(
    container: av.container.InputContainer, stream: av.video.VideoStream, targets: Sequence[float], limits: MediaLimits
) -> Iterator[av.VideoFrame]:
    """For each of the ascending target times the last frame that begins at or before it."""
    frames = _decoded(container, stream, limits)
    shown: tuple[float, av.VideoFrame] | None = None
    coming = next(frames, None)
    may_seek = True
    for target in targets:
        if may_seek and coming is not None and target - coming[0] > _SEEK_BEYOND:
            _seek(container, stream, target)
            frames = _decoded(container, stream, limits)
            landed = next(frames, None)
            # Where keyframes are rare, seeking goes back; each further seek would decode the same part once more.
            may_seek = landed is not None and landed[0] > coming[0]
            if landed is None or landed[0] > target:
                _seek(container, stream, None)
                frames = _decoded(container, stream, limits)
                landed, may_seek = next(frames, None), False
            coming = landed
        while coming is not None and (shown is None or coming[0] <= target + 1e-6):
            shown, coming = coming, next(frames, None)
        if shown is None:
            raise UnreadableVideoError
        yield shown[1]


def _seek(container: av.container.InputContainer, stream: av.video.VideoStream, time: float | None) -> None:
    """Go to the keyframe at or before a time of the file in seconds; None goes to the beginning."""
    assert stream.time_base is not None
    offset = int(time / stream.time_base) if time is not None else (stream.start_time or 0)
    try:
        container.seek(offset, stream=stream, backward=True)
    except DECODER_ERRORS as error:
        raise UnreadableVideoError from error


def _upright(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """One frame as uint8 RGB `[height, width, 3]`, turned as the file says."""
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, like numpy.rot90
    if quarter_turns % 2:
        height, width = width, height
    smaller = height * width < frame.height * frame.width
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA" if smaller else "BICUBIC")
    return np.rot90(scaled.to_ndarray(), quarter_turns)


def _end_of_track(container: av.container.InputContainer, stream: av.video.VideoStream) -> float | None:
    """When the track ends in the file's own time, in seconds; None if the file does not say."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    if container.duration is not None:
        return (container.duration + (container.start_time or 0)) / 1e6
    return None


def _last_packet_end(source: MediaSource, limits: MediaLimits) -> float:
    """When the last picture ends, from the packets' time stamps (nothing is decoded)."""
    end = 0.0
    with open_container(source, limits) as container:
        stream = _moving_picture(container)
        assert stream is not None
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except DECODER_ERRORS:
            pass  # the damaged end of the file: what came before it counts
    return end
