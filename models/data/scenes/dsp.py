"""Building blocks of the sound synthesizers: noise, harmonic sources, resonators, envelopes and rooms.

Everything takes and returns float64 arrays `[samples]`, and draws only from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal

Signal = NDArray[np.float64]

SAMPLE_RATE = 32_000
"""Sample rate in Hz at which all scenes are rendered."""


def samples(seconds: float) -> int:
    """Count the samples in a time span given in seconds."""
    return round(seconds * SAMPLE_RATE)


def decibels(level: float) -> float:
    """Amplitude factor of a level in dB."""
    return float(10.0 ** (level / 20.0))


def curve(points: Sequence[tuple[float, float]], n: int) -> Signal:
    """Smooth curve through `(position, value)` points, positions from 0 to 1 along `n` samples."""
    positions, values = zip(*points, strict=True)
    line = np.interp(np.linspace(0.0, 1.0, n), positions, values)
    width = max(3, n // 25)
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(line, (width // 2, width - 1 - width // 2), mode="edge")
    return signal.fftconvolve(padded, window / window.sum(), mode="valid")


def fade(x: Signal, attack: float, release: float) -> Signal:
    """Raised-cosine fade in and out, lengths in seconds."""
    y = x.copy()
    rise, fall = min(samples(attack), len(y)), min(samples(release), len(y))
    if rise > 0:
        y[:rise] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    if fall > 0:
        y[len(y) - fall :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, fall + 1) / fall)
    return y


def noise(rng: np.random.Generator, n: int, slope: float = 0.0, low: float = 20.0, high: float = 15_500.0) -> Signal:
    """Gaussian noise of unit RMS between `low` and `high` Hz with a spectral slope in dB per octave.

    The band edges fall off with 24 dB per octave, as those of a real source or microphone would.
    """
    spectrum = np.fft.rfft(rng.standard_normal(n))
    f = np.maximum(np.fft.rfftfreq(n, 1.0 / SAMPLE_RATE), 1e-3)
    # The slope law ends at the lower edge, or a steep slope would undo the edge's own fall-off.
    gain = (np.maximum(f, low) / 1000.0) ** (slope / 6.02)
    gain /= np.sqrt(1.0 + (low / f) ** 8) * np.sqrt(1.0 + (f / high) ** 8)
    y = np.fft.irfft(spectrum * gain, n)
    return y / np.sqrt(np.mean(y**2))


def drift(rng: np.random.Generator, n: int, rate: float) -> Signal:
    """Slow random fluctuation of unit variance and zero mean with components up to about `rate` Hz."""
    knots = max(4, int(np.ceil(2.0 * rate * n / SAMPLE_RATE)) + 3)
    values = rng.standard_normal(knots)
    positions = np.linspace(0.0, knots - 1.0, n)
    index = np.minimum(positions.astype(int), knots - 2)
    weight = 0.5 - 0.5 * np.cos(np.pi * (positions - index))
    return (1.0 - weight) * values[index] + weight * values[index + 1]


def harmonic_source(f0: Signal, rolloff: ArrayLike, phase0: float = 0.0) -> tuple[Signal, Signal]:
    """Pulse train whose harmonics fall by `rolloff` dB per kHz, and its phase in radians.

    Closed form of ``sum_k r**k cos(k phase)`` (discrete summation formula: Moorer, J. Audio Eng. Soc. 24, 1976), free
    of audible aliasing as long as `rolloff` is 3 or more.
    """
    phase = phase0 + 2.0 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    r = 10.0 ** (-np.asarray(rolloff) * f0 / 20_000.0)
    cosine = np.cos(phase)
    pulses = (r * cosine - r**2) / (1.0 - 2.0 * r * cosine + r**2)
    # Equal power whatever the pitch, so that a contour does not carry a loudness of its own.
    return pulses * np.sqrt(2.0 * (1.0 - r**2)) / r, phase


def resonate(x: Signal, modes: Sequence[tuple[float, float, float]]) -> Signal:
    """Parallel resonators: `(centre Hz, bandwidth Hz, gain)` each, with alternating signs as in Klatt's synthesizer."""
    y = np.zeros_like(x)
    for k, (centre, bandwidth, gain) in enumerate(modes):
        centre = min(centre, 0.46 * SAMPLE_RATE)
        b, a = signal.iirpeak(centre, centre / bandwidth, fs=SAMPLE_RATE)
        y += (-1.0) ** k * gain * signal.lfilter(b, a, x)
    return y


