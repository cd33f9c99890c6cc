"""From one run of a graph network to the event graph that people see."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.event_graph import EventGraph, GraphEdges, GraphNodes
from models.layers.segments import Segmentation


@dataclass
class GraphPass:
    """Everything that one run of the graph part computed.

    Attributes
    ----------
    hidden
        ``[batch, 2 H]``: pooled audio nodes, then pooled video nodes.
    audio, video
        Nodes before the read-out, ``[batch, nodes, H]``.
    audio_attention, video_attention, audio_gate, video_gate
        ``[batch, nodes]``; attention is the softmax of the gate over a clip's nodes.
    edges
        By layer and relation, ``[2, n_edges]`` with batch-wide indices; in a fusion layer ``video-audio`` are those
        that the attention used.
    matches, distances, alpha
        By fusion layer: nearest neighbours ``[2, 3 * batch * n_video]``, distances ``[batch, n_audio, n_video]``,
        attention ``[n_edges, 1]``.
    meeting
        By fusion layer: what audio and video nodes are matched by there, ``[batch, nodes, H]``.
    """

    hidden: Tensor
    audio: Tensor
    video: Tensor
    audio_attention: Tensor
    video_attention: Tensor
    audio_gate: Tensor
    video_gate: Tensor
    edges: list[dict[str, Tensor]] = field(default_factory=list)
    matches: dict[int, Tensor] = field(default_factory=dict)
    distances: dict[int, Tensor] = field(default_factory=dict)
    alpha: dict[int, Tensor] = field(default_factory=dict)
    meeting: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def unit_factors(self) -> dict[int, dict[str, Tensor]]:
        """Factors of 1 for all messages of such a run, by layer and relation, which require a gradient."""
        return {
            index: {
                name: torch.ones(edges.shape[1], device=edges.device, requires_grad=True)
                for name, edges in layer.items()
                if name != "video-audio" or index in self.alpha
            }
            for index, layer in enumerate(self.edges)
        }


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def event_graph(
    run: GraphPass,
    logits: Tensor,
    segments: tuple[Segmentation, Segmentation],
    target: int | None = None,
    readers: Tensor | None = None,
    importance: list[dict[str, Tensor]] | None = None,
) -> EventGraph:
    """The event graph of a run with one clip.

    Parameters
    ----------
    logits
        ``[n_classes]``.
    segments
        How the sound and the video were cut.
    readers
        The target's row of the output layer, ``[2 H]``: gives every node's contribution to the logit.
    importance
        By layer and relation, ``[n_edges]``.
    """
    parts = (None, None) if readers is None else readers.chunk(2)
    nodes = {}
    values = ((run.audio, run.audio_attention), (run.video, run.video_attention))
    for modality, cutting, (states, attention), reader in zip(("audio", "video"), segments, values, parts, strict=True):
        contribution = None if reader is None else _array(attention[0] * (states[0] @ reader))
        nodes[modality] = GraphNodes(modality, cutting.starts, cutting.ends, _array(attention[0]), contribution)
    every = tuple(range(len(run.edges)))
    edges = []
    for modality in nodes:
        name = f"{modality}-{modality}"
        sources, targets = run.edges[0][name]
        degree = torch.bincount(targets)
        weight = _array(1.0 / degree[targets])
        entry = GraphEdges(modality, modality, _array(sources), _array(targets), every, weight)
        if importance is not None:
            entry = entry.with_importance(np.stack([_array(layer[name]) for layer in importance]))
        edges.append(entry)
    for layer, alpha in run.alpha.items():
        sources, targets = run.edges[layer]["video-audio"]
        entry = GraphEdges("video", "audio", _array(sources), _array(targets), (layer,), _array(alpha[:, 0]))
        if importance is not None:
            entry = entry.with_importance(_array(importance[layer]["video-audio"])[None])
        edges.append(entry)
    distances = {layer: _array(distance[0]) for layer, distance in run.distances.items()}
    return EventGraph(nodes, tuple(edges), _array(logits), target, distances)
