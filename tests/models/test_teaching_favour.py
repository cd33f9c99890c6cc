"""How teaching balances new classes against old ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import load_recognizer
from models.network import Network
from models.teaching import TeachSettings, teach
from models.teaching.contract import LeftOut
from models.teaching.course import Course
from models.teaching.favour import (
    FAVOURS,
    favoured,
    least_favour,
    leave_out,
    most_favour,
    rounds_of,
)  # fmt: skip
from models.teaching.head import HeadData, train_head
from models.teaching.memory import Memory
from tests.conftest import make_recognizer
from tests.models.test_teaching import saved, write


@pytest.mark.parametrize(
    ("n_classes", "n_new", "wanted"),
    [(10, 0, 0.0), (13, 3, 0.5), (5, 2, math.log(1.5)), (4, 2, 0.0), (5, 4, 0.0), (528, 1, 0.5)],
)
def test_new_classes_are_favoured_while_they_are_the_fewer(n_classes: int, n_new: int, wanted: float) -> None:
    assert most_favour(n_classes, n_new) == pytest.approx(wanted)


def test_between_an_old_and_a_new_class_the_head_leans_to_the_new_one() -> None:
    scores = []
    for favour in (0.0, 0.5):
        network = make_recognizer("ast").network
        parameters = {n: p for n, p in network.named_parameters() if n.startswith("mlp_head")}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        n_classes = network.config.n_classes
        generator = torch.Generator().manual_seed(3)
        hidden = torch.randn(40 * n_classes, parameters["mlp_head.0.weight"].shape[0], generator=generator)
        targets = torch.eye(n_classes).repeat(40, 1)
        data = HeadData(hidden, targets, torch.arange(0), torch.zeros(0, n_classes))
        train_head(
            network, parameters, data, "single-label", Course(None), steps=200, learning_rate=0.01, seed=0,
            n_new=1, favour=favour,
        )  # fmt: skip
        with torch.no_grad():
            scores.append(network.forward_head(hidden).softmax(dim=1)[:, -1].mean())
    # Embeddings of noise say nothing about the class: the share of the new one is what it is before anything is heard.
    assert scores[1] > scores[0] + 0.05


@pytest.mark.parametrize(
    ("sounds", "classes", "wanted"),
    [
        (range(7), [5, 5, 5, 5, 6, 6, 6], [0, 1, 2, 0, 0, 1, 2]),
        (range(5), [5, 5, 5, 6, 6], [0, 1, 0, 0, 1]),  # one class has two sounds only: two rounds
        (range(7), [5] * 7, [0, 1, 2, 3, 4, 0, 1]),  # no more than five
        ([0, 0, 1, 2, 3], [5, 5, 5, 5, 5], [0, 0, 1, 2, 3]),  # copies of one sound leave together
        ([0, 1, 2], [5, 5, 6], None),
        ([0, 0, 1, 2], [5, 5, 6, 6], None),
    ],
)
def test_when_an_example_is_left_out(sounds: list[int], classes: list[int], wanted: list[int] | None) -> None:
    assert rounds_of(sounds, classes) == wanted


def test_rows_of_data_are_taken_together() -> None:
    data = HeadData(
        torch.arange(6.0)[:, None], torch.eye(6), torch.tensor([1, 3, 4]), torch.tensor([[1.0], [3.0], [4.0]])
    )
    part = data.where(torch.tensor([True, False, True, True, False, True]))
    assert part.hidden[:, 0].tolist() == [0, 2, 3, 5] and part.targets.argmax(dim=1).tolist() == [0, 2, 3, 5]
    assert part.kept.tolist() == [2] and part.before.tolist() == [[3.0]]
    assert part.hidden[part.kept].tolist() == [[3.0]]


class Says(Network):
    """A head whose logits are the embeddings."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward_head(self, hidden: Tensor) -> Tensor:
        return hidden


def test_everything_is_left_out_once_and_learned_in_all_other_rounds() -> None:
    hidden = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    data = HeadData(hidden, torch.eye(4)[[3] * 9], torch.arange(0), torch.zeros(0, 3))
    turns, seen = torch.tensor([0, 1, 2, 0, 1, 2, -1, 1, 0]), []

    def train(part: HeadData, number: int) -> Network:
        seen.append(part)
        assert number == len(seen) - 1
        return Says()

    logits = leave_out(data, turns, train)
    assert logits[turns >= 0].equal(hidden[turns >= 0]) and not logits[6].any()
    assert all(part.hidden.equal(hidden[turns != number]) for number, part in enumerate(seen)) and len(seen) == 3


