"""Parity of the pieces of the event-graph networks: backbones, edges, cutting, clip loading, losses and schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.audio_visual import published_clip
from models.errors import EarwitnessError
from models.layers.graph_edges import (
    BetweenPlan,
    Spans,
    between_edges,
    draw_between,
    draw_spans,
    intra_edges,
    matching_edges,
)
from models.layers.r3d import R3D18
from models.layers.segments import Segmentation
from models.layers.wav2vec2_frontend import Wav2Vec2FrontEnd
from models.training.hetero_graph import (
    PublishedSolver,
    balanced_class_weights,
    classification_loss,
    evaluate_logits,
)
from tests.parity.cases import Case

Outputs = dict[str, "Tensor | np.ndarray"]


def graph_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Published ``GRAPH`` options as settings of `HeteroGraphConfig`."""
    names = {
        "SPAN_OVER_TIME_AUDIO": ("audio_span", 2), "AUDIO_DILATION": ("audio_dilation", 1),
        "SPAN_OVER_TIME_VIDEO": ("video_span", 2), "VIDEO_DILATION": ("video_dilation", 1),
        "DYNAMIC": ("dynamic", False), "NORMALIZE": ("normalize", True), "SELF_LOOPS": ("self_loops", True),
        "RESIDUAL": ("residual", True), "ADJACENCY_DROPOUT": ("adjacency_dropout", 0.0),
        "GRAPH_DROPOUT": ("graph_dropout", 0.0), "FUSION_LAYERS": ("fusion_layers", ()),
        "DISTANCE": ("distance", "cosine"),
        "NUM_AUDIO_NODES": ("n_audio_nodes", 10), "NUM_VIDEO_NODES": ("n_video_nodes", 10),
        "AUDIO_SEGMENT_LENGTH": ("audio_segment_ms", 960), "VIDEO_SEGMENT_LENGTH": ("video_segment_ms", 250),
    }  # fmt: skip
    return {name: options.get(key, default) for key, (name, default) in names.items()}


def w2v2_extractor(case: Case) -> Outputs:
    """The audio backbone."""
    network = Wav2Vec2FrontEnd([tuple(layer) for layer in case.config["conv_layers"]])
    network.load_state_dict(case.state_dict())
    seen: Outputs = {}
    network.conv_layers[0].register_forward_hook(lambda _m, _i, output: seen.update(first=output[:, ::8, ::16]))
    with torch.no_grad():
        frames = network(0.1 * case.inputs()["audio"])
    return seen | {"frames": frames, "features": frames.mean(dim=1)}


