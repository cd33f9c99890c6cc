"""The trained Play It Back that comes with the project: it knows the scenes, and replays what is to be heard in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.catalog import SHIPPED
from models.checkpoint import load_recognizer
from models.clip import open_clip
from models.families.play_it_back import PlayItBack
from models.prediction import predict
from models.recognizer import Recognizer
from saliency.playback import reliability
from tests.benchmarks.bench_playback import agreement, at_random

ASSETS = Path(__file__).parents[2] / "assets" / "clips"
CLIPS = sorted(ASSETS.glob("*.flac"))
# Scenes of one class that is silent for a part of the time.
PARTLY = ("dog_garden", "rooster_farmyard", "baby_nursery", "sneeze_room")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load_recognizer("play-it-back-esc10", "cpu")


def truth_of(name: str) -> list[dict]:
    return list(json.loads((ASSETS / f"{name}.json").read_text(encoding="utf-8"))["events"])


def test_it_knows_most_scenes(recognizer: Recognizer) -> None:
    right = []
    for path in CLIPS:
        best, _ = predict(recognizer, open_clip(path).at(recognizer.sample_rate)).ranking()[0]
        right.append(best in {event["label"] for event in truth_of(path.stem)})
    assert np.mean(right) >= 0.75


def test_it_replays_what_is_to_be_heard(recognizer: Recognizer) -> None:
    """In the example scenes its segments overlap the events better than segments of the same lengths elsewhere."""
    network, rng = recognizer.network, np.random.default_rng(0)
    assert isinstance(network, PlayItBack)
    clock, own, chance = network.clock(), [], []
    for name in PARTLY:
        with torch.no_grad():
            features = recognizer.features(open_clip(ASSETS / f"{name}.flac").at(recognizer.sample_rate))
            played = network.playback(features, valid_seconds=5.0)
        first, second = played.passes[:2]
        assert np.array_equal(second.replayed, first.selected) and (second.source_level == 1).any()
        assert np.isfinite(played.scores).all() and played.corrected
        assert (first.selected >= 0).all() and (first.selected[:, 0] < first.selected[:, 1]).all()
        segments = np.round(first.selected / clock.cell_seconds).astype(np.int64)
        centres = (np.arange(clock.n_cells) + 0.5) * clock.cell_seconds
        heard = np.any([(e["onset"] <= centres) & (centres < e["offset"]) for e in truth_of(name)], axis=0)
        own.append(agreement(segments, heard)["iou"])
        chance.append(np.mean([agreement(at_random(segments, 400, rng), heard)["iou"] for _ in range(200)]))
    assert np.mean(own) > 1.5 * np.mean(chance)


def test_the_card_says_what_was_measured(recognizer: Recognizer) -> None:
    card = recognizer.card
    figures = {metric.name: metric for metric in card.metrics}
    assert (SHIPPED / card.name / "model.safetensors").stat().st_size <= 4 * 2**20
    assert figures["accuracy"].value >= 0.8
    first, last = (
        {m.data: m.value for m in card.metrics if m.name == f"accuracy after pass {number}"} for number in (1, 3)
    )
    assert len(first) == 2 and all(last[data] >= value for data, value in first.items())
    found = reliability(card, True)
    assert found.measured
    better = figures["playback drop low"].value > 0 and figures["playback keep low"].value > 0
    assert found.better == better
    assert figures["replayed iou"].value > 1.2 * figures["replayed iou at random"].value


def test_segments_at_random_places() -> None:
    rng = np.random.default_rng(0)
    segments = np.array([[0, 30], [100, 110]])
    starts, ends = set(), set()
    for _ in range(200):
        found = at_random(segments, 60, rng)
        assert sorted((found[:, 1] - found[:, 0]).tolist()) == [10, 30]
        assert found[0, 0] >= 0 and found[-1, 1] <= 60 and found[0, 1] <= found[1, 0]
        starts.add(int(found[0, 0]))
        ends.add(int(found[-1, 1]))
    assert min(starts) == 0 and max(ends) == 60 and len(starts) > 12 and len(ends) > 12
    assert at_random(np.zeros((0, 2), dtype=np.int64), 60, rng).shape == (0, 2)


def test_agreement_by_hand() -> None:
    truth = np.zeros(20, dtype=bool)
    truth[4:12] = True
    found = agreement(np.array([[6, 14], [16, 18]]), truth)
    assert found["iou"] == pytest.approx(6 / 12) and found["hit"] == 0.5 and found["covered"] == 6 / 8
    nothing = agreement(np.zeros((0, 2), dtype=np.int64), truth)
    assert nothing == {"iou": 0.0, "hit": 0.0, "covered": 0.0}