def band(x: Signal, low: float, high: float, order: int = 2) -> Signal:
    """Butterworth band-pass between `low` and `high` Hz."""
    sos = signal.butter(order, [low, high], btype="bandpass", fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(sos, x)


def low_pass(x: Signal, high: float, order: int = 2) -> Signal:
    """Butterworth low-pass at `high` Hz."""
    return signal.sosfilt(signal.butter(order, high, fs=SAMPLE_RATE, output="sos"), x)


def high_pass(x: Signal, low: float, order: int = 2) -> Signal:
    """Butterworth high-pass at `low` Hz."""
    return signal.sosfilt(signal.butter(order, low, btype="highpass", fs=SAMPLE_RATE, output="sos"), x)


def impulses(rng: np.random.Generator, rate: Signal, tail: float, loudest: float) -> Signal:
    """Poisson impulses with power-law amplitudes.

    Parameters
    ----------
    rng
        Source of randomness.
    rate
        Expected impulses per second at every sample.
    tail
        Exponent of the Pareto law of amplitudes: 1 is wild, 3 is tame.
    loudest
        Amplitudes are cut off here; the smallest is 1.
    """
    hits = rng.random(len(rate)) < rate / SAMPLE_RATE
    count = int(hits.sum())
    y = np.zeros(len(rate))
    amplitude = np.minimum((1.0 - rng.random(count)) ** (-1.0 / tail), loudest)
    y[hits] = amplitude * rng.choice([-1.0, 1.0], count)
    return y


def unit_rms(x: Signal) -> Signal:
    """`x` scaled to an RMS of one; silence stays silence."""
    rms = float(np.sqrt(np.mean(x**2)))
    return x / rms if rms > 0.0 else x


def unit_peak(x: Signal) -> Signal:
    """`x` scaled to a peak of one; silence stays silence."""
    peak = float(np.max(np.abs(x), initial=0.0))
    return x / peak if peak > 0.0 else x


ROOMS: dict[str, tuple[int, float, float, float, float]] = {
    # reflections, first and last delay in s, reverberation time (60 dB) in s, energy of the tail in dB re direct sound
    "garden": (3, 0.004, 0.045, 0.18, -24.0),
    "yard": (6, 0.006, 0.075, 0.45, -15.0),
    "room": (9, 0.003, 0.030, 0.32, -11.0),
    "open": (1, 0.003, 0.008, 0.10, -35.0),
}
"""Places with their early reflections and diffuse tails."""


def room_response(rng: np.random.Generator, room: str) -> Signal:
    """Impulse response of a place: direct sound, early reflections that lose treble, and a diffuse tail."""
    count, first, last, decay, tail_level = ROOMS[room]
    n = samples(max(decay, last) * 1.1 + 0.01)
    early = np.zeros(n)
    delays = np.exp(rng.uniform(np.log(first), np.log(last), count))
    early[(delays * SAMPLE_RATE).astype(int)] += (
        decibels(-7.0) * rng.uniform(0.3, 1.0, count) * (first / delays) ** 0.35
    )
    response = low_pass(early, 6000.0, order=1)
    t = np.arange(n) / SAMPLE_RATE
    tail = noise(rng, n, slope=-2.0, low=150.0, high=9000.0) * 10.0 ** (-3.0 * t / decay)
    tail *= np.clip(t / 0.008, 0.0, 1.0)
    response += decibels(tail_level) * tail / np.sqrt(np.sum(tail**2))
    response[0] += 1.0
    return response
