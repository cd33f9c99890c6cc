"""Parts of the Fourier-mixing baselines FNet and FFNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.frame_tagging import FrameScores


class FourierInput(nn.Module):
    """Layer norm, projection and dropout of the input features."""

    def __init__(self, n_mels: int, width: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(n_mels, eps=eps)
        self.hidden_mapping = nn.Linear(n_mels, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, frames, width]``."""
        return self.dropout(self.hidden_mapping(self.layer_norm(features)))


class FourierPooler(nn.Module):
    """Frame scores weighted by attention over time.

    Parameters
    ----------
    sigmoid
        FFNet: sigmoid of both. FNet: softmax over time of the attention, and scores *without* a sigmoid, only clamped to
        0..1 (a quirk that its checkpoints depend on).
    """

    def __init__(self, width: int, n_classes: int, sigmoid: bool) -> None:
        super().__init__()
        self.att = nn.Linear(width, n_classes)
        self.fc = nn.Linear(width, n_classes)
        self.sigmoid = sigmoid

    def forward(self, hidden: Tensor) -> FrameScores:
        """Scores of ``[batch, frames, width]``."""
        raw_scores, raw_attention = self.fc(hidden), self.att(hidden)
        scores = raw_scores.sigmoid() if self.sigmoid else raw_scores
        attention = raw_attention.sigmoid() if self.sigmoid else raw_attention.softmax(dim=1)
        scores, attention = scores.clamp(1e-7, 1.0 - 1e-7), attention.clamp(1e-7, 1.0 - 1e-7)
        attention = attention / attention.sum(dim=1, keepdim=True)
        return FrameScores((attention * scores).sum(dim=1), scores, attention, attention, None)


def fourier_real(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Real part of the Fourier transform along some axes (Lee-Thorp et al.: FNet. NAACL 2022)."""
    return torch.fft.fftn(x.float(), dim=axes).real
