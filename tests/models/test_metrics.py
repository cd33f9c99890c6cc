"""Figures of merit against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from models.training import metrics


def data(n: int = 40, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, n_classes)) < 0.3).astype(float)
    return rng.random((n, n_classes)) + 0.3 * targets, targets


def precision_by_definition(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the positive clips of the precision at their rank."""
    order = np.argsort(-scores)
    hits = targets[order] > 0
    return float(np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)]))


def precision_by_thresholds(scores: np.ndarray, targets: np.ndarray) -> float:
    """Sum over the distinct scores of the precision there, times what recall gains: equal scores stand or fall together."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accepted = scores >= threshold
        recall = float(targets[accepted].sum() / targets.sum())
        total += (recall - before) * float(targets[accepted].mean())
        before = recall
    return total


def area_by_definition(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of pairs of a positive and a negative clip that are in the right order."""
    positive, negative = scores[targets > 0], scores[targets == 0]
    return float(np.mean((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)))


def test_average_precision_and_area_by_their_definitions() -> None:
    scores, targets = data()
    assert len(np.unique(scores)) == scores.size
    for c in range(targets.shape[1]):
        expected = precision_by_definition(scores[:, c], targets[:, c])
        assert metrics.average_precision(scores, targets)[c] == pytest.approx(expected)
        assert metrics.roc_auc(scores, targets)[c] == pytest.approx(area_by_definition(scores[:, c], targets[:, c]))


@pytest.mark.parametrize("seed", range(3))
def test_equal_scores_stand_or_fall_together(seed: int) -> None:
    scores, targets = data(seed=seed)
    scores = scores.round(1)
    for c in range(targets.shape[1]):
        expected = precision_by_thresholds(scores[:, c], targets[:, c])
        assert metrics.average_precision(scores, targets)[c] == pytest.approx(expected)
        assert metrics.roc_auc(scores, targets)[c] == pytest.approx(area_by_definition(scores[:, c], targets[:, c]))


def test_the_best_k_by_counting() -> None:
    rng = np.random.default_rng(3)
    scores, truth = rng.random((50, 7)), rng.integers(0, 7, 50)
    for k in (1, 2, 5, 7, 9):
        better = (scores > scores[np.arange(50), truth][:, None]).sum(axis=1)
        assert metrics.top_right(scores, np.eye(7)[truth], k).tolist() == (better < k).tolist()


def test_classes_without_a_positive_clip_have_no_precision() -> None:
    scores, targets = data()
    targets[:, 1] = 0
    targets[:, 2] = 1
    found = metrics.average_precision(scores, targets)
    assert np.isnan(found).tolist() == [False, True, False, False] and found[2] == pytest.approx(1.0)
    assert np.isnan(metrics.roc_auc(scores, targets)).tolist() == [False, True, True, False]


def test_accuracy_and_confusion_agree() -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.integers(0, 3, 30), rng.random((30, 4))
    targets = np.eye(4)[truth]
    matrix = metrics.confusion_matrix(scores, targets)
    assert matrix.shape == (4, 4) and matrix.sum() == 30
    for true in range(4):
        for guess in range(4):
            count = sum(t == true and s.argmax() == guess for t, s in zip(truth, scores, strict=True))
            assert matrix[true, guess] == count
    assert metrics.accuracy(scores, targets) == pytest.approx(np.trace(matrix) / 30)
    assert metrics.accuracy(targets, targets) == 1.0


def test_d_prime_is_the_separation_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(2)
    separation = 1.3
    scores = np.concatenate([rng.normal(separation, 1, 4000), rng.normal(0, 1, 4000)])
    area = area_by_definition(scores, np.repeat([1, 0], 4000))
    assert metrics.d_prime(area) == pytest.approx(separation, abs=0.08)
    assert metrics.d_prime(1 - area) == pytest.approx(-metrics.d_prime(area))


@pytest.mark.parametrize("seed", range(4))
def test_no_other_threshold_gives_a_better_f1(seed: int) -> None:
    scores, targets = data(seed=seed)
    scores = scores.round(1)  # equal scores
    thresholds = metrics.best_f1_thresholds(scores, targets)
    for c in range(targets.shape[1]):

        def f1(threshold: float, c: int = c) -> float:
            return metrics.micro_f1(scores[:, c : c + 1], targets[:, c : c + 1], np.array([threshold]))

        assert f1(thresholds[c]) == pytest.approx(max(f1(t) for t in [*scores[:, c], np.inf]))


def test_f1_by_hand_and_of_nothing() -> None:
    scores, targets = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.6]]), np.array([[1, 0], [0, 1], [1, 0]])
    # Accepted: (0,0), (1,0), (1,1), (2,1); right: (0,0), (1,1); 3 positive.
    assert metrics.micro_f1(scores, targets, np.array([0.5, 0.5])) == pytest.approx(2 * 2 / (4 + 3))
    assert metrics.micro_f1(scores, np.zeros_like(targets), np.array([2.0, 2.0])) == 0.0
    assert np.isinf(metrics.best_f1_thresholds(scores, np.zeros_like(targets))).all()


def test_middle_precision_and_recall_of_a_short_curve_are_those_of_its_first_point() -> None:
    """Under 1000 points the thinned curve is one point: everything accepted."""
    scores, targets = data()
    precision, recall = metrics.middle_precision_recall(scores, targets)
    assert precision == pytest.approx(targets.mean(axis=0).mean()) and recall == pytest.approx(1.0)
