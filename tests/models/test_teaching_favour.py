"""How teaching balances new classes against old ones."""

from __future__ import annotations

import math

import pytest
import torch

from models.teaching.course import Course
from models.teaching.head import HeadData, favour_of, train_head
from tests.conftest import make_recognizer


@pytest.mark.parametrize(
    ("n_classes", "n_new", "wanted"),
    [(10, 0, 0.0), (13, 3, 0.5), (5, 2, math.log(1.5)), (4, 2, 0.0), (5, 4, 0.0), (528, 1, 0.5)],
)
def test_new_classes_are_favoured_while_they_are_the_fewer(n_classes: int, n_new: int, wanted: float) -> None:
    assert favour_of(n_classes, n_new) == pytest.approx(wanted)


def test_between_an_old_and_a_new_class_the_head_leans_to_the_new_one() -> None:
    scores = []
    for n_favoured in (0, 1):
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
            n_favoured=n_favoured,
        )  # fmt: skip
        with torch.no_grad():
            scores.append(network.forward_head(hidden).softmax(dim=1)[:, -1].mean())
    # Embeddings of noise say nothing about the class: the share of the new one is what it is before anything is heard.
    assert scores[1] > scores[0] + 0.05
