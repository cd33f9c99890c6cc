"""A still picture of an event graph for papers and slides, on a time axis, 203 mm wide at 300 dpi."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.clip import Clip
from saliency.graph import MEASURES, GraphExplanation
from workbench.graph_view.data import thumbnails, window_spectrogram
from workbench.graph_view.words import linked, missing_in_words, window_in_words
from workbench.labels import spoken
from workbench.picture import OPPOSES, SUPPORTS
from workbench.verdict import percent

INK, MUTED, LINE = (28, 36, 48), (90, 102, 117), (205, 211, 219)
LINKS = 60  # as many are drawn at most
_WIDTH, _LEFT, _RIGHT, _TOP = 2400, 150, 60, 210
_ARC, _PICTURE, _GAP, _SOUND, _BOTTOM = 130, 84, 430, 220, 190
_FINER = 2  # links are drawn at so many times the size, then reduced
Point = tuple[float, float]
At = Callable[[float], float]


def graph_png(clip: Clip, explanation: GraphExplanation) -> bytes:
    """PNG of 2400 x 1394 pixels: sentence, thumbnails, pieces of spectrogram, the most important links, time axis."""
    start, end = (float(time) for time in explanation.windows[explanation.window])
    size = (_WIDTH, _TOP + 2 * _ARC + _PICTURE + _GAP + _SOUND + _BOTTOM)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    def at(seconds: float) -> float:
        return _LEFT + (seconds - start) / (end - start) * (_WIDTH - _LEFT - _RIGHT)

    video_top = _TOP + _ARC
    sound_top = video_top + _PICTURE + _GAP
    axis = sound_top + _SOUND + _ARC
    _time_axis(draw, at, start, end, video_top, axis)
    chosen = _drawn(explanation)
    middle = [
        (at(float(s)) + at(float(e))) / 2 for s, e in zip(explanation.node_start, explanation.node_end, strict=True)
    ]
    strength = explanation.strength / max(float(explanation.strength.max(initial=0.0)), 1e-12)
    for edge in chosen:
        curve = _curve(explanation, int(edge), middle, video_top, sound_top)
        _draw_link(sheet, curve, 2 + 18 * float(strength[edge]), 0.25 + 0.75 * float(strength[edge]) ** 0.5,
                   _colour(explanation, int(edge)))  # fmt: skip
    _tiles(sheet, clip, explanation, at, video_top, sound_top)
    _text(draw, clip, explanation, len(chosen), axis, video_top, sound_top)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", dpi=(300, 300))
    return buffer.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _drawn(explanation: GraphExplanation) -> np.ndarray:
    """The most important edges, the weakest first so that the strong ones lie on top."""
    order = np.argsort(explanation.strength, kind="stable")[-LINKS:]
    return order[explanation.strength[order] > 0]


def _colour(explanation: GraphExplanation, edge: int) -> tuple[int, int, int]:
    if not MEASURES[explanation.measure].signed:
        return INK
    return SUPPORTS if explanation.edge_importance[edge] > 0 else OPPOSES


def _curve(
    explanation: GraphExplanation, edge: int, middle: list[float], video_top: int, sound_top: int
) -> list[Point]:
    """Points of a link: between the rows, above the pictures or below the sounds."""
    source, target = int(explanation.edge_source[edge]), int(explanation.edge_target[edge])
    a, b = middle[source], middle[target]
    video = explanation.is_video
    if video[source] != video[target]:
        top, bottom = float(video_top + _PICTURE), float(sound_top)
        bend = 0.45 * (bottom - top)
        upper, lower = (a, b) if video[source] else (b, a)
        return _bezier((upper, top), (upper, top + bend), (lower, bottom - bend), (lower, bottom))
    outward = -1 if video[source] else 1
    y = float(video_top if video[source] else sound_top + _SOUND)
    if source == target:
        return _bezier((a - 14, y), (a - 26, y + 60 * outward), (a + 26, y + 60 * outward), (a + 14, y))
    reach = min(_ARC * 1.25, 36 + 0.5 * abs(b - a)) * (1.0 if b > a else 0.62) * outward
    return _bezier((a, y), (a, y + reach), (b, y + reach), (b, y))


def _bezier(*points: Point) -> list[Point]:
    """A cubic curve as a line of 40 pieces."""
    t = np.linspace(0, 1, 41)[:, None]
    p = np.asarray(points, dtype=np.float64)
    curve = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]
    return [(float(x), float(y)) for x, y in curve]


def _draw_link(
    sheet: Image.Image, curve: list[Point], width: float, opacity: float, colour: tuple[int, int, int]
) -> None:
    """One link: drawn larger and reduced, so that its border is smooth and it covers itself nowhere twice."""
    xs, ys = [x for x, _ in curve], [y for _, y in curve]
    margin = width + 2
    left, top = int(max(0, min(xs) - margin)), int(max(0, min(ys) - margin))
    right, bottom = int(min(sheet.width, max(xs) + margin)) + 1, int(min(sheet.height, max(ys) + margin)) + 1
    size = (max(1, right - left), max(1, bottom - top))
    mask = Image.new("L", (size[0] * _FINER, size[1] * _FINER), 0)
    points = [((x - left) * _FINER, (y - top) * _FINER) for x, y in curve]
    ImageDraw.Draw(mask).line(points, fill=round(255 * opacity), width=round(width * _FINER), joint="curve")
    sheet.paste(colour, (left, top), mask.resize(size, Image.Resampling.BOX))


def _tiles(
    sheet: Image.Image, clip: Clip, explanation: GraphExplanation, at: At, video_top: int, sound_top: int
) -> None:
    """Thumbnails and pieces of spectrogram in their places."""
    draw = ImageDraw.Draw(sheet)
    pictures = thumbnails(clip, explanation)
    start, end = (float(time) for time in explanation.windows[explanation.window])
    level = window_spectrogram(clip, explanation)
    grey = (255 - 235 * level).astype(np.uint8)
    for node in range(explanation.n_nodes):
        video = bool(explanation.is_video[node])
        top, height = (video_top, _PICTURE) if video else (sound_top, _SOUND)
        left, right = (
            round(at(float(explanation.node_start[node]))) + 1,
            round(at(float(explanation.node_end[node]))) - 1,
        )
        box = (left, top, max(left + 2, right), top + height)
        size = (box[2] - box[0], height)
        if video:
            draw.rectangle(box, fill=(226, 229, 233))
            if pictures is not None and explanation.present[node]:
                sheet.paste(_filled(pictures[node - explanation.n_audio], size), box[:2])
        else:
            columns = [int((float(t) - start) / (end - start) * grey.shape[1])
                       for t in (explanation.node_start[node], explanation.node_end[node])]  # fmt: skip
            piece = grey[:, columns[0] : max(columns[0] + 1, columns[1])]
            sheet.paste(Image.fromarray(piece).resize(size, Image.Resampling.LANCZOS), box[:2])
        draw.rectangle(box, outline=LINE, width=2)


def _filled(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A picture scaled to cover the size, its middle cut out."""
    image = Image.fromarray(picture)
    scale = max(size[0] / image.width, size[1] / image.height)
    image = image.resize((max(size[0], round(image.width * scale)), max(size[1], round(image.height * scale))))
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def _time_axis(draw: ImageDraw.ImageDraw, at: At, start: float, end: float, top: int, bottom: int) -> None:
    step = next((s for s in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if (end - start) / s <= 12), 30)
    for number in range(int(np.ceil(start / step - 1e-6)), int(end / step + 1e-6) + 1):
        x = at(number * step)
        draw.line([(x, top), (x, bottom)], fill=(233, 236, 240), width=2)
        draw.line([(x, bottom), (x, bottom + 12)], fill=MUTED, width=2)
        draw.text((x, bottom + 20), f"{number * step:g}", fill=MUTED, font=_font(34), anchor="ma")
    draw.text((_WIDTH - _RIGHT, bottom + 64), "Time in s", fill=MUTED, font=_font(34), anchor="ra")


