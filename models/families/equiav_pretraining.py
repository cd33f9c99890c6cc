"""EquiAV as pre-trained: sound and picture in one space, and transformations that are predicted from their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.families.equiav import CITATION, STATISTICS
from models.frontends import FrontEndConfig
from models.frontends.kaldi import KaldiFbankConfig
from models.layers.equiav import (
    ProjectionMLP,
    Tower,
    TwoTowerConfig,
    TwoTowerNetwork,
    fit_positions,
    infer_towers,
    three_channels,
)
from models.layers.transformer import MLP
from models.network import NetworkConfig
from models.registry import FamilyInfo, register_family
from models.training.equiav_augment import AUDIO_VECTOR_SIZES, VIDEO_VECTOR_SIZES, centroid_vectors
from models.video_frames import prepare_frames, read_middle_frame

if TYPE_CHECKING:
    from models.video import VideoTrack

_CROSS_HEADS, _CROSS_HEAD_SIZE = 8, 64  # fixed, whatever the width of the tokens


class EquiAVPretrainingConfig(TwoTowerConfig):
    """Settings of the pre-training network; `n_classes` is the size of the space that sound and picture share.

    Attributes
    ----------
    intra_size
        Size of the space in which transformed views are compared.
    audio_vector_size, video_vector_size
        Sizes of the augmentation parameter vectors.
    vector_width
        Size of an encoded augmentation vector.
    centroid
        Use the mean prediction over many augmentation vectors as embedding, rather than the mean token.
    n_centroid
        How many vectors that are.
    centroid_seed
        Seed of those vectors where none are given; the published code draws new ones at every call.
    """

    n_classes: int = 512
    intra_size: int = 512
    audio_vector_size: int = 24
    video_vector_size: int = 18
    vector_width: int = 256
    centroid: bool = True
    n_centroid: int = 16
    centroid_seed: int = 0

    def vector_size(self, tower: Tower) -> int:
        """Size of the augmentation vectors of a modality."""
        return self.audio_vector_size if tower == "a" else self.video_vector_size


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(1.702 * x)


class CrossAttention(nn.Module):
    """Queries from augmentation vectors, keys and values from tokens; 8 heads of 64."""

    def __init__(self, width: int, vector_width: int) -> None:
        super().__init__()
        inner = _CROSS_HEADS * _CROSS_HEAD_SIZE
        self.to_q = nn.Linear(vector_width, inner)
        self.to_k = nn.Linear(width, inner)
        self.to_v = nn.Linear(width, inner)
        self.to_out = nn.Linear(inner, width, bias=False)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(2, (_CROSS_HEADS, _CROSS_HEAD_SIZE)).transpose(1, 2)

    def weights(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """Softmax over tokens, ``[batch, 8, n, N]``."""
        query, key = self._heads(self.to_q(vectors)), self._heads(self.to_k(tokens))
        return (query @ key.transpose(-2, -1) * _CROSS_HEAD_SIZE**-0.5).softmax(dim=-1)

    def forward(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """``[batch, n, vector_width]`` and ``[batch, N, D]`` to ``[batch, n, D]``."""
        query, key, value = (
            self._heads(x) for x in (self.to_q(vectors), self.to_k(tokens), self.to_v(tokens))
        )  # fmt: skip
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class TransformationPredictor(nn.Module):
    """Feature of a transformed input, from the clean input's tokens and the transformation's parameters."""

    def __init__(self, width: int, vector_width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_aug = nn.LayerNorm(vector_width)
        self.attn = CrossAttention(width, vector_width)
        self.norm = nn.LayerNorm(width)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor, vectors: Tensor) -> Tensor:
        """``[batch, N, D]`` and encoded ``[batch, n, vector_width]`` to ``[batch, D]``, the mean over the n vectors."""
        predicted = tokens.mean(dim=1, keepdim=True) + self.attn(self.norm_aug(vectors), tokens)
        return (predicted + self.mlp(self.norm(predicted))).mean(dim=1)


class PretrainingOutput(NamedTuple):
    """Embeddings ``[batch, n_classes]`` (inv) and ``[batch, intra_size]`` (equi, aug), in published order."""

    audio_inv: Tensor
    video_inv: Tensor
    audio_equi: Tensor
    video_equi: Tensor
    audio_aug: Tensor
    video_aug: Tensor

    def equivariance_error(self) -> tuple[Tensor, Tensor]:
        """How far predicted and actual features of each augmented sound and picture are apart: 1 - cosine, ``[batch]``."""
        return (
            1 - nn.functional.cosine_similarity(self.audio_equi, self.audio_aug, dim=1),
            1 - nn.functional.cosine_similarity(self.video_equi, self.video_aug, dim=1),
        )


@register_family(
    FamilyInfo(
        name="equiav_pretraining",
        title="EquiAV (pre-training)",
        summary="Embeds sounds and pictures in one space and predicts how an embedding changes under an augmentation.",
        citation=CITATION,
        modalities=("audio", "video"),
        views=frozenset({"token_attention"}),
        published_key="cross_attn_a.attn.to_q.weight",
    )
)
class EquiAVPretraining(TwoTowerNetwork):
    """The pre-training network with published names.

    As a recognizer it has no classes: its output is the embedding of the sound in the space that it shares with pictures.
    The hidden representation is the tokens ``[batch, N, D]``.
    """

    Config = EquiAVPretrainingConfig
    config: EquiAVPretrainingConfig

    def __init__(self, config: EquiAVPretrainingConfig) -> None:
        super().__init__(config)
        for name, size, known in (
            ("audio_vector_size", config.audio_vector_size, AUDIO_VECTOR_SIZES),
            ("video_vector_size", config.video_vector_size, VIDEO_VECTOR_SIZES),
        ):
            if size not in known:
                raise SettingsError(f"{name} cannot be {size}.", f"Possible are {', '.join(map(str, known))}.")
        width, vector_width = config.width, config.vector_width
        for tower in ("a", "v"):
            self.add_tower(tower)
            self.add_module(f"norm_{tower}_aug", nn.LayerNorm(width))
            encoder = nn.Sequential(
                nn.Linear(config.vector_size(tower), vector_width), QuickGELU(),
                nn.Linear(vector_width, vector_width), QuickGELU(),
                nn.Linear(vector_width, vector_width),
            )  # fmt: skip
            self.add_module(f"aug_encoder_{tower}", encoder)
            predictor = TransformationPredictor(width, vector_width, config.mlp_ratio)
            self.add_module(f"cross_attn_{tower}", predictor)
            for kind, size in (("intra", config.intra_size), ("inter", config.n_classes)):
                self.add_module(f"pred_{tower}_{kind}", ProjectionMLP(width, config.projection_hidden, size))
        self.initialize()

    def predict(self, tokens: Tensor, vectors: Tensor, tower: Tower) -> Tensor:
        """Predicted feature ``[batch, D]`` under augmentation vectors ``[batch, n, size]``, mean over them."""
        return getattr(self, f"cross_attn_{tower}")(tokens, getattr(self, f"aug_encoder_{tower}")(vectors))

    def embed(self, tokens: Tensor, tower: Tower, vectors: Tensor | None = None) -> Tensor:
        """Embedding ``[batch, n_classes]`` of clean tokens in the shared space.

        `vectors` ``[batch, n_centroid, size]`` are used if the configuration says `centroid`; drawn from its seed if None.
        """
        project = getattr(self, f"pred_{tower}_inter")
        if not self.config.centroid:
            return project(tokens.mean(dim=1))
        if vectors is None:
            vectors = self.seeded_vectors(tokens, tower)
        return project(self.predict(tokens, vectors, tower))

    def seeded_vectors(self, tokens: Tensor, tower: Tower) -> Tensor:
        """Augmentation vectors for every item of the batch, the same for each: an embedding is no matter of chance."""
        config = self.config
        drawn = centroid_vectors(tower, config.n_centroid, config.vector_size(tower), seed=config.centroid_seed)
        return drawn.to(tokens.device).expand(tokens.shape[0], -1, -1)

    def forward_views(
        self,
        audio: Tensor,
        video: Tensor,
        audio_view: Tensor,
        video_view: Tensor,
        audio_vector: Tensor,
        video_vector: Tensor,
        audio_centroid: Tensor | None = None,
        video_centroid: Tensor | None = None,
    ) -> PretrainingOutput:
        """All embeddings that the losses compare.

        Parameters
        ----------
        audio, audio_view
            Clean and augmented spectrogram, ``[batch, 3, frames, n_mels]``.
        video, video_view
            Clean and augmented picture, ``[batch, 3, image_size, image_size]``.
        audio_vector, video_vector
            Parameters of the augmentations, ``[batch, size]``.
        audio_centroid, video_centroid
            ``[batch, n_centroid, size]`` for the embedding in the shared space, if the configuration says `centroid`.
        """
        results: dict[Tower, tuple[Tensor, Tensor, Tensor]] = {}
        inputs: tuple[tuple[Tower, Tensor, Tensor, Tensor, Tensor | None], ...] = (
            ("a", audio, audio_view, audio_vector, audio_centroid),
            ("v", video, video_view, video_vector, video_centroid),
        )
        for tower, clean, view, vector, centroid in inputs:
            tokens = self.encode(clean, tower)
            changed = self.encode(view, tower, norm=f"norm_{tower}_aug")
            compare = getattr(self, f"pred_{tower}_intra")
            results[tower] = (
                self.embed(tokens, tower, centroid),
                compare(self.predict(tokens, vector.unsqueeze(1), tower)),
                compare(changed.mean(dim=1)),
            )
        heard, seen = results["a"], results["v"]
        return PretrainingOutput(heard[0], seen[0], heard[1], seen[1], heard[2], seen[2])

    def retrieval_features(
        self, audio: Tensor, video: Tensor, audio_centroid: Tensor | None = None, video_centroid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embeddings for retrieval, ``[batch, n_classes]`` each: always the centroid, whatever the configuration says."""
        embeddings = []
        inputs: tuple[tuple[Tower, Tensor, Tensor | None], ...] = (
            ("a", audio, audio_centroid), ("v", video, video_centroid)
        )  # fmt: skip
        for tower, image, vectors in inputs:
            tokens = self.encode(image, tower)
            chosen = self.seeded_vectors(tokens, tower) if vectors is None else vectors
            embeddings.append(getattr(self, f"pred_{tower}_inter")(self.predict(tokens, chosen, tower)))
        return embeddings[0], embeddings[1]

    def predictor_attention(self, image: Tensor, vectors: Tensor, tower: Tower) -> Tensor:
        """Which tokens each augmentation vector attends to, ``[batch, 8, n, N]``."""
        predictor = self.get_submodule(f"cross_attn_{tower}")
        assert isinstance(predictor, TransformationPredictor)
        encoded = getattr(self, f"aug_encoder_{tower}")(vectors)
        return predictor.attn.weights(predictor.norm_aug(encoded), self.encode(image, tower))

    # --- the contract of a network ----------------------------------------------------------------------------------

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Tokens of the sound, ``[batch, N, D]``."""
        return self.encode(three_channels(features), "a")

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Embedding of the sound, ``[batch, n_classes]``."""
        return self.embed(hidden, "a")

    def read_frames(self, video: VideoTrack | None, start: float = 0.0, seconds: float | None = None) -> Tensor:
        """The frame in the middle, ``[1, 1, 3, height, width]``, for `embed_frames`; without a video, mean grey."""
        return read_middle_frame(video, start, seconds, self.config.image_size)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Embedding ``[batch, n_classes]`` of the middle one of ``[batch, n_frames, 3, height, width]``, RGB in 0..1."""
        picture = prepare_frames(frames[:, frames.shape[1] // 2], self.config.image_size)
        return self.embed(self.encode(picture, "v"), "v")

    def token_attention(self, features: Tensor) -> Tensor:
        """Attention that every patch of the sound receives, ``[batch, depth, frequency patches, time patches]``."""
        return self.received_attention(three_channels(features), "a")

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """AudioSet's statistics; padding with raw zeros as published."""
        assert isinstance(config, EquiAVPretrainingConfig)
        mean, deviation = STATISTICS["audioset"]
        return KaldiFbankConfig(
            n_mels=config.n_mels, target_length=config.target_length, padding="zero", mean=mean, std_scale=deviation
        )

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the transformation predictor."""
        return "cross_attn_a.attn.to_q.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> EquiAVPretrainingConfig:
        """All sizes from shapes; `n_heads` and `centroid` may be given in `hints`."""
        values = infer_towers(state_dict, int(hints.get("n_mels", 128)))
        try:
            values |= {
                "audio_vector_size": state_dict["aug_encoder_a.0.weight"].shape[1],
                "video_vector_size": state_dict["aug_encoder_v.0.weight"].shape[1],
                "vector_width": state_dict["aug_encoder_a.0.weight"].shape[0],
                "projection_hidden": state_dict["pred_a_inter.fc1.weight"].shape[0],
                "n_classes": state_dict["pred_a_inter.fc3.weight"].shape[0],
                "intra_size": state_dict["pred_a_intra.fc3.weight"].shape[0],
            }
        except KeyError as error:
            raise CheckpointError(f"The pre-training checkpoint lacks {error.args[0]}.", "It is incomplete.") from error
        return EquiAVPretrainingConfig.model_validate(values | dict(hints))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Drop learnable temperatures; fit the audio position table."""
        assert isinstance(config, EquiAVPretrainingConfig)
        kept = {key: value for key, value in state_dict.items() if not key.startswith("__L_")}
        if "pos_embed_a" in kept:
            kept["pos_embed_a"] = fit_positions(kept["pos_embed_a"], config)
        return kept
