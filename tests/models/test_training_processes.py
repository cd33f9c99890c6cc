"""The loops of the event graph and of Play It Back in several processes: the same steps as in one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.errors import SettingsError
from models.training import event_graph_loop
from models.training.config import TrainConfig
from models.training.processes import SharedBatch, backward, check_processes
from models.training.trainer import EpochReport, train
from tests.models.test_audio_visual_training import SMALL
from tests.models.test_play_it_back import tiny_config
from tests.models.test_playback_training import recipe as playback_recipe
from tests.models.test_training_options import recipe, same, weights
from tests.models.test_training_plan import torchrun
from tests.models.training_data import write_videos


class Told:
    """Stands for one of several processes; the others say the same, and have a gradient that waits for its step."""

    def __init__(self, rank: int, processes: int, waiting: float = 0.0) -> None:
        self.process_index, self.num_processes, self.waiting = rank, processes, waiting

    def gather(self, own: Tensor) -> Tensor:
        """Everybody's values; here those of this process stand for all."""
        return torch.cat([own] * self.num_processes)

    def reduce(self, own: Tensor, kind: str) -> Tensor:
        """The mean with a process that has found nothing new."""
        assert kind == "mean"
        return (own + self.waiting) / 2


@pytest.mark.parametrize(("count", "processes"), [(8, 2), (5, 2), (7, 3), (1, 3), (2, 4), (6, 1)])
def test_every_clip_of_a_batch_is_heard_by_one_process(count: int, processes: int) -> None:
    clips, counted = [f"clip {index}" for index in range(count)], []
    for rank in range(processes):
        shared = SharedBatch(Told(rank, processes), count)
        mine = list(shared.mine(clips))
        assert 1 <= len(mine) <= -(-count // processes)
        counted += mine[: shared.sizes[rank]]
        own = torch.arange(len(mine), dtype=torch.float32).requires_grad_()
        whole = shared.whole(own)
        assert whole.shape == (count,)
        gradient = torch.autograd.grad(whole.sum(), own)[0]
        assert gradient.tolist() == [1.0] * shared.sizes[rank] + [0.0] * (len(mine) - shared.sizes[rank])
    assert counted == clips


def test_gradients_that_wait_for_their_step_are_not_summed_again() -> None:
    """Two processes, of which the other has found nothing and waits with the same gradient."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    unused = nn.Parameter(torch.zeros(3))
    told = Told(0, 2, waiting=4.0)
    weight.grad = torch.tensor([4.0, 4.0])
    backward(told, [weight, unused], (weight * torch.tensor([1.0, 3.0])).sum())
    assert weight.grad.tolist() == [5.0, 7.0] and unused.grad is None


def test_other_processes_do_not_go_on() -> None:
    alone: Any = SimpleNamespace(num_processes=1)
    check_processes(alone, {})
    with pytest.raises(SettingsError, match="ran in 4 processes, this one in 1"):
        check_processes(alone, {"processes": 4})


def test_one_clip_at_a_time_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="one clip at a time"):
        train(recipe(tmp_path, tmp_path / "out", loop={"kind": "online"}))
    assert not (tmp_path / "out").exists()


def test_clips_that_change_each_other_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"), is_main_process=True)
    monkeypatch.setattr(event_graph_loop, "begin", lambda _: two)
    for config in ({}, {"batch_independent": False}):
        with pytest.raises(SettingsError, match="clips of a batch change each other"):
            train(
                recipe(tmp_path, tmp_path / "out", family="hetero_graph", config=config, loop={"kind": "event_graph"})
            )
    assert not (tmp_path / "out").exists()


# --- torchrun ---------------------------------------------------------------------------------------------------------


def event_graph(root: Path, output: Path, **changes: Any) -> TrainConfig:
    """A tiny event graph, with all losses but the penalty; without changes nothing in it is random."""
    values = {key: value for key, value in SMALL.items() if key != "n_classes"} | {
        "conv_layers": ((8, 64, 20), (8, 3, 2)), "fusion_layers": (-2,), "batch_independent": True,
        "freeze_video": True, "adjacency_dropout": 0.0, "graph_dropout": 0.0,
    }  # fmt: skip
    loop = {
        "kind": "event_graph", "augment": True, "class_weights": True, "balanced": True,
        "synchrony": 1.0, "picture": 0.5, "evaluate_every": 2, "patience": 9,
        "solver": {
            "BASE_LR": 0.01, "MAX_ITER": 6, "WARMUP_ITERS": 2, "ITERS_TO_ACCUMULATE": 3, "MY_CLIP_GRADIENTS": True,
        },
    }  # fmt: skip
    return TrainConfig.model_validate({
        "name": "tiny", "family": "hetero_graph", "config": values | changes.pop("config", {}), "normalize": "given",
        "half": False, "frontend": {"kind": "waveform", "sample_rate": 16000, "n_mels": 0, "target_length": 16000},
        "data": {"root": root, "train_folds": [1], "validation_folds": [2], "test_folds": [], "video": True},
        "augment": {"mixup": 0.0, "frequency_mask": 0, "time_mask": 0, "hide_sound": 0.2, "turn": True},
        "optimizer": {"batch_size": changes.pop("batch_size", 5)}, "output": output, "loop": loop | changes,
    })  # fmt: skip


def playback(root: Path, output: Path, batch_size: int = 3, dropout: float = 0.0, **loop: Any) -> TrainConfig:
    """A tiny Play It Back of two classes, all stages."""
    if not root.exists():
        root.mkdir()
        playback_recipe(root)
        rows = (root / "meta.csv").read_text()
        (root / "meta.csv").write_text(rows.replace("6.wav,1", "6.wav,2").replace("7.wav,1", "7.wav,2"))
    config = tiny_config(n_classes=2, playbacks=2, schedule={"corrected": True}).model_dump(mode="json")
    config["encoder"] |= {"drop_path": dropout, "dropout": dropout}
    stages = {"kind": "playback_stages", "decoder_epochs": 1, "joint_epochs": 1, "answer_epochs": 1}
    return TrainConfig.model_validate({
        "name": "tiny", "family": "play_it_back", "config": config, "half": False,
        "frontend": {"kind": "play_it_back"}, "output": output,
        "data": {"root": root, "train_folds": [1], "validation_folds": [2], "test_folds": []},
        "optimizer": {"epochs": 2, "batch_size": batch_size, "average_decay": 0.9}, "loop": stages | loop,
    })  # fmt: skip


SHARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "event graph, two clips and three": (event_graph, {}),
    "event graph, one clip for two": (event_graph, {"batch_size": 1}),
    "event graph, penalty": (event_graph, {"parameter_norms": True}),
    "playback, one clip and two": (playback, {}),
    "playback, copies": (playback, {"batch_size": 4, "copies": 3}),
}


WITHOUT_DROPOUT = """
from torch import nn
nn.Dropout.forward = lambda self, values: values
from workbench.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARED)
def test_two_processes_learn_what_one_does(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``torchrun`` on the CPU (gloo): weights, losses, validation; one process writes and speaks."""
    build, changes = SHARED[case]
    root = tmp_path / "clips"
    if build is event_graph:
        write_videos(root)
    # The decoder of Play It Back has a dropout that no setting takes away.
    monkeypatch.setattr(nn.Dropout, "forward", lambda _, values: values)
    reports: list[EpochReport] = []
    expected = weights(train(build(root, tmp_path / "one", **changes), reports.append))
    done = torchrun(build(root, tmp_path / "two", **changes), tmp_path, script=WITHOUT_DROPOUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "two" / "tiny")]
    found = weights(tmp_path / "two" / "tiny")
    # A bias without effect has a gradient that is rounding; the penalty wants its direction, and Adam scales it up.
    off = 1e-4 if "parameter_norms" in changes else 1e-5
    for key, value in expected.items():
        if key.endswith("norm_k.bias"):  # the same for all keys of a softmax
            continue
        assert torch.allclose(found[key], value, atol=off, rtol=1e-4), key
    lines = [json.loads(line) for line in (tmp_path / "two" / "tiny.jsonl").read_text().splitlines()]
    assert len(lines) == len(reports)
    for line, entry in zip(lines, reports, strict=True):
        assert line["loss"] == pytest.approx(entry.loss, rel=1e-4)
        assert line["validation_accuracy"] == entry.validation_accuracy
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["tiny", "tiny.jsonl", "tiny.tensorboard"]
    assert "processes: 2" in (tmp_path / "two" / "tiny" / "card.yaml").read_text()


KILLED = """
import os, signal
from models.training.tracking import RunLog
write, told = RunLog.write, [0]
def killed(self, *arguments, **more):
    told[0] += 1
    if told[0] == int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, *arguments, **more)
