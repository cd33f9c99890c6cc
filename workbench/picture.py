"""A still picture of an analysis for papers and slides: grey spectrogram, coloured explanation, axes in s and Hz."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.clip import Clip
from saliency.reconstruction import smoothed
from workbench.analysis import Analysis
from workbench.figures import display_top, frequency_axis, level_range, on_display, spectrogram_db, strength
from workbench.labels import spoken
from workbench.verdict import percent, verdict

SUPPORTS, OPPOSES = (217, 95, 2), (43, 111, 181)
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 1200, 460, 78, 72, 52, 24


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """Text with what Pillow's own font has: it draws a box for dashes and minus signs."""
    return text.translate({0x2013: "-", 0x2212: "-", 0x2026: "...", 0xA0: " "})


def picture_png(clip: Clip, analysis: Analysis) -> bytes:
    """PNG of 1200 x 584 pixels: verdict, spectrogram, overlay, outline of what is kept."""
    f_max = display_top(clip.sample_rate, "mel")
    image = spectrogram_db(clip.waveform, clip.sample_rate, "mel", f_max)
    bottom, top = level_range(image)
    grey = 255 - 225 * np.clip((image - bottom) / (top - bottom), 0, 1)
    canvas = np.repeat(grey[:, :, None], 3, axis=2)
    if analysis.attribution is not None and analysis.mask is not None:
        shape = (grey.shape[1], grey.shape[0])

        def layer(values: np.ndarray) -> np.ndarray:
            assert analysis.attribution is not None
            shown = on_display(
                values, analysis.attribution.times, analysis.attribution.frequencies, max(clip.duration, 1e-3), "mel",
                f_max, analysis.model.sample_rate / 2,
            )  # fmt: skip
            return shown

        relevance = layer(smoothed(analysis.attribution.values, analysis.model.frame_seconds, analysis.settings.keep))
        for values, colour in ((strength(relevance), SUPPORTS), (strength(-relevance), OPPOSES)):
            alpha = np.asarray(Image.fromarray(values).resize(shape, Image.Resampling.BILINEAR)) / 255.0 * 0.8
            canvas = canvas * (1 - alpha[:, :, None]) + np.array(colour) * alpha[:, :, None]
    size = (_WIDTH - _LEFT - _RIGHT, _HEIGHT)
    plot = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    if analysis.attribution is not None and analysis.mask is not None:
        kept = np.asarray(Image.fromarray((255 * layer(analysis.mask)).astype(np.uint8)).resize(size)) > 127
        edge = kept & ~(np.roll(kept, 1, 0) & np.roll(kept, -1, 0) & np.roll(kept, 1, 1) & np.roll(kept, -1, 1))
        pixels = np.array(plot)
        pixels[edge] = (110, 45, 0)
        plot = Image.fromarray(pixels)
    sheet = Image.new("RGB", (_WIDTH, _TOP + _HEIGHT + _BOTTOM), "white")
    sheet.paste(plot, (_LEFT, _TOP))
    draw = ImageDraw.Draw(sheet)
    score = analysis.prediction.scores[analysis.prediction.labels.index(analysis.target)]
    draw.text(
        (_LEFT, 10), drawable(f"{spoken(analysis.target)[:60]}: {percent(score)}"), fill="#1c2430", font=_font(26)
    )
    draw.text((_LEFT, 44), drawable(verdict(analysis)[:130]), fill="#5a6675", font=_font(16))
    for tick in frequency_axis(f_max, "mel").ticks:
        y = _TOP + _HEIGHT * (1 - tick.position)
        label = f"{tick.hz / 1000:g} kHz" if tick.hz >= 1000 else f"{tick.hz:g} Hz"
        draw.line([(_LEFT - 6, y), (_LEFT, y)], fill="#5a6675")
        draw.text((_LEFT - 10, y), label, fill="#5a6675", font=_font(14), anchor="rm")
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600) if clip.duration / s <= 12), 1800)
    for number in range(int(clip.duration / step) + 1):
        x = _LEFT + size[0] * number * step / max(clip.duration, 1e-3)
        draw.line([(x, _TOP + _HEIGHT), (x, _TOP + _HEIGHT + 6)], fill="#5a6675")
        draw.text((x, _TOP + _HEIGHT + 10), f"{number * step:g}", fill="#5a6675", font=_font(14), anchor="ma")
    draw.text((_LEFT + size[0] / 2, _TOP + _HEIGHT + 32), "Time in s", fill="#5a6675", font=_font(14), anchor="ma")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
