"""Bells and drums: a blow, and a body that rings in its own modes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from models.data.scenes.dsp import (
    SAMPLE_RATE,
    Signal,
    band,
    fade,
    high_pass,
    noise,
    resonate,
    samples,
    unit_peak,
    unit_rms,
)

BELL_PARTIALS: tuple[tuple[str, float, float, float], ...] = (
    ("hum", 0.5, 0.45, 1.0),
    ("prime", 1.0, 0.55, 0.7),
    ("tierce", 1.183, 0.8, 0.62),
    ("quint", 1.506, 0.3, 0.38),
    ("nominal", 2.0, 1.0, 0.42),
    ("tenth", 2.514, 0.3, 0.24),
    ("eleventh", 2.662, 0.3, 0.22),
    ("twelfth", 3.011, 0.5, 0.26),
    ("upper octave", 4.166, 0.35, 0.17),
)
"""Name, frequency over that of the prime, strength, and decay time over that of the hum.

Frequencies are those of a church bell with a minor third (T. D. Rossing and R. Perrin, Vibrations of Bells, Applied
Acoustics 20, 1987); the higher a partial, the sooner it is gone.
"""

DRUM_MODES: tuple[tuple[int, float, float], ...] = (
    (0, 1.0, 0.8),
    (1, 1.593, 1.0),
    (2, 2.136, 0.9),
    (0, 2.295, 0.5),
    (3, 2.653, 0.75),
    (1, 2.917, 0.5),
    (4, 3.155, 0.65),
    (2, 3.500, 0.4),
    (0, 3.598, 0.3),
)
"""Nodal diameters, frequency over that of the lowest mode, and decay time over the longest.

A circular membrane's frequencies are as the zeros of the Bessel functions (P. M. Morse, Vibration and Sound, 1948). The
lowest mode moves most air and loses its energy to it.
"""


def _ring(modes: Sequence[tuple[float, float, float]], pitch: Signal) -> Signal:
    """Decaying sines: frequency in Hz, amplitude and decay time (60 dB) in s; `pitch` multiplies all frequencies."""
    t = np.arange(len(pitch)) / SAMPLE_RATE
    warped = np.cumsum(pitch) / SAMPLE_RATE
    y = np.zeros(len(pitch))
    for frequency, amplitude, decay in modes:
        y += amplitude * 10.0 ** (-3.0 * t / decay) * np.sin(2 * np.pi * frequency * warped)
    return y


def bell_strike(rng: np.random.Generator, count: int) -> list[Signal]:
    """Strikes of one bell: the clapper's knock and partials that no note has, each a pair that beats slowly.

    A bell is never quite round, so every mode exists twice, a little apart; that is its warble.
    """
    prime = np.exp(rng.uniform(np.log(320.0), np.log(640.0)))
    decay = rng.uniform(5.0, 8.0) * (450.0 / prime) ** 0.5
    beats = rng.uniform(0.3, 1.6, len(BELL_PARTIALS))
    tuned = rng.uniform(0.997, 1.003, len(BELL_PARTIALS))
    strengths = rng.uniform(0.8, 1.2, len(BELL_PARTIALS))
    metal = np.exp(rng.uniform(np.log(5.5 * prime), np.log(min(11_000.0, 20.0 * prime)), 7))
    takes = []
    for _ in range(count):
        n = samples(4.6)
        force = rng.uniform(0.8, 1.0)
        modes = []
        for (_, ratio, gain, lasting), beat, tune, strength in zip(BELL_PARTIALS, beats, tuned, strengths, strict=True):
            # A harder blow is not only louder but brighter.
            amplitude = gain * strength * force ** (0.4 * ratio)
            frequency = ratio * tune * prime
            modes += [
                (frequency - 0.3 * beat, 0.7 * amplitude, lasting * decay),
                (frequency + 0.7 * beat, 0.3 * amplitude, lasting * decay),
            ]
        length = samples(0.003)
        blow = np.zeros(n)
        blow[:length] = rng.standard_normal(length) * np.hanning(length)
        blow[0] = 2.0
        clang = resonate(blow, [(float(f), 18.0 + 0.004 * float(f), 1.0) for f in metal])
        knock = band(blow, 500.0, 9000.0)
        rung = unit_peak(_ring(modes, np.ones(n)))
        takes.append(force * unit_peak(fade(rung + 0.3 * unit_peak(clang) + 0.3 * unit_peak(knock), 0.0, 0.6)))
    return takes


def drum_strike(rng: np.random.Generator, count: int) -> list[Signal]:
    """Strokes on one drum: the stick's knock, then the skin, whose pitch falls as its swing gets smaller.

    How strongly a mode answers depends on where the skin is hit: as its own shape there, a Bessel function. A wide swing
    stretches the skin and so raises the pitch. Some drums have a snare that rattles along.
    """
    lowest = np.exp(rng.uniform(np.log(95.0), np.log(185.0)))
    longest = rng.uniform(0.4, 0.65) * (130.0 / lowest) ** 0.5
    glide = rng.uniform(0.04, 0.1)
    place = rng.uniform(0.25, 0.55)
    wood = rng.uniform(0.85, 1.2) * np.array([900.0, 1700.0, 3100.0])
    snare = rng.uniform(0.25, 0.5) if rng.random() < 0.4 else 0.0
    takes = []
    for k in range(count):
        n = samples(1.1 * longest + 0.1)
        t = np.arange(n) / SAMPLE_RATE
        # The first of a pair of strokes is a little harder.
        force = rng.uniform(0.85, 1.0) if k % 2 == 0 else rng.uniform(0.75, 0.9)
        hit = place + rng.uniform(-0.04, 0.04)
        modes = []
        for diameters, ratio, lasting in DRUM_MODES:
            zero = ratio * special.jn_zeros(0, 1)[0]
            answer = abs(float(special.jv(diameters, zero * hit))) / ratio**0.5
            modes.append((ratio * lowest, answer + 0.03, lasting * longest))
        pitch = 1.0 + glide * force**2 * np.exp(-t / 0.05)
        skin = unit_peak(_ring(modes, pitch))
        slap = unit_rms(noise(rng, n, slope=-3.0, low=250.0, high=7000.0)) * np.exp(-t / 0.009)
        length = samples(0.002)
        tap = np.zeros(n)
        tap[:length] = rng.standard_normal(length) * np.hanning(length)
        click = resonate(tap, [(float(f), 0.25 * float(f), 1.0) for f in wood])
        rattle = snare * unit_rms(noise(rng, n, slope=-1.0, low=1500.0, high=9000.0)) * np.exp(-t / 0.07)
        mixed = skin + 0.16 * slap + 0.3 * unit_peak(click) + 0.3 * rattle * np.clip(t / 0.004, 0.0, 1.0)
        takes.append(force * unit_peak(np.tanh(1.3 * unit_peak(high_pass(fade(mixed, 0.0, 0.1), 45.0)))))
    return takes
