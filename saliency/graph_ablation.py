"""Trying an event graph: what the model says without parts of it, and whether the important edges are the ones that count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from models.errors import SettingsError
from models.recognizer import Recognizer
from saliency.graph import GraphExplanation, graph_network
from saliency.graph_runner import GraphRunner

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class WhatIf:
    """What the model says when some nodes and edges are left out.

    Attributes
    ----------
    without_nodes, without_edges
        Which.
    logits, scores
        ``[n_classes]``; scores are in 0..1.
    """

    without_nodes: tuple[int, ...]
    without_edges: tuple[int, ...]
    logits: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class DeletionCurve:
    """How the class's score falls while more and more edges are deleted.

    Attributes
    ----------
    target, measure
        The class, and the measure that orders the edges.
    fractions
        Shares of the edges that are deleted, ``[n]`` from 0 to 1.
    by_importance
        Score when those that support the class most go first, ``[n]``.
    random_mean, random_low, random_high
        Mean of random orders, and the band that holds the middle 80 % of them, ``[n]``.
    area_ratio
        Area under `by_importance` by that under `random_mean`; below 1 the measure finds edges that count more than others.
    draws, seed
        Number of random orders and how they were drawn.
    """

    target: str
    measure: str
    fractions: np.ndarray
    by_importance: np.ndarray
    random_mean: np.ndarray
    random_low: np.ndarray
    random_high: np.ndarray
    area_ratio: float
    draws: int
    seed: int


def what_if(
    recognizer: Recognizer,
    explanation: GraphExplanation,
    without_nodes: Iterable[int] = (),
    without_edges: Iterable[int] = (),
) -> WhatIf:
    """Run the graph once more with nodes and edges left out; the clip is not encoded again.

    A node that is left out neither sends nor receives, and is not read out; an edge that is left out sends nothing in any
    layer. See `saliency.graph_runner.GraphRunner` for what stays as it was.

    Raises
    ------
    SettingsError
        If there is no such node or edge, or the model has no event graph.
    """
    graph_network(recognizer)
    nodes = _checked(without_nodes, explanation.n_nodes, "node")
    edges = _checked(without_edges, explanation.n_edges, "edge")
    keep_nodes, keep_edges = np.ones((1, explanation.n_nodes), dtype=bool), np.ones((1, explanation.n_edges))
    keep_nodes[0, list(nodes)] = False
    keep_edges[0, list(edges)] = 0.0
    runner = GraphRunner(recognizer, explanation.table)
    return WhatIf(
        nodes, edges, runner.logits(keep_edges, keep_nodes)[0], runner.scores(keep_edges, keep_nodes)[0]
    )  # fmt: skip


def _checked(chosen: Iterable[int], count: int, what: str) -> tuple[int, ...]:
    numbers = tuple(sorted({int(number) for number in chosen}))
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise SettingsError(
            f"The graph has no {what} number {wrong[0]}; it has {count}.", f"Give numbers from 0 to {count - 1}."
        )
    return numbers


def deletion_curve(
    recognizer: Recognizer,
    explanation: GraphExplanation,
    *,
    draws: int = 20,
    steps: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> DeletionCurve:
    """Delete the edges step by step, in the order of their importance and in random orders.

    All orders begin with the whole graph and end with none of its messages. The idea is that of Petsiuk, Das, Saenko: RISE.
    BMVC 2018, arXiv 1806.07421, for edges instead of pixels.

    Parameters
    ----------
    draws
        Random orders, at least 1.
    steps
        Points on the curve after the first, at least 1.

    Raises
    ------
    SettingsError
        If there are no edges, or the numbers are too small.
    """
    graph_network(recognizer)
    n_edges = explanation.n_edges
    if n_edges == 0 or draws < 1 or steps < 1:
        raise SettingsError("A deletion curve needs edges, at least one random order and at least one step.")
    counts = np.unique(np.round(np.linspace(0, n_edges, min(steps, n_edges) + 1)).astype(int))
    generator = np.random.default_rng(seed)
    orders = [explanation.order(), *(generator.permutation(n_edges) for _ in range(draws))]
    runner = GraphRunner(recognizer, explanation.table)
    curves = np.empty((len(orders), len(counts)))
    for number, order in enumerate(orders):
        if progress is not None:
            progress("Deleting links", number / len(orders))
        keep = np.ones((len(counts), n_edges))
        for row, count in enumerate(counts):
            keep[row, order[:count]] = 0.0
        curves[number] = runner.scores(keep)[:, explanation.target_index]
    fractions = counts / n_edges
    random = curves[1:]
    low, high = np.quantile(random, (0.1, 0.9), axis=0)
    area = float(np.trapezoid(random.mean(axis=0), fractions))
    ratio = float(np.trapezoid(curves[0], fractions)) / area if area > 1e-12 else 1.0
    return DeletionCurve(
        explanation.target, explanation.measure, fractions, curves[0], random.mean(axis=0), low, high, ratio, draws, seed
    )  # fmt: skip
