"""Auditory SlowFast gives what the published implementation gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.families.slowfast import SlowFast
from models.layers.slowfast_settings import SlowFastConfig, hints_from_options, settings_from_shapes
from tests.parity.__main__ import run_case
from tests.parity.cases import Case, load_case
from tests.parity.fill import fill_state_dict

CASES = sorted((Path(__file__).parent / "data" / "slowfast_lep").glob("*.json"))
SLOW = {"attribution"}  # 128 forward and backward passes, one by one


def failures(case: Case) -> list[str]:
    rows = run_case(case)
    assert rows
    return [f"{row.output}: {row.error:.2e} > {row.tolerance:.2e} {row.note}" for row in rows if not row.passed]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if load_case(path).kind in SLOW else [])
        for path in CASES
        if load_case(path).kind != "checkpoint"
    ],
)
def test_case(path: Path) -> None:
    assert not failures(load_case(path))


@pytest.mark.parametrize("path", [path for path in CASES if load_case(path).kind == "checkpoint"], ids=lambda p: p.stem)
def test_checkpoint(path: Path, tmp_path: Path) -> None:
    """A container as the published code writes it; its weights are the filled ones, so the file need not be kept."""
    case = load_case(path)
    config = SlowFastConfig.model_validate(hints_from_options(case.config))
    with torch.device("meta"):
        expected = SlowFast(config).state_dict()
    shapes = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in expected.items()}
    tree: dict[str, dict[str, object]] = {}
    for key, value in case.config.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    container = {
        "epoch": 6, "model_state": fill_state_dict(shapes, case.spec["seed"]), "optimizer_state": {},
        "cfg": yaml.safe_dump(tree),
    }  # fmt: skip
    torch.save(container, tmp_path / case.spec["file"])
    for suffix in (".json", ".npz"):
        shutil.copy(path.with_suffix(suffix), tmp_path / f"case{suffix}")
    assert not failures(load_case(tmp_path / "case.json"))


def test_a_wrong_output_is_noticed() -> None:
    case = load_case(next(path for path in CASES if path.stem == "model_slowfast_epic_small"))
    changed = dict(case.arrays)
    changed["probs_noun"] = changed["probs_noun"] + 5e-4 * np.abs(changed["probs_noun"]).max()
    failed = failures(Case(case.path, case.spec, changed))
    assert [line.split(":")[0] for line in failed] == ["probs_noun"]


@pytest.mark.parametrize(
    "path", [p for p in CASES if load_case(p).kind in {"model", "train_step", "gradient"}], ids=lambda p: p.stem
)
def test_settings_are_told_from_shapes(path: Path) -> None:
    """Everything that shapes can tell agrees with the options that the case was made with."""
    case = load_case(path)
    options = hints_from_options(case.config)
    with torch.device("meta"):
        weights = {k: torch.empty(shape, dtype=getattr(torch, d)) for k, (shape, d) in case.spec["state_dict"].items()}
    assert SlowFast.recognizes(weights)
    told = settings_from_shapes(weights, {"n_frames": 1})
    shared = set(told) & set(options)
    assert {"arch", "depth", "width", "n_groups", "n_classes"} <= shared
    assert {key: told[key] for key in shared} == {key: options[key] for key in shared}
