"""Parity of EquiAV: metrics, evaluation tables, reservoir decisions, and the interface from file to names."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from models.equiav_api import audio_event_classification, load_audio_model
from models.training.equiav_metrics import evaluation_tables, retrieval_figures, tagging_statistics
from models.training.reservoir import Plan, plan_decision, store_audio_decision
from models.training.sampling import sampling_weights
from tests.parity.cases import Case, Comparison
from tests.parity.equiav_helpers import close, compare, equal, from_case_waveform


def run_metric(case: Case) -> list[Comparison]:
    """Tagging statistics and retrieval."""
    x = case.inputs()
    if case.spec["function"] == "retrieval":
        gallery = (1.2 * x["v"] + x["a"]).numpy()
        found = {"a2v": retrieval_figures(x["a"].numpy(), gallery), "v2a": retrieval_figures(gallery, x["a"].numpy())}
        return [
            close(case, f"{direction} {name}", found[direction][name], value)
            for direction, figures in case.spec["expected"].items()
            for name, value in figures.items()
        ]
    target = (x["tgt"] + 0.8 * x["out"] > 0.9).numpy().astype(np.float32)
    figures = tagging_statistics(x["out"].numpy(), target, published=True)
    single = {
        "mAP": figures.mean_average_precision, "mAUC": figures.mean_auc, "d_prime": figures.d_prime,
        "acc": figures.accuracy,
    }  # fmt: skip
    outputs: dict[str, Tensor | np.ndarray] = {name: np.array([value]) for name, value in single.items()}
    return compare(case, outputs | {"target": target, "AP": figures.average_precision, "auc": figures.roc_auc})


def run_weights(case: Case) -> list[Comparison]:
    """Sampling weights."""
    found = sampling_weights([text.split(",") for text in case.spec["label_strings"]])
    return [close(case, "weights", found, case.spec["expected"])]


def run_evaluation(case: Case) -> list[Comparison]:
    """The evaluation script's CSV files."""
    names = {mid: (index, name) for index, mid, name in case.spec["class_rows_in_file_order"]}
    probabilities = case.inputs()["logits"].sigmoid().numpy()
    clips = [f"clip{n}" for n in range(len(probabilities))]
    truths = {clip: text.split(",") for clip, text in zip(clips, case.spec["labels"], strict=True)}
    tables = evaluation_tables(dict(zip(clips, probabilities, strict=True)), truths, names, [0.5] * len(clips))
    return [
        equal(case, "confusion_matrix_csv", tables.confusion_matrix, case.spec["confusion_matrix_csv"]),
        equal(case, "predictions_csv", tables.predictions, case.spec["predictions_csv"]),
        equal(
            case, "inference_times_header", tables.inference_times.split("\n")[0], case.spec["inference_times_header"]
        ),
    ]


# --- reservoir ------------------------------------------------------------------------------------------------------


class _Fixed:
    """A random source that gives a known uniform number and always makes the most probable, first choice."""

    def __init__(self, uniform: float) -> None:
        self.uniform = uniform

    def random(self) -> float:
        return self.uniform

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None) -> Any:
        items = list(range(a)) if isinstance(a, int) else list(a)
        return items[int(np.argmax(p))] if p is not None else items[0]


def run_reservoir(case: Case) -> list[Comparison]:
    """Decisions of both policies."""
    rows = []
    policy = "published" if "published" in case.spec["function"] else "matched"
    for number, item in enumerate(case.spec["items"]):
        arguments = [
            item[key] for key in ("obs_counts", "stored_counts", "incoming_labels", "stored_examples", "replace_prob")
        ]
        options: dict[str, Any] = {"policy": policy}
        if policy == "matched":
            options |= {"capacity": item["capacity"], "alpha": item["alpha"]}
        plan = plan_decision(*arguments, **options)
        check = _published_rows if policy == "published" else _matched_rows
        rows += check(case, number, item, plan, arguments, options)
    return rows


