"""Parity with Auditory SlowFast, Label Embeddings Projection and the project's own salient-audio formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoint import fill_network
from models.families.slowfast import SlowFast
from models.layers.slowfast_settings import SlowFastConfig, hints_from_options
from models.training.heads import heads_cross_entropy
from models.training.label_embeddings import LabelEmbeddingLoss
from models.training.sgd import build_sgd, freeze_batch_norm
from tests.parity import slowfast_lep_data as data
from tests.parity import slowfast_lep_explanations as explanations
from tests.parity.cases import Case, Comparison
from tests.parity.slowfast_lep_helpers import (
    FORWARD,
    GRADIENT,
    STEP,
    build,
    compare,
    forgiving,
    head_suffixes,
    probabilities,
    spectrogram,
)


def run(case: Case) -> list[Comparison]:
    """Every stored output of a case."""
    return RUNNERS[case.kind](case)


@contextmanager
def recorded(network: SlowFast) -> Iterator[dict[str, Tensor]]:
    """Outputs of stages, pooled features and logits at every position, by the names that cases use."""
    kept: dict[str, Tensor] = {}
    handles = []

    def keep_stage(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: list[Tensor]) -> None:
            kept.update({f"{name}.pathway{path}": tensor for path, tensor in enumerate(output)})

        return hook

    def keep_linear(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            kept["pooled"], kept[name] = inputs[0], output

        return hook

    for name, module in network.named_children():
        if name.startswith("s"):
            handles.append(module.register_forward_hook(keep_stage(name)))
    for name in network.head.names:
        handles.append(network.head.get_submodule(name).register_forward_hook(keep_linear(name)))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def run_model(case: Case) -> list[Comparison]:
    """Forward pass in evaluation mode with all stages."""
    network = build(case)
    with torch.no_grad(), recorded(network) as kept:
        logits = network(spectrogram(case))
    outputs: dict[str, Tensor] = probabilities(network, logits) | {"pooled": kept["pooled"]}
    for name, suffix in head_suffixes(network).items():
        outputs[f"logits{suffix}"] = kept[name]
    if "label_embedding" in case.arrays:
        outputs["label_embedding"] = network.label_embedding(kept["projection"])
    for name in case.arrays:
        if name.startswith("stage."):
            outputs[name] = kept[name.removeprefix("stage.")]
    rows = case.spec.get("stage_stats_rows", [])
    if rows:
        outputs["stage_stats"] = torch.stack(
            [torch.stack([kept[r].mean(), kept[r].std(), kept[r].abs().max()]) for r in rows]
        )
    compared = compare(case, outputs, FORWARD)
    if "num_parameters" in case.spec:
        dropped = set(case.spec["state_dict"]) - set(network.state_dict())
        unused = sum(int(np.prod(case.spec["state_dict"][k][0])) for k in dropped if k.endswith(("weight", "bias")))
        count = sum(p.numel() for p in network.parameters()) + unused
        difference = abs(count - case.spec["num_parameters"])
        compared.append(Comparison(case.path.stem, "num_parameters", float(difference), 0.0))
    return compared


def run_gradient(case: Case) -> list[Comparison]:
    """Gradients of single logits with respect to the spectrogram and to each stream's input."""
    network = build(case)
    features = spectrogram(case).requires_grad_(True)
    pathways = network.pathways(features)
    # Nodes of their own: the fast input must not be the spectrogram tensor itself.
    nodes = [pathway * 1.0 for pathway in pathways]
    logits = network.head(network.pool(network.last_stage(nodes), features))
    outputs: dict[str, Tensor] = {}
    for name in case.arrays:
        if not name.startswith("logit."):
            continue
        _, head, index = name.split(".")
        offset = 0 if head in ("projection", "projection_verb") else network.config.class_groups[0]
        chosen = logits[..., offset + int(index)]
        outputs[name] = chosen
        total, *parts = torch.autograd.grad(chosen.sum(), [features, *nodes], retain_graph=True)
        outputs[f"grad_spectrogram.{head}.{index}"] = total.unsqueeze(1)
        outputs |= {f"grad_pathway{path}.{head}.{index}": part for path, part in enumerate(parts)}
    return forgiving(case, outputs, compare(case, outputs, GRADIENT))


def run_train_step(case: Case) -> list[Comparison]:
    """One step of SGD in training mode."""
    network, settings = build(case).train(), case.spec["optimizer"]
    if case.config.get("BN.FREEZE"):
        freeze_batch_norm(network)
    logits = network(spectrogram(case))
    labels = [torch.tensor(entries) for entries in case.spec["labels"]]
    groups = list(network.config.class_groups or (network.config.n_classes,))
    parts = logits.split(groups, dim=1)
    outputs: dict[str, Tensor] = {}
    losses = heads_cross_entropy(logits, labels, groups)
    for suffix, part, one in zip(head_suffixes(network).values(), parts, losses, strict=True):
        outputs |= {f"logits{suffix}": part, f"loss{suffix}": one}
    loss = losses.mean()
    if settings.get("lambda") is not None:
        objective = LabelEmbeddingLoss(case.inputs()["label_embeddings"], settings["lambda"])
        embedding = network.label_embedding(logits)
        found = objective(logits, embedding, labels[0])
        loss = found.total
        outputs |= {
            "label_embedding": embedding[:, None, None], "loss_ce": found.classification, "loss_mse": found.embedding,
        }  # fmt: skip
    outputs["loss"] = loss
    optimizer = build_sgd(
        network, settings["lr"], momentum=settings["momentum"], dampening=settings["dampening"],
        nesterov=settings["nesterov"], weight_decay=settings["weight_decay"],
        norm_weight_decay=settings["bn_weight_decay"],
    )  # fmt: skip
    loss.backward()
    if settings.get("clip_grad_norm") is not None:
        norm = nn.utils.clip_grad_norm_(network.parameters(), settings["clip_grad_norm"])
        outputs["grad_norm_before_clip"] = norm
    outputs |= {f"grad.{name}": p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    optimizer.step()
    outputs |= {f"after.{name}": value for name, value in network.state_dict().items()}
    return compare(case, outputs, STEP)


def run_checkpoint(case: Case) -> list[Comparison]:
    """A published container, its settings read from it."""
    container = torch.load(case.path.parent / case.spec["file"], weights_only=True)
    weights = container["model_state"]
    config = SlowFast.infer_config(weights, SlowFast.published_hints(container))
    assert SlowFast.recognizes(weights), "not recognised"
    assert config == SlowFastConfig.model_validate(config.model_dump() | hints_from_options(case.config))
    network = SlowFast(config)
    fill_network(network, SlowFast.convert_state_dict(weights, config), case.spec["file"])
    with torch.no_grad():
        outputs = probabilities(network, network.eval()(spectrogram(case)))
    return compare(case, outputs, FORWARD)


RUNNERS: dict[str, Callable[[Case], list[Comparison]]] = {
    "model": run_model,
    "gradient": run_gradient,
    "train_step": run_train_step,
    "checkpoint": run_checkpoint,
    "preprocess": data.run_preprocess,
    "pack": data.run_pack,
    "augment": data.run_augment,
    "schedule": data.run_schedule,
    "metrics": data.run_metrics,
    "label_embedding": data.run_label_embedding,
    "attribution": explanations.run_attribution,
    "gradcam": explanations.run_gradcam,
    "design": explanations.run_design,
}
