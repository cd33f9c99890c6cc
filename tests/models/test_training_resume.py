"""Interrupted and killed trainings go on exactly; full disks and numbers that are none stop them with what was saved."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.catalog import read_card
from models.errors import CheckpointError, SettingsError
from models.training import run_state
from models.training.config import TrainConfig, load_train_config
from models.training.equiav import OnlineTrainer
from models.training.run_state import Saver, load_state, state_path
from models.training.standard_loop import StandardLoop
from models.training.trainer import train
from tests.models.test_equiav import TINY as EQUIAV
from tests.models.test_equiav_pretraining import TINY as EQUIAV_PRETRAINING
from tests.models.test_training_options import recipe, same, weights
from tests.models.training_data import write_sounds, write_videos


class Stop(Exception):
    """Somebody pulls the plug."""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "esc", (9, 4))


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, cls: type, before: int) -> Iterator[None]:
    """Raise `Stop` when the method ``step`` of a class is called for the so many-th time (from 0)."""
    taken, real = [0], cls.step  # type: ignore[attr-defined]

    def step(self: Any, *arguments: Any) -> Any:
        if taken[0] == before:
            raise Stop
        taken[0] += 1
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "step", step)
        yield


# Four or more steps of 4 clips in two epochs; every clip with all kinds of random changes.
SAVED = {"checkpoint_every_steps": 1, "checkpoint_every_seconds": None}
INTERRUPTED: dict[str, dict[str, Any]] = {
    "plain, moving average": {"optimizer": {"epochs": 2, "average_decay": 0.5}},
    "balanced, accumulated": {
        "sampling": {"kind": "balanced"},
        "optimizer": {"epochs": 2, "batch_size": 2, "accumulate": 2, "average_decay": 0.5},
    },
    "published, bf16": {
        "augment": {"kind": "audio_tagging", "mixup": 0.5, "frequency_mask": 4, "time_mask": 8, "noise": True},
        "sampling": {"kind": "balanced", "weighted_partners": True}, "loss": {"kind": "bce"},
        "optimizer": {"epochs": 2, "average_epochs": [1, 2], "mixed_precision": "bf16", "kind": "adam"},
        "schedule": {"kind": "milestones", "milestones": [1]},
    },
    "best epoch": {
        "data": {"validation_folds": [2], "test_folds": []}, "validation": {"keep": "best"},
        "optimizer": {"epochs": 2, "kind": "sgd", "average_decay": 0.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", INTERRUPTED)
def test_interrupted_anywhere_is_uninterrupted(
    case: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, after every single step; with states after each step, and after each second one."""
    whole = train(recipe(sounds, tmp_path / "whole", **INTERRUPTED[case]))
    history = [json.loads(line) for line in (tmp_path / "whole" / "tiny.jsonl").read_text().splitlines()]
    for at, every in ((1, 1), (2, 1), (3, 1), (3, 2)):
        saved = SAVED | {"checkpoint_every_steps": every}
        config = recipe(sounds, tmp_path / f"{at}-{every}", **INTERRUPTED[case], **saved)
        with stopping(monkeypatch, StandardLoop, at), pytest.raises(Stop):
            train(config)
        assert load_state(state_path(config), config)["progress"]["step"] == (2 if every == 2 else at)
        torch.rand(7)  # whatever else happens in between
        resumed = train(config.model_copy(update={"resume": True}))
        assert same(weights(whole), weights(resumed))
        lines = [json.loads(line) for line in (config.output / "tiny.jsonl").read_text().splitlines()]
        assert [line | {"seconds": 0} for line in lines] == [line | {"seconds": 0} for line in history]
        assert not state_path(config).exists()


