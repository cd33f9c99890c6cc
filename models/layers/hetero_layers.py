"""Graph layers on audio and video nodes: neighbourhood averaging within a modality, attention between them.

Hamilton, Ying, Leskovec: Inductive Representation Learning on Large Graphs. NeurIPS 2017 (GraphSAGE).
Velickovic et al.: Graph Attention Networks. ICLR 2018, arXiv 1710.10903.
Written out rather than taken from PyTorch Geometric because every message can be multiplied by a factor: the gradient
with respect to that factor (at 1) is the importance of the edge, to first order the loss of logit without its
message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Names of the relations' modules in published checkpoints.
VIDEO_VIDEO = "video__video-video__video"
AUDIO_AUDIO = "audio__audio-audio__audio"
VIDEO_AUDIO = "video__video-audio__audio"


def _weighted(messages: Tensor, factor: Tensor | None) -> Tensor:
    return messages if factor is None else messages * factor.unsqueeze(1)


def _sum_at(messages: Tensor, targets: Tensor, n_targets: int) -> Tensor:
    return messages.new_zeros(n_targets, *messages.shape[1:]).index_add(0, targets, messages)


class SAGEConv(nn.Module):
    """``out_i = W_l mean(x_source over edges into i) + b_l + W_r x_i``; the mean is 0 for a node without edges."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(channels_in, channels)
        self.lin_r = nn.Linear(channels_in, channels, bias=False)

    def forward(self, x: Tensor, edges: Tensor, factor: Tensor | None = None) -> Tensor:
        """Nodes ``[N, channels_in]`` to ``[N, channels]``; the mean's divisor does not know `factor` ``[n_edges]``."""
        sources, targets = edges
        total = _sum_at(_weighted(x[sources], factor), targets, x.shape[0])
        degree = torch.bincount(targets, minlength=x.shape[0]).clamp(min=1)
        return self.lin_l(total / degree.unsqueeze(1)) + self.lin_r(x)


