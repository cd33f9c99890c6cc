"""What each stream of a SlowFast model hears, where and when: an exact decomposition of a class's logit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.errors import SettingsError
from models.recognizer import Recognizer


@dataclass(frozen=True, eq=False)
class StreamEvidence:
    """One stream's part of a logit.

    Attributes
    ----------
    stream
        ``slow`` or ``fast``.
    values
        float32 ``[steps, bands]``; positive supports the class, negative opposes it.
    times
        Centre of every step in seconds, ``[steps]``.
    frequencies
        Lower and upper edge of every band in Hz, ``[bands, 2]``.
    """

    stream: str
    values: np.ndarray
    times: np.ndarray
    frequencies: np.ndarray

    @property
    def total(self) -> float:
        """What the stream adds to the logit."""
        return float(self.values.sum(dtype=np.float64))


@dataclass(frozen=True, eq=False)
class LogitDecomposition:
    """``logit = bias + sum of all streams' values``, up to rounding.

    Attributes
    ----------
    target
        The class.
    logit
        What the model says.
    bias
        What it would say of nothing: the class's constant.
    streams
        Slow before fast; one for single-stream models.
    """

    target: str
    logit: float
    bias: float
    streams: tuple[StreamEvidence, ...]

    @property
    def gap(self) -> float:
        """By how much the parts do not add up: rounding only."""
        return self.bias + sum(stream.total for stream in self.streams) - self.logit


@torch.no_grad()
def decompose(recognizer: Recognizer, waveform: np.ndarray, target: str) -> LogitDecomposition:
    """Exact class activation maps of one window of a mono waveform ``[samples]`` at the recognizer's rate.

    Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016: the head is average pooling and a linear
    layer, so every cell of the last stage has its own share in the logit. Cells are coarse (4 frames of a stream, and
    bands of 32 mel bands), and each has seen far more of the clip than its place.

    Raises
    ------
    SettingsError
        If the model is not a SlowFast model.
    """
    from models.families.slowfast import SlowFast

    if not isinstance(recognizer.network, SlowFast):
        raise SettingsError(f"{recognizer.name} has no slow and fast stream.", "Use an attribution method instead.")
    network, frontend = recognizer.network, recognizer.frontend
    index = recognizer.target_index(target)
    limit = recognizer.window_samples
    features = recognizer.features(waveform if limit is None else waveform[:limit])
    logit = float(network(features)[0, index])
    streams = []
    centers = frontend.frequencies
    for path, (stream, part) in enumerate(zip(network.config.streams, network.class_maps(features), strict=True)):
        values = part[0, index].float().cpu().numpy()
        frames = np.arange(values.shape[0]) * network.step_frames(path)
        times = np.interp(frames, np.arange(features.shape[1]), frontend.frame_times(features.shape[1]))
        edges = np.linspace(0, len(centers) - 1, values.shape[1] + 1)
        hertz = np.interp(edges, np.arange(len(centers)), centers)
        streams.append(StreamEvidence(stream, values, times, np.stack([hertz[:-1], hertz[1:]], axis=1)))
    return LogitDecomposition(target, logit, float(network.class_bias()[index]), tuple(streams))
