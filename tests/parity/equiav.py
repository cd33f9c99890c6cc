"""Parity of EquiAV: which part of the code a case belongs to, and the networks with their intermediate outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.equiav_api import EquiAV_ft
from models.families.equiav import EquiAV
from models.families.equiav_pretraining import EquiAVPretraining, EquiAVPretrainingConfig
from models.layers.equiav import sine_positions
from models.layers.transformer import SelfAttention
from models.training.equiav import PretrainingLoss
from models.training.equiav_weights import strip_prefixes
from tests.parity.cases import Case, Comparison
from tests.parity.equiav_checkpoints import run_checkpoint
from tests.parity.equiav_helpers import compare
from tests.parity.equiav_home import run_e2e, run_evaluation, run_metric, run_reservoir, run_weights
from tests.parity.equiav_training import run_augment, run_labels, run_loss, run_preprocess, run_schedule, run_train

_PRETRAINING_NAMES = {
    "aug_size_a": "audio_vector_size", "aug_size_v": "video_vector_size", "num_mel_bins": "n_mels",
    "embed_dim": "width", "modality_specific_depth": "depth", "num_heads": "n_heads",
    "proj_hidden_dim": "projection_hidden", "inter_proj_out_dim": "n_classes", "intra_proj_out_dim": "intra_size",
    "aug_emb_dim": "vector_width", "audio_length": "target_length", "img_size": "image_size",
    "cen_mean": "centroid", "cen_num": "n_centroid", "mlp_ratio": "mlp_ratio",
}  # fmt: skip


def run(case: Case) -> list[Comparison]:
    """Compare every output of one case."""
    kinds: dict[str, Callable[[Case], list[Comparison]]] = {
        "model": run_model, "init": run_init, "preprocess": run_preprocess, "augment": run_augment, "loss": run_loss,
        "schedule": run_schedule, "labels": run_labels, "train": run_train, "checkpoint": run_checkpoint,
        "metric": run_metric, "weights": run_weights, "evaluation": run_evaluation, "reservoir": run_reservoir,
        "e2e": run_e2e,
    }  # fmt: skip
    return kinds[case.kind](case)


def run_model(case: Case) -> list[Comparison]:
    """Fine-tuning and pre-training networks with all intermediate outputs."""
    if case.spec["arch"] == "ft_EquiAV":
        return compare(case, finetuning_outputs(case))
    settings = {_PRETRAINING_NAMES[k]: v for k, v in case.config.items() if k in _PRETRAINING_NAMES}
    network = EquiAVPretraining(EquiAVPretrainingConfig.model_validate(settings))
    network.load_state_dict(case.state_dict())
    network.eval()
    if case.spec["arch"].endswith("forward_feat"):
        x = case.inputs()
        with torch.no_grad():
            heard, seen = network.retrieval_features(x["a"], x["v"], x["t_a_list"], x["t_v_list"])
        similarity = nn.functional.normalize(heard, dim=1) @ nn.functional.normalize(seen, dim=1).T
        return compare(case, {"z_a": heard, "z_v": seen, "sim_a2v": similarity})
    return compare(case, pretraining_outputs(case, network))


class _Recorder:
    """Outputs of modules, through forward hooks."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        self.handles: list[Any] = []

    def output(self, name: str, module: nn.Module) -> None:
        """Record what a module gives, call by call."""
        self.seen[name] = []
        self.handles.append(module.register_forward_hook(lambda m, i, o: self.seen[name].append(o.detach())))

    def input(self, name: str, module: nn.Module) -> None:
        """Record what a module reads."""
        self.seen[name] = []
        self.handles.append(module.register_forward_hook(lambda m, i, o: self.seen[name].append(i[0].detach())))

    def attention(self, name: str, blocks: nn.Module) -> None:
        """Record the attention weights of blocks, one after the other."""
        self.seen[name] = []
        for block in blocks.children():
            attention = block.get_submodule("attn")
            assert isinstance(attention, SelfAttention)
            attention.keep_attention = True

            def keep(module: Any, inputs: Any, output: Any) -> None:
                self.seen[name].append(module.attention.detach())

            self.handles.append(attention.register_forward_hook(keep))


