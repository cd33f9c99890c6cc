"""How an explanation moved: known movements come out as they were made."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import SettingsError
from saliency.attribution import Attribution
from saliency.difference import movement, on_cells

TIMES, BANDS = np.arange(200) * 0.01, np.linspace(50.0, 8000.0, 64)


def attribution(
    *spots: tuple[float, float, float], times: np.ndarray = TIMES, bands: np.ndarray = BANDS
) -> Attribution:
    """Round spots at (seconds, Hz) of a height."""
    values = np.zeros((len(times), len(bands)))
    for second, hertz, height in spots:
        values += height * np.exp(-(((times - second) / 0.05) ** 2)[:, None] - (((bands - hertz) / 400.0) ** 2)[None])
    return Attribution(values.astype(np.float32), times, bands, "dog", "made")


def test_nothing_moved() -> None:
    same = movement(attribution((0.5, 2000, 1.0)), attribution((0.5, 2000, 1.0)))
    assert same.moved == pytest.approx(0.0, abs=1e-9) and same.similarity == pytest.approx(1.0)
    assert same.gained is None and same.lost is None


def test_level_alone_is_no_movement() -> None:
    assert movement(attribution((0.5, 2000, 1.0)), attribution((0.5, 2000, 40.0))).moved == pytest.approx(0.0, abs=1e-6)


def test_all_of_it_moved() -> None:
    far = movement(attribution((0.4, 1000, 1.0)), attribution((1.5, 6000, 1.0)))
    assert far.moved == pytest.approx(1.0, abs=0.01) and far.similarity == pytest.approx(0.0, abs=0.01)
    assert far.values.sum() == pytest.approx(0.0, abs=1e-5)
    assert np.maximum(far.values, 0).sum() == pytest.approx(far.moved, abs=1e-4)
    assert far.gained is not None and far.lost is not None
    start, end, low, high = far.gained
    assert start < 1.5 < end and low < 6000 < high and end - start < 0.2
    start, end, low, high = far.lost
    assert start < 0.4 < end and low < 1000 < high


def test_half_of_it_moved() -> None:
    half = movement(attribution((0.4, 1000, 1.0), (1.0, 3000, 1.0)), attribution((0.4, 1000, 1.0), (1.5, 6000, 1.0)))
    assert half.moved == pytest.approx(0.5, abs=0.02)


def test_what_opposes_does_not_count_as_moved_but_as_unlike() -> None:
    with_opposing = movement(attribution((0.5, 2000, 1.0)), attribution((0.5, 2000, 1.0), (1.5, 6000, -1.0)))
    assert with_opposing.moved == pytest.approx(0.0, abs=1e-6)
    assert with_opposing.similarity == pytest.approx(1 / np.sqrt(2), abs=0.01)


def test_empty_explanations() -> None:
    nothing = movement(attribution(), attribution())
    assert nothing.moved == 0.0 and nothing.similarity == 0.0 and np.isfinite(nothing.values).all()
    appeared = movement(attribution(), attribution((0.5, 2000, 1.0)))
    assert appeared.moved == pytest.approx(1.0) and appeared.lost is None
    with pytest.raises(SettingsError, match="empty"):
        movement(attribution(times=TIMES[:0]), attribution())


def test_other_cells_are_brought_together() -> None:
    coarse = np.arange(50) * 0.04, np.linspace(100.0, 7000.0, 32)
    before = attribution((0.5, 2000, 1.0), times=coarse[0], bands=coarse[1])
    moved = on_cells(before, TIMES, BANDS)
    assert moved.shape == (200, 64)
    frame, band = np.unravel_index(moved.argmax(), moved.shape)
    assert TIMES[frame] == pytest.approx(0.5, abs=0.05) and BANDS[band] == pytest.approx(2000, abs=250)
    assert movement(before, attribution((0.5, 2000, 1.0))).moved < 0.2
    one = Attribution(np.ones((10, 1), np.float32), np.arange(10) * 0.1, np.array([4000.0]), "dog", "made")
    assert movement(one, attribution((0.5, 2000, 1.0))).values.shape == (200, 64)
