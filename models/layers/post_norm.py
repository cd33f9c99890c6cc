"""The post-norm transformer layer of the original Transformer, with the published taggers' names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PostNormAttention(nn.Module):
    """Multi-head self-attention whose residual sum is normalised (Vaswani et al., 2017).

    Attributes
    ----------
    keep_attention, kept
        While `keep_attention` is set, every application appends its weights ``[batch, heads, steps, steps]`` to `kept`
        (one layer may be applied several times).
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.head_width, self.dropout = n_heads, width // n_heads, dropout
        inner = n_heads * self.head_width
        self.w_qs = nn.Linear(width, inner)
        self.w_ks = nn.Linear(width, inner)
        self.w_vs = nn.Linear(width, inner)
        self.fc = nn.Linear(inner, width)
        self.layer_norm = nn.LayerNorm(width)
        self.keep_attention = False
        self.kept: list[Tensor] = []
        for layer in (self.w_qs, self.w_ks, self.w_vs, self.fc):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, steps, width]`` to the same."""
        batch, steps, _ = x.shape
        query, key, value = (
            layer(x).reshape(batch, steps, self.n_heads, self.head_width).transpose(1, 2)
            for layer in (self.w_qs, self.w_ks, self.w_vs)
        )
        rate = self.dropout if self.training else 0.0
        if self.keep_attention:
            weights = (query @ key.transpose(2, 3) / math.sqrt(self.head_width)).softmax(dim=3)
            self.kept.append(weights)
            mixed = nn.functional.dropout(weights, rate) @ value
        else:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        out = self.fc(mixed.transpose(1, 2).flatten(2))
        return self.layer_norm(nn.functional.dropout(out, rate) + x)


class PostNormFeedForward(nn.Module):
    """Two linear layers with a ReLU between them, residual sum normalised."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.w_1 = nn.Linear(width, inner)
        self.w_2 = nn.Linear(inner, width)
        self.layer_norm = nn.LayerNorm(width)
        for layer in (self.w_1, self.w_2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor, relu: nn.ReLU) -> Tensor:
        """``[batch, steps, width]`` to the same.

        The activation comes from outside, because a layer may be applied several times and explanation methods need an own
        activation module for each.
        """
        out = self.w_2(relu(self.w_1(x)))
        return self.layer_norm(nn.functional.dropout(out, self.dropout, self.training) + x)


class PostNormLayer(nn.Module):
    """Attention and feed-forward part."""

    def __init__(self, width: int, inner: int, dropout: float, n_heads: int = 8) -> None:
        super().__init__()
        self.slf_attn = PostNormAttention(width, n_heads, dropout)
        self.pos_ffn = PostNormFeedForward(width, inner, dropout)

    def forward(self, x: Tensor, relu: nn.ReLU) -> Tensor:
        """``[batch, steps, width]`` to the same."""
        return self.pos_ffn(self.slf_attn(x), relu)


class PositionalEncoding(nn.Module):
    """``8 x + PE``: the sine and cosine table of Vaswani et al., 2017, over feature bands."""

    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(10000.0) / width))
        table = torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=2).flatten(1)
        # Persistent, because published checkpoints hold it.
        self.register_buffer("pe", table.unsqueeze(0))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, frames, width]`` with at most as many frames as the table has."""
        return 8.0 * x + self.pe[:, : x.shape[1]]
