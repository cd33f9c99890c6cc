"""Sounds that come from a throat: a source at the vocal folds (or the syrinx), coloured by the vocal tract.

Each function renders `count` takes of one individual: the individual (size, pitch, timbre) is drawn once, each take
varies a little. Takes are `[samples]` arrays with a peak of one.
"""

from __future__ import annotations

import numpy as np

from models.data.scenes.dsp import (
    Signal,
    band,
    curve,
    drift,
    fade,
    harmonic_source,
    high_pass,
    low_pass,
    noise,
    resonate,
    samples,
    unit_peak,
    unit_rms,
)


def dog_bark(rng: np.random.Generator, count: int) -> list[Signal]:
    """Barks of one dog: pitch that shoots up and falls, a rough voice, an open mouth, a puff of noise.

    The ranges are chosen so that band levels and pitch arcs resemble those of recorded barks: 0.13 to 0.26 s,
    fundamental of some hundred Hz with a fast rise and fall, most energy from 0.5 to 2 kHz.
    """
    pitch = rng.uniform(430.0, 700.0)
    size = rng.uniform(0.85, 1.15)
    length = rng.uniform(0.15, 0.23)
    harshness = rng.uniform(0.12, 0.35)
    takes = []
    for _ in range(count):
        n = samples(length * rng.uniform(0.88, 1.15))
        top = pitch * rng.uniform(0.93, 1.08)
        f0 = top * curve([(0, 0.45), (0.12, 0.75), (0.35, 1.0), (0.55, 0.95), (1, 0.42)], n)
        f0 = f0 * (1.0 + 0.012 * drift(rng, n, 60.0) + 0.008 * drift(rng, n, 400.0))
        strength = curve([(0, 0.0), (0.06, 0.55), (0.22, 1.0), (0.5, 0.8), (0.8, 0.25), (1, 0.0)], n)
        voice, phase = harmonic_source(f0, 4.0 + 9.0 * (1.0 - strength))
        voice = voice * (1.0 + harshness * np.cos(0.5 * phase)) * (1.0 + 0.3 * drift(rng, n, 120.0))
        breath = noise(rng, n, slope=-2.5, low=300.0, high=9000.0) * (0.6 + 0.4 * np.cos(phase))
        source = voice + (0.7 * harshness) * breath
        # The jaw opens during the bark: two vowels, cross-faded.
        shut = resonate(source, [(480 * size, 160, 1.0), (1150 * size, 260, 0.5), (2500 * size, 500, 0.12)])
        ajar = resonate(
            source,
            [(780 * size, 260, 1.0), (1450 * size, 330, 0.7), (2700 * size, 600, 0.25), (4300 * size, 1100, 0.1)],
        )
        jaw = curve([(0, 0.1), (0.2, 1.0), (0.6, 0.9), (1, 0.0)], n)
        puff = noise(rng, n, slope=-1.0, low=700.0, high=9000.0) * curve([(0, 0.2), (0.08, 1), (0.3, 0.25), (1, 0)], n)
        bark = strength * ((1.0 - jaw) * shut + jaw * ajar)
        takes.append(unit_peak(fade(unit_rms(bark) + 0.06 * puff, 0.004, 0.02)))
    return takes


