"""Attribution methods. To add one: write a file here, and name its class in `METHODS`."""

from __future__ import annotations

from models.errors import SettingsError
from saliency.methods.base import Method, MethodSettings, Pass
from saliency.methods.grad_cam import GradCam
from saliency.methods.gradients import Gradient, InputTimesGradient, IntegratedGradientsMethod
from saliency.methods.occlusion import OcclusionMethod

METHODS: dict[str, Method] = {
    method.name: method
    for method in (IntegratedGradientsMethod(), InputTimesGradient(), Gradient(), GradCam(), OcclusionMethod())
}


def find_method(name: str) -> Method:
    """A method by its registered name.

    Raises
    ------
    SettingsError
        If there is none.
    """
    if name not in METHODS:
        raise SettingsError(f"There is no attribution method named {name!r}.", f"Known are: {', '.join(METHODS)}.")
    return METHODS[name]


__all__ = ["METHODS", "Method", "MethodSettings", "Pass", "find_method"]