def found(leads: list[float], windows: list[int] | None = None) -> LeftOut:
    """Windows of the new one of four classes; an old class is ahead of it by this much while they are left out."""
    logits = torch.full((len(leads), 4), -9.0)
    logits[:, 0], logits[:, 3] = torch.tensor(leads), 0.0
    return least_favour(logits, torch.eye(4)[[3] * len(leads)], windows or list(range(len(leads))), 1)


@pytest.mark.parametrize(
    ("leads", "recognised", "favour"),
    [
        ([-1.0] * 7, 7, 0.0),
        ([-1.0] * 6 + [0.25], 6, 0.0),  # six of seven are enough
        ([-1.0] * 5 + [0.15, 0.25], 6, 0.2),
        ([-1.0] * 5 + [0.25, 0.35], 6, 0.3),
        ([-1.0] * 3 + [0.45, 0.6, 0.7, 0.8], 4, 0.5),  # never enough: all that is allowed
    ],
)
def test_no_more_favour_than_it_takes(leads: list[float], recognised: int, favour: float) -> None:
    assert found(leads) == LeftOut(7, recognised, favour) and favour in FAVOURS


def test_windows_of_one_example_count_once() -> None:
    # One sure window outweighs two that are nearly undecided.
    assert found([-5.0, 0.3, 0.3, -1.0, -1.0], [0, 0, 0, 1, 2]) == LeftOut(3, 3, 0.0)


def test_favoured_by_hand() -> None:
    scores = favoured(torch.tensor([[1.0, 0.0, 1.0]]), 1, 0.5)
    np.testing.assert_allclose(scores[0], np.exp([1.0, 0.0, 1.5]) / np.exp([1.0, 0.0, 1.5]).sum(), rtol=1e-6)


def test_remembered_clips_are_left_out_with_their_copies_class_by_class() -> None:
    groups = torch.tensor([4, 5, 6, 7, 8, 4, 5, 6, 7, 8])
    targets = torch.eye(2)[[0, 0, 1, 1, 0] * 2]
    memory = Memory(torch.zeros(10, 3), targets, groups, "", torch.zeros(0))
    assert memory.turns(2).tolist() == [0, 1, 0, 1, 0] * 2
    assert memory.turns(5).tolist() == [0, 1, 0, 1, 2] * 2
    assert memory.first_copies() == [0, 1, 2, 3, 4]


def test_a_lesson_leaves_examples_out_and_then_learns_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained in between leaves no trace but the favour."""
    base = saved(tmp_path / "base", "resnet_attention")
    examples = [write(tmp_path, label, number) for label in ("beep", "peep") for number in range(4)]
    settings = TeachSettings(train="head", views=1, epochs=20, held_out_share=0.0)

    def taught(name: str, favour: float) -> tuple[dict[str, Tensor], LeftOut | None]:
        monkeypatch.setattr("models.teaching.favour.FAVOURS", (0.0, favour) if favour else (0.0,))
        # Never enough, so that the largest is taken.
        monkeypatch.setattr("models.teaching.favour.WANTED", 2.0)
        result = teach(base, examples, settings, tmp_path, name=name)
        known = load_recognizer(result.folder)
        assert result.left_out is None or known.card.training["taught"]["left_out"]["favour"] == result.left_out.favour
        return known.network.state_dict(), result.left_out

    none, first = taught("none", 0.0)
    some, second = taught("some", 0.3)
    with monkeypatch.context() as without:
        # Straight to the training of all.
        without.setattr("models.teaching.lesson.Lesson._leave_out", lambda self, data, untaught, rounds: 0.3)
        direct, third = taught("direct", 0.3)
    assert first is not None and second is not None and third is None
    assert first.favour == 0.0 and second.favour == 0.3 and first.examples == second.examples == 8
    assert all(torch.equal(some[key], direct[key]) for key in some)
    assert not all(torch.equal(some[key], none[key]) for key in some)
