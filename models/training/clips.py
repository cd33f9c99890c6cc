"""The clips of a training run: in memory where they fit, otherwise decoded when they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, RandomSampler, Sampler, WeightedRandomSampler

from models.audio_visual import read_frames
from models.clip import Clip, open_clip
from models.data import ExampleSet
from models.errors import DataError, EarwitnessError, SettingsError
from models.layers.hetero_settings import HeteroGraphConfig
from models.network import Network
from models.training.config import AugmentConfig, TrainConfig
from models.training.published_augment import mix_targets, mix_waveforms, mixing_weight
from models.training.sampling import read_weights, sampling_weights
from models.training.waveforms import annotated_part, load_waveforms
from models.video import VideoTrack
from models.video_frames import crop_offsets, published_frame_times, resized_shape, to_tensor

# Reads the picture of a clip; the number in 0..1 says which of several pictures.
Picture = Callable[[VideoTrack | None, float], Tensor]
_CROPPED = ("slowfast", "play_it_back")  # augmentations that begin anywhere in a clip
_TYPICAL_SECONDS = 10.0


@dataclass(frozen=True)
class Draw:
    """Everything random about one drawn clip, so that decoding it needs no random numbers.

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
    """

    index: int
    place: float = 0.0
    partner: int | None = None
    weight: float = 1.0
    picture: float = 0.5


class Batch(NamedTuple):
    """Waveforms ``[batch, samples]``, or a list if lengths differ; targets; pictures or None."""

    waveforms: Tensor | list[Tensor]
    targets: Tensor
    frames: Tensor | None = None


class TrainingClips(Dataset[tuple[Tensor, Tensor, Tensor | None]]):
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
    """

    def __init__(
        self, examples: ExampleSet, sample_rate: int, samples: int, *, padded: bool = True, cropped: bool = False,
        picture: Picture | None = None,
    ) -> None:  # fmt: skip
        self.examples, self.sample_rate, self.samples = examples, sample_rate, samples
        self.padded, self.cropped, self.picture = padded, cropped, picture
        index = {label: i for i, label in enumerate(examples.labels)}
        self.targets = torch.zeros(len(examples.examples), len(examples.labels))
        for row, example in enumerate(examples.examples):
            for label in example.labels:
                self.targets[row, index[label]] = 1.0
        self._kept: Tensor | list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.examples.examples)

    @property
    def gigabytes(self) -> float:
        """Memory that all samples take, in units of 10^9 bytes."""
        typical = max(self.samples, round(_TYPICAL_SECONDS * self.sample_rate)) if self.cropped else self.samples
        return len(self) * typical * 4 / 1e9

    def keep(self) -> None:
        """Decode everything now and keep it."""
        if self.padded and not self.cropped:
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
        else:
            waveform, clip = self._decode(row)
        frames = self.picture(clip.video if clip else None, picture) if self.picture is not None else None
        return self._window(waveform, place), frames

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, Tensor, Tensor | None]:
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        waveform, frames = self._item(draw.index, draw.place, draw.picture)
        target = self.targets[draw.index]
        if draw.partner is not None:
            other, other_frames = self._item(draw.partner, draw.place, draw.picture)
            waveform = mix_waveforms(waveform, other, draw.weight)
            target = mix_targets(target, self.targets[draw.partner], draw.weight)
            if frames is not None and other_frames is not None:
                frames = draw.weight * frames + (1 - draw.weight) * other_frames
        return waveform, target, frames

    def first(self, count: int, generator: torch.Generator) -> Tensor:
        """Waveforms ``[n, samples]`` to measure statistics on: all that are kept, else up to `count` random ones."""
        if isinstance(self._kept, Tensor):
            return self._kept
        rows = torch.randperm(len(self), generator=generator)[:count].tolist()
        windows = [self._item(row, 0.0, 0.5)[0] for row in rows]
        return torch.stack([nn.functional.pad(w, (0, self.samples - w.shape[0])) for w in windows])


