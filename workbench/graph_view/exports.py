"""An event graph as files: GraphML, JSON and the deletion curve."""

from __future__ import annotations

import io
import json

import networkx
import numpy as np

from saliency.graph import GraphExplanation
from saliency.graph_ablation import DeletionCurve


def graphml(explanation: GraphExplanation) -> bytes:
    """The graph as GraphML, which networkx, Gephi, yEd and Cytoscape read."""
    buffer = io.BytesIO()
    networkx.write_graphml(explanation.to_networkx(), buffer)
    return buffer.getvalue()


def graph_json(explanation: GraphExplanation) -> bytes:
    """The graph as node-link JSON (``networkx.node_link_graph(..., edges="edges")`` reads it), with all scores."""
    data = networkx.node_link_data(explanation.to_networkx(), edges="edges")
    data["graph"] |= {
        "target": explanation.target,
        "scores": {label: float(score) for label, score in zip(explanation.labels, explanation.scores, strict=True)},
        "windows": explanation.windows.tolist(), "window_scores": explanation.window_scores.astype(float).tolist(),
        "duration": explanation.duration, "video_duration": explanation.video_duration,
    }  # fmt: skip
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False).encode()


def deletion_json(curve: DeletionCurve) -> bytes:
    """A deletion curve as JSON."""

    def numbers(values: np.ndarray) -> list[float]:
        return [float(value) for value in values]

    data = {
        "target": curve.target, "measure": curve.measure, "area_ratio": curve.area_ratio, "draws": curve.draws,
        "seed": curve.seed, "fractions": numbers(curve.fractions), "by_importance": numbers(curve.by_importance),
        "random_mean": numbers(curve.random_mean), "random_low": numbers(curve.random_low),
        "random_high": numbers(curve.random_high),
    }  # fmt: skip
    return json.dumps(data, indent=1, allow_nan=False).encode()
