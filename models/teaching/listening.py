"""Examples as a network hears them: decoded once, cut into windows, changed copies, embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.clip import open_clip
from models.errors import EarwitnessError
from models.frontends.kaldi import KaldiFbank, KaldiFbankConfig
from models.prediction import hop_samples, window_starts
from models.recognizer import Recognizer
from models.teaching.contract import TeachingExample
from models.training.augment import add_noise, alter
from models.training.sections import AugmentConfig

SILENT = 1e-4  # peak of what counts as silence, -80 dB below full scale
MOST_WINDOWS = 4  # of one clip
BATCH = 16  # windows that are embedded at once
_WITHIN_DB = 20.0  # of the loudest window: what is much softer may not hold the sound that the clip is labelled with
_WITHOUT_WINDOW = 5.0  # seconds that are read of clips by models which read any length
CHANGES = AugmentConfig(mixup=0.0, speed=(0.9, 1.1), gain_db=(-12.0, 6.0), noise_db=(-80.0, -45.0))
_RANGE = 50 / 10 * math.log(10)  # 50 dB: what is softer is lost when a copy is made at a smaller volume
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class HeardExample:
    """An opened example.

    Attributes
    ----------
    index
        In the list of examples.
    windows
        Waveforms ``[samples]`` at the model's rate, the loudest parts of long clips.
    pictures
        For every window what `Network.encode_frames` gives (a batch of one), or None.
    content_hash
        Of the decoded clip.
    peak
        Largest absolute sample of the clip.
    """

    index: int
    windows: tuple[Tensor, ...]
    pictures: tuple[Tensor | None, ...]
    content_hash: str
    peak: float


def window_length(recognizer: Recognizer) -> int:
    """Samples of a window."""
    return recognizer.window_samples or round(_WITHOUT_WINDOW * recognizer.sample_rate)


def loudest_windows(waveform: np.ndarray, length: int, hop: int | None) -> list[int]:
    """First samples of the windows of a clip that are worth learning from, at most `MOST_WINDOWS`, in order."""
    starts = window_starts(len(waveform), length, hop)
    power = [float(np.mean(waveform[s : s + length].astype(np.float64) ** 2)) for s in starts]
    best = sorted(range(len(starts)), key=lambda i: (-power[i], i))[:MOST_WINDOWS]
    floor = max(power) * 10 ** (-_WITHIN_DB / 10)
    return [starts[i] for i in sorted(best) if power[i] >= floor]


@torch.no_grad()
def hear(
    recognizer: Recognizer, examples: Sequence[TeachingExample], progress: Progress | None = None
) -> tuple[list[HeardExample], dict[int, str]]:
    """Open all examples; the second part says why some cannot be opened, by their index."""
    found: list[HeardExample] = []
    problems: dict[int, str] = {}
    length = window_length(recognizer)
    for index, example in enumerate(examples):
        try:
            clip = open_clip(example.path, name=example.name)
            samples = clip.at(recognizer.sample_rate)
            starts = loudest_windows(samples, length, hop_samples(recognizer))
            windows = []
            pictures: list[Tensor | None] = []
            for start in starts:
                window = torch.from_numpy(samples[start : start + length].copy())
                if recognizer.window_samples is None:
                    window = nn.functional.pad(window, (0, length - len(window)))
                windows.append(window)
                frames = recognizer.frames(clip.video, start / recognizer.sample_rate, length / recognizer.sample_rate)
                pictures.append(None if frames is None else recognizer.network.encode_frames(frames).cpu())
            peak = float(np.abs(samples).max(initial=0.0))
            found.append(HeardExample(index, tuple(windows), tuple(pictures), clip.content_hash, peak))
        except EarwitnessError as error:
            problems[index] = error.message
        if progress is not None:
            progress(index + 1, len(examples))
    return found, problems


def changed(waveform: Tensor, seed: int, *numbers: int) -> Tensor:
    """A copy of ``[samples]``: shifted, faster or slower, louder or softer, with noise; the same for the same numbers."""
    entropy = np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(entropy) % 2**63)
    return add_noise(alter(waveform, CHANGES, generator), CHANGES, generator)


def features_of(recognizer: Recognizer, waveforms: Sequence[Tensor]) -> Tensor:
    """Features ``[batch, frames, n_mels]``; clips of different lengths go through the front end one by one."""
    if len({len(waveform) for waveform in waveforms}) == 1:
        return recognizer.features(torch.stack(list(waveforms)))
    return torch.cat([recognizer.features(waveform) for waveform in waveforms])


@torch.no_grad()
def outlines(waveforms: Sequence[Tensor], sample_rate: int, length: int) -> Tensor:
    """What rises and falls where in a sound: log-mel without each band's mean ``[n, cells]``; products are correlations.

    They are the same whatever the model reads: what its front end gives may be samples, or the same sound at several rates.
    Without the means, two steady sounds of one colour (rain, waves) are no copies of each other.

    What lies after the end of a shorter sound is like nothing, too: else all sounds of one length would be alike.

    Parameters
    ----------
    waveforms
        ``[samples]`` each, at most `length`.
    length
        Samples of the longest that there may be.
    """
    frontend = KaldiFbank(KaldiFbankConfig(sample_rate=sample_rate, n_mels=64))
    size, found = frontend(torch.zeros(1, length)).shape[1] // 2, []
    for waveform in waveforms:
        shortest = max(0, 4 * frontend.win_length - len(waveform))
        image = frontend(nn.functional.pad(waveform, (0, shortest)).unsqueeze(0))
        image = nn.functional.avg_pool1d(image.clamp(min=float(image.max()) - _RANGE).transpose(1, 2), 2)
        change = image - image.mean(dim=2, keepdim=True)
        change = nn.functional.pad(change, (0, size - change.shape[2])).flatten(1)
        # Where nothing changes only rounding is left, which is like nothing else.
        found.append(nn.functional.normalize(change, dim=1, eps=1e-2))
    return torch.cat(found) if found else torch.zeros(0, 1)


def joined(pictures: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    """A batch of pictures, or None."""
    there = [picture for picture in pictures if picture is not None]
    return torch.cat(there).to(device) if there else None


def encoded(recognizer: Recognizer, features: Tensor, frames: Tensor | None) -> Tensor:
    """What the head reads of features and encoded pictures."""
    network = recognizer.network
    return network.forward_features(features) if frames is None else network.forward_features(features, frames)


@torch.no_grad()
def no_picture(recognizer: Recognizer) -> Tensor | None:
    """What `Network.encode_frames` gives where there is nothing to see (a batch of one); None for models that only hear."""
    frames = recognizer.frames(None)
    return None if frames is None else recognizer.network.encode_frames(frames).cpu()


@torch.no_grad()
def embed(recognizer: Recognizer, waveforms: Sequence[Tensor], pictures: Sequence[Tensor | None]) -> Iterator[Tensor]:
    """What the head reads of every waveform, a batch at a time."""
    for first in range(0, len(waveforms), BATCH):
        part = slice(first, first + BATCH)
        yield encoded(recognizer, features_of(recognizer, waveforms[part]), joined(pictures[part], recognizer.device))


def summary(hidden: Tensor) -> Tensor:
    """One vector a clip ``[batch, size]`` for comparing sounds: the mean over whatever positions the head reads."""
    # Channels come first in maps of convolutions ([batch, channels, steps]) and last in sequences ([batch, steps, channels]).
    flat = hidden.flatten(2) if hidden.ndim > 2 else hidden
    if flat.ndim == 3:
        flat = torch.cat([flat.mean(dim=1), flat.mean(dim=2)], dim=1)
    return nn.functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
