"""Settings of the SlowFast network, and how weights and option tree of a published checkpoint tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator
from torch import Tensor

from models.errors import CheckpointError
from models.network import NetworkConfig

PerStage = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
# Classes of the published models -> frames of the fast stream; the slow-only models read a quarter.
PUBLISHED_FRAMES = {(309,): 512, (97, 300): 400, (44,): 400}
NAMES = {
    "MODEL.ARCH": "arch",
    "MODEL.HEAD_ACT": "head_activation",
    "MODEL.DROPOUT_RATE": "dropout",
    "RESNET.DEPTH": "depth",
    "RESNET.WIDTH_PER_GROUP": "width",
    "RESNET.NUM_GROUPS": "n_groups",
    "RESNET.STRIDE_1X1": "stride_1x1",
    "RESNET.NUM_BLOCK_TEMP_KERNEL": "temporal_blocks",
    "RESNET.FREQUENCY_STRIDES": "frequency_strides",
    "RESNET.FREQUENCY_DILATIONS": "frequency_dilations",
    "RESNET.ZERO_INIT_FINAL_BN": "zero_init_final_bn",
    "SLOWFAST.ALPHA": "alpha",
    "SLOWFAST.BETA_INV": "beta",
    "SLOWFAST.FUSION_CONV_CHANNEL_RATIO": "fusion_ratio",
    "SLOWFAST.FUSION_KERNEL_SZ": "fusion_kernel",
    "AUDIO_DATA.NUM_FRAMES": "n_frames",
    "AUDIO_DATA.NUM_FREQUENCIES": "n_mels",
}


class SlowFastConfig(NetworkConfig):
    """Settings of SlowFast; the defaults are the published VGG-Sound model.

    Attributes
    ----------
    arch
        Both streams, or one of them alone. The published fast-only models have ``width=8``.
    class_groups
        Empty for one head; sizes of the verb and the noun head for two (their sum is `n_classes`).
    width, n_groups
        Channels of the (slow) stem; groups of the middle convolutions.
    alpha
        Frames of the fast stream per frame of the slow one.
    beta
        Channels of the slow stream per channel of the fast one.
    fusion_ratio, fusion_kernel
        Channels and kernel of the lateral convolutions, relative to the fast stream's channels, and in frames.
    temporal_blocks, frequency_strides, frequency_dilations
        Per stage res2 to res5, one entry a stream: how many blocks have the stage's temporal kernel (None: all), the stride
        of the first block and the dilation of all of them.
    stride_1x1
        Single streams only: the stride is in the first convolution of a block instead of the middle one.
    n_frames, n_mels
        Size of the input the head's pooling was made for.
    head_activation
        ``softmax`` for single-label, ``sigmoid`` for multi-label models.
    label_embedding_size
        Dimensions of the label embeddings that `label_embedding` predicts; 0: none (see `models.training.label_embeddings`).
    zero_init_final_bn
        Blocks start as the identity.
    """

    n_classes: int = 309
    class_groups: tuple[int, ...] = ()
    arch: Literal["slowfast", "slow", "fast"] = "slowfast"
    depth: Literal[50, 101] = 50
    width: int = Field(default=64, ge=1)
    n_groups: int = Field(default=1, ge=1)
    alpha: int = Field(default=4, ge=1)
    beta: int = Field(default=8, ge=1)
    fusion_ratio: int = Field(default=2, ge=1)
    fusion_kernel: int = Field(default=7, ge=1)
    temporal_blocks: PerStage | None = None
    frequency_strides: PerStage = ((1, 1), (2, 2), (2, 2), (2, 2))
    frequency_dilations: PerStage = ((1, 1), (1, 1), (1, 1), (1, 1))
    stride_1x1: bool = False
    n_frames: int = Field(default=512, ge=4)
    n_mels: int = Field(default=128, ge=32)
    head_activation: Literal["softmax", "sigmoid"] = "softmax"
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    label_embedding_size: int = Field(default=0, ge=0)
    zero_init_final_bn: bool = True

    @model_validator(mode="after")
    def _sizes_agree(self) -> SlowFastConfig:
        if self.class_groups and (len(self.class_groups) != 2 or sum(self.class_groups) != self.n_classes):
            raise ValueError("class_groups must be empty or two sizes (verbs, nouns) that add up to n_classes")
        if self.arch == "slowfast" and (self.width % self.beta or self.n_frames < 4 * self.alpha):
            raise ValueError("width must be divisible by beta, and n_frames at least 4 * alpha")
        per_stage = (self.frequency_strides, self.frequency_dilations, self.temporal_blocks or ())
        if any(len(entry) < len(self.streams) for table in per_stage for entry in table):
            raise ValueError("temporal_blocks, frequency_strides and frequency_dilations need an entry per stream")
        return self

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams in the order of the input list."""
        return ("slow", "fast") if self.arch == "slowfast" else (self.arch,)

    @property
    def shrink(self) -> tuple[int, ...]:
        """By what the width of each stream is divided."""
        return (1, self.beta) if self.arch == "slowfast" else (1,)


