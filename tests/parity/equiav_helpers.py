"""What the parity modules of EquiAV share: comparing, made waveforms and pictures, the published trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.equiav_api import EquiAV_ft, ModelTrainer, WrappedModel
from tests.parity.cases import Case, Comparison, largest_error
from tests.parity.fill import fill_input


def compare(case: Case, values: dict[str, Tensor | np.ndarray]) -> list[Comparison]:
    """A row for every output of the case; one that was not computed fails."""
    rows = []
    tolerance = case.spec.get("tolerance") or {"max_abs": 1e-6}
    for name in case.spec.get("outputs") or sorted(case.arrays):
        reference = case.arrays[name]
        if name not in values:
            rows.append(Comparison(case.path.stem, name, float("inf"), 0.0, "not computed"))
            continue
        value = values[name]
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        error = largest_error(array, reference)
        if "max_abs" in tolerance:
            allowed, note = float(tolerance["max_abs"]), ""
            if "fraction_above_0.02" in tolerance and np.isfinite(error):
                share = float((np.abs(array - reference) > 0.02).mean())
                note = f"{share:.4f} of the elements above 0.02"
                error = error if share <= tolerance["fraction_above_0.02"] else float("inf")
        else:
            scale = float(np.abs(reference).max()) if reference.size else 0.0
            allowed, note = float(tolerance["max_abs_err_over_max_abs_ref"]) * scale, ""
        rows.append(Comparison(case.path.stem, name, error, allowed, note))
    return rows


def equal(case: Case, output: str, found: Any, expected: Any) -> Comparison:
    """A row for something that must be the same."""
    same = found == expected
    note = "" if same else f"{found!r:.120} instead of {expected!r:.120}"
    return Comparison(case.path.stem, output, 0.0 if same else float("inf"), 0.0, note)


def close(case: Case, output: str, found: Any, expected: Any, tolerance: float = 1e-6) -> Comparison:
    """A row for numbers without a tolerance of their own."""
    return Comparison(case.path.stem, output, largest_error(np.asarray(found), np.asarray(expected)), tolerance)


def from_case_waveform(spec: dict[str, Any]) -> np.ndarray:
    """Samples ``[channels, n]`` of the waveform formula."""
    n = round(spec["sr"] * spec["seconds"])
    time = np.arange(n) / spec["sr"]
    channels = []
    for channel in range(spec["channels"]):
        signal = sum(a * np.sin(2 * np.pi * f * time + p * (channel + 1)) for a, f, p in spec["sines"])
        noise = fill_input(f"{spec['noise_name']}{channel}", (n,), spec["seed"]).numpy().astype(np.float64)
        channels.append(signal + spec["noise_gain"] * noise + spec.get("dc", 0.0))
    return np.stack(channels).astype(np.float32)


def from_case_image(spec: dict[str, Any]) -> Image.Image:
    """The picture of the image formula."""
    height, width, name, seed = spec["height"], spec["width"], spec["name"], spec["seed"]
    coarse = nn.functional.interpolate(
        fill_input(name, (1, 3, 8, 8), seed), size=(height, width), mode="bilinear", align_corners=False
    )
    noise = fill_input(name + "_n", (1, 3, height, width), seed)
    pixels = torch.round(128 + 50 * (coarse + 0.1 * noise)).clamp(0, 255)
    return Image.fromarray(pixels[0].permute(1, 2, 0).numpy().astype(np.uint8))


def published_trainer(config: dict[str, Any]) -> ModelTrainer:
    """The trainer with every published quirk."""
    options = config | {
        "lr_after_end": "published", "head_lr_mode": "published", "head_params": "published", "frozen_mode": "published"
    }  # fmt: skip
    return ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options)
