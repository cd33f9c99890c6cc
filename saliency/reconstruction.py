"""Salient audio: the sound that an attribution keeps, and what is left.

An attribution on mel cells becomes a mask on STFT bins, is applied to the clip's own complex STFT at its own sample rate, and
is inverted with the clip's own phase. Nothing is synthesised: kept + removed is the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter, label

from models.clip import Clip
from models.frontends import FrontEnd
from saliency.attribution import Attribution
from saliency.cells import cells_of

# Below this column sum an STFT bin belongs to no mel band and copies its nearest covered neighbour.
COVERED = 1e-8


class KeepSettings(BaseModel):
    """How much of a clip an explanation keeps.

    Attributes
    ----------
    sign
        Keep what supports the class, what opposes it, or both.
    rule
        ``area``: the most relevant `fraction` of all cells; ``relevance``: the most relevant cells that together hold
        `fraction` of the relevance; ``soft``: every cell, faded by its relevance to the power `gamma`.
    smooth_seconds, smooth_bands
        Standard deviations of the Gaussian that smooths the attribution (isolated cells sound like chirping).
    smallest
        Connected groups of cells with less than this share of what is kept are dropped (they would chirp).
    floor_db
        Level at which what is removed stays audible; -80 or lower is silence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sign: Literal["supports", "opposes", "both"] = "supports"
    rule: Literal["area", "relevance", "soft"] = "area"
    fraction: float = Field(0.08, gt=0.0, le=1.0)
    gamma: float = Field(0.5, gt=0.0, le=4.0)
    smooth_seconds: float = Field(0.03, ge=0.0, le=1.0)
    smooth_bands: float = Field(1.0, ge=0.0, le=20.0)
    smallest: float = Field(0.02, ge=0.0, le=0.5)
    floor_db: float = Field(-80.0, le=0.0)


@dataclass(frozen=True, eq=False)
class SalientAudio:
    """What an explanation keeps of a clip, at the clip's own rate and channels.

    Attributes
    ----------
    kept, removed
        float32 ``[channels, samples]``; their sum is the clip.
    energy_share
        Energy of `kept` relative to the clip's, 0 for a silent clip.
    """

    kept: np.ndarray
    removed: np.ndarray
    energy_share: float

    @property
    def gain(self) -> float:
        """One factor for original, kept and removed that keeps all three from clipping (1 if none does)."""
        peak = max(
            float(np.abs(self.kept + self.removed).max(initial=0.0)),
            float(np.abs(self.kept).max(initial=0.0)),
            float(np.abs(self.removed).max(initial=0.0)),
        )
        return 1.0 if peak <= 1.0 else 1.0 / peak


def attribution_to_mask(
    values: np.ndarray, seconds_per_frame: float, settings: KeepSettings | None = None
) -> np.ndarray:
    """Mask float32 ``[frames, n_mels]`` in 0..1 of an attribution of that shape.

    An attribution without any relevance of the wanted sign keeps nothing.
    """
    settings = settings or KeepSettings()
    calm = smoothed(values, seconds_per_frame, settings)
    smooth = {"supports": np.maximum(calm, 0.0), "opposes": np.maximum(-calm, 0.0), "both": np.abs(calm)}[settings.sign]
    if not smooth.max(initial=0.0) > 0.0:
        return np.zeros(values.shape, dtype=np.float32)
    if settings.rule == "soft":
        scale = np.quantile(smooth, 0.99) or smooth.max()
        mask = np.clip(smooth / scale, 0.0, 1.0) ** settings.gamma
    else:
        order = np.argsort(-smooth, axis=None, kind="stable")
        if settings.rule == "area":
            count = max(1, round(settings.fraction * smooth.size))
        else:
            cumulative = np.cumsum(smooth.ravel()[order])
            count = int(np.searchsorted(cumulative, settings.fraction * cumulative[-1])) + 1
        chosen = np.zeros(smooth.size, dtype=bool)
        # Cells without any relevance are never kept, however large the area that was asked for.
        kept = order[:count]
        chosen[kept[smooth.ravel()[kept] > 0.0]] = True
        mask = without_islands(chosen.reshape(smooth.shape), settings.smallest).astype(np.float64)
    return mask.astype(np.float32)


