"""The clips of a training run: in memory where they fit, otherwise decoded when they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.clip import Clip, open_clip
from models.data import ExampleSet
from models.errors import DataError, EarwitnessError, SettingsError
from models.network import Network
from models.training.config import AugmentConfig, TrainConfig
from models.training.pictures import Pictures, picture_reader
from models.training.published_augment import mix_targets, mix_waveforms
from models.training.waveforms import annotated_part, load_waveforms
from models.video import VideoTrack

# Reads the picture of a clip; the number in 0..1 says which of several pictures.
Picture = Callable[[VideoTrack | None, float], Tensor]
_CROPPED = ("slowfast", "play_it_back")  # augmentations that begin anywhere in a clip
_TYPICAL_SECONDS = 10.0
# Purposes of a draw's random numbers (those of `models.training.augmentations` begin at 0).
_PICTURE, _TOGETHER = 100, 101


def key_of(*numbers: int) -> int:
    """A seed that belongs to these numbers alone."""
    entropy = [number % 2**64 for number in numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Draw:
    """Everything random about one drawn clip.

    Attributes
    ----------
    index
        Of the example.
    place
        Where in a longer clip the window begins, from 0 (its beginning) to 1 (as late as possible).
    partner, weight
        Example to mix with, and the clip's own share.
    picture
        Which of several pictures, 0..1.
    key
        Seed of the random changes of this clip.
    guest
        Another drawn clip of the same step, to mix with after both were changed.
    """

    index: int
    place: float = 0.0
    partner: int | None = None
    weight: float = 1.0
    picture: float = 0.5
    key: int = 0
    guest: Draw | None = None

    def generator(self, purpose: int = 0) -> torch.Generator:
        """Random numbers of this clip; other numbers for every purpose."""
        return torch.Generator().manual_seed(key_of(self.key, purpose))

    def mixed_with(self, guest: Draw, weight: float) -> Draw:
        """The same draw with another clip mixed in; `weight` is its own share."""
        return replace(self, guest=guest, weight=weight)


class Item(NamedTuple):
    """A drawn clip: waveform ``[samples]``, target ``[n_classes]``, picture or None, and another clip to mix in."""

    waveform: Tensor
    target: Tensor
    frames: Tensor | None
    draw: Draw
    guest: Item | None = None


class Batch(NamedTuple):
    """Waveforms ``[batch, samples]``, or a list if lengths differ; targets; pictures or None; how each clip was drawn."""

    waveforms: Tensor | list[Tensor]
    targets: Tensor
    frames: Tensor | None
    draws: tuple[Draw, ...]
    guests: tuple[Item | None, ...]


class TrainingClips(Dataset[Item]):
    """Waveform, target ``[n_classes]`` and picture of drawn clips.

    Parameters
    ----------
    examples
        Which clips.
    sample_rate, samples
        Rate in Hz and length of the window that is read.
    padded
        Shorter clips end with silence; otherwise they stay short.
    cropped
        The window begins where the draw says; otherwise at the beginning of the clip.
    picture
        Reads the picture, if one is wanted.
    augment
        Says what happens to sound and picture of a drawn clip together.
    """

    def __init__(
        self, examples: ExampleSet, sample_rate: int, samples: int, *, padded: bool = True, cropped: bool = False,
        picture: Picture | None = None, augment: AugmentConfig | None = None,
    ) -> None:  # fmt: skip
        self.examples, self.sample_rate, self.samples = examples, sample_rate, samples
        self.padded, self.cropped, self.picture, self.augment = padded, cropped, picture, augment
        index = {label: i for i, label in enumerate(examples.labels)}
        self.targets = torch.zeros(len(examples.examples), len(examples.labels))
        for row, example in enumerate(examples.examples):
            for label in example.labels:
                self.targets[row, index[label]] = 1.0
        self._kept: Tensor | list[Tensor] | None = None
        self._opened: dict[int, Tensor] | None = None
        self._pixels: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.examples.examples)

    @property
    def gigabytes(self) -> float:
        """Memory that all samples take, in units of 10^9 bytes."""
        typical = max(self.samples, round(_TYPICAL_SECONDS * self.sample_rate)) if self.cropped else self.samples
        pixels = self.picture.n_bytes if isinstance(self.picture, Pictures) else 0
        return len(self) * (typical * 4 + pixels) / 1e9

    def keep(self) -> None:
        """Decode everything now and keep it; pictures as whole numbers."""
        if isinstance(self.picture, Pictures):
            kept = []
            for row in range(len(self)):
                waveform, clip = self._decode(row)
                kept.append(waveform if self.cropped else waveform[: self.samples].clone())
                self._pixels.append(self.picture.pixels(clip.video))
            self._kept = kept
        elif self.padded and not self.cropped:
            self._kept = load_waveforms(self.examples, self.sample_rate, self.samples)[0]
        else:
            self._kept = [self._decode(row)[0] for row in range(len(self))]

    def _decode(self, row: int) -> tuple[Tensor, Clip]:
        example = self.examples.examples[row]
        try:
            clip = annotated_part(open_clip(example.path), example)
        except EarwitnessError as error:
            raise DataError(f"{example.path.name} cannot be used: {error.message}", error.advice) from error
        return torch.from_numpy(clip.at(self.sample_rate)), clip

    def _window(self, waveform: Tensor, place: float) -> Tensor:
        # The published crop counts one sample more than it reads (view_bounds in multiview.py).
        free = max(0, waveform.shape[0] - self.samples - 1) if self.cropped else 0
        start = int(place * free)
        window = waveform[start : start + self.samples]
        if self.padded:
            window = nn.functional.pad(window, (0, self.samples - window.shape[0]))
        return window

    def _item(self, row: int, place: float, picture: float) -> tuple[Tensor, Tensor | None]:
        clip = None
        if self._kept is not None:
            waveform = self._kept[row]
        elif self._opened is not None and row in self._opened:
            waveform = self._opened[row]
        else:
            waveform, clip = self._decode(row)
            if self._opened is not None and self.picture is None:
                self._opened[row] = waveform
        frames = None
        if self._pixels:
            assert isinstance(self.picture, Pictures)
            frames = self.picture.frames(self._pixels[row], picture)
        elif self.picture is not None:
            frames = self.picture(clip.video if clip else None, picture)
        return self._window(waveform, place), frames

    def __getitem__(self, draw: Draw | int) -> Item:
        augment = self.augment if isinstance(draw, Draw) and isinstance(self.picture, Pictures) else None
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        if augment is not None and augment.any_picture:
            draw = replace(draw, picture=torch.rand((), generator=draw.generator(_PICTURE)).item())
        waveform, frames = self._item(draw.index, draw.place, draw.picture)
        target = self.targets[draw.index]
        if draw.partner is not None:
            other, other_frames = self._item(draw.partner, draw.place, draw.picture)
            waveform = mix_waveforms(waveform, other, draw.weight)
            target = mix_targets(target, self.targets[draw.partner], draw.weight)
            if frames is not None and other_frames is not None:
                frames = draw.weight * frames + (1 - draw.weight) * other_frames
        if augment is not None and frames is not None:
            waveform, frames = self._together(waveform, frames, augment, draw.generator(_TOGETHER))
        return Item(waveform, target, frames, draw, None if draw.guest is None else self[draw.guest])

    def _together(
        self, waveform: Tensor, frames: Tensor, augment: AugmentConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What happens to sound and picture in the same draw."""
        assert isinstance(self.picture, Pictures)
        share, turn = torch.rand(2, generator=generator).tolist()
        if augment.turn and self.picture.moving:
            steps = int(turn * len(frames))
            frames, waveform = frames.roll(steps, 0), waveform.roll(round(steps * len(waveform) / len(frames)))
        if share < augment.hide_picture:
            frames = torch.tensor(self.picture.grey)[:, None, None].expand_as(frames)
        elif share < augment.hide_picture + augment.hide_sound:
            waveform = torch.zeros_like(waveform)
        return waveform, frames

    def __getitems__(self, draws: Sequence[Draw | int]) -> list[Item]:
        """The clips of a batch; those that are in it and mixed into others are decoded once."""
        mixed = any(isinstance(draw, Draw) and draw.guest is not None for draw in draws)
        self._opened = {} if mixed else None
        try:
            return [self[draw] for draw in draws]
        finally:
            self._opened = None

    def first(self, count: int, generator: torch.Generator) -> Tensor:
        """Waveforms ``[n, samples]`` to measure statistics on: all that are kept, else up to `count` random ones."""
        if isinstance(self._kept, Tensor):
            return self._kept
        rows = torch.randperm(len(self), generator=generator)[:count].tolist()
        windows = [self._item(row, 0.0, 0.5)[0] for row in rows]
        return torch.stack([nn.functional.pad(w, (0, self.samples - w.shape[0])) for w in windows])


