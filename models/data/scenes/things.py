"""How clocks, weather, fire, water and machines look and move; each is drawn in a box of about -1..1."""

from __future__ import annotations

import numpy as np

from models.data.scenes.animals import INK, WHITE
from models.data.scenes.canvas import Colour, Pen, shade
from models.data.scenes.motion import Look, Motion


def draw_clock(pen: Pen, look: Look, motion: Motion) -> None:
    """A pendulum clock: with every tick the hand jumps and the pendulum swings to the other side."""
    case, dark = look.main, shade(look.main, 0.65)
    pen.shape([(-0.5, -0.78), (0.0, -1.0), (0.5, -0.78)], dark)
    pen.box(-0.44, -0.8, 0.44, 0.82, case)
    pen.box(-0.52, 0.8, 0.52, 0.96, dark)
    pen.box(-0.3, 0.02, 0.3, 0.7, shade(case, 0.35))
    # Whole strokes are the turning points.
    whole = int(motion.strokes)
    part = motion.strokes - whole
    swing = (1 - 2 * (whole % 2)) * float(np.cos(np.pi * part))
    rod = pen.at(0.0, 0.02, turn=26 * swing)
    rod.stroke([(0.0, 0.0), (0.0, 0.45)], 0.05, look.accent)
    rod.oval(0.0, 0.48, 0.13, 0.13, look.accent)
    rod.oval(-0.03, 0.45, 0.06, 0.06, shade(look.accent, 1.8))
    pen.oval(0.0, -0.4, 0.4, 0.4, dark)
    pen.oval(0.0, -0.4, 0.34, 0.34, look.second)
    for hour in range(12):
        mark = pen.at(0.0, -0.4, turn=30 * hour)
        mark.box(-0.015, -0.31, 0.015, -0.25 if hour % 3 else -0.21, INK)
    start = look.seed % 360
    pen.at(0.0, -0.4, turn=start).stroke([(0.0, 0.02), (0.0, -0.15)], 0.06, INK)
    pen.at(0.0, -0.4, turn=3 * start).stroke([(0.0, 0.03), (0.0, -0.24)], 0.045, INK)
    pen.at(0.0, -0.4, turn=30 * motion.strokes).stroke([(0.0, 0.08), (0.0, -0.28)], 0.03, (206, 44, 44))
    pen.oval(0.0, -0.4, 0.045, 0.045, INK)


def draw_rain(pen: Pen, look: Look, motion: Motion) -> None:
    """A cloud from which the more drops fall, the louder the rain; a puddle with rings beneath."""
    rng = np.random.default_rng(look.seed)
    level = motion.level
    pen.oval(0.0, 0.88, 0.85, 0.11, look.second)
    count = 34
    xs, offsets, speeds = rng.uniform(-0.72, 0.72, count), rng.random(count), rng.uniform(1.5, 2.1, count)
    for k in range(count):
        if (k + 0.5) / count > 1.15 * level - 0.04:
            break
        fall = (offsets[k] + speeds[k] * motion.phase) % 1.0
        y = -0.28 + 1.1 * fall
        pen.stroke([(xs[k] + 0.03, y - 0.13), (xs[k], y + 0.03)], 0.03, look.accent, end=0.055)
    for k in range(5):
        if level > 0.15 + 0.1 * k:
            ring = (offsets[k] + 1.6 * motion.phase) % 1.0
            pen.oval(0.9 * xs[k], 0.88, 0.03 + 0.1 * ring, 0.01 + 0.03 * ring, shade(look.second, 1.5))
    drift = 0.02 * motion.shake(1.5)
    for x, y, r, tone in [
        (-0.5, -0.45, 0.3, 0.88),
        (0.52, -0.45, 0.3, 0.88),
        (-0.18, -0.62, 0.38, 1.0),
        (0.26, -0.58, 0.34, 1.0),
        (0.0, -0.4, 0.36, 0.94),
    ]:
        pen.oval(x + drift, y, r, 0.8 * r, shade(look.main, tone))
    pen.oval(0.0 + drift, -0.3, 0.66, 0.14, shade(look.main, 0.86))


