"""The contract of a model family: features in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.frontends import FrontEndConfig
from models.registry import FamilyInfo

if TYPE_CHECKING:
    from models.video import VideoTrack


class NetworkConfig(BaseModel):
    """Settings of an architecture; every family adds its own. `n_classes` is the size of the output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_classes: int = 527


@dataclass(frozen=True)
class CamLayer:
    """A layer whose activations can be laid out over time and frequency (for Grad-CAM and its token version).

    Attributes
    ----------
    name
        Name for people, such as ``last block``.
    module
        The module whose output is taken.
    to_map
        Turns that output into ``[batch, channels, time, frequency]``.
    time_center, time_step
        Position of the map's first column and distance of its columns, in feature frames.
    frequency_center, frequency_step
        The same for rows, in mel bands.
    """

    name: str
    module: nn.Module
    to_map: Callable[[Tensor], Tensor]
    time_center: float
    time_step: float
    frequency_center: float
    frequency_step: float


class Network(nn.Module):
    """A trained architecture without its front end and labels.

    Parameter names are those of the published checkpoints wherever there are some, so that importing one is a matter of
    stripping prefixes. Subclasses set `Config`, are decorated with `models.registry.register_family`, and implement
    `forward_features` and `forward_head`. No buffer may be non-persistent: networks are built on the meta device and
    filled from the checkpoint.
    """

    Config: ClassVar[type[NetworkConfig]] = NetworkConfig
    info: ClassVar[FamilyInfo]

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def views(self) -> frozenset[str]:
        """What this very network can show; some configurations of a family cannot show all that the family can."""
        return self.info.views

    @property
    def modalities(self) -> tuple[str, ...]:
        """What this very network reads; one that is not registered reads sound."""
        return self.info.modalities if hasattr(self, "info") else ("audio",)

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Hidden representation of ``[batch, frames, n_mels]``: what `forward_head` reads and fine-tuning caches.

        `frames` is the picture, ``[batch, n_frames, 3, height, width]`` in 0..1, for families that read video.
        """
        raise NotImplementedError

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits ``[batch, n_classes]`` of a hidden representation."""
        raise NotImplementedError

    def forward(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Logits ``[batch, n_classes]``; where the published model gives probabilities, their log-odds."""
        hidden = self.forward_features(features) if frames is None else self.forward_features(features, frames)
        return self.forward_head(hidden)

    def read_frames(self, video: VideoTrack | None, start: float = 0.0, seconds: float | None = None) -> Tensor:
        """The picture of `seconds` from `start` on as this network reads it, ``[1, n_frames, 3, height, width]`` in 0..1.

        Only for networks with the modality ``video``. Without a video it is plain grey.

        Raises
        ------
        MediaError
            If the video cannot be decoded.
        """
        raise NotImplementedError

    def encode_frames(self, frames: Tensor) -> Tensor:
        """What `forward_features` takes in place of `frames`, so that they are encoded once while only the sound varies."""
        return frames

    def cam_layers(self) -> list[CamLayer]:
        """Layers for Grad-CAM, best first; empty if there is none."""
        return []

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Contribution of every time step to every class ``[batch, n_classes, steps]``, and the steps' centres in frames.

        Only for families with the view ``time_attention``.
        """
        raise NotImplementedError

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """The published front end for a configuration."""
        raise NotImplementedError

    # --- published checkpoints -------------------------------------------------------------------------------------

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether the keys of a published checkpoint (prefixes stripped) look like this family's."""
        return False

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> NetworkConfig:
        """Configuration of a published checkpoint, from its shapes and from what the user said (`hints`).

        Raises
        ------
        CheckpointError
            Naming what cannot be told from the file and has to be given.
        """
        return cls.Config.model_validate(dict(hints))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Published entries to this class's entries (drop unused heads, adapt position tables)."""
        return dict(state_dict)


def log_odds(probability: Tensor, eps: float = 1e-7) -> Tensor:
    """``ln(p / (1 - p))`` with p clamped to ``[eps, 1 - eps]``: the logit of a model that outputs probabilities."""
    return torch.logit(probability.clamp(eps, 1.0 - eps))