def test_a_run_that_stopped_early_is_not_gone_on_with(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.5, 0.4, 0.3, 0.9, 0.9])
    monkeypatch.setattr("models.training.standard_loop.validate", lambda *_: next(figures))
    config = recipe(
        sounds, tmp_path, optimizer={"epochs": 5}, data={"validation_folds": [2], "test_folds": []},
        validation={"patience": 2},
    )  # fmt: skip

    def unplugged(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("models.training.trainer.write_checkpoint", unplugged)
        with pytest.raises(Stop):
            train(config)
    train(config.model_copy(update={"resume": True}))
    assert len((tmp_path / "tiny.jsonl").read_text().splitlines()) == 3


def test_other_steps_are_not_gone_on_with(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(sounds, tmp_path, **SAVED)
    with stopping(monkeypatch, StandardLoop, 1), pytest.raises(Stop):
        train(config)
    state = load_state(state_path(config), config)
    run_state.save_state(state_path(config), config, state | {"step_size": 64})
    with pytest.raises(SettingsError, match="steps of 64 clips, this one would make steps of 4"):
        train(config.model_copy(update={"resume": True}))
    run_state.save_state(state_path(config), config, state | {"data": "other clips"})
    with pytest.raises(SettingsError, match="data has changed"):
        train(config.model_copy(update={"resume": True}))


def test_a_single_clip_at_a_time_is_gone_on_with(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(output: Path) -> TrainConfig:
        return TrainConfig.model_validate({
            "name": "online", "family": "equiav", "config": EQUIAV, "normalize": "given", "half": False,
            "frontend": {"kind": "kaldi_fbank", "n_mels": 128, "target_length": 64, "padding": "zero"},
            "data": {"root": sounds, "train_folds": [2], "test_folds": [1]}, "output": output, "task": "multi-label",
            "augment": {"kind": "equiav", "mixup": 0.0}, "optimizer": {"epochs": 2, "learning_rate": 1e-3},
            "schedule": {"kind": "half_cosine"}, "loop": {"kind": "online", "freeze_base": False}, **SAVED,
        })  # fmt: skip

    whole = train(config(tmp_path / "whole"))
    for at in (2, 4, 7):
        parts = config(tmp_path / str(at))
        with stopping(monkeypatch, OnlineTrainer, at), pytest.raises(Stop):
            train(parts)
        assert same(weights(whole), weights(train(parts.model_copy(update={"resume": True}))))
        assert not state_path(parts).exists()
        losses = [
            [json.loads(line)["loss"] for line in (folder / "online.jsonl").read_text().splitlines()]
            for folder in (tmp_path / "whole", parts.output)
        ]
        assert losses[0] == losses[1] and len(losses[0]) == 2


def test_pre_training_is_gone_on_with_in_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_videos(tmp_path / "videos")

    def config(output: Path) -> TrainConfig:
        return TrainConfig.model_validate({
            "name": "views", "family": "equiav_pretraining", "config": EQUIAV_PRETRAINING, "normalize": "given",
            "frontend": {"kind": "kaldi_fbank", "n_mels": 128, "target_length": 64}, "half": False,
            "data": {"root": root, "train_folds": [1], "test_folds": [2], "video": True},
            "augment": {"kind": "equiav", "mixup": 0.0}, "output": output,
            "optimizer": {"epochs": 1, "batch_size": 2, "learning_rate": 1e-3},
            "loop": {"kind": "pretraining", "time_mask": 8, "inter_temperature": 0}, **SAVED,
        })  # fmt: skip

    whole, parts = train(config(tmp_path / "whole")), config(tmp_path / "parts")
    with stopping(monkeypatch, StandardLoop, 2), pytest.raises(Stop):
        train(parts)
    state = load_state(state_path(parts), parts)
    assert state["progress"]["step"] == 2 and "criterion.inter_temperature" in state["network"]
    assert same(weights(whole), weights(train(parts.model_copy(update={"resume": True}))))


# --- when states are written ------------------------------------------------------------------------------------------


def test_states_are_written_by_steps_or_time_and_not_too_often(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("models.training.run_state.time.monotonic", lambda: clock[0])

    def slow(*_: object) -> None:
        clock[0] += 2.0

    monkeypatch.setattr(run_state, "save_state", slow)
    by_steps = Saver(recipe(sounds, tmp_path, checkpoint_every_steps=3, checkpoint_every_seconds=None))
    assert [step for step in range(1, 9) if by_steps.due(step) and by_steps.save({}, step) is None] == [3, 6]
    by_time = Saver(recipe(sounds, tmp_path, checkpoint_every_seconds=10.0))
    found = []
    for step in range(1, 101):
        clock[0] += 1.0
        if by_time.due(step):
            by_time.save({}, step)
            found.append(step)
    assert found == [10, 50, 90]  # each takes 2 s, so the next one is due 40 s later
    assert not Saver(recipe(sounds, tmp_path, checkpoint_every_steps=1), main=False).due(5)


def test_a_process_killed_while_it_writes_leaves_the_old_state(sounds: Path, tmp_path: Path) -> None:
    """A child of this process is killed by the kernel between writing the third state and putting it in its place."""
    config = recipe(sounds, tmp_path, optimizer={"epochs": 4}, **SAVED)
    child = os.fork()
    if child == 0:
        calls, fsync = [0], os.fsync

        def killed(file: int) -> None:
            calls[0] += 1
            if calls[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(file)

        os.fsync = killed
        try:
            train(config)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob(".tiny.state*")]  # the half that was written
    # One state after each of two steps; the third, at the end of the epoch, was being written.
    assert load_state(state_path(config), config)["progress"]["step"] == 2
    resumed = weights(train(config.model_copy(update={"resume": True})))
    assert not list(tmp_path.glob(".tiny.state*"))
    whole = recipe(sounds, tmp_path / "whole", optimizer={"epochs": 4})
    assert same(resumed, weights(train(whole)))


@pytest.mark.slow
def test_kill_9_loses_the_steps_since_the_last_state_and_no_more(sounds: Path, tmp_path: Path) -> None:
    """The command line itself, killed from outside at any moment, twice."""
    values = recipe(sounds, tmp_path / "run", optimizer={"epochs": 60}, **SAVED).model_dump(mode="json")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    config, command = load_train_config(path), [sys.executable, "-m", "workbench.cli", "train", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    reached = 0
    for again in (False, True):
        child = subprocess.Popen(
            [*command, "resume=true"] if again else command, env=environment, stderr=subprocess.PIPE, text=True
        )
        history, deadline = tmp_path / "run" / "tiny.jsonl", time.monotonic() + 120
        wanted = reached // 2 + 5
        while time.monotonic() < deadline and child.poll() is None:
            if history.is_file() and len(history.read_text().splitlines()) >= wanted:
                break
            time.sleep(0.01)
        child.kill()
        _, said = child.communicate()
        assert child.returncode == -signal.SIGKILL, said
        state = load_state(state_path(config), config)
        # An epoch has two steps; what was reported is saved. (A state from an epoch's last step is reported after it.)
        epochs = [int(number) for number in re.findall(r"epoch (\d+)/60", said)]
        assert epochs and state["progress"]["step"] >= max(2 * max(epochs), reached)
        reached = state["progress"]["step"]
    done = subprocess.run([*command, "resume=true"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = recipe(sounds, tmp_path / "whole", optimizer={"epochs": 60})
    assert same(weights(tmp_path / "run" / "tiny"), weights(train(whole)))


# --- what goes wrong --------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_state_that_cannot_be_written_stops_and_leaves_the_old_one(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(sounds, tmp_path, **SAVED)
    with stopping(monkeypatch, StandardLoop, 1), pytest.raises(Stop):
        train(config)
    old = state_path(config).read_bytes()
    with largest_file(len(old) // 2), pytest.raises(CheckpointError, match="state of tiny cannot be written") as caught:
        train(config.model_copy(update={"resume": True}))
    assert "resume=true" in caught.value.advice
    assert (
        state_path(config).read_bytes() == old
        and not list(tmp_path.glob(".tiny*"))
        and not (tmp_path / "tiny").exists()
    )

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("models.training.run_state.os.fsync", full)
        with pytest.raises(CheckpointError, match="state of tiny cannot be written: the disk is full"):
            train(config.model_copy(update={"resume": True}))
    assert state_path(config).read_bytes() == old and not list(tmp_path.glob(".tiny*"))
    train(config.model_copy(update={"resume": True}))


def test_a_disk_that_fills_up_in_the_middle_of_a_state(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every place in the file: torch's own writer then raises all kinds of errors."""
    config, real = recipe(sounds, tmp_path), Path.open
    state = {"network": {str(index): torch.rand(2000) for index in range(4)}}
    run_state.save_state(state_path(config), config, state)
    old = state_path(config).read_bytes()
    for room in (0, 100, 9000, 20000, len(old) - 10):

        class Full:
            """A file on a disk with little room."""

            def __init__(self, file: Any) -> None:
                self.file, self.room = file, room  # noqa: B023

            def write(self, data: Any) -> int:
                self.room -= len(data)
                if self.room < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                written: int = self.file.write(data)
                return written

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda path, *arguments: Full(real(path, *arguments)))
            with pytest.raises(CheckpointError, match="state of tiny cannot be written: the disk is full"):
                run_state.save_state(state_path(config), config, state)
        assert state_path(config).read_bytes() == old and not list(tmp_path.glob(".tiny*"))


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_the_state(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(sounds, tmp_path, optimizer={"epochs": 1})
    before = read_card(train(config))
    written = run_state.save_state

    def then_full(*arguments: Any) -> None:
        written(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    other = config.model_copy(update={"seed": 1})
    with largest_file(resource.RLIM_INFINITY), monkeypatch.context() as patch:
        patch.setattr(run_state, "save_state", then_full)
        with pytest.raises(CheckpointError, match="The checkpoint tiny cannot be written"):
            train(other)
    assert read_card(tmp_path / "tiny") == before and not list(tmp_path.glob(".tiny*"))
    train(other.model_copy(update={"resume": True}))
    assert read_card(tmp_path / "tiny").content_hash != before.content_hash


def test_a_loss_that_is_not_a_number_names_the_step_and_keeps_what_was_saved(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real, calls = recipe(sounds, tmp_path, **SAVED), StandardLoop.loss, [0]

    def loss(self: StandardLoop, *arguments: Any) -> torch.Tensor:
        calls[0] += 1
        return real(self, *arguments) * (float("nan") if calls[0] == 4 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(StandardLoop, "loss", loss)
        with pytest.raises(SettingsError, match=r"in epoch 2, at step 4 with a learning rate of 0\.00667") as caught:
            train(config)
    assert "optimizer.learning_rate" in caught.value.advice
    state = load_state(state_path(config), config)
    assert state["progress"]["step"] == 3 and all(value.isfinite().all() for value in state["network"].values())
    whole = weights(train(recipe(sounds, tmp_path / "whole")))
    assert same(whole, weights(train(config.model_copy(update={"resume": True}))))  # it was a cosmic ray


def test_weights_that_are_no_numbers_are_not_saved(sounds: Path, tmp_path: Path) -> None:
    config = recipe(sounds, tmp_path)
    with pytest.raises(SettingsError, match=r"weights are not numbers any more after step 7 \(in a\)"):
        Saver(config).save({"network": {"a": torch.tensor([1.0, float("inf")])}}, 7)
    assert not state_path(config).exists()


# --- repeating --------------------------------------------------------------------------------------------------------


def test_a_run_is_repeated_from_its_card(sounds: Path, tmp_path: Path) -> None:
    changes = {"data": {"validation_folds": [2], "test_folds": []}, "seed": 5, "checkpoint_every_seconds": 7.0}
    first = train(recipe(sounds, tmp_path / "first", **changes))
    again = load_train_config(
        first / "card.yaml", [f"data.root={sounds}", f"output={tmp_path / 'again'}", "optimizer.warmup_epochs=3.0"]
    )
    cards = [read_card(first), read_card(train(again))]
    assert cards[0].content_hash == cards[1].content_hash and cards[0].training == cards[1].training
    training = cards[0].training
    assert training["versions"]["torch"] == torch.__version__ and training["processes"] == 1
    assert training["recipe"]["seed"] == 5 and training["recipe"]["data"]["root"] == sounds.name
    assert training["data"]["train"]["clips"] == 9 and training["data"]["validation"]["clips"] == 4
    assert str(sounds.parent) not in (first / "card.yaml").read_text()


def test_the_card_tells_other_data_by_their_hashes(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b", "c", "d"):
        root = write_sounds(tmp_path / name, (4,))
        if name == "b":
            data = (root / "audio" / "1.wav").read_bytes()
            (root / "audio" / "1.wav").write_bytes(data[:-2] + bytes([data[-2] ^ 1, data[-1]]))
        if name == "c":
            rows = (root / "meta.csv").read_text()
            (root / "meta.csv").write_text(rows.replace("0.wav,1,high", "0.wav,1,low"))
        config = recipe(root, tmp_path / f"run {name}", optimizer={"epochs": 1})
        found.append(read_card(train(config)).training["data"]["train"])
    a, b, c, d = found
    assert a == d
    assert a["annotation_sha256"] == b["annotation_sha256"] and a["files_sha256"] != b["files_sha256"]
    assert a["annotation_sha256"] != c["annotation_sha256"] and a["files_sha256"] == c["files_sha256"]
