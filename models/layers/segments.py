"""Cutting a clip into equally spaced segments, the nodes of an event graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from models.errors import SettingsError


@dataclass(frozen=True)
class Segmentation:
    """Segment s covers ``[s * step, s * step + size)`` in samples or frames at `rate` (Hz)."""

    size: int
    step: int
    count: int
    rate: float

    @classmethod
    def of(cls, length: int, n_segments: int, milliseconds: float, rate: float) -> Segmentation:
        """The published rule: ``size = int(ms * rate * 0.001)``, ``step = (length - size) // (n_segments - 1)``.

        `count` is the number that fit, which is larger than `n_segments` where the step is small compared with it.

        Raises
        ------
        SettingsError
            If the clip is too short for so many segments.
        """
        size = int(milliseconds * int(rate) * 0.001)
        step = (length - size) // (n_segments - 1) if n_segments > 1 else 0
        if size < 1 or step < 1:
            raise SettingsError(
                f"{length / rate:.3g} s cannot be cut into {n_segments} segments of {milliseconds:g} ms.",
                "Use a longer clip, at least two segments, or shorter ones.",
            )
        return cls(size, step, (length - size) // step + 1, rate)

    @property
    def starts(self) -> np.ndarray:
        """Where segments begin, in seconds, float64 ``[count]``."""
        return np.arange(self.count) * self.step / self.rate

    @property
    def ends(self) -> np.ndarray:
        """Where segments end, in seconds, float64 ``[count]``."""
        return self.starts + self.size / self.rate

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """Segments of `x` along `dim`, which becomes ``count``; the values of a segment are a new last dimension."""
        return x.unfold(dim, self.size, self.step)

    def check(self, n_segments: int, what: str) -> None:
        """Refuse a clip whose number of segments is not the number of nodes.

        Raises
        ------
        SettingsError
            If they differ.
        """
        if self.count != n_segments:
            raise SettingsError(
                f"The {what} of this clip cuts into {self.count} segments of {self.size / self.rate:.3g} s, "
                f"but the model has {n_segments} {what} nodes.",
                "Use a clip of the length that the model was trained with.",
            )
