"""Running the graph part of a network alone, with messages and nodes left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from models.recognizer import Recognizer

if TYPE_CHECKING:
    from models.families.hetero_graph import HeteroGraph
    from models.layers.graph_view import GraphPass

BATCH = 32  # graphs at a time; they are small


@dataclass(frozen=True, eq=False)
class GraphTable:
    """One graph: encoded nodes ``[n, channels]`` and edges, as in `saliency.graph.GraphExplanation`."""

    audio_nodes: np.ndarray
    video_nodes: np.ndarray
    edge_source: np.ndarray
    edge_target: np.ndarray
    edge_layer: np.ndarray
    n_audio: int


class GraphRunner:
    """Logits of one graph with any of its messages and nodes left out.

    The edges are held still: which sounds a picture is linked to is not chosen anew when messages before are missing.

    Parameters
    ----------
    recognizer
        Its network has the view ``graph``.
    table
        The graph.
    """

    def __init__(self, recognizer: Recognizer, table: GraphTable) -> None:
        self.recognizer = recognizer
        self.network = cast("HeteroGraph", recognizer.network)
        self.table = table
        video_source, video_target = table.edge_source >= table.n_audio, table.edge_target >= table.n_audio
        # Rows of the table by relation; those of the fusion layers by layer.
        self._within = {
            "audio-audio": np.flatnonzero(~video_source & ~video_target),
            "video-video": np.flatnonzero(video_source & video_target),
        }
        between = video_source & ~video_target
        layers = np.unique(table.edge_layer[between])
        self._between = {int(layer): np.flatnonzero(between & (table.edge_layer == layer)) for layer in layers}

    @torch.no_grad()
    def logits(self, keep_edges: np.ndarray, keep_nodes: np.ndarray | None = None) -> np.ndarray:
        """Logits ``[batch, n_classes]``.

        Parameters
        ----------
        keep_edges
            What the messages of every edge are multiplied by in all layers that use it, ``[batch, n_edges]``: 1 as they
            are, 0 left out. Averages and attention keep their denominators.
        keep_nodes
            Which nodes are there, ``[batch, n_nodes]``. The others neither send nor receive and are not read out; their
            values still take part in the mean and variance by which each layer is normalised.
        """
        n_nodes = len(self.table.audio_nodes) + len(self.table.video_nodes)
        nodes = np.ones((len(keep_edges), n_nodes), dtype=bool) if keep_nodes is None else keep_nodes.astype(bool)
        edges = keep_edges * nodes[:, self.table.edge_source] * nodes[:, self.table.edge_target]
        size = BATCH if self.network.config.batch_independent else 1
        parts = [
            self._run(edges[first : first + size], nodes[first : first + size]) for first in range(0, len(edges), size)
        ]
        return np.concatenate(parts)

    def scores(self, keep_edges: np.ndarray, keep_nodes: np.ndarray | None = None) -> np.ndarray:
        """The same in 0..1."""
        logits = torch.as_tensor(self.logits(keep_edges, keep_nodes))
        return self.recognizer.probabilities(logits).numpy()

    def _run(self, keep_edges: np.ndarray, keep_nodes: np.ndarray) -> np.ndarray:
        device, batch = self.recognizer.device, len(keep_edges)

        def factor(rows: np.ndarray) -> Tensor:
            return torch.as_tensor(keep_edges[:, rows].reshape(-1), dtype=torch.float32, device=device)

        within = {name: self._batched(rows, batch) for name, rows in self._within.items()}
        matched = {layer: self._batched(rows, batch) for layer, rows in self._between.items()}
        factors = {
            layer: {name: factor(rows) for name, rows in self._within.items()}
            | ({"video-audio": factor(self._between[layer])} if layer in self._between else {})
            for layer in range(len(self.network.convs))
        }
        audio, video = (
            torch.as_tensor(part, device=device).expand(batch, -1, -1)
            for part in (self.table.audio_nodes, self.table.video_nodes)
        )
        with self.recognizer.lock:
            run = self.network.reason(audio, video, factors, within, matched)
            hidden = run.hidden if keep_nodes.all() else _read_out(run, torch.as_tensor(keep_nodes, device=device))
            return self.network.forward_head(hidden).float().cpu().numpy()

    def _batched(self, rows: np.ndarray, batch: int) -> Tensor:
        """Edges of `batch` copies of the graph, copy after copy, with indices within the modality."""
        n_audio, n_video = len(self.table.audio_nodes), len(self.table.video_nodes)
        parts = []
        for ends in (self.table.edge_source[rows], self.table.edge_target[rows]):
            video = bool(len(ends)) and bool(ends[0] >= self.table.n_audio)
            local, step = (ends - n_audio, n_video) if video else (ends, n_audio)
            parts.append((local + np.arange(batch)[:, None] * step).reshape(-1))
        return torch.as_tensor(np.stack(parts), device=self.recognizer.device)


def _read_out(run: GraphPass, keep: Tensor) -> Tensor:
    """The pooled representation ``[batch, 2 H]`` of the nodes that are kept; 0 where a modality has none."""
    pooled = []
    for nodes, gate, kept in zip(
        (run.audio, run.video), (run.audio_gate, run.video_gate), keep.split([run.audio.shape[1], run.video.shape[1]], 1),
        strict=True,
    ):  # fmt: skip
        attention = gate.masked_fill(~kept, -torch.inf).softmax(dim=1).nan_to_num(0.0)
        pooled.append((attention.unsqueeze(2) * nodes).sum(dim=1))
    return torch.cat(pooled, dim=1)
