"""The parity cases of EquiAV that are small enough to travel with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.__main__ import run_case
from tests.parity.cases import load_case

CASES = sorted((Path(__file__).parent / "data" / "equiav").glob("*.json"))
SLOW = [path for path in CASES if "vitb" in path.stem]


def check(path: Path) -> None:
    rows = run_case(load_case(path))
    assert rows
    assert not [row for row in rows if not row.passed]


@pytest.mark.parametrize("path", [p for p in CASES if p not in SLOW], ids=lambda p: p.stem)
def test_agrees_with_the_published_system(path: Path) -> None:
    check(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", SLOW, ids=lambda p: p.stem)
def test_full_size_agrees_with_the_published_system(path: Path) -> None:
    check(path)


def test_all_kinds_of_cases_are_here() -> None:
    kinds = {load_case(path).kind for path in CASES}
    assert kinds == {
        "model", "init", "preprocess", "augment", "loss", "schedule", "labels", "train", "checkpoint", "metric", "weights",
        "evaluation", "reservoir", "e2e",
    }  # fmt: skip