def draw_waves(pen: Pen, look: Look, motion: Motion) -> None:
    """The sea with a sailing boat: the waves are as high and as fast as the surf is loud."""
    level, sea = motion.level, look.main
    x = np.linspace(-1.0, 1.0, 41)
    # The sea ends in a round bay on both sides.
    edge = np.sqrt(np.clip(1.0 - np.abs(x) ** 6, 0.0, 1.0))
    floor = 0.45 + 0.45 * edge

    def surface(height: float, length: float, speed: float, offset: float) -> np.ndarray:
        crest = np.sin(2 * np.pi * (x / length - speed * motion.phase) + offset)
        # Trochoid-like: sharp crests, flat troughs.
        return height - (0.035 + 0.16 * level) * edge * (
            0.65 * crest + 0.35 * np.abs(crest) * np.sign(crest) * crest**2
        )

    back = surface(0.05, 0.9, 0.55, look.seed % 7)
    boat_x = 12 + look.seed % 15
    slope = float(np.rad2deg(np.arctan2(back[boat_x + 2] - back[boat_x - 2], x[boat_x + 2] - x[boat_x - 2])))
    boat = pen.at(float(x[boat_x]), float(back[boat_x]) - 0.02, turn=0.6 * slope)
    boat.stroke([(0.0, 0.0), (0.0, -0.72)], 0.035, (96, 62, 44))
    boat.shape([(0.05, -0.72), (0.05, -0.16), (0.4, -0.16)], WHITE)
    boat.shape([(-0.05, -0.6), (-0.05, -0.16), (-0.3, -0.16)], look.accent)
    boat.blob(
        [(-0.36, -0.1), (0.0, -0.12), (0.4, -0.1), (0.24, 0.1), (0.0, 0.13), (-0.22, 0.1)], shade(look.accent, 0.7)
    )
    for tone, height, length, speed, offset in [
        (0.72, 0.05, 0.9, 0.55, look.seed % 7),
        (0.88, 0.27, 0.75, 0.8, 1.0),
        (1.08, 0.52, 0.62, 1.1, 2.5),
    ]:
        top = surface(height, length, speed, offset)
        outline = np.concatenate([np.stack([x, np.minimum(top, floor)], 1), np.stack([x, floor], 1)[::-1]])
        pen.shape(outline, shade(sea, tone))
        foam = 0.03 + 0.09 * level * np.clip(height - top, 0.0, 0.15) / 0.15
        line = np.concatenate([np.stack([x, top - 0.012], 1), np.stack([x, top + foam * edge], 1)[::-1]])
        pen.shape(line[2:-2], shade(sea, 3.2) if tone < 1.0 else WHITE)


def draw_fire(pen: Pen, look: Look, motion: Motion) -> None:
    """A camp fire: the flames leap and sparks fly with every crackle."""
    rng = np.random.default_rng(look.seed)
    level = motion.level
    for k, x in enumerate(np.linspace(-0.75, 0.75, 7)):
        pen.oval(float(x), 0.86 + 0.05 * (k % 2), 0.16, 0.11, shade((140, 138, 142), 0.8 + 0.1 * (k % 3)))
    pen.at(0.0, 0.68, turn=14).stroke([(-0.62, 0.0), (0.62, 0.0)], 0.2, look.main)
    pen.at(0.0, 0.68, turn=-14).stroke([(-0.62, 0.0), (0.62, 0.0)], 0.2, shade(look.main, 0.75))
    pen.at(0.0, 0.68, turn=-14).oval(0.64, 0.0, 0.07, 0.1, shade(look.main, 1.6))
    pen.at(0.0, 0.68, turn=14).oval(-0.64, 0.0, 0.07, 0.1, shade(look.main, 1.6))
    phases = rng.uniform(0, 2 * np.pi, 6)
    flames: list[tuple[float, float, Colour]] = [
        (0.5, 1.0, look.second),
        (0.36, 0.76, look.accent),
        (0.2, 0.48, (255, 236, 140)),
    ]
    for k, (width, height, colour) in enumerate(flames):
        tall = height * (0.72 + 0.62 * level)
        sway = 0.16 * np.sin(9.0 * motion.phase + phases[k]) + 0.12 * motion.shake(5.0 + k)
        left = 0.78 + 0.3 * np.sin(13.0 * motion.phase + phases[k + 3])
        pen.blob(
            [
                (-0.1, 0.7),
                (-width, 0.45),
                (-0.75 * width, 0.55 - 0.5 * tall * left),
                (-0.32 * width + 0.3 * sway, 0.45 - 0.42 * tall),
                (sway, 0.6 - 1.2 * tall),
                (0.36 * width + 0.3 * sway, 0.4 - 0.4 * tall),
                (0.8 * width, 0.55 - 0.45 * tall * (1.5 - left)),
                (width, 0.45),
                (0.1, 0.7),
            ],
            colour,
        )
    angles, offsets = rng.uniform(-0.6, 0.6, 12), rng.random(12)
    for k in range(12):
        if level > 0.3 + 0.05 * k:
            rise = (offsets[k] + 1.8 * motion.phase + 0.7 * motion.time) % 1.0
            size = 0.045 * (1.0 - 0.6 * rise)
            pen.oval(angles[k] * (0.5 + 0.8 * rise), 0.1 - 1.0 * rise, size, size, (255, 206, 92))