def finetuning_outputs(case: Case) -> dict[str, Tensor | np.ndarray]:
    """Logits, streams, attention and gradients."""
    weights = strip_prefixes(case.state_dict())
    present = {t for t in "av" if f"patch_embed_{t}.proj.weight" in weights}
    options = {k: v for k, v in case.config.items() if k in EquiAV_ft.NAMES}
    network = EquiAV_ft(**options).network
    if present - set(network.config.towers):
        network = EquiAV(network.config.model_copy(update={"both_towers": True}))
    network.load_state_dict(weights)
    network.eval()
    inputs = {k: v.requires_grad_() for k, v in case.inputs().items()}
    record, towers = _Recorder(), network.config.towers
    record.input("head_in", network.mlp_head)
    for tower in towers:
        record.output(f"patch_{tower}", getattr(network, f"patch_embed_{tower}"))
        record.attention(f"attn_{tower}", getattr(network, f"blocks_{tower}"))
        for block in getattr(network, f"blocks_{tower}"):
            name = f"block_{tower}"
            record.seen.setdefault(name, [])
            record.handles.append(
                block.register_forward_hook(lambda m, i, o, name=name: record.seen[name].append(o.detach()))
            )
        record.output(f"norm_{tower}", getattr(network, f"norm_{tower}"))
        record.output(f"inter_{tower}", getattr(network, f"pred_{tower}_inter"))
    logits = network.mlp_head(network.pool(inputs.get("a"), inputs.get("v")))
    logits[0, case.spec["grad_class"]].backward()
    outputs: dict[str, Tensor | np.ndarray] = {"logits": logits, "head_in": record.seen["head_in"][0]}
    for tower in towers:
        outputs |= {f"{stem}_{tower}": record.seen[f"{stem}_{tower}"][0] for stem in ("patch", "norm")}
        if record.seen[f"inter_{tower}"]:
            outputs[f"inter_{tower}"] = record.seen[f"inter_{tower}"][0]
        tokens = record.seen[f"norm_{tower}"][0]
        outputs[f"norm_{tower}_mean"] = tokens.mean(dim=1)
        chosen = [n for n in (0, 1, 2, 63) if n < tokens.shape[1]]
        outputs[f"norm_{tower}_tokens_0_63"] = tokens[:, chosen]
        outputs[f"blocks_{tower}"] = torch.stack(record.seen[f"block_{tower}"])
        attention = torch.stack(record.seen[f"attn_{tower}"])
        outputs[f"attn_{tower}"] = attention
        outputs[f"attn_{tower}_received"] = attention.mean(dim=(2, 3))
        gradient = inputs[tower].grad
        assert gradient is not None
        outputs[f"grad_{tower}"] = gradient
        batch, channels, height, width = gradient.shape
        patches = gradient.abs().reshape(batch, channels, height // 16, 16, width // 16, 16)
        outputs[f"grad_{tower}_patch_absmean"] = patches.mean(dim=(1, 3, 5))
        outputs[f"grad_{tower}_rows16"] = gradient[0, :, 96:112]
    if network.config.mode == "audio_only" and network.decomposable:
        evidence = network.token_evidence(inputs["a"])["a"]
        outputs["derived_token_evidence"] = evidence.flatten(2).transpose(1, 2)
    return outputs


def pretraining_outputs(case: Case, network: EquiAVPretraining) -> dict[str, Tensor | np.ndarray]:
    """Embeddings, predictor outputs and losses."""
    x, config, record = case.inputs(), case.config, _Recorder()
    for tower in ("a", "v"):
        record.output(f"cross_{tower}", getattr(network, f"cross_attn_{tower}"))
        record.output(f"augenc_{tower}", getattr(network, f"aug_encoder_{tower}"))
        record.output(f"norm_{tower}", getattr(network, f"norm_{tower}"))
    names = ("a", "v", "a_aug", "v_aug", "t_a", "t_v", "t_a_list", "t_v_list")
    with torch.no_grad():
        embeddings = network.forward_views(*(x.get(name) for name in names))  # type: ignore[arg-type]
        loss = PretrainingLoss(
            config["tau_inv"],
            config["tau_equi"],
            config["inter_scale"],
            config["intra_a_scale"],
            config["intra_v_scale"],
        )(embeddings)
    published = ("z_a_inv", "z_v_inv", "z_a_equi_t", "z_v_equi_t", "z_a_aug", "z_v_aug")
    outputs: dict[str, Tensor | np.ndarray] = dict(zip(published, embeddings, strict=True))
    for tower in ("a", "v"):
        calls = [("centroid", 0), ("single", 1)] if network.config.centroid else [("single", 0)]
        for call, index in calls:
            outputs[f"cross_{tower}_{call}"] = record.seen[f"cross_{tower}"][index]
            outputs[f"augenc_{tower}_{call}"] = record.seen[f"augenc_{tower}"][index]
        tokens = record.seen[f"norm_{tower}"][0]
        outputs[f"norm_{tower}"], outputs[f"norm_{tower}_mean"] = tokens, tokens.mean(dim=1)
        with torch.no_grad():
            attention = network.predictor_attention(x[tower], x[f"t_{tower}"].unsqueeze(1), tower)  # type: ignore[arg-type]
        name = f"xattn_{tower}_single"
        averaged = name in case.arrays and case.arrays[name].ndim == 3
        outputs[name] = attention.mean(dim=1) if averaged else attention
    parts = {"inv": loss.inter, "intra_a": loss.intra_audio, "intra_v": loss.intra_video}
    outputs["loss"] = loss.loss.reshape(1)
    for name, part in parts.items():
        outputs[f"loss_{'inter' if name == 'inv' else name}"] = part.loss.reshape(1)
        outputs[f"acc_{name}"] = part.accuracy.reshape(1)
    return outputs


def run_init(case: Case) -> list[Comparison]:
    """Fixed position tables."""
    outputs: dict[str, Tensor | np.ndarray] = {}
    for name, (width, rows, columns) in case.config.items():
        table = sine_positions(width, rows, columns)[0]
        outputs[name] = table
        chosen = case.spec.get("rows", []) if name.startswith("audio") else [0, 1, 13, 14, 15, 195]
        if max(chosen, default=0) < len(table):
            outputs[f"{name}_rows"] = table[chosen]
    return compare(case, outputs)
