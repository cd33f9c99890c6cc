"""The event graph of a clip: which sounds and pictures a model linked, and how much every link counts for a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from models.errors import SettingsError
from models.event_graph import EventGraph, GraphEdges, GraphNodes
from models.prediction import hop_samples, window_starts
from models.recognizer import Recognizer
from saliency.graph_runner import GraphRunner, GraphTable

if TYPE_CHECKING:
    import networkx

    from models.families.hetero_graph import HeteroGraph
    from models.video import VideoTrack

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Measure:
    """A way to say how much an edge counts."""

    title: str
    summary: str
    signed: bool


MEASURES = {
    "gradient": Measure(
        "Gradient",
        "How fast the class's logit changes when the messages of the link grow: to first order what they bring.",
        True,
    ),
    "ablation": Measure(
        "Ablation", "What the class's logit loses when the messages of the link are left out, one link at a time.", True
    ),
    "attention": Measure(
        "Attention",
        "Share of the link in what the sound receives from all pictures. Only links from picture to sound have one, and "
        "it knows nothing of the class.",
        False,
    ),
}


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """The windows of a clip as nodes of the graph, before any message: what every explanation of the clip starts from.

    Attributes
    ----------
    audio, video
        Encoded nodes, float32 ``[n_windows, n_nodes, channels]``.
    logits, scores
        ``[n_windows, n_classes]``; scores are in 0..1.
    windows
        Start and end of every window in seconds, ``[n_windows, 2]``; the end may lie behind the clip's.
    duration, video_duration
        Seconds of sound and of picture that the clip has; 0 without a picture.
    """

    audio: np.ndarray
    video: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    windows: np.ndarray
    duration: float
    video_duration: float


@dataclass(frozen=True, eq=False)
class GraphExplanation:
    """The event graph of one window of a clip, for one class. Nodes are numbered: first the sounds, then the pictures.

    Attributes
    ----------
    target, measure
        The class, and which of `MEASURES` the importance of the edges is.
    labels, logits, scores
        All classes with what the model says about this window, ``[n_classes]``; scores are in 0..1.
    window, windows, window_scores
        Which window was explained; start and end of all in seconds, ``[n_windows, 2]``, and the class's score in each.
    duration, video_duration
        Seconds of sound and of picture that the clip has; 0 without a picture.
    n_audio
        Number of sounds.
    node_start, node_end
        What every node covers, in seconds of the clip, ``[n_nodes]``.
    node_attention, node_contribution
        Weight in the read-out (sums to 1 within sounds and within pictures) and what the node adds to the logit.
    edge_source, edge_target
        Nodes that send and receive, int64 ``[n_edges]``. An edge may occur twice and then counts twice.
    edge_layer, n_layers
        The layer that made the edge, -1 for edges that all layers use; and how many layers there are.
    edge_weight
        Share of the edge in what its target receives, ``[n_edges]``.
    edge_importance
        By `measure`, ``[n_edges]``: in units of the logit, positive supports the class. NaN where the measure says
        nothing about an edge.
    audio_nodes, video_nodes
        The encoded nodes, ``[n_nodes, channels]``: the graph can be run again without the clip.
    """

    target: str
    measure: str
    labels: tuple[str, ...]
    logits: np.ndarray
    scores: np.ndarray
    window: int
    windows: np.ndarray
    window_scores: np.ndarray
    duration: float
    video_duration: float
    n_audio: int
    n_layers: int
    node_start: np.ndarray
    node_end: np.ndarray
    node_attention: np.ndarray
    node_contribution: np.ndarray
    edge_source: np.ndarray
    edge_target: np.ndarray
    edge_layer: np.ndarray
    edge_weight: np.ndarray
    edge_importance: np.ndarray
    audio_nodes: np.ndarray
    video_nodes: np.ndarray

    @property
    def n_nodes(self) -> int:
        """Number of sounds and pictures."""
        return len(self.node_start)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.edge_source)

    @property
    def target_index(self) -> int:
        """Place of the class among the labels."""
        return self.labels.index(self.target)

    @property
    def score(self) -> float:
        """What the model says about the class in this window, 0..1."""
        return float(self.scores[self.target_index])

    @property
    def is_video(self) -> np.ndarray:
        """Which nodes are pictures, bool ``[n_nodes]``."""
        return np.arange(self.n_nodes) >= self.n_audio

    @property
    def present(self) -> np.ndarray:
        """Which nodes the clip really has, bool ``[n_nodes]``; the others are the silence or grey that follows it."""
        return self.node_start < np.where(self.is_video, self.video_duration, self.duration) - 1e-6

    @property
    def strength(self) -> np.ndarray:
        """Size of the importance without its sign, 0 where there is none, ``[n_edges]``."""
        return np.abs(np.nan_to_num(self.edge_importance))

    @property
    def table(self) -> GraphTable:
        """The graph as the network's graph part runs it."""
        return GraphTable(
            self.audio_nodes, self.video_nodes, self.edge_source, self.edge_target, self.edge_layer, self.n_audio
        )

    def order(self) -> np.ndarray:
        """Edges from the one that supports the class most to the one that opposes it most; those without come last."""
        return np.argsort(-np.where(np.isnan(self.edge_importance), -np.inf, self.edge_importance), kind="stable")

    def node_name(self, node: int) -> str:
        """``audio 3`` or ``video 0``, as in the exported graph."""
        return f"video {node - self.n_audio}" if node >= self.n_audio else f"audio {node}"

    def event_graph(self) -> EventGraph:
        """As an `EventGraph`."""
        nodes = {}
        for modality, part in (("audio", slice(0, self.n_audio)), ("video", slice(self.n_audio, None))):
            nodes[modality] = GraphNodes(
                modality, self.node_start[part], self.node_end[part], self.node_attention[part], self.node_contribution[part]
            )  # fmt: skip
        kinds = np.where(self.is_video, "video", "audio")
        edges = []
        source_kind, target_kind = kinds[self.edge_source], kinds[self.edge_target]
        for kind in ("audio", "video"):
            for other in ("audio", "video"):
                for layer in np.unique(self.edge_layer):
                    rows = np.flatnonzero((source_kind == kind) & (target_kind == other) & (self.edge_layer == layer))
                    if len(rows):
                        edges.append(self._edges(kind, other, int(layer), rows))
        return EventGraph(nodes, tuple(edges), self.logits, self.target_index)

    def _edges(self, kind: str, other: str, layer: int, rows: np.ndarray) -> GraphEdges:
        first = {"audio": 0, "video": self.n_audio}
        importance = self.edge_importance[rows]
        edges = GraphEdges(
            kind, other, self.edge_source[rows] - first[kind], self.edge_target[rows] - first[other],
            tuple(range(self.n_layers)) if layer < 0 else (layer,), self.edge_weight[rows],
        )  # fmt: skip
        return edges if np.isnan(importance).any() else replace(edges, importance=importance)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """As a networkx graph that can be written as GraphML or JSON; see `EventGraph.to_networkx`.

        Nodes also have `label` and `present`; the graph has `target`, `score`, `measure`, `window_start`, `window_end`.
        """
        graph = self.event_graph().to_networkx()
        start, end = self.windows[self.window]
        graph.graph = {
            "target": _for_xml(self.target), "score": self.score, "measure": self.measure,
            "window_start": float(start), "window_end": float(end),
        }  # fmt: skip
        for node in range(self.n_nodes):
            attributes = graph.nodes[self.node_name(node)]
            kind = "picture" if self.is_video[node] else "sound"
            attributes["label"] = f"{kind} {self.node_start[node]:.2f}-{self.node_end[node]:.2f} s"
            attributes["present"] = bool(self.present[node])
        return graph


