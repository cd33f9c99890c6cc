"""The event graph: what sounded and what was seen when, and how a model linked the two; plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import HeteroData


@dataclass(frozen=True, eq=False)
class GraphNodes:
    """The nodes of one modality, in order of time.

    Attributes
    ----------
    modality
        ``audio`` or ``video``.
    start, end
        What a node covers, in seconds, float64 ``[n]``.
    attention
        Weight of the node in the read-out, ``[n]``, sums to 1.
    contribution
        Part of the target's logit that is read from the node, ``[n]``; None without a target. Those of all nodes and
        the output's bias add up to the logit.
    """

    modality: str
    start: np.ndarray
    end: np.ndarray
    attention: np.ndarray
    contribution: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.start)

    @property
    def center(self) -> np.ndarray:
        """Middle of every node in seconds."""
        return (self.start + self.end) / 2


@dataclass(frozen=True, eq=False)
class GraphEdges:
    """The edges of one relation.

    Attributes
    ----------
    source_modality, target_modality
        Kinds of the nodes that send and receive.
    source, target
        Node indices within their modality, int64 ``[n]``; an edge may occur twice and then counts twice.
    layers
        Layers of the network that use these edges.
    weight
        Share of each edge in what its target receives, ``[n]``: attention for learned edges, 1 / in-degree for
        averages. It says nothing about the prediction by itself (an only edge has weight 1 whatever it brings).
    importance
        Of the edge for the target's logit, ``[n]``, summed over `layers`; None if it was not computed.
    importance_by_layer
        The same for each of `layers`, ``[n_layers, n]``.
    """

    source_modality: str
    target_modality: str
    source: np.ndarray
    target: np.ndarray
    layers: tuple[int, ...]
    weight: np.ndarray
    importance: np.ndarray | None = None
    importance_by_layer: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def relation(self) -> str:
        """``audio-audio``, ``video-video`` or ``video-audio``."""
        return f"{self.source_modality}-{self.target_modality}"

    def with_importance(self, by_layer: np.ndarray) -> GraphEdges:
        """A copy with the importance ``[n_layers, n]``."""
        if by_layer.shape != (len(self.layers), len(self)):
            raise ValueError(f"importance {by_layer.shape} for {len(self.layers)} layers and {len(self)} edges")
        return replace(self, importance=by_layer.sum(axis=0), importance_by_layer=by_layer)


@dataclass(frozen=True, eq=False)
class EventGraph:
    """Nodes and edges with which a model explained one clip.

    Attributes
    ----------
    nodes
        By modality.
    edges
        One entry a relation; learned relations have one entry for each layer that chose its own.
    target
        Index of the class that contributions and importances are for, or None.
    logits
        ``[n_classes]``.
    distances
        How unlike every audio and video node are where a layer linked them, by layer, ``[n_audio, n_video]``. The
        choice of the nearest has no gradient, so no importance says that another edge should have been there; this
        does.
    """

    nodes: dict[str, GraphNodes]
    edges: tuple[GraphEdges, ...]
    logits: np.ndarray
    target: int | None = None
    distances: dict[int, np.ndarray] = field(default_factory=dict)

    def relation(self, name: str) -> list[GraphEdges]:
        """The entries of one relation, such as ``video-audio``."""
        return [edges for edges in self.edges if edges.relation == name]

    def to_networkx(self) -> networkx.MultiDiGraph:
        """As a networkx graph; nodes are named ``audio 0``, ``video 0``, and so on.

        Node attributes: modality, start, end, attention, contribution. Edge attributes: relation, layers, weight,
        importance. What is None is left out, so that the graph can be written as GraphML.
        """
        import networkx

        graph = networkx.MultiDiGraph()
        if self.target is not None:
            graph.graph["target"] = self.target
        for modality, nodes in self.nodes.items():
            for index in range(len(nodes)):
                attributes: dict[str, str | float] = {"modality": modality}
                for name in ("start", "end", "attention", "contribution"):
                    values = getattr(nodes, name)
                    if values is not None:
                        attributes[name] = float(values[index])
                graph.add_node(f"{modality} {index}", **attributes)
        for edges in self.edges:
            for index in range(len(edges)):
                attributes = {
                    "relation": edges.relation,
                    "layers": " ".join(map(str, edges.layers)),
                    "weight": float(edges.weight[index]),
                }
                if edges.importance is not None:
                    attributes["importance"] = float(edges.importance[index])
                graph.add_edge(
                    f"{edges.source_modality} {edges.source[index]}",
                    f"{edges.target_modality} {edges.target[index]}",
                    **attributes,
                )
        return graph

    def to_hetero_data(self) -> HeteroData:
        """As PyTorch Geometric data; learned relations are named with their layer, ``video-audio 3``."""
        import torch
        from torch_geometric.data import HeteroData

        data = HeteroData()
        for modality, nodes in self.nodes.items():
            data[modality].num_nodes = len(nodes)
            data[modality].time = torch.tensor(np.stack([nodes.start, nodes.end], axis=1))
            data[modality].attention = torch.tensor(nodes.attention)
        for edges in self.edges:
            learned = edges.source_modality != edges.target_modality
            name = f"{edges.relation} {edges.layers[0]}" if learned else edges.relation
            store = data[edges.source_modality, name, edges.target_modality]
            store.edge_index = torch.tensor(np.stack([edges.source, edges.target]))
            store.edge_weight = torch.tensor(edges.weight)
            if edges.importance is not None:
                store.importance = torch.tensor(edges.importance)
        return data
