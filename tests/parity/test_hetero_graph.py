"""The event-graph networks against the small parity cases that are kept with the tests."""

from pathlib import Path

import pytest

from tests.parity.__main__ import run_case
from tests.parity.cases import load_case

DATA = Path(__file__).parent / "data" / "hetero_graph"
SLOW = {"train_steps", "r3d18_segment", "e2e_grad_b2"}
CASES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted(DATA.glob("*.json"))
]


@pytest.mark.parametrize("path", CASES)
def test_case(path: Path) -> None:
    rows = run_case(load_case(path))
    assert rows
    assert [row for row in rows if not row.passed] == []


def test_every_kind_is_kept() -> None:
    kinds = {load_case(path).kind for path in DATA.glob("*.json")}
    assert kinds == {
        "clip_loading", "edges_between", "edges_dynamic", "edges_intra", "end_to_end", "graph_head", "loss_metrics",
        "lr_schedule", "matching_graph", "predecessor", "r3d18", "segments", "train_steps", "w2v2_extractor",
    }  # fmt: skip
