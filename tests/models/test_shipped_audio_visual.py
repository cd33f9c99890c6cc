"""The shipped models that hear and see: they know the shipped videos, and the picture counts."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.catalog import SHIPPED, read_card
from models.checkpoint import load_recognizer
from models.clip import open_clip
from models.families.hetero_graph import HeteroGraph
from models.prediction import predict
from models.recognizer import Recognizer

NAMES = ("event-graph-scenes", "equiav-scenes")
VIDEOS = sorted((Path(__file__).parents[2] / "assets" / "clips").glob("video_*.mp4"))


@cache
def truth_of(path: Path) -> dict[str, Any]:
    """The truth beside a video."""
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


@cache
def prepared(name: str) -> tuple[Recognizer, list[torch.Tensor], list[torch.Tensor]]:
    """A model, and features and encoded pictures of all videos."""
    recognizer = load_recognizer(name, "cpu")
    features, pictures = [], []
    for path in VIDEOS:
        clip = open_clip(path)
        frames = recognizer.frames(clip.video)
        assert frames is not None
        with torch.no_grad():
            features.append(recognizer.features(clip.at(recognizer.sample_rate)[: recognizer.window_samples]))
            pictures.append(recognizer.network.encode_frames(frames))
    return recognizer, features, pictures


def scores(name: str, shift: int = 0) -> np.ndarray:
    """Scores ``[n_videos, n_classes]``, with the picture of the `shift`-th next video."""
    recognizer, features, pictures = prepared(name)
    with torch.no_grad():
        logits = [recognizer(x, pictures[(i + shift) % len(pictures)]) for i, x in enumerate(features)]
    return recognizer.probabilities(torch.cat(logits)).numpy()


def heard(path: Path) -> set[str]:
    """Classes that are heard in a video."""
    return {event["label"] for event in truth_of(path)["events"]}


def known(name: str, path: Path) -> set[str]:
    """Classes that are heard in a video and that a model has: bells and drums are not among them."""
    return heard(path) & set(prepared(name)[0].labels)


def seen_and_heard(name: str, path: Path) -> bool:
    """Whether something that sounds and that a model knows is in the picture."""
    return bool({found["label"] for found in truth_of(path)["correspondences"]} & known(name, path))


@pytest.mark.parametrize("name", NAMES)
def test_it_hears_and_sees_and_is_small(name: str) -> None:
    recognizer = prepared(name)[0]
    assert recognizer.reads_video and set(recognizer.network.modalities) == {"audio", "video"}
    assert recognizer.labels == sorted(recognizer.labels) and len(recognizer.labels) == 10
    assert (SHIPPED / name / "model.safetensors").stat().st_size < 4 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_it_recognises_most_of_the_shipped_videos(name: str) -> None:
    labels = prepared(name)[0].labels
    right = {
        path.stem: labels[row.argmax()] in heard(path)
        for row, path in zip(scores(name), VIDEOS, strict=True) if known(name, path)
    }  # fmt: skip
    assert len(right) >= 12
    assert np.mean(list(right.values())) >= 0.75, [stem for stem, fine in right.items() if not fine]


@pytest.mark.parametrize("name", NAMES)
def test_another_picture_lowers_the_score(name: str) -> None:
    """Mean score of what is heard, over the videos in which it is seen, against the pictures of all other videos."""
    labels = prepared(name)[0].labels
    rows = [i for i, path in enumerate(VIDEOS) if seen_and_heard(name, path)]
    columns = [labels.index(sorted(known(name, VIDEOS[i]))[0]) for i in rows]
    own = scores(name)[rows, columns].mean()
    others = np.mean([scores(name, shift)[rows, columns].mean() for shift in range(1, 6)])
    assert own > others + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_prediction_of_a_clip_is_that_of_its_features_and_picture(name: str) -> None:
    recognizer = prepared(name)[0]
    clip = open_clip(VIDEOS[0])
    length = recognizer.window_samples
    found = predict(recognizer, clip.at(recognizer.sample_rate)[:length], video=clip.video)
    np.testing.assert_allclose(found.scores, scores(name)[0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_each_modality_gives(name: str) -> None:
    names = {metric.name for metric in read_card(SHIPPED / name).metrics}
    assert {"accuracy", "accuracy, sound alone", "accuracy, picture alone", "accuracy, mismatched picture"} <= names


def test_event_graph_of_a_shipped_video() -> None:
    recognizer, features, pictures = prepared("event-graph-scenes")
    network = recognizer.network
    assert isinstance(network, HeteroGraph) and network.config.batch_independent
    index = next(i for i, path in enumerate(VIDEOS) if path.stem == "video_rooster")
    target = recognizer.labels.index("rooster")
    graph = network.graph(features[index], pictures[index], target)
    assert {name: len(nodes) for name, nodes in graph.nodes.items()} == {
        "audio": network.config.n_audio_nodes, "video": network.config.n_video_nodes
    }  # fmt: skip
    links = graph.relation("video-audio")
    assert links and sum(
        len(edges) for edges in links
    ) == network.config.n_nearest * network.config.n_video_nodes * len(links)
    importance = np.concatenate([e.importance for e in graph.edges if e.importance is not None])
    assert np.isfinite(importance).all() and (importance != 0).any()
    read_out = sum(nodes.contribution.sum() for nodes in graph.nodes.values() if nodes.contribution is not None)
    bias = network.lin.get_parameter("0.bias")[target].item()
    assert read_out + bias == pytest.approx(graph.logits[target], abs=1e-3)
