"""A still picture of what a model did over time: spectrogram above, its lanes below, on one time axis."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.clip import Clip
from saliency.listening import Listening
from workbench.figures import display_top, frequency_axis, level_range, spectrogram_db
from workbench.labels import spoken
from workbench.picture import drawable
from workbench.playback_view import headline, lanes_of
from workbench.player.data import Lane
from workbench.verdict import percent

SUPPORTS, OPPOSES, INK, MUTED, LINE, BOX = "#f2b78b", "#9fbfe4", "#1c2430", "#5a6675", "#c9ced6", "#b8480a"
_WIDTH, _LEFT, _RIGHT, _TOP, _HEIGHT, _LANE, _HEAD = 1200, 78, 24, 96, 220, 70, 30


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def listening_png(clip: Clip, listening: Listening) -> bytes:
    """PNG, 1200 pixels wide: what changed, spectrogram, one lane for every pass and course."""
    duration = max(clip.duration, 1e-3)
    lanes = lanes_of(listening, duration)
    f_max = display_top(clip.sample_rate, "mel")
    image = spectrogram_db(clip.waveform, clip.sample_rate, "mel", f_max)
    bottom, top = level_range(image)
    grey = (255 - 225 * np.clip((image - bottom) / (top - bottom), 0, 1)).astype(np.uint8)
    wide = _WIDTH - _LEFT - _RIGHT
    height = _TOP + _HEIGHT + len(lanes) * (_HEAD + _LANE + 26) + 50
    sheet = Image.new("RGB", (_WIDTH, height), "white")
    sheet.paste(Image.fromarray(grey).resize((wide, _HEIGHT), Image.Resampling.LANCZOS), (_LEFT, _TOP))
    draw = ImageDraw.Draw(sheet)
    draw.text(
        (_LEFT, 10), f"{spoken(listening.target)[:60]}: {percent(listening.probability)}", fill=INK, font=_font(26)
    )
    for row, line in enumerate(_wrapped(draw, headline(listening), wide)[:2]):
        draw.text((_LEFT, 44 + 22 * row), line, fill=MUTED, font=_font(16))
    for tick in frequency_axis(f_max, "mel").ticks:
        y = _TOP + _HEIGHT * (1 - tick.position)
        label = f"{tick.hz / 1000:g} kHz" if tick.hz >= 1000 else f"{tick.hz:g} Hz"
        draw.text((_LEFT - 10, y), label, fill=MUTED, font=_font(14), anchor="rm")
    y = _TOP + _HEIGHT
    for lane in lanes:
        _draw_lane(draw, lane, y, wide, duration)
        y += _HEAD + _LANE + 26
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600) if duration / s <= 12), 1800)
    for number in range(int(duration / step) + 1):
        x = _LEFT + wide * number * step / duration
        draw.line([(x, y), (x, y + 6)], fill=MUTED)
        draw.text((x, y + 8), f"{number * step:g}", fill=MUTED, font=_font(14), anchor="ma")
    draw.text((_LEFT + wide / 2, y + 28), "Time in s", fill=MUTED, font=_font(14), anchor="ma")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_lane(draw: ImageDraw.ImageDraw, lane: Lane, top: int, wide: int, duration: float) -> None:
    """Heading, course and segments of one lane."""
    for line in _wrapped(draw, f"{lane.label}. {lane.note or ''}", wide)[:1]:
        draw.text((_LEFT, top + 8), line, fill=INK, font=_font(15))
    top += _HEAD
    span = lane.high - lane.low or 1.0

    def place(time: float, value: float) -> tuple[float, float]:
        share = (min(max(value, lane.low), lane.high) - lane.low) / span
        return _LEFT + wide * time / duration, top + _LANE * (1 - share)

    if len(lane.times) == len(lane.values):
        points = list(zip(lane.times, lane.values, strict=True))
    else:
        points = [
            (lane.times[index + side], value) for index, value in enumerate(lane.values) for side in (0, 1)
        ]  # fmt: skip
    zero = place(0.0, 0.0)[1]
    for colour, sign in ((SUPPORTS, 1), (OPPOSES, -1)):
        part = [place(time, max(value, 0.0) if sign > 0 else min(value, 0.0)) for time, value in points]
        if len(part) > 1 and any(value * sign > 0 for _, value in points):
            draw.polygon([(part[0][0], zero), *part, (part[-1][0], zero)], fill=colour)
    draw.line([(_LEFT, zero), (_LEFT + wide, zero)], fill=LINE)
    for value, label in ((lane.high, lane.high_label), (lane.low, lane.low_label)):
        draw.text(
            (_LEFT - 10, place(0.0, value)[1]), (label or "").replace("−", "-"), fill=MUTED, font=_font(14), anchor="rm"
        )
    for segment in lane.segments or []:
        x0, x1 = (place(time, 0.0)[0] for time in (segment.start, segment.end))
        colour = BOX if segment.kind == "kept" else MUTED
        draw.rectangle([x0, top + _LANE + 4, max(x0 + 2, x1), top + _LANE + 18], fill="#f4efe9", outline=colour)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, wide: int) -> list[str]:
    """A text in lines that fit; dashes and signs that the font lacks are replaced."""
    text = drawable(text)
    lines, line = [], ""
    for word in text.split():
        if line and draw.textlength(f"{line} {word}", font=_font(16)) > wide:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line else lines
