"""Layers that EquiAV's pre-training and fine-tuning networks share (Kim et al., ICML 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.layers.transformer import MLP, Block
from models.network import Network, NetworkConfig

PATCH = 16  # frames and mel bands of an audio patch, pixels of a picture patch
Tower = Literal["a", "v"]


class TwoTowerConfig(NetworkConfig):
    """Settings that both networks have.

    Attributes
    ----------
    width, depth, n_heads, mlp_ratio
        Of the transformer of each modality (published: ViT-B).
    n_mels, target_length
        Size of the spectrogram, in patches of 16 x 16.
    image_size
        Side of the square picture in pixels.
    projection_hidden
        Hidden size of the projection MLPs.
    drop_out, drop_path
        While training: dropout in the blocks, and stochastic depth at one rate in all of them.
    learn_positions
        Train the position tables, which are fixed sine tables as published.
    """

    width: int = 768
    depth: int = 12
    n_heads: int = 12
    mlp_ratio: float = 4.0
    n_mels: int = 128
    target_length: int = 1024
    image_size: int = 224
    projection_hidden: int = 2048
    drop_out: float = 0.0
    drop_path: float = 0.0
    learn_positions: bool = False

    def grid(self, tower: Tower) -> tuple[int, int]:
        """Rows and columns of patches: mel bands by time for ``a``, height by width for ``v``."""
        if tower == "a":
            return self.n_mels // PATCH, self.target_length // PATCH
        return self.image_size // PATCH, self.image_size // PATCH


def sine_positions(width: int, rows: int, columns: int) -> Tensor:
    """Fixed position table ``[1, rows * columns, width]`` (MAE's, without a row for a class token).

    The first half codes the column, the second half the row, each as ``[sin(p w_i), cos(p w_i)]`` with
    ``w_i = 10000 ** (-i / (width / 4))``.
    """
    # In numpy: arithmetic on the meta device, where networks are built, would make torch import its compiler (1 s).
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))

    def code(positions: np.ndarray) -> np.ndarray:
        angles = positions[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    column = np.tile(code(np.arange(columns)), (rows, 1))
    row = np.repeat(code(np.arange(rows)), columns, axis=0)
    return torch.tensor(np.concatenate([column, row], axis=1)[None], dtype=torch.float32)


class DropoutMLP(MLP):
    """`MLP` with dropout after the activation and after the output."""

    def __init__(self, width: int, hidden: int, drop_out: float) -> None:
        super().__init__(width, hidden)
        self.drop1, self.drop2 = nn.Dropout(drop_out), nn.Dropout(drop_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(tokens)))))


class EncoderBlock(Block):
    """A pre-norm block with PyTorch's layer-norm epsilon 1e-5 (not ViT's 1e-6).

    Published blocks own four more layer norms that nothing reads (``norm1_a``, ``norm1_v``, ``norm2_a``, ``norm2_v``); they
    are kept so that published files load and are written with the same names.
    """

    def __init__(self, width: int, n_heads: int, mlp_ratio: float, drop_out: float, drop_path: float) -> None:
        super().__init__(width, n_heads, mlp_ratio=mlp_ratio, eps=1e-5, drop_path=drop_path)
        self.mlp = DropoutMLP(width, int(width * mlp_ratio), drop_out)
        self.drop = nn.Dropout(drop_out)
        for name in ("norm1_a", "norm1_v", "norm2_a", "norm2_v"):
            self.add_module(name, nn.LayerNorm(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[batch, N, D]`` to ``[batch, N, D]``."""
        tokens = tokens + self.drop_path(self.drop(self.attn(self.norm1(tokens))))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class PatchEmbed(nn.Module):
    """Patches of 16 x 16 to tokens, row by row; no norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=PATCH, stride=PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """``[batch, 3, height, width]`` to ``[batch, N, D]``."""
        return self.proj(image).flatten(2).transpose(1, 2)


class ProjectionMLP(nn.Module):
    """Three linear layers, each followed by a layer norm, ReLU between them."""

    def __init__(self, width: int, hidden: int, output: int) -> None:
        super().__init__()
        self.fc1, self.norm1, self.act1 = nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU()
        self.fc2, self.norm2, self.act2 = nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU()
        self.fc3, self.norm3 = nn.Linear(hidden, output), nn.LayerNorm(output)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., output]``."""
        hidden = self.act1(self.norm1(self.fc1(hidden)))
        hidden = self.act2(self.norm2(self.fc2(hidden)))
        return self.norm3(self.fc3(hidden))


