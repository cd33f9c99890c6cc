"""Figures for tagging and retrieval as EquiAV reports them (specification, section 10)."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


@dataclass(frozen=True)
class TaggingStatistics:
    """Per-class and mean figures.

    Attributes
    ----------
    average_precision, roc_auc
        ``[n_classes]``; NaN for skipped classes.
    mean_average_precision, mean_auc, d_prime, accuracy
        Means over classes that could be judged; d' = sqrt(2) * Phi^-1(mean AUC); share of clips whose best class agrees.
    skipped
        Classes without a positive or without a negative clip.
    """

    average_precision: np.ndarray
    roc_auc: np.ndarray
    mean_average_precision: float
    mean_auc: float
    d_prime: float
    accuracy: float
    skipped: int


def tagging_statistics(scores: np.ndarray, targets: np.ndarray, *, published: bool = False) -> TaggingStatistics:
    """Figures of ``[n, n_classes]`` scores against binary targets.

    Parameters
    ----------
    published
        Count classes that cannot be judged as AUC -1 and AP 0 within the means, rather than skipping them.
    """
    n_classes = targets.shape[1]
    precision, auc = np.full(n_classes, np.nan), np.full(n_classes, np.nan)
    for index in range(n_classes):
        truth = targets[:, index]
        if 0 < truth.sum() < len(truth):
            auc[index] = roc_auc_score(truth, scores[:, index])
        elif published:
            auc[index] = -1.0
        if truth.any():
            precision[index] = average_precision_score(truth, scores[:, index])
        elif published:
            precision[index] = 0.0
    skipped = int(np.isnan(auc).sum())
    mean_precision = float(np.nanmean(precision)) if not np.isnan(precision).all() else math.nan
    mean_auc = float(np.nanmean(auc)) if not np.isnan(auc).all() else math.nan
    accuracy = float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())
    return TaggingStatistics(precision, auc, mean_precision, mean_auc, sensitivity_index(mean_auc), accuracy, skipped)


def sensitivity_index(mean_auc: float) -> float:
    """Sensitivity index d' of a mean AUC; infinite for a perfect one, NaN outside 0..1."""
    if math.isnan(mean_auc) or mean_auc < 0 or mean_auc > 1:
        return math.nan
    if mean_auc in (0.0, 1.0):
        return math.inf if mean_auc else -math.inf
    return math.sqrt(2.0) * statistics.NormalDist().inv_cdf(mean_auc)


def retrieval_figures(queries: np.ndarray, gallery: np.ndarray) -> dict[str, float]:
    """R@1, R@5, R@10 and median rank (from 1) of row-aligned embeddings ``[n, size]`` by cosine similarity."""
    normalized = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, gallery)]
    similarity = normalized[0] @ normalized[1].T
    ranks = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    figures = {f"R{k}": float((ranks < k).mean()) for k in (1, 5, 10)}
    return figures | {"MR": float(np.median(ranks) + 1)}


@dataclass(frozen=True)
class EvaluationTables:
    """The published evaluation script's CSV files as text, and how many true labels were not in the class table."""

    confusion_matrix: str
    predictions: str
    inference_times: str
    unknown_labels: int


def evaluation_tables(
    probabilities: Mapping[str, np.ndarray],
    truths: Mapping[str, Sequence[str]],
    names: Mapping[str, tuple[int, str]],
    seconds: Sequence[float] = (),
    threshold: float = 0.5,
) -> EvaluationTables:
    """Confusion matrix, predictions and times of a multi-label test.

    For each class predicted: if it is true, its own cell counts; otherwise the cell of every true class does. A missed class
    shows only in the totals.

    Parameters
    ----------
    probabilities
        By clip, ``[n_classes]``.
    truths
        By clip, the ids (mids) of its classes; unknown ones are skipped and counted.
    names
        By id: class index and display name, in the order of rows and columns.
    """
    n_classes = len(names)
    display = {index: name for index, name in names.values()}
    matrix, totals = np.zeros((n_classes, n_classes), dtype=int), np.zeros(n_classes, dtype=int)
    unknown, lines = 0, [["Audio File", "Ground Truth Labels", "Top 3 Labels", "Top 3 Confidence"]]
    for clip, probability in probabilities.items():
        known = [names[mid][0] for mid in truths.get(clip, ()) if mid in names]
        unknown += len(truths.get(clip, ())) - len(known)
        totals[known] += 1
        for predicted in np.flatnonzero(probability > threshold):
            for actual in [predicted] if predicted in known else known:
                matrix[actual, predicted] += 1
        best = np.argsort(-probability, kind="stable")[:3]
        lines.append([
            clip, ", ".join(display[i] for i in known), ", ".join(display[int(i)] for i in best),
            ", ".join(f"{probability[i]:.3f}" for i in best),
        ])  # fmt: skip
    order = [index for index, _ in names.values()]
    table = [["Actual \\ Predicted", *(display[i] for i in order), "Total_Positive_Examples"]]
    table += [[display[i], *(str(matrix[i, j]) for j in order), str(totals[i])] for i in order]
    times = [["Inference Time (seconds)"], *([str(s)] for s in seconds)]
    return EvaluationTables(_csv(table), _csv(lines), _csv(times), unknown)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