def rooster_crow(rng: np.random.Generator, count: int) -> list[Signal]:
    """Crows of one rooster: four syllables, the last one long and sinking; rich harmonics, emphasis near 1.5 kHz."""
    pitch = rng.uniform(560.0, 800.0)
    beak = rng.uniform(0.9, 1.1)
    pace = rng.uniform(0.88, 1.15)
    tune = rng.uniform(0.93, 1.07, 4)
    takes = []
    for _ in range(count):
        # length s, pitch at start, middle, end, loudness
        syllables = [
            (0.20 * pace, 0.72, 0.88, 0.80, 0.55),
            (0.13 * pace, 0.95, 1.05, 1.00, 0.75),
            (0.36 * pace, 1.10, 1.30, 1.22, 1.00),
            (rng.uniform(0.75, 1.0) * pace, 1.26, 1.24, 1.02, 0.95),
        ]
        pitches, strengths = [], []
        for k, (length, start, middle, end, loudness) in enumerate(syllables):
            n = samples(length)
            start, middle, end = tune[k] * start, tune[k] * middle, tune[k] * end
            shape = [(0, start), (0.2, middle), (0.6, middle), (0.85, 0.5 * (middle + end)), (1, end)]
            pitches.append(curve(shape, n))
            tail = 0.05 if k < 3 else 0.0
            rise = 0.12 if k < 2 else 0.06
            strengths.append(loudness * curve([(0, tail), (rise, 1.0), (0.7, 0.85), (0.9, 0.5), (1, tail)], n))
            gap = samples(0.07 * pace) if k == 0 else samples(0.015)
            if k < 3:
                pitches.append(np.full(gap, end))
                strengths.append(np.full(gap, 0.02 if k == 0 else 0.12))
        f0 = low_pass(np.concatenate(pitches) - pitches[0][0], 35.0) + pitches[0][0]
        n = len(f0)
        strength = np.maximum(low_pass(np.concatenate(strengths), 30.0), 0.0)
        f0 = pitch * f0 * (1.0 + 0.006 * drift(rng, n, 25.0) + 0.006 * drift(rng, n, 200.0))
        voice, phase = harmonic_source(f0, 3.2 + 2.5 * (1.0 - np.clip(strength, 0.0, 1.0)))
        # The crow starts hoarse (half-pitch beating) and clears up.
        hoarse = curve([(0, 0.5), (0.35, 0.25), (0.6, 0.05), (0.9, 0.1), (1, 0.4)], n)
        voice = voice * (1.0 + hoarse * np.cos(0.5 * phase)) * (1.0 + 0.12 * drift(rng, n, 80.0))
        air = noise(rng, n, slope=-1.5, low=500.0, high=9000.0) * (0.5 + 0.5 * np.cos(phase))
        modes = [
            (820 * beak, 350, 0.6),
            (1500 * beak, 520, 1.0),
            (2100 * beak, 450, 0.7),
            (4300 * beak, 700, 0.45),
            (6600 * beak, 1200, 0.2),
        ]
        takes.append(unit_peak(fade(strength * resonate(voice + 0.16 * air, modes), 0.02, 0.05)))
    return takes


def baby_cry(rng: np.random.Generator, count: int) -> list[Signal]:
    """Cries of one infant, each one breath: melody arc near 450 Hz, vibrato, tense open vowel, then an intake of air.

    The ranges are chosen so that band levels and pitch arcs resemble those of recorded cries.
    """
    pitch = rng.uniform(400.0, 500.0)
    tract = rng.uniform(0.92, 1.08)
    tremor = rng.uniform(5.5, 7.5)
    takes = []
    for _ in range(count):
        n = samples(rng.uniform(0.75, 1.15))
        t = np.arange(n) / samples(1.0)
        top = pitch * rng.uniform(0.95, 1.1)
        f0 = top * curve([(0, 0.66), (0.12, 0.88), (0.38, 1.0), (0.7, 0.96), (0.92, 0.82), (1, 0.62)], n)
        depth = 0.018 * curve([(0, 0.2), (0.4, 1.0), (1, 1.0)], n)
        f0 = f0 * (
            1.0 + depth * np.sin(2 * np.pi * tremor * t) + 0.01 * drift(rng, n, 12.0) + 0.005 * drift(rng, n, 150.0)
        )
        strength = curve([(0, 0.0), (0.06, 0.6), (0.25, 1.0), (0.7, 0.9), (0.9, 0.45), (1, 0.0)], n)
        strength = strength * (1.0 + 0.12 * np.sin(2 * np.pi * tremor * t + 1.0))
        voice, phase = harmonic_source(f0, 3.0 + 3.0 * (1.0 - np.clip(strength, 0.0, 1.0)))
        rough = 0.35 * np.clip(drift(rng, n, 3.0), 0.0, 1.0)
        voice = voice * (1.0 + rough * np.cos(0.5 * phase)) * (1.0 + 0.06 * drift(rng, n, 60.0))
        air = noise(rng, n, slope=-1.0, low=600.0, high=10_000.0) * (0.5 + 0.5 * np.cos(phase))
        source = voice + 0.10 * air
        ah = [
            (1150, 230, 1.0),
            (1750, 320, 0.6),
            (3400, 500, 0.7),
            (5100, 900, 0.3),
            (7200, 1500, 0.12),
            (480, 200, 0.3),
        ]
        eh = [
            (850, 200, 1.0),
            (2600, 380, 0.5),
            (3700, 550, 0.6),
            (5400, 900, 0.25),
            (7600, 1500, 0.1),
            (450, 200, 0.35),
        ]
        opening = curve([(0, 0.1), (0.25, 1.0), (0.65, 0.9), (1, 0.15)], n)
        ah_sized = [(f * tract, float(b), g) for f, b, g in ah]
        eh_sized = [(f * tract, float(b), g) for f, b, g in eh]
        cry = unit_peak(
            strength * (opening * resonate(source, ah_sized) + (1.0 - opening) * resonate(source, eh_sized))
        )
        m = samples(rng.uniform(0.16, 0.22))
        gasp = resonate(
            noise(rng, m, slope=-1.0, low=500.0, high=9000.0), [(1300, 400, 1.0), (3000, 800, 0.8), (5200, 1500, 0.5)]
        )
        gasp *= curve([(0, 0.0), (0.5, 1.0), (0.8, 0.8), (1, 0.0)], m)
        pause = np.zeros(samples(0.05))
        takes.append(fade(np.concatenate([cry, pause, 0.06 * unit_peak(gasp)]), 0.01, 0.01))
    return takes