def class_counts(state_dict: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Outputs of each head, verbs before nouns.

    Raises
    ------
    CheckpointError
        If there is no head.
    """
    for names in (("projection",), ("projection_verb", "projection_noun")):
        weights = [state_dict.get(f"head.{name}.weight") for name in names]
        if all(weight is not None for weight in weights):
            return tuple(weight.shape[0] for weight in weights if weight is not None)
    raise CheckpointError(
        "The SlowFast checkpoint has no classifier (head.projection.weight).", "Use the complete checkpoint file."
    )


def settings_from_shapes(state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about a SlowFast network that its weights tell, as settings of the family ``slowfast``.

    Raises
    ------
    CheckpointError
        If the weights are not those of a SlowFast network, or the number of frames has to be given.
    """
    try:
        stem = state_dict["s1.pathway0_stem.conv.weight"]
        counts = class_counts(state_dict)
        middle = state_dict["s2.pathway0_res0.branch2.b.weight"]
        values: dict[str, Any] = {
            "width": stem.shape[0],
            "n_groups": middle.shape[0] // middle.shape[1],
            "depth": 101 if "s4.pathway0_res22.branch2.a.weight" in state_dict else 50,
            "n_classes": sum(counts),
            "class_groups": counts if len(counts) > 1 else (),
        }
        if "s1_fuse.conv_f2s.weight" in state_dict:
            lateral = state_dict["s1_fuse.conv_f2s.weight"]
            values |= {
                "arch": "slowfast",
                "beta": stem.shape[0] // state_dict["s1.pathway1_stem.conv.weight"].shape[0],
                "fusion_ratio": lateral.shape[0] // lateral.shape[1],
                "fusion_kernel": lateral.shape[2],
            }
        else:
            values["arch"] = "fast" if stem.shape[2] == 5 else "slow"
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"These are not the weights of a SlowFast network ({error}).") from error
    projection = state_dict.get("linear1.weight", state_dict.get("linear.weight"))
    if projection is not None and projection.shape[-1] == sum(counts):
        values["label_embedding_size"] = projection.shape[0]
    if "n_frames" not in hints:
        if counts not in PUBLISHED_FRAMES:
            raise CheckpointError(
                f"A SlowFast checkpoint with {sum(counts)} classes does not say how many frames it reads.",
                "Give n_frames (AUDIO_DATA.NUM_FRAMES of its settings), and alpha if it is not 4.",
            )
        frames = PUBLISHED_FRAMES[counts]
        values["n_frames"] = frames // 4 if values["arch"] == "slow" else frames
    return values


def hints_from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Published option names (``RESNET.DEPTH``) to settings of the family ``slowfast``; others are ignored."""
    hints = {name: options[key] for key, name in NAMES.items() if key in options}
    if "MODEL.NUM_CLASSES" in options:
        given = options["MODEL.NUM_CLASSES"]
        counts = [int(given)] if isinstance(given, int) else [int(count) for count in given]
        hints |= {"n_classes": sum(counts), "class_groups": tuple(counts) if len(counts) > 1 else ()}
    if "VGGSOUND.EMBEDDINGS_SIZE" in options:
        hints["label_embedding_size"] = options["VGGSOUND.EMBEDDINGS_SIZE"]
    return hints


def hints_from_settings(text: object) -> dict[str, Any]:
    """Settings from the YAML text that a published checkpoint carries as ``cfg``; empty if it is not such a text.

    The class count is left to the weights, because a fine-tuned head may differ from the stored options.
    """
    if not isinstance(text, str):
        return {}
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    if not isinstance(tree, dict):
        return {}
    options = {
        f"{section}.{key}": value
        for section, entries in tree.items() if isinstance(entries, dict) for key, value in entries.items()
    }  # fmt: skip
    hints = hints_from_options(options)
    for name in ("n_classes", "class_groups", "label_embedding_size"):
        hints.pop(name, None)
    return hints


def frontend_from_settings(text: object) -> dict[str, Any] | None:
    """Front end (kind ``htk_mel``) that the ``cfg`` of a published checkpoint describes, None if it does not."""
    try:
        audio = yaml.safe_load(text)["AUDIO_DATA"] if isinstance(text, str) else None
        if audio is None:
            return None
        rate = int(audio["SAMPLING_RATE"])
        return {
            "kind": "htk_mel", "sample_rate": rate, "n_mels": int(audio["NUM_FREQUENCIES"]),
            "target_length": int(audio["NUM_FRAMES"]), "clip_seconds": float(audio["CLIP_SECS"]),
            "win_length": round(audio["WINDOW_LENGTH"] * rate / 1000),
            "hop_length": round(audio["HOP_LENGTH"] * rate / 1000),
        }  # fmt: skip
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return None
