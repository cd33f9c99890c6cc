"""The lesson that is filled in for who has no sounds at hand: two sounds that no shipped model knows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

SAMPLE_RATE = 32_000  # Hz
SECONDS = 4.0
EACH = 8  # examples of a class
Sound = np.ndarray


def doorbell(rng: np.random.Generator) -> Sound:
    """Two struck bars, the second lower: decaying partials; float64 ``[samples]``."""
    n = int(SECONDS * SAMPLE_RATE)
    out = np.zeros(n)
    high = rng.uniform(560.0, 760.0)
    begin, gap = rng.uniform(0.15, 1.2), rng.uniform(0.4, 0.7)
    for onset, pitch in ((begin, high), (begin + gap, high * rng.uniform(0.76, 0.82))):
        first = int(onset * SAMPLE_RATE)
        t = np.arange(n - first) / SAMPLE_RATE
        for ratio, level, decay in ((1.0, 1.0, 0.9), (2.76, 0.4, 0.35), (5.4, 0.16, 0.14)):
            out[first:] += level * np.sin(2 * np.pi * pitch * ratio * t) * np.exp(-t / (decay * rng.uniform(0.7, 1.3)))
    return out


def kettle(rng: np.random.Generator) -> Sound:
    """A kettle that comes to the boil: a rising whistle over the hiss of steam; float64 ``[samples]``."""
    n = int(SECONDS * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    begin, top = rng.uniform(0.1, 2.2), rng.uniform(1300.0, 4300.0)
    rise = 1.0 / (1.0 + np.exp(-(t - begin - 0.8) / rng.uniform(0.12, 0.4)))
    pitch = top * (0.62 + 0.38 * rise) * (1.0 + 0.006 * np.sin(2 * np.pi * rng.uniform(5.0, 8.0) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    whistle = rise * (np.sin(phase) + 0.25 * np.sin(2 * phase) + 0.08 * np.sin(3 * phase))
    steam = signal.sosfilt(
        signal.butter(2, [1500, 9000], "bandpass", fs=SAMPLE_RATE, output="sos"), rng.standard_normal(n)
    )
    return whistle + rng.uniform(0.15, 0.8) * steam * np.clip((t - begin) / 1.2, 0.05, 1.0)


SOUNDS: dict[str, Callable[[np.random.Generator], Sound]] = {"doorbell": doorbell, "kettle": kettle}


def example_sounds(each: int = EACH) -> list[tuple[str, str, np.ndarray]]:
    """Name, class and waveform float32 ``[1, samples]`` at `SAMPLE_RATE` of every example; the same in every run."""
    found = []
    for number in range(each):
        for kind, (label, make) in enumerate(SOUNDS.items()):
            rng = np.random.default_rng([kind, number, 2])
            sound = make(rng)
            sound *= rng.uniform(0.15, 0.5) / np.abs(sound).max()
            sound += 10 ** (rng.uniform(-66.0, -50.0) / 20) * rng.standard_normal(len(sound))
            found.append((f"{label} {number + 1}", label, sound.astype(np.float32)[None]))
    return found
