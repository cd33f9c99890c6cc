"""Which clips make a step does not depend on how many processes share it; two processes learn what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.training.augmentations import AUGMENTATIONS
from models.training.clips import TrainingClips, collate, key_of
from models.training.config import TrainConfig
from models.training.plan import EpochPlan
from models.training.trainer import EpochReport, train
from tests.models.test_training_options import example_set, recipe, same, weights
from tests.models.training_data import write_sounds


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "esc", (19, 7))


def plans(clips: TrainingClips, size: int, accumulate: int, processes: int, **changes: Any) -> list[EpochPlan]:
    config = recipe(Path(), Path(), optimizer={"batch_size": size, "accumulate": accumulate}, **changes)
    return [EpochPlan(config, clips, rank, processes) for rank in range(processes)]


SHARED = [(8, 1, 1), (4, 1, 2), (4, 2, 1), (2, 1, 4), (2, 2, 2), (1, 8, 1)]


@pytest.mark.parametrize("kind", ["standard", "audio_tagging", "slowfast", "equiav"])
@pytest.mark.parametrize("sampling", ["plain", "balanced"])
def test_a_step_is_the_same_however_it_is_shared(kind: str, sampling: str) -> None:
    """Order, windows, partners and the seeds of all random changes, at whatever rank a clip is heard."""
    clips = TrainingClips(example_set(["a"] * 19 + ["b"] * 2), 16000, 100)
    changes = {"augment": {"kind": kind, "mixup": 0.5}, "sampling": {"kind": sampling, "weighted_partners": True}}
    found = []
    for size, accumulate, processes in SHARED:
        ranks = plans(clips, size, accumulate, processes, **changes)
        assert {plan.step_size for plan in ranks} == {8} and {plan.steps for plan in ranks} == {2}
        assert sum(plan.share(part) / processes for plan in ranks for part in range(plan.parts)) == pytest.approx(1)
        heard = [list(plan.batches(3)) for plan in ranks]
        together = [
            [draw for part in range(accumulate) for batches in heard for draw in batches[step * accumulate + part]]
            for step in range(2)
        ]
        found.append(together)
    assert all(other == found[0] for other in found)
    keys = [draw.key for step in found[0] for draw in step]
    assert len(set(keys)) == 16


def test_every_epoch_is_another_and_can_begin_anywhere() -> None:
    plan = plans(TrainingClips(example_set(["a", "b"] * 10), 16000, 100), 3, 2, 1)[0]
    first, second = list(plan.batches(1)), list(plan.batches(2))
    assert first != second and plan.parts == 2
    for step in range(plan.steps + 1):
        assert list(plan.batches(1, step)) == first[2 * step :]
    other = plan.config.model_copy(update={"seed": -3})
    assert list(EpochPlan(other, TrainingClips(example_set(["a", "b"] * 10), 16000, 100)).batches(1)) != first


@pytest.mark.parametrize(
    ("count", "size", "accumulate", "processes"), [(5, 8, 1, 2), (7, 2, 3, 2), (3, 4, 4, 1), (1, 4, 1, 3)]
)
def test_a_small_data_set_is_one_step_and_every_clip_counts_once(
    count: int, size: int, accumulate: int, processes: int
) -> None:
    ranks = plans(TrainingClips(example_set(["a"] * count), 16000, 100), size, accumulate, processes)
    weight = dict.fromkeys(range(count), 0.0)
    for plan in ranks:
        assert plan.steps == (1 if count <= size * accumulate * processes else None) and plan.parts <= accumulate
        for part, batch in enumerate(plan.batches(1)):
            assert 1 <= len(batch) <= size
            for draw in batch:
                weight[draw.index] += plan.share(part) / len(batch) / processes
    assert list(weight.values()) == pytest.approx([1 / count] * count)


def test_the_network_s_random_numbers_belong_to_a_part_of_a_step() -> None:
    clips = TrainingClips(example_set(["a"] * 8), 16000, 100)
    numbers = []
    for ranks, order in (
        (plans(clips, 2, 4, 1), [(0, 0), (0, 1), (0, 2), (0, 3)]),
        (plans(clips, 2, 2, 2), [(0, 0), (1, 0), (0, 1), (1, 1)]),
    ):
        drawn = []
        for rank, part in order:
            ranks[rank].seed_network(2, 5, part)
            drawn.append(torch.rand(()).item())
        numbers.append(drawn)
    assert numbers[0] == numbers[1] and len(set(numbers[0])) == 4
    assert len({key_of(*place) for place in [(1, 2), (2, 1), (1,), (1, 2, 3), (-1, 2), (0, 1, 2)]}) == 6


@pytest.mark.parametrize("kind", ["standard", "audio_tagging", "slowfast", "equiav"])
def test_changes_of_a_clip_do_not_depend_on_its_neighbours(kind: str, sounds: Path) -> None:
    from models.data import read_esc
    from models.frontends import build_frontend
    from tests.models.test_training_options import FRONTEND

    clips = TrainingClips(read_esc(sounds).folds([1]), 16000, 16000)
    config = recipe(sounds, Path(), augment={"kind": kind, "mixup": 1.0, "noise": True}, optimizer={"batch_size": 6})
    batch = next(EpochPlan(config, clips).batches(1))
    found = []
    for parts in ([batch], [batch[:1], batch[1:4], batch[4:]]):
        heard = [
            AUGMENTATIONS[kind](
                collate(clips.__getitems__(part)), build_frontend(FRONTEND), config.augment, torch.device("cpu")
            )
            for part in parts
        ]
        found.append((torch.cat([one[0] for one in heard]), torch.cat([one[1] for one in heard])))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert found[0][1].equal(found[1][1])


def test_accumulated_batches_learn_what_one_batch_does(sounds: Path, tmp_path: Path) -> None:
    """With every random change but dropout; the last, uneven batch too (five clips in parts of two)."""
    for name, sizes, data in (
        ("whole", ((8, 1), (4, 2), (2, 4)), {}),
        ("uneven", ((7, 1), (2, 4)), {"train_folds": [2], "test_folds": [1]}),
    ):
        found = [
            weights(train(recipe(
                sounds, tmp_path / f"{name}-{size}", data=data, config={"dropout": 0.0},
                optimizer={"batch_size": size, "accumulate": accumulate, "epochs": 2, "warmup_epochs": 0},
            )))
            for size, accumulate in sizes
        ]  # fmt: skip
        for other in found[1:]:
            assert_learned_alike(found[0], other)


def assert_learned_alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Equal but for the order of sums."""
    for key, value in first.items():
        if key != "fc_att.bias":  # without effect, so its gradient is rounding, which Adam scales up
            torch.testing.assert_close(second[key], value, atol=2e-5, rtol=1e-4)


