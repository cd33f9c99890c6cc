"""Predictions, in overlapping windows where a clip is longer than what the model reads at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.recognizer import Recognizer

if TYPE_CHECKING:
    from models.video import VideoTrack

Progress = Callable[[int, int], None]
SPARE = 0.02


@dataclass(frozen=True, eq=False)
class Prediction:
    """Class scores of a clip.

    Attributes
    ----------
    labels
        Class names.
    scores
        ``[n_classes]`` in 0..1, pooled over the windows: their mean for single-label models (sums to 1), their maximum for
        multi-label ones (an event in one window is an event in the clip).
    logits
        ``[n_classes]``, of the best window for each class.
    windows
        ``[n_windows, 2]``: start and end of every window in seconds.
    window_scores
        ``[n_windows, n_classes]``.
    """

    labels: tuple[str, ...]
    scores: np.ndarray
    logits: np.ndarray
    windows: np.ndarray
    window_scores: np.ndarray

    def ranking(self) -> list[tuple[str, float]]:
        """Labels and scores, best first."""
        return [(self.labels[i], float(self.scores[i])) for i in np.argsort(-self.scores, kind="stable")]


def window_starts(n_samples: int, window: int | None, hop: int | None = None) -> list[int]:
    """First sample of every window over a clip; the last window ends with the clip.

    What exceeds a single window by no more than `SPARE` of it is left out: codecs lengthen a clip by some ms, which is no
    second window.

    Parameters
    ----------
    n_samples
        Length of the clip at the model's rate.
    window
        Samples the model reads at once, None for any number.
    hop
        Distance of windows, at most a window (nothing may stay unheard); half a window by default.
    """
    if window is None or n_samples <= window + int(SPARE * window):
        return [0]
    hop = min(hop or max(1, window // 2), window)
    starts = list(range(0, n_samples - window, hop))
    return [*starts, n_samples - window]


def hop_samples(recognizer: Recognizer) -> int | None:
    """The distance of windows that the model's card asks for, in samples."""
    seconds = recognizer.card.hop_seconds
    return None if seconds is None else max(1, round(seconds * recognizer.sample_rate))


@torch.no_grad()
def predict(
    recognizer: Recognizer,
    waveform: np.ndarray,
    *,
    video: VideoTrack | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Prediction:
    """Scores of a mono waveform ``[samples]`` at the recognizer's rate, and of the picture if the model looks at it.

    Raises
    ------
    MediaError
        If the video cannot be decoded.
    """
    window = recognizer.window_samples
    starts = window_starts(len(waveform), window, hop_samples(recognizer))
    length = len(waveform) if window is None else min(window, len(waveform))
    logits_of, scores_of = [], []
    for first in range(0, len(starts), batch_size):
        part = starts[first : first + batch_size]
        batch = np.stack([waveform[start : start + length] for start in part])
        seen = [
            recognizer.frames(video, start / recognizer.sample_rate, length / recognizer.sample_rate) for start in part
        ]
        frames = torch.cat([picture for picture in seen if picture is not None]) if recognizer.reads_video else None
        with recognizer.lock:
            logits = recognizer(recognizer.features(batch), frames)
        scores_of.append(recognizer.probabilities(logits).float().cpu().numpy())
        logits_of.append(logits.float().cpu().numpy())
        if progress is not None:
            progress(min(first + batch_size, len(starts)), len(starts))
    window_scores, window_logits = np.concatenate(scores_of), np.concatenate(logits_of)
    pooled = window_scores.mean(axis=0) if recognizer.card.task == "single-label" else window_scores.max(axis=0)
    bounds = np.array([[start, start + length] for start in starts], dtype=np.float64) / recognizer.sample_rate
    return Prediction(tuple(recognizer.labels), pooled, window_logits.max(axis=0), bounds, window_scores)
