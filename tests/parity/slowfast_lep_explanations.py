"""Parity of explanations of SlowFast: attributions, Grad-CAM, masks that are heard, faithfulness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from captum.attr import GuidedBackprop
from torch import Tensor, nn

from models.card import Card
from models.frontends import build_frontend
from models.frontends.htk_mel import htk_mel_banks
from models.recognizer import Recognizer
from saliency.methods import find_method
from saliency.reconstruction import mel_mask_to_bins
from saliency.trust import faithfulness
from tests.parity.cases import Case, Comparison, largest_error
from tests.parity.slowfast_lep_helpers import (
    GRADIENT,
    OTHER,
    build,
    compare,
    forgiving,
    probabilities,
    spectrogram,
    waveform,
)


def run_attribution(case: Case) -> list[Comparison]:
    """Gradient, integrated gradients, guided backpropagation and exact class activation maps."""

    network = build(case)
    config = network.config
    settings = {"kind": "htk_mel", "target_length": config.n_frames, "n_mels": config.n_mels}
    labels = [str(index) for index in range(config.n_classes)]
    card = Card(name="case", family="slowfast", frontend=settings, labels=labels, task="single-label")
    recognizer = Recognizer(network, build_frontend(settings), card).requires_grad_(False)
    features, target = 2.0 * spectrogram(case) - 4.0, int(case.spec["target_class"])
    baseline = torch.full_like(features, recognizer.frontend.silence)
    with torch.no_grad():
        logit, silent = network(torch.cat([features, baseline]))[:, target].double()
        maps = [part[:, target] for part in network.class_maps(features)]
        bias = network.class_bias()[target].double()
    outputs: dict[str, Tensor | np.ndarray | float] = {"logit": logit, "logit_baseline": silent}
    found = {}
    for name, parameters in (("gradient", {}), ("integrated_gradients", {"steps": case.spec["steps"]})):
        method = find_method(name)
        found[name] = method.attribute(recognizer, features, target, method.validate(parameters), 16, lambda _: None)
    outputs["gradient"] = found["gradient"].values[None, None]
    # Point by point: batches of points flip ties of max pooling, which the tolerance of the gap does not allow.
    slope, steps = torch.zeros_like(features), int(case.spec["steps"])
    for step in range(steps):
        point = (baseline + (step + 0.5) / steps * (features - baseline)).requires_grad_(True)
        slope += torch.autograd.grad(network(point)[0, target], point)[0]
    integrated = (features - baseline) * slope / steps
    outputs["integrated_gradients"] = integrated[:, None]
    gap = float(integrated.double().sum() - (logit - silent))
    guided = GuidedBackprop(network).attribute(features.clone().requires_grad_(True), target=target)
    outputs["guided_backprop"] = guided[:, None]
    outputs |= {f"exact_cam.pathway{path}": part for path, part in enumerate(maps)}
    rows = forgiving(case, outputs, compare(case, outputs, GRADIENT))
    rounding = {
        "exact_cam_gap": abs(float(bias + sum(part.double().sum() for part in maps) - logit)),
        "ig_completeness_gap": abs(gap - float(case.arrays["ig_completeness_gap"][0])),
    }
    rows = [
        Comparison(row.case, row.output, rounding[row.output], 1e-5, "absolute") if row.output in rounding else row
        for row in rows
    ]
    reference = case.arrays["integrated_gradients"]
    error = largest_error(found["integrated_gradients"].values[None, None], reference) / float(np.abs(reference).max())
    return [*rows, Comparison(case.path.stem, "integrated_gradients.workbench", error, GRADIENT)]


def run_gradcam(case: Case) -> list[Comparison]:
    """Grad-CAM of the highest probability, at the last batch norm of each stream, in both pairings."""
    network = build(case)
    pathways = network.pathways(spectrogram(case))
    names = {name for order in case.spec["layers"].values() for name in order}
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: kept.update({name: output})

    handles = [network.get_submodule(n.replace("/", ".")).register_forward_hook(keep(n)) for n in sorted(names)]
    logits = network(spectrogram(case))
    for handle in handles:
        handle.remove()
    scores = probabilities(network, logits)["probs"]
    slopes = dict(zip(kept, torch.autograd.grad(scores.max(dim=1).values.sum(), list(kept.values())), strict=True))
    outputs: dict[str, Tensor] = {"probs": scores}
    for order, layers in case.spec["layers"].items():
        for path, name in enumerate(layers):
            cam = (slopes[name].mean(dim=(2, 3), keepdim=True) * kept[name]).sum(dim=1, keepdim=True).relu()
            cam = nn.functional.interpolate(cam, pathways[path].shape[2:], mode="bilinear", align_corners=False)[:, 0]
            low, high = cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)
            cam = (cam - low) / (high - low + 1e-6)
            outputs[f"map.{order}.input{path}"] = cam
            if order == "pathway_order":
                mean, spread = cam.mean(dim=(1, 2), keepdim=True), cam.std(dim=(1, 2), keepdim=True)
                outputs[f"masked_map.gt_mean.input{path}"] = cam * (cam > mean)
                outputs[f"masked_map.gt_mean_plus_std.input{path}"] = cam * (cam > mean + spread)
    return forgiving(case, outputs, compare(case, outputs, GRADIENT))


def run_design(case: Case) -> list[Comparison]:
    """Mel mask to audio, or faithfulness figures."""
    return run_mask_to_audio(case) if "waveform" in case.spec["inputs"] else run_faithfulness(case)


def run_mask_to_audio(case: Case) -> list[Comparison]:
    """Mask on mel cells to a mask on STFT bins, applied to the complex STFT and inverted with the clip's own phase."""

    config = case.config
    samples = torch.from_numpy(waveform(case.spec["waveform"], int(case.spec["waveform"]["seed"])))
    mask = (2.0 * case.inputs()["mask_logits"]).sigmoid().numpy()
    banks = htk_mel_banks(config["n_mels"], config["n_fft"], config["sr"]).numpy()
    bins = torch.from_numpy(mel_mask_to_bins(mask, banks)).float()
    settings = (config["n_fft"], config["hop_length"], config["win_length"], torch.hann_window(config["win_length"]))
    spectrum = torch.stft(samples, *settings, center=True, pad_mode="constant", return_complex=True)

    def sound(weights: Tensor) -> Tensor:
        return torch.istft(spectrum * weights.T, *settings, center=True, length=len(samples))

    kept, removed = sound(bins), sound(1 - bins)
    outputs = {
        "linear_mask": bins[:, ::4], "mask_in_audio": kept, "mask_out_audio": removed, "identity_error": np.zeros(2),
    }  # fmt: skip
    rows = compare(case, outputs, OTHER)
    errors = [sound(torch.ones_like(bins)) - samples, kept + removed - samples]
    largest = max(float(error.abs().max()) for error in errors)
    return [
        Comparison(row.case, row.output, largest, 1e-5, "absolute") if row.output == "identity_error" else row
        for row in rows
    ]


def run_faithfulness(case: Case) -> list[Comparison]:
    """Per-sample faithfulness, sparseness and complexity."""

    inputs = case.inputs()
    full = (2.0 * inputs["p_full"]).softmax(dim=1).numpy()
    kept = (2.0 * inputs["p_full"] + inputs["p_in"]).softmax(dim=1).numpy()
    removed = (2.0 * inputs["p_out"]).softmax(dim=1).numpy()
    figures = faithfulness.input_faithfulness(full, kept, removed)
    outputs = {
        "AI": figures.average_increase, "AD": figures.average_drop, "AG": figures.average_gain,
        "FF": figures.faithfulness, "Fid_In": figures.input_fidelity,
        "SPS": np.array([faithfulness.sparseness(a) for a in inputs["attribution"].numpy()]),
        "COMP": np.array([faithfulness.complexity(a) for a in inputs["attribution"].numpy()]),
    }  # fmt: skip
    return compare(case, outputs, OTHER)
