"""Reading parity cases and comparing outputs with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.fill import fill_input, fill_state_dict


@dataclass
class Case:
    """One parity case: what to build, and what the published implementation gave.

    Attributes
    ----------
    spec
        The JSON file.
    arrays
        The outputs (and some inputs) of the npz file beside it.
    """

    path: Path
    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def family(self) -> str:
        """The ``family`` entry."""
        return str(self.spec.get("family", ""))

    @property
    def kind(self) -> str:
        """The ``kind`` entry, if any."""
        return str(self.spec.get("kind", ""))

    @property
    def config(self) -> dict[str, Any]:
        """The ``config`` entry."""
        return dict(self.spec.get("config", {}))

    def state_dict(self, key: str = "state_dict") -> dict[str, Tensor]:
        """The weights that names, shapes and seed define, with gain and aliases applied."""
        shapes = {name: (shape, dtype) for name, (shape, dtype) in self.spec[key].items()}
        weights = fill_state_dict(shapes, self.spec.get("seed", 0))
        gain = self.spec.get("weight_gain", 1.0)
        if gain != 1.0:
            weights = {k: v * gain if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()}
        for name, source in dict(self.spec.get("aliases") or {}).items():
            weights[name] = weights[source]
        return weights

    def inputs(self) -> dict[str, Tensor]:
        """The input tensors that names, shapes and seed define."""
        scale = self.spec.get("input_scale", 1.0)
        return {
            name: fill_input(name, tuple(shape), self.spec.get("seed", 0)) * scale
            for name, shape in self.spec.get("inputs", {}).items()
        }


@dataclass(frozen=True)
class Comparison:
    """One output of one case against its reference."""

    case: str
    output: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the largest error is within tolerance (NaN is not)."""
        return self.error <= self.tolerance


Runner = Callable[[Case], list[Comparison]]


def load_case(path: Path) -> Case:
    """Read ``NAME.json`` and the ``NAME.npz`` beside it (no pickled arrays)."""
    spec = json.loads(path.read_text(encoding="utf-8"))
    arrays: dict[str, np.ndarray] = {}
    npz = path.with_suffix(".npz")
    if npz.is_file():
        with np.load(npz, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    return Case(path, spec, arrays)


def largest_error(value: Tensor | np.ndarray, reference: np.ndarray) -> float:
    """max |value - reference|; infinite if the shapes differ or a finite reference meets a non-finite value."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.shape != reference.shape:
        return float("inf")
    if array.size == 0:
        return 0.0
    difference = np.abs(array.astype(np.float64) - reference.astype(np.float64))
    same = (array == reference) | (np.isnan(array.astype(np.float64)) & np.isnan(reference.astype(np.float64)))
    difference = np.where(same, 0.0, difference)
    worst = float(np.max(difference))
    return worst if np.isfinite(worst) else float("inf")


def standard_tolerance(case: Case, output: str) -> float:
    """``max(1e-4 * absmax(reference), 20 * f32_noise)``."""
    noise = case.spec.get("f32_noise") or {}
    reference = case.arrays[output]
    scale = float(np.max(np.abs(reference))) if reference.size else 0.0
    return max(1e-4 * scale, 20.0 * float(noise.get(output, 0.0) if isinstance(noise, dict) else noise))
