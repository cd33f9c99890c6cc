"""A checkpoint with an event graph, small enough for tests of pages."""

from __future__ import annotations

from pathlib import Path

from models.card import Card
from models.checkpoint import save_checkpoint
from tests.models.tiny_families import tiny_network

NAME, LABELS = "tiny-graph", ["class 0", "class 1", "class 2"]


def write_checkpoint(folder: Path) -> Path:
    """Save it in `folder` under its name: windows of 2 s, 5 sounds, 4 pictures, random weights."""
    network = tiny_network("hetero_graph", clip_seconds=2.0, audio_segment_ms=100, video_segment_ms=400)
    card = Card(
        name=NAME, title="Tiny <b>graph</b>", family="hetero_graph", config=network.config.model_dump(mode="json"),
        frontend=network.default_frontend(network.config).model_dump(mode="json"), labels=LABELS, task="single-label",
    )  # fmt: skip
    save_checkpoint(folder / NAME, network, card)
    return folder / NAME
