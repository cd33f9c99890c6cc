"""The pre-norm transformer block of ViT, DeiT and AST."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection whose rows are query, key, value.

    Parameters
    ----------
    width
        Token size D.
    n_heads
        Heads of size ``D / n_heads``.
    """

    def __init__(self, width: int, n_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.keep_attention = False
        self.attention: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """``[batch, N, D]`` to ``[batch, N, D]``; keeps `attention` ``[batch, heads, N, N]`` if `keep_attention`."""
        batch, n_tokens, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, n_tokens, 3, self.n_heads, width // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.keep_attention:
            weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
            self.attention = weights
            mixed = weights @ value
        else:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, n_tokens, width))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        return self.fc2(self.act(self.fc1(tokens)))


class DropPath(nn.Module):
    """Stochastic depth: drops a whole residual branch per sample while training (Huang et al., 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """The branch, scaled so that its expectation stays."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        mask = torch.rand(branch.shape[0], *([1] * (branch.ndim - 1)), device=branch.device) < keep
        return branch * mask / keep


class Block(nn.Module):
    """``x += attention(norm1(x)); x += mlp(norm2(x))`` (Dosovitskiy et al., 2021)."""

    def __init__(
        self, width: int, n_heads: int, mlp_ratio: float = 4.0, eps: float = 1e-6, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = SelfAttention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[batch, N, D]`` to ``[batch, N, D]``."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))
