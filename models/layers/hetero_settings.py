"""Settings of the event-graph network, and where a published checkpoint hides them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor

from models.errors import CheckpointError
from models.layers.graph_edges import N_NEAREST, Distance, Spans
from models.layers.segments import Segmentation
from models.layers.wav2vec2_frontend import BASE_LAYERS
from models.network import NetworkConfig

# The classes of the published configuration, in the order of the logits.
AUDIOSET_33 = (
    "Aircraft", "Ambulance (siren)", "Bicycle", "Bird", "Boom", "Bus", "Camera", "Car", "Cash register", "Cat",
    "Cattle, bovinae", "Church bell", "Clock", "Dog", "Mechanical fan", "Fireworks", "Goat", "Gunshot, gunfire",
    "Hammer", "Horse", "Motorcycle", "Ocean", "Pant", "Pig", "Printer", "Rain", "Sawing", "Sewing machine",
    "Skateboard", "Stream", "Thunderstorm", "Train", "Truck",
)  # fmt: skip
# Of the key that the first graph layer has in every published checkpoint.
FIRST_CONV = "convs.0.convs.audio__audio-audio__audio."


class HeteroGraphConfig(NetworkConfig):
    """Settings of `HeteroGraph`; the defaults are the published ones.

    Attributes
    ----------
    hidden_channels, n_layers
        Width and number of graph layers.
    fusion_layers
        Layers in which sound and picture meet, counted from the end (-1: the last).
    n_audio_nodes, audio_segment_ms, n_video_nodes, video_segment_ms
        How a clip is cut. With the published numbers 14 ms between audio segments are never heard.
    sample_rate, frame_rate, clip_seconds
        Of the input.
    frame_size
        None: 112 x 112 pixels from the middle of the picture, as published; a number: the middle square of the
        picture, scaled to that side.
    motion_gain
        How much what differs from the clip's mean picture is amplified before it is looked at. Published: 0.
    still_picture
        Look at the picture as it is. Off: only at what differs from the clip's mean picture, so that a picture in which
        nothing moves says nothing, and links lead to the moments in which something does.
    audio_span, audio_dilation, video_span, video_dilation
        Neighbours in time on either side, and their distance, in nodes.
    dynamic
        Draw spans and dilations for every clip while training, up to those given; evaluation uses the largest (the
        published code draws there too).
    distance
        By which a video node finds its audio nodes.
    match_changes
        Compare nodes by how they differ from their clip's mean node. What stays the same all the time (a backdrop, a hum)
        says nothing about what belongs together when. Published: off.
    match_seconds
        Link what is at most this far apart in time (between middles), and beyond it only where there are too few such pairs: what
        is seen and heard of one event is so at one time. Published: None, the whole clip.
    n_nearest
        Sounds that every picture is linked to. Published: 3.
    normalize, residual, self_loops
        Layer norm before the graph, residual connections, edges from nodes to themselves.
    adjacency_dropout, graph_dropout
        While training: of edges within a modality, of node values after each layer.
    conv_layers, video_width
        Sizes of the audio and video backbones.
    freeze_audio, freeze_video
        Train the graph alone; a frozen backbone keeps its batch statistics.
    batch_independent
        Node statistics and self-loops within each clip: every clip gets exactly what the published model gives it in
        a batch of its own. Off: over the whole batch, also in evaluation (published quirk; the answer depends on the
        other clips).
    doubled_audio
        Published quirk: in layers without fusion the audio nodes' messages count twice (the next norm almost undoes
        it).
    """

    n_classes: int = 33
    hidden_channels: int = Field(default=512, ge=1)
    n_layers: int = Field(default=4, ge=1)
    fusion_layers: tuple[int, ...] = (-1,)
    n_audio_nodes: int = Field(default=30, ge=N_NEAREST)
    audio_segment_ms: float = Field(default=320.0, gt=0)
    n_video_nodes: int = Field(default=20, ge=N_NEAREST)
    video_segment_ms: float = Field(default=500.0, gt=0)
    sample_rate: int = 16000
    frame_rate: float = 20.0
    clip_seconds: float = 10.0
    frame_size: int | None = Field(default=None, ge=16)
    motion_gain: float = Field(default=0.0, ge=0.0)
    still_picture: bool = True
    audio_span: int = Field(default=2, ge=1)
    audio_dilation: int = Field(default=1, ge=1)
    video_span: int = Field(default=1, ge=1)
    video_dilation: int = Field(default=1, ge=1)
    dynamic: bool = False
    distance: Distance = "cosine"
    match_changes: bool = False
    match_seconds: float | None = Field(default=None, ge=0.0)
    n_nearest: int = Field(default=N_NEAREST, ge=1, le=N_NEAREST)
    normalize: bool = True
    residual: bool = True
    self_loops: bool = False
    adjacency_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    graph_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    conv_layers: tuple[tuple[int, int, int], ...] = Field(default=BASE_LAYERS, min_length=1)
    video_width: int = 64
    freeze_audio: bool = False
    freeze_video: bool = False
    batch_independent: bool = False
    doubled_audio: bool = True

    @property
    def fusing(self) -> frozenset[int]:
        """Indices of the fusion layers; as published, numbers that are not negative name no layer."""
        return frozenset(self.n_layers + f for f in self.fusion_layers if -self.n_layers <= f < 0)

    @property
    def spans(self) -> Spans:
        """The largest spans and dilations."""
        return Spans(self.audio_span, self.video_span, 2, self.video_dilation, self.audio_dilation)

    def audio_segments(self, n_samples: int) -> Segmentation:
        """Cutting of so many samples; see `Segmentation.of`."""
        return Segmentation.of(n_samples, self.n_audio_nodes, self.audio_segment_ms, self.sample_rate)

    def video_segments(self, n_frames: int) -> Segmentation:
        """Cutting of so many frames; see `Segmentation.of`."""
        return Segmentation.of(n_frames, self.n_video_nodes, self.video_segment_ms, self.frame_rate)


def infer_config(state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> HeteroGraphConfig:
    """The configuration of a published checkpoint; see `HeteroGraph.infer_config`.

    Raises
    ------
    CheckpointError
        If it was made by an early version of the published code, or lacks an entry.
    """
    if "video_head.stem.0.weight" not in state_dict:
        raise CheckpointError(
            "This checkpoint has no video backbone: it was made for features that another program computes.",
            "Only end-to-end checkpoints can listen to clips.",
        )
    if f"{FIRST_CONV}lin_l.weight" not in state_dict or "dim_reduction_a.weight" not in state_dict:
        raise CheckpointError(
            "This checkpoint was made by an early version of the event-graph code, whose network is another one.",
            "Use one trained with the code of October 2022 or later.",
        )
    depth = 1 + max(int(key.split(".")[1]) for key in state_dict if key.startswith("convs."))
    fusion = [i for i in range(depth) if f"convs.{i}.convs.video__video-audio__audio.bias" in state_dict]
    kernels: list[tuple[int, int, int]] = []
    while (weight := state_dict.get(f"audio_head.conv_layers.{len(kernels)}.conv.weight")) is not None:
        kernels.append((weight.shape[0], weight.shape[2], 5 if not kernels else 2))
    try:
        values: dict[str, Any] = {
            "n_classes": state_dict["lin.0.weight"].shape[0],
            "hidden_channels": state_dict["dim_reduction_a.weight"].shape[0],
            "n_layers": depth,
            "fusion_layers": tuple(i - depth for i in fusion),
            "n_audio_nodes": state_dict["pre_norm_audio.weight"].shape[0],
            "n_video_nodes": state_dict["pre_norm_video.weight"].shape[0],
            "conv_layers": tuple(kernels),
            "video_width": state_dict["video_head.stem.0.weight"].shape[0],
            "batch_independent": True,
        }
    except KeyError as error:
        raise CheckpointError(f"The checkpoint has no entry {error}, which an event-graph network needs.") from error
    return HeteroGraphConfig.model_validate(values | dict(hints))


def share_tied(state_dict: Mapping[str, Tensor], config: HeteroGraphConfig) -> dict[str, Tensor]:
    """Published entries in which both names of a tied parameter hold the value that counts."""
    result = dict(state_dict)
    for name in state_dict:
        for alias, canonical in (("att_w_audio.", "graph_read_out_audio.gate_nn."),
                                 ("att_w_video.", "graph_read_out_video.gate_nn.")):  # fmt: skip
            if name.startswith(canonical):
                result[name.replace(canonical, alias)] = state_dict[name]
    for layer in config.fusing:
        for leaf in ("lin_l.weight", "lin_l.bias", "lin_r.weight"):
            audio = f"convs.{layer}.convs.audio__audio-audio__audio.{leaf}"
            if audio in state_dict:
                result[f"convs.{layer}.convs.video__video-video__video.{leaf}"] = state_dict[audio]
    return result


def convert_backbone(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public weights of a backbone under this network's names, to start training from (load with ``strict=False``).

    Takes torchvision's R3D-18 (``r3d_18-b3b3357e.pth``, Kinetics-400) or torchaudio's wav2vec 2.0 base
    (``wav2vec2_fairseq_base_ls960.pth``), of which only the convolutional part is kept.

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    if "stem.0.weight" in state_dict and "layer4.1.conv2.0.weight" in state_dict:
        return {f"video_head.{key}": value for key, value in state_dict.items()}
    prefix = "feature_extractor.conv_layers."
    audio = {
        f"audio_head.conv_layers.{key.removeprefix(prefix)}": value
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    if not audio:
        raise CheckpointError(
            "This file holds neither R3D-18 nor wav2vec 2.0 weights.",
            "Use r3d_18-b3b3357e.pth (torchvision) or wav2vec2_fairseq_base_ls960.pth (torchaudio).",
        )
    return audio
