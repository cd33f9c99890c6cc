"""What `attribute` adds to plain Captum on the bare network, for every method and shipped model.

``python tests/benchmarks/bench_explain.py [MODEL ...]``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam, Occlusion, Saliency
from side_by_side import fastest, milliseconds, table
from torch import Tensor

from models.catalog import checkpoint_folders
from models.checkpoint import load_recognizer
from models.clip import open_clip
from models.recognizer import Recognizer
from saliency.attribution import attribute, working_batch_size
from saliency.methods import METHODS

CLIP = Path(__file__).parents[2] / "assets" / "clips" / "dog_garden.flac"
MODELS = ("resnet-esc10", "ast-esc10")


def plain_captum(recognizer: Recognizer, features: Tensor, target: int) -> dict[str, Callable[[], Any]]:
    """Every method straight from Captum on the network alone, features and batch size given, with the same settings.

    Where `attribute` counts from silence, silence is the baseline; the gradient methods have none.
    """
    network, silence = recognizer.network, recognizer.frontend.silence
    batch = working_batch_size(recognizer, features)
    steps = METHODS["integrated_gradients"].validate({}).model_dump()["steps"]
    patch = METHODS["occlusion"].validate({}).model_dump()
    shape = (min(patch["frames"], features.shape[1]), min(patch["bands"], features.shape[2]))

    def occlusion() -> Tensor:
        with torch.no_grad():
            return Occlusion(network).attribute(
                features, sliding_window_shapes=shape, strides=tuple(max(1, size // 2) for size in shape),
                baselines=silence, target=target, perturbations_per_eval=batch,
            )  # fmt: skip

    def inputs() -> Tensor:
        return features.clone().requires_grad_(True)

    runs: dict[str, Callable[[], Any]] = {
        "integrated_gradients": lambda: IntegratedGradients(network).attribute(
            features, baselines=torch.full_like(features, silence), target=target, n_steps=steps,
            method="riemann_middle", internal_batch_size=min(batch, steps), return_convergence_delta=True,
        ),
        "input_x_gradient": lambda: InputXGradient(network).attribute(inputs(), target=target),
        "gradient": lambda: Saliency(network).attribute(inputs(), target=target, abs=False),
        "occlusion": occlusion,
    }  # fmt: skip
    layers = recognizer.network.cam_layers()
    if layers:
        runs["grad_cam"] = lambda: LayerGradCam(network, layers[0].module).attribute(inputs(), target=target)
    return runs


def rows(name: str) -> list[list[str]]:
    """One row per method; the last row is the front end alone."""
    recognizer = load_recognizer(name, "cpu")
    waveform = np.ascontiguousarray(open_clip(CLIP).at(recognizer.sample_rate))
    if recognizer.window_samples is not None:
        waveform = waveform[: recognizer.window_samples]
    label = recognizer.labels[0]
    with torch.no_grad():
        features = recognizer.features(waveform)

    def forward() -> Tensor:
        with torch.no_grad():
            return recognizer.network(features)

    found = []
    for method, plain in plain_captum(recognizer, features, 0).items():
        times = fastest(
            {"ours": lambda m=method: attribute(recognizer, waveform, label, m), "plain": plain, "forward": forward},
            rounds=25,
            seconds=7.0,
        )
        found.append([
            name, METHODS[method].title, milliseconds(times["ours"]), milliseconds(times["plain"]),
            f"{times['ours'] / times['plain']:.2f}", f"{times['ours'] / times['forward']:.1f}",
        ])  # fmt: skip
    alone = fastest({"front end": lambda: recognizer.features(waveform), "forward": forward}, rounds=25, seconds=5.0)
    found.append([
        name, "(front end alone)", milliseconds(alone["front end"]), "-", "-",
        f"{alone['front end'] / alone['forward']:.2f}",
    ])  # fmt: skip
    return found


def main() -> None:
    """Print one table."""
    known = checkpoint_folders()
    wanted = sys.argv[1:] or [name for name in MODELS if name in known]
    header = ["model", "method", "attribute", "Captum alone", "ratio", "in forward passes"]
    print(f"a clip of 5 s, {torch.get_num_threads()} thread(s); attribute starts from samples, Captum from features\n")
    print(table(header, [row for name in wanted for row in rows(name)]))


if __name__ == "__main__":
    main()