def draw_helicopter(pen: Pen, look: Look, motion: Motion) -> None:
    """A helicopter from the side: both rotors turn and the hull rocks as long as it is heard."""
    level, main = motion.level, look.main
    body = pen.at(0.0, 0.07 * motion.shake(1.7), turn=4 * level + 3 * motion.shake(3.1))
    body.stroke([(-0.1, 0.12), (-0.55, 0.02), (-0.9, -0.1)], 0.28, shade(main, 0.85), end=0.09)
    body.shape([(-0.98, -0.36), (-0.84, -0.36), (-0.76, -0.04), (-0.94, -0.04)], look.second)
    tail = body.at(-0.9, -0.12, turn=760 * motion.phase)
    for quarter in (0, 90):
        tail.at(turn=quarter).stroke([(-0.17, 0.0), (0.17, 0.0)], 0.035, INK)
    for x in (0.02, 0.42):
        body.stroke([(x, 0.4), (x + 0.03, 0.62)], 0.045, INK)
    body.stroke([(-0.2, 0.64), (0.3, 0.65), (0.62, 0.64), (0.7, 0.56)], 0.05, INK)
    body.blob(
        [
            (-0.42, 0.1),
            (-0.2, -0.16),
            (0.25, -0.24),
            (0.62, -0.1),
            (0.78, 0.16),
            (0.6, 0.42),
            (0.1, 0.5),
            (-0.28, 0.36),
        ],
        main,
    )
    body.blob([(0.3, -0.17), (0.56, -0.08), (0.72, 0.14), (0.52, 0.2), (0.3, 0.17)], (176, 222, 240))
    body.blob([(0.36, -0.12), (0.5, -0.06), (0.44, 0.08), (0.35, 0.05)], (222, 242, 250))
    body.box(-0.02, -0.08, 0.2, 0.16, (176, 222, 240))
    body.stroke([(-0.34, 0.3), (0.2, 0.36), (0.66, 0.3)], 0.07, look.second)
    body.stroke([(0.1, -0.2), (0.1, -0.46)], 0.09, INK)
    if level > 0.1:
        body.oval(0.1, -0.47, 0.92, 0.085, (215, 222, 230, round(40 + 80 * min(level, 1.0))))
    turn = 2 * np.pi * (1.31 * motion.phase + 0.13)
    for blade in (0.0, np.pi / 2):
        reach, depth = 0.92 * float(np.cos(turn + blade)), 0.085 * float(np.sin(turn + blade))
        body.stroke([(0.1 - reach, -0.47 - depth), (0.1 + reach, -0.47 + depth)], 0.045, INK)
    body.oval(0.1, -0.48, 0.09, 0.05, INK)


def draw_chainsaw(pen: Pen, look: Look, motion: Motion) -> None:
    """A chainsaw on a log: it shakes, the chain runs and chips fly while it is heard."""
    rng = np.random.default_rng(look.seed)
    level, main = motion.level, look.main
    pen.box(-0.05, 0.5, 0.98, 0.92, look.accent)
    pen.oval(-0.05, 0.71, 0.12, 0.21, shade(look.accent, 1.5))
    pen.oval(-0.05, 0.71, 0.07, 0.13, shade(look.accent, 1.2))
    pen.oval(0.98, 0.71, 0.06, 0.21, look.accent)
    for y in (0.6, 0.76):
        pen.stroke([(0.15, y), (0.5, y + 0.03), (0.9, y)], 0.025, shade(look.accent, 0.75))
    saw = pen.at(0.03 * motion.shake(8.3), 0.06 * level + 0.035 * motion.shake(6.1), turn=12 + 5 * motion.shake(7.3))
    bar = saw.at(0.05, 0.18)
    bar.stroke([(0.0, 0.0), (0.86, 0.0)], 0.25, (70, 72, 80))
    bar.stroke([(0.0, 0.0), (0.86, 0.0)], 0.17, (200, 204, 210))
    for k in range(9):
        at = (k / 9 + 1.7 * motion.phase) % 1.0
        bar.box(0.86 * at, -0.15, 0.86 * at + 0.05, -0.1, INK)
        bar.box(0.86 - 0.86 * at, 0.1, 0.91 - 0.86 * at, 0.15, INK)
    saw.stroke([(-0.86, 0.2), (-0.98, -0.02), (-0.82, -0.26), (-0.5, -0.2)], 0.12, INK)
    saw.stroke([(-0.22, 0.2), (-0.3, -0.4), (0.0, -0.44), (0.06, -0.1)], 0.09, INK)
    saw.blob([(-0.84, 0.32), (-0.8, -0.1), (-0.4, -0.24), (0.06, -0.16), (0.16, 0.1), (0.1, 0.38), (-0.4, 0.42)], main)
    saw.blob([(-0.72, 0.24), (-0.66, 0.02), (-0.36, -0.06), (-0.3, 0.2), (-0.4, 0.3)], shade(main, 0.72))
    for k in range(3):
        saw.stroke([(-0.62 + 0.1 * k, 0.22), (-0.58 + 0.1 * k, 0.04)], 0.035, shade(main, 0.45))
    saw.oval(0.0, 0.16, 0.1, 0.1, look.second)
    saw.oval(0.0, 0.16, 0.04, 0.04, INK)
    offsets, angles = rng.random(14), rng.uniform(-75, -15, 14)
    for k in range(14):
        if level > 0.1 + 0.05 * k:
            fly = (offsets[k] + 2.6 * motion.phase) % 1.0
            chip = pen.at(0.32, 0.46, turn=float(angles[k])).at(0.6 * fly, 0.5 * fly**2 - 0.05, turn=400 * fly)
            chip.box(-0.035, -0.025, 0.035, 0.025, (236, 204, 140))