# --- processes --------------------------------------------------------------------------------------------------------

# Networks without batch norm: on the CPU every process would have statistics of its own part of a batch.
DROPOUT_FREE = {"config": {"dropout": 0.0}}
PROCESSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "batches of eight and of four": (
        DROPOUT_FREE | {"optimizer": {"batch_size": 8}}, DROPOUT_FREE | {"optimizer": {"batch_size": 4}}
    ),
    # 19 clips in two parts, which are not of one size; the random numbers of dropout belong to the part.
    "uneven parts, dropout, balanced, class weights": (
        {"optimizer": {"batch_size": 16, "accumulate": 2}, "sampling": {"kind": "balanced"}, "loss": {"class_weights": True}},
        {"optimizer": {"batch_size": 16}, "sampling": {"kind": "balanced"}, "loss": {"class_weights": True}},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", PROCESSES)
def test_two_processes_learn_what_one_does(case: str, sounds: Path, tmp_path: Path) -> None:
    """``torchrun`` with two processes on the CPU (gloo); only one writes, and what it validates is the whole fold."""
    held_out = {"data": {"validation_folds": [2], "test_folds": []}, "validation": {"metric": "mAP", "keep": "best"}}
    alone, shared = PROCESSES[case]
    one = recipe(sounds, tmp_path / "one", **held_out, **alone)
    reports: list[EpochReport] = []
    expected = weights(train(one, reports.append))
    two = recipe(sounds, tmp_path / "two", **held_out, **shared)
    done = torchrun(two, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "two" / "tiny")]  # one process speaks
    assert_learned_alike(expected, weights(tmp_path / "two" / "tiny"))
    lines = [json.loads(line) for line in (tmp_path / "two" / "tiny.jsonl").read_text().splitlines()]
    assert len(lines) == len(reports) == 3
    for line, entry in zip(lines, reports, strict=True):
        assert line["loss"] == pytest.approx(entry.loss, rel=1e-5) and line["learning_rate"] == entry.learning_rate
        assert line["validation_accuracy"] == pytest.approx(entry.validation_accuracy, abs=1e-6)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["tiny", "tiny.jsonl", "tiny.tensorboard"]
    assert len(list((tmp_path / "two" / "tiny.tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_killed(sounds: Path, tmp_path: Path) -> None:
    config = recipe(
        sounds, tmp_path / "two", config={"dropout": 0.1}, checkpoint_every_steps=1, checkpoint_every_seconds=None
    )
    whole = torchrun(config.model_copy(update={"output": tmp_path / "whole"}), tmp_path)
    assert whole.returncode == 0, whole.stderr
    killed = torchrun(config, tmp_path, kill_at=4)
    assert killed.returncode != 0 and (tmp_path / "two" / "tiny.state").is_file()
    resumed = torchrun(config.model_copy(update={"resume": True}), tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert same(weights(tmp_path / "whole" / "tiny"), weights(tmp_path / "two" / "tiny"))


KILLED = """
import os, signal, sys
from models.training.standard_loop import StandardLoop
step, taken = StandardLoop.step, [0]
def killed(self, *arguments):
    taken[0] += 1
    if taken[0] == int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)
if os.environ["KILL_AT"] != "0":
    StandardLoop.step = killed
from workbench.cli import main
main()
"""


def torchrun(
    config: TrainConfig, folder: Path, kill_at: int = 0, script: str = KILLED
) -> subprocess.CompletedProcess[str]:
    """Train in two processes, which kill themselves before a step (from 1) if wanted."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    (folder / "go.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "KILL_AT": str(kill_at), "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    return subprocess.run(
        [*command, str(folder / "go.py"), "train", str(folder / "recipe.yaml")],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
