"""Auditory SlowFast: two residual streams over one log-mel, one slow in time and wide, one fast and narrow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.frontends import FrontEndConfig
from models.frontends.htk_mel import HtkMelConfig
from models.layers.slowfast_blocks import BlockShape, Bottleneck, Fuse, ResBlock, StemPathway, slow_index
from models.layers.slowfast_settings import SlowFastConfig, hints_from_settings, settings_from_shapes
from models.network import CamLayer, Network, NetworkConfig, log_odds
from models.registry import FamilyInfo, register_family

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Temporal kernel sizes of stem, res2, res3, res4, res5.
TEMPORAL_KERNELS = {"slow": (1, 1, 1, 3, 3), "fast": (5, 3, 3, 3, 3)}
UNUSED = ("linear2.", "bn1.")  # a second projection that no published forward reaches


class Stem(nn.Module):
    """A stem per stream."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        for index, (stream, shrink) in enumerate(zip(config.streams, config.shrink, strict=True)):
            self.add_module(f"pathway{index}_stem", StemPathway(config.width // shrink, TEMPORAL_KERNELS[stream][0]))

    def forward(self, x: Sequence[Tensor]) -> list[Tensor]:
        """One tensor per stream."""
        return [self.get_submodule(f"pathway{index}_stem")(tensor) for index, tensor in enumerate(x)]


class ResStage(nn.Module):
    """The residual blocks of one stage, stream by stream."""

    def __init__(self, stage: int, channels_in: Sequence[int], config: SlowFastConfig) -> None:
        super().__init__()
        self.n_blocks = BLOCKS[config.depth][stage]
        for path, (stream, shrink) in enumerate(zip(config.streams, config.shrink, strict=True)):
            channels = config.width * 4 * 2**stage // shrink
            inner = config.width * config.n_groups * 2**stage // shrink
            temporal = self.n_blocks if config.temporal_blocks is None else config.temporal_blocks[stage][path]
            for index in range(self.n_blocks):
                stride = config.frequency_strides[stage][path] if index == 0 else 1
                first = config.stride_1x1 and config.arch != "slowfast"
                shape = BlockShape(
                    channels_in=channels_in[path] if index == 0 else channels, inner=inner, channels=channels,
                    kernel=TEMPORAL_KERNELS[stream][stage + 1] if index < temporal else 1,
                    strides=(stride, 1) if first else (1, stride), groups=config.n_groups,
                    dilation=config.frequency_dilations[stage][path],
                )  # fmt: skip
                self.add_module(f"pathway{path}_res{index}", ResBlock(shape))

    def forward(self, x: Sequence[Tensor]) -> list[Tensor]:
        """One tensor per stream; time stays, frequency is divided by the stage's stride."""
        out = []
        for path, tensor in enumerate(x):
            for index in range(self.n_blocks):
                tensor = self.get_submodule(f"pathway{path}_res{index}")(tensor)
            out.append(tensor)
        return out


class Head(nn.Module):
    """Dropout and one linear layer, or one for verbs and one for nouns."""

    def __init__(self, channels: int, config: SlowFastConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.names = ("projection_verb", "projection_noun") if config.class_groups else ("projection",)
        for name, size in zip(self.names, config.class_groups or (config.n_classes,), strict=True):
            self.add_module(name, nn.Linear(channels, size))

    def forward(self, pooled: Tensor) -> Tensor:
        """``[..., channels]`` to ``[..., n_classes]``, verbs before nouns."""
        dropped = self.dropout(pooled)
        return torch.cat([self.get_submodule(name)(dropped) for name in self.names], dim=-1)


@register_family(
    FamilyInfo(
        name="slowfast",
        title="Auditory SlowFast",
        summary="Two residual streams over one spectrogram: a slow, wide one and a fast, narrow one.",
        citation="Kazakos, Nagrani, Zisserman, Damen: Slow-Fast Auditory Streams for Audio Recognition. ICASSP 2021, "
        "arXiv 2103.03516",
        views=frozenset({"attribution", "time_attention"}),
        published_key="s1.pathway0_stem.conv.weight and head.projection (or head.projection_verb)",
    )
)
class SlowFast(Network):
    """SlowFast, slow-only and fast-only, with one head or a verb and a noun head.

    The hidden representation is ``[batch, T', F', channels]``, slow channels before fast ones; T' and F' are 1 for inputs
    of the configured size. Longer or wider inputs leave several positions, over which the published model averages
    probabilities; the logits are then the logarithm of that average (their log-odds for sigmoid heads).

    Quirks that published checkpoints depend on: the slow stream reads single frames picked from the fast one's
    (`slow_index`), not coarser ones, and its stem (one frame wide, stride two) skips every second of them; pooling has a
    fixed kernel, so both streams together read only inputs of exactly `n_frames`.
    """

    Config = SlowFastConfig
    config: SlowFastConfig

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        self.s1 = Stem(config)
        both = config.arch == "slowfast"
        channels = [config.width // shrink for shrink in config.shrink]
        for stage in range(4):
            if both:
                self.add_module(
                    f"s{stage + 1}_fuse", Fuse(channels[1], config.fusion_ratio, config.fusion_kernel, config.alpha)
                )
                channels[0] += channels[1] * config.fusion_ratio
            self.add_module(f"s{stage + 2}", ResStage(stage, channels, config))
            channels = [config.width * 4 * 2**stage // shrink for shrink in config.shrink]
        self.head = Head(sum(channels), config)
        if config.label_embedding_size:
            self.linear1 = nn.Linear(config.n_classes, config.label_embedding_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal convolutions (fan-out), linear layers N(0, 0.01), blocks that start as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Bottleneck) and self.config.zero_init_final_bn:
                nn.init.zeros_(module.c_bn.weight)

    def pathways(self, features: Tensor) -> list[Tensor]:
        """The streams' inputs ``[batch, 1, frames, n_mels]`` of ``[batch, frames, n_mels]``, slow before fast."""
        image = features.unsqueeze(1)
        if self.config.arch != "slowfast":
            return [image]
        index = slow_index(features.shape[1], self.config.alpha).to(features.device)
        return [image.index_select(2, index), image]

    def last_stage(self, pathways: Sequence[Tensor]) -> list[Tensor]:
        """Activations ``[batch, channels, T, F]`` of res5, one tensor per stream, of the streams' inputs."""
        x = self.s1(pathways)
        for stage in range(1, 5):
            if self.config.arch == "slowfast":
                x = self.get_submodule(f"s{stage}_fuse")(x)
            x = self.get_submodule(f"s{stage + 1}")(x)
        return x

    def pool(self, x: Sequence[Tensor], features: Tensor) -> Tensor:
        """Average over time and frequency, slow channels before fast ones: ``[batch, T', F', channels]``.

        Raises
        ------
        SettingsError
            If `features`, the input, has a size that the head cannot pool.
        """
        pooled = []
        for tensor, (steps, bands) in zip(x, self.pool_kernels, strict=True):
            if tensor.shape[2] < steps or tensor.shape[3] < bands:
                raise self._wrong_size(features)
            pooled.append(nn.functional.avg_pool2d(tensor, (steps, bands), stride=1))
        if len({tensor.shape[2:] for tensor in pooled}) > 1:
            raise self._wrong_size(features)
        return torch.cat(pooled, dim=1).permute(0, 2, 3, 1)

    def _wrong_size(self, features: Tensor) -> SettingsError:
        config = self.config
        return SettingsError(
            f"This {config.arch} model reads {config.n_frames} frames x {config.n_mels} bands, not "
            f"{features.shape[1]} x {features.shape[2]}.",
            "Set the front end's target_length and n_mels to what the model was trained with"
            + (f" (a multiple of {4 * config.alpha} frames)." if config.arch == "slowfast" else "."),
        )

    @property
    def pool_kernels(self) -> list[tuple[int, int]]:
        """Size of each stream's average pooling, in steps and bands of its last stage."""
        steps = [self.config.n_frames // 4] if len(self.config.streams) == 1 else [
            self.config.n_frames // self.config.alpha // 4, self.config.n_frames // 4
        ]  # fmt: skip
        return [(max(1, count), self.config.n_mels // 32) for count in steps]

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """``[batch, frames, n_mels]`` to ``[batch, T', F', channels]``."""
        return self.pool(self.last_stage(self.pathways(features)), features)

    def forward_head(self, hidden: Tensor) -> Tensor:
        """Logits of ``[batch, T', F', channels]``; verbs before nouns."""
        logits = self.head(hidden).flatten(1, 2)
        if logits.shape[1] == 1:
            return logits[:, 0]
        if self.config.head_activation == "sigmoid":
            return log_odds(logits.sigmoid().mean(dim=1))
        groups = logits.split(list(self.config.class_groups or (self.config.n_classes,)), dim=-1)
        averages = [group.log_softmax(dim=-1).logsumexp(dim=1) - math.log(logits.shape[1]) for group in groups]
        return torch.cat(averages, dim=-1)

    def label_embedding(self, logits: Tensor) -> Tensor:
        """Predicted label embedding ``[..., label_embedding_size]`` of logits ``[..., n_classes]``.

        The projection sits behind the classifier: it is trained beside it and never changes a prediction.

        Raises
        ------
        CheckpointError
            If the model has none.
        """
        if not self.config.label_embedding_size:
            raise CheckpointError("This model was not trained with label embeddings.", "Fine-tune it with them first.")
        return self.linear1(logits)

    def class_maps(self, features: Tensor) -> list[Tensor]:
        """What every cell of the last stage adds to every logit: ``[batch, n_classes, T', F']`` per stream.

        Exact, because the head is average pooling and a linear layer: summed over streams and cells, plus the bias, they
        are the logits (class activation mapping; Zhou et al., CVPR 2016).

        Raises
        ------
        SettingsError
            If the input leaves more than one position in the head.
        """
        x = self.last_stage(self.pathways(features))
        if self.pool(x, features).shape[1:3] != (1, 1):
            raise self._wrong_size(features)
        weight = torch.cat([cast(nn.Linear, self.head.get_submodule(name)).weight for name in self.head.names])
        parts = weight.split([tensor.shape[1] for tensor in x], dim=1)
        return [
            torch.einsum("ck,bktf->bctf", part, tensor) / (tensor.shape[2] * tensor.shape[3])
            for part, tensor in zip(parts, x, strict=True)
        ]

    def class_bias(self) -> Tensor:
        """The part of the logits ``[n_classes]`` that does not depend on the input."""
        return torch.cat([cast(nn.Linear, self.head.get_submodule(name)).bias for name in self.head.names])

    def step_frames(self, path: int) -> float:
        """Distance of a stream's time steps behind the stem, in feature frames; step 0 is centred on frame 0."""
        if self.config.streams[path] == "fast" or len(self.config.streams) == 1:
            return 4.0
        picked = self.config.n_frames // self.config.alpha
        return 4.0 * (self.config.n_frames - 1) / max(1, picked - 1)

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`class_maps` summed over frequency and streams, on the finest stream's steps; sums to the logits less the bias.

        What a step of the slow stream contributes is shared out evenly among the fast steps nearest to it.
        """
        maps = [part.sum(dim=3) for part in self.class_maps(features)]
        finest = maps[-1]
        centers = torch.arange(finest.shape[2]) * self.step_frames(len(maps) - 1)
        if len(maps) == 1:
            return finest, centers
        slow = maps[0]
        nearest = (centers / self.step_frames(0)).round().long().clamp(max=slow.shape[2] - 1)
        shares = torch.bincount(nearest, minlength=slow.shape[2])[nearest]
        return finest + slow[:, :, nearest.to(slow.device)] / shares.to(slow.device), centers

    def cam_layers(self) -> list[CamLayer]:
        """The last blocks of res5, res4 and res3 in both streams; the later, the coarser in frequency."""
        layers = []
        for stage in (3, 2, 1):
            for path, stream in enumerate(self.config.streams):
                module = self.get_submodule(f"s{stage + 2}.pathway{path}_res{BLOCKS[self.config.depth][stage] - 1}")
                step = 4 * math.prod(entry[path] for entry in self.config.frequency_strides[: stage + 1])
                name = f"{stream} stream, stage {stage + 2}"
                layers.append(CamLayer(name, module, _unchanged, 0.0, self.step_frames(path), 0.0, step))
        return layers

    @classmethod
    def default_frontend(cls, config: NetworkConfig) -> FrontEndConfig:
        """Verb and noun models and those for EPIC-SOUNDS read 24 kHz in 10 ms windows, all others 16 kHz in 20 ms.

        Frames are half a window apart, in slow-only models two windows.
        """
        assert isinstance(config, SlowFastConfig)
        rate, window = (24000, 240) if config.class_groups or config.n_classes == 44 else (16000, 320)
        hop = 2 * window if config.arch == "slow" else window // 2
        return HtkMelConfig(
            sample_rate=rate, n_mels=config.n_mels, target_length=config.n_frames, win_length=window, hop_length=hop,
            clip_seconds=round(config.n_frames * hop / rate - 0.001, 6),
        )  # fmt: skip

    @classmethod
    def recognizes(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """By the names of stem and last stage."""
        return "s1.pathway0_stem.conv.weight" in state_dict and "s5.pathway0_res0.branch2.a.weight" in state_dict

    @classmethod
    def infer_config(cls, state_dict: Mapping[str, Tensor], hints: Mapping[str, Any]) -> SlowFastConfig:
        """Architecture, depth, widths and classes from shapes; `n_frames` from the hints or the class count.

        `alpha`, strides and dilations are not in the weights either; without hints they are the published ones.
        `published_hints` reads all of them from the settings that a published checkpoint carries.
        """
        return SlowFastConfig.model_validate(settings_from_shapes(state_dict, hints) | dict(hints))

    @classmethod
    def published_hints(cls, container: Mapping[str, Any]) -> dict[str, Any]:
        """Hints for `infer_config` from a published checkpoint's dictionary (its ``cfg`` text), empty if it has none."""
        return hints_from_settings(container.get("cfg"))

    @classmethod
    def convert_state_dict(cls, state_dict: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
        """Older names of the label-embedding projection; layers that no forward reaches are dropped."""
        assert isinstance(config, SlowFastConfig)
        converted = {}
        for key, value in state_dict.items():
            if key.startswith("linear."):
                key = key.replace("linear.", "linear1.", 1)
            if key.startswith("linear1.") and not config.label_embedding_size:
                continue
            if not key.startswith(UNUSED):
                converted[key] = value
        return converted


def _unchanged(output: Tensor) -> Tensor:
    return output
