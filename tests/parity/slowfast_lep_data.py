"""Parity of SlowFast's features, crops, augmentation, schedules, metrics and label vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from models.data.epic import seconds_of
from models.frontends import build_frontend
from models.layers.slowfast_blocks import slow_index
from models.training.label_embeddings import label_vectors
from models.training.mean_masks import mask_with_mean
from models.training.multiview import (
    action_accuracy,
    combine_views,
    crop_view,
    ranking_figures,
    top_accuracy,
    view_bounds,
)
from models.training.sgd import LearningRatePolicy
from tests.parity.cases import Case, Comparison
from tests.parity.fill import fill_input
from tests.parity.slowfast_lep_helpers import FEATURES, OTHER, compare, waveform


def run_preprocess(case: Case) -> list[Comparison]:
    """Features of test views, and the two inputs of the thesis."""
    config, recipe = case.config, case.spec["waveform"]
    samples = waveform(recipe, int(recipe["seed"]))
    outputs: dict[str, Tensor | np.ndarray] = {}
    transform = str(config.get("transform", ""))
    if transform.startswith("thesis"):
        frontend = build_frontend(
            {"kind": "scaled_mel", "sample_rate": config["sr"], "target_length": config["NUM_FRAMES"]}
        )
        crop = frontend.window_samples + 1
        part = crop_view(samples, crop, config["num_views"], config["view"])
        stored = case.arrays["features"].shape[1]
        outputs["features"] = frontend(torch.from_numpy(part)[None])[:, :stored]
        return compare(case, outputs, FEATURES)
    if transform:
        frontend = build_frontend(
            {
                "kind": "htk_mel", "sample_rate": config["sr"], "n_fft": config["n_fft"], "win_length": config["win"],
                "hop_length": config["hop"], "n_mels": config["n_mels"], "compression": config["compression"],
            }
        )  # fmt: skip
        second = waveform(recipe, int(case.spec["second_waveform_seed"]))
        first, target = (frontend.log_mel(torch.from_numpy(s)[None])[0] for s in (samples, second))
        outputs |= recovery_figures(first, target)
        return compare(case, outputs, FEATURES)
    rate = config["AUDIO_DATA.SAMPLING_RATE"]
    frontend = build_frontend(
        {
            "kind": "htk_mel", "sample_rate": rate, "target_length": config["AUDIO_DATA.NUM_FRAMES"],
            "n_mels": config.get("AUDIO_DATA.NUM_FREQUENCIES", 128), "clip_seconds": config["AUDIO_DATA.CLIP_SECS"],
            "win_length": round(config["AUDIO_DATA.WINDOW_LENGTH"] * rate / 1000),
            "hop_length": round(config["AUDIO_DATA.HOP_LENGTH"] * rate / 1000),
        }
    )  # fmt: skip
    segment = None
    if "start_timestamp" in config:
        segment = (
            round(seconds_of(config["start_timestamp"]) * rate),
            round(seconds_of(config["stop_timestamp"]) * rate),
        )
        outputs["start_end_num_samples"] = np.array([*segment, segment[1] - segment[0]])
    for name in case.arrays:
        if name.startswith("features.clip"):
            view, views = int(name.removeprefix("features.clip")), config["TEST.NUM_ENSEMBLE_VIEWS"]
            part = crop_view(samples, round(rate * config["AUDIO_DATA.CLIP_SECS"]), views, view, segment)
            outputs[name] = frontend(torch.from_numpy(part)[None])
    return compare(case, outputs, FEATURES)


def recovery_figures(features: Tensor, target: Tensor) -> dict[str, Tensor | np.ndarray]:
    """How well one spectrogram matches another when every frame is scaled to norm 1 (SPEC 10.3; history only)."""
    estimate, wanted = (nn.functional.normalize(s, dim=1, eps=1e-12) for s in (features, target))
    error = (estimate - wanted).square().sum()
    convergence = 20 * torch.log10((estimate - wanted).norm() / wanted.norm())
    noise = -10 * torch.log10((estimate / estimate.norm() - wanted / wanted.norm()).square().sum())
    ratio = 10 * torch.log10(estimate.square().sum() / error)
    return {
        "features": features, "normalized": estimate, "mse": (estimate - wanted).square().mean(),
        "sc_snr_ser": torch.stack([convergence, noise, ratio]),
    }  # fmt: skip


def run_pack(case: Case) -> list[Comparison]:
    """Crop positions and slow frames, exactly."""
    outputs: dict[str, Tensor | np.ndarray] = {}
    for name, reference in case.arrays.items():
        if name == "rows":
            columns = case.config["columns"]
            rows = []
            for stored in reference:
                given = dict(zip(columns, stored.tolist(), strict=True))
                # The segment's offset is no column: it is where the first view starts.
                same = (reference[:, :3] == stored[:3]).all(axis=1)
                offset = block_offset(reference, same, given["view"], stored)
                start, stop = view_bounds(
                    given["audio_size"], given["clip_size"], given["num_views"], given["view"], offset
                )
                rows.append([*stored[:4], start, stop])
            outputs[name] = np.array(rows)
        else:
            frames, alpha = (int(part.lstrip("Talph")) for part in name.split(".")[1:3])
            outputs[name] = slow_index(frames, alpha)
    return compare(case, outputs, 0.0)


def block_offset(reference: np.ndarray, same: np.ndarray, view: int, stored: np.ndarray) -> int:
    """Start of the latest view 0 with the same sizes at or before a row."""
    position = int(np.flatnonzero((reference == stored).all(axis=1))[0])
    first = [row for row in np.flatnonzero(same) if row <= position and reference[row, 3] == 0]
    return int(reference[first[-1], 4]) if first else 0


def run_augment(case: Case) -> list[Comparison]:
    """Masks from recorded random draws."""
    image, config = case.inputs()["spectrogram"], case.config
    outputs: dict[str, Tensor] = {}
    for entry in case.spec["draws"]:
        calls = iter(entry["randrange_calls"])

        def draw(low: int, high: int, calls: Iterator[list] = calls) -> int:
            (wanted_low, wanted_high), value = next(calls)
            assert (low, high) == (wanted_low, wanted_high), "drawn from another range"
            return int(value)

        axis, largest = (1, config["F"]) if entry["fn"] == "freq" else (2, config["T"])
        outputs[f"{entry['fn']}.seed{entry['seed']}"] = mask_with_mean(
            image, axis, largest, config["num_masks"], draw=draw, zero=config["replace_with_zero"]
        )
    return compare(case, outputs, OTHER)


def run_schedule(case: Case) -> list[Comparison]:
    """Learning rates at fractional epochs."""
    solver = {key.removeprefix("SOLVER."): value for key, value in case.config.items()}
    policy = LearningRatePolicy(
        solver["BASE_LR"],
        "cosine" if solver["LR_POLICY"] == "cosine" else "steps",
        solver.get("STEPS") or (0,),
        solver.get("LRS") or (1.0,),
        solver["MAX_EPOCH"],
        solver.get("COSINE_END_LR", 0.0),
        solver["WARMUP_EPOCHS"],
        solver["WARMUP_START_LR"],
    )
    rates = np.array([policy.at(float(epoch)) for epoch in case.arrays["epoch"]])
    return compare(case, {"epoch": case.arrays["epoch"], "lr": rates}, OTHER)


def run_metrics(case: Case) -> list[Comparison]:
    """Ensembles of views and the figures computed from them."""
    views, clips = case.config["num_views"], case.config["num_audios"]
    outputs: dict[str, np.ndarray] = {}

    def boosted(name: str, labels: np.ndarray, every: int) -> Tensor:
        scores = (2.0 * case.inputs()[name]).softmax(dim=1)
        for clip in range(0, clips, every):
            scores[clip * views : (clip + 1) * views, labels[clip]] += 0.5
        return scores

    def tops(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return 100.0 * np.array([top_accuracy(scores, labels, k) for k in (1, 5)])

    if isinstance(case.config["num_classes"], list):
        verbs, nouns = (np.array(entries) for entries in case.spec["labels"])
        verb = combine_views(boosted("verb_scores", verbs, 2).numpy(), views)
        noun = combine_views(boosted("noun_scores", nouns, 3).numpy(), views)
        outputs = {
            "verb_output": verb, "noun_output": noun,
            "verb_top1_top5": tops(verb, verbs), "noun_top1_top5": tops(noun, nouns),
            "action_top1_top5": 100.0 * np.array([action_accuracy(verb, noun, verbs, nouns, k) for k in (1, 5)]),
        }  # fmt: skip
        return compare(case, outputs, OTHER)
    labels = np.array(case.spec["labels"])
    scores = boosted("scores", labels, 3)
    scores = (scores / scores.sum(dim=1, keepdim=True)).numpy()
    for method in ("sum", "max"):
        combined = combine_views(scores, views, method)
        figures = ranking_figures(combined, labels)
        outputs |= {
            f"ensemble_{method}": combined, f"top1_top5_{method}": tops(combined, labels),
            f"AP_{method}": figures.average_precision, f"AUC_{method}": figures.roc_auc,
            f"mAP_mAUC_dprime_{method}": np.array(
                [figures.mean_average_precision, figures.mean_auc, figures.d_prime]
            ),
        }  # fmt: skip
    return compare(case, outputs, OTHER)


def run_label_embedding(case: Case) -> list[Comparison]:
    """Label vectors from word vectors, with both ways to split labels."""
    size, seed = case.config["dim"], case.spec["seed"]
    vectors = {w: fill_input(f"word:{w}", (size,), seed).numpy() for w in case.spec["vocabulary"]}
    labels = case.spec["labels"]
    outputs = {
        "punctuation_stripped": label_vectors(labels, vectors),
        "split_on_whitespace": label_vectors(labels, vectors, str.split),
    }
    return compare(case, outputs, OTHER)
