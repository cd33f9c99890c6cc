"""Event graphs as jobs of the engine; the clip is encoded once for every class, measure and question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.clip import Clip
from workbench.blobs import STORE
from workbench.engine.analyses import Download, Memory, digest, once, safe_stem
from workbench.engine.pool import Engine, Job

if TYPE_CHECKING:
    from models.card import Card
    from saliency.graph import EncodedClip, GraphExplanation
    from saliency.graph_ablation import DeletionCurve, WhatIf
    from workbench.graph_view.data import GraphViewData


@dataclass(frozen=True, eq=False)
class GraphShown:
    """An explained event graph with what the page needs to show it.

    Attributes
    ----------
    key
        Of the explanation among the engine's jobs; questions about it are remembered under it.
    explanation, view, card
        The graph, what the component shows of it, and the model's card.
    """

    key: str
    explanation: GraphExplanation
    view: GraphViewData
    card: Card


_encoded = Memory(24)


def submit_graph(
    engine: Engine,
    clip: Clip,
    model: str,
    target: str | None,
    measure: str,
    window: int | None = None,
    visitor: str | None = None,
) -> Job:
    """Explain a clip by its event graph for a visitor (see `Engine.submit`); the result is a `GraphShown`."""
    key = digest("graph", clip.content_hash, clip.name, model, target, measure, window)
    return once(engine, key, lambda job: _explain(engine, job, key, clip, model, target, measure, window), visitor)


def _explain(
    engine: Engine, job: Job, key: str, clip: Clip, model: str, target: str | None, measure: str, window: int | None
) -> GraphShown:
    from saliency.graph import encode_clip, explain_graph
    from workbench.graph_view.data import graph_view_data

    job.progress("Loading the model", 0.0)
    recognizer = engine.recognizer(model)
    waveform = clip.at(recognizer.sample_rate)

    def encode() -> EncodedClip:
        return encode_clip(recognizer, waveform, clip.video, job.progress)

    encoded = _encoded.get(digest("encoded", clip.content_hash, model, recognizer.card.content_hash), encode)
    explanation = explain_graph(
        recognizer, waveform, clip.video, target, measure, window=window, encoded=encoded, progress=job.progress
    )
    job.progress("Drawing", 0.9)
    return GraphShown(key, explanation, graph_view_data(clip, explanation, STORE.put), recognizer.card)


def submit_what_if(
    engine: Engine, model: str, shown: GraphShown, without_nodes: tuple[int, ...], without_edges: tuple[int, ...]
) -> Job:
    """What the model says without some nodes and edges; the result is a `WhatIf`."""

    def work(_: Job) -> WhatIf:
        from saliency.graph_ablation import what_if

        return what_if(engine.recognizer(model), shown.explanation, without_nodes, without_edges)

    return once(engine, digest("what if", shown.key, sorted(without_nodes), sorted(without_edges)), work)


def submit_deletion(engine: Engine, model: str, shown: GraphShown) -> Job:
    """The deletion curve of a graph; the result is a `DeletionCurve`."""

    def work(job: Job) -> DeletionCurve:
        from saliency.graph_ablation import deletion_curve

        return deletion_curve(engine.recognizer(model), shown.explanation, progress=job.progress)

    return once(engine, digest("deletion", shown.key), work)


def submit_graph_downloads(engine: Engine, clip: Clip, shown: GraphShown, curve: DeletionCurve | None) -> Job:
    """Make the files of a graph; the result is a list of `Download`."""

    def work(job: Job) -> list[Download]:
        from workbench.graph_view.exports import deletion_json, graph_json, graphml
        from workbench.graph_view.picture import graph_png
        from workbench.graph_view.report import graph_report

        explanation, stem = shown.explanation, safe_stem(clip.name)
        job.progress("Writing the files", 0.1)
        files = [
            Download("Report (HTML, plays offline)", f"{stem}-graph-report.html", "text/html",
                     graph_report(clip, explanation, curve, shown.card).encode()),
            Download("Graph (GraphML)", f"{stem}.graphml", "application/graphml+xml", graphml(explanation)),
            Download("Graph (JSON)", f"{stem}-graph.json", "application/json", graph_json(explanation)),
            Download("Picture (PNG)", f"{stem}-graph.png", "image/png", graph_png(clip, explanation)),
        ]  # fmt: skip
        if curve is not None:
            files.append(
                Download("Deletion curve (JSON)", f"{stem}-deletion.json", "application/json", deletion_json(curve))
            )
        return files

    return once(engine, digest("graph downloads", shown.key, clip.name, curve is not None), work)
