"""HeteroGraph: a clip becomes a graph of short pieces of sound and of picture, and the graph is classified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.audio_visual import CROP, normalize_picture, read_frames
from models.errors import SettingsError
from models.event_graph import EventGraph
from models.frontends import FrontEndConfig
from models.frontends.waveform import WaveformConfig
from models.layers.graph_edges import draw_spans, edges_within, matching_edges, too_far
from models.layers.graph_view import GraphPass, event_graph
from models.layers.hetero_layers import (
    AttentionReadOut,
    BipartiteGATConv,
    HeteroConv,
    SAGEConv,
    normalize_nodes,
    with_bipartite_loops,
)
from models.layers.hetero_settings import FIRST_CONV, HeteroGraphConfig, infer_config, share_tied
from models.layers.r3d import R3D18
from models.layers.wav2vec2_frontend import Wav2Vec2FrontEnd
from models.network import CamLayer, Network, NetworkConfig
from models.registry import FamilyInfo, register_family
from models.video import VideoTrack

Factors = Mapping[int, Mapping[str, Tensor]]


@register_family(
    FamilyInfo(
        name="hetero_graph",
        title="HeteroGraph (audio-visual event graph)",
        summary="Pieces of sound and of picture become the nodes of a graph; attention over them gives the class.",
        citation="Shirian, Ahmadian, Somandepalli, Guha: Heterogeneous Graph Learning for Acoustic Event "
        "Classification. 2023, arXiv 2303.02665; Shirian, Somandepalli, Sanchez, Guha: Visually-aware Acoustic Event "
        "Detection using Heterogeneous Graphs. Interspeech 2022, arXiv 2207.07935",
        modalities=("audio", "video"),
        views=frozenset({"attribution", "time_attention", "graph"}),
        published_key="convs.0.convs.audio__audio-audio__audio.lin_l.weight and dim_reduction_a.weight",
    )
)
class HeteroGraph(Network):
    """The end-to-end network; the hidden representation is ``[batch, 2 H]``, both modalities' pooled nodes.

    It reads samples (``[batch, samples, 1]``, see the front end ``waveform``) and frames (see `read_frames`). Without
    frames the picture is mean grey. Frames that were encoded once by `encode_frames` may be given instead of the
    picture, which saves nearly all of the work while only the sound is varied; a batch of one serves any number of
    sounds.
    """

    Config = HeteroGraphConfig
    config: HeteroGraphConfig

    def __init__(self, config: HeteroGraphConfig) -> None:
        super().__init__(config)
        width = config.hidden_channels
        self.audio_head = Wav2Vec2FrontEnd(config.conv_layers)
        self.video_head = R3D18(config.video_width)
        audio_channels, video_channels = config.conv_layers[-1][0], self.video_head.channels
        layers = []
        for index in range(config.n_layers):
            audio, fusion = SAGEConv(width, width), None
            if index in config.fusing:
                fusion = BipartiteGATConv(width, width, width)
            video = audio if fusion is not None else SAGEConv(width, width)
            layers.append(HeteroConv(audio, video, fusion, config.doubled_audio))
        self.convs = nn.ModuleList(layers)
        self.pre_norm_audio = nn.LayerNorm([config.n_audio_nodes, audio_channels])
        self.pre_norm_video = nn.LayerNorm([config.n_video_nodes, video_channels])
        self.dim_reduction_a = nn.Linear(audio_channels, width)
        self.dim_reduction_v = nn.Linear(video_channels, width)
        self.lin = nn.Sequential(nn.Linear(2 * width, config.n_classes))
        self.att_w_audio = nn.Linear(width, 1, bias=False)
        self.graph_read_out_audio = AttentionReadOut(self.att_w_audio)
        self.att_w_video = nn.Linear(width, 1, bias=False)
        self.graph_read_out_video = AttentionReadOut(self.att_w_video)
        self.audio_head.requires_grad_(not config.freeze_audio)
        self.video_head.requires_grad_(not config.freeze_video)

    def train(self, mode: bool = True) -> HeteroGraph:
        """Training mode; a frozen video backbone keeps its batch statistics."""
        super().train(mode)
        if self.config.freeze_video:
            self.video_head.eval()
        return self

    # --- from media to nodes ---------------------------------------------------------------------------------------

    def read_frames(self, video: VideoTrack | None, start: float = 0.0, seconds: float | None = None) -> Tensor:
        """The frames that this network reads from `start` on, ``[1, n_frames, 3, side, side]`` in 0..1: a whole window.

        What lies beyond the video, or after `seconds`, is mean grey.
        """
        length = self.config.clip_seconds
        if video is not None and (start > 0 or seconds is not None):
            video = video.excerpt(start, start + min(length, seconds or length))
        return read_frames(video, length, self.config.frame_rate, self.config.frame_size).unsqueeze(0)

    def encode_audio(self, features: Tensor) -> Tensor:
        """Audio nodes ``[batch, n_audio_nodes, C]`` of samples ``[batch, samples, 1]``.

        Raises
        ------
        SettingsError
            If the clip does not cut into the model's number of nodes.
        """
        segments = self.config.audio_segments(features.shape[1])
        segments.check(self.config.n_audio_nodes, "audio")
        pieces = segments.cut(features.squeeze(2), 1)
        return self.audio_head(pieces.flatten(0, 1)).mean(dim=1).unflatten(0, (-1, segments.count))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Video nodes ``[batch, n_video_nodes, C]`` of frames ``[batch, n_frames, 3, height, width]`` in 0..1.

        Raises
        ------
        SettingsError
            If the clip does not cut into the model's number of nodes.
        """
        video = normalize_picture(frames)
        changes = video - video.mean(dim=1, keepdim=True)
        if not self.config.still_picture:
            video = (1.0 + self.config.motion_gain) * changes
        elif self.config.motion_gain > 0:
            video = video + self.config.motion_gain * changes
        return self.encode_video(video.transpose(1, 2))

    def encode_video(self, video: Tensor) -> Tensor:
        """The same of a normalised video ``[batch, 3, n_frames, height, width]``."""
        segments = self.config.video_segments(video.shape[2])
        segments.check(self.config.n_video_nodes, "video")
        pieces = segments.cut(video, 2).permute(0, 2, 1, 5, 3, 4).flatten(0, 1)
        # Colours last: on a CPU the convolutions then take half the time.
        pieces = pieces.contiguous(memory_format=torch.channels_last_3d)
        return self.video_head.features(pieces).unflatten(0, (-1, segments.count))

    def video_nodes(self, frames: Tensor | None, batch: int = 1) -> Tensor:
        """Video nodes ``[batch, n_video_nodes, C]`` of frames, of frames encoded already, or of no picture (grey)."""
        if frames is None:
            # All segments of a grey picture are alike: one is enough.
            side = self.config.frame_size or CROP
            size = int(self.config.video_segment_ms * int(self.config.frame_rate) * 0.001)
            grey = self.dim_reduction_v.weight.new_zeros(1, 3, size, side, side)
            nodes = self.video_head.features(grey).unsqueeze(0).expand(1, self.config.n_video_nodes, -1)
        else:
            nodes = frames if frames.ndim == 3 else self.encode_frames(frames)
        if nodes.shape[0] != batch:
            if nodes.shape[0] != 1:
                raise SettingsError(
                    f"{nodes.shape[0]} videos were given for {batch} sounds.", "Give one for each, or one for all."
                )
            nodes = nodes.expand(batch, -1, -1)
        return nodes

    # --- the graph -------------------------------------------------------------------------------------------------

    def intra_edges(self, batch: int, device: torch.device) -> dict[str, Tensor]:
        """Edges within each modality for a batch; drawn anew for every clip if the graph is dynamic and trains."""
        config = self.config
        spans = [config.spans]
        if config.dynamic and self.training:
            # Seeded from torch's generator: workers that share numpy's seed would draw the same graphs.
            generator = np.random.RandomState(int(torch.randint(2**31, (1,))))
            spans = [draw_spans(config.spans, generator) for _ in range(batch)]
        return edges_within(spans, (config.n_audio_nodes, config.n_video_nodes), batch, config.self_loops, device)

    def reason(
        self,
        audio: Tensor,
        video: Tensor,
        factors: Factors | None = None,
        edges: dict[str, Tensor] | None = None,
        matched: Mapping[int, Tensor] | None = None,
    ) -> GraphPass:
        """The graph part, from nodes ``[batch, n_nodes, C]`` of both modalities to the pooled representation.

        Parameters
        ----------
        factors
            By layer and relation, ``[n_edges]``: what every message is multiplied by, after the attention's softmax and
            without changing an average's denominator. The gradient at 1 is the edge's importance.
        edges
            Edges within the modalities; default `intra_edges`.
        matched
            Edges from video to audio of fusion layers, which are used instead of the nearest, by layer, ``[2, n_edges]``
            with batch-wide indices. It holds a graph still while its messages are varied.
        """
        config, batch = self.config, audio.shape[0]
        factors = factors or {}
        edges = edges or self.intra_edges(batch, audio.device)
        if self.training and config.adjacency_dropout > 0:
            rate = config.adjacency_dropout
            edges = {name: e[:, torch.rand(e.shape[1], device=e.device) >= rate] for name, e in edges.items()}
        if config.normalize:
            audio, video = self.pre_norm_audio(audio), self.pre_norm_video(video)
        x_audio, x_video = self.dim_reduction_a(audio).flatten(0, 1), self.dim_reduction_v(video).flatten(0, 1)
        n_audio, n_video = config.n_audio_nodes, config.n_video_nodes
        used: list[dict[str, Tensor]] = []
        matches, distances, alphas, meeting = {}, {}, {}, {}
        for index, layer in enumerate(self.convs):
            if index in config.fusing:
                heard, seen = x_audio.unflatten(0, (batch, n_audio)), x_video.unflatten(0, (batch, n_video))
                if config.match_changes:
                    heard, seen = heard - heard.mean(dim=1, keepdim=True), seen - seen.mean(dim=1, keepdim=True)
                meeting[index] = heard, seen
                nearest, distances[index] = matching_edges(
                    *meeting[index], config.distance, config.n_nearest, self._apart(audio.device)
                )
                matches[index] = nearest
                if config.self_loops:
                    parts = batch if config.batch_independent else 1
                    nearest = with_bipartite_loops(nearest, batch * n_video, batch * n_audio, parts)
                nearest = nearest if matched is None else matched.get(index, nearest)
                edges = edges | {"video-audio": nearest}
            used.append(edges)
            new_audio, new_video, alpha = layer(x_audio, x_video, edges, factors.get(index, {}))
            if alpha is not None:
                alphas[index] = alpha
            x_audio, x_video = self._update(new_audio, x_audio, batch), self._update(new_video, x_video, batch)
        nodes_audio, nodes_video = x_audio.unflatten(0, (batch, -1)), x_video.unflatten(0, (batch, -1))
        pooled_audio, audio_attention, audio_gate = self.graph_read_out_audio(nodes_audio)
        pooled_video, video_attention, video_gate = self.graph_read_out_video(nodes_video)
        return GraphPass(
            torch.cat([pooled_audio, pooled_video], dim=1), nodes_audio, nodes_video, audio_attention, video_attention,
            audio_gate, video_gate, used, matches, distances, alphas, meeting,
        )  # fmt: skip

    def _apart(self, device: torch.device) -> Tensor | None:
        """By how much pairs of sound and picture are too far apart in time to be linked, ``[n_audio, n_video]``."""
        config = self.config
        if config.match_seconds is None:
            return None
        heard = config.audio_segments(int(config.clip_seconds * config.sample_rate))
        seen = config.video_segments(int(config.clip_seconds * config.frame_rate))
        return torch.from_numpy(too_far(heard, seen, config.match_seconds)).float().to(device)

    def _update(self, new: Tensor, old: Tensor, batch: int) -> Tensor:
        """Norm without parameters, SiLU, dropout and the residual connection."""
        new = nn.functional.silu(normalize_nodes(new, batch, self.config.batch_independent))
        new = nn.functional.dropout(new, self.config.graph_dropout, self.training)
        return new + old if self.config.residual else new

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Pooled nodes ``[batch, 2 H]``; `frames` may be encoded already (``[batch or 1, n_video_nodes, C]``)."""
        return self.reason(self.encode_audio(features), self.video_nodes(frames, features.shape[0])).hidden

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, 2 H]``."""
        return self.lin(hidden)

    @property
    def _output_weight(self) -> Tensor:
        return self.lin.get_parameter("0.weight")

    # --- what it can show ------------------------------------------------------------------------------------------

    def graph(self, features: Tensor, frames: Tensor | None = None, target: int | None = None) -> EventGraph:
        """The event graph of one clip.

        Parameters
        ----------
        features, frames
            As for `forward_features`, a batch of one.
        target
            Class that contributions and edge importances are for; without one they are left out. The importance of an
            edge is d logit / d factor of its messages at 1, for every layer: to first order what the logit loses
            without them.

        Raises
        ------
        SettingsError
            If there is more than one clip, or no such class.
        """
        if features.shape[0] != 1:
            raise SettingsError("An event graph is drawn for one clip at a time.", "Give one clip.")
        if target is not None and not 0 <= target < self.config.n_classes:
            raise SettingsError(f"The model has no class number {target}; it has {self.config.n_classes}.")
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                audio, video = self.encode_audio(features), self.video_nodes(frames, 1)
            n_frames = frames.shape[1] if frames is not None and frames.ndim == 5 else None
            return self.graph_of_nodes(audio, video, target, features.shape[1], n_frames)
        finally:
            self.train(was_training)

    def graph_of_nodes(
        self,
        audio: Tensor,
        video: Tensor,
        target: int | None = None,
        n_samples: int | None = None,
        n_frames: int | None = None,
    ) -> EventGraph:
        """The event graph of nodes that are encoded already, a batch of one ``[1, n_nodes, C]``; in evaluation mode.

        `n_samples` and `n_frames` are what they were cut from; default: a whole clip.
        """
        config = self.config
        with torch.no_grad():
            run = self.reason(audio, video)
            logits = self.forward_head(run.hidden)
        importance = None if target is None else self._edge_importance(audio, video, run, target)
        segments = (
            config.audio_segments(n_samples or int(config.clip_seconds * config.sample_rate)),
            config.video_segments(n_frames or int(config.clip_seconds * config.frame_rate)),
        )
        readers = None if target is None else self._output_weight[target].detach()
        return event_graph(run, logits[0], segments, target, readers, importance)

    @torch.enable_grad()
    def _edge_importance(self, audio: Tensor, video: Tensor, run: GraphPass, target: int) -> list[dict[str, Tensor]]:
        factors = run.unit_factors()
        logit = self.forward_head(self.reason(audio, video, factors).hidden)[0, target]
        flat = [factor for layer in factors.values() for factor in layer.values()]
        gradients = iter(torch.autograd.grad(logit, flat))
        return [{name: next(gradients) for name in layer} for layer in factors.values()]

    @torch.no_grad()
    def time_attention(self, features: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What every audio node adds to every logit, ``[batch, n_classes, n_audio_nodes]``, and its middle in samples.

        Read-out attention times the node's own score. The video nodes' part and the output's bias make up the rest.
        """
        run = self.reason(self.encode_audio(features), self.video_nodes(frames, features.shape[0]))
        scores = run.audio @ self._output_weight[:, : self.config.hidden_channels].T
        segments = self.config.audio_segments(features.shape[1])
        centers = torch.arange(segments.count, device=features.device) * float(segments.step) + (segments.size - 1) / 2
        return (run.audio_attention.unsqueeze(2) * scores).transpose(1, 2), centers

    def cam_layers(self) -> list[CamLayer]:
        """The audio backbone's last block; its steps are put in order of time, one row, every 20 ms."""
        segments = self.config.audio_segments(int(self.config.clip_seconds * self.config.sample_rate))
        hop, center = self.audio_head.hop_length, (self.audio_head.receptive_field - 1) / 2

        def to_map(activation: Tensor) -> Tensor:
            count, steps = segments.count, activation.shape[2]
            in_order = activation.unflatten(0, (-1, count)).transpose(1, 2).flatten(2)
            times = (np.arange(count)[:, None] * segments.step + np.arange(steps) * hop).reshape(-1)
            columns = np.arange((times[-1] // hop) + 1) * hop
            # Segments leave holes or overlap, so each column of the regular grid takes the nearest step.
            nearest = np.abs(columns[:, None] - times).argmin(axis=1)
            return in_order[:, :, torch.as_tensor(nearest, device=activation.device)].unsqueeze(3)

        last = self.audio_head.conv_layers[-1]
        return [CamLayer("audio backbone", last, to_map, center, float(hop), 0.0, 1.0)]

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """Samples of a whole clip; shorter ones are followed by silence."""
        assert isinstance(config, HeteroGraphConfig)
        return WaveformConfig(
            sample_rate=config.sample_rate, target_length=int(config.clip_seconds * config.sample_rate)
        )

    # --- published checkpoints -------------------------------------------------------------------------------------

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the names of its graph layers."""
        return "lin.0.weight" in state_dict and any(key.startswith(FIRST_CONV) for key in state_dict)

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> HeteroGraphConfig:
        """Sizes from shapes; segment lengths, spans, distance and switches from `hints`, else as published.

        The configuration is batch-independent: a clip gets what the published model says about it alone.
        """
        return infer_config(state_dict, hints)

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Give entries that name one tensor twice the same value."""
        assert isinstance(config, HeteroGraphConfig)
        return share_tied(state_dict, config)