def smoothed(values: np.ndarray, seconds_per_frame: float, settings: KeepSettings) -> np.ndarray:
    """An attribution ``[frames, n_mels]`` as listeners get it: float64, smoothed over time and bands.

    Signs are kept while smoothing, so that neighbouring support and opposition cancel: rectifying first would turn the
    jitter that gradients have everywhere into a floor of relevance.
    """
    sigma = (settings.smooth_seconds / seconds_per_frame, settings.smooth_bands)
    doubles = values.astype(np.float64)
    return gaussian_filter(doubles, sigma, mode="nearest") if max(sigma) > 0 else doubles


def without_islands(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Drop connected groups that hold less than a share of the mask's cells; the largest group always stays."""
    groups, n_groups = label(mask)
    if n_groups <= 1 or smallest <= 0:
        return mask
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0
    stays = sizes >= min(smallest * mask.sum(), sizes.max())
    return stays[groups]


def mel_mask_to_bins(mask: np.ndarray, filterbank: np.ndarray) -> np.ndarray:
    """Mask on STFT bins, ``sum_m M[t, m] B[m, k] / sum_m B[m, k]``; bins of no band copy the nearest covered one.

    Parameters
    ----------
    mask
        ``[frames, n_mels]`` in 0..1.
    filterbank
        ``[n_mels, bins]``, non-negative.

    Returns
    -------
    numpy.ndarray
        ``[frames, bins]`` in 0..1; all ones stay all ones, and the complement maps to the complement.
    """
    columns = filterbank.sum(axis=0)
    covered = np.flatnonzero(columns > COVERED)
    bins = np.zeros((mask.shape[0], filterbank.shape[1]), dtype=np.float64)
    bins[:, covered] = mask.astype(np.float64) @ filterbank[:, covered].astype(np.float64) / columns[covered]
    position = np.arange(filterbank.shape[1])
    after = np.clip(np.searchsorted(covered, position), 0, len(covered) - 1)
    before = np.clip(after - 1, 0, len(covered) - 1)
    nearer = np.abs(covered[before] - position) <= np.abs(covered[after] - position)
    return bins[:, np.where(nearer, covered[before], covered[after])]


def stft_size(sample_rate: int) -> int:
    """Length of the analysis window in samples: the power of two nearest to 40 ms."""
    return max(16, 2 ** round(np.log2(0.04 * sample_rate)))


def filter_with_mask(
    waveform: np.ndarray,
    sample_rate: int,
    mask: np.ndarray,
    mask_times: np.ndarray,
    mask_frequencies: np.ndarray,
    block_seconds: float = 20.0,
) -> np.ndarray:
    """Apply a time-frequency mask to a waveform, keeping its phase.

    The STFT (Hann window of about 40 ms, a quarter of it as hop) is made, masked and inverted block by block: the
    spectrogram of a long clip is never held, only a few copies of its waveform and the mask.

    Parameters
    ----------
    waveform
        ``[channels, samples]``.
    mask
        ``[frames, n_frequencies]`` in 0..1, interpolated linearly to the STFT's times and bins; the first and last frame
        reach to the ends of the clip.
    mask_times, mask_frequencies
        Seconds and Hz of its axes. Bins above the highest frequency get 0: the model cannot hear them.

    Returns
    -------
    numpy.ndarray
        float32 ``[channels, samples]``.
    """
    channels, samples = waveform.shape
    size = stft_size(sample_rate)
    hop = size // 4
    window = np.hanning(size + 1)[:-1]
    padded = np.pad(waveform.astype(np.float64), ((0, 0), (size, size + hop)))
    n_frames = (padded.shape[1] - size) // hop + 1
    out = np.zeros_like(padded)
    norm = np.zeros(padded.shape[1])
    bin_frequencies = np.fft.rfftfreq(size, 1.0 / sample_rate)
    heard = bin_frequencies <= mask_frequencies[-1] + 1e-6
    by_bin = np.zeros((mask.shape[0], len(bin_frequencies)), dtype=np.float32)
    for row, values in enumerate(mask):
        by_bin[row, heard] = np.interp(bin_frequencies[heard], mask_frequencies, values)
    per_block = max(4, round(block_seconds * sample_rate / hop))
    for first in range(0, n_frames, per_block):
        frames = np.arange(first, min(first + per_block, n_frames))
        start = first * hop
        stop = frames[-1] * hop + size
        pieces = np.lib.stride_tricks.sliding_window_view(padded[:, start:stop], size, axis=1)[:, ::hop]
        centers = (frames * hop + size / 2 - size) / sample_rate
        weights = interpolate_rows(by_bin, mask_times, centers)
        spectrum = np.fft.rfft(pieces * window, axis=2) * weights
        pieces = np.fft.irfft(spectrum, n=size, axis=2) * window
        for offset in range(0, size, hop):
            # The hop divides the window: column blocks of all frames are contiguous in the output.
            part = pieces[:, :, offset : offset + hop].reshape(channels, -1)
            out[:, start + offset : start + offset + part.shape[1]] += part
            squares = np.tile(window[offset : offset + hop] ** 2, len(frames))
            norm[start + offset : start + offset + len(squares)] += squares
    out /= np.maximum(norm, 1e-8)
    return out[:, size : size + samples].astype(np.float32)


def interpolate_rows(values: np.ndarray, times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of ``[frames, bins]`` at other times, linearly; constant before the first and after the last."""
    position = np.interp(wanted, times, np.arange(len(times)))
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(times) - 1)
    share = (position - low)[:, None].astype(np.float32)
    return values[low] * (1 - share) + values[high] * share


def salient_audio(
    clip: Clip, mask: np.ndarray, times: np.ndarray, frontend: FrontEnd, floor_db: float = -80.0
) -> SalientAudio:
    """Split a clip into what a mel mask keeps and the rest.

    Parameters
    ----------
    mask
        ``[frames, n_mels]`` in 0..1, from `attribution_to_mask`.
    times
        Centre of every frame in seconds.
    frontend
        Whose mel bands the mask's columns are.
    floor_db
        Level of what is not kept.

    For models that read samples the mask is a gain over time: they have no bands.
    """
    if frontend.n_mels == 0:
        return split(clip, clip.waveform * gain_over_time(clip, mask, times, floor_db))
    bins = mel_mask_to_bins(mask, frontend.filterbank.detach().cpu().numpy())
    if floor_db > -80.0:
        floor = 10.0 ** (floor_db / 20.0)
        bins = floor + (1.0 - floor) * bins
    frequencies = np.arange(bins.shape[1]) * frontend.sample_rate / frontend.n_fft
    return split(clip, filter_with_mask(clip.waveform, clip.sample_rate, bins, times, frequencies))


def gain_over_time(clip: Clip, mask: np.ndarray, times: np.ndarray, floor_db: float = -80.0) -> np.ndarray:
    """Gain float32 ``[samples]`` of a mask ``[cells, 1]`` in 0..1, linear between the cells' centres so that nothing clicks."""
    gain = np.interp((np.arange(clip.n_samples) + 0.5) / clip.sample_rate, times, mask[:, 0])
    floor = 10.0 ** (floor_db / 20.0) if floor_db > -80.0 else 0.0
    return (floor + (1.0 - floor) * gain).astype(np.float32)


def split(clip: Clip, kept: np.ndarray) -> SalientAudio:
    """A clip as what is kept and the rest."""
    removed = clip.waveform - kept
    energy = float(np.square(clip.waveform, dtype=np.float64).sum())
    share = float(np.square(kept, dtype=np.float64).sum()) / energy if energy > 0 else 0.0
    return SalientAudio(kept, removed, share)


def keep(
    clip: Clip, attribution: Attribution, frontend: FrontEnd, settings: KeepSettings
) -> tuple[np.ndarray, SalientAudio]:
    """The mask of an attribution and the sound it keeps."""
    step = cells_of(frontend).seconds
    mask = attribution_to_mask(attribution.values, step, settings)
    # Outside the explained part nothing is claimed.
    outside = (attribution.times < attribution.explained[0]) | (attribution.times > attribution.explained[1])
    mask[outside] = 0.0
    return mask, salient_audio(clip, mask, attribution.times, frontend, settings.floor_db)
