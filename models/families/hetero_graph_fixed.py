"""The predecessor of `HeteroGraph`, which reads features that another program computed.

It is not in the registry: its inputs (VGGish features of the sound, S3D features of the video) come from files, not
from a clip, so there is nothing that the workbench could play or explain. It is here to repeat published figures.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.errors import SettingsError
from models.layers.graph_edges import batched, between_edges, draw_between, intra_edges, matching_edges
from models.layers.graph_view import GraphPass
from models.layers.hetero_layers import (
    AttentionReadOut,
    BipartiteGATConv,
    GCNConv,
    HeteroConv,
    with_bipartite_loops,
)
from models.network import Network, NetworkConfig
from models.registry import FamilyInfo


class FixedFeatureGraphConfig(NetworkConfig):
    """Settings of `FixedFeatureGraph`; the defaults are the published ones.

    Attributes
    ----------
    n_audio_nodes, audio_features, n_video_nodes, video_features
        Size of the inputs.
    normalize
        Symmetric normalisation by degrees, and every clip's audio features scaled to length 1.
    self_loops
        Edges from nodes to themselves.
    fusion_layers
        Layers in which sound and picture meet, counted from the end. With none, as published, the video cannot change
        the prediction, because the read-out is of audio nodes only.
    between_span, between_seed
        Initial video-to-audio edges; their places are drawn from the seed.
    """

    n_classes: int = 33
    hidden_channels: int = 512
    n_layers: int = 4
    n_audio_nodes: int = 101
    audio_features: int = 128
    n_video_nodes: int = 40
    video_features: int = 1024
    audio_span: int = Field(default=6, ge=1)
    audio_dilation: int = Field(default=3, ge=1)
    video_span: int = Field(default=4, ge=1)
    video_dilation: int = Field(default=4, ge=1)
    between_span: int = Field(default=3, ge=1)
    between_seed: int = 1
    normalize: bool = False
    self_loops: bool = False
    fusion_layers: tuple[int, ...] = ()
    dropout: float = 0.1

    @property
    def fusing(self) -> frozenset[int]:
        """Indices of the fusion layers."""
        return frozenset(self.n_layers + f for f in self.fusion_layers if -self.n_layers <= f < 0)

    @model_validator(mode="after")
    def _first_layer_is_not_shared(self) -> FixedFeatureGraphConfig:
        if 0 in self.fusing and self.audio_features != self.video_features:
            raise ValueError("the first layer cannot fuse features of different sizes, because it shares weights")
        return self


class FixedFeatureGraph(Network):
    """Graph convolutions on fixed features; the hidden representation is the pooled audio nodes, ``[batch, H]``.

    Published quirks: audio messages count twice in layers without fusion; self-loops between modalities connect nodes
    by their index in the batch; at inference fusion layers use the initial edges rather than the nearest neighbours.
    """

    Config = FixedFeatureGraphConfig
    config: FixedFeatureGraphConfig
    info: ClassVar[FamilyInfo] = FamilyInfo(
        name="hetero_graph_fixed",
        title="HeteroGraph on fixed features",
        summary="Graph convolutions on VGGish and S3D features that were computed beforehand.",
        citation="Shirian, Somandepalli, Sanchez, Guha: Visually-aware Acoustic Event Detection using Heterogeneous "
        "Graphs. Interspeech 2022, arXiv 2207.07935",
        modalities=("audio features", "video features"),
        published_key="convs.0.convs.audio__audio-audio__audio.lin.weight",
    )

    def __init__(self, config: FixedFeatureGraphConfig) -> None:
        super().__init__(config)
        width = config.hidden_channels
        layers = []
        for index in range(config.n_layers):
            audio_in = config.audio_features if index == 0 else width
            video_in = config.video_features if index == 0 else width
            audio = GCNConv(audio_in, width, config.normalize, config.self_loops)
            if index in config.fusing:
                layers.append(HeteroConv(audio, audio, BipartiteGATConv(video_in, audio_in, width)))
            else:
                layers.append(HeteroConv(audio, GCNConv(video_in, width, config.normalize, config.self_loops)))
        self.convs = nn.ModuleList(layers)
        self.lin = nn.Sequential(nn.Linear(width, config.n_classes))
        self.att_w_audio = nn.Linear(width, 1, bias=False)
        self.graph_read_out_audio = AttentionReadOut(self.att_w_audio)
        self.att_w_video = nn.Linear(width, 1, bias=False)
        self.graph_read_out_video = AttentionReadOut(self.att_w_video)

    def edges(self, batch: int, device: torch.device) -> dict[str, Tensor]:
        """All edges of a batch, before any matching.

        Raises
        ------
        SettingsError
            If the neighbourhood is larger than the graph.
        """
        config = self.config
        n_audio, n_video = config.n_audio_nodes, config.n_video_nodes
        audio = intra_edges(n_audio, config.audio_span, config.audio_dilation, config.self_loops, clamp=False)
        video = intra_edges(n_video, config.video_span, config.video_dilation, config.self_loops, clamp=False)
        if min(audio.min(), video.min()) < 0:
            raise SettingsError("The spans and dilations reach beyond both ends of the clip.", "Make them smaller.")
        plan = draw_between(n_audio, n_video, np.random.RandomState(config.between_seed))
        between = between_edges(n_audio, n_video, config.between_span, plan)
        return {
            "audio-audio": batched(audio, batch, n_audio, n_audio, device),
            "video-video": batched(video, batch, n_video, n_video, device),
            "video-audio": batched(between, batch, n_video, n_audio, device),
        }

    def reason(self, audio: Tensor, video: Tensor) -> GraphPass:
        """The graph part, from features ``[batch, nodes, features]`` of both modalities."""
        config, batch = self.config, audio.shape[0]
        if config.normalize:
            audio = nn.functional.normalize(audio.flatten(1), dim=1).view_as(audio)
        edges = self.edges(batch, audio.device)
        x_audio, x_video = audio.flatten(0, 1), video.flatten(0, 1)
        used, alphas = [], {}
        for index, layer in enumerate(self.convs):
            own = edges
            if index in config.fusing:
                between = edges["video-audio"]
                if self.training:
                    shape = (batch, -1)
                    between, _ = matching_edges(x_audio.unflatten(0, shape), x_video.unflatten(0, shape), "euclidean")
                if config.self_loops:
                    between = with_bipartite_loops(between, x_video.shape[0], x_audio.shape[0], 1)
                own = edges | {"video-audio": between}
            used.append(own)
            x_audio, x_video, alpha = layer(x_audio, x_video, own, {})
            if alpha is not None:
                alphas[index] = alpha
            x_audio, x_video = self._update(x_audio, batch), self._update(x_video, batch)
        nodes_audio, nodes_video = x_audio.unflatten(0, (batch, -1)), x_video.unflatten(0, (batch, -1))
        pooled, audio_attention, audio_gate = self.graph_read_out_audio(nodes_audio)
        _, video_attention, video_gate = self.graph_read_out_video(nodes_video)
        return GraphPass(
            pooled,
            nodes_audio,
            nodes_video,
            audio_attention,
            video_attention,
            audio_gate,
            video_gate,
            used,
            alpha=alphas,
        )

    def _update(self, nodes: Tensor, batch: int) -> Tensor:
        """ReLU, dropout, and a norm over all of a clip's nodes and channels."""
        nodes = nn.functional.dropout(torch.relu(nodes), self.config.dropout, self.training)
        clips = nodes.unflatten(0, (batch, -1))
        return nn.functional.layer_norm(clips, clips.shape[1:]).flatten(0, 1)

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Pooled audio nodes of audio features ``[batch, Na, 128]``; `frames`: video features ``[batch, Nv, 1024]``.

        Raises
        ------
        SettingsError
            If there are no video features.
        """
        if frames is None:
            raise SettingsError("This network needs the video features beside the audio features.")
        return self.reason(features, frames).hidden

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, H]``."""
        return self.lin(hidden)
