"""The deterministic test waveform of the preprocessing cases: three sines plus seeded noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.parity.fill import fill_input


def wave(
    n: int,
    seed: int,
    sr: int = 16000,
    freqs: Sequence[float] = (220.0, 1000.5, 3300.0),
    amps: Sequence[float] = (0.3, 0.2, 0.1),
    phases: Sequence[float] = (0.1, 0.7, 1.9),
    noise: float = 0.01,
    offset: float = 0.02,
) -> np.ndarray:
    """float32 (n,): computed in float64, then cast."""
    t = np.arange(n, dtype=np.float64) / sr
    x = np.full(n, offset, dtype=np.float64)
    for f, a, p in zip(freqs, amps, phases, strict=False):
        x += a * np.sin(2.0 * np.pi * f * t + p)
    x += noise * fill_input("noise", (n,), seed).numpy().astype(np.float64)
    return x.astype(np.float32)
