"""From a sound to the movement of what makes it: an envelope, followed frame by frame."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.scenes.canvas import Colour

ENVELOPE_RATE = 100
"""Values per second of an envelope."""

MOVING = 0.08
"""Level from which on something counts as moving."""

_COMPRESSION = 0.6  # about how loudness grows with amplitude (Stevens' power law)


@dataclass(frozen=True)
class Look:
    """What one individual looks like: three colours, one of two variants, and a seed for details."""

    main: Colour
    second: Colour
    accent: Colour
    variant: int
    seed: int


@dataclass(frozen=True)
class Motion:
    """The state of motion in one frame.

    Attributes
    ----------
    level
        How loud the own sound is now, 0 to 1.
    phase
        Integral of the level over time in s: what turns or falls goes on with it.
    strokes
        How many onsets there have been; rises from one to the next within about 0.1 s.
    time
        Time in s.
    strikes
        Of what is struck: how many blows there have been, that of this frame included.
    since, until
        Time in s since the last blow and until the next one; infinite without one. In the frame that shows a blow
        `since` is 0.
    """

    level: float
    phase: float
    strokes: float
    time: float
    strikes: int = 0
    since: float = math.inf
    until: float = math.inf

    def shake(self, rate: float) -> float:
        """A trembling at `rate` Hz that is as strong as the sound is loud, -1 to 1."""
        return self.level * float(np.sin(2 * np.pi * rate * self.time))

    def same_as(self, other: Motion) -> bool:
        """Whether the picture is the same: nothing moved in either frame."""
        still = self.level == other.level == 0.0
        return still and (self.phase, self.strokes) == (other.phase, other.strokes)


def envelope(waveform: NDArray[np.floating], sample_rate: float, duration: float | None = None) -> NDArray[np.float64]:
    """Loudness of a sound over time, 0 to 1, `[seconds * ENVELOPE_RATE]`.

    RMS over 10 ms relative to its loudest moments; what sounds all the time beneath a sound with pauses (noise of a
    recording) is taken off, the level of a steady sound is not.
    """
    count = max(1, round((len(waveform) / sample_rate if duration is None else duration) * ENVELOPE_RATE))
    power = np.cumsum(np.pad(np.asarray(waveform, dtype=np.float64) ** 2, (1, 0)))
    edges = np.minimum(np.round(np.arange(count + 1) * sample_rate / ENVELOPE_RATE).astype(int), len(waveform))
    level = np.sqrt(np.maximum(power[edges[1:]] - power[edges[:-1]], 0.0) / np.maximum(np.diff(edges), 1))
    loudest = float(np.quantile(level, 0.995))
    if loudest < 1e-5:
        return np.zeros(count)
    level = np.minimum(level / loudest, 1.0)
    floor = float(np.quantile(level, 0.2))
    # A floor close to the loudest moments is the sound itself.
    floor *= 1.5 * float(np.clip((0.4 - floor) / 0.25, 0.0, 1.0))
    return np.maximum((level - floor) / (1.0 - floor), 0.0) ** _COMPRESSION


def follow(level: NDArray[np.float64], release: float) -> NDArray[np.float64]:
    """An envelope that rises at once and falls by 60 % in every `release` s, as a body with inertia does."""
    keep = 0.4 ** (1.0 / (release * ENVELOPE_RATE))
    result = np.empty_like(level)
    state = 0.0
    for k, value in enumerate(level.tolist()):
        state = max(value, keep * state)
        result[k] = state
    return result


def strikes(level: NDArray[np.float64], rise: float = 0.11, pause: float = 0.09) -> list[int]:
    """Where the blows are in the envelope of something struck, as indices at least `pause` s apart.

    A blow lifts the level within 20 ms by `rise` above its maximum of the 30 ms before: while a drum or a bell rings, its
    level ripples as fast, but not above what it was just before.
    """
    before = np.max([np.pad(level, (3, 0))[k : k + len(level)] for k in range(3)], axis=0)
    after = np.maximum(level, np.pad(level, (0, 1))[1:])
    found: list[int] = []
    for k in np.flatnonzero((after - before >= rise) & (level - before >= 0.5 * (after - before))).tolist():
        if not found or k - found[-1] >= pause * ENVELOPE_RATE:
            found.append(k)
    return found


def swing(level: NDArray[np.float64], lead: float, release: float) -> NDArray[np.float64]:
    """The motion of what is struck: it goes on from each blow as in `follow`, however long that rings, and leads up to it.

    `lead` is the time in s in which stick, clapper or bell move to the blow.
    """
    blows = np.zeros_like(level)
    for k in strikes(level):
        blows[k] = level[k : k + 3].max()
    moving = follow(blows, release)
    width = round(lead * ENVELOPE_RATE)
    for k in np.flatnonzero(blows).tolist():
        first = max(0, k - width)
        rising = blows[k] * (np.arange(first, k) - k + width + 1) / (width + 1)
        moving[first:k] = np.maximum(moving[first:k], rising)
    return moving


def spans(level: NDArray[np.float64], threshold: float = MOVING, gap: float = 0.12) -> list[tuple[float, float]]:
    """Time spans in s in which an envelope is above a threshold; pauses shorter than `gap` s do not count."""
    above = np.flatnonzero(level >= threshold)
    if not len(above):
        return []
    breaks = np.flatnonzero(np.diff(above) > gap * ENVELOPE_RATE)
    starts, stops = above[np.r_[0, breaks + 1]], above[np.r_[breaks, len(above) - 1]] + 1
    return [(float(a) / ENVELOPE_RATE, float(b) / ENVELOPE_RATE) for a, b in zip(starts, stops, strict=True)]


def motions(level: NDArray[np.float64], n_frames: int, frame_rate: float, blows: Sequence[int] = ()) -> list[Motion]:
    """The state of motion in every frame; the level of a frame is the highest within its share of time.

    `blows` are the indices of `strikes`, in rising order.
    """
    times = np.arange(n_frames) / frame_rate
    padded = np.pad(level, (0, 1))
    onset = (padded[:-1] > 0.35) & (np.r_[0.0, padded[:-2]] <= 0.35)
    strokes = np.minimum(np.add.accumulate(_eased(onset)), float(len(level)))
    phase = np.cumsum(level) / ENVELOPE_RATE
    result = []
    for time in times:
        first = min(max(0, round((time - 0.5 / frame_rate) * ENVELOPE_RATE)), len(level) - 1)
        last = min(max(first + 1, round((time + 0.5 / frame_rate) * ENVELOPE_RATE)), len(level))
        at = min(last, len(level)) - 1
        count = bisect.bisect_left(blows, last)
        since = max(0.0, time - blows[count - 1] / ENVELOPE_RATE) if count else math.inf
        if count and blows[count - 1] >= first:
            since = 0.0
        until = blows[count] / ENVELOPE_RATE - time if count < len(blows) else math.inf
        result.append(
            Motion(
                float(level[first:last].max()), float(phase[at]), float(strokes[at]), float(time), count, since, until
            )
        )
    return result


def _eased(onset: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each onset spread over a tenth of a second."""
    width = ENVELOPE_RATE // 10
    return np.convolve(onset.astype(float), np.full(width, 1.0 / width))[: len(onset)]
