"""Which nodes of an audio-visual event graph are linked.

Edge lists are int64 ``[2, n_edges]``: row 0 sends, row 1 receives. Columns may repeat; a repeated edge counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.layers.segments import Segmentation

Distance = Literal["cosine", "euclidean"]
N_NEAREST = 3
_FAR = 1e6  # distance of pairs a second too far apart in time; similar ones are within 2


@dataclass(frozen=True)
class Spans:
    """How far edges reach within a modality and initially between them, in nodes."""

    audio: int = 2
    video: int = 1
    between: int = 2
    video_dilation: int = 1
    audio_dilation: int = 1


@lru_cache(maxsize=64)
def _intra_columns(
    n_nodes: int, span: int, dilation: int, self_loops: bool, clamp: bool
) -> tuple[tuple[int, int], ...]:
    columns = []
    for target in range(n_nodes):
        sources = [target + step * dilation for step in range(-span, span + 1)]
        while sources[0] < 0:
            sources = [*sources[1:], sources[-1] + dilation]
        while sources[-1] >= n_nodes:
            front = sources[0] - dilation
            sources = [max(0, front) if clamp else front, *sources[:-1]]
        if not self_loops and target in sources:
            sources.remove(target)
        columns += [(source, target) for source in sources]
    return tuple(columns)


def intra_edges(
    n_nodes: int, span: int, dilation: int = 1, self_loops: bool = False, *, clamp: bool = True
) -> np.ndarray:
    """Edges from the neighbours in time to every node of one modality.

    Inside, a node hears `span` neighbours on either side at multiples of `dilation`; at the borders the neighbourhood
    slides inwards, so that every node hears equally many and the relation is not symmetric there. `clamp` keeps
    sources from becoming negative where the graph is smaller than the neighbourhood; they become repeated edges from
    node 0.
    """
    return np.array(_intra_columns(n_nodes, span, dilation, self_loops, clamp), dtype=np.int64).reshape(-1, 2).T


def edges_within(
    spans: Sequence[Spans], nodes: tuple[int, int], batch: int, self_loops: bool, device: torch.device
) -> dict[str, Tensor]:
    """Edges within sound and within picture for a batch of clips with so many `nodes` each.

    `spans` are one for all clips, or one for each of them.
    """
    result = {}
    for name, n_nodes in zip(("audio", "video"), nodes, strict=True):
        parts = []
        for clip, span in enumerate(spans):
            edges = intra_edges(n_nodes, getattr(span, name), getattr(span, f"{name}_dilation"), self_loops)
            copies = batch if len(spans) == 1 else 1
            parts.append(batched(edges, copies, n_nodes, n_nodes, device) + clip * n_nodes)
        result[f"{name}-{name}"] = torch.cat(parts, dim=1)
    return result


def draw_spans(largest: Spans, generator: np.random.RandomState) -> Spans:
    """Random spans and dilations, each uniform on 1..largest: the published way to vary graphs.

    The order of the draws is the published one, so that the same seed of the legacy generator gives the same graphs.
    """

    def draw(maximum: int) -> int:
        return int(generator.randint(1, maximum + 1))

    return Spans(
        audio=draw(largest.audio),
        video=draw(largest.video),
        between=draw(largest.between),
        video_dilation=draw(largest.video_dilation),
        audio_dilation=draw(largest.audio_dilation),
    )


class BetweenPlan(NamedTuple):
    """Where the initial edges of every video node start; random once per data set."""

    hop_length: int
    residual: int
    hops: np.ndarray


def draw_between(n_audio: int, n_video: int, generator: np.random.RandomState) -> BetweenPlan:
    """Draw the positions of the initial video-to-audio edges, in the published order."""
    hop = int(generator.randint(math.ceil(n_audio / n_video)))
    residual = max(int(n_audio - (n_video - 1) * hop) - 2, 0)
    fewest, most = math.floor(residual / n_video), math.ceil(residual / n_video)
    hops = generator.randint(fewest, most + 1, n_video).astype(np.int64)
    hops[0] = 0
    left = int(residual - hops.sum())
    if left > 0:
        # More than one extra hop for a node is possible here only if left > n_video, where the published code fails.
        extra = np.array([1] * min(left, n_video) + [0] * max(n_video - left, 0))
        generator.shuffle(extra)
        hops = hops + extra
    return BetweenPlan(hop, residual, hops)


def between_edges(n_audio: int, n_video: int, span: int, plan: BetweenPlan) -> np.ndarray:
    """Initial video-to-audio edges: every video node to `span` audio nodes of about its own time."""
    columns = []
    shift = 0
    for node in range(n_video):
        shift = min(shift + int(plan.hops[node]), plan.residual)
        start = min(shift + node * plan.hop_length, n_audio - 1)
        columns += [(node, audio) for audio in range(start, min(start + span, n_audio))]
    return np.array(columns, dtype=np.int64).reshape(-1, 2).T


def batched(edges: np.ndarray, batch: int, n_sources: int, n_targets: int, device: torch.device) -> Tensor:
    """The disjoint union of the same graph for every clip of a batch, clip after clip."""
    one = torch.tensor(edges, device=device)
    per_clip = torch.tensor([n_sources, n_targets], device=device)[:, None, None]
    shift = torch.arange(batch, device=device)[:, None] * per_clip
    return (one[:, None, :] + shift).reshape(2, -1)


def node_distances(audio: Tensor, video: Tensor, distance: Distance) -> Tensor:
    """Distance of every audio to every video node of the same clip, ``[batch, n_audio, n_video]``.

    `audio` and `video` are ``[batch, nodes, width]``. ``cosine`` is 1 - similarity, ``euclidean`` the squared distance.
    """
    audio, video = audio.float(), video.float()
    product = audio @ video.transpose(1, 2)
    if distance == "cosine":
        norms = audio.norm(dim=2)[:, :, None] * video.norm(dim=2)[:, None, :]
        return 1.0 - product / norms.clamp(min=1e-8)
    squares = audio.square().sum(dim=2)[:, :, None] + video.square().sum(dim=2)[:, None, :]
    return (squares - 2.0 * product).clamp(min=0.0)


def too_far(heard: Segmentation, seen: Segmentation, seconds: float) -> np.ndarray:
    """What `matching_edges` adds to the distance of pairs whose middles are more than so many seconds apart.

    float64 ``[n_audio, n_video]``, 0 for all others; so large that those are always preferred.
    """
    middle, other = ((one.starts + one.ends) / 2 for one in (heard, seen))
    return _FAR * np.maximum(np.abs(middle[:, None] - other) - seconds - 1e-6, 0.0)


@torch.no_grad()
def matching_edges(
    audio: Tensor, video: Tensor, distance: Distance, k: int = N_NEAREST, apart: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Edges from every video node to the `k` most similar audio nodes of its clip, nearest first, and the distances.

    `apart` ``[n_audio, n_video]`` is added to the distances for the choice: how much a pair is not to be linked.

    Column ``k * v + r`` is the r-th nearest of video node v. The choice has no gradient. Distances are float32
    whatever the surrounding precision, because rounding swaps neighbours that are nearly tied.

    Returns
    -------
    tuple
        Edges ``[2, k * batch * n_video]`` in batch-wide indices, and `node_distances`.
    """
    with torch.autocast(audio.device.type, enabled=False):
        distances = node_distances(audio, video, distance)
    batch, n_audio, n_video = distances.shape
    ranked = distances if apart is None else distances + apart
    nearest = ranked.transpose(1, 2).topk(k, dim=2, largest=False, sorted=True).indices
    clip = torch.arange(batch, device=audio.device)[:, None, None]
    receivers = (nearest + clip * n_audio).reshape(-1)
    senders = torch.arange(batch * n_video, device=audio.device).repeat_interleave(k)
    return torch.stack([senders, receivers]), distances
