"""How an explanation moved: two attributions of the same clip, compared cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.errors import SettingsError
from saliency.attribution import Attribution
from saliency.reconstruction import KeepSettings, smoothed


@dataclass(frozen=True, eq=False)
class Movement:
    """Where an explanation gained and lost between two models, or between two classes.

    Attributes
    ----------
    values
        float32 ``[frames, n_mels]`` on the cells of the second: what each cell has of all that supports the class now, minus
        what it had before; the gains add up to `moved`, the losses to minus `moved`.
    times, frequencies
        Centres of the cells in seconds and Hz.
    moved
        Share of what supports the class that lies elsewhere now, 0 to 1: the total variation distance of the two.
    similarity
        Cosine of the two attributions with their signs, -1 to 1; 0 where one of them is empty.
    gained, lost
        Start, end (s), lowest and highest frequency (Hz) of the box that holds most of the gain and of the loss; None where
        there is none.
    """

    values: np.ndarray
    times: np.ndarray
    frequencies: np.ndarray
    moved: float
    similarity: float
    gained: tuple[float, float, float, float] | None
    lost: tuple[float, float, float, float] | None


def movement(before: Attribution, after: Attribution) -> Movement:
    """Compare two attributions of one clip; the first is brought to the cells of the second.

    Both are smoothed as what is heard of them is, so that single cells which trade places do not count.

    Raises
    ------
    SettingsError
        If either is not of a clip at all.
    """
    if before.values.size == 0 or after.values.size == 0:
        raise SettingsError("There is nothing to compare: an explanation is empty.", "Use a longer clip.")
    old = on_cells(before, after.times, after.frequencies)
    new = _smooth(after.values, after.times)
    norms = float(np.linalg.norm(old) * np.linalg.norm(new))
    similarity = float((old * new).sum() / norms) if norms > 0 else 0.0
    difference = _shares(new) - _shares(old)
    gain, loss = np.maximum(difference, 0), np.maximum(-difference, 0)
    moved = float(max(gain.sum(), loss.sum()))
    return Movement(
        difference.astype(np.float32), after.times, after.frequencies, min(1.0, moved), similarity,
        _box(gain, after.times, after.frequencies), _box(loss, after.times, after.frequencies),
    )  # fmt: skip


def on_cells(attribution: Attribution, times: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """An attribution, smoothed, on other cells; interpolated in time and frequency, float64.

    The sum of its magnitudes stays what it was.
    """
    values = _smooth(attribution.values, attribution.times)
    same_times = len(times) == len(attribution.times) and np.allclose(times, attribution.times)
    same_bands = len(frequencies) == len(attribution.frequencies) and np.allclose(frequencies, attribution.frequencies)
    if same_times and same_bands:
        return values
    in_time = np.stack([np.interp(times, attribution.times, band) for band in values.T], axis=1)
    moved = np.stack([np.interp(frequencies, attribution.frequencies, frame) for frame in in_time])
    total = np.abs(moved).sum()
    return moved * (np.abs(values).sum() / total) if total > 0 else moved


def _smooth(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    step = float(times[1] - times[0]) if len(times) > 1 else 1.0
    return smoothed(values, step, KeepSettings()).astype(np.float64)


def _shares(values: np.ndarray) -> np.ndarray:
    """Of all that supports the class, what each cell has; zero if nothing does."""
    positive = np.maximum(values, 0.0)
    total = positive.sum()
    return positive / total if total > 0 else positive


def _box(part: np.ndarray, times: np.ndarray, frequencies: np.ndarray) -> tuple[float, float, float, float] | None:
    """From the 15 % to the 85 % point of what is there, along both axes."""
    if part.sum() <= 1e-9:
        return None
    edges = []
    for axis, centres in ((1, times), (0, frequencies)):
        running = np.cumsum(part.sum(axis=axis)) / part.sum()
        low, high = np.searchsorted(running, [0.15, 0.85])
        edges += [float(centres[min(low, len(centres) - 1)]), float(centres[min(high, len(centres) - 1)])]
    return edges[0], edges[1], edges[2], edges[3]
