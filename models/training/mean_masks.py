"""SpecAugment masks filled with the mean of the spectrogram, as Auditory SlowFast was trained with.

Park et al., SpecAugment, Interspeech 2019, arXiv 1904.08779. The published time warp is left out: it moves a control point to
a spectrogram value instead of a frame and solves a singular system, so its size is random and unbounded.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from torch import Tensor

Draw = Callable[[int, int], int]


def mask_with_mean(
    features: Tensor, axis: int, largest: int, count: int = 2, *, draw: Draw | None = None, zero: bool = False
) -> Tensor:
    """A copy of one spectrogram with up to `count` stripes along `axis` masked.

    Parameters
    ----------
    features
        One spectrogram of any layout; the mean is taken over all of it, earlier stripes included.
    axis
        The axis on which stripes have a width: frequency or time.
    largest
        Stripes span fewer cells than this.
    draw
        ``draw(low, high)`` gives an integer in ``low <= i < high``; default: `random.randrange`.
    zero
        Fill with zeros instead of the mean.

    Notes
    -----
    As published: a width of 0 ends the masking, and the end is drawn from ``[start, start + width)``, so at most
    ``width - 1`` cells are masked.
    """
    draw = draw or random.randrange
    masked = features.clone()
    size = features.shape[axis]
    for _ in range(count):
        width = min(draw(0, largest), size - 1)
        start = draw(0, size - width)
        if width == 0:
            return masked
        end = draw(start, start + width)
        masked.narrow(axis, start, end - start).fill_(0.0 if zero else masked.mean().item())
    return masked


def mask_batch(
    features: Tensor, frequency: int = 27, time: int = 25, *, generator: random.Random | None = None
) -> Tensor:
    """Two stripes of bands, then two of frames, for every clip of ``[batch, frames, n_mels]``."""
    draw = (generator or random.Random()).randrange
    masked = features.clone()
    for index, clip in enumerate(features):
        masked[index] = mask_with_mean(mask_with_mean(clip, 1, frequency, draw=draw), 0, time, draw=draw)
    return masked
