"""Weights that are not numbers are refused, wherever they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.checkpoint import all_finite, load_recognizer, save_checkpoint
from models.errors import CheckpointError
from tests.conftest import make_recognizer

INFINITE, LARGEST = float("inf"), torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([], True),
        ([0.0, -1.5], True),
        ([LARGEST, LARGEST, -LARGEST], True),
        ([1.0, float("nan")], False),
        ([INFINITE, 1.0], False),
        ([-INFINITE, 1.0], False),
        ([INFINITE, -INFINITE], False),
    ],
)
def test_all_finite(values: list[float], finite: bool) -> None:
    assert all_finite(torch.tensor(values, dtype=torch.float32)) is finite
    assert all_finite(torch.tensor([0.5] * 5000 + values, dtype=torch.float32)) is finite


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("value", [float("nan"), INFINITE, -INFINITE])
def test_a_checkpoint_with_one_bad_weight_is_refused(value: float, half: bool, tmp_path: Path) -> None:
    recognizer = make_recognizer("ast")
    folder = tmp_path / "bad"
    save_checkpoint(folder, recognizer.network, recognizer.card, half=half)
    assert load_recognizer(folder, "cpu").labels == recognizer.labels
    weights: dict[str, Tensor] = {
        key: tensor.clone() for key, tensor in load_file(folder / "model.safetensors").items()
    }
    key = "v.blocks.1.mlp.fc2.weight"
    weights[key][-1, -1] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"not numbers .in {key}"):
        load_recognizer(folder, "cpu")