def _for_xml(text: str) -> str:
    """Text without the characters that XML forbids."""
    return "".join(
        c for c in text if c in "\t\n\r" or (ord(c) >= 0x20 and not 0xD800 <= ord(c) < 0xE000 and ord(c) < 0xFFFE)
    )


def graph_network(recognizer: Recognizer) -> HeteroGraph:
    """The recognizer's network, if it reasons by an event graph.

    Raises
    ------
    SettingsError
        If it does not.
    """
    if not recognizer.supports("graph"):
        raise SettingsError(
            f"The model {recognizer.name} does not reason by a graph of sounds and pictures.",
            "Choose a model with the view 'graph' (see 'earwitness models').",
        )
    return cast("HeteroGraph", recognizer.network)


@torch.no_grad()
def encode_clip(
    recognizer: Recognizer, waveform: np.ndarray, video: VideoTrack | None = None, progress: Progress | None = None
) -> EncodedClip:
    """Encode the windows of a mono waveform ``[samples]`` at the recognizer's rate, and of the picture.

    Raises
    ------
    SettingsError
        If the model has no event graph, or a window cannot be cut into its nodes.
    MediaError
        If the video cannot be decoded.
    """
    network = graph_network(recognizer)
    rate, size = recognizer.sample_rate, recognizer.window_samples
    starts = window_starts(len(waveform), size, hop_samples(recognizer))
    length = len(waveform) if size is None else min(size, len(waveform))
    audio, pictures, logits = [], [], []
    for number, start in enumerate(starts):
        if progress is not None:
            progress("Looking and listening", number / len(starts))
        frames = None
        if video is not None and start / rate < video.duration:
            frames = recognizer.frames(video, start / rate, length / rate)
        with recognizer.lock:
            sounds = network.encode_audio(recognizer.features(waveform[start : start + length]))
            seen = network.video_nodes(frames)
            audio.append(sounds[0])
            pictures.append(seen[0])
            logits.append(network.forward_head(network.reason(sounds, seen).hidden)[0])
    whole = torch.stack(logits)
    seconds = network.config.clip_seconds if size is not None else length / rate
    begin = np.array(starts, dtype=np.float64) / rate
    return EncodedClip(
        torch.stack(audio).cpu().numpy(), torch.stack(pictures).cpu().numpy(), whole.cpu().numpy(),
        recognizer.probabilities(whole).cpu().numpy(), np.stack([begin, begin + seconds], axis=1), len(waveform) / rate,
        0.0 if video is None else video.duration,
    )  # fmt: skip


