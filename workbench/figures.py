"""Pictures of clips and analyses: spectrograms, overlays, and the data that the player shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image

from models.clip import Clip, encode_wav
from models.errors import MediaError
from saliency.reconstruction import SalientAudio, smoothed
from workbench.analysis import Analysis
from workbench.labels import spoken
from workbench.player.data import (
    Curve,
    Filmstrip,
    FrequencyAxis,
    FrequencyTick,
    Initial,
    Overlay,
    PlayerData,
    Segment,
    SpectrogramImage,
    Track,
    Video,
    Waveform,
)
from workbench.verdict import explained_part, kept_spans

Scale = Literal["mel", "linear", "log"]
ROWS, MAX_COLUMNS = 256, 2400
ROUND_HZ = (50, 100, 200, 500, 1000, 2000, 4000, 8000, 12000, 16000, 24000, 48000, 96000)
SILENCE_DB = -120.0
HIGHEST_HEARD = 24000.0  # Hz; a mel or log axis ends here, above it a recording at 192 kHz would be mostly empty
STRIP_HEIGHT, STRIPS_KEPT = 88, 32
MAX_VIDEO_BYTES = 48 * 2**20
LINEAR_STEPS = (500, 1000, 2000, 4000, 8000, 16000, 32000)
_strips: dict[tuple[str, int], bytes] = {}


def to_scale(frequency: np.ndarray | float, scale: Scale) -> np.ndarray:
    """Hz to the axis of a display (mel after O'Shaughnessy, 2595 log10(1 + f/700); log from 20 Hz on)."""
    f = np.asarray(frequency, dtype=np.float64)
    if scale == "mel":
        return 2595.0 * np.log10(1.0 + f / 700.0)
    return np.log2(np.maximum(f, 20.0)) if scale == "log" else f


def from_scale(value: np.ndarray, scale: Scale) -> np.ndarray:
    """The inverse of `to_scale`."""
    if scale == "mel":
        return 700.0 * (10.0 ** (value / 2595.0) - 1.0)
    return 2.0**value if scale == "log" else value


def display_top(sample_rate: int, scale: Scale) -> float:
    """Upper edge of a frequency axis in Hz; only a linear one shows what lies above human hearing."""
    return sample_rate / 2 if scale == "linear" else min(sample_rate / 2, HIGHEST_HEARD)


def row_frequencies(f_max: float, scale: Scale, rows: int = ROWS) -> np.ndarray:
    """Frequency in Hz at the centre of every row of a picture, lowest first."""
    low, high = to_scale(0.0, scale), to_scale(f_max, scale)
    return from_scale(low + (np.arange(rows) + 0.5) / rows * (high - low), scale)


def frequency_axis(f_max: float, scale: Scale) -> FrequencyAxis:
    """Labels at round frequencies, not closer than a fifteenth of the axis."""
    low, high = float(to_scale(0.0, scale)), float(to_scale(f_max, scale))
    if scale == "linear":
        step = next((s for s in LINEAR_STEPS if f_max / s <= 8), LINEAR_STEPS[-1])
        wanted: list[float] = [float(f) for f in range(0, int(f_max) + 1, step)]
    else:
        wanted = [float(f) for f in ROUND_HZ if f <= f_max]
    ticks: list[FrequencyTick] = []
    for hz in wanted:
        position = (float(to_scale(hz, scale)) - low) / (high - low)
        if not ticks or position - ticks[-1].position >= 1 / 15:
            ticks.append(FrequencyTick(position=min(1.0, max(0.0, position)), hz=hz))
    return FrequencyAxis(scale=scale, ticks=ticks, f_min=0.0 if scale != "log" else 20.0, f_max=f_max)


def spectrogram_db(waveform: np.ndarray, sample_rate: int, scale: Scale, f_max: float) -> np.ndarray:
    """Level in dB below full scale, float32 ``[ROWS, columns]`` with the highest frequency first.

    At most `MAX_COLUMNS` columns; each shows the loudest of the STFT frames it covers, so that short events stay visible.
    """
    mono = waveform.mean(axis=0, dtype=np.float64)
    size = max(64, 2 ** round(np.log2(0.032 * sample_rate)))
    hop = size // 4
    padded = np.pad(mono, (size // 2, size))
    n_frames = max(1, 1 + len(mono) // hop)
    window = np.hanning(size + 1)[:-1]
    frequencies = row_frequencies(f_max, scale)
    position = np.clip(frequencies * size / sample_rate, 0, size // 2)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size // 2)
    share = position - low
    columns = min(n_frames, MAX_COLUMNS)
    image = np.full((ROWS, columns), -200.0, dtype=np.float32)
    of_frame = np.arange(n_frames) * columns // n_frames
    for first in range(0, n_frames, 4096):
        frames = np.arange(first, min(first + 4096, n_frames))
        part = padded[first * hop : frames[-1] * hop + size]
        pieces = np.lib.stride_tricks.sliding_window_view(part, size)[::hop][: len(frames)]
        level = 20 * np.log10(np.abs(np.fft.rfft(pieces * window, axis=1)) / (window.sum() / 2) + 1e-10)
        rows = level[:, low] * (1 - share) + level[:, high] * share
        np.maximum.at(image.T, of_frame[frames], rows.astype(np.float32))
    return image[::-1]


def level_range(image: np.ndarray) -> tuple[float, float]:
    """DB range to show: up to the loudest cell, down to just above the noise floor but at least 50 and at most 90 dB.

    Never below -120 dB, so that silence looks empty.
    """
    top = max(float(np.quantile(image, 0.9995)), SILENCE_DB)
    bottom = float(np.quantile(image, 0.10))
    return float(np.clip(bottom, top - 90.0, top - 50.0)), top


def grey_png(image: np.ndarray) -> bytes:
    """8-bit grey PNG of ``[rows, columns]`` uint8."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image), mode="L").save(buffer, "PNG", optimize=False, compress_level=3)
    return buffer.getvalue()


def on_display(
    values: np.ndarray,
    times: np.ndarray,
    frequencies: np.ndarray,
    duration: float,
    scale: Scale,
    f_max: float,
    heard: float,
) -> np.ndarray:
    """Cells ``[frames, n_mels]`` interpolated to a picture ``[ROWS, columns]``, highest frequency first.

    Rows above `heard` Hz, which the model cannot hear, are 0.
    """
    rows = row_frequencies(f_max, scale)
    columns = int(min(MAX_COLUMNS, max(2, len(times))))
    at = (np.arange(columns) + 0.5) / columns * duration
    position = np.interp(at, times, np.arange(len(times)))
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(times) - 1)
    share = (position - low)[:, None]
    in_time = values[low] * (1 - share) + values[high] * share
    band = np.interp(rows, frequencies, np.arange(len(frequencies)))
    low_band = np.floor(band).astype(int)
    high_band = np.minimum(low_band + 1, len(frequencies) - 1)
    weight = band - low_band
    image = in_time[:, low_band] * (1 - weight) + in_time[:, high_band] * weight
    image[:, rows > heard] = 0.0
    return image.T[::-1]


def strength(values: np.ndarray) -> np.ndarray:
    """Non-negative relevance to 8 bits: the 99.5 % quantile of what is above zero is full strength."""
    positive = values[values > 0]
    if positive.size == 0:
        return np.zeros(values.shape, dtype=np.uint8)
    top = float(np.quantile(positive, 0.995)) or float(positive.max())
    return (255 * np.clip(values / top, 0.0, 1.0) ** 0.7).astype(np.uint8)


def data_url(data: bytes, mime: str) -> str:
    """A ``data:`` URL, for pages without a server."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def waveform_peaks(waveform: np.ndarray, parts: int = 600) -> Waveform:
    """Lowest and highest sample in equal parts of the clip."""
    mono = waveform.mean(axis=0)
    edges = np.linspace(0, len(mono), min(parts, len(mono)) + 1).astype(int)
    lowest = np.minimum.reduceat(mono, edges[:-1])
    highest = np.maximum.reduceat(mono, edges[:-1])
    return Waveform(
        min=np.clip(lowest, -1, 1).round(4).astype(float).tolist(),
        max=np.clip(highest, -1, 1).round(4).astype(float).tolist(),
    )


def rms_db(waveform: np.ndarray) -> float:
    """Level of the loudest 50 ms-ish stretch in dB below full scale, -200 for silence."""
    power = np.square(waveform, dtype=np.float64).mean(axis=0)
    block = max(1, len(power) // 100)
    loudest = max((power[i : i + block].mean() for i in range(0, len(power), block)), default=0.0)
    return float(10 * np.log10(loudest + 1e-20))


def audible_gain(waveform: np.ndarray) -> float | None:
    """Gain in dB that makes a very quiet track audible without clipping; None if it is loud enough or silent."""
    peak = float(np.abs(waveform).max(initial=0.0))
    level = rms_db(waveform)
    if peak < 1e-5 or level > -40.0:
        return None
    gain = min(-25.0 - level, -20 * float(np.log10(peak)) - 0.5)
    return round(gain, 1) if gain >= 3.0 else None


def moving_picture(clip: Clip, publish: Callable[[bytes, str], str]) -> Video | None:
    """The clip's own video file, where it begins with the sound, browsers can show it, and it is not too large."""
    track = clip.video
    if track is None or abs(track.start) > 0.2:
        return None
    try:
        with track.source.open() as file:
            data = file.read(MAX_VIDEO_BYTES + 1)
    except MediaError:  # the file has gone
        return None
    if len(data) > MAX_VIDEO_BYTES:
        return None
    if data[4:8] == b"ftyp":
        return Video(url=publish(data, "video/mp4"), label=clip.name)
    return Video(url=publish(data, "video/webm"), label=clip.name) if data[:4] == b"\x1a\x45\xdf\xa3" else None


def filmstrip(clip: Clip, publish: Callable[[bytes, str], str], count: int = 24) -> Filmstrip | None:
    """Small pictures of the clip's video, in time with the sound; None without one, or where it cannot be decoded."""
    if clip.video is None or clip.video.duration <= 0:
        return None
    key = (clip.content_hash, count)
    if key not in _strips:
        # Parts of the clip, not of the track: they differ where one ends before the other.
        try:
            pictures = replace(clip.video, duration=clip.duration).thumbnails(count, STRIP_HEIGHT)
        except MediaError:
            return None
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(list(pictures), axis=1)).save(buffer, "JPEG", quality=80)
        while len(_strips) >= STRIPS_KEPT:
            _strips.pop(next(iter(_strips)), None)
        _strips[key] = buffer.getvalue()
    return Filmstrip(url=publish(_strips[key], "image/jpeg"), count=count)


def player_data(
    clip: Clip,
    analysis: Analysis | None,
    sound: SalientAudio | None,
    publish: Callable[[bytes, str], str],
    scale: Scale = "mel",
    initial: Initial | None = None,
) -> PlayerData:
    """What the player shows of a clip and as much of its analysis as there is.

    Parameters
    ----------
    publish
        Makes bytes of a MIME type reachable and returns their URL (an own route in the app, a data URL in a report).
    """
    f_max = display_top(clip.sample_rate, scale)
    duration = max(clip.duration, 1e-3)
    image = spectrogram_db(clip.waveform, clip.sample_rate, scale, f_max)
    bottom, top = level_range(image)
    grey = (255 * np.clip((image - bottom) / (top - bottom), 0, 1)).astype(np.uint8)
    gain = sound.gain if sound is not None else min(1.0, 1.0 / max(1.0, float(np.abs(clip.waveform).max(initial=0.0))))

    def track(name: str, label: str, waveform: np.ndarray, offer_gain: bool) -> Track:
        url = publish(encode_wav(waveform * np.float32(gain), clip.sample_rate), "audio/wav")
        return Track(id=name, label=label, url=url, gain_db=audible_gain(waveform * gain) if offer_gain else None)

    tracks = [track("original", "Original", clip.waveform, False)]
    overlay = None
    segments: list[Segment] = []  # an empty lane keeps its place until there are some
    if analysis is not None and analysis.attribution is not None and analysis.mask is not None and sound is not None:
        tracks.append(track("kept", "What it heard", sound.kept, True))
        tracks.append(track("removed", "What is left", sound.removed, True))
        attribution = analysis.attribution
        heard = analysis.model.sample_rate / 2

        def picture(values: np.ndarray) -> np.ndarray:
            return on_display(values, attribution.times, attribution.frequencies, duration, scale, f_max, heard)

        relevance = picture(smoothed(attribution.values, analysis.model.frame_seconds, analysis.settings.keep))
        overlay = Overlay(
            supports_url=publish(grey_png(strength(relevance)), "image/png"),
            opposes_url=publish(grey_png(strength(-relevance)), "image/png"),
            kept_outline=publish(grey_png((255 * picture(analysis.mask)).astype(np.uint8)), "image/png"),
        )
        segments = [
            Segment(start=s, end=min(e, duration), label=str(number), kind="kept")
            for number, (s, e) in enumerate(kept_spans(analysis), start=1)
            if s < duration
        ]
        part = explained_part(analysis)
        if part is not None:
            segments.append(Segment(start=part[0], end=part[1], label="Explained part"))
    curve = None
    if analysis is not None and len(analysis.prediction.windows) > 1:
        column = analysis.prediction.labels.index(analysis.target)
        times = analysis.prediction.windows.mean(axis=1)
        curve = Curve(
            label=spoken(analysis.target),
            times=times.astype(float).tolist(),
            values=np.clip(analysis.prediction.window_scores[:, column], 0, 1).astype(float).tolist(),
        )
    return PlayerData(
        duration=duration, clip_id=f"{clip.content_hash[:24]}-{scale}", tracks=tracks, overlay=overlay, segments=segments,
        curve=curve, video=moving_picture(clip, publish),
        filmstrip=filmstrip(clip, publish), waveform=waveform_peaks(clip.waveform),
        frequency_axis=frequency_axis(f_max, scale), initial=initial,
        spectrogram=SpectrogramImage(
            url=publish(grey_png(grey), "image/png"), start=0.0, end=duration, db_min=round(bottom, 1), db_max=round(top, 1)
        ),
    )  # fmt: skip