class GCNConv(nn.Module):
    """``out_i = sum_e w_e W x_source + b`` with ``w_e = 1``, or with the symmetric normalisation by degrees.

    Kipf, Welling: Semi-Supervised Classification with Graph Convolutional Networks. ICLR 2017.
    """

    def __init__(self, channels_in: int, channels: int, normalize: bool, self_loops: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(channels_in, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.normalize = normalize
        self.self_loops = self_loops
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(self, x: Tensor, edges: Tensor, factor: Tensor | None = None) -> Tensor:
        """Nodes ``[N, channels_in]`` to ``[N, channels]``; loops that are added have no `factor`."""
        n_nodes = x.shape[0]
        weight = torch.ones(edges.shape[1], device=x.device) if factor is None else factor
        if self.normalize:
            if self.self_loops:
                others = edges[0] != edges[1]
                loops = torch.arange(n_nodes, device=x.device)
                edges = torch.cat([edges[:, others], torch.stack([loops, loops])], dim=1)
                weight = torch.cat([weight[others], torch.ones(n_nodes, device=x.device)])
            degree = torch.bincount(edges[1], minlength=n_nodes)
            scale = torch.where(degree > 0, degree.clamp(min=1).float().rsqrt(), 0.0)
            weight = weight * scale[edges[0]] * scale[edges[1]]
        messages = self.lin(x)[edges[0]] * weight.unsqueeze(1)
        return _sum_at(messages, edges[1], n_nodes) + self.bias


class Attended(NamedTuple):
    """What attention over edges gives.

    Attributes
    ----------
    out
        ``[n_targets, channels]``.
    edges
        The edges that were used, ``[2, n_edges]``: with self-loops not those that were given.
    alpha
        Attention of every edge, ``[n_edges, 1]``, sums to 1 over the edges into a node.
    """

    out: Tensor
    edges: Tensor
    alpha: Tensor


class BipartiteGATConv(nn.Module):
    """One-head graph attention from source nodes to target nodes of another kind.

    ``score = LeakyReLU_0.2(<att_src, W_src x_s> + <att_dst, W_dst x_t>)``, ``out_t = sum softmax(score) W_src x_s +
    b``.
    """

    def __init__(self, sources_in: int, targets_in: int, channels: int) -> None:
        super().__init__()
        self.att_src = nn.Parameter(torch.empty(1, 1, channels))
        self.att_dst = nn.Parameter(torch.empty(1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.lin_src = nn.Linear(sources_in, channels, bias=False)
        self.lin_dst = nn.Linear(targets_in, channels, bias=False)
        for weight in (self.att_src, self.att_dst, self.lin_src.weight, self.lin_dst.weight):
            nn.init.xavier_uniform_(weight)

    def forward(self, x_source: Tensor, x_target: Tensor, edges: Tensor, factor: Tensor | None = None) -> Attended:
        """``[n_sources, sources_in]`` and ``[n_targets, targets_in]`` to ``[n_targets, channels]``."""
        sources, targets = edges
        n_targets = x_target.shape[0]
        source = self.lin_src(x_source)
        score_source = (source * self.att_src[0]).sum(dim=1)
        score_target = (self.lin_dst(x_target) * self.att_dst[0]).sum(dim=1)
        score = nn.functional.leaky_relu(score_source[sources] + score_target[targets], 0.2)
        largest = score.new_full((n_targets,), -torch.inf).scatter_reduce(0, targets, score.detach(), "amax")
        exponential = (score - largest[targets]).exp()
        alpha = exponential / (_sum_at(exponential, targets, n_targets)[targets] + 1e-16)
        alpha = alpha.unsqueeze(1)
        messages = _weighted(alpha * source[sources], factor)
        return Attended(_sum_at(messages, targets, n_targets) + self.bias, edges, alpha)


def with_bipartite_loops(edges: Tensor, n_video: int, n_audio: int, batch: int) -> Tensor:
    """The published self-loops between different kinds of nodes: edges j -> j go, then one j -> j is added for every j.

    Indices count within each of `batch` equal parts; with ``batch=1`` for several clips at once they connect nodes of
    different clips, as published.
    """
    per_video, per_audio = n_video // batch, n_audio // batch
    kept = edges[:, edges[0] % per_video != edges[1] % per_audio] if batch > 1 else edges[:, edges[0] != edges[1]]
    loop = torch.arange(min(per_video, per_audio), device=edges.device)
    clip = torch.arange(batch, device=edges.device)[:, None]
    loops = torch.stack([(loop + clip * per_video).reshape(-1), (loop + clip * per_audio).reshape(-1)])
    return torch.cat([kept, loops], dim=1)


class HeteroConv(nn.Module):
    """One graph layer's messages: averages within each modality, and in fusion layers attention from video to audio.

    Parameters
    ----------
    audio, video
        Convolutions within the modalities. A fusion layer is given the same one twice, which therefore has two names
        in a checkpoint.
    fusion
        Attention from video to audio nodes, if this is a fusion layer.
    doubled_audio
        Published quirk: without fusion the audio messages are added a second time, in the place where a fusion layer
        adds the attention's.
    """

    def __init__(
        self, audio: nn.Module, video: nn.Module, fusion: BipartiteGATConv | None = None, doubled_audio: bool = True
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({VIDEO_VIDEO: video, AUDIO_AUDIO: audio})
        if fusion is not None:
            self.convs[VIDEO_AUDIO] = fusion
        self.fusion = fusion is not None
        self.doubled_audio = doubled_audio

    def forward(
        self, audio: Tensor, video: Tensor, edges: Mapping[str, Tensor], factors: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """New audio and video nodes ``[nodes, H]``, and the attention of the video-audio edges ``[n_edges, 1]``."""
        new_video = self.convs[VIDEO_VIDEO](video, edges["video-video"], factors.get("video-video"))
        new_audio = self.convs[AUDIO_AUDIO](audio, edges["audio-audio"], factors.get("audio-audio"))
        if self.fusion:
            attended = self.convs[VIDEO_AUDIO](video, audio, edges["video-audio"], factors.get("video-audio"))
            return new_audio + attended.out, new_video, attended.alpha
        return (2.0 * new_audio if self.doubled_audio else new_audio), new_video, None


class AttentionReadOut(nn.Module):
    """Mean of a clip's nodes, weighted by the softmax of a learned gate.

    Parameters
    ----------
    gate_nn
        Linear map of a node to its gate, shared with the network that keeps it under a second name.
    """

    def __init__(self, gate_nn: nn.Linear) -> None:
        super().__init__()
        self.gate_nn = gate_nn

    def forward(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[batch, nodes, channels]`` to pooled ``[batch, channels]``, attention and gates ``[batch, nodes]``."""
        gate = self.gate_nn(nodes).squeeze(2)
        attention = gate.softmax(dim=1)
        return (attention.unsqueeze(2) * nodes).sum(dim=1), attention, gate


def normalize_nodes(x: Tensor, batch: int, per_clip: bool, eps: float = 1e-5) -> Tensor:
    """Every channel of ``[batch * nodes, channels]`` to mean 0 and variance 1, without parameters.

    Over all nodes of the batch (published: also in evaluation mode), or over those of each clip alone.
    """
    groups = x.unflatten(0, (batch, -1)) if per_clip else x.unsqueeze(0)
    variance, mean = torch.var_mean(groups, dim=1, correction=0, keepdim=True)
    return ((groups - mean) * torch.rsqrt(variance + eps)).reshape(x.shape)
