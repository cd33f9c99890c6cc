"""The salient-audio filter against SciPy's STFT and its inverse: time and peak memory for clips of any length.

``python tests/benchmarks/bench_reconstruction.py [SECONDS ...]``
"""

from __future__ import annotations

import sys
import tracemalloc
from functools import partial

import numpy as np
import scipy.signal
from side_by_side import fastest, milliseconds, table

from saliency.reconstruction import filter_with_mask, interpolate_rows, stft_size

RATE = 44100
LENGTHS = (5.0, 60.0, 600.0)


def inputs(seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mono noise, a mask as the models' front ends give it (10 ms, 257 bins up to 8 kHz), and the mask's axes."""
    rng = np.random.default_rng(0)
    waveform = rng.standard_normal((1, round(seconds * RATE)), dtype=np.float32)
    times = np.arange(round(seconds * 100)) / 100 + 0.0125
    mask = rng.random((len(times), 257), dtype=np.float32)
    return waveform, mask, times, np.arange(257) * 31.25


def scipy_filter(waveform: np.ndarray, mask: np.ndarray, times: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The same filter with the same windows, from SciPy's `stft` and `istft` over the whole clip."""
    size = stft_size(RATE)
    settings = {"fs": RATE, "window": "hann", "nperseg": size, "noverlap": size - size // 4}
    bins, centers, spectrum = scipy.signal.stft(waveform, **settings)
    heard = bins <= frequencies[-1] + 1e-6
    by_bin = np.zeros((len(mask), len(bins)), dtype=np.float32)
    for row, values in enumerate(mask):
        by_bin[row, heard] = np.interp(bins[heard], frequencies, values)
    spectrum *= interpolate_rows(by_bin, times, centers).T
    return scipy.signal.istft(spectrum, **settings)[1][:, : waveform.shape[1]]


def ours(waveform: np.ndarray, mask: np.ndarray, times: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """What the page uses."""
    return filter_with_mask(waveform, RATE, mask, times, frequencies)


WAYS = {"ours": ours, "scipy": scipy_filter}


def peak_memory(way: str, given: tuple[np.ndarray, ...]) -> int:
    """Most bytes that its arrays take at a time, the result included."""
    tracemalloc.start()
    try:
        WAYS[way](*given)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> None:
    """Print one row per length."""
    rows = []
    for seconds in [float(value) for value in sys.argv[1:]] or LENGTHS:
        given = inputs(seconds)
        # SciPy leaves out the frames that touch the clip with less than half a window.
        inner = slice(stft_size(RATE), -stft_size(RATE))
        difference = np.abs(ours(*given) - scipy_filter(*given))[:, inner].max()
        times = fastest({name: partial(way, *given) for name, way in WAYS.items()}, 9, 20.0, warm_up=False)
        memory = {name: peak_memory(name, given) for name in WAYS}
        rows.append([
            f"{seconds:g} s", milliseconds(times["ours"]), milliseconds(times["scipy"]),
            f"{times['ours'] / times['scipy']:.2f}", *(f"{memory[name] / 2**20:.0f} MiB" for name in WAYS),
            f"{memory['ours'] / memory['scipy']:.2f}", f"{difference:.1e}",
        ])  # fmt: skip
    header = ["clip", "time", "SciPy", "ratio", "memory", "SciPy", "ratio", "largest difference"]
    print(f"mono, {RATE} Hz; memory beside the clip and the mask\n")
    print(table(header, rows))


if __name__ == "__main__":
    main()
