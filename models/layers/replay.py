"""From a saliency profile to the frames that the next pass hears: as published, and on one clock (corrected).

Both give, for every frame of the next encoder input, the level and the frame of that level it is taken from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

# --- as published
# ------------------------------------------------------------------------------------------------------


def near_divisor(target: int, number: int) -> int:
    """A divisor of `number` near `target`: the first larger one, or the one before it if that is not farther."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    larger = [d for d in divisors if d > target]
    if not larger:
        return number
    lower = max((d for d in divisors if d < larger[0]), default=1)
    return larger[0] if larger[0] - target < target - lower else lower


def published_profile(slots: Tensor, over_batch: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positive and inverted negative slot, saliency in 0..1 and its above-mean mask, ``[batch, steps]`` each.

    Published code takes the slots' minimum over the whole batch (`over_batch`), so that a clip's result depends on its
    neighbours; per clip is what it gives for a batch of one.
    """
    positive, negative = slots[:, 0], slots[:, 1]
    if over_batch:
        lowest_positive, lowest_negative = positive.min(), negative.min()
    else:
        lowest_positive, lowest_negative = positive.amin(1, keepdim=True), negative.amin(1, keepdim=True)
    positive = positive + lowest_positive.abs()
    negative = (negative + lowest_negative.abs() - 1.0).abs()
    difference = negative - positive
    low, high = difference.amin(1, keepdim=True), difference.amax(1, keepdim=True)
    saliency = (difference - low) / (high - low)
    # Written so that a constant profile (0 / 0) selects everything.
    mask = ~(saliency <= saliency.mean(dim=1, keepdim=True))
    return positive, negative, saliency, mask


def pairwise_segments(mask: np.ndarray) -> np.ndarray:
    """The published segments of a mask ``[steps]``: its positions two by two as (start, end), int64 ``[n, 2]``.

    These are not the mask's runs: within a run every second step is taken, and a pair may span a gap. An odd last start
    ends at the last step.
    """
    positions = np.flatnonzero(mask)
    if positions.size % 2:
        positions = np.append(positions, mask.shape[0] - 1)
    return positions.reshape(-1, 2).astype(np.int64)


def runs(mask: np.ndarray) -> np.ndarray:
    """Contiguous runs of a boolean array as (start, end), end exclusive, int64 ``[n, 2]``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.astype(bool), [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)


def published_replay(segments: np.ndarray, level: int, lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Source level and frame of every input frame of pass `level`, int64 ``[frames of level 0]`` each.

    Segments are cut from this level and the rest from the level before; both are addressed by the *ratio of lengths*
    rounded down, so from the second playback on the wrong moments are replayed. Then every n-th frame is kept.
    """
    longest, before, wanted = lengths[level], lengths[level - 1], lengths[0]
    fine = np.stack([np.full(longest, level), np.arange(longest)])
    coarse = np.stack([np.full(before, level - 1), np.arange(before)])
    if longest <= wanted:
        return fine[0].astype(np.int64), fine[1].astype(np.int64)
    ratio, position, parts = longest // before, 0, []
    for start, end in segments.tolist():
        parts += [coarse[:, position:start], fine[:, ratio * start : ratio * end]]
        position = end
    parts.append(coarse[:, position:])
    joined = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    # The published resize, so that its rounding of positions is the same; frame numbers are exact in float32.
    kept = nn.functional.interpolate(joined.unsqueeze(0), size=wanted, mode="nearest")[0].numpy().astype(np.int64)
    return kept[0], kept[1]


# --- corrected
# ---------------------------------------------------------------------------------------------------------


def _join(found: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Runs less than `gap` apart (or overlapping) become one; ordered by start."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start - joined[-1][1] < max(gap, 1):
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def select_segments(profile: np.ndarray, shortest: int, gap: int, budget: int, stand_out: float) -> np.ndarray:
    """What stands out of a profile, in cells ``[n, 2]``: each at least `shortest` long, together at most `budget`.

    The threshold goes down through the profile's values as long as the budget allows; nothing is selected if the
    profile varies by less than `stand_out`. If even the highest value takes too many cells, the best single window is.
    """
    n_cells = profile.shape[0]
    shortest = min(shortest, budget)
    nothing = np.zeros((0, 2), dtype=np.int64)
    if budget < 1 or n_cells == 0:
        return nothing
    highest, lowest = float(profile.max()), float(profile.min())
    if not highest - lowest >= stand_out:
        return nothing
    selected: list[tuple[int, int]] | None = None
    for threshold in np.unique(profile)[::-1]:
        if threshold < (highest + lowest) / 2:
            break
        found = _join([(int(s), int(e)) for s, e in runs(profile >= threshold)], gap)
        widened = []
        for start, end in found:
            if end - start < shortest:
                start = min(max(start - (shortest - (end - start)) // 2, 0), n_cells - shortest)
                end = start + shortest
            widened.append((start, end))
        found = _join(widened, gap)
        if sum(end - start for start, end in found) > budget:
            break
        selected = found
    if selected is None:
        sums = np.convolve(profile.astype(np.float64), np.ones(budget), mode="valid")
        start = int(np.flatnonzero(sums >= sums.max() - 1e-9 * max(1.0, abs(sums.max())))[0])
        selected = [(start, start + budget)]
    return np.array(selected, dtype=np.int64).reshape(-1, 2)


class Clock:
    """Seconds of levels and frames in corrected mode.

    Parameters
    ----------
    hops, lengths
        Samples between frames, and number of frames, of every level.
    sample_rate
        In Hz.
    """

    def __init__(self, hops: Sequence[int], lengths: Sequence[int], sample_rate: int) -> None:
        self.hops, self.lengths, self.sample_rate = list(hops), list(lengths), sample_rate
        self.cell_seconds = hops[0] / sample_rate
        self.n_cells = lengths[0]
        self.seconds = self.n_cells * self.cell_seconds

    def valid_cells(self, valid_seconds: float) -> int:
        """Cells that carry signal."""
        return max(1, min(self.n_cells, math.ceil(valid_seconds / self.cell_seconds - 1e-9)))

    def plain(self) -> np.ndarray:
        """The first pass: second of every input frame."""
        return np.arange(self.n_cells) * self.cell_seconds

    def replay(self, segments: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Second, source level and source frame of every input frame of a pass that plays `segments` at `level`.

        Inside segments (in cells) time runs slower by the ratio of the hops; frames are addressed by seconds.
        """
        if level == 0 or segments.shape[0] == 0:
            return self.plain(), np.zeros(self.n_cells, dtype=np.int64), np.arange(self.n_cells)
        zoom = self.hops[0] / self.hops[level]
        # Worked out in cells, in which all corners are whole numbers.
        corners = np.unique(np.concatenate([[0, self.n_cells], segments.ravel()])).astype(np.float64)
        inside = np.isin(corners[:-1], segments[:, 0])
        elapsed = np.concatenate([[0.0], np.cumsum(np.diff(corners) * np.where(inside, zoom, 1.0))])
        wanted = np.arange(self.n_cells) * (elapsed[-1] / self.n_cells)
        cells = np.interp(wanted, elapsed, corners)
        # A frame that falls on a corner is the first of what follows it.
        piece = np.searchsorted(elapsed, wanted + 1e-9, side="right") - 1
        source_level = np.where(inside[np.clip(piece, 0, len(inside) - 1)], level, 0).astype(np.int64)
        seconds = cells * self.cell_seconds
        hops, lengths = np.asarray(self.hops)[source_level], np.asarray(self.lengths)[source_level]
        frames = np.floor(seconds * self.sample_rate / hops + 0.5 + 1e-9).astype(np.int64)
        return seconds, source_level, np.minimum(frames, lengths - 1)


def token_profile(evidence: Tensor) -> Tensor:
    """Time profile ``[batch, time]`` of evidence ``[batch, time, frequency]``: log of the mean odds over frequency."""
    return torch.logsumexp(evidence, dim=2) - math.log(evidence.shape[2])


def profile_on_frames(profile: Tensor, n_frames: int, stride: int) -> Tensor:
    """A profile per token ``[batch, tokens]`` on input frames; token t is centred on frame ``stride * t``."""
    last = profile.shape[1] - 1
    position = (torch.arange(n_frames, device=profile.device) / stride).clamp(max=last)
    low = position.floor().long()
    share = (position - low).to(profile.dtype)
    return profile[:, low] * (1 - share) + profile[:, (low + 1).clamp(max=last)] * share


def sound_floor(inputs: Tensor, valid: Tensor) -> Tensor:
    """What stands for "not heard": the 10 % quantile of every band over valid frames, ``[batch, 1, n_mels]``.

    `inputs` are ``[batch, frames, n_mels]``, `valid` is bool ``[batch, frames]``.
    """
    floors = [torch.quantile(clip[heard], 0.1, dim=0) for clip, heard in zip(inputs, valid, strict=True)]
    return torch.stack(floors).unsqueeze(1)


def keep_and_drop(inputs: Tensor, mask: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of which only the masked frames are heard, and only the others; frames that are not valid stay.

    `mask` ``[batch, frames]`` in 0..1 may be soft; what is not heard becomes `sound_floor`.
    """
    floor = sound_floor(inputs.detach(), valid)
    share, there = mask.unsqueeze(2), valid.unsqueeze(2)
    kept = torch.where(there, share * inputs + (1 - share) * floor, inputs)
    dropped = torch.where(there, (1 - share) * inputs + share * floor, inputs)
    return kept, dropped


def inside(seconds: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Whether seconds ``[n]`` lie in segments ``[m, 2]`` (in seconds), bool ``[n]``."""
    found = (seconds[:, None] >= segments[None, :, 0] - 1e-9) & (seconds[:, None] < segments[None, :, 1] - 1e-9)
    return np.asarray(found.any(axis=1))