def collate(items: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Batch:
    """A batch of clips."""
    waveforms = [waveform for waveform, _, _ in items]
    frames = [picture for _, _, picture in items if picture is not None]
    together = len({waveform.shape for waveform in waveforms}) == 1
    return Batch(
        torch.stack(waveforms) if together else waveforms,
        torch.stack([target for _, target, _ in items]),
        torch.stack(frames) if frames else None,
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
        examples, sample_rate, samples, padded=kind != "slowfast", cropped=kind in _CROPPED, picture=picture
    )
    if picture is None and clips.gigabytes <= config.data.memory_limit_gb:
        clips.keep()
    return clips


def picture_reader(network: Network) -> Picture | None:
    """How a network's pictures are read, None if it reads none."""
    if "video" not in network.modalities:
        return None
    # No lambdas: processes that decode have to be sent this.
    if isinstance(network.config, HeteroGraphConfig):
        return partial(all_pictures, seconds=network.config.clip_seconds, frame_rate=network.config.frame_rate)
    return partial(one_picture, size=int(getattr(network.config, "image_size", 224)))


def all_pictures(video: VideoTrack | None, _: float, seconds: float, frame_rate: float) -> Tensor:
    """The frames that the event graph reads, ``[n_frames, 3, 112, 112]`` in 0..1."""
    return read_frames(video, seconds, frame_rate)


def one_picture(video: VideoTrack | None, share: float, size: int) -> Tensor:
    """One of the ten pictures that EquiAV's data sets keep of a clip, RGB in 0..1, ``[1, 3, size, size]``."""
    if video is None:
        raise DataError("A clip of the data set has no picture.", "Train with sound alone (data.video: false).")
    rate = video.frame_rate or 25.0
    times = published_frame_times(video.duration, video.frame_rate)
    pixels = video.frames([times[min(int(share * len(times)), len(times) - 1)] + 0.25 / rate])[0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    height, width = resized_shape(image.height, image.width, size)
    top, left = crop_offsets(height, width, size)
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    return to_tensor(image).unsqueeze(0)


class Draws(Sampler[Draw]):
    """An epoch's draws, one for every index that `order` gives; all random numbers are drawn in the main process."""

    def __init__(
        self, order: Sampler[int], config: AugmentConfig, generator: torch.Generator, n_clips: int,
        partner_weights: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.order, self.config, self.generator, self.n_clips = order, config, generator, n_clips
        self.partner_weights = partner_weights

    def __len__(self) -> int:
        return len(self.order)  # type: ignore[arg-type]

    def _uniform(self) -> float:
        return torch.rand((), generator=self.generator).item()

    def __iter__(self) -> Iterator[Draw]:
        config = self.config
        for index in self.order:
            if config.kind == "standard":
                yield Draw(index)
                continue
            place, picture, partner, weight = self._uniform(), self._uniform(), None, 1.0
            if config.mixes_decoded and self._uniform() < config.mixup:
                weight = mixing_weight(self.generator)
                if self.partner_weights is not None:
                    partner = int(torch.multinomial(self.partner_weights, 1, generator=self.generator))
                else:
                    partner = int(torch.randint(self.n_clips, (1,), generator=self.generator))
            yield Draw(index, place, partner, weight, picture)


def draws_of(config: TrainConfig, clips: TrainingClips, generator: torch.Generator) -> Draws:
    """In which order a recipe draws its clips.

    Raises
    ------
    DataError
        If a file of weights does not belong to the clips.
    """
    settings, count = config.sampling, len(clips)
    weights = None
    if settings.kind == "balanced" or settings.weighted_partners:
        if settings.weights is not None:
            values = read_weights(settings.weights, count)
        else:
            values = sampling_weights([example.labels for example in clips.examples.examples])
        weights = torch.from_numpy(values)
    order: Sampler[int] = RandomSampler(range(count))
    if settings.kind == "balanced":
        assert weights is not None
        order = WeightedRandomSampler(weights.tolist(), count, replacement=True)
    return Draws(order, config.augment, generator, count, weights if settings.weighted_partners else None)
