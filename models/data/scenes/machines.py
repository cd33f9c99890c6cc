"""Clocks, helicopters and chainsaws: sounds with a mechanical beat."""

from __future__ import annotations

import numpy as np

from models.data.scenes.dsp import (
    SAMPLE_RATE,
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


def clock_tick(rng: np.random.Generator, count: int) -> list[Signal]:
    """Ticks and tocks of one clock: the escapement strikes three times within some ms and rings metal and case."""
    metal = np.sort(np.exp(rng.uniform(np.log(1800.0), np.log(8000.0), 6)))
    case = rng.uniform(280.0, 900.0, 3)
    spacing = rng.uniform(0.006, 0.018, 2)
    takes = []
    for k in range(count):
        tock = k % 2 == 1
        n = samples(0.1)
        strikes = np.zeros(n)
        at = 0
        for gap, force in zip((0.0, *spacing), (0.5, 1.0, 0.7), strict=True):
            at += samples(gap * (1.15 if tock else 1.0))
            length = samples(0.0015)
            strikes[at : at + length] += (
                force * rng.uniform(0.9, 1.1) * rng.standard_normal(length) * np.hanning(length)
            )
            strikes[at] += 2.0 * force
        tune = 0.94 if tock else 1.0
        rings = [(f * tune, 80.0 + 0.035 * f, float(g)) for f, g in zip(metal, np.linspace(1.0, 0.6, 6), strict=True)]
        wood = [(f * tune, 90.0, 0.6 if tock else 0.35) for f in case]
        tick = resonate(strikes, rings) + resonate(strikes, wood) + 0.18 * band(strikes, 900.0, 11_000.0)
        # Case and hand soften the hardest blows.
        takes.append((0.8 if tock else 1.0) * np.tanh(1.8 * unit_peak(fade(tick, 0.0, 0.03))))
    return takes


def helicopter(rng: np.random.Generator, seconds: float) -> Signal:
    """Render a passing helicopter: blade slap, wash in its rhythm, tail rotor and turbine, the ground's echo."""
    n = samples(seconds)
    beat = rng.uniform(11.0, 16.0)
    approach = curve([(0, 0.45), (0.5, 1.0), (0.75, 0.95), (1, 0.6)], n)
    # Doppler shift of a slow pass.
    doppler = curve([(0, 1.02), (0.4, 1.01), (0.7, 0.985), (1, 0.975)], n)
    phase = np.cumsum(beat * doppler) / SAMPLE_RATE
    turn = phase % 1.0
    # Each blade is a little different, so every second and fourth beat stands out.
    blade = 1.0 + 0.12 * np.cos(np.pi * np.floor(phase)) + 0.05 * drift(rng, n, 2.0)
    slap = blade * np.exp(-((turn - 0.25) ** 2) / (2 * 0.07**2))
    edge = np.gradient(slap) * SAMPLE_RATE / 400.0
    thump = resonate(edge, [(70.0, 60.0, 1.0), (150.0, 130.0, 0.8), (320.0, 260.0, 0.5), (700.0, 500.0, 0.25)])
    gate = blade * (1.0 + np.exp(-((turn - 0.30) ** 2) / (2 * 0.11**2)))
    wash = noise(rng, n, slope=-5.0, low=90.0, high=2200.0) * gate
    chop = noise(rng, n, slope=-4.0, low=500.0, high=5000.0) * gate**1.5
    engine, _ = harmonic_source(rng.uniform(75.0, 95.0) * doppler * (1.0 + 0.002 * drift(rng, n, 4.0)), 6.0)
    engine = resonate(engine, [(170.0, 120.0, 1.0), (450.0, 300.0, 0.6), (1100.0, 700.0, 0.25)])
    t_whine = 2 * np.pi * np.cumsum(rng.uniform(2600.0, 3800.0) * doppler) / SAMPLE_RATE
    whine = np.sin(t_whine + 0.4 * drift(rng, n, 15.0)) * (1.0 + 0.3 * drift(rng, n, 5.0))
    mixed = 0.8 * unit_rms(thump) + unit_rms(wash) + 0.2 * unit_rms(chop) + 0.4 * unit_rms(engine) + 0.02 * whine
    # The ground reflection moves as the helicopter does: a comb that sweeps.
    delay = SAMPLE_RATE * curve([(0, 0.0011), (0.5, 0.0026), (1, 0.0014)], n)
    echo = np.interp(np.arange(n) - delay, np.arange(n), mixed)
    return unit_peak(fade(approach * (mixed + 0.45 * low_pass(echo, 3000.0)), 0.25, 0.25))


def chainsaw(rng: np.random.Generator, seconds: float) -> Signal:
    """Render a chainsaw at work: a two-stroke that revs and sags under load, the chain's rasp in its rhythm."""
    n = samples(seconds)
    speed = rng.uniform(105.0, 145.0)
    load = np.clip(drift(rng, n, 1.1), -1.5, 1.5)
    # Pulled up from idle speed within half a second, let go at the end.
    pulled = min(0.3, 0.55 / seconds)
    rev = curve([(0, 0.42), (0.4 * pulled, 0.5), (pulled, 1.0), (0.87, 1.0), (1, 0.6)], n)
    f0 = speed * rev * (1.0 + 0.1 * load + 0.006 * drift(rng, n, 15.0) + 0.006 * drift(rng, n, speed / 2.0))
    power = np.clip(rev, 0.0, 1.0) ** 1.5 * (1.0 - 0.08 * load)
    strokes, phase = harmonic_source(f0, 3.0)
    # No two explosions are alike.
    strokes = strokes * (1.0 + 0.3 * drift(rng, n, speed / 2.0)) * (1.0 + 0.15 * np.cos(0.5 * phase))
    tuned = rng.uniform(0.9, 1.1)
    exhaust = [
        (260 * tuned, 160, 1.0),
        (620 * tuned, 260, 0.9),
        (1150 * tuned, 380, 0.75),
        (2300 * tuned, 700, 0.7),
        (3600 * tuned, 1100, 0.4),
        (5600 * tuned, 2200, 0.25),
    ]
    engine = unit_rms(resonate(strokes + 0.15 * rng.standard_normal(n), exhaust))
    engine = high_pass(np.tanh(1.1 * engine), 40.0)
    firing = 0.55 + 0.45 * np.cos(phase + 0.8)
    rasp = noise(rng, n, slope=-1.5, low=900.0, high=9500.0) * firing * (1.0 + 0.2 * drift(rng, n, 20.0))
    teeth = resonate(rng.standard_normal(n) * firing**2, [(2900.0 * tuned, 900.0, 1.0), (4800.0 * tuned, 1500.0, 0.8)])
    # The clutch and the sprocket sing at fixed multiples of the engine speed.
    whine = np.sin(rng.integers(20, 28) * phase + 0.5 * drift(rng, n, 30.0)) * (0.7 + 0.3 * drift(rng, n, 5.0))
    mixed = unit_rms(engine) + 0.3 * unit_rms(rasp) + 0.22 * unit_rms(teeth) + 0.1 * whine
    return unit_peak(fade(power * mixed, 0.06, 0.12))
