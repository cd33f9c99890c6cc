"""What a run leaves behind: its history, TensorBoard's files always, Weights & Biases when asked."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.errors import CheckpointError, SettingsError
from models.training.config import TrainConfig
from models.training.tracking import RunLog
from models.training.trainer import EpochReport, train
from tests.models.test_equiav import TINY as EQUIAV
from tests.models.test_training_options import recipe
from tests.models.training_data import write_sounds


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "esc", (8, 4))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every curve in a folder of TensorBoard's."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_curves_are_always_written(sounds: Path, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    changes = {
        "data": {"validation_folds": [2], "test_folds": []}, "optimizer": {"batch_size": 2, "epochs": 3},
    }  # fmt: skip
    train(recipe(sounds, tmp_path, **changes), reports.append)
    curves = scalars(tmp_path / "tiny.tensorboard")
    assert set(curves) == {"loss", "learning_rate", "validation", "epoch", "step/loss", "step/learning_rate"}
    assert curves["loss"] == [(4 * r.epoch, pytest.approx(r.loss)) for r in reports]
    assert curves["validation"] == [(4 * r.epoch, pytest.approx(r.validation_accuracy)) for r in reports]
    assert [step for step, _ in curves["step/loss"]] == [10]
    train(recipe(sounds, tmp_path, **changes))  # a second run replaces the first one's
    assert len(scalars(tmp_path / "tiny.tensorboard")["loss"]) == 3


def test_other_loops_write_them_too(sounds: Path, tmp_path: Path) -> None:
    train(TrainConfig.model_validate({
        "name": "online", "family": "equiav", "config": EQUIAV, "normalize": "given", "half": False,
        "frontend": {"kind": "kaldi_fbank", "n_mels": 128, "target_length": 64, "padding": "zero"},
        "data": {"root": sounds, "train_folds": [2], "test_folds": [1]}, "output": tmp_path, "task": "multi-label",
        "augment": {"kind": "equiav", "mixup": 0.0}, "optimizer": {"epochs": 2}, "loop": {"kind": "online"},
    }))  # fmt: skip
    curves = scalars(tmp_path / "online.tensorboard")
    assert [step for step, _ in curves["loss"]] == [4, 8] and [value for _, value in curves["epoch"]] == [1, 2]


def test_a_run_that_goes_on_drops_what_is_made_again(tmp_path: Path) -> None:
    config = recipe(tmp_path, tmp_path)
    entries = [EpochReport(epoch, 3, 1.0 / epoch, 0.1, None, 0.0) for epoch in (1, 2, 3)]
    with RunLog(config) as records:
        for entry in entries[:2]:
            records.write(entry, 10 * entry.epoch, stage="first")
    lines = (tmp_path / "tiny.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {
        "epoch": 2, "epochs": 3, "loss": 0.5, "learning_rate": 0.1, "validation_accuracy": None, "seconds": 0.0, "stage": "first",
    }  # fmt: skip
    with (tmp_path / "tiny.jsonl").open("a") as file:
        file.write('{"epoch": 3, "epo')  # a run killed while it wrote
    with RunLog(config, 1, 10) as records:
        records.write(entries[1], 20)
    assert (tmp_path / "tiny.jsonl").read_text().splitlines()[:1] == lines[:1]
    assert [json.loads(line)["epoch"] for line in (tmp_path / "tiny.jsonl").read_text().splitlines()] == [1, 2]
    assert [step for step, _ in scalars(tmp_path / "tiny.tensorboard")["loss"]] == [10, 20]


def test_processes_that_do_not_write_write_nothing(tmp_path: Path) -> None:
    with RunLog(recipe(tmp_path, tmp_path / "out"), main=False) as records:
        records.write(EpochReport(1, 1, 1.0, 0.1, None, 0.0), 1)
        records.track({"loss": 1.0}, 1)
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_run_is_not_hidden_by_the_tracker_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise OSError("gone")

    with pytest.raises(SettingsError, match="what happened"), RunLog(recipe(tmp_path, tmp_path)) as records:
        monkeypatch.setattr(type(records.trackers[0]), "finish", gone)
        raise SettingsError("what happened")


def test_a_folder_that_cannot_be_written_is_said_so(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="history of tiny cannot be written"):
        train(recipe(sounds, tmp_path / "file" / "inside"))


def test_weights_and_biases_must_be_there_when_asked_for(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.tracking.is_wandb_available", lambda: False)
    with pytest.raises(SettingsError, match="not installed") as caught:
        train(recipe(sounds, tmp_path / "out", tracking="wandb"))
    assert "pip install" in caught.value.advice and not (tmp_path / "out").exists()


def test_weights_and_biases_are_told_the_recipe_and_the_figures(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the package: what it is called with."""
    told: list[tuple[str, Any]] = []

    class Run:
        def log(self, values: dict[str, float], step: int, **_: Any) -> None:
            told.append(("log", (step, set(values))))

        def finish(self) -> None:
            told.append(("finish", None))

    def init(**settings: Any) -> Run:
        told.append(("init", settings))
        return Run()

    package = types.ModuleType("wandb")
    package.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr("models.training.tracking.is_wandb_available", lambda: True)
    train(recipe(sounds, tmp_path, tracking="wandb", optimizer={"epochs": 2}))
    assert told[0][1]["project"] == "earwitness" and told[0][1]["name"] == "tiny"
    assert told[0][1]["config"]["optimizer"]["epochs"] == 2 and str(sounds) not in json.dumps(told[0][1]["config"])
    assert told[1:] == [
        ("log", (2, {"loss", "learning_rate", "epoch"})), ("log", (4, {"loss", "learning_rate", "epoch"})), ("finish", None),
    ]  # fmt: skip
    assert scalars(tmp_path / "tiny.tensorboard")
