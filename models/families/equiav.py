"""EquiAV fine-tuned for event classification: audio, one video frame, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.frontends import FrontEndConfig
from models.frontends.kaldi import KaldiFbankConfig
from models.layers.equiav import (
    PATCH,
    ProjectionMLP,
    Tower,
    TwoTowerConfig,
    TwoTowerNetwork,
    fit_positions,
    infer_towers,
    three_channels,
)
from models.network import CamLayer, NetworkConfig
from models.registry import FamilyInfo, register_family
from models.video_frames import prepare_frames, read_middle_frame

if TYPE_CHECKING:
    from models.video import VideoTrack

Mode = Literal["audio_only", "video_only", "multimodal"]

CITATION = (
    "Kim, Lee, Rho, Kim, Chung: EquiAV: Leveraging Equivariance for Audio-Visual Contrastive Learning. ICML 2024, "
    "arXiv 2403.09502"
)
# Mean and standard deviation of the log-mel features, by training data. One deviation is divided by (AST divides by two).
STATISTICS = {"audioset": (-4.346, 4.332), "vggsound": (-4.956, 4.486)}


class EquiAVConfig(TwoTowerConfig):
    """Settings of the fine-tuning network.

    Attributes
    ----------
    mode
        What the head reads.
    projection_size
        Output size of the projections ``pred_a_inter`` and ``pred_v_inter``.
    inter_linear
        Projections are linear (published) or MLPs, as in pre-training.
    head_type, head_hidden
        One linear layer, or linear - batch norm - ReLU - linear with this hidden size.
    both_towers
        Keep the tower that the mode does not read (files of one published code base hold it; it has no effect).
    """

    mode: Mode = "audio_only"
    projection_size: int = 512
    inter_linear: bool = True
    head_type: Literal["linear", "mlp"] = "linear"
    head_hidden: int = 512
    both_towers: bool = False

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The modalities that the mode reads."""
        by_mode: dict[Mode, tuple[Tower, ...]] = {
            "audio_only": ("a",), "video_only": ("v",), "multimodal": ("a", "v")
        }  # fmt: skip
        return by_mode[self.mode]

    @property
    def head_input(self) -> int:
        """Size of what the head reads.

        The published code builds heads of another size for some modes, which then fail in its own forward pass; these are
        the sizes of every head that could be trained.
        """
        return {
            "audio_only": self.projection_size, "video_only": self.width, "multimodal": 2 * self.projection_size
        }[self.mode]  # fmt: skip