RunLog.write = killed
from workbench.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["event graph", "playback"])
def test_two_processes_go_on_where_they_were_killed(kind: str, tmp_path: Path) -> None:
    """With dropout; a different number of processes is refused."""
    root = tmp_path / "clips"
    if kind == "event graph":
        write_videos(root)
        changes = {"config": {"adjacency_dropout": 0.2, "graph_dropout": 0.2}}
        whole, parts = (event_graph(root, tmp_path / name, **changes) for name in ("whole", "parts"))
    else:
        whole, parts = (playback(root, tmp_path / name, dropout=0.1) for name in ("whole", "parts"))
    done = torchrun(whole, tmp_path, script=KILLED)
    assert done.returncode == 0, done.stderr
    killed = torchrun(parts, tmp_path, kill_at=2, script=KILLED)
    assert killed.returncode != 0 and (tmp_path / "parts" / "tiny.state").is_file()
    with pytest.raises(SettingsError, match="ran in 2 processes, this one in 1"):
        train(parts.model_copy(update={"resume": True}))
    resumed = torchrun(parts.model_copy(update={"resume": True}), tmp_path, script=KILLED)
    assert resumed.returncode == 0, resumed.stderr
    assert same(weights(tmp_path / "whole" / "tiny"), weights(tmp_path / "parts" / "tiny"))
