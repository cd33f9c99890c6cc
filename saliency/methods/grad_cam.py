"""Grad-CAM, for convolutions and for the tokens of a transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from captum.attr import LayerActivation, LayerGradientXActivation
from pydantic import Field
from torch import Tensor

from models.errors import SettingsError
from models.network import CamLayer
from models.recognizer import Recognizer
from saliency.methods.base import FromSilence, Method, MethodSettings, Pass


class GradCamSettings(MethodSettings):
    """`layer`: position in the model's list of layers, 0 the recommended one. `positive_only`: cut negative values off."""

    layer: int = Field(0, ge=0)
    positive_only: bool = True


class GradCam(Method):
    """Activations of a layer, weighted with the mean gradient of their channel."""

    name = "grad_cam"
    title = "Grad-CAM"
    summary = "Where a deep layer is active for the class. Coarse, very fast."
    citation = "Selvaraju et al.: Grad-CAM. ICCV 2017, arXiv 1610.02391"
    Settings: ClassVar[type[MethodSettings]] = GradCamSettings

    def missing(self, recognizer: Recognizer) -> str:
        """Needs a layer that can be laid out over time and frequency."""
        return (
            "" if recognizer.network.cam_layers() else "it has no layer that can be laid out over time and frequency."
        )

    def passes(self, settings: MethodSettings) -> int:
        """Two: one for the activations, one for their gradients."""
        return 2

    def attribute(
        self,
        recognizer: Recognizer,
        features: Tensor,
        target: int,
        settings: Any,
        batch_size: int,
        advance: Callable[[float], None],
    ) -> Pass:
        """``sum_k mean(d logit / d A_k) A_k`` (Selvaraju et al., eq. 1 and 2), interpolated to the cells."""
        layers = recognizer.network.cam_layers()
        if settings.layer >= len(layers):
            raise SettingsError(
                f"Grad-CAM layer {settings.layer} does not exist.", f"There are {len(layers)}, from 0 on."
            )
        layer = layers[settings.layer]
        model = FromSilence(recognizer, 2, advance)
        above = model.above(features).requires_grad_(True)
        activation = LayerActivation(model, layer.module).attribute(above)
        gradient = LayerGradientXActivation(model, layer.module, multiply_by_inputs=False).attribute(
            above, target=target
        )
        maps, slopes = layer.to_map(activation.detach()), layer.to_map(gradient.detach())
        cam = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1)[0]
        if settings.positive_only:
            cam = cam.clamp(min=0.0)
        cells = spread(cam.float().cpu().numpy(), layer, features.shape[1], features.shape[2])
        return Pass(cells, model.calls)


def spread(cam: np.ndarray, layer: CamLayer, frames: int, n_mels: int) -> np.ndarray:
    """Interpolate a coarse map ``[time, frequency]`` to cells ``[frames, n_mels]``, linearly between cell centres."""
    in_time = interpolation(frames, layer.time_center + layer.time_step * np.arange(cam.shape[0]))
    in_frequency = interpolation(n_mels, layer.frequency_center + layer.frequency_step * np.arange(cam.shape[1]))
    return (in_time @ cam @ in_frequency.T).astype(np.float32)


def interpolation(n_wanted: int, positions: np.ndarray) -> np.ndarray:
    """Weights ``[n_wanted, n_positions]`` of values at `positions` for 0, 1, 2, ..., constant beyond the ends."""
    wanted = np.arange(n_wanted)
    return np.stack([np.interp(wanted, positions, unit) for unit in np.eye(len(positions))], axis=1)
