"""The decoder of Play It Back: latents that listen to one pass after the other.

After Jaegle et al.: Perceiver: General Perception with Iterative Attention. ICML 2021, arXiv 2103.03206, in the form of
Stergiou and Damen: The Wisdom of Crowds: Temporal Progressive Attention for Early Action Prediction. CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class TemPrConfig(BaseModel):
    """Settings of `TemPr`; the defaults are the published ones.

    Attributes
    ----------
    n_frequency_bands, max_frequency
        Of the Fourier features of token positions.
    encode_positions
        Append them to the tokens.
    n_latents, latent_dim
        Latent vectors and their size.
    cross_heads, cross_dim_head, latent_heads, latent_dim_head
        Attention of the latents to the tokens and among themselves.
    self_per_cross
        Self-attention blocks after every cross-attention.
    tie_layers
        All passes but the first share one set of weights.
    fusion, fusion_of
        How the passes become one answer: a convolution over passes, or one gated layer on all; of features or of
        scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_frequency_bands: int = 6
    max_frequency: float = 10.0
    encode_positions: bool = True
    n_latents: int = 256
    latent_dim: int = 512
    cross_heads: int = 1
    cross_dim_head: int = 64
    latent_heads: int = 8
    latent_dim_head: int = 64
    self_per_cross: int = 3
    tie_layers: bool = False
    attention_dropout: float = 0.0
    feed_forward_dropout: float = 0.0
    fusion: Literal["adaptive", "adaptive_concat"] = "adaptive"
    fusion_of: Literal["features", "predictions"] = "features"

    @classmethod
    def from_published(cls, group: Mapping[str, Any]) -> TemPrConfig:
        """Settings of the ``DECODER`` group of a published config."""
        names = {
            "n_frequency_bands": "NUM_FREQ_BANDS", "max_frequency": "MAX_FREQ",
            "encode_positions": "FOURIER_ENCODE_DATA", "n_latents": "NUM_LATENTS", "latent_dim": "LATENT_DIM",
            "cross_heads": "CROSS_HEADS", "cross_dim_head": "CROSS_DIM_HEAD", "latent_heads": "LATENT_HEADS",
            "latent_dim_head": "LATENT_DIM_HEAD", "self_per_cross": "SELF_PER_CROSS_ATTN", "tie_layers":
            "WEIGHT_TIE_LAYERS", "fusion": "FUSION", "attention_dropout": "ATTN_DROPOUT", "feed_forward_dropout":
            "FF_DROPOUT", "fusion_of": "FUSION_LOC",
        }  # fmt: skip
        return cls.model_validate({ours: group[theirs] for ours, theirs in names.items() if theirs in group})

    @classmethod
    def of_state_dict(cls, state_dict: Mapping[str, Tensor], token_width: int) -> TemPrConfig:
        """What the entries of a decoder (names without ``decoder.``) tell; heads are taken to be 64 wide.

        Narrower projections are taken to be one head.
        """
        n_latents, latent_dim = state_dict["latents"].shape
        towers = len({key.split(".")[1] for key in state_dict if key.startswith("layers.")})
        positions = state_dict["layers.0.0.norm_context.weight"].shape[0] - token_width
        cross = state_dict["layers.0.0.fn.to_q.weight"].shape[0]
        latent = state_dict.get("layers.0.2.0.0.fn.to_q.weight")
        latent_size = latent.shape[0] if latent is not None else 64
        blocks = {key.split(".")[3] for key in state_dict if key.startswith("layers.0.2.")}
        fusion = state_dict.get("fusion.2.weight")
        probe = "1.fn.net.0.weight"
        tied = towers > 2 and torch.equal(state_dict[f"layers.1.{probe}"], state_dict[f"layers.2.{probe}"])
        return cls(
            n_latents=n_latents, latent_dim=latent_dim, encode_positions=positions > 0,
            n_frequency_bands=(positions // 2 - 1) // 2 if positions > 0 else 6,
            cross_heads=max(1, cross // 64), cross_dim_head=min(64, cross),
            latent_heads=max(1, latent_size // 64), latent_dim_head=min(64, latent_size), self_per_cross=len(blocks),
            tie_layers=tied, fusion="adaptive" if fusion is not None else "adaptive_concat",
            fusion_of="predictions" if fusion is not None and fusion.shape[1] == 1 else "features",
        )  # fmt: skip

    @property
    def position_size(self) -> int:
        """Numbers that describe a position on both axes."""
        return 2 * (2 * self.n_frequency_bands + 1) if self.encode_positions else 0


def fourier_features(positions: Tensor, n_bands: int, max_frequency: float) -> Tensor:
    """Sines, cosines and the position itself, ``[..., 2 * n_bands + 1]``, of positions in -1..1."""
    scales = torch.linspace(1.0, max_frequency / 2, n_bands, device=positions.device, dtype=positions.dtype)
    angle = positions.unsqueeze(-1) * scales * torch.pi
    return torch.cat([angle.sin(), angle.cos(), positions.unsqueeze(-1)], dim=-1)


class GatedGELU(nn.Module):
    """First half times GELU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., 2 d]`` to ``[..., d]``."""
        value, gate = x.chunk(2, dim=-1)
        return value * nn.functional.gelu(gate)


class FeedForward(nn.Module):
    """Linear, gated GELU, linear; four times as wide inside."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, 8 * width), GatedGELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., d]``."""
        return self.net(x)


class Attention(nn.Module):
    """Attention of latents to a context, or to themselves; no biases but the last."""

    def __init__(self, width: int, context_width: int, n_heads: int, dim_head: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.to_q = nn.Linear(width, n_heads * dim_head, bias=False)
        self.to_kv = nn.Linear(context_width, 2 * n_heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(n_heads * dim_head, width))
        self.keep_attention = False
        self.attention: Tensor | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``[batch, latents, d]``; keeps `attention` ``[batch, heads, latents, tokens]`` if `keep_attention`."""
        context = x if context is None else context
        query, (key, value) = self.to_q(x), self.to_kv(context).chunk(2, dim=-1)
        query, key, value = (part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in (query, key, value))
        if self.keep_attention:
            weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
            self.attention = weights
            mixed = weights @ value
        else:
            rate = self.dropout if self.training else 0.0
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class PreNorm(nn.Module):
    """A layer norm before a function, and another one for its context."""

    def __init__(self, width: int, fn: nn.Module, context_width: int | None = None) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(context_width) if context_width is not None else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The function of the normalised input(s)."""
        if self.norm_context is None or context is None:
            return self.fn(self.norm(x))
        return self.fn(self.norm(x), self.norm_context(context))


class TemPr(nn.Module):
    """Latents carried through all passes, a prediction after each, and one fused prediction.

    Parameters
    ----------
    token_width
        Size D of the encoder's tokens.
    n_passes
        How often the clip is listened to.
    groups
        Classes of every output.
    """

    def __init__(self, config: TemPrConfig, token_width: int, n_passes: int, groups: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        width = config.latent_dim
        context = token_width + config.position_size
        self.latents = nn.Parameter(torch.empty(config.n_latents, width))
        nn.init.kaiming_uniform_(self.latents)

        def self_block() -> nn.ModuleList:
            attention = Attention(width, width, config.latent_heads, config.latent_dim_head, config.attention_dropout)
            feed_forward = FeedForward(width, config.feed_forward_dropout)
            return nn.ModuleList([PreNorm(width, attention), PreNorm(width, feed_forward)])

        def tower(tied: bool) -> nn.ModuleList:
            cross = Attention(width, context, config.cross_heads, config.cross_dim_head, config.attention_dropout)
            first = self_block()
            blocks = [first, *(first if tied else self_block() for _ in range(config.self_per_cross - 1))]
            feed_forward = FeedForward(width, config.feed_forward_dropout)
            return nn.ModuleList([
                PreNorm(width, cross, context), PreNorm(width, feed_forward),
                nn.ModuleList(blocks[: config.self_per_cross]),
            ])  # fmt: skip

        towers = [tower(False)]
        for _ in range(1, n_passes):
            towers.append(towers[1] if config.tie_layers and len(towers) > 1 else tower(config.tie_layers))
        self.layers = nn.ModuleList(towers)
        # Published names: positions in a Sequential whose other members have no weights.
        self.reduce = nn.ModuleDict({"2": nn.LayerNorm(width)})
        if config.fusion_of == "predictions":
            n_classes = groups[0]
            fusion: dict[str, nn.Module] = {
                "2": nn.Conv1d(n_classes, n_classes, n_passes, groups=n_classes, bias=False)
            }
        elif config.fusion == "adaptive":
            fusion = {"2": nn.Conv1d(width, width, n_passes, bias=False)}
        else:
            fusion = {"1": nn.Linear(n_passes * width, 2 * width), "4": nn.Linear(width, width)}
        self.fusion = nn.ModuleDict(fusion)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(0.1)
        outputs = [nn.Linear(width, size) for size in groups]
        self.fc = outputs[0] if len(outputs) == 1 else nn.ModuleList(outputs)

    @property
    def towers(self) -> list[Any]:
        """For every pass: cross-attention, its feed-forward, and the self-attention blocks."""
        return list(self.layers)

    @property
    def cross_attentions(self) -> list[Attention]:
        """The cross-attention of every pass."""
        return [tower[0].fn for tower in self.towers]

    def context(self, grid: Tensor, positions: Tensor | None = None) -> Tensor:
        """Tokens ``[batch, W * H, D + positions]`` of a grid ``[batch, W, H, D]``; W is time, H frequency.

        `positions` ``[batch, W]`` in -1..1 says when the rows are; by default they are evenly spaced.
        """
        batch, rows, columns, _ = grid.shape
        tokens = grid.flatten(1, 2)
        if not self.config.encode_positions:
            return tokens
        bands, highest = self.config.n_frequency_bands, self.config.max_frequency
        if positions is None:
            positions = torch.linspace(-1.0, 1.0, rows, device=grid.device, dtype=grid.dtype).expand(batch, -1)
        across = torch.linspace(-1.0, 1.0, columns, device=grid.device, dtype=grid.dtype)
        time = fourier_features(positions.to(grid.dtype), bands, highest)[:, :, None].expand(-1, -1, columns, -1)
        frequency = fourier_features(across, bands, highest)[None, None].expand(batch, rows, -1, -1)
        return torch.cat([tokens, torch.cat([time, frequency], dim=-1).flatten(1, 2)], dim=-1)

    def listen(self, contexts: list[Tensor]) -> Tensor:
        """What the latents hold after every pass: mean over latents ``[batch, passes, latent_dim]``, not normalised."""
        x = self.latents.expand(contexts[0].shape[0], -1, -1)
        means = []
        for tower, context in zip(self.towers, contexts, strict=True):
            cross, feed_forward, blocks = tower
            x = x + cross(x, context)
            x = x + feed_forward(x)
            for attention, block_feed_forward in blocks:
                x = x + attention(x)
                x = x + block_feed_forward(x)
            means.append(x.mean(dim=1))
        return torch.stack(means, dim=1)

    def summarize(self, means: Tensor) -> Tensor:
        """Layer norm of `listen`'s result: what `scores` reads to say what is heard after every pass."""
        return self.reduce["2"](means)

    def fuse(self, summaries: Tensor) -> Tensor:
        """One vector ``[batch, latent_dim]`` of all passes; unchanged if scores are fused instead."""
        if self.config.fusion_of == "predictions":
            return summaries
        if self.config.fusion == "adaptive":
            return self.dropout(self.activation(self.fusion["2"](summaries.transpose(1, 2)).squeeze(2)))
        value, gate = self.fusion["1"](summaries.flatten(1)).chunk(2, dim=-1)
        return self.fusion["4"](self.dropout(value * nn.functional.gelu(gate)))

    def scores(self, hidden: Tensor) -> list[Tensor]:
        """Logits of every group for ``[..., latent_dim]``."""
        outputs = self.fc if isinstance(self.fc, nn.ModuleList) else [self.fc]
        return [output(hidden) for output in outputs]

    def predict(self, fused: Tensor) -> list[Tensor]:
        """Final logits of every group, of what `fuse` gave."""
        scores = self.scores(fused)
        if self.config.fusion_of == "features":
            return scores
        return [self.fusion["2"](scores[0].transpose(1, 2)).squeeze(2)]
