"""The cells of a map: how relevance of features is laid out over seconds and Hz.

For most front ends a cell is a feature. Two differ: models that read samples get one band over time, and models that read
several levels, one after the other, get them summed on the clock of the coarsest.
"""

from __future__ import annotations

import numpy as np

from models.frontends import FrontEnd
from models.frontends.play_it_back import PlayItBackMel
from saliency.methods import MethodSettings

# Length of a cell of models that read samples.
SAMPLE_CELL_SECONDS = 0.01


class Cells:
    """Cells that are the features themselves.

    Attributes
    ----------
    hop_length
        Samples between neighbouring cells.
    frequencies
        Centre of every band in Hz.
    """

    def __init__(self, frontend: FrontEnd) -> None:
        self.frontend = frontend
        self.hop_length = frontend.hop_length
        self.frequencies = frontend.frequencies

    @property
    def seconds(self) -> float:
        """Seconds between neighbouring cells."""
        return self.hop_length / self.frontend.sample_rate

    def times(self, n_samples: int) -> np.ndarray:
        """Centre in seconds of every cell of a clip, float64."""
        return self.frontend.frame_times(max(1, self.frontend.frames_for(n_samples)))

    def fold(self, values: np.ndarray, n_samples: int) -> np.ndarray:
        """Cells ``[cells, bands]`` of a window of so many samples, from the relevance of its features."""
        return fold_padding(values, self.frontend.valid_frames(n_samples), self.frontend.config.padding == "repeat")

    def scaled(self, settings: MethodSettings) -> MethodSettings:
        """Settings of a method whose lengths are in cells, with lengths in features."""
        return settings


class SampleCells(Cells):
    """One band over time, for models that read samples: relevance is summed over 10 ms."""

    def __init__(self, frontend: FrontEnd) -> None:
        super().__init__(frontend)
        self.hop_length = max(1, round(SAMPLE_CELL_SECONDS * frontend.sample_rate))
        # The middle of what the model can hear.
        self.frequencies = np.array([frontend.sample_rate / 4])

    def _edges(self, n_samples: int) -> np.ndarray:
        return np.append(np.arange(0, max(1, n_samples), self.hop_length), max(1, n_samples))

    def times(self, n_samples: int) -> np.ndarray:
        """Centres of stretches of 10 ms; the last may be shorter."""
        edges = self._edges(n_samples)
        return (edges[:-1] + edges[1:]) / 2 / self.frontend.sample_rate

    def fold(self, values: np.ndarray, n_samples: int) -> np.ndarray:
        """Sums over 10 ms; samples after the end of the clip are padding."""
        heard = values[: max(1, n_samples)].astype(np.float64)
        return np.add.reduceat(heard, self._edges(len(heard))[:-1], axis=0)

    def scaled(self, settings: MethodSettings) -> MethodSettings:
        """Patches are given in cells, but silenced in samples."""
        frames = getattr(settings, "frames", None)
        return settings if frames is None else settings.model_copy(update={"frames": frames * self.hop_length})


class LevelCells(Cells):
    """Cells of the coarsest of several levels; finer ones add their relevance to the cell at their time."""

    frontend: PlayItBackMel

    def times(self, n_samples: int) -> np.ndarray:
        """Centres of the coarsest level's frames."""
        return np.arange(1 + n_samples // self.hop_length) * self.seconds

    def fold(self, values: np.ndarray, n_samples: int) -> np.ndarray:
        """Sums over levels; what lies behind the end of a short clip repeats its last frame."""
        merged, times = self.frontend.merge_levels(values)
        repeated = not self.frontend.schedule.corrected
        return fold_padding(merged, min(len(times), 1 + n_samples // self.hop_length), repeated)


def cells_of(frontend: FrontEnd) -> Cells:
    """The cells in which relevance is shown for a front end."""
    if isinstance(frontend, PlayItBackMel):
        return LevelCells(frontend)
    return SampleCells(frontend) if frontend.n_mels == 0 else Cells(frontend)


def fold_padding(values: np.ndarray, valid: int, repeated: bool) -> np.ndarray:
    """Cut the padded frames off; where they repeat the last frame, their relevance belongs to it."""
    if repeated and len(values) > valid:
        values = values.copy()
        values[valid - 1] += values[valid:].sum(axis=0)
    return values[:valid]
