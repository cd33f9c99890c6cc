"""Testing with several crops of every clip, and the figures that published SlowFast results are given in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from models.errors import SettingsError
from models.recognizer import Recognizer
from models.training.metrics import average_precision

Ensemble = Literal["sum", "max"]


def view_bounds(n_samples: int, clip_samples: int, n_views: int, view: int, offset: int = 0) -> tuple[int, int]:
    """Start and end of a test view, for ``samples[start:end]``.

    Views are spread evenly from the beginning to the end of the signal; one view is its beginning. They have
    ``clip_samples - 1`` samples, because the published code counts the end twice.

    Parameters
    ----------
    n_samples
        Of the file or segment.
    offset
        Where the segment begins in the file, in samples.
    """
    if not 0 <= view < n_views:
        raise SettingsError(f"View {view} does not exist: there are {n_views}, counted from 0.")
    start = float(np.linspace(0.0, max(n_samples - clip_samples, 0), n_views)[view])
    return int(offset + start), int(offset + start + clip_samples - 1)


def crop_view(
    samples: np.ndarray, clip_samples: int, n_views: int, view: int, segment: tuple[int, int] | None = None
) -> np.ndarray:
    """Samples ``[n]`` of a test view of a file, or of `segment` (start and end sample) in it.

    A signal shorter than the crop is its own only view: nothing beyond the segment is read.
    """
    start, stop = segment or (0, len(samples))
    if stop - start < clip_samples:
        return samples[start:stop]
    first, last = view_bounds(stop - start, clip_samples, n_views, view, start)
    return samples[first:last]


def combine_views(scores: np.ndarray, n_views: int, method: Ensemble = "sum") -> np.ndarray:
    """Scores ``[clips, n_classes]`` of views ``[clips * n_views, n_classes]``, the views of a clip being neighbours."""
    if n_views < 1 or len(scores) % n_views:
        raise SettingsError(f"{len(scores)} views cannot be shared among clips of {n_views} views each.")
    grouped = scores.reshape(-1, n_views, scores.shape[1])
    return grouped.max(axis=1) if method == "max" else grouped.sum(axis=1)


def in_top(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether the true class ``[clips]`` is among the `k` best of ``[clips, n_classes]``, bool ``[clips]``."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return (best == np.asarray(labels)[:, None]).any(axis=1)


def top_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of clips whose true class is among the `k` best."""
    return float(in_top(scores, labels, k).mean())


def action_accuracy(
    verb_scores: np.ndarray, noun_scores: np.ndarray, verbs: np.ndarray, nouns: np.ndarray, k: int = 1
) -> float:
    """Share of clips whose verb is among the `k` best verbs and whose noun is among the `k` best nouns."""
    return float((in_top(verb_scores, verbs, k) & in_top(noun_scores, nouns, k)).mean())


@dataclass(frozen=True, eq=False)
class RankingFigures:
    """Average precision and area under the ROC curve of every class ``[n_classes]``, and their summaries.

    Classes without a positive or without a negative clip are NaN and left out of the means.
    """

    average_precision: np.ndarray
    roc_auc: np.ndarray

    @property
    def mean_average_precision(self) -> float:
        """Mean over classes."""
        return float(np.nanmean(self.average_precision))

    @property
    def mean_auc(self) -> float:
        """Mean over classes."""
        return float(np.nanmean(self.roc_auc))

    @property
    def d_prime(self) -> float:
        """``sqrt(2) * inverse normal CDF(mean AUC)``."""
        from scipy.stats import norm

        return float(np.sqrt(2.0) * norm.ppf(self.mean_auc))


def ranking_figures(scores: np.ndarray, labels: np.ndarray) -> RankingFigures:
    """Figures of ``[clips, n_classes]`` with one true class ``[clips]`` each."""
    from sklearn.metrics import roc_auc_score

    targets = np.zeros(scores.shape, dtype=np.int64)
    targets[np.arange(len(scores)), np.asarray(labels)] = 1
    auc = [
        roc_auc_score(targets[:, c], scores[:, c]) if 0 < targets[:, c].sum() < len(targets) else float("nan")
        for c in range(scores.shape[1])
    ]
    return RankingFigures(average_precision(scores, targets), np.array(auc))


@dataclass(frozen=True, eq=False)
class ViewScores:
    """Class scores of every view of a clip.

    Attributes
    ----------
    starts
        Beginning of each view in seconds, ``[n_views]``.
    views
        Probabilities ``[n_views, n_classes]``.
    combined
        Their sum or maximum, ``[n_classes]``; only its order means something.
    """

    starts: np.ndarray
    views: np.ndarray
    combined: np.ndarray


@torch.no_grad()
def score_views(recognizer: Recognizer, waveform: np.ndarray, n_views: int = 2, method: Ensemble = "sum") -> ViewScores:
    """Scores of a mono waveform ``[samples]`` at the recognizer's rate, view by view (2 for VGG-Sound, 10 for EPIC).

    Raises
    ------
    SettingsError
        If the model reads clips of any length, so that there are no views.
    """
    if recognizer.window_samples is None:
        raise SettingsError(f"{recognizer.name} reads whole clips, so it has no test views.", "Score the whole clip.")
    crop = recognizer.window_samples + 1
    starts, views = [], []
    for view in range(n_views):
        part = crop_view(waveform, crop, n_views, view)
        first = view_bounds(len(waveform), crop, n_views, view)[0] if len(waveform) >= crop else 0
        starts.append(first / recognizer.sample_rate)
        views.append(recognizer.probabilities(recognizer(recognizer.features(part)))[0].cpu().numpy())
    stacked = np.stack(views)
    return ViewScores(np.array(starts), stacked, combine_views(stacked, n_views, method)[0])
