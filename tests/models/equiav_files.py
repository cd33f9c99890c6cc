"""A small home for EquiAV's tests: class table, weights of a tiny model, sounds and metadata."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from models.equiav_api import EquiAV_ft, ModelTrainer, WrappedModel

ROWS = [(0, "/m/a", "Speech"), (2, "/m/c", "Walk, footsteps"), (1, "/m/b", "Dog")]
TINY: dict[str, Any] = {
    "embed_dim": 16, "modality_specific_depth": 1, "num_heads": 2, "target_length": 32, "img_size": 32,
    "proj_out_dim": 8, "proj_hidden_dim": 8, "head_dim": 6, "ftmode": "audio_only",
}  # fmt: skip


def write_table(path: Path, rows: list[tuple[int, str, str]] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("index", "mid", "display_name"), *(rows or ROWS)])
    return path


def write_sound(path: Path, seconds: float = 0.4, rate: int = 16000, channels: int = 1, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * rate), channels))
    soundfile.write(path, noise, rate, subtype="FLOAT")
    return path


def make_home(folder: Path) -> Path:
    """A folder with class table, weights of a tiny model, sounds and metadata."""
    write_table(folder / "class_labels_indices.csv")
    torch.manual_seed(0)
    model = EquiAV_ft(label_dim=3, **TINY)
    ModelTrainer(WrappedModel(model)).saveParameters(folder / "model.pth")
    items = []
    (folder / "clips").mkdir()
    for number in range(4):
        write_sound(folder / "clips" / f"{number}.wav", seed=number)
        items.append({"video_id": f"id{number}", "wav": f"clips\\{number}.wav", "labels": ROWS[number % 3][1]})
    (folder / "train.json").write_text(json.dumps({"data": items}))
    return folder
