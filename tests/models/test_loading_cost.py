"""What loading a model must not drag in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from models.catalog import SHIPPED
from models.checkpoint import Undrawn


@pytest.mark.parametrize("name", sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()))
def test_loading_does_not_import_the_compiler(name: str) -> None:
    code = (
        f"import sys; from models.checkpoint import load_recognizer; load_recognizer({name!r}, 'cpu'); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_only_meta_tensors_stay_undrawn() -> None:
    with torch.device("meta"), Undrawn():
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.trunc_normal_(layer.weight)
        drawn = torch.nn.init.normal_(torch.zeros(100, device="cpu"))
    assert layer.weight.is_meta and layer.weight.shape == (2, 3)
    assert drawn.std() > 0.5
