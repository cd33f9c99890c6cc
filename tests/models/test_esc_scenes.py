"""Generated scenes beside ESC-10: the same on every machine, rendered once, and silent for a part of the time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data import READERS
from models.data.esc_scenes import numbered_scene, partial_recipe, render_scenes
from models.data.scenes import SYNTHESIZERS
from models.errors import DataError


def esc_folder(folder: Path, *categories: str) -> Path:
    (folder / "audio").mkdir(parents=True)
    rows = ["filename,fold,category"]
    for index, category in enumerate(categories):
        soundfile.write(folder / "audio" / f"{index}.wav", np.zeros(800), 16000)
        rows.append(f"{index}.wav,{index + 1},{category}")
    (folder / "meta.csv").write_text("\n".join(rows))
    return folder


def test_scenes_are_fold_0(tmp_path: Path) -> None:
    root, scenes = esc_folder(tmp_path / "esc", "dog", "sneezing"), tmp_path / "scenes"
    options = {"scenes_per_class": 2, "scenes_seed": 5, "scenes_folder": str(scenes)}
    examples = READERS["esc_scenes"](root, **options)
    assert examples.labels == ("dog", "sneezing") and len(examples.folds([1, 2]).examples) == 2
    part = examples.folds([0]).examples
    assert [e.labels for e in part] == [("dog",), ("dog",), ("sneezing",), ("sneezing",)]
    waveform, rate = soundfile.read(part[1].path)
    expected = numbered_scene("dog", 1, 5)
    assert rate == expected.sample_rate and np.abs(waveform - expected.waveform).max() < 1e-4
    written = {path: path.stat().st_mtime_ns for path in scenes.rglob("*.flac")}
    fewer = READERS["esc_scenes"](root, **options | {"scenes_per_class": 1})
    assert len(fewer.folds([0]).examples) == 2
    assert {path: path.stat().st_mtime_ns for path in scenes.rglob("*.flac")} == written
    truth = json.loads((scenes / "seed-5" / "scenes.json").read_text())["events"]
    assert truth["dog-0001"][0]["label"] == "dog"


@pytest.mark.parametrize("label", SYNTHESIZERS)
def test_partial_recipes(label: str) -> None:
    """Every class fits into the scene and leaves some of it free."""
    for seed in range(20):
        recipe = partial_recipe(np.random.default_rng(seed), label)
        (sound,) = recipe.sounds
        assert all(0 <= onset < 4.9 for onset in sound.onsets)
        assert sound.onsets[-1] - sound.onsets[0] < 1.2


def test_partial_scenes_are_silent_for_a_part(tmp_path: Path) -> None:
    for label in ("dog", "rain"):
        scene = numbered_scene(label, 1, 7)
        heard = sum(event.offset - event.onset for event in scene.events)
        assert 0.1 < heard < 3.0


def test_what_cannot_be_rendered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no generated scenes of 'hovercraft'"):
        render_scenes(tmp_path, ["hovercraft"], 1, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be read or written"):
        render_scenes(tmp_path / "file", ["dog"], 1, 0)
    (tmp_path / "scenes.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read or written"):
        render_scenes(tmp_path, ["dog"], 1, 0)