@register_family(
    FamilyInfo(
        name="equiav",
        title="EquiAV",
        summary="A vision transformer on the log-mel (and one on a video frame) whose mean token is classified, so that "
        "every patch's share of a score is known exactly.",
        citation=CITATION,
        modalities=("audio", "video"),
        views=frozenset({"attribution", "time_attention", "token_attention"}),
        published_key="patch_embed_a.proj.weight or patch_embed_v.proj.weight, and mlp_head.0.weight",
    )
)
class EquiAV(TwoTowerNetwork):
    """EquiAV as fine-tuned, with published names and quirks.

    Quirks that checkpoints depend on: layer-norm epsilon 1e-5; in audio_only the projection comes before the mean over
    tokens, in multimodal after it (which matters for MLP projections); video_only does not use its projection. The hidden
    representation is ``[batch, head_input]``: the mean token, projected.
    """

    Config = EquiAVConfig
    config: EquiAVConfig

    def __init__(self, config: EquiAVConfig) -> None:
        super().__init__(config)
        for tower in ("a", "v") if config.both_towers else config.towers:
            self.add_tower(tower)
        for name in ("pred_a_inter", "pred_v_inter"):
            if config.inter_linear:
                self.add_module(name, nn.Linear(config.width, config.projection_size))
            else:
                self.add_module(name, ProjectionMLP(config.width, config.projection_hidden, config.projection_size))
        if config.head_type == "linear":
            self.mlp_head = nn.Sequential(nn.Linear(config.head_input, config.n_classes))
        else:
            self.mlp_head = nn.Sequential(
                nn.Linear(config.head_input, config.head_hidden),
                nn.BatchNorm1d(config.head_hidden),
                nn.ReLU(),
                nn.Linear(config.head_hidden, config.n_classes),
            )
        self.initialize()

    def forward_features(self, features: Tensor | None, frames: Tensor | None = None) -> Tensor:
        """Mean token of the mode's modalities, ``[batch, head_input]``.

        Parameters
        ----------
        features
            ``[batch, frames, n_mels]`` (or with three channels before the frames); video_only does not look at them.
        frames
            RGB in 0..1, ``[batch, n_frames, 3, height, width]``; the middle one is read. Or what `encode_frames` made of
            them.

        Raises
        ------
        SettingsError
            If a modality that the mode reads is missing.
        """
        seen = None
        if "v" in self.config.towers:
            if frames is None:
                raise SettingsError(
                    f"This EquiAV ({self.config.mode}) needs a video frame besides the sound.",
                    "Open a clip with video, or use an audio_only checkpoint.",
                )
            seen = frames if frames.ndim == 2 else self.encode_frames(frames)
        spectrogram = None if "a" not in self.config.towers or features is None else three_channels(features)
        return self._join(spectrogram, seen)

    def read_frames(self, video: VideoTrack | None, start: float = 0.0, seconds: float | None = None) -> Tensor:
        """The frame in the middle, as published test sets take it, ``[1, 1, 3, height, width]``; without a video, mean grey.

        Raises
        ------
        SettingsError
            If there is no video and the network looks at nothing else.
        """
        if video is None and "a" not in self.config.towers:
            raise SettingsError("This model looks at the picture alone, and the clip has none.", "Open a video.")
        return read_middle_frame(video, start, seconds, self.config.image_size)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Mean token of the middle frame, ``[batch, width]``."""
        picture = prepare_frames(frames[:, frames.shape[1] // 2], self.config.image_size)
        return self.encode(picture, "v").mean(dim=1)

    def pool(self, spectrogram: Tensor | None, picture: Tensor | None) -> Tensor:
        """`forward_features` of prepared inputs.

        `spectrogram` is ``[batch, 3, frames, n_mels]`` and `picture` ``[batch, 3, image_size, image_size]`` in ImageNet's
        scale; what the mode does not read may be None.
        """
        missing = [t for t, x in (("a", spectrogram), ("v", picture)) if t in self.config.towers and x is None]
        if missing:
            raise SettingsError(f"This EquiAV ({self.config.mode}) needs {'sound' if 'a' in missing else 'a picture'}.")
        if self.config.mode == "audio_only":
            assert spectrogram is not None
            return self.project(self.encode(spectrogram, "a"), "a").mean(dim=1)
        assert picture is not None
        return self._join(spectrogram, self.encode(picture, "v").mean(dim=1))

    def _join(self, spectrogram: Tensor | None, seen: Tensor | None) -> Tensor:
        """The hidden representation of a prepared sound and the picture's mean token."""
        if seen is None:
            return self.pool(spectrogram, None)
        if self.config.mode == "video_only":
            return seen
        if spectrogram is None:
            raise SettingsError(f"This EquiAV ({self.config.mode}) needs sound.")
        heard = self.encode(spectrogram, "a").mean(dim=1)
        return torch.cat([self.project(heard, "a"), self.project(seen, "v")], dim=1)

    def project(self, hidden: Tensor, tower: Tower) -> Tensor:
        """Projection in front of the head, ``[..., width]`` to ``[..., projection_size]``."""
        return getattr(self, f"pred_{tower}_inter")(hidden)

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, head_input]``."""
        return self.mlp_head(hidden)

    def forward(self, features: Tensor | None, frames: Tensor | None = None) -> Tensor:
        """Logits ``[batch, n_classes]``."""
        return self.forward_head(self.forward_features(features, frames))

    # --- explanations -----------------------------------------------------------------------------------------------

    @property
    def modalities(self) -> tuple[str, ...]:
        """What this configuration reads (the family as a whole reads sound and pictures)."""
        return tuple({"a": "audio", "v": "video"}[tower] for tower in self.config.towers)

    @property
    def views(self) -> frozenset[str]:
        """What this configuration can show; evidence over time needs linear layers and sound alone."""
        if self.config.mode == "video_only":
            return frozenset()
        exact = self.decomposable and self.config.mode == "audio_only"
        return self.info.views if exact else self.info.views - {"time_attention"}

    @property
    def decomposable(self) -> bool:
        """Whether a logit is exactly a sum over patches (linear head, linear or no projection)."""
        config = self.config
        return config.head_type == "linear" and (config.inter_linear or config.mode == "video_only")

    def token_evidence(self, features: Tensor | None, frames: Tensor | None = None) -> dict[Tower, Tensor]:
        """What every patch adds to every logit: ``[batch, n_classes, rows, columns]`` by modality.

        All entries and the head's bias sum to the logit. ``e[n, c] = head.W[c] (pred.W y_n + pred.b) / N`` for audio_only
        and each half of multimodal, ``head.W[c] y_n / N`` for video_only. Tokens have seen each other in the transformer: a
        map says where evidence is read out, not where it entered.

        Raises
        ------
        SettingsError
            If head or projection are not linear.
        """
        config = self.config
        if not self.decomposable:
            raise SettingsError(
                "The scores of this EquiAV are no sum over patches: its head or its projection is not linear.",
                "Use an attribution method instead.",
            )
        weight = self.mlp_head.get_parameter("0.weight")
        images: dict[Tower, Tensor] = {}
        if "a" in config.towers and features is not None:
            images["a"] = three_channels(features)
        if "v" in config.towers and frames is not None:
            images["v"] = prepare_frames(frames[:, frames.shape[1] // 2], config.image_size)
        evidence: dict[Tower, Tensor] = {}
        for index, tower in enumerate(config.towers):
            if tower not in images:
                raise SettingsError(
                    f"This EquiAV ({config.mode}) needs {'sound' if tower == 'a' else 'a video frame'}."
                )
            tokens = self.encode(images[tower], tower)
            if config.mode != "video_only":
                tokens = self.project(tokens, tower)
                part = weight[:, index * config.projection_size : (index + 1) * config.projection_size]
            else:
                part = weight
            shares = tokens @ part.T / tokens.shape[1]
            evidence[tower] = shares.transpose(1, 2).unflatten(2, config.grid(tower))
        return evidence

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Exact evidence of every column of patches (16 frames each), and the columns' centres in frames."""
        if self.config.mode != "audio_only":
            raise SettingsError(
                f"This EquiAV ({self.config.mode}) has no evidence over time from the sound alone.",
                "Use token_evidence with the frames.",
            )
        evidence = self.token_evidence(features)["a"].sum(dim=2)
        centers = torch.arange(evidence.shape[2], device=evidence.device) * PATCH + (PATCH - 1) / 2
        return evidence, centers

    def token_attention(self, features: Tensor) -> Tensor:
        """Attention that every patch of the sound receives, ``[batch, depth, frequency patches, time patches]``."""
        if "a" not in self.config.towers:
            raise SettingsError("This EquiAV (video_only) does not read sound.", "Use an audio_only checkpoint.")
        return self.received_attention(three_channels(features), "a")

    def cam_layers(self) -> list[CamLayer]:
        """Blocks of the audio tower, laid out on the patch grid; all tokens are averaged, so the last has a gradient."""
        if "a" not in self.config.towers:
            return []
        grid, blocks = self.config.grid("a"), self.get_submodule("blocks_a")
        assert isinstance(blocks, nn.ModuleList)

        def to_map(tokens: Tensor) -> Tensor:
            return tokens.transpose(1, 2).unflatten(2, grid).transpose(2, 3)

        center, depth = (PATCH - 1) / 2, len(blocks)
        return [
            CamLayer(f"block {index + 1} of {depth}", blocks[index], to_map, center, PATCH, center, PATCH)
            for index in dict.fromkeys([depth - 1, depth // 2])
        ]

    # --- published checkpoints --------------------------------------------------------------------------------------

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """AudioSet's statistics; padding with raw zeros as published (it is far louder than silence)."""
        assert isinstance(config, EquiAVConfig)
        mean, deviation = STATISTICS["audioset"]
        return KaldiFbankConfig(
            n_mels=config.n_mels, target_length=config.target_length, padding="zero", mean=mean, std_scale=deviation
        )

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By a suffixed tower and the head."""
        towers = ("patch_embed_a.proj.weight", "patch_embed_v.proj.weight")
        return "mlp_head.0.weight" in state_dict and any(key in state_dict for key in towers)

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> EquiAVConfig:
        """All sizes from shapes; the number of heads (64 per head is assumed) may be given in `hints`.

        `hints` may also hold another ``target_length`` than the file's: the position table is adapted.

        Raises
        ------
        CheckpointError
            If the file has no tower, or the mode cannot be told from it.
        """
        values = infer_towers(state_dict, int(hints.get("n_mels", 128)))
        linear = "pred_a_inter.weight" in state_dict
        projection = state_dict.get("pred_a_inter.weight" if linear else "pred_a_inter.fc3.weight")
        if projection is None:
            raise CheckpointError("The checkpoint has no projection (pred_a_inter).", "It is not a fine-tuned EquiAV.")
        if not linear:
            values["projection_hidden"] = state_dict["pred_a_inter.fc1.weight"].shape[0]
        mlp = "mlp_head.3.weight" in state_dict
        head_input = state_dict["mlp_head.0.weight"].shape[1]
        values |= {
            "inter_linear": linear, "projection_size": projection.shape[0], "head_type": "mlp" if mlp else "linear",
            "n_classes": state_dict["mlp_head.3.weight" if mlp else "mlp_head.0.weight"].shape[0],
        }  # fmt: skip
        if mlp:
            values["head_hidden"] = state_dict["mlp_head.0.weight"].shape[0]
        inputs: dict[str, int] = {
            "multimodal": 2 * projection.shape[0], "audio_only": projection.shape[0], "video_only": values["width"]
        }  # fmt: skip
        towers = {"multimodal": ("a", "v"), "audio_only": ("a",), "video_only": ("v",)}
        possible = [
            mode for mode, size in inputs.items()
            if size == head_input and all(f"patch_embed_{t}.proj.weight" in state_dict for t in towers[mode])
        ]  # fmt: skip
        wanted = hints.get("mode")
        if wanted is None and len(possible) != 1:
            raise CheckpointError(
                f"It cannot be told whether the checkpoint is for {' or '.join(possible) or 'sound, video or both'}: its "
                f"head reads {head_input} values.",
                "Give the mode (audio_only, video_only or multimodal).",
            )
        if wanted is not None and wanted not in possible:
            raise CheckpointError(
                f"The checkpoint is for {' or '.join(possible) or 'another model'}, not for {wanted}: its head reads "
                f"{head_input} values.",
                "Choose the mode it was trained for.",
            )
        return EquiAVConfig.model_validate(values | {"mode": wanted or possible[0]} | dict(hints))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Drop the tower that the mode does not read and learnable temperatures; fit the audio position table."""
        assert isinstance(config, EquiAVConfig)
        ignored = set(ignored_keys(state_dict, config))
        kept = {key: value for key, value in state_dict.items() if key not in ignored}
        if "pos_embed_a" in kept:
            kept["pos_embed_a"] = fit_positions(kept["pos_embed_a"], config)
        return kept


def ignored_keys(state_dict: Mapping[str, Tensor], config: EquiAVConfig) -> list[str]:
    """Entries of a published file that this configuration has no place for, and that have no effect."""
    unused = {"a", "v"} - set(config.towers) if not config.both_towers else set()
    stems = tuple(f"{stem}_{t}" for t in unused for stem in ("modality", "pos_embed", "patch_embed", "blocks", "norm"))
    return [k for k in state_dict if k.split(".")[0] in stems or k.startswith(("__L_", "__L__"))]
