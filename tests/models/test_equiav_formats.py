"""EquiAV's data files, labels, training items and figures."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.data.equiav_json import read_class_table, read_equiav_json
from models.equiav_api import format_label_data
from models.errors import DataError, SettingsError
from models.training.equiav import event_loss
from models.training.equiav_items import ItemSettings, draw_training_item, shift_in_time, soft_labels
from models.training.equiav_metrics import evaluation_tables, retrieval_figures, tagging_statistics
from tests.models.equiav_files import make_home, write_table


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path)


def test_metadata_is_read(home: Path) -> None:
    items = json.loads((home / "train.json").read_text())["data"]
    items += [{"wav": "gone.wav", "labels": "/m/a"}, {"wav": "clips/0.wav", "labels": "/m/c, /m/zzz,/m/a,/m/a"}]
    (home / "train.json").write_text(json.dumps({"data": items}))
    with pytest.warns(UserWarning, match="1 labels in train.json are not in the class table"):
        examples = read_equiav_json(home, fold=1)
    assert examples.labels == ("Speech", "Dog", "Walk, footsteps")
    assert [path.name for path in examples.missing] == ["gone.wav"]
    assert examples.examples[-1].labels == ("Walk, footsteps", "Speech")
    assert {example.fold for example in examples.examples} == {1}
    assert len(examples.examples) == 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data": []}', '{"data": [1]}', '{"data": {}}', '{"data": [{}]}'])
def test_odd_metadata_is_refused(home: Path, content: str) -> None:
    (home / "train.json").write_text(content)
    with pytest.raises(DataError):
        read_equiav_json(home)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, "/m/a", "A"), (2, "/m/b", "B")],
        [(0, "/m/a", "A"), (0, "/m/b", "B")],
        [(0, "/m/a", "A"), (1, "/m/a", "B")],
        [("x", "/m/a", "A")],
    ],
)
def test_odd_class_tables_are_refused(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(DataError):
        read_class_table(write_table(tmp_path / "table.csv", rows))


def test_class_table_without_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("index,mid\n0,/m/a\n")
    with pytest.raises(DataError, match="columns"):
        read_class_table(tmp_path / "table.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_class_table(tmp_path / "gone.csv")


def test_labels_skip_what_is_unknown() -> None:
    with pytest.warns(UserWarning, match="/m/zzz"):
        target = format_label_data("/m/b,/m/zzz", {"/m/a": 0, "/m/b": 1}, 2, 0.2)
    assert torch.allclose(target, torch.tensor([0.1, 0.8]))
    assert format_label_data("", {"/m/a": 0}, 1).tolist() == [0.0]
    with pytest.raises(SettingsError):
        soft_labels([3], 2)


def test_shift_rolls_time() -> None:
    features = torch.arange(12.0).view(6, 2)
    shifted = shift_in_time(features, np.random.default_rng(1))
    assert any(torch.equal(shifted, features.roll(n, 0)) for n in range(6))


def test_training_items_are_mixed_and_shifted() -> None:
    waves = [np.random.default_rng(n).uniform(-0.5, 0.5, (2, 4000)).astype(np.float32) for n in range(2)]
    settings = ItemSettings(2, target_length=20, noise=False)

    def item(changes: dict[str, Any], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = dataclasses.replace(settings, **changes)
        return draw_training_item(lambda i: (waves[i], 16000), [[0], [1]], 0, chosen, np.random.default_rng(seed))

    plain, target = item({}, 0)
    assert plain.shape == (20, 128) and target.tolist() == [1.0, 0.0]
    rolled = item({"noise": True}, 3)[0]
    assert any(torch.equal(rolled, plain.roll(n, 0)) for n in range(20))
    mixed = [item({"mixup": 1.0}, seed) for seed in range(12)]
    with_other = [(x, t) for x, t in mixed if t[1] > 0]
    assert 0 < len(with_other) < 12  # the partner may be the item itself
    for features, soft in with_other:
        assert torch.isclose(soft.sum(), torch.tensor(1.0)) and 0.1 < soft[0] < 0.9
        assert not torch.allclose(features, plain)


def test_soft_targets_for_cross_entropy() -> None:
    logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.75, 0.25]])
    expected = -(0.75 * logits.log_softmax(1)[0, 0] + 0.25 * logits.log_softmax(1)[0, 1])
    assert torch.isclose(event_loss("celoss")(logits, target), expected)


def test_figures_skip_classes_that_cannot_be_judged() -> None:
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4], [0.7, 0.3, 0.5]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=float)
    figures = tagging_statistics(scores, targets)
    assert (figures.skipped, figures.mean_average_precision, figures.mean_auc, figures.accuracy) == (1, 1.0, 1.0, 1.0)
    assert figures.d_prime == math.inf
    published = tagging_statistics(scores, targets, published=True)
    assert math.isclose(published.mean_auc, 1 / 3) and math.isclose(published.mean_average_precision, 2 / 3)


def test_retrieval_of_itself() -> None:
    x = np.random.default_rng(0).standard_normal((20, 5))
    assert retrieval_figures(x, 3 * x) == {"R1": 1.0, "R5": 1.0, "R10": 1.0, "MR": 1.0}


def test_evaluation_counts_unknown_truths() -> None:
    names = {"/m/a": (0, "A"), "/m/b": (1, "B, b")}
    tables = evaluation_tables({"x": np.array([0.9, 0.6])}, {"x": ["/m/a", "/m/zzz"]}, names, [0.25])
    assert tables.unknown_labels == 1
    rows = list(csv.reader(tables.confusion_matrix.splitlines()))
    assert rows == [
        ["Actual \\ Predicted", "A", "B, b", "Total_Positive_Examples"],
        ["A", "1", "1", "1"],
        ["B, b", "0", "0", "0"],
    ]
    assert tables.inference_times == "Inference Time (seconds)\n0.25\n"
