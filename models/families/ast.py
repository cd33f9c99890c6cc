"""AST, the Audio Spectrogram Transformer: a ViT on overlapping 16 x 16 patches of the log-mel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.frontends import FrontEndConfig
from models.frontends.kaldi import KaldiFbankConfig
from models.layers.ast_names import from_hugging_face, is_hugging_face
from models.layers.transformer import Block, SelfAttention
from models.network import CamLayer, Network, NetworkConfig
from models.registry import FamilyInfo, register_family

# name: (width, heads, depth, side of the square position grid of the DeiT it starts from)
SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny224": (192, 3, 12, 14),
    "small224": (384, 6, 12, 14),
    "base224": (768, 12, 12, 14),
    "base384": (768, 12, 12, 24),
}

# Number of patches of the published checkpoints: (both strides, frames).
PUBLISHED_PATCHES = {
    1212: (10, 1024),
    850: (12, 1024),
    657: (14, 1024),
    512: (16, 1024),
    600: (10, 512),
    144: (10, 128),
}


class ASTConfig(NetworkConfig):
    """Settings of AST.

    Attributes
    ----------
    model_size
        One of the published sizes, or ``custom`` with `width`, `n_heads`, `depth`.
    frequency_stride, time_stride
        Distance of patches, in mel bands and frames (10: patches overlap by 6).
    n_mels, target_length
        Size of the input; fixes the position table.
    eps, head_eps
        Of the layer norms (original 1e-6 and 1e-5; Hugging Face uses 1e-12 for both).
    drop_path
        Stochastic depth while training; the published models use none.
    """

    model_size: Literal["tiny224", "small224", "base224", "base384", "custom"] = "base384"
    width: int = 768
    n_heads: int = 12
    depth: int = 12
    frequency_stride: int = 10
    time_stride: int = 10
    n_mels: int = 128
    target_length: int = 1024
    eps: float = 1e-6
    head_eps: float = 1e-5
    drop_path: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, heads and depth."""
        if self.model_size == "custom":
            return self.width, self.n_heads, self.depth
        return SIZES[self.model_size][:3]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along frequency and time."""
        return (self.n_mels - 16) // self.frequency_stride + 1, (self.target_length - 16) // self.time_stride + 1


class PatchEmbed(nn.Module):
    """Patches of 16 bands x 16 frames to tokens, frequency-major."""

    def __init__(self, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, kernel_size=16, stride=stride)

    def forward(self, image: Tensor) -> Tensor:
        """``[batch, 1, n_mels, frames]`` to ``[batch, f * t, D]``."""
        return self.proj(image).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The distilled ViT inside AST (class and distillation token, two averaged outputs)."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        width, n_heads, depth = config.shape
        n_tokens = config.grid[0] * config.grid[1] + 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, n_tokens, width))
        self.patch_embed = PatchEmbed(width, (config.frequency_stride, config.time_stride))
        rates = torch.linspace(0.0, config.drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(width, n_heads, eps=config.eps, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=config.eps)
        for parameter in (self.cls_token, self.dist_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """``[batch, 1, n_mels, frames]`` to normalised tokens ``[batch, N, D]``."""
        patches = self.patch_embed(image)
        special = torch.cat([self.cls_token, self.dist_token], dim=1).expand(image.shape[0], -1, -1)
        tokens = torch.cat([special, patches], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


@register_family(
    FamilyInfo(
        name="ast",
        title="AST (Audio Spectrogram Transformer)",
        summary="A vision transformer on overlapping patches of the log-mel spectrogram.",
        citation="Gong, Chung, Glass: AST: Audio Spectrogram Transformer. Interspeech 2021, arXiv 2104.01778",
        views=frozenset({"attribution", "token_attention"}),
        published_key="v.patch_embed.proj.weight and mlp_head.1.weight",
    )
)
class AST(Network):
    """AST as published; every size, stride and input size.

    The hidden representation is ``[batch, D]``, the mean of the class and the distillation token.
    """

    Config = ASTConfig
    config: ASTConfig

    def __init__(self, config: ASTConfig) -> None:
        super().__init__(config)
        width = config.shape[0]
        self.v = VisionTransformer(config)
        self.mlp_head = nn.Sequential(nn.LayerNorm(width, eps=config.head_eps), nn.Linear(width, config.n_classes))

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, D]``."""
        tokens = self.v(features.transpose(1, 2).unsqueeze(1))
        return tokens[:, :2].mean(dim=1)

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, D]``."""
        return self.mlp_head(hidden)

    def cam_layers(self) -> list[CamLayer]:
        """The last blocks' patch tokens, laid out on the patch grid."""
        bands, steps = self.config.grid

        def to_map(tokens: Tensor) -> Tensor:
            patches = tokens[:, 2:].transpose(1, 2).unflatten(2, (bands, steps))
            return patches.transpose(2, 3)

        # Not the last block itself: behind it only the two special tokens are read, so its patches have no gradient.
        depth = len(self.v.blocks)
        chosen = [index for index in (depth - 2, depth // 2) if index >= 0]
        return [
            CamLayer(
                f"block {index + 1} of {depth}", self.v.blocks[index], to_map,
                7.5, self.config.time_stride, 7.5, self.config.frequency_stride,
            )
            for index in dict.fromkeys(chosen)
        ]  # fmt: skip

    @torch.no_grad()
    def token_attention(self, features: Tensor) -> Tensor:
        """Attention of the class and distillation token to the patches, mean over heads and both tokens.

        Returns ``[batch, depth, frequency patches, time patches]``. This is the attention that the model uses (after the
        block's first norm); the published notebook shows one computed before it.
        """
        attentions = [module for module in self.v.blocks.modules() if isinstance(module, SelfAttention)]
        try:
            for attention in attentions:
                attention.keep_attention = True
            self.forward_features(features)
            kept = [attention.attention for attention in attentions]
            maps = [weights[:, :, :2, 2:].mean(dim=(1, 2)) for weights in kept if weights is not None]
        finally:
            for attention in attentions:
                attention.keep_attention, attention.attention = False, None
        return torch.stack(maps, dim=1).unflatten(2, self.config.grid)

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """AudioSet's normalisation; padding with zeros as published."""
        assert isinstance(config, ASTConfig)
        return KaldiFbankConfig(
            n_mels=config.n_mels,
            target_length=config.target_length,
            padding="zero",
            mean=-4.2677393,
            std_scale=9.1379948,
        )

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By AST's own key names, or Hugging Face's."""
        return {"v.patch_embed.proj.weight", "mlp_head.1.weight"} <= set(state_dict) or is_hugging_face(state_dict)

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> ASTConfig:
        """Width and depth from shapes.

        Of strides and frames only the number of patches is stored: unless `hints` tell, they are those of the published
        checkpoint with that number.
        """
        published_eps: dict[str, Any] = {}
        if is_hugging_face(state_dict):
            state_dict, published_eps = from_hugging_face(state_dict), {"eps": 1e-12, "head_eps": 1e-12}
        width = state_dict["v.cls_token"].shape[-1]
        depth = len({key.split(".")[2] for key in state_dict if key.startswith("v.blocks.")})
        stored = state_dict["v.pos_embed"].shape[1] - 2
        values: dict[str, Any] = {
            "model_size": "custom", "width": width, "n_heads": max(1, width // 64), "depth": depth,
            "n_classes": state_dict["mlp_head.1.weight"].shape[0],
        } | published_eps  # fmt: skip
        if not {"frequency_stride", "time_stride", "target_length", "n_mels"} & set(hints):
            stride, length = PUBLISHED_PATCHES.get(stored, (10, 1024))
            values |= {"frequency_stride": stride, "time_stride": stride, "target_length": length}
        config = ASTConfig.model_validate(values | dict(hints))
        if config.grid[0] * config.grid[1] != stored:
            raise CheckpointError(
                f"The checkpoint has {stored} patch positions, but {config.target_length} frames with strides "
                f"{config.frequency_stride}/{config.time_stride} need {config.grid[0] * config.grid[1]}.",
                "Give the strides and the number of frames it was trained with (frequency_stride, time_stride, "
                "target_length).",
            )
        return config

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Original names; without the ImageNet heads, which published files carry along unused."""
        if is_hugging_face(state_dict):
            state_dict = from_hugging_face(state_dict)
        return {key: value for key, value in state_dict.items() if not key.startswith(("v.head.", "v.head_dist."))}
