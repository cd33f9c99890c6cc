"""Methods that need gradients with respect to the features only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from pydantic import Field
from torch import Tensor

from models.recognizer import Recognizer
from saliency.methods.base import FromSilence, Method, MethodSettings, Pass, as_array


class Gradient(Method):
    """Sensitivity of the logit to every cell; the log-mel is a log power, so this is a relative sensitivity."""

    name = "gradient"
    title = "Gradient"
    summary = "How much the class score would change if a cell became a little louder."
    citation = "Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks. ICLR 2014 workshop, arXiv 1312.6034"

    def passes(self, settings: MethodSettings) -> int:
        """One."""
        return 1

    def attribute(
        self,
        recognizer: Recognizer,
        features: Tensor,
        target: int,
        settings: Any,
        batch_size: int,
        advance: Callable[[float], None],
    ) -> Pass:
        """D logit / d log-mel."""
        model = FromSilence(recognizer, 1, advance)
        values = Saliency(model).attribute(model.above(features).requires_grad_(), target=target, abs=False)
        return Pass(as_array(values), model.calls)


class InputTimesGradient(Method):
    """Gradient times how much louder than silence the cell is."""

    name = "input_x_gradient"
    title = "Input x gradient"
    summary = "The gradient, weighted with how much louder than silence a cell is. Fast, a rough estimate."
    citation = "Shrikumar, Greenside, Shcherbina, Kundaje: Not Just a Black Box. 2016, arXiv 1605.01713"

    def passes(self, settings: MethodSettings) -> int:
        """One."""
        return 1

    def attribute(
        self,
        recognizer: Recognizer,
        features: Tensor,
        target: int,
        settings: Any,
        batch_size: int,
        advance: Callable[[float], None],
    ) -> Pass:
        """(log-mel - silence) * d logit / d log-mel."""
        model = FromSilence(recognizer, 1, advance)
        values = InputXGradient(model).attribute(model.above(features).requires_grad_(), target=target)
        return Pass(as_array(values), model.calls)


class IntegratedGradientsSettings(MethodSettings):
    """`steps`: points on the way from silence to the clip."""

    steps: int = Field(32, ge=2, le=1000)


class IntegratedGradientsMethod(Method):
    """Gradients averaged on the straight way from silence to the clip (midpoint rule)."""

    name = "integrated_gradients"
    title = "Integrated gradients"
    summary = "What every cell contributes when the clip is faded in from silence. Contributions add up to the score."
    citation = "Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks. ICML 2017, arXiv 1703.01365"
    complete = True
    Settings: ClassVar[type[MethodSettings]] = IntegratedGradientsSettings

    def passes(self, settings: MethodSettings) -> int:
        """One for every step, two for the completeness check."""
        assert isinstance(settings, IntegratedGradientsSettings)
        return settings.steps + 2

    def attribute(
        self,
        recognizer: Recognizer,
        features: Tensor,
        target: int,
        settings: Any,
        batch_size: int,
        advance: Callable[[float], None],
    ) -> Pass:
        """Contributions and the gap between their sum and ``logit(clip) - logit(silence)``, relative to the latter."""
        model = FromSilence(recognizer, self.passes(settings), advance)
        above = model.above(features)
        values = IntegratedGradients(model).attribute(
            above, baselines=torch.zeros_like(above), target=target, n_steps=settings.steps,
            method="riemann_middle", internal_batch_size=min(batch_size, settings.steps),
        )  # fmt: skip
        with torch.no_grad():
            ends = model(torch.cat([above, torch.zeros_like(above)]))[:, target]
        difference = (ends[0] - ends[1]).item()
        gap = abs(values.sum().item() - difference) / max(abs(difference), 1e-6)
        return Pass(as_array(values), model.calls, gap)