class TwoTowerNetwork(Network):
    """A transformer for spectrograms (``_a``) and one for single pictures (``_v``).

    The parameters of a tower lie in the network itself, under the published names.
    """

    Config = TwoTowerConfig
    config: TwoTowerConfig

    def add_tower(self, tower: Tower) -> None:
        """Create the parameters of one modality.

        Raises
        ------
        SettingsError
            If the input is not made of whole patches.
        """
        config = self.config
        rows, columns = config.grid(tower)
        sizes = (config.n_mels, config.target_length) if tower == "a" else (config.image_size,)
        if min(rows, columns) < 1 or any(size % PATCH for size in sizes):
            raise SettingsError(
                f"EquiAV reads patches of {PATCH} x {PATCH}: {sizes} is not a whole number of them.",
                f"Give sizes that are multiples of {PATCH}.",
            )
        width = config.width
        table = sine_positions(width, rows, columns)
        setattr(self, f"modality_{tower}", nn.Parameter(torch.zeros(1, 1, width)))
        setattr(self, f"pos_embed_{tower}", nn.Parameter(table, requires_grad=config.learn_positions))
        self.add_module(f"patch_embed_{tower}", PatchEmbed(width))
        blocks = [
            EncoderBlock(width, config.n_heads, config.mlp_ratio, config.drop_out, config.drop_path)
            for _ in range(config.depth)
        ]
        self.add_module(f"blocks_{tower}", nn.ModuleList(blocks))
        self.add_module(f"norm_{tower}", nn.LayerNorm(width))

    def initialize(self) -> None:
        """Published initialisation: Xavier-uniform linear layers and patches, modality vectors with deviation 0.02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, PatchEmbed):
                nn.init.xavier_uniform_(module.proj.weight.view(module.proj.out_channels, -1))
        for name, parameter in self.named_parameters():
            if name.startswith("modality_"):
                nn.init.normal_(parameter, std=0.02)

    def embed_patches(self, image: Tensor, tower: Tower) -> Tensor:
        """Tokens ``[batch, N, D]`` before the first block.

        `image` is ``[batch, 3, frames, n_mels]`` for ``a`` (time before frequency) and ``[batch, 3, height, width]`` for
        ``v``.

        Raises
        ------
        SettingsError
            If its size is not the one that the position table is for.
        """
        rows, columns = self.config.grid(tower)
        image = image.transpose(2, 3) if tower == "a" else image
        if tuple(image.shape[1:]) != (3, rows * PATCH, columns * PATCH):
            what = "mel bands x frames" if tower == "a" else "pixels"
            raise SettingsError(
                f"This EquiAV reads {rows * PATCH} x {columns * PATCH} {what} in 3 channels, not "
                f"{image.shape[-2]} x {image.shape[-1]} in {image.shape[1]}.",
                "Use the front end of the checkpoint.",
            )
        patches = getattr(self, f"patch_embed_{tower}")(image)
        return patches + getattr(self, f"pos_embed_{tower}") + getattr(self, f"modality_{tower}")

    def encode(self, image: Tensor, tower: Tower, norm: str | None = None) -> Tensor:
        """Tokens ``[batch, N, D]`` after the last block and the layer norm named `norm` (default the tower's)."""
        tokens = self.embed_patches(image, tower)
        for block in getattr(self, f"blocks_{tower}"):
            tokens = block(tokens)
        return getattr(self, norm or f"norm_{tower}")(tokens)

    @torch.no_grad()
    def received_attention(self, image: Tensor, tower: Tower) -> Tensor:
        """Attention that every patch receives, mean over heads and queries: ``[batch, depth, rows, columns]``.

        There is no class token whose attention could be shown.
        """
        tokens, maps = self.embed_patches(image, tower), []
        for block in getattr(self, f"blocks_{tower}"):
            attention = block.attn
            try:
                attention.keep_attention = True
                tokens = block(tokens)
                maps.append(attention.attention.mean(dim=(1, 2)))
            finally:
                attention.keep_attention, attention.attention = False, None
        return torch.stack(maps, dim=1).unflatten(2, self.config.grid(tower))


def three_channels(features: Tensor) -> Tensor:
    """``[batch, frames, n_mels]`` to the network's three identical channels; ``[batch, 3, frames, n_mels]`` is kept."""
    return features if features.ndim == 4 else features.unsqueeze(1).expand(-1, 3, -1, -1)


def infer_towers(state_dict: Mapping[str, Tensor], n_mels: int = 128) -> dict[str, Any]:
    """Sizes of the towers in a published file, as settings.

    Raises
    ------
    CheckpointError
        If there is no tower.
    """
    tower = next((t for t in ("a", "v") if f"patch_embed_{t}.proj.weight" in state_dict), None)
    if tower is None:
        raise CheckpointError("The checkpoint has neither an audio nor a video transformer.", "It is not an EquiAV.")
    width = state_dict[f"patch_embed_{tower}.proj.weight"].shape[0]
    blocks = {int(key.split(".")[1]) for key in state_dict if key.startswith(f"blocks_{tower}.")}
    values: dict[str, Any] = {"width": width, "n_heads": max(1, width // 64), "depth": max(blocks, default=-1) + 1}
    if f"blocks_{tower}.0.mlp.fc1.weight" in state_dict:
        values["mlp_ratio"] = state_dict[f"blocks_{tower}.0.mlp.fc1.weight"].shape[0] / width
    if "pos_embed_a" in state_dict:
        values["target_length"] = PATCH * state_dict["pos_embed_a"].shape[1] // max(1, n_mels // PATCH)
    if "pos_embed_v" in state_dict:
        values["image_size"] = PATCH * math.isqrt(state_dict["pos_embed_v"].shape[1])
    return values


def fit_positions(table: Tensor, config: TwoTowerConfig) -> Tensor:
    """The audio position table for `target_length` frames: cut, or computed anew if it is the fixed sine table.

    Raises
    ------
    CheckpointError
        If a longer table is needed and the stored one was trained.
    """
    rows, columns = config.grid("a")
    stored = table.shape[1] // rows
    if stored * rows != table.shape[1]:
        raise CheckpointError(f"The position table has {table.shape[1]} entries, which are no {rows} rows.")
    if columns <= stored:
        return table.view(1, rows, stored, -1)[:, :, :columns].reshape(1, rows * columns, -1)
    if not torch.allclose(table.float(), sine_positions(config.width, rows, stored), atol=1e-4):
        raise CheckpointError(
            f"The position table was trained for {stored * PATCH} frames and cannot be extended to "
            f"{config.target_length}.",
            f"Use a target_length of at most {stored * PATCH}.",
        )
    return sine_positions(config.width, rows, columns)