def collate(items: Sequence[Item]) -> Batch:
    """A batch of clips."""
    waveforms = [item.waveform for item in items]
    frames = [item.frames for item in items if item.frames is not None]
    together = len({waveform.shape for waveform in waveforms}) == 1
    return Batch(
        torch.stack(waveforms) if together else waveforms,
        torch.stack([item.target for item in items]),
        torch.stack(frames) if frames else None,
        tuple(item.draw for item in items),
        tuple(item.guest for item in items),
    )


def clips_of(
    config: TrainConfig, examples: ExampleSet, sample_rate: int, samples: int, network: Network
) -> TrainingClips:
    """The clips that a recipe trains or validates on, decoded already if they fit into its memory limit.

    Raises
    ------
    SettingsError
        If pictures are wanted for a family that reads none.
    """
    picture = picture_reader(network) if config.data.video else None
    if config.data.video and picture is None:
        raise SettingsError(f"{network.info.title} reads no picture.", "Set data.video to false.")
    kind = config.augment.kind
    clips = TrainingClips(
        examples, sample_rate, samples, padded=kind != "slowfast", cropped=kind in _CROPPED, picture=picture,
        augment=config.augment,
    )  # fmt: skip
    if clips.gigabytes <= config.data.memory_limit_gb:
        clips.keep()
    return clips
