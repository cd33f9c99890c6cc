"""What all parity modules of Auditory SlowFast share: building networks and comparing outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import fill_network
from models.families.slowfast import SlowFast
from models.layers.slowfast_settings import hints_from_options
from tests.parity.cases import Case, Comparison, largest_error
from tests.parity.fill import fill_input

FORWARD, GRADIENT, FEATURES, STEP, OTHER = 2e-4, 1e-3, 1e-4, 2e-3, 1e-4
Outputs = Mapping[str, Tensor | np.ndarray | float]


def compare(case: Case, outputs: Outputs, tolerance: float) -> list[Comparison]:
    """Largest error over the largest stored value, for every array of the case; a missing output fails."""
    rows = []
    for name, reference in case.arrays.items():
        if name not in outputs:
            rows.append(Comparison(case.path.stem, name, float("inf"), tolerance, "not computed"))
            continue
        value = outputs[name]
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.reshape(reference.shape) if array.size == reference.size == 1 else array
        scale = float(np.abs(reference).max()) if reference.size else 0.0
        rows.append(Comparison(case.path.stem, name, largest_error(array, reference) / (scale or 1.0), tolerance))
    return rows


def forgiving(case: Case, outputs: Outputs, rows: list[Comparison]) -> list[Comparison]:
    """ReLU and max pooling switch at ties: accept a relative L2 error of 1e-2 with at most 1 % of the cells beyond 1e-3."""
    changed = []
    for row in rows:
        if not row.passed and row.output in outputs and np.isfinite(row.error):
            reference = case.arrays[row.output].astype(np.float64)
            value = torch.as_tensor(outputs[row.output]).detach().numpy().astype(np.float64).reshape(reference.shape)
            difference = np.abs(value - reference)
            beyond = float((difference > GRADIENT * np.abs(reference).max()).mean())
            distance = float(np.linalg.norm(difference) / np.linalg.norm(reference))
            if beyond <= 0.01:
                note = f"relative L2 error; {beyond:.2%} of the cells beyond {GRADIENT}, maximum {row.error:.1e}"
                row = Comparison(row.case, row.output, distance, 1e-2, note)
        changed.append(row)
    return changed


def build(case: Case, state_dict: Mapping[str, Tensor] | None = None) -> SlowFast:
    """The network of a case with its weights, loaded as an imported checkpoint is: strictly."""
    weights = case.state_dict() if state_dict is None else dict(state_dict)
    options = hints_from_options(case.config)
    config = SlowFast.infer_config(weights, options)
    network = SlowFast(config)
    fill_network(network, SlowFast.convert_state_dict(weights, config), case.path.name)
    return network.eval()


def spectrogram(case: Case) -> Tensor:
    """The case's input as features ``[batch, frames, n_mels]``."""
    return case.inputs()["spectrogram"][:, 0]


def head_suffixes(network: SlowFast) -> dict[str, str]:
    """Name of each linear layer -> suffix of output names: nothing, or ``_verb`` and ``_noun``."""
    return {name: name.removeprefix("projection") for name in network.head.names}


def probabilities(network: SlowFast, logits: Tensor) -> dict[str, Tensor]:
    """What the published evaluation returns, from our logits."""
    groups = list(network.config.class_groups or (network.config.n_classes,))
    sigmoid = network.config.head_activation == "sigmoid"
    return {
        f"probs{suffix}": part.sigmoid() if sigmoid else part.softmax(dim=1)
        for suffix, part in zip(head_suffixes(network).values(), logits.split(groups, dim=1), strict=True)
    }


def waveform(recipe: Mapping[str, float], seed: int) -> np.ndarray:
    """The cases' test sound, float32 ``[samples]``."""
    rate, n = int(recipe["sr"]), int(recipe["n"])
    t = np.arange(n) / rate
    tones = ((0.3, 440.0, 0.0), (0.2, 1234.5, 0.5), (0.1, 3000.0, 1.0))
    x = sum(level * np.sin(2 * np.pi * hertz * t + phase) for level, hertz, phase in tones)
    x = x * (0.5 + 0.5 * np.sin(2 * np.pi * 1.5 * t)) + 0.01 * fill_input("noise", (n,), seed).numpy()
    x[t < recipe["silence"]] = 0.0
    return x.astype(np.float32)
