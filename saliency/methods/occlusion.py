"""Occlusion: silence one patch after the other and see what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from captum.attr import Occlusion
from pydantic import Field
from torch import Tensor

from models.recognizer import Recognizer
from saliency.methods.base import FromSilence, Method, MethodSettings, Pass, as_array


class OcclusionSettings(MethodSettings):
    """Size of the patch in frames and mel bands; it moves by half its size."""

    frames: int = Field(32, ge=1)
    bands: int = Field(16, ge=1)


class OcclusionMethod(Method):
    """The drop of the logit when a patch falls silent, averaged over all patches that cover a cell."""

    name = "occlusion"
    title = "Occlusion"
    summary = "Silences one patch after the other and measures what that costs. Slow, needs no gradient."
    citation = "Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv 1311.2901"
    Settings: ClassVar[type[MethodSettings]] = OcclusionSettings

    def passes(self, settings: MethodSettings) -> int:
        """For a window of 512 frames x 64 bands."""
        assert isinstance(settings, OcclusionSettings)
        return self._count(512, 64, settings)

    @staticmethod
    def _count(frames: int, bands: int, settings: OcclusionSettings) -> int:
        patches = 1
        for size, patch in ((frames, settings.frames), (bands, settings.bands)):
            patch = min(patch, size)
            patches *= 1 + -(-(size - patch) // max(1, patch // 2))
        return 1 + patches

    def attribute(
        self,
        recognizer: Recognizer,
        features: Tensor,
        target: int,
        settings: Any,
        batch_size: int,
        advance: Callable[[float], None],
    ) -> Pass:
        """Mean drop per cell."""
        frames, bands = features.shape[1:]
        patch = (min(settings.frames, frames), min(settings.bands, bands))
        model = FromSilence(recognizer, self._count(frames, bands, settings), advance)
        with torch.no_grad():
            values = Occlusion(model).attribute(
                model.above(features), sliding_window_shapes=patch, strides=tuple(max(1, p // 2) for p in patch),
                baselines=0.0, target=target, perturbations_per_eval=batch_size,
            )  # fmt: skip
        return Pass(as_array(values), model.calls)
