"""The contract of an attribution method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from models.errors import SettingsError
from models.recognizer import Recognizer


class MethodSettings(BaseModel):
    """Settings of a method; every method adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, eq=False)
class Pass:
    """What a method found for one window: ``values`` float32 ``[frames, n_mels]``."""

    values: np.ndarray
    passes: int
    completeness_gap: float | None = None


class Method:
    """An attribution method; subclasses fill in the attributes and `attribute`.

    Attributes
    ----------
    name, title, summary, citation
        For menus and documents.
    signed
        Whether negative values mean "opposes".
    complete
        Whether the values should sum to the change of the logit.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]
    signed: ClassVar[bool] = True
    complete: ClassVar[bool] = False
    Settings: ClassVar[type[MethodSettings]] = MethodSettings

    def validate(self, parameters: dict[str, Any]) -> MethodSettings:
        """Settings from a plain dictionary.

        Raises
        ------
        SettingsError
            Naming the parameter that is unknown or out of range.
        """
        try:
            return self.Settings.model_validate(parameters)
        except ValidationError as error:
            details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SettingsError(f"The settings of {self.title} are not valid: {details}.") from error

    def missing(self, recognizer: Recognizer) -> str:
        """What the model lacks for this method, as a sentence; empty if nothing."""
        return ""

    def passes(self, settings: MethodSettings) -> int:
        """Forward passes of one input that a window takes, roughly."""
        raise NotImplementedError

    def attribute(
        self,
        recognizer: Recognizer,
        features: Tensor,
        target: int,
        settings: Any,
        batch_size: int,
        advance: Callable[[float], None],
    ) -> Pass:
        """Relevance of ``features`` ``[1, frames, n_mels]`` for the logit with index `target`."""
        raise NotImplementedError


class FromSilence:
    """The recognizer as a function of how much louder than silence every cell is.

    Attribution methods multiply by the input, or compare with an input of zeros. Log-mel zeros are an arbitrary loudness;
    counted from silence, zero means "nothing is heard". Calls are counted for the progress.
    """

    def __init__(self, recognizer: Recognizer, expected: int, advance: Callable[[float], None]) -> None:
        self.recognizer = recognizer
        self.silence = recognizer.frontend.silence
        self.expected = max(1, expected)
        self.advance = advance
        self.calls = 0

    def above(self, features: Tensor) -> Tensor:
        """Features counted from silence."""
        return features - self.silence

    def __call__(self, above: Tensor) -> Tensor:
        """Logits ``[batch, n_classes]`` of ``[batch, frames, n_mels]`` counted from silence."""
        self.calls += above.shape[0]
        self.advance(min(1.0, self.calls / self.expected))
        return self.recognizer(above + self.silence)


def as_array(values: Tensor) -> np.ndarray:
    """``[1, frames, n_mels]`` to float32 ``[frames, n_mels]``."""
    return values.detach()[0].float().cpu().numpy()
