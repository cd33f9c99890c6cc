"""The contract of a front end and the registry of their kinds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.errors import MediaError, SettingsError


class FrontEndConfig(BaseModel):
    """What every front end's settings have in common; kinds add their own.

    Attributes
    ----------
    kind
        Registered name of the front end.
    sample_rate
        Rate of the waveform in Hz.
    n_mels
        Number of mel bands.
    target_length
        Frames that the network reads; shorter features are padded, longer ones are cut (None: any length).
    padding
        What appended frames hold before normalisation. ``zero`` is what published checkpoints were trained with (it is far
        louder than silence); ``silence`` is the features' own floor and what models trained here use; ``repeat`` repeats
        the last frame.
    mean, std_scale
        ``features = (log_mel - mean) / std_scale``; `std_scale` is the whole divisor (AST divides by twice the deviation).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    sample_rate: int = Field(default=16000, ge=1)
    n_mels: int = Field(default=128, ge=0)
    target_length: int | None = Field(default=None, ge=1)
    padding: Literal["zero", "silence", "repeat"] = "silence"
    mean: float = Field(default=0.0, allow_inf_nan=False)
    std_scale: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)


class FrontEnd(nn.Module):
    """Waveform ``[batch, samples]`` to normalised features ``[batch, frames, n_mels]``, differentiable.

    Subclasses implement `log_mel` and set `n_fft`, `win_length`, `hop_length`, `centered`, `floor` and the buffer
    `filterbank`. A front end whose network reads the waveform itself has ``n_mels == 0``.

    Attributes
    ----------
    n_fft, win_length, hop_length
        In samples at `sample_rate`.
    centered
        True if frame 0 is centred on sample 0 (padded at both ends), False if it starts there.
    floor
        Value of `log_mel` for digital silence.
    filterbank
        ``[n_mels, n_fft // 2 + 1]``, float32: the weights with which spectrum bins enter a band.
    """

    Config: ClassVar[type[FrontEndConfig]] = FrontEndConfig
    n_fft: int
    win_length: int
    hop_length: int
    centered: bool
    floor: float
    filterbank: Tensor

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def sample_rate(self) -> int:
        """Rate of the waveform in Hz."""
        return self.config.sample_rate

    @property
    def n_mels(self) -> int:
        """Number of mel bands."""
        return self.config.n_mels

    @property
    def target_length(self) -> int | None:
        """Frames that the network reads, None for any."""
        return self.config.target_length

    @property
    def silence(self) -> float:
        """Normalised value of a cell of digital silence: the baseline "nothing is heard"."""
        return (self.floor - self.config.mean) / self.config.std_scale

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel before padding and normalisation, ``[batch, frames, n_mels]``, of ``[batch, samples]``."""
        raise NotImplementedError

    def frames_for(self, n_samples: int) -> int:
        """How many frames `log_mel` gives for so many samples."""
        if self.centered:
            return 1 + n_samples // self.hop_length
        return 0 if n_samples < self.win_length else 1 + (n_samples - self.win_length) // self.hop_length

    def samples_for(self, n_frames: int) -> int:
        """The fewest samples that give so many frames."""
        if self.centered:
            return (n_frames - 1) * self.hop_length
        return self.win_length + (n_frames - 1) * self.hop_length

    def valid_frames(self, n_samples: int) -> int:
        """Frames of the features that carry signal rather than padding."""
        frames = max(1, self.frames_for(n_samples))
        return frames if self.target_length is None else min(frames, self.target_length)

    @property
    def window_samples(self) -> int | None:
        """Samples that fill `target_length`; None if any length is read."""
        return None if self.target_length is None else self.samples_for(self.target_length)

    def frame_times(self, n_frames: int) -> np.ndarray:
        """Centre of every frame in seconds, float64 ``[n_frames]``."""
        offset = 0.0 if self.centered else self.win_length / 2
        return (np.arange(n_frames) * self.hop_length + offset) / self.sample_rate

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of gravity of every mel band in Hz, float64 ``[n_mels]``, strictly increasing."""
        raise NotImplementedError

    def normalize(self, log_mel: Tensor) -> Tensor:
        """Log-mel values to the network's scale."""
        return (log_mel - self.config.mean) / self.config.std_scale

    def denormalize(self, features: Tensor) -> Tensor:
        """Back from the network's scale to log-mel values."""
        return features * self.config.std_scale + self.config.mean

    def fit_length(self, log_mel: Tensor) -> Tensor:
        """Cut or pad ``[batch, frames, n_mels]`` to `target_length` frames."""
        target = self.target_length
        if target is None:
            return log_mel
        frames = log_mel.shape[1]
        if frames >= target:
            return log_mel[:, :target]
        missing = target - frames
        if self.config.padding == "repeat":
            tail = log_mel[:, -1:].expand(-1, missing, -1)
        else:
            value = 0.0 if self.config.padding == "zero" else self.floor
            tail = log_mel.new_full((log_mel.shape[0], missing, log_mel.shape[2]), value)
        return torch.cat([log_mel, tail], dim=1)

    def forward(self, waveform: Tensor) -> Tensor:
        """Normalised features of ``[batch, samples]`` at `sample_rate`; short signals are padded with silence.

        Raises
        ------
        MediaError
            If the waveform is not a batch of finite samples.
        """
        if waveform.ndim != 2:
            raise MediaError(
                f"A front end reads waveforms [batch, samples], not a tensor of shape {tuple(waveform.shape)}."
            )
        shortest = self.samples_for(1)
        if waveform.shape[1] < max(shortest, 1):
            waveform = nn.functional.pad(waveform, (0, max(shortest, 1) - waveform.shape[1]))
        return self.normalize(self.fit_length(self.log_mel(waveform))).contiguous()


_KINDS: dict[str, type[FrontEnd]] = {}
FrontEndClass = TypeVar("FrontEndClass", bound=type[FrontEnd])


def register_frontend(kind: str) -> Callable[[FrontEndClass], FrontEndClass]:
    """Class decorator: make a front end known under `kind`."""

    def register(cls: FrontEndClass) -> FrontEndClass:
        _KINDS[kind] = cls
        return cls

    return register


def frontend_kinds() -> dict[str, type[FrontEnd]]:
    """All registered front ends by kind."""
    package = importlib.import_module("models.frontends")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"models.frontends.{module.name}")
    return dict(_KINDS)


def build_frontend(config: FrontEndConfig | dict[str, Any]) -> FrontEnd:
    """The front end that a config (or its plain dictionary from a card) describes.

    Raises
    ------
    SettingsError
        If the kind is unknown or a value is out of range.
    """
    values = config.model_dump() if isinstance(config, FrontEndConfig) else dict(config)
    kinds = frontend_kinds()
    kind = str(values.get("kind"))
    if kind not in kinds:
        raise SettingsError(f"There is no front end named {kind!r}.", f"Known are: {', '.join(sorted(kinds))}.")
    cls = kinds[kind]
    try:
        return cls(cls.Config.model_validate(values))
    except ValueError as error:
        raise SettingsError(f"The front end's settings are not valid: {error}") from error
