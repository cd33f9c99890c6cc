"""Small parity cases of Play It Back; those with outputs left out keep everything but intermediate features."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.__main__ import run_case
from tests.parity.cases import load_case

CASES = sorted((Path(__file__).parent / "data" / "play_it_back").glob("*.json"))


def test_cases_are_there() -> None:
    assert len(CASES) > 30


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_equals_the_published_system(path: Path) -> None:
    failed = [row for row in run_case(load_case(path)) if not row.passed]
    assert not failed, failed
