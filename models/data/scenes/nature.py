"""Rain, surf and fire: sounds of many small events, from droplets to exploding sap."""

from __future__ import annotations

import numpy as np

from models.data.scenes.dsp import (
    SAMPLE_RATE,
    Signal,
    band,
    curve,
    drift,
    fade,
    impulses,
    low_pass,
    noise,
    resonate,
    samples,
    unit_peak,
    unit_rms,
)


def rain(rng: np.random.Generator, seconds: float) -> Signal:
    """Steady rain: the hiss of countless far drops, and near drops that click and ring.

    A drop on a wet surface gives a click and, if it traps air, a decaying tone near 3/radius Hz (radius in m; Minnaert,
    Phil. Mag. 16, 1933): 1 to 8 kHz for the usual sizes.
    """
    n = samples(seconds)
    intensity = 1.0 + 0.06 * drift(rng, n, 1.5)
    hiss = noise(rng, n, slope=rng.uniform(-2.5, -1.0), low=60.0, high=13_000.0) * intensity
    near = np.zeros(n)
    density = rng.uniform(500.0, 1100.0)
    tones = np.exp(rng.uniform(np.log(900.0), np.log(8500.0), 14))
    for tone in tones:
        hits = impulses(rng, np.full(n, density / len(tones)) * intensity, tail=2.2, loudest=8.0)
        near += resonate(hits, [(float(tone), float(tone) * rng.uniform(0.05, 0.25), 1.0)]) * (1500.0 / tone) ** 0.3
    clicks = band(impulses(rng, np.full(n, density * 0.6), tail=2.0, loudest=10.0), 1200.0, 12_000.0)
    splashes = resonate(
        impulses(rng, np.full(n, 45.0), tail=2.0, loudest=6.0), [(420.0, 170.0, 1.0), (700.0, 260.0, 0.8)]
    )
    mixed = unit_rms(hiss) + rng.uniform(0.5, 0.9) * unit_rms(near) + 0.4 * unit_rms(clicks) + 0.15 * unit_rms(splashes)
    return unit_peak(fade(mixed, 0.02, 0.02))


def sea_wave(rng: np.random.Generator, seconds: float) -> Signal:
    """One wave on a beach: a dull swell, the break, and foam that hisses as it runs out."""
    n = samples(seconds)
    crest = rng.uniform(0.28, 0.38)
    swell = curve(
        [(0, 0.0), (0.06, 0.3), (0.6 * crest, 0.45), (crest, 1.0), (crest + 0.15, 0.9), (0.8, 0.5), (1, 0.0)], n
    )
    breaking = curve(
        [
            (0, 0.0),
            (0.06, 0.2),
            (0.6 * crest, 0.3),
            (crest, 0.85),
            (crest + 0.08, 1.0),
            (0.75, 0.5),
            (0.92, 0.3),
            (1, 0.0),
        ],
        n,
    )
    foam = curve([(0, 0.0), (0.06, 0.2), (crest, 0.4), (crest + 0.14, 1.0), (0.75, 0.6), (0.92, 0.4), (1, 0.0)], n)
    roar = noise(rng, n, slope=-4.0, low=120.0, high=900.0) * (1.0 + 0.15 * drift(rng, n, 4.0))
    crash = noise(rng, n, slope=-5.0, low=300.0, high=6000.0) * (1.0 + 0.1 * drift(rng, n, 8.0))
    bubbles = np.zeros(n)
    for tone in np.exp(rng.uniform(np.log(700.0), np.log(6000.0), 10)):
        hits = impulses(rng, 250.0 * foam, tail=2.5, loudest=5.0)
        bubbles += resonate(hits, [(float(tone), 0.2 * float(tone), 1.0)]) * (1000.0 / tone) ** 0.8
    fizz = noise(rng, n, slope=-3.0, low=900.0, high=9000.0)
    wave = 0.75 * swell * roar + breaking * crash + foam * 0.22 * fizz + 0.35 * unit_rms(bubbles) * np.sqrt(foam)
    return unit_peak(fade(wave, 0.1, 0.15))


def crackling_fire(rng: np.random.Generator, seconds: float) -> Signal:
    """Render a wood fire: crackles in bursts with power-law loudness, a few pops, and the low flutter of the flames."""
    n = samples(seconds)
    bursts = np.exp(1.3 * drift(rng, n, 2.5))
    bursts /= bursts.mean()
    crackle = np.zeros(n)
    # Splinters of different size: the shorter the click, the brighter.
    for low, high, share in [(2500.0, 13_000.0, 1.0), (1200.0, 8000.0, 0.6), (500.0, 5000.0, 0.35)]:
        hits = impulses(rng, rng.uniform(14.0, 26.0) * share * bursts, tail=0.9, loudest=30.0)
        length = samples(0.012)
        grain = rng.standard_normal(length) * np.exp(-np.arange(length) / samples(rng.uniform(0.0006, 0.002)))
        grain[0] += 2.0
        crackle += band(np.convolve(hits, grain)[:n], low, high)
    pops = impulses(rng, np.full(n, 0.9), tail=1.5, loudest=4.0)
    length = samples(0.08)
    snap = rng.standard_normal(length) * np.exp(-np.arange(length) / samples(0.006))
    pop = resonate(np.convolve(pops, snap)[:n], [(650.0, 500.0, 1.0), (2400.0, 2000.0, 0.9), (6000.0, 4000.0, 0.6)])
    flutter = noise(rng, n, slope=-4.0, low=60.0, high=350.0) * np.clip(1.0 + 0.35 * drift(rng, n, 7.0), 0.2, None)
    hiss = noise(rng, n, slope=-2.0, low=700.0, high=10_000.0) * np.clip(1.0 + 0.3 * drift(rng, n, 3.0), 0.2, None)
    mixed = unit_peak(crackle) + 0.8 * unit_peak(pop) + 0.018 * flutter + 0.005 * hiss
    return unit_peak(np.tanh(3.0 * fade(mixed, 0.02, 0.02)))


def _air(rng: np.random.Generator, n: int, slope: float, gusts: float, high: float) -> Signal:
    """Background noise of open air or of a room: dull, with slow swells."""
    return noise(rng, n, slope=slope, low=60.0, high=high) * np.exp(gusts * drift(rng, n, 0.7))


def background(rng: np.random.Generator, kind: str, seconds: float) -> Signal:
    """Quiet surroundings at unit RMS: `garden`, `yard`, `room` or `open`."""
    n = samples(seconds)
    if kind == "room":
        t = np.arange(n) / SAMPLE_RATE
        hum = sum(np.sin(2 * np.pi * 50.0 * k * t + rng.uniform(0, 6)) / k**1.5 for k in (1, 2, 3))
        return unit_rms(unit_rms(_air(rng, n, -5.0, 0.02, 5000.0)) + 0.15 * hum)
    slope, gusts = {"garden": (-5.0, 0.25), "yard": (-4.5, 0.15), "open": (-6.0, 0.4)}[kind]
    leaves = low_pass(noise(rng, n, slope=-1.0, low=1500.0, high=7000.0), 8000.0) * np.exp(0.5 * drift(rng, n, 1.0))
    return unit_rms(_air(rng, n, slope, gusts, 6000.0) + 0.1 * leaves)
