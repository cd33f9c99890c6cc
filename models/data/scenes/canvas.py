"""A pen that draws flat shapes in coordinates of its own: moved, turned and scaled as a puppet's limbs are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Colour = tuple[int, int, int] | tuple[int, int, int, int]
Points = Sequence[tuple[float, float]] | NDArray[np.float64]

_CORNERS = 28


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (below 1) or lighter (above 1) tone of a colour; opaque."""
    if factor <= 1.0:
        red, green, blue = (round(value * factor) for value in colour[:3])
    else:
        red, green, blue = (round(255 - (255 - value) / factor) for value in colour[:3])
    return red, green, blue


@functools.cache
def _circle(start: float, stop: float, n: int) -> NDArray[np.float64]:
    angles = np.linspace(start, stop, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@functools.cache
def _spline(n: int, closed: bool, steps: int = 7) -> NDArray[np.float64]:
    """Catmull-Rom weights `[points on the curve, n]` of `n` knots."""
    rows = []
    for k in range(n if closed else n - 1):
        for u in np.arange(steps) / steps:
            weights = (
                0.5 * (-u + 2 * u**2 - u**3),
                0.5 * (2 - 5 * u**2 + 3 * u**3),
                0.5 * (u + 4 * u**2 - 3 * u**3),
                0.5 * (u**3 - u**2),
            )
            row = np.zeros(n)
            for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
                row[(k + offset) % n if closed else min(max(k + offset, 0), n - 1)] += weight
            rows.append(row)
    if not closed:
        rows.append(np.eye(n)[-1])
    return np.array(rows)


@dataclass(frozen=True)
class Pen:
    """Draws on a picture in coordinates of its own: x to the right, y down.

    `matrix` `[2, 3]` takes a point of the pen's coordinates to pixels.
    """

    target: ImageDraw.ImageDraw
    matrix: NDArray[np.float64]

    def at(self, x: float = 0.0, y: float = 0.0, turn: float = 0.0, scale: float = 1.0) -> Pen:
        """A pen whose origin lies at `(x, y)` of this one, turned by `turn` degrees (clockwise) and scaled."""
        angle = np.deg2rad(turn)
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        linear = self.matrix[:, :2]
        offset = linear @ np.array([x, y]) + self.matrix[:, 2]
        matrix = np.empty((2, 3))
        matrix[:, :2] = linear @ np.array([[cosine, -sine], [sine, cosine]])
        matrix[:, 2] = offset
        return Pen(self.target, matrix)

    def _fill(self, points: NDArray[np.float64], colour: Colour) -> None:
        pixels = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        self.target.polygon(pixels.ravel().tolist(), fill=colour)

    def shape(self, points: Points, colour: Colour) -> None:
        """A polygon."""
        self._fill(np.asarray(points, dtype=float), colour)

    def blob(self, points: Points, colour: Colour) -> None:
        """A closed smooth curve through the points."""
        self._fill(_spline(len(points), True) @ np.asarray(points, dtype=float), colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour, turn: float = 0.0) -> None:
        """An ellipse."""
        points = _circle(0.0, 2 * np.pi, _CORNERS) * (rx, ry)
        if turn:
            cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
            points = points @ np.array([[cosine, sine], [-sine, cosine]])
        self._fill(points + np.array([x, y]), colour)

    def sector(self, x: float, y: float, rx: float, ry: float, start: float, stop: float, colour: Colour) -> None:
        """The part of an ellipse between two angles in degrees, closed by a straight line (0 is right, 90 down)."""
        self._fill(_circle(np.deg2rad(start), np.deg2rad(stop), 16) * (rx, ry) + np.array([x, y]), colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A rectangle."""
        self._fill(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), colour)

    def stroke(self, points: Points, width: float, colour: Colour, *, end: float | None = None) -> None:
        """A smooth line through the points with round ends, `width` thick at its beginning and `end` at its end."""
        knots = np.asarray(points, dtype=float)
        line = _spline(len(knots), False) @ knots if len(knots) > 2 else knots
        along = np.empty_like(line)
        along[1:-1] = line[2:] - line[:-2]
        along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
        half = np.linspace(0.5 * width, 0.5 * (width if end is None else end), len(line))
        half_over_length = half / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
        side = along[:, ::-1] * half_over_length[:, None] * (-1.0, 1.0)
        self._fill(np.concatenate([line + side, line[::-1] - side[::-1]]), colour)
        for place, radius in ((line[0], half[0]), (line[-1], half[-1])):
            self._fill(_circle(0.0, 2 * np.pi, 13) * radius + place, colour)
