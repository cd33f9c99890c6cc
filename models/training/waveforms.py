"""Loading the examples of a data set as one tensor of equally long waveforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.clip import Clip, open_clip
from models.data import Example, ExampleSet
from models.errors import DataError, EarwitnessError


def fit_samples(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Cut or pad with silence to ``[samples]``."""
    if waveform.shape[0] >= samples:
        return waveform[:samples]
    return np.pad(waveform, (0, samples - waveform.shape[0]))


def annotated_part(clip: Clip, example: Example) -> Clip:
    """The part of an opened file that an example annotates.

    Raises
    ------
    MediaError
        If there is no sound between its `start` and `stop`.
    """
    if example.start is None and example.stop is None:
        return clip
    return clip.excerpt(example.start or 0.0, clip.duration if example.stop is None else example.stop)


def load_waveforms(
    examples: ExampleSet,
    sample_rate: int,
    samples: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Waveforms ``[n, samples]`` at `sample_rate` and multi-hot targets ``[n, n_classes]``.

    Of examples that annotate a part of a file, that part is loaded; a recording is decoded once for neighbouring examples.

    Raises
    ------
    DataError
        If a file cannot be opened, or ends before its annotated part; names the file.
    """
    index = {label: i for i, label in enumerate(examples.labels)}
    waveforms = torch.zeros(len(examples.examples), samples)
    targets = torch.zeros(len(examples.examples), len(examples.labels))
    opened: tuple[Path, Clip] | None = None
    for row, example in enumerate(examples.examples):
        try:
            if opened is None or opened[0] != example.path:
                opened = example.path, open_clip(example.path)
            clip = annotated_part(opened[1], example)
        except EarwitnessError as error:
            raise DataError(f"{example.path.name} cannot be used: {error.message}", error.advice) from error
        waveforms[row] = torch.from_numpy(fit_samples(clip.at(sample_rate), samples))
        for label in example.labels:
            targets[row, index[label]] = 1.0
        if progress is not None:
            progress(row + 1, len(examples.examples))
    return waveforms, targets
