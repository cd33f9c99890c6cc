"""Whether the sound that an explanation keeps carries the class, and how simple the explanation is.

All figures are per sample, on probabilities that were normalised once. Definitions of the input-masking figures: Paissan,
Ravanelli, Subakan, Listenable Maps for Audio Classifiers, ICML 2024, arXiv 2403.13086.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.errors import SettingsError


@dataclass(frozen=True, eq=False)
class InputFaithfulness:
    """Figures of every sample, float64 ``[samples]``; report their means.

    With c the class that the model hears in the whole clip, and p, o and q its probabilities of c for the clip, for what was
    kept and for what was removed:

    Attributes
    ----------
    average_increase
        100 where o > p, else 0, in percent. Higher is better.
    average_drop
        ``max(0, p - o) / p`` in percent. Lower is better.
    average_gain
        ``max(0, o - p) / (1 - p)`` in percent. Higher is better.
    faithfulness
        ``p - q``, -1 to 1: what removing the kept part costs. Higher is better.
    input_fidelity
        1 where the kept part is heard as c, else 0. Higher is better.
    """

    average_increase: np.ndarray
    average_drop: np.ndarray
    average_gain: np.ndarray
    faithfulness: np.ndarray
    input_fidelity: np.ndarray


def input_faithfulness(
    full: np.ndarray, kept: np.ndarray, removed: np.ndarray, targets: np.ndarray | None = None
) -> InputFaithfulness:
    """Figures from probabilities ``[samples, n_classes]`` of the clip, of what was kept and of what was removed.

    Parameters
    ----------
    targets
        Classes that were explained, ``[samples]``; default: the best class of the whole clip. The input fidelity asks
        whether the kept part's best class is the explained one.

    Raises
    ------
    SettingsError
        If the shapes differ or values are not probabilities (logits, say).
    """
    full, kept, removed = (np.asarray(part, dtype=np.float64) for part in (full, kept, removed))
    if full.ndim != 2 or full.shape != kept.shape or full.shape != removed.shape:
        raise SettingsError("The three tables of probabilities need the same shape [samples, classes].")
    if any(not ((part >= 0.0) & (part <= 1.0 + 1e-6)).all() for part in (full, kept, removed)):
        raise SettingsError(
            "Faithfulness is computed from probabilities between 0 and 1.", "Apply softmax or sigmoid once."
        )
    chosen = full.argmax(axis=1) if targets is None else np.asarray(targets)
    row = np.arange(len(full))
    p, o, q = full[row, chosen], kept[row, chosen], removed[row, chosen]
    return InputFaithfulness(
        average_increase=100.0 * (o > p),
        average_drop=100.0 * np.maximum(0.0, p - o) / (p + 1e-10),
        average_gain=100.0 * np.maximum(0.0, o - p) / (1.0 - p + 1e-10),
        faithfulness=p - q,
        input_fidelity=(kept.argmax(axis=1) == chosen).astype(np.float64),
    )


def sparseness(values: np.ndarray) -> float:
    """Gini index of the absolute relevances: near 1 if few cells hold all of it, 0 if all hold the same.

    Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training, ICML 2020. A map of zeros has 0.
    """
    relevance = np.abs(np.asarray(values, dtype=np.float64)).ravel()
    if not relevance.max(initial=0.0) > 0.0:
        return 0.0
    relevance = np.sort(relevance / relevance.max() + 1e-7)
    count = len(relevance)
    ranks = np.arange(1, count + 1)
    return float(((2 * ranks - count - 1) * relevance).sum() / (count * relevance.sum()))


def complexity(values: np.ndarray) -> float:
    """Entropy in nats of the shares of the absolute relevances: 0 if one cell holds all, ``ln(cells)`` if all the same.

    Bhatt, Weller, Moura: Evaluating and Aggregating Feature-based Model Explanations, IJCAI 2020. Compare only maps with the
    same number of cells. A map of zeros singles nothing out and has ``ln(cells)``.
    """
    relevance = np.abs(np.asarray(values, dtype=np.float64)).ravel()
    total = relevance.sum()
    if not total > 0.0:
        return float(np.log(max(1, len(relevance))))
    shares = relevance / total
    return float(-(shares * np.log(shares + 1e-12)).sum())


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """Class score while cells are silenced or filled in, in one order.

    Attributes
    ----------
    shares
        Share of the cells that were changed, ``[points]``, 0 to 1.
    scores
        The class's score, ``[points]``.
    """

    shares: np.ndarray
    scores: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve by the trapezoid rule."""
        return float(np.trapezoid(self.scores, self.shares))


Order = Literal["most_relevant_first", "least_relevant_first", "random"]


def perturbation_curve(
    features: np.ndarray,
    background: np.ndarray | float,
    relevance: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    order: Order = "most_relevant_first",
    insert: bool = False,
    points: int = 11,
    seed: int = 0,
) -> PerturbationCurve:
    """Deletion (or insertion) curve: Petsiuk, Das, Saenko, RISE, BMVC 2018, arXiv 1806.07421.

    Parameters
    ----------
    features, relevance
        ``[frames, n_mels]``.
    background
        What deleted cells become, a number (silence) or ``[frames, n_mels]``.
    score
        Class scores ``[batch]`` of ``[batch, frames, n_mels]``.
    insert
        Start from the background and fill cells in, instead of deleting them.
    """
    if features.shape != relevance.shape:
        raise SettingsError(f"Relevance {relevance.shape} and features {features.shape} differ in shape.")
    if points < 2:
        raise SettingsError("A curve needs at least two points.")
    ranked = np.argsort(-relevance, axis=None, kind="stable")
    if order == "least_relevant_first":
        ranked = ranked[::-1]
    elif order == "random":
        ranked = np.random.default_rng(seed).permutation(ranked)
    empty = np.broadcast_to(np.asarray(background, dtype=features.dtype), features.shape)
    start, end = (empty, features) if insert else (features, empty)
    shares = np.linspace(0.0, 1.0, points)
    steps = []
    for share in shares:
        changed = start.ravel().copy()
        chosen = ranked[: round(share * len(ranked))]
        changed[chosen] = end.ravel()[chosen]
        steps.append(changed.reshape(features.shape))
    return PerturbationCurve(shares, np.asarray(score(np.stack(steps)), dtype=np.float64))


def deletion_advantage(
    features: np.ndarray,
    background: np.ndarray | float,
    relevance: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    compare_with: Order = "random",
    points: int = 11,
    seed: int = 0,
) -> float:
    """Area between the deletion curves of another order and of most-relevant-first; above 0: the relevance says something."""
    ours = perturbation_curve(features, background, relevance, score, points=points)
    other = perturbation_curve(features, background, relevance, score, order=compare_with, points=points, seed=seed)
    return other.area - ours.area