def sneeze(rng: np.random.Generator, count: int) -> list[Signal]:
    """Sneezes of one person: "ah" on a drawn breath, a held moment, and a burst of air with a voiced "choo"."""
    pitch = rng.uniform(210.0, 300.0)
    tract = rng.uniform(1.0, 1.15)
    takes = []
    for _ in range(count):
        n = samples(rng.uniform(0.22, 0.32))
        f0 = pitch * curve([(0, 0.95), (0.6, 1.15), (1, 1.4)], n) * (1.0 + 0.01 * drift(rng, n, 60.0))
        voice, _ = harmonic_source(f0, 6.0)
        breath = noise(rng, n, slope=-1.0, low=300.0, high=8000.0)
        ah = [(780 * tract, 150, 1.0), (1250 * tract, 180, 0.6), (2700 * tract, 300, 0.25), (3900 * tract, 500, 0.15)]
        call = resonate(0.7 * voice + 0.5 * breath, ah) * curve(
            [(0, 0.0), (0.35, 0.5), (0.8, 1.0), (0.95, 0.7), (1, 0.0)], n
        )
        held = np.zeros(samples(rng.uniform(0.03, 0.06)))
        m = samples(rng.uniform(0.38, 0.5))
        air = noise(rng, m, slope=0.0, low=350.0, high=9000.0)
        # The mouth closes to "oo" while the air rushes out: the hiss sinks.
        bright = resonate(air, [(2800 * tract, 900, 1.0), (4300 * tract, 1300, 0.8), (6600 * tract, 2600, 0.5)])
        dark = resonate(air, [(1500 * tract, 500, 1.0), (2700 * tract, 800, 0.9), (4200 * tract, 2000, 0.35)])
        closing = curve([(0, 0.0), (0.12, 0.15), (0.5, 1.0), (1, 1.0)], m)
        hiss = (1.0 - closing) * unit_rms(bright) + closing * unit_rms(dark)
        hiss += 0.2 * band(air, 500.0, 9000.0)
        force = curve([(0, 0.7), (0.06, 1.0), (0.2, 0.75), (0.45, 0.35), (0.75, 0.1), (1, 0.0)], m)
        force = force * (1.0 + 0.15 * drift(rng, m, 40.0))
        f0 = pitch * curve([(0, 1.9), (0.15, 1.75), (0.5, 1.2), (1, 0.8)], m) * (1.0 + 0.015 * drift(rng, m, 90.0))
        voice, _ = harmonic_source(f0, 5.0)
        choo = resonate(
            voice, [(480 * tract, 140, 1.0), (1150 * tract, 200, 0.7), (2500 * tract, 350, 0.35), (3600, 600, 0.2)]
        )
        choo *= curve([(0, 0.2), (0.1, 0.9), (0.4, 0.8), (0.75, 0.3), (1, 0.0)], m)
        pop = high_pass(noise(rng, m, slope=-3.0, low=120.0, high=12_000.0), 100.0) * np.exp(
            -np.arange(m) / samples(0.012)
        )
        burst = force * unit_rms(hiss) + 0.6 * unit_rms(choo) * (0.3 + 0.7 * force) + 1.1 * pop
        takes.append(
            fade(
                unit_peak(np.concatenate([0.3 * unit_peak(call), held, unit_peak(fade(burst, 0.003, 0.05))])),
                0.01,
                0.02,
            )
        )
    return takes
