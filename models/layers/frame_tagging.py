"""What CRNN, CNN-Transformer, Transformer and the linear baseline share: scores per frame, pooled over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.network import Network, NetworkConfig, log_odds

TimePooling = Literal["max", "ave", "lin", "exp", "att", "h-att", "all"]
# What the pooling "all" combines, in the order of its published weights.
ENSEMBLE: tuple[TimePooling, ...] = ("max", "ave", "lin", "exp", "att")
_WINDOW = 5


class FrameScores(NamedTuple):
    """What pooling over time computes.

    Attributes
    ----------
    output
        ``[batch, n_classes]``: probabilities in the published mode, logits in the corrected one.
    frame_scores
        ``[batch, steps, n_classes]``: what each step says (probabilities, or logits in the corrected mode).
    time_weights
        ``[batch, steps, n_classes]``: ``(time_weights * frame_scores).sum(1) == output``.
    frame_attention
        ``[batch, steps, n_classes]``, the learned attention; None if the pooling has none.
    ensemble_weights
        ``[batch, 5, n_classes]``, weights of the five poolings of ``all``; else None.
    """

    output: Tensor
    frame_scores: Tensor
    time_weights: Tensor
    frame_attention: Tensor | None
    ensemble_weights: Tensor | None


def time_weights(scores: Tensor, pooling: TimePooling, attention: Tensor | None) -> Tensor:
    """Weights over time with which a pooling averages ``[batch, steps, n_classes]``; they sum to 1.

    Every published pooling is such an average: ``lin`` is ``sum p^2 / sum p``, ``exp`` is ``sum p e^p / sum e^p``. ``h-att``
    averages windows of five frames and weights them by their means, which comes to ``lin`` without the frames left over
    (Wang, Li, Metze: A comparison of five multiple instance learning pooling functions. ICASSP 2019).
    """
    if pooling == "max":
        return torch.zeros_like(scores).scatter(1, scores.argmax(dim=1, keepdim=True), 1.0)
    if pooling == "ave":
        return torch.full_like(scores, 1.0 / scores.shape[1])
    if pooling == "lin":
        return scores / scores.sum(dim=1, keepdim=True)
    if pooling == "exp":
        return scores.softmax(dim=1)
    if pooling == "h-att":
        whole = scores.shape[1] // _WINDOW * _WINDOW
        kept = scores[:, :whole] / scores[:, :whole].sum(dim=1, keepdim=True)
        return nn.functional.pad(kept, (0, 0, 0, scores.shape[1] - whole))
    if attention is None:
        raise ValueError(f"the pooling {pooling!r} needs attention")
    return attention


class FrameTaggingConfig(NetworkConfig):
    """Settings of the families that pool frame scores over time.

    Attributes
    ----------
    pooling
        How scores are averaged over time. ``h-att`` and ``all`` exist in the published code but cannot be reached from its
        command line.
    corrected_head
        Softmax attention over linear frame scores with logits as output, instead of published probabilities (whose
        gradients vanish where they saturate). Ignores `pooling`.
    """

    pooling: TimePooling = "lin"
    corrected_head: bool = False

    @property
    def has_attention(self) -> bool:
        """Whether there is a layer ``fc_att``."""
        return self.corrected_head or self.pooling in ("att", "all")


class FrameTagger(Network):
    """A network whose hidden representation is a sequence ``[batch, steps, width]``.

    Subclasses implement `forward_features`, call `build_head` in their constructor, and set `frames_per_step`.
    """

    config: FrameTaggingConfig
    fc_prob: nn.Linear
    fc_att: nn.Linear
    ens: nn.Linear

    def build_head(self, width: int) -> None:
        """Make the layers ``fc_prob``, ``fc_att`` and ``ens`` that the pooling needs."""
        self.fc_prob = nn.Linear(width, self.config.n_classes)
        layers = [self.fc_prob]
        if self.config.has_attention:
            self.fc_att = nn.Linear(width, self.config.n_classes)
            layers.append(self.fc_att)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.config.pooling == "all" and not self.config.corrected_head:
            self.ens = nn.Linear(len(ENSEMBLE), len(ENSEMBLE))

    @property
    def frames_per_step(self) -> int:
        """How many feature frames one step of the hidden sequence covers."""
        raise NotImplementedError

    def pool(self, hidden: Tensor) -> FrameScores:
        """Frame scores of ``[batch, steps, width]`` and their average over time."""
        raw = self.fc_prob(hidden)
        attention = self.fc_att(hidden).softmax(dim=1) if self.config.has_attention else None
        if self.config.corrected_head:
            assert attention is not None
            return FrameScores((attention * raw).sum(dim=1), raw, attention, attention, None)
        scores = raw.sigmoid().clamp(1e-7, 1.0 - 1e-7)
        if self.config.pooling != "all":
            weights = time_weights(scores, self.config.pooling, attention)
            return FrameScores((weights * scores).sum(dim=1), scores, weights, attention, None)
        each = torch.stack([time_weights(scores, pooling, attention) for pooling in ENSEMBLE], dim=1)
        pooled = (each * scores.unsqueeze(1)).sum(dim=2)
        mixing = self.ens(pooled.transpose(1, 2)).softmax(dim=2).transpose(1, 2)
        weights = (mixing.unsqueeze(2) * each).sum(dim=1)
        return FrameScores((mixing * pooled).sum(dim=1), scores, weights, attention, mixing)

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, steps, width]``."""
        output = self.pool(hidden).output
        return output if self.config.corrected_head else log_odds(output)

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``time weight * frame score`` per step: sums to the output (a probability, or a logit in the corrected mode)."""
        pooled = self.pool(self.forward_features(features))
        contributions = (pooled.time_weights * pooled.frame_scores).transpose(1, 2)
        steps, width = contributions.shape[2], self.frames_per_step
        return contributions, torch.arange(steps) * float(width) + (width - 1) / 2.0


def infer_pooling(state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Number of classes and pooling of a published checkpoint.

    Raises
    ------
    CheckpointError
        If the pooling has no weights (all but ``att`` and ``all``) and is not in `hints`.
    """
    values: dict[str, Any] = {"n_classes": state_dict["fc_prob.weight"].shape[0]}
    if "ens.weight" in state_dict:
        values["pooling"] = "all"
    elif "fc_att.weight" in state_dict:
        values["pooling"] = "att"
    elif "pooling" not in hints:
        raise CheckpointError(
            "The checkpoint does not say how its frame scores are pooled over time.",
            "Give the pooling it was trained with: lin (the published default), max, ave, exp or h-att.",
        )
    return values
