"""Parity of EquiAV: class extension, MAE initialisation, from pre-training to fine-tuning."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.families.equiav import EquiAV
from models.families.equiav_pretraining import EquiAVPretraining, EquiAVPretrainingConfig
from models.training.equiav_weights import copy_matching, initialize_from_mae, strip_prefixes
from tests.parity.cases import Case, Comparison
from tests.parity.equiav_helpers import compare, equal, published_trainer
from tests.parity.fill import fill_input, fill_state_dict


def run_checkpoint(case: Case) -> list[Comparison]:
    """Class extension, MAE initialisation, pre-training to fine-tuning."""
    if "class extension" in case.spec["function"]:
        return run_class_extension(case)
    if "MAE" in case.spec["function"]:
        return run_mae(case)
    return run_pretrained(case)


def _shapes(entries: dict[str, Any]) -> dict[str, tuple[list[int], str]]:
    return {name: (shape, dtype) for name, (shape, dtype) in entries.items()}


def run_class_extension(case: Case) -> list[Comparison]:
    """A checkpoint with other classes into a new network, by way of a published file."""
    spec, config = case.spec, case.config
    new_shapes = _shapes(spec["new_state_dict"])
    old = fill_state_dict(new_shapes | _shapes(spec["old_state_dict_differs_in"]), spec["old_seed"])
    trainer = published_trainer(config | {"label_dim": config["new_label_dim"], "allow_shrink": True})
    new = fill_state_dict(new_shapes, spec["new_seed"])
    trainer.network.load_state_dict(EquiAV.convert_state_dict(new, trainer.network.config))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model_bestLoss_ft.pth"
        torch.save({f"__M__.{key}": value for key, value in old.items()}, path)
        trainer.loadParameters(path)
    network = trainer.network.eval()
    inputs = {name: fill_input(name, tuple(shape), spec["new_seed"]) for name, shape in spec["inputs"].items()}
    with torch.no_grad():
        logits = network.forward_head(network.pool(inputs.get("a"), inputs.get("v")))
    last = network.mlp_head[-1]
    assert isinstance(last, nn.Linear)
    rows = compare(case, {"head_weight": last.weight, "head_bias": last.bias, "logits": logits})
    kept = [k for k, v in network.state_dict().items() if k in old and old[k].shape == v.shape]
    others = all(torch.equal(network.state_dict()[key], old[key]) for key in kept)
    return [*rows, equal(case, "all_other_keys_equal_old", others, spec["all_other_keys_equal_old"])]


def run_mae(case: Case) -> list[Comparison]:
    """Which entry of an MAE file goes where."""
    spec = case.spec
    sources = [fill_state_dict(_shapes(spec[f"{name}_source"]), seed) for seed, name in enumerate(("audio", "visual"))]
    targets = [*spec["mapping_target_from_source"], *spec["target_untouched"]]
    width = sources[0]["patch_embed.proj.weight"].shape[0]
    depth = 1 + max(int(key.split(".")[1]) for key in targets if key.startswith("blocks_a."))
    side = round(np.sqrt(sources[0]["pos_embed"].shape[1] - 1)) if "pos_embed" in sources[0] else 3
    network = EquiAVPretraining(EquiAVPretrainingConfig(
        width=width, depth=depth, n_heads=1, projection_hidden=8, n_classes=8, intra_size=8, vector_width=8,
        image_size=16 * max(1, side), target_length=32,
        mlp_ratio=sources[0]["blocks.0.mlp.fc1.weight"].shape[0] / width,
    ))  # fmt: skip
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = initialize_from_mae(sources[0], sources[1], before)
    network.load_state_dict(report.merged)
    wrong = []
    for target, source in spec["mapping_target_from_source"].items():
        tower = 0 if target.split(".")[0].endswith("_a") else 1
        value = sources[tower][source.split(" ")[0]]
        if "repeated" in source:
            value = torch.cat([value] * 3, dim=1)
        if not torch.equal(network.state_dict()[target], value):
            wrong.append(target)
    untouched = sorted(key for key in before if key in report.fresh)
    ignored = sorted({key.partition(".")[0][:-2] + key[len(key.partition(".")[0]) :] for key in report.ignored})
    return [
        equal(case, "mapping", wrong, []),
        equal(case, "mapped", sorted(report.loaded), sorted(spec["mapping_target_from_source"])),
        equal(case, "target_untouched", untouched, sorted(spec["target_untouched"])),
        equal(case, "source_ignored", ignored, sorted(spec["source_ignored"])),
    ]


def run_pretrained(case: Case) -> list[Comparison]:
    """Which entries of a pre-training file a fine-tuning network takes."""
    source = strip_prefixes(fill_state_dict(_shapes(case.spec["pretraining_state_dict"])))
    hints = EquiAVPretraining.infer_config(source, {})
    shared = {k: getattr(hints, k) for k in ("width", "depth", "n_heads", "target_length", "image_size", "mlp_ratio")}
    rows = []
    for name, expected in case.spec["result"].items():
        mode, head, inter = name.rsplit("_", 2)
        network = EquiAV(EquiAV.Config.model_validate(shared | {
            "mode": mode, "head_type": head, "inter_linear": inter == "interlinear", "n_classes": 5,
            "projection_size": hints.n_classes, "projection_hidden": hints.projection_hidden,
                        "both_towers": mode != "audio_only",
        }))  # fmt: skip
        target = network.state_dict()
        report = copy_matching(source, target)
        network.load_state_dict(report.merged)
        found = {
            "loaded_top_level": _top(report.loaded), "ignored_top_level": _top(report.ignored),
            "left_at_init_top_level": _top(report.fresh), "n_loaded": len(report.loaded),
            "n_checkpoint": len(source), "n_model": len(target),
        }  # fmt: skip
        rows.append(equal(case, name, found, expected))
        taken = all(torch.equal(network.state_dict()[key], source[key]) for key in report.loaded)
        rows.append(equal(case, f"{name} values", taken, True))
    return rows


def _top(keys: tuple[str, ...]) -> list[str]:
    return sorted({"__M__." + key.split(".")[0] for key in keys})
