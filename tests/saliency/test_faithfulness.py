"""Figures of faithfulness, sparseness and complexity against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import SettingsError
from saliency.trust.faithfulness import (
    complexity,
    deletion_advantage,
    input_faithfulness,
    perturbation_curve,
    sparseness,
)


def test_input_faithfulness_by_hand() -> None:
    full = np.array([[0.8, 0.2], [0.4, 0.6]])
    kept = np.array([[0.4, 0.6], [0.1, 0.9]])
    removed = np.array([[0.3, 0.7], [0.5, 0.5]])
    found = input_faithfulness(full, kept, removed)
    np.testing.assert_allclose(found.average_increase, [0.0, 100.0])
    np.testing.assert_allclose(found.average_drop, [50.0, 0.0])
    np.testing.assert_allclose(found.average_gain, [0.0, 75.0])
    np.testing.assert_allclose(found.faithfulness, [0.5, 0.1])
    np.testing.assert_allclose(found.input_fidelity, [0.0, 1.0])
    other = input_faithfulness(full, kept, removed, np.array([1, 1]))
    np.testing.assert_allclose(other.faithfulness, [-0.5, 0.1])
    np.testing.assert_allclose(other.input_fidelity, [1.0, 1.0])


def test_logits_and_unequal_tables_are_refused() -> None:
    good = np.array([[0.5, 0.5]])
    for bad in (np.array([[2.0, -1.0]]), np.array([[0.2, 0.3, 0.5]]), np.array([[np.nan, 0.5]])):
        with pytest.raises(SettingsError):
            input_faithfulness(good, bad, good)


def test_sparseness_and_complexity_of_extremes() -> None:
    one = np.zeros((10, 10))
    one[3, 4] = -2.0
    assert sparseness(one) == pytest.approx(0.99, abs=1e-4) and complexity(one) == pytest.approx(0.0, abs=1e-9)
    same = np.full((10, 10), 0.3)
    assert sparseness(same) == pytest.approx(0.0, abs=1e-9) and complexity(same) == pytest.approx(np.log(100))
    # Two cells, shares 1/4 and 3/4.
    pair = np.array([1.0, -3.0])
    assert complexity(pair) == pytest.approx(0.25 * np.log(4) + 0.75 * np.log(4 / 3))
    assert sparseness(pair) == pytest.approx(0.25, abs=1e-6)
    assert sparseness(np.zeros(4)) == 0.0 and complexity(np.zeros(4)) == pytest.approx(np.log(4))


def linear(weights: np.ndarray):
    return lambda batch: (batch * weights).sum(axis=(1, 2))


def test_curves_of_a_linear_model() -> None:
    """For a linear score the relevances are exact, so deletion falls fastest and its area is known."""
    weights = np.array([[4.0, 3.0], [2.0, 1.0]])
    ones = np.ones((2, 2))
    deletion = perturbation_curve(ones, 0.0, weights, linear(weights), points=5)
    np.testing.assert_allclose(deletion.scores, [10, 6, 3, 1, 0])
    assert deletion.area == pytest.approx((10 / 2 + 6 + 3 + 1) / 4)
    insertion = perturbation_curve(ones, 0.0, weights, linear(weights), insert=True, points=5)
    np.testing.assert_allclose(insertion.scores, [0, 4, 7, 9, 10])
    reverse = perturbation_curve(ones, 0.0, weights, linear(weights), order="least_relevant_first", points=5)
    np.testing.assert_allclose(reverse.scores, [10, 9, 7, 4, 0])
    gain = deletion_advantage(ones, 0.0, weights, linear(weights), compare_with="least_relevant_first", points=5)
    assert gain == pytest.approx(reverse.area - deletion.area) and gain > 0
    with pytest.raises(SettingsError):
        perturbation_curve(ones, 0.0, np.ones(3), linear(weights))


def test_random_relevance_has_no_advantage_on_average() -> None:
    generator = np.random.default_rng(0)
    weights = generator.random((8, 8))
    gains = [
        deletion_advantage(np.ones((8, 8)), 0.0, generator.random((8, 8)), linear(weights), seed=seed, points=9)
        for seed in range(40)
    ]
    exact = deletion_advantage(np.ones((8, 8)), 0.0, weights, linear(weights), points=9)
    assert abs(np.mean(gains)) < 0.2 * exact
