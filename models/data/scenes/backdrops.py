"""Places that a scene is drawn in front of: simple landscapes and rooms, each time in other colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from models.data.scenes.canvas import Colour, Pen, shade


def _pick(rng: np.random.Generator, *choices: Colour) -> Colour:
    return choices[int(rng.integers(len(choices)))]


def _sky(pen: Pen, width: float, top: Colour, bottom: Colour, down_to: float) -> None:
    steps = 24
    for k in range(steps):
        mix = k / (steps - 1)
        tone = tuple(round((1 - mix) * a + mix * b) for a, b in zip(top[:3], bottom[:3], strict=True))
        pen.box(0.0, down_to * k / steps, width, down_to * (k + 1) / steps + 0.01, (tone[0], tone[1], tone[2]))


def _clouds(pen: Pen, rng: np.random.Generator, width: float, colour: Colour) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, y, size = rng.uniform(0, width), rng.uniform(0.05, 0.3), rng.uniform(0.04, 0.08)
        for dx, r in ((-1.1, 0.7), (0.0, 1.0), (1.1, 0.75)):
            pen.oval(x + dx * size, y, 1.2 * r * size, 0.6 * r * size, colour)


def _hills(pen: Pen, rng: np.random.Generator, width: float, height: float, colour: Colour) -> None:
    x = np.linspace(0.0, width, 60)
    y = height + 0.035 * np.sin(rng.uniform(2, 5) * x + rng.uniform(0, 6)) + 0.02 * np.sin(rng.uniform(6, 10) * x)
    pen.shape([*zip(x, y, strict=True), (width, 1.0), (0.0, 1.0)], colour)


def _meadow(pen: Pen, rng: np.random.Generator, width: float) -> None:
    sky = _pick(rng, (158, 208, 240), (190, 222, 240), (250, 214, 180), (206, 220, 232))
    _sky(pen, width, sky, shade(sky, 1.8), 0.7)
    _clouds(pen, rng, width, shade(sky, 2.6))
    green = _pick(rng, (132, 184, 96), (164, 190, 92), (106, 166, 106), (186, 180, 100))
    horizon = rng.uniform(0.45, 0.62)
    _hills(pen, rng, width, horizon, shade(green, 1.35))
    _hills(pen, rng, width, horizon + 0.13, green)
    for _ in range(int(rng.integers(8, 20))):
        x, y = rng.uniform(0, width), rng.uniform(horizon + 0.22, 0.98)
        pen.stroke([(x - 0.012, y), (x - 0.016, y - 0.035)], 0.006, shade(green, 0.75))
        pen.stroke([(x, y), (x + 0.006, y - 0.045)], 0.006, shade(green, 0.75))


def _room(pen: Pen, rng: np.random.Generator, width: float) -> None:
    wall = _pick(rng, (238, 220, 196), (204, 220, 214), (214, 208, 230), (240, 208, 200), (222, 226, 200))
    pen.box(0.0, 0.0, width, 1.0, wall)
    step = rng.uniform(0.09, 0.16)
    for k in range(int(width / step) + 1):
        pen.box(k * step, 0.0, k * step + 0.4 * step, 0.9, shade(wall, rng.choice([0.965, 0.975])))
    floor = _pick(rng, (184, 140, 100), (150, 122, 108), (176, 160, 140), (128, 140, 150))
    line = rng.uniform(0.7, 0.82)
    pen.box(0.0, line, width, 1.0, floor)
    pen.box(0.0, line - 0.025, width, line, shade(wall, 1.6))
    if rng.random() < 0.7:
        x, y = rng.uniform(0.0, width), rng.uniform(0.16, 0.3)
        pen.box(x - 0.13, y - 0.13, x + 0.13, y + 0.13, shade(wall, 1.8))
        pen.box(x - 0.11, y - 0.11, x + 0.11, y + 0.11, _pick(rng, (176, 216, 238), (60, 72, 104), (250, 220, 180)))
        pen.box(x - 0.008, y - 0.11, x + 0.008, y + 0.11, shade(wall, 1.8))
        pen.box(x - 0.11, y - 0.008, x + 0.11, y + 0.008, shade(wall, 1.8))


def _beach(pen: Pen, rng: np.random.Generator, width: float) -> None:
    sky = _pick(rng, (150, 206, 236), (244, 196, 160), (188, 208, 226))
    _sky(pen, width, sky, shade(sky, 2.0), 0.55)
    if rng.random() < 0.6:
        pen.oval(rng.uniform(0.1, width - 0.1), rng.uniform(0.12, 0.3), 0.07, 0.07, (255, 240, 190))
    horizon = rng.uniform(0.42, 0.55)
    pen.box(0.0, horizon, width, 1.0, _pick(rng, (92, 160, 190), (110, 170, 176), (96, 134, 176)))
    sand = _pick(rng, (238, 216, 170), (226, 200, 160), (240, 224, 190))
    _hills(pen, rng, width, horizon + 0.14, sand)
    for _ in range(int(rng.integers(6, 16))):
        pen.oval(rng.uniform(0, width), rng.uniform(horizon + 0.25, 0.98), 0.012, 0.006, shade(sand, 0.85))


def _night(pen: Pen, rng: np.random.Generator, width: float) -> None:
    sky = _pick(rng, (38, 46, 88), (52, 42, 84), (28, 56, 84))
    _sky(pen, width, sky, shade(sky, 1.5), 0.75)
    for _ in range(int(rng.integers(15, 35))):
        r = rng.uniform(0.002, 0.005)
        pen.oval(rng.uniform(0, width), rng.uniform(0, 0.5), r, r, (250, 244, 214))
    x, y = rng.uniform(0.1, width - 0.1), rng.uniform(0.1, 0.22)
    pen.oval(x, y, 0.06, 0.06, (250, 240, 206))
    ground = _pick(rng, (62, 84, 84), (74, 78, 66), (70, 66, 92))
    _hills(pen, rng, width, rng.uniform(0.55, 0.65), shade(ground, 1.2))
    _hills(pen, rng, width, 0.74, ground)


def _town(pen: Pen, rng: np.random.Generator, width: float) -> None:
    sky = _pick(rng, (178, 212, 234), (246, 208, 184), (206, 210, 222))
    _sky(pen, width, sky, shade(sky, 1.7), 0.8)
    _clouds(pen, rng, width, shade(sky, 2.4))
    tone = _pick(rng, (150, 160, 186), (176, 150, 150), (146, 168, 166))
    ground = rng.uniform(0.7, 0.78)
    x = -0.05
    while x < width:
        w, top = rng.uniform(0.1, 0.2), ground - rng.uniform(0.15, 0.42)
        wall = shade(tone, rng.uniform(0.9, 1.35))
        pen.box(x, top, x + w, ground, wall)
        for row in np.arange(top + 0.03, ground - 0.05, 0.07):
            for column in np.arange(x + 0.02, x + w - 0.03, 0.045):
                pen.box(column, row, column + 0.022, row + 0.035, shade(wall, rng.choice([0.8, 1.6])))
        x += w + rng.uniform(0.0, 0.04)
    street = _pick(rng, (142, 142, 146), (160, 152, 140), (124, 150, 112))
    pen.box(0.0, ground, width, 1.0, street)
    pen.box(0.0, ground, width, ground + 0.02, shade(street, 1.5))


def _paper(pen: Pen, rng: np.random.Generator, width: float) -> None:
    colour = _pick(
        rng, (244, 226, 186), (196, 222, 226), (232, 204, 214), (210, 222, 190), (222, 214, 236), (90, 104, 122)
    )
    pen.box(0.0, 0.0, width, 1.0, colour)
    for _ in range(int(rng.integers(6, 16))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, 1), rng.uniform(0.02, 0.09)
        pen.oval(x, y, r, r, shade(colour, rng.choice([0.94, 0.97, 1.3])))


BACKDROPS: dict[str, Callable[[Pen, np.random.Generator, float], None]] = {
    "meadow": _meadow,
    "room": _room,
    "beach": _beach,
    "night": _night,
    "town": _town,
    "paper": _paper,
}
"""Every place by name."""


def draw_backdrop(name: str, rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A place as RGB picture of `height` x `width` pixels."""
    picture = Image.new("RGB", (width, height))
    pen = Pen(ImageDraw.Draw(picture), np.array([[height, 0.0, 0.0], [0.0, height, 0.0]]))
    BACKDROPS[name](pen, rng, width / height)
    return picture
