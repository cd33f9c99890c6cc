"""Parity of the event-graph networks (specification: hetero_graph)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoint import fill_network
from models.families.hetero_graph import HeteroGraph
from models.families.hetero_graph_fixed import FixedFeatureGraph, FixedFeatureGraphConfig
from models.layers.graph_view import GraphPass
from models.layers.hetero_settings import HeteroGraphConfig
from models.layers.wav2vec2_frontend import BASE_LAYERS
from models.training.hetero_graph import PublishedLoop, PublishedSolver, parameter_norms
from tests.parity.cases import Case, Comparison, largest_error, standard_tolerance
from tests.parity.fill import fill_input
from tests.parity.hetero_graph_parts import PART_KINDS, Outputs, graph_options, training_loss


def build_network(case: Case, state_dict: dict[str, Tensor]) -> HeteroGraph:
    """The network of a case, faithful in every quirk."""
    model = case.config["MODEL"]
    layers = case.config.get("audio_extractor_conv_layers") or BASE_LAYERS
    whole = any(key.startswith("video_head.") for key in state_dict)
    if not whole:
        # Cases of the graph part alone bring no backbones; only the width of their features matters.
        layers = ((state_dict["pre_norm_audio.weight"].shape[1], 1, 1),)
    config = HeteroGraphConfig(
        n_classes=model.get("OUT_DIM", 527), hidden_channels=model.get("HIDDEN_CHANNELS", 128),
        n_layers=model.get("NUM_LAYERS", 2), conv_layers=tuple(tuple(layer) for layer in layers),
        video_width=state_dict["pre_norm_video.weight"].shape[1] // 8,
        sample_rate=case.config.get("audio_fps", 16000), frame_rate=case.config.get("video_fps", 20),
        **graph_options(case.config["GRAPH"]),
    )  # fmt: skip
    with torch.device("meta"):
        network = HeteroGraph(config)
    if not whole:
        network.add_module("audio_head", nn.Identity())
        network.add_module("video_head", nn.Identity())
    fill_network(network, state_dict, case.path.name)
    return network.eval()


def media(case: Case, suffix: str = "") -> tuple[Tensor, Tensor]:
    """Audio ``[batch, channels, samples]`` and normalised video ``[batch, 3, frames, height, width]``."""
    audio, video = (
        fill_input(f"{name}{suffix}", tuple(case.spec["inputs"][f"{name}{suffix}"]), case.spec["seed"])
        for name in ("audio", "video")
    )
    if not case.config.get("envelope", True):
        return 0.1 * audio, video
    t = np.arange(audio.shape[2]) / audio.shape[2]
    s = np.arange(video.shape[2]) / video.shape[2]
    envelope = torch.from_numpy((0.2 + np.abs(np.sin(3 * np.pi * t)) + 2 * t**2).astype(np.float32))
    gain = torch.from_numpy((0.3 + np.abs(np.cos(4 * np.pi * s))).astype(np.float32))[:, None, None]
    offset = torch.from_numpy((2 * s - 1).astype(np.float32))[:, None, None]
    return 0.1 * audio * envelope, video * gain + offset


class Recorder:
    """Inputs and outputs of the graph layers, taken with forward hooks."""

    def __init__(self, network: HeteroGraph) -> None:
        self.outputs: Outputs = {}
        if network.config.normalize:
            self._take(network.pre_norm_audio, "audio_normed")
            self._take(network.pre_norm_video, "video_normed")
        self._take(network.dim_reduction_a, "x0_audio")
        self._take(network.dim_reduction_v, "x0_video")
        for index, layer in enumerate(network.convs):
            layer.register_forward_hook(self._layer(index))

    def _take(self, module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: self.outputs.update({name: output}))

    def _layer(self, index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor | None]) -> None:
            if index > 0:
                self.outputs[f"x{index}_audio"], self.outputs[f"x{index}_video"] = inputs[0], inputs[1]
            self.outputs[f"conv{index}_audio"], self.outputs[f"conv{index}_video"] = output[0], output[1]

        return hook


def graph_outputs(run: GraphPass, recorder: Recorder) -> Outputs:
    """What a run of the graph part gives, under the names of the cases."""
    width = run.audio.shape[2]
    outputs: Outputs = {
        **recorder.outputs,
        "final_audio": run.audio.flatten(0, 1), "final_video": run.video.flatten(0, 1),
        "gate_audio": run.audio_gate.flatten(), "gate_video": run.video_gate.flatten(),
        "att_audio": run.audio_attention.flatten(), "att_video": run.video_attention.flatten(),
        "embed_audio": run.hidden[:, :width], "embed_video": run.hidden[:, width:],
        "edges_audio": run.edges[0]["audio-audio"], "edges_video": run.edges[0]["video-video"],
    }  # fmt: skip
    for layer, alpha in run.alpha.items():
        outputs[f"match{layer}_edge_index"] = run.matches[layer]
        outputs[f"gat{layer}_edge_index"] = run.edges[layer]["video-audio"]
        outputs[f"gat{layer}_alpha"] = alpha
    return outputs


def graph_head(case: Case) -> Outputs:
    """Everything behind the backbones."""
    network = build_network(case, case.state_dict())
    recorder = Recorder(network)
    inputs = case.inputs()
    with torch.no_grad():
        run = network.reason(inputs["audio_feats"], inputs["video_feats"])
        logits = network.forward_head(run.hidden)
    outputs = {"audio_normed": inputs["audio_feats"], "video_normed": inputs["video_feats"]}
    return outputs | graph_outputs(run, recorder) | {"logits": logits}


def segment_shapes(network_config: HeteroGraphConfig, audio: Tensor, video: Tensor) -> np.ndarray:
    """Count and size of audio segments, then of video segments."""
    sound, picture = network_config.audio_segments(audio.shape[2]), network_config.video_segments(video.shape[2])
    return np.array([sound.count, sound.size, picture.count, picture.size])


def end_to_end(case: Case) -> Outputs:
    """The whole network on prepared tensors, and where a case asks for them its gradients."""
    network = build_network(case, case.state_dict())
    network.requires_grad_(False)
    recorder = Recorder(network)
    audio, video = media(case)
    shapes = segment_shapes(network.config, audio, video)
    clip, target = case.config.get("grad_clip"), case.config.get("grad_class")
    wanted = clip is not None and target is not None
    factors: dict[int, dict[str, Tensor]] = {}
    if wanted:
        audio.requires_grad_()
        video.requires_grad_()
        with torch.no_grad():
            sound = network.encode_audio(audio.mean(dim=1).unsqueeze(2))
            factors = network.reason(sound, network.encode_video(video)).unit_factors()
    with torch.set_grad_enabled(wanted):
        sound = network.encode_audio(audio.mean(dim=1).unsqueeze(2))
        picture = network.encode_video(video)
        run = network.reason(sound, picture, factors)
        logits = network.forward_head(run.hidden)
    outputs: Outputs = {"audio_normed": sound, "video_normed": picture}
    outputs |= graph_outputs(run, recorder)
    outputs |= {"audio_feats": sound, "video_feats": picture, "logits": logits, "segment_shapes": shapes}
    if wanted:
        short = {"audio-audio": "aa", "video-video": "vv", "video-audio": "va"}
        sources = {"grad_audio": audio, "grad_video": video}
        sources |= {f"gat{layer}_alpha_grad": alpha for layer, alpha in run.alpha.items()}
        sources |= {f"grad_mask{i}_{short[name]}": f for i, layer in factors.items() for name, f in layer.items()}
        gradients = torch.autograd.grad(logits[clip, target], list(sources.values()))
        outputs |= dict(zip(sources, gradients, strict=True))
    return outputs


def train_steps(case: Case) -> Outputs:
    """Iterations of the published trainer."""
    config, start = case.config, case.state_dict()
    network = build_network(case, {key: value.clone() for key, value in start.items()})
    network.train()
    training = config["TRAINING"]
    loop = PublishedLoop(network, PublishedSolver.model_validate(config["SOLVER"]))
    weights = torch.tensor(config["class_weight"])
    rows: dict[str, list[Any]] = {"loss": [], "lr": [], "grad_norms": [], "logits": [], "stepped": []}
    heads = ("video_head", "audio_head", "lin")
    groups = [next(p for name, p in network.named_parameters() if name.startswith(head)) for head in heads]
    for i, labels in enumerate(config["labels"]):
        audio, video = media(case, str(i))
        run = network.reason(network.encode_audio(audio.mean(dim=1).unsqueeze(2)), network.encode_video(video))
        logits = network.forward_head(run.hidden)
        loss = training_loss(logits, torch.tensor(labels), training, weights)
        if training.get("L2_REGULARIZATION", False):
            loss = loss + parameter_norms(network)
        rates = [
            next(g["lr"] for g in loop.optimizer.param_groups if any(p is one for p in g["params"])) for one in groups
        ]
        report = loop.step(loss)
        norms = [*report.norms, *report.clipped_norms]
        for name, value in (
            ("loss", loss.item()), ("lr", rates), ("grad_norms", norms),
            ("logits", logits.detach().numpy()), ("stepped", int(report.stepped)),
        ):  # fmt: skip
            rows[name].append(value)
    outputs: Outputs = {name: np.array(values) for name, values in rows.items()}
    end = network.state_dict()
    for key in end:
        outputs[f"after.{key}"] = end[key]
        if end[key].is_floating_point():
            outputs[f"delta.{key}"] = end[key] - start[key]
    return outputs


def predecessor(case: Case) -> Outputs:
    """The network on fixed features."""
    model, options = case.config["MODEL"], case.config["GRAPH"]
    graph = graph_options(options)
    shapes = case.spec["inputs"]
    config = FixedFeatureGraphConfig(
        n_classes=model["OUT_DIM"], hidden_channels=model["HIDDEN_CHANNELS"], n_layers=model["NUM_LAYERS"],
        n_audio_nodes=shapes["audio"][1], audio_features=shapes["audio"][2],
        n_video_nodes=shapes["video"][1], video_features=shapes["video"][2],
        between_span=options.get("SPAN_OVER_TIME_BETWEEN", 2), between_seed=case.spec["seed"],
        **{name: graph[name] for name in (
            "audio_span", "audio_dilation", "video_span", "video_dilation", "normalize", "self_loops", "fusion_layers",
        )},
    )  # fmt: skip
    with torch.device("meta"):
        network = FixedFeatureGraph(config)
    fill_network(network, case.state_dict(), case.path.name)
    network.eval()
    seen: Outputs = {}
    for index, layer in enumerate(network.convs):
        layer.register_forward_hook(
            lambda _m, inputs, _o, i=index: seen.update({f"x{i}_audio": inputs[0], f"x{i}_video": inputs[1]})
        )
    inputs = case.inputs()
    with torch.no_grad():
        run = network.reason(inputs["audio"], inputs["video"])
        logits = network.forward_head(run.hidden)
    edges = run.edges[0]
    return seen | {
        "logits": logits, "att_audio": run.audio_attention, "att_video": run.video_attention,
        "edges_audio": edges["audio-audio"], "edges_video": edges["video-video"], "edges_between": edges["video-audio"],
    }  # fmt: skip


_KINDS: dict[str, Callable[[Case], Outputs]] = {
    "graph_head": graph_head, "end_to_end": end_to_end, "train_steps": train_steps, "predecessor": predecessor,
} | PART_KINDS  # fmt: skip
_GREY_LEVEL = 0.0181


def tolerance(case: Case, name: str) -> float:
    """Of an output: exact for integers, the specification's for the training steps, else the standard."""
    reference = case.arrays[name]
    if not np.issubdtype(reference.dtype, np.floating):
        return 0.0
    if case.kind == "train_steps":
        largest = float(np.max(np.abs(reference))) if reference.size else 0.0
        return (2e-2 if name.startswith("delta.") else 1e-3) * largest
    return standard_tolerance(case, name)


def compare(case: Case, name: str, value: Tensor | np.ndarray | None) -> Comparison:
    """One output; in pictures up to one entry in a thousand may be one grey level off."""
    reference, limit = case.arrays[name], tolerance(case, name)
    if value is None:
        return Comparison(case.path.stem, name, float("inf"), limit, "not computed")
    error = largest_error(value, reference)
    note = ""
    if case.kind == "clip_loading" and name == "video_sub" and limit < error <= _GREY_LEVEL:
        off = int((np.abs(np.asarray(value, dtype=np.float64) - reference) > limit).sum())
        if off <= reference.size / 1000:
            note, limit = f"{off} of {reference.size} entries one grey level off", _GREY_LEVEL
    return Comparison(case.path.stem, name, error, limit, note)


def run(case: Case) -> list[Comparison]:
    """Compare every output that a case names."""
    kind = _KINDS.get(case.kind)
    if kind is None:
        raise ValueError(f"there is no case kind {case.kind!r}")
    outputs = kind(case)
    return [compare(case, name, outputs.get(name)) for name in case.spec["outputs"]]
