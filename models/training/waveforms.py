"""Loading the examples of a data set as one tensor of equally long waveforms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.clip import open_clip
from models.data import ExampleSet
from models.errors import DataError, EarwitnessError


def fit_samples(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Cut or pad with silence to ``[samples]``."""
    if waveform.shape[0] >= samples:
        return waveform[:samples]
    return np.pad(waveform, (0, samples - waveform.shape[0]))


def load_waveforms(
    examples: ExampleSet,
    sample_rate: int,
    samples: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Waveforms ``[n, samples]`` at `sample_rate` and multi-hot targets ``[n, n_classes]``.

    Raises
    ------
    DataError
        If a file cannot be opened; names the file.
    """
    index = {label: i for i, label in enumerate(examples.labels)}
    waveforms = torch.zeros(len(examples.examples), samples)
    targets = torch.zeros(len(examples.examples), len(examples.labels))
    for row, example in enumerate(examples.examples):
        try:
            clip = open_clip(example.path)
        except EarwitnessError as error:
            raise DataError(f"{example.path.name} cannot be used: {error.message}", error.advice) from error
        waveforms[row] = torch.from_numpy(fit_samples(clip.at(sample_rate), samples))
        for label in example.labels:
            targets[row, index[label]] = 1.0
        if progress is not None:
            progress(row + 1, len(examples.examples))
    return waveforms, targets
