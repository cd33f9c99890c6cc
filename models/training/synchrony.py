"""Teaching an event graph what belongs together: what is seen and what is heard at the same time.

The published network links pictures to the sounds that resemble them, but nothing in its training makes them resemble each
other: the choice of the nearest has no gradient. Here each node has to recognise its contemporaries among the nodes of the
other modality, as in Korbar, Tran, Torresani: Cooperative Learning of Audio and Video Models from Self-Supervised
Synchronization. NeurIPS 2018, arXiv 1807.00230; with the contrastive loss of van den Oord, Li, Vinyals: Representation
Learning with Contrastive Predictive Coding. 2018, arXiv 1807.03748.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.layers.graph_view import GraphPass
from models.layers.hetero_settings import HeteroGraphConfig

_TEMPERATURE = 0.2
_SAME = 1e-6  # spread below which all nodes of a modality are alike: silence, or a grey picture


def overlap(config: HeteroGraphConfig) -> Tensor:
    """Seconds that every audio node shares with every video node, ``[n_audio_nodes, n_video_nodes]``."""
    audio = config.audio_segments(int(config.clip_seconds * config.sample_rate))
    video = config.video_segments(int(config.clip_seconds * config.frame_rate))
    start = np.maximum(audio.starts[:, None], video.starts)
    end = np.minimum(audio.ends[:, None], video.ends)
    return torch.from_numpy(np.maximum(end - start, 0.0)).float()


def synchrony_loss(run: GraphPass, config: HeteroGraphConfig, temperature: float = _TEMPERATURE) -> Tensor:
    """Mean over fusion layers and nodes of the cross entropy of a node's contemporaries of its own clip.

    The softmax is over the other modality's nodes of all clips of the batch, of their cosine similarity divided by
    `temperature`; both ways. Other times of a clip teach what moves together, other clips what belongs together at all.
    Clips without sound or picture (all nodes of a modality alike) do not count; 0 if none is left.
    """
    shared = overlap(config).to(run.hidden.device)
    parts = []
    for audio, video in run.meeting.values():
        told_apart = (audio.var(dim=1).mean(dim=1) > _SAME) & (video.var(dim=1).mean(dim=1) > _SAME)
        if not told_apart.any():
            continue
        heard, seen = (nn.functional.normalize(nodes[told_apart].flatten(0, 1), dim=1) for nodes in (audio, video))
        likeness = heard @ seen.T / temperature
        together = torch.block_diag(*[shared] * int(told_apart.sum()))
        for dim in (0, 1):
            wanted = together / together.sum(dim=dim, keepdim=True).clamp(min=1e-9)
            parts.append(-(wanted * likeness.log_softmax(dim=dim)).sum(dim=dim).mean())
    return torch.stack(parts).mean() if parts else run.hidden.new_zeros(())