def _text(
    draw: ImageDraw.ImageDraw, clip: Clip, explanation: GraphExplanation, n_links: int, axis: int, video_top: int, sound_top: int
) -> None:  # fmt: skip
    """Title, sentence, names of the rows and legend."""
    title = f"{spoken(explanation.target)[:50]}: {percent(explanation.score)}"
    draw.text((_LEFT, 30), title, fill=INK, font=_font(64))
    draw.text((_LEFT, 116), linked(explanation).replace("\u2013", "-")[:110], fill=INK, font=_font(38))
    remarks = " ".join(part for part in (window_in_words(explanation), missing_in_words(explanation)) if part)
    draw.text(
        (_LEFT, 168), f"{clip.name[:60]}. {remarks}".strip().replace("\u2013", "-")[:130], fill=MUTED, font=_font(32)
    )
    for name, y in (("Picture", video_top + _PICTURE / 2), ("Sound", sound_top + _SOUND / 2)):
        draw.text((_LEFT - 20, y), name, fill=MUTED, font=_font(34), anchor="rm")
    x, y = _LEFT, axis + 120
    entries = [("supports the class", SUPPORTS), ("opposes it", OPPOSES)] if MEASURES[explanation.measure].signed else [
        ("attention", INK)
    ]  # fmt: skip
    for label, colour in entries:
        draw.rectangle((x, y + 6, x + 34, y + 34), fill=colour)
        draw.text((x + 48, y), label, fill=INK, font=_font(34))
        x += 90 + round(draw.textlength(label, font=_font(34)))
    said = f"Width: {MEASURES[explanation.measure].title.lower()} of the {n_links} most important of {explanation.n_edges} links"
    draw.text((x, y), said, fill=MUTED, font=_font(34))