def r3d18(case: Case) -> Outputs:
    """The video backbone."""
    state_dict = case.state_dict()
    network = R3D18(state_dict["stem.0.weight"].shape[0], state_dict["fc.weight"].shape[0])
    network.load_state_dict(state_dict)
    network.eval()
    outputs: Outputs = {}

    def stage(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            outputs[f"{name}_mean"] = output.mean(dim=(2, 3, 4))
            outputs[f"{name}_shape"] = np.array(output.shape)
            if name == "stem":
                outputs["stem_patch"] = output[:, ::8, :, ::4, ::4]

        return hook

    for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(stage(name))
    network.fc.register_forward_hook(lambda _m, inputs, _o: outputs.update(features=inputs[0]))
    with torch.no_grad():
        outputs["logits"] = network(case.inputs()["video"])
    return outputs


def edges_intra(case: Case) -> Outputs:
    """Edges within a modality."""
    return {
        f"edge_index_{i}": intra_edges(s["nodes"], s["span"], s["dilation"], s["self_loops"])
        for i, s in enumerate(case.config["settings"])
    }


def edges_between(case: Case) -> Outputs:
    """Initial edges, with the generator and from the case's own draws."""
    outputs: Outputs = {}
    for i, s in enumerate(case.config["settings"]):
        generator = np.random.RandomState(s["numpy_seed"])
        plan = draw_between(s["audio_nodes"], s["video_nodes"], generator)
        if (plan.hop_length, plan.residual) != (s["hop_length"], s["residual"]):
            raise ValueError(f"setting {i}: drew hop {plan.hop_length} and residual {plan.residual}")
        outputs[f"hop_list_{i}"] = plan.hops
        given = BetweenPlan(s["hop_length"], s["residual"], case.arrays[f"hop_list_{i}"])
        outputs[f"edge_index_{i}"] = between_edges(s["audio_nodes"], s["video_nodes"], s["span_between"], given)
    return outputs


def edges_dynamic(case: Case) -> Outputs:
    """Graphs with random spans."""
    options = case.config["GRAPH"]
    graph = graph_options(options)
    largest = Spans(
        graph["audio_span"], graph["video_span"], options.get("SPAN_OVER_TIME_BETWEEN", 2),
        graph["video_dilation"], graph["audio_dilation"],
    )  # fmt: skip
    generator = np.random.RandomState(case.config["numpy_seed"])
    outputs: Outputs = {}
    for i, expected in enumerate(case.config["drawn"]):
        spans = draw_spans(largest, generator)
        drawn = {
            "span_over_time_audio": spans.audio, "span_over_time_video": spans.video,
            "span_over_time_between": spans.between, "video_dilation": spans.video_dilation,
            "audio_dilation": spans.audio_dilation,
        }  # fmt: skip
        if drawn != expected:
            raise ValueError(f"graph {i}: drew {drawn}")
        outputs[f"audio_{i}"] = intra_edges(
            graph["n_audio_nodes"], spans.audio, spans.audio_dilation, graph["self_loops"]
        )
        outputs[f"video_{i}"] = intra_edges(
            graph["n_video_nodes"], spans.video, spans.video_dilation, graph["self_loops"]
        )
    return outputs


def matching_graph(case: Case) -> Outputs:
    """Nearest neighbours across modalities."""
    inputs, batch = case.inputs(), case.config["batch"]
    audio, video = (inputs[name].unflatten(0, (batch, -1)) for name in ("x_audio", "x_video"))
    edges, distances = matching_edges(audio, video, case.config["DISTANCE"], case.config["k"])
    return {"edge_index": edges, "distances": distances}


def segments(case: Case) -> Outputs:
    """Cutting; also where the count is not the number of nodes."""
    inputs, graph = case.inputs(), graph_options(case.config["GRAPH"])
    audio, video = inputs["audio"].mean(dim=1), inputs["video"]
    sound = Segmentation.of(audio.shape[1], graph["n_audio_nodes"], graph["audio_segment_ms"], case.config["audio_fps"])
    picture = Segmentation.of(
        video.shape[2], graph["n_video_nodes"], graph["video_segment_ms"], case.config["video_fps"]
    )
    for cutting, n_nodes in ((sound, graph["n_audio_nodes"]), (picture, graph["n_video_nodes"])):
        try:
            cutting.check(n_nodes, "test")
        except EarwitnessError:
            if cutting.count == n_nodes:
                raise
    return {
        "audio_segments": sound.cut(audio, 1),
        "video_segments": picture.cut(video, 2).permute(0, 2, 1, 5, 3, 4),
        "segment_shapes": np.array([sound.count, sound.size, picture.count, picture.size]),
    }


def clip_loading(case: Case) -> Outputs:
    """The published loader on a synthetic clip."""
    config, seed = case.config, case.spec["seed"]
    rate = config["audio_rate_in"]
    t = np.arange(int(rate * config["audio_seconds"])) / rate
    generator = np.random.default_rng(seed)
    channels = [
        0.3 * np.sin(2 * np.pi * 220 * (c + 1) * t) + 0.2 * np.sin(2 * np.pi * 1330 * t + c)
        + 0.1 * np.sin(2 * np.pi * 5200 * t) + 0.05 * generator.standard_normal(len(t))
        for c in range(config["audio_channels"])
    ]  # fmt: skip
    audio = torch.from_numpy(np.stack(channels).astype(np.float32))
    n, height, width = config["frames"], config["height"], config["width"]
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    f = np.arange(n)[:, None, None]
    base = 127 + 60 * np.sin(x / 7 + 0.3 * f) + 40 * np.cos(y / 5 - 0.2 * f)
    picture = np.stack([base, np.roll(base, 3, axis=2), 255 - base], axis=1)
    picture = picture + generator.integers(-15, 16, (n, 3, height, width))
    video = torch.from_numpy(np.clip(picture, 0, 255).astype(np.uint8))
    clip = published_clip(video, config["video_fps_in"], audio, rate, config["clip_len"])
    for name in ("video_fps", "audio_fps"):
        if getattr(clip, name) != config[f"{name}_out"]:
            raise ValueError(f"{name} is {getattr(clip, name)}")
    for name in ("audio_len", "video_len"):
        if getattr(clip, name) != config[name]:
            raise ValueError(f"{name} is {getattr(clip, name)}")
    if list(clip.video.shape) != config["video_shape"]:
        raise ValueError(f"video has the shape {list(clip.video.shape)}")
    return {
        "audio": clip.audio,
        "video_sub": clip.video[:, ::4, ::4, ::4],
        "video_frame_mean": clip.video.mean(dim=(0, 2, 3)),
    }


_LOSSES: dict[str, Any] = {"CrossEntropyLoss": "cross_entropy", "FocalLoss": "focal"}


def training_loss(logits: Tensor, labels: Tensor, options: Mapping[str, Any], weights: Tensor) -> Tensor:
    """Classification loss of published ``TRAINING`` options."""
    return classification_loss(
        logits, labels, _LOSSES[options.get("LOSS", "CrossEntropyLoss")],
        label_smoothing=options.get("LABEL_SMOOTHING", 0.0),
        class_weights=weights if options.get("CLASS_WEIGHTS", False) else None,
        activation=options.get("NON_LINEAR_ACTIVATION", ""),
    )  # fmt: skip


def loss_metrics(case: Case) -> Outputs:
    """Losses, class weights, evaluator."""
    logits = 1.5 * case.inputs()["logits"]
    labels = torch.from_numpy(case.arrays["labels"]).long()
    weights = balanced_class_weights(labels.numpy(), logits.shape[1])
    outputs: Outputs = {"labels": case.arrays["labels"], "class_weight": weights}
    for name, options in case.config["losses"].items():
        value = training_loss(logits, labels, options, weights)
        outputs[f"loss_{name}"] = value.reshape(case.arrays[f"loss_{name}"].shape)
    for name, loss in _LOSSES.items():
        found = evaluate_logits(logits, labels, loss)
        outputs[f"eval_{name}"] = np.array([found.mean_average_precision, found.accuracy, found.loss, found.roc_auc])
    return outputs


def lr_schedule(case: Case) -> Outputs:
    """Rates of the backbones and of the rest."""
    outputs: Outputs = {}
    for i, options in enumerate(case.config["settings"]):
        solver = PublishedSolver.model_validate(options)
        iterations = case.arrays[f"iterations_{i}"]
        rates = np.array([solver.BASE_LR * solver.rate_factor(int(t)) for t in iterations])
        outputs[f"iterations_{i}"] = iterations
        outputs[f"lr_{i}"] = np.stack([rates / 10, rates], axis=1)
    return outputs


PART_KINDS: dict[str, Callable[[Case], Outputs]] = {
    "w2v2_extractor": w2v2_extractor, "r3d18": r3d18, "edges_intra": edges_intra, "edges_between": edges_between,
    "edges_dynamic": edges_dynamic, "matching_graph": matching_graph, "segments": segments,
    "clip_loading": clip_loading, "loss_metrics": loss_metrics, "lr_schedule": lr_schedule,
}  # fmt: skip