def explain_graph(
    recognizer: Recognizer,
    waveform: np.ndarray,
    video: VideoTrack | None = None,
    target: str | None = None,
    measure: str = "gradient",
    *,
    window: int | None = None,
    encoded: EncodedClip | None = None,
    progress: Progress | None = None,
) -> GraphExplanation:
    """The event graph of a mono waveform ``[samples]`` at the recognizer's rate, with the picture if there is one.

    Parameters
    ----------
    target
        Class whose logit is explained; default: the most likely one in the clip.
    measure
        One of `MEASURES`.
    window
        Which window of a longer clip; default: the one with the highest score of the class.
    encoded
        What `encode_clip` gave for this clip; encoding takes nearly all of the time.
    progress
        Called with what is being done and the share of it; it may raise, to cancel.

    Raises
    ------
    SettingsError
        If the model has no event graph or no such class, or there is no such measure or window.
    MediaError
        If the video cannot be decoded.
    """
    network = graph_network(recognizer)
    if measure not in MEASURES:
        raise SettingsError(
            f"There is no measure of importance named {measure!r}.", f"Known are: {', '.join(MEASURES)}."
        )
    if target is not None:
        recognizer.target_index(target)
    encoded = encoded or encode_clip(recognizer, waveform, video, progress)
    labels = tuple(recognizer.labels)
    pooled = encoded.scores.mean(axis=0) if recognizer.card.task == "single-label" else encoded.scores.max(axis=0)
    index = int(pooled.argmax()) if target is None else labels.index(target)
    if window is None:
        window = int(encoded.scores[:, index].argmax())
    elif not 0 <= window < len(encoded.windows):
        raise SettingsError(
            f"The clip has no window number {window}; it has {len(encoded.windows)}.", "Count them from 0."
        )
    audio, video_nodes = (torch.as_tensor(part[window : window + 1]) for part in (encoded.audio, encoded.video))
    if progress is not None:
        progress("Weighing the links", 0.0)
    with recognizer.lock:
        graph = network.graph_of_nodes(audio.to(recognizer.device), video_nodes.to(recognizer.device), index)
    start = float(encoded.windows[window, 0])
    nodes = [graph.nodes["audio"], graph.nodes["video"]]
    first = {"audio": 0, "video": len(nodes[0])}
    edges = graph.edges
    explanation = GraphExplanation(
        target=labels[index], measure=measure, labels=labels, logits=encoded.logits[window], scores=encoded.scores[window],
        window=window, windows=encoded.windows, window_scores=encoded.scores[:, index], duration=encoded.duration,
        video_duration=encoded.video_duration, n_audio=len(nodes[0]), n_layers=len(network.convs),
        node_start=start + np.concatenate([part.start for part in nodes]),
        node_end=start + np.concatenate([part.end for part in nodes]),
        node_attention=np.concatenate([part.attention for part in nodes]),
        node_contribution=np.concatenate([_known(part.contribution) for part in nodes]),
        edge_source=np.concatenate([e.source + first[e.source_modality] for e in edges]),
        edge_target=np.concatenate([e.target + first[e.target_modality] for e in edges]),
        edge_layer=np.concatenate([np.full(len(e), -1 if e.source_modality == e.target_modality else e.layers[0]) for e in edges]),
        edge_weight=np.concatenate([e.weight for e in edges]).astype(np.float32),
        edge_importance=np.concatenate([_known(e.importance) for e in edges]).astype(np.float32),
        audio_nodes=encoded.audio[window], video_nodes=encoded.video[window],
    )  # fmt: skip
    if measure == "attention":
        attention = np.where(explanation.edge_layer >= 0, explanation.edge_weight, np.nan).astype(np.float32)
        return replace(explanation, edge_importance=attention)
    if measure == "ablation":
        return replace(explanation, edge_importance=_losses(recognizer, explanation, progress))
    return explanation


def _known(values: np.ndarray | None) -> np.ndarray:
    assert values is not None, "the graph was made for a class"
    return values


def _losses(recognizer: Recognizer, explanation: GraphExplanation, progress: Progress | None) -> np.ndarray:
    """What the logit loses without each edge, ``[n_edges]``."""
    runner = GraphRunner(recognizer, explanation.table)
    n_edges = explanation.n_edges
    losses = np.empty(n_edges, dtype=np.float32)
    whole = runner.logits(np.ones((1, n_edges)))[0, explanation.target_index]
    for first in range(0, n_edges, 64):
        rows = np.arange(first, min(first + 64, n_edges))
        keep = np.ones((len(rows), n_edges))
        keep[np.arange(len(rows)), rows] = 0.0
        losses[rows] = whole - runner.logits(keep)[:, explanation.target_index]
        if progress is not None:
            progress("Leaving out one link after another", math.floor(rows[-1] + 1) / n_edges)
    return losses
