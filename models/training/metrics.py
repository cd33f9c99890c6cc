"""Figures of merit of a classifier on a test set."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of clips whose best class is right; ``[n, n_classes]`` each, one true class a clip."""
    return float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())


def top_right(scores: np.ndarray, targets: np.ndarray, k: int = 1, groups: Sequence[int] = ()) -> np.ndarray:
    """Whether the true class is among the `k` best, bool ``[n]``; with groups of classes, in every group.

    Parameters
    ----------
    scores, targets
        ``[n, n_classes]`` each, one true class a clip in every group.
    groups
        Sizes of consecutive groups of classes (verbs and nouns); none: one group.
    """
    right = np.ones(len(scores), dtype=bool)
    bounds = np.cumsum([0, *(groups or [scores.shape[1]])])
    for first, last in itertools.pairwise(bounds):
        best = np.argsort(-scores[:, first:last], axis=1, kind="stable")[:, :k]
        right &= (best == targets[:, first:last].argmax(axis=1)[:, None]).any(axis=1)
    return right


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of every class, ``[n_classes]``; NaN for classes without a positive clip."""
    from sklearn.metrics import average_precision_score

    values = [
        average_precision_score(targets[:, c], scores[:, c]) if targets[:, c].any() else float("nan")
        for c in range(targets.shape[1])
    ]
    return np.array(values)


def confusion_matrix(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Counts ``[true class, predicted class]``."""
    n_classes = targets.shape[1]
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(matrix, (targets.argmax(axis=1), scores.argmax(axis=1)), 1)
    return matrix


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every class, ``[n_classes]``; NaN for classes without both kinds of clips."""
    from sklearn.metrics import roc_auc_score

    values = [
        roc_auc_score(targets[:, c], scores[:, c]) if 0 < targets[:, c].sum() < len(targets) else float("nan")
        for c in range(targets.shape[1])
    ]
    return np.array(values)


def d_prime(mean_auc: float) -> float:
    """``sqrt(2) * Phi^-1(mean AUC)``: separation of two normal distributions with that area."""
    from scipy.stats import norm

    return float(np.sqrt(2.0) * norm.ppf(mean_auc))


def middle_precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The "average precision and recall" of published training logs.

    Precision-recall curves are thinned to every 1000th point and the middle one is taken, averaged over classes. Of little
    meaning; only for comparing logs.
    """
    from sklearn.metrics import precision_recall_curve

    precisions, recalls = [], []
    for c in range(targets.shape[1]):
        precision, recall, _ = precision_recall_curve(targets[:, c], scores[:, c])
        precision, recall = precision[::1000], recall[::1000]
        precisions.append(precision[len(precision) // 2])
        recalls.append(recall[len(recall) // 2])
    return float(np.mean(precisions)), float(np.mean(recalls))


def best_f1_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The threshold of every class that maximises its F1 on these clips, ``[n_classes]``; infinite where nothing helps."""
    thresholds = np.full(targets.shape[1], np.inf)
    for c in range(targets.shape[1]):
        order = np.argsort(-scores[:, c], kind="stable")
        sorted_scores, hits = scores[order, c], np.cumsum(targets[order, c] > 0)
        f1 = 2.0 * hits / (np.arange(1, len(order) + 1) + max(hits[-1], 1))
        # Clips of equal score are accepted together.
        f1[:-1][sorted_scores[:-1] == sorted_scores[1:]] = -1.0
        best = int(np.argmax(f1))
        if f1[best] > 0:
            thresholds[c] = sorted_scores[best]
    return thresholds


def micro_f1(scores: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> float:
    """F1 over all classes and clips together of ``scores >= thresholds``."""
    accepted, positive = scores >= thresholds, targets > 0
    total = accepted.sum() + positive.sum()
    return float(2.0 * (accepted & positive).sum() / total) if total else 0.0


def best_micro_f1_thresholds(scores: np.ndarray, targets: np.ndarray, sweeps: int = 5) -> np.ndarray:
    """Thresholds ``[n_classes]`` found by coordinate search for micro-F1, starting from each class's own best."""
    thresholds = best_f1_thresholds(scores, targets)
    positive = targets > 0
    accepted = scores >= thresholds
    for _ in range(sweeps):
        before = thresholds.copy()
        for c in range(targets.shape[1]):
            others_hit = (accepted & positive).sum() - (accepted[:, c] & positive[:, c]).sum()
            others_total = accepted.sum() - accepted[:, c].sum() + positive.sum()
            candidates = np.append(np.unique(scores[:, c]), np.inf)
            chosen = scores[:, c] >= candidates[:, None]
            f1 = (
                2.0
                * (others_hit + (chosen & positive[:, c]).sum(axis=1))
                / np.maximum(others_total + chosen.sum(axis=1), 1)
            )
            best = int(np.argmax(f1))
            thresholds[c], accepted[:, c] = candidates[best], chosen[best]
        if np.array_equal(before, thresholds):
            break
    return thresholds


def multi_label_confusion(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Counts ``[true class, predicted class]`` for clips with several labels.

    A clip with k labels is compared with its k best predictions: hits on the diagonal, every pair of a missed and a wrong
    class off it.
    """
    n_classes = targets.shape[1]
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    for score, target in zip(scores, targets, strict=True):
        true = set(np.flatnonzero(target > 0).tolist())
        predicted = set(np.argsort(-score, kind="stable")[: len(true)].tolist())
        for c in true & predicted:
            matrix[c, c] += 1
        for missed in true - predicted:
            for wrong in predicted - true:
                matrix[missed, wrong] += 1
    return matrix
