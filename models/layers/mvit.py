"""MViTv2 for one-channel spectrograms: a transformer whose queries, keys and values are pooled on the token grid.

Li et al.: MViTv2: Improved Multiscale Vision Transformers for Classification and Detection. CVPR 2022, arXiv
2112.01526.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.errors import SettingsError
from models.layers.transformer import MLP, DropPath

Pair = tuple[int, int]
# name: (depth, blocks that halve the grid and double width and heads, stochastic depth of the last block)
SIZES: dict[str, tuple[int, tuple[int, ...], float]] = {
    "T": (10, (1, 3, 8), 0.1),
    "S": (16, (1, 3, 14), 0.1),
    "B": (24, (2, 5, 21), 0.3),
}


class BlockShape(NamedTuple):
    """Resolved size of one block."""

    width_in: int
    width: int
    n_heads: int
    query_stride: Pair
    kv_stride: Pair


class MViTConfig(BaseModel):
    """Settings of `MViT`; pairs are (time, frequency). The defaults are the published "B".

    Attributes
    ----------
    embed_dim, n_heads, depth
        Width and heads of the first block, number of blocks.
    width_factors, head_factors
        ``(block, factor)`` where width or heads grow.
    query_strides
        ``(block, time stride, frequency stride)`` where the grid shrinks; 1 elsewhere.
    kv_stride
        Stride of keys and values in the first block; divided by every query stride on the way, its own block's
        included.
    pool_kernel
        Of the depth-wise pooling convolutions.
    drop_path
        Stochastic depth of the last block, rising linearly from 0.
    dropout
        Before the head, while training.
    class_token, absolute_positions, relative_positions
        Options that no published model uses; positions need inputs of `input_size` (frames, bands).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    embed_dim: int = 96
    n_heads: int = 1
    depth: int = 24
    width_factors: tuple[tuple[int, float], ...] = ((2, 2.0), (5, 2.0), (21, 2.0))
    head_factors: tuple[tuple[int, float], ...] = ((2, 2.0), (5, 2.0), (21, 2.0))
    query_strides: tuple[tuple[int, int, int], ...] = ((2, 2, 2), (5, 2, 2), (21, 2, 2))
    kv_stride: Pair = (4, 4)
    patch_kernel: Pair = (7, 7)
    patch_stride: Pair = (4, 4)
    patch_padding: Pair = (3, 3)
    pool_kernel: Pair = (3, 3)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    residual_pooling: bool = True
    drop_path: float = 0.3
    dropout: float = 0.5
    class_token: bool = False
    absolute_positions: bool = False
    relative_positions: bool = False
    input_size: Pair = (400, 128)

    @classmethod
    def of_size(cls, size: str, embed_dim: int = 96) -> MViTConfig:
        """One of the published layouts, ``T``, ``S`` or ``B``."""
        depth, doubling, drop_path = SIZES[size]
        factors = tuple((block, 2.0) for block in doubling)
        return cls(
            embed_dim=embed_dim, depth=depth, width_factors=factors, head_factors=factors,
            query_strides=tuple((block, 2, 2) for block in doubling), drop_path=drop_path,
        )  # fmt: skip

    @classmethod
    def from_published(cls, group: Mapping[str, Any], dropout: float, input_size: Pair) -> MViTConfig:
        """Settings of the ``ENCODER`` group of a published config.

        Raises
        ------
        SettingsError
            If it uses an option that no published model uses and that is not built here.
        """
        if group.get("MODE", "conv") != "conv" or group.get("POOL_FIRST") or not group.get("DIM_MUL_IN_ATT", True):
            raise SettingsError(
                "This encoder pools in a way that no published model uses (MODE, POOL_FIRST or DIM_MUL_IN_ATT).",
                "Only convolutional pooling after the projection can be loaded.",
            )
        kv_stride = group.get("POOL_KV_STRIDE_ADAPTIVE")
        if kv_stride is None:
            first = (group.get("POOL_KV_STRIDE") or [[0, 1, 1]])[0]
            kv_stride = first[1:]
        values = {
            "embed_dim": "EMBED_DIM", "n_heads": "NUM_HEADS", "depth": "DEPTH", "width_factors": "DIM_MUL",
            "head_factors": "HEAD_MUL", "query_strides": "POOL_Q_STRIDE", "patch_kernel": "PATCH_KERNEL",
            "patch_stride": "PATCH_STRIDE", "patch_padding": "PATCH_PADDING", "pool_kernel": "POOL_KVQ_KERNEL",
            "mlp_ratio": "MLP_RATIO", "qkv_bias": "QKV_BIAS", "residual_pooling": "RESIDUAL_POOLING",
            "drop_path": "DROPPATH_RATE", "class_token": "CLS_EMBED_ON", "absolute_positions": "USE_ABS_POS",
            "relative_positions": "REL_POS_SPATIAL",
        }  # fmt: skip
        known = {ours: group[theirs] for ours, theirs in values.items() if group.get(theirs) is not None}
        return cls.model_validate(known | {"kv_stride": kv_stride, "dropout": dropout, "input_size": input_size})

    @classmethod
    def of_state_dict(cls, state_dict: Mapping[str, Tensor]) -> MViTConfig:
        """What the entries of an encoder (names without ``encoder.``) tell; a new width means a stride of 2."""
        blocks = [key.split(".")[1] for key in state_dict if key.startswith("blocks.")]
        depth = len(set(blocks))
        embed_dim, _, *kernel = state_dict["patch_embed.proj.weight"].shape
        widths = [state_dict[f"blocks.{i}.attn.proj.weight"].shape[0] for i in range(depth)]
        heads = [width // state_dict[f"blocks.{i}.attn.norm_q.weight"].shape[0] for i, width in enumerate(widths)]
        grows = [i for i in range(depth) if f"blocks.{i}.proj.weight" in state_dict]
        before = [embed_dim, *widths]
        heads_before = [heads[0], *heads]
        first = state_dict["blocks.0.mlp.fc1.weight"]
        return cls(
            embed_dim=embed_dim, n_heads=heads[0], depth=depth, patch_kernel=(kernel[0], kernel[1]),
            patch_padding=(kernel[0] // 2, kernel[1] // 2),
            width_factors=tuple((i, widths[i] / before[i]) for i in grows),
            head_factors=tuple((i, heads[i] / heads_before[i]) for i in grows),
            query_strides=tuple((i, 2, 2) for i in grows), mlp_ratio=first.shape[0] / first.shape[1],
            qkv_bias="blocks.0.attn.qkv.bias" in state_dict,
        )  # fmt: skip

    @cached_property
    def blocks(self) -> tuple[BlockShape, ...]:
        """Width, heads and strides of every block."""
        widths, heads = dict(self.width_factors), dict(self.head_factors)
        strides = {block: (time, frequency) for block, time, frequency in self.query_strides}
        shapes = []
        width, n_heads, kv = self.embed_dim, self.n_heads, self.kv_stride
        for block in range(self.depth):
            width_in = width
            factor = heads.get(block, 1.0)
            n_heads = max(1, round(n_heads * factor))
            divisor = max(1, round(n_heads * factor))
            width = max(divisor, int(width * widths.get(block, 1.0) + divisor / 2) // divisor * divisor)
            stride = strides.get(block, (1, 1))
            kv = (max(kv[0] // stride[0], 1), max(kv[1] // stride[1], 1))
            shapes.append(BlockShape(width_in, width, n_heads, stride, kv))
        return tuple(shapes)

    @property
    def width(self) -> int:
        """Size D of the final tokens."""
        return self.blocks[-1].width

    @property
    def total_stride(self) -> Pair:
        """Distance of final tokens in frames and bands."""
        time, frequency = self.patch_stride
        for shape in self.blocks:
            time, frequency = time * shape.query_stride[0], frequency * shape.query_stride[1]
        return time, frequency

    def grid(self, frames: int, bands: int) -> Pair:
        """Final token grid (time, frequency) for an input of that size."""
        sizes = []
        for axis, size in enumerate((frames, bands)):
            size = (size + 2 * self.patch_padding[axis] - self.patch_kernel[axis]) // self.patch_stride[axis] + 1
            for shape in self.blocks:
                size = (size - 1) // shape.query_stride[axis] + 1
            sizes.append(size)
        return sizes[0], sizes[1]


def relative_index(n_queries: int, n_keys: int) -> Tensor:
    """Row of the position table for every query and key, long ``[n_queries, n_keys]``."""
    a, b = max(n_keys / n_queries, 1.0), max(n_queries / n_keys, 1.0)
    queries, keys = torch.arange(n_queries)[:, None] * a, torch.arange(n_keys)[None, :] * b
    return (queries - keys + (n_keys - 1) * b).long()


class PooledAttention(nn.Module):
    """Self-attention on a token grid with depth-wise pooling of query, key and value, and the pooled query added.

    The pooling kernels are shared by the heads; a class token is neither pooled nor given a relative position.
    """

    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter

    def __init__(self, shape: BlockShape, config: MViTConfig, grid: Pair) -> None:
        super().__init__()
        self.shape, self.residual, self.special = shape, config.residual_pooling, int(config.class_token)
        size = shape.width // shape.n_heads
        self.qkv = nn.Linear(shape.width_in, 3 * shape.width, bias=config.qkv_bias)
        self.proj = nn.Linear(shape.width, shape.width)
        padding = (config.pool_kernel[0] // 2, config.pool_kernel[1] // 2)
        for name, stride in (("q", shape.query_stride), ("k", shape.kv_stride), ("v", shape.kv_stride)):
            pool = nn.Conv2d(size, size, config.pool_kernel, stride, padding, groups=size, bias=False)
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", nn.LayerNorm(size, eps=1e-6))
        self.relative = config.relative_positions
        if self.relative:
            for axis, name in enumerate(("rel_pos_h", "rel_pos_w")):
                longest = max(grid[axis] // shape.query_stride[axis], grid[axis] // shape.kv_stride[axis])
                self.register_parameter(name, nn.Parameter(torch.zeros(2 * longest - 1, size)))

    def _pooled(self, tokens: Tensor, name: str, grid: Pair) -> tuple[Tensor, Pair]:
        """``[batch, heads, N, d]`` pooled and normalised, and its grid."""
        batch, heads = tokens.shape[:2]
        special, patches = tokens[:, :, : self.special], tokens[:, :, self.special :]
        image = patches.flatten(0, 1).transpose(1, 2).unflatten(2, grid)
        image = getattr(self, f"pool_{name}")(image)
        pooled = image.flatten(2).transpose(1, 2).unflatten(0, (batch, heads))
        return getattr(self, f"norm_{name}")(torch.cat([special, pooled], dim=2)), (image.shape[2], image.shape[3])

    def _position_bias(self, query: Tensor, query_grid: Pair, key_grid: Pair) -> Tensor:
        """Relative position logits ``[batch, heads, queries, keys]`` of the unscaled query."""
        on_grid = query[:, :, self.special :].unflatten(2, query_grid)
        rows = self.rel_pos_h[relative_index(query_grid[0], key_grid[0]).to(query.device)]
        columns = self.rel_pos_w[relative_index(query_grid[1], key_grid[1]).to(query.device)]
        time = torch.einsum("bnhwd,hkd->bnhwk", on_grid, rows)
        frequency = torch.einsum("bnhwd,wkd->bnhwk", on_grid, columns)
        bias = (time.unsqueeze(-1) + frequency.unsqueeze(-2)).flatten(4, 5).flatten(2, 3)
        return nn.functional.pad(bias, (self.special, 0, self.special, 0))

    def forward(self, tokens: Tensor, grid: Pair) -> tuple[Tensor, Pair]:
        """``[batch, N, width_in]`` to ``[batch, N', width]`` and the grid of the N' pooled queries."""
        batch, n_tokens, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, n_tokens, 3, self.shape.n_heads, -1).permute(2, 0, 3, 1, 4)
        query, query_grid = self._pooled(qkv[0], "q", grid)
        key, key_grid = self._pooled(qkv[1], "k", grid)
        value, _ = self._pooled(qkv[2], "v", grid)
        bias = self._position_bias(query, query_grid, key_grid) if self.relative else None
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        if self.residual:
            mixed = mixed + query
        return self.proj(mixed.transpose(1, 2).flatten(2)), query_grid


class MViTBlock(nn.Module):
    """Pooled attention and MLP with residuals; the shortcut is max-pooled where the grid shrinks.

    Where the width changes the shortcut is a linear map of the *normalised* input.
    """

    def __init__(self, shape: BlockShape, config: MViTConfig, grid: Pair, drop_path: float) -> None:
        super().__init__()
        self.special, stride = int(config.class_token), shape.query_stride
        self.norm1 = nn.LayerNorm(shape.width_in, eps=1e-6)
        self.attn = PooledAttention(shape, config, grid)
        self.norm2 = nn.LayerNorm(shape.width, eps=1e-6)
        self.mlp = MLP(shape.width, int(shape.width * config.mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.proj = nn.Linear(shape.width_in, shape.width) if shape.width_in != shape.width else None
        kernel = (stride[0] + 1 if stride[0] > 1 else 1, stride[1] + 1 if stride[1] > 1 else 1)
        self.pool = nn.MaxPool2d(kernel, stride, (kernel[0] // 2, kernel[1] // 2)) if max(stride) > 1 else None

    def forward(self, tokens: Tensor, grid: Pair) -> tuple[Tensor, Pair]:
        """``[batch, N, width_in]`` on a grid to ``[batch, N', width]`` and its grid."""
        normed = self.norm1(tokens)
        branch, new_grid = self.attn(normed, grid)
        shortcut = tokens if self.proj is None else self.proj(normed)
        if self.pool is not None:
            image = shortcut[:, self.special :].transpose(1, 2).unflatten(2, grid)
            pooled = self.pool(image).flatten(2).transpose(1, 2)
            shortcut = torch.cat([shortcut[:, : self.special], pooled], dim=1)
        tokens = shortcut + self.drop_path(branch)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens))), new_grid


class PatchEmbed(nn.Module):
    """A strided convolution to tokens, time-major."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, config.embed_dim, config.patch_kernel, config.patch_stride, config.patch_padding)

    def forward(self, image: Tensor) -> tuple[Tensor, Pair]:
        """``[batch, 1, frames, bands]`` to ``[batch, N, C]`` and the grid (time, frequency)."""
        patches = self.proj(image)
        return patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3])


class Head(nn.Module):
    """Dropout and a linear layer."""

    def __init__(self, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(width, n_classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits ``[batch, n_classes]`` of ``[batch, D]``."""
        return self.projection(self.dropout(hidden))


class MViT(nn.Module):
    """The encoder, with one classification head for every group of classes.

    Parameters
    ----------
    groups
        Number of classes of every head; more than one for models that name, say, a verb and a noun.
    """

    def __init__(self, config: MViTConfig, groups: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        grid = (config.input_size[0] // config.patch_stride[0], config.input_size[1] // config.patch_stride[1])
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        if config.absolute_positions:
            n_tokens = grid[0] * grid[1] + int(config.class_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, n_tokens, config.embed_dim))
        rates = torch.linspace(0.0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList()
        for shape, rate in zip(config.blocks, rates, strict=True):
            self.blocks.append(MViTBlock(shape, config, grid, rate))
            grid = (grid[0] // shape.query_stride[0], grid[1] // shape.query_stride[1])
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        heads = [Head(config.width, size, config.dropout) for size in groups]
        self.head = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.rsplit(".", 1)[-1] in ("cls_token", "pos_embed", "rel_pos_h", "rel_pos_w"):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, image: Tensor) -> tuple[Tensor, Pair]:
        """``[batch, 1, frames, bands]`` to normalised tokens ``[batch, N, D]``, time-major, and their grid."""
        tokens, grid = self.patch_embed(image)
        if self.config.class_token:
            tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        if self.config.absolute_positions:
            tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens, grid = block(tokens, grid)
        return self.norm(tokens), grid

    def pool(self, tokens: Tensor) -> Tensor:
        """What the head reads: the class token if there is one, else the mean of the tokens."""
        return tokens[:, 0] if self.config.class_token else tokens.mean(dim=1)

    def classify(self, hidden: Tensor) -> list[Tensor]:
        """Logits of every head for ``[batch, D]``."""
        heads = self.head if isinstance(self.head, nn.ModuleList) else [self.head]
        return [head(hidden) for head in heads]
