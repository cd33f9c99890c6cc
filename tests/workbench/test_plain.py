"""Plain data survive the way through JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest

from workbench.plain import pack, unpack


@dataclass(frozen=True)
class Part:
    values: np.ndarray
    name: str
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    kind: Literal["a", "b"]
    by_layer: dict[int, np.ndarray]
    best: Part | None = None
    share: float | None = None
    notes: list[str] = field(default_factory=list)


def test_there_and_back() -> None:
    part = Part(np.arange(6.0).reshape(2, 3), "<b>&\u00e4", (0.5, 2.0))
    parts = (part, Part(np.zeros(0, dtype=np.int64), ""))
    whole = Whole(parts, "b", {3: np.eye(2), 1: np.ones(1)}, part, np.float64(0.5), ["x"])
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(pack(whole, arrays, "whole"))
    back = unpack(Whole, json.loads(text), arrays)
    assert isinstance(back, Whole) and isinstance(back.parts[0].span, tuple) and back.best is not None
    np.testing.assert_array_equal(back.parts[0].values, part.values)
    assert back.parts[1].values.dtype == np.int64 and list(back.by_layer) == [3, 1]
    assert back.best.name == part.name and back.share == 0.5 and back.notes == ["x"] and back.kind == "b"


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TypeError, match=r"whole\.0 holds a set"):
        pack([{1}], {}, "whole")


@pytest.mark.parametrize("data", [{"values": {"array": "gone"}, "name": "x", "span": [0, 1]}, {"name": "x"}, None, [1]])
def test_damaged_data_are_refused(data: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        unpack(Part, data, {})
