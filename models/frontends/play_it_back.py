"""The log-mel at several hops that Play It Back listens to.

Features hold the levels one after the other along the frames axis, coarsest first:
``[batch, frames of all levels, n_mels]``.
`PlayItBackMel.levels` says which slice is which level, its hop, and the second of every frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.errors import SettingsError
from models.frontends.base import FrontEnd, FrontEndConfig, register_frontend
from models.frontends.htk_mel import htk_mel_banks, htk_mel_edges, stft_magnitude


class LevelSchedule(BaseModel):
    """Clip length and hops of the levels; the defaults are those of VGG-Sound.

    Attributes
    ----------
    sample_rate
        In Hz.
    clip_seconds
        What is listened to; one sample less is used (as published).
    num_frames, hop_factor
        Level p has a hop of ``round(hop_factor * num_frames / (p + 1) * sample_rate / 1000)`` samples.
    window_ms
        Length of the analysis window, the same at every level.
    crop_frames
        Frames of level 0 of a full clip; short clips are padded to ``crop_frames * (p + 1)`` frames (as published).
    squeeze
        Levels are resized to `crop_frames` frames, which leaves no finer detail (published AudioSet models).
    corrected
        One clock: every level keeps its own length, short clips are padded with silence as a waveform. Otherwise levels
        are stacked and taken apart as published, which cuts or pads their beginning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate: int = Field(default=16000, ge=1000)
    clip_seconds: float = Field(default=5.0, gt=0.0)
    num_frames: int = Field(default=500, ge=1)
    hop_factor: float = Field(default=0.0249951175, gt=0.0)
    window_ms: float = Field(default=20.0, gt=0.0)
    crop_frames: int = Field(default=400, ge=1)
    squeeze: bool = False
    corrected: bool = False

    @model_validator(mode="after")
    def _check(self) -> LevelSchedule:
        if self.squeeze and self.corrected:
            raise ValueError("squeeze belongs to the published AudioSet models, not to corrected ones")
        if self.window_samples > 2048:
            raise ValueError(f"window_ms ({self.window_ms}) exceeds the spectrum's 2048 samples")
        if self.hop(7) < 1:
            raise ValueError("the finest hop is shorter than a sample; raise num_frames or hop_factor")
        return self

    @property
    def clip_samples(self) -> int:
        """Samples of a whole clip."""
        return round(self.sample_rate * self.clip_seconds)

    @property
    def window_samples(self) -> int:
        """Samples of the analysis window."""
        return round(self.window_ms * self.sample_rate / 1000)

    def hop(self, level: int) -> int:
        """Samples between frames of a level."""
        return round(self.hop_factor * self.num_frames / (level + 1) * self.sample_rate / 1000)

    def computed_frames(self, level: int) -> int:
        """Frames of a level of a full clip, before anything is cut."""
        return 1 + (self.clip_samples - 1) // self.hop(level)

    def lengths(self, n_levels: int, total: int | None = None) -> list[int]:
        """Frames of every level in the features; `total` is the length of all of them if it is known.

        Raises
        ------
        SettingsError
            If no clip gives `total` frames.
        """
        if self.corrected:
            found = [self.computed_frames(level) for level in range(n_levels)]
        elif total is not None:
            # All levels are fractions of the last one, so the total tells its length (a short clip's differs).
            start = max(1, 2 * total // (n_levels + 1) - 1)
            found = []
            for longest in range(start, start + n_levels + 3):
                found = taken_lengths(longest, n_levels)
                if sum(found) >= total:
                    break
        else:
            # One level alone is cut as if there were two.
            stacked = max(n_levels, 2)
            longest = self.crop_frames if self.squeeze else self.computed_frames(stacked - 1)
            found = taken_lengths(longest, stacked)[:n_levels]
        if total is not None and sum(found) != total:
            raise SettingsError(
                f"{total} frames are not the {n_levels} levels of a clip.",
                "The front end and the network must have the same number of levels and the same schedule.",
            )
        return found

    def frame_times(self, n_levels: int, total: int | None = None) -> list[np.ndarray]:
        """Second of every frame of every level, float64; negative where a published model reads padding in front.

        `total` is the length of the features; levels longer than a full clip's are those of a short, padded clip.
        """
        full, lengths = self.lengths(n_levels), self.lengths(n_levels, total)
        times = []
        for level, length in enumerate(lengths):
            computed = self.computed_frames(level)
            frames = np.arange(computed, dtype=np.float64)
            if self.squeeze and computed != self.crop_frames:
                frames = np.floor(np.arange(self.crop_frames) * (computed / self.crop_frames))
            elif lengths != full:
                frames = np.arange(max(length, self.crop_frames * (level + 1)), dtype=np.float64)
            missing = length - frames.shape[0]
            if missing > 0:
                frames = np.concatenate([np.arange(-missing, 0, dtype=np.float64), frames])
            times.append(frames[frames.shape[0] - length :] * self.hop(level) / self.sample_rate)
        return times


# The published data sets' schedules.
SCHEDULES: dict[str, LevelSchedule] = {
    "vggsound": LevelSchedule(),
    "audioset": LevelSchedule(clip_seconds=10.0, num_frames=1000, squeeze=True),
    "epickitchens": LevelSchedule(clip_seconds=1.999, num_frames=100, hop_factor=0.05),
}


def taken_lengths(longest: int, n_levels: int) -> list[int]:
    """Frames that every level keeps of a stack whose last level has `longest` frames."""
    base = longest / n_levels
    return [int(base * (level + 1)) for level in range(n_levels)]


def take_apart(stacked: Tensor) -> Tensor:
    """Features of stacked levels: ``[batch, levels, frames, n_mels]`` to ``[batch, frames of all levels, n_mels]``.

    Level p becomes the last ``int(frames / levels * (p + 1))`` frames of channel p.
    """
    lengths = taken_lengths(stacked.shape[2], stacked.shape[1])
    return torch.cat([stacked[:, level, -length:] for level, length in enumerate(lengths)], dim=1)


def resize_nearest(features: Tensor, frames: int) -> Tensor:
    """``[batch, T, n_mels]`` to `frames` frames, each the nearest earlier one."""
    return nn.functional.interpolate(features.transpose(1, 2), size=frames, mode="nearest").transpose(1, 2)


class PlayItBackMelConfig(FrontEndConfig):
    """Settings of `PlayItBackMel`: how many levels, and their schedule."""

    kind: str = "play_it_back"
    padding: Literal["zero", "silence", "repeat"] = "repeat"
    n_levels: int = Field(default=2, ge=1, le=8)
    schedule: LevelSchedule = LevelSchedule()

    @model_validator(mode="after")
    def _check(self) -> PlayItBackMelConfig:
        if self.sample_rate != self.schedule.sample_rate:
            raise ValueError(
                f"sample_rate ({self.sample_rate}) differs from the schedule's ({self.schedule.sample_rate})"
            )
        if self.target_length is not None:
            raise ValueError("target_length is set by the schedule")
        return self


@dataclass(frozen=True)
class Level:
    """Where one level is in the features.

    Attributes
    ----------
    frames
        Its frames along the features' frames axis.
    hop_length, hop_seconds
        Distance of its frames.
    times
        Second of every frame (its centre), float64; negative where a published model reads padding in front.
    """

    frames: slice
    hop_length: int
    hop_seconds: float
    times: np.ndarray


@register_frontend("play_it_back")
class PlayItBackMel(FrontEnd):
    """``ln(B |STFT| + 1e-6)`` at several hops: 2048-sample spectra, HTK mel scale, zero padding at both ends.

    Source: Stergiou and Damen, Play It Back, ICASSP 2023, arXiv 2210.11328. A clip longer than the window is cut at its
    end. `hop_length` is that of the coarsest level.
    """

    Config = PlayItBackMelConfig
    config: PlayItBackMelConfig
    n_fft = 2048
    centered = True
    floor = math.log(1e-6)
    window: Tensor

    def __init__(self, config: PlayItBackMelConfig) -> None:
        super().__init__(config)
        self.win_length, self.hop_length = config.schedule.window_samples, config.schedule.hop(0)
        self.register_buffer(
            "filterbank", htk_mel_banks(config.n_mels, self.n_fft, config.sample_rate), persistent=False
        )
        self.register_buffer("window", torch.hann_window(self.win_length), persistent=False)

    @property
    def schedule(self) -> LevelSchedule:
        """Hops and lengths of the levels."""
        return self.config.schedule

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of every band in Hz, float64 ``[n_mels]``."""
        return htk_mel_edges(self.n_mels, 0.0, self.sample_rate / 2)[1:-1]

    @property
    def window_samples(self) -> int:
        """Samples that are used of a clip: one less than it has, because the published code counts the end twice."""
        return self.schedule.clip_samples - 1

    @property
    def levels(self) -> tuple[Level, ...]:
        """Slice, hop and frame times of every level of a full clip."""
        return self.levels_of(sum(self.schedule.lengths(self.config.n_levels)))

    def levels_of(self, n_frames: int) -> tuple[Level, ...]:
        """The same for features of `n_frames` frames (short clips of three published levels are a little longer)."""
        start, found = 0, []
        for level, times in enumerate(self.schedule.frame_times(self.config.n_levels, n_frames)):
            hop, stop = self.schedule.hop(level), start + times.shape[0]
            found.append(Level(slice(start, stop), hop, hop / self.sample_rate, times))
            start = stop
        return tuple(found)

    def frames_for(self, n_samples: int) -> int:
        """Frames of all levels; every clip fills them."""
        if self.schedule.corrected or self.schedule.squeeze or n_samples >= self.window_samples:
            return sum(self.schedule.lengths(self.config.n_levels))
        stacked = max(self.config.n_levels, 2)
        return sum(taken_lengths(self.schedule.crop_frames * stacked, stacked)[: self.config.n_levels])

    def samples_for(self, n_frames: int) -> int:
        """Any clip gives all frames."""
        return 1

    def frame_times(self, n_frames: int) -> np.ndarray:
        """Second of every frame of all levels, float64 ``[n_frames]``: rises within a level, then starts again."""
        total = sum(self.schedule.lengths(self.config.n_levels))
        levels = self.levels_of(n_frames) if n_frames > total else self.levels
        return np.concatenate([level.times for level in levels])[:n_frames]

    def level_log_mel(self, waveform: Tensor, level: int) -> Tensor:
        """One level ``[batch, frames, n_mels]`` of ``[batch, samples]``, before anything is cut or stacked."""
        schedule, length = self.schedule, waveform.shape[1]
        whole = length >= self.window_samples
        if whole:
            waveform = waveform[:, : self.window_samples]
        elif schedule.corrected:
            waveform = nn.functional.pad(waveform, (0, self.window_samples - length))
        bands = stft_magnitude(waveform, self.window, self.n_fft, schedule.hop(level)) @ self.filterbank.T
        log_mel = (bands + 1e-6).log()
        if not whole and not schedule.corrected:
            wanted = schedule.crop_frames * (level + 1)
            missing = wanted - log_mel.shape[1]
            if missing > 0:
                log_mel = torch.cat([log_mel, log_mel[:, -1:].expand(-1, missing, -1)], dim=1)
            elif missing < 0:
                log_mel = resize_nearest(log_mel, wanted)
        if schedule.squeeze and log_mel.shape[1] != schedule.crop_frames:
            log_mel = resize_nearest(log_mel, schedule.crop_frames)
        return log_mel

    def stack(self, waveform: Tensor, n_levels: int | None = None) -> Tensor:
        """Levels padded with zeros in front to the length of the last, ``[batch, levels, frames, n_mels]``."""
        levels = [self.level_log_mel(waveform, level) for level in range(n_levels or self.config.n_levels)]
        longest = levels[-1].shape[1]
        padded = [nn.functional.pad(level, (0, 0, longest - level.shape[1], 0)) for level in levels]
        return torch.stack(padded, dim=1)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """All levels of ``[batch, samples]`` as the network reads them, ``[batch, frames of all levels, n_mels]``."""
        n_levels = self.config.n_levels
        if self.schedule.corrected:
            return torch.cat([self.level_log_mel(waveform, level) for level in range(n_levels)], dim=1)
        # A model without playback is trained on the first of two stacked levels.
        features = take_apart(self.stack(waveform, max(n_levels, 2)))
        lengths = self.schedule.lengths(max(n_levels, 2), features.shape[1])
        return features[:, : sum(lengths[:n_levels])]

    def merge_levels(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Relevance of all levels on the clock of level 0: sums at the nearest frame, and that level's times.

        Parameters
        ----------
        values
            ``[frames of all levels, n_mels]``; padding in front counts for nothing.
        """
        levels = self.levels_of(values.shape[0])
        times = np.arange(self.schedule.computed_frames(0)) * self.hop_length / self.sample_rate
        merged = np.zeros((times.shape[0], values.shape[1]), dtype=np.float64)
        step = self.hop_length / self.sample_rate
        for level in levels:
            heard = level.times >= 0
            rows = np.clip(np.floor(level.times[heard] / step + 0.5).astype(int), 0, times.shape[0] - 1)
            np.add.at(merged, rows, values[level.frames][heard])
        return merged, times