def _published_rows(
    case: Case, number: int, item: dict[str, Any], plan: Plan, arguments: list[Any], options: dict[str, Any]
) -> list[Comparison]:
    n_classes = len(item["obs_counts"])
    rows = [close(case, f"{number} p_store", plan.accept_probability, item["p_store"])]
    for name, uniform in (("if_draw_is_0", 0.0), ("if_draw_is_1", 1 - 1e-12)):
        found = store_audio_decision(*arguments, **options, rng=_Fixed(uniform))
        rows.append(equal(case, f"{number} {name}", list(found), item[name]))
    probabilities: list[float] | None = None
    if plan.evictions and plan.evictions[0][0] is not None:
        probabilities = [0.0] * n_classes
        for label, probability, _ in plan.evictions:
            assert label is not None
            probabilities[label] = probability
    if probabilities is None or item["class_probabilities"] is None:
        rows.append(equal(case, f"{number} class_probabilities", probabilities, item["class_probabilities"]))
    else:
        rows.append(close(case, f"{number} class_probabilities", probabilities, item["class_probabilities"]))
    candidates = None
    if plan.evictions:
        candidates = list(max(plan.evictions, key=lambda e: e[1])[2])
    rows.append(equal(case, f"{number} eviction_candidates", candidates, item["eviction_candidates"]))
    return rows


def _matched_rows(
    case: Case, number: int, item: dict[str, Any], plan: Plan, arguments: list[Any], options: dict[str, Any]
) -> list[Comparison]:
    rows = [equal(case, f"{number} branch", plan.branch, item["branch"])]
    if "accept_probability" in item:
        rows.append(close(case, f"{number} accept_probability", plan.accept_probability, item["accept_probability"]))
    for name, found in (
        ("target", plan.target), ("tv_before", plan.distance), ("tv_after_by_candidate", plan.distances)
    ):  # fmt: skip
        if name in item:
            rows.append(close(case, f"{number} {name}", np.nan if found is None else found, item[name]))
    if "result" in item:
        decision = store_audio_decision(*arguments, **options, rng=_Fixed(0.0))
        rows.append(equal(case, f"{number} result", list(decision), item["result"]))
    if "eviction_set" in item:
        reduced = {row: label for label, _, group in plan.evictions for row in group}
        rows.append(equal(case, f"{number} eviction_set", sorted(reduced), item["eviction_set"]))
        by_row = [reduced.get(row, "none") for row in item["eviction_set"]]
        rows.append(equal(case, f"{number} class_to_reduce", by_row, item["class_to_reduce_by_eviction"]))
        chances = [p / len(group) for _, p, group in plan.evictions for _ in group]
        rows.append(close(case, f"{number} uniform", chances, [1 / len(reduced)] * len(reduced)))
        rng = np.random.default_rng(number)
        drawn = [plan.draw(rng) for _ in range(2000)]
        share = sum(kept for kept, _, _ in drawn) / len(drawn)
        rows.append(close(case, f"{number} drawn share", share, item["accept_probability"], 0.05))
        evicted = {-1 if row is None else row for kept, _, row in drawn if kept}
        rows.append(equal(case, f"{number} drawn evictions", sorted(evicted), item["eviction_set"]))
    return rows


# --- the interface --------------------------------------------------------------------------------------------------


def run_e2e(case: Case) -> list[Comparison]:
    """Loading a published file and classifying files, from disk to names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "class_labels_indices.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["index", "mid", "display_name"], *case.spec["class_rows_in_file_order"]])
        weights = folder / "model_bestLoss_ft.pth"
        torch.save({f"__M__.{key}": value for key, value in case.state_dict().items()}, weights)
        paths = {}
        for number, (clip, spec) in enumerate(case.spec["waveforms"].items()):
            paths[clip] = folder / f"{number}.wav"
            soundfile.write(paths[clip], from_case_waveform(spec).T, spec["sr"], subtype="FLOAT")
        config = case.config
        model, labels = load_audio_model(
            table, weights, head_type=config.get("head_type", "linear"), num_heads=config.get("num_heads")
        )
        results, times, scores = audio_event_classification(
            paths, model, labels, model.config.target_length, model.config.n_mels,
            config.get("norm_mean", -4.346), config.get("norm_std", 4.332), return_scores=True,
        )  # fmt: skip
    rows = compare(case, {f"probability_{n}": scores[clip] for n, clip in enumerate(paths)})
    rows.append(equal(case, "results", results, case.spec["expected_results"]))
    return [*rows, equal(case, "inference_times", (list(times), min(times.values()) > 0), (list(paths), True))]
