"""How dogs, roosters, babies and sneezing people look and move; each is drawn in a box of about -1..1, facing right."""

from __future__ import annotations

import numpy as np

from models.data.scenes.canvas import Colour, Pen, shade
from models.data.scenes.motion import Look, Motion

INK: Colour = (38, 32, 40)
WHITE: Colour = (252, 250, 246)
MOUTH: Colour = (130, 32, 48)
TONGUE: Colour = (236, 118, 128)


def draw_dog(pen: Pen, look: Look, motion: Motion) -> None:
    """A sitting dog: the jaw drops, the head jerks up and the tail beats with every bark."""
    main, dark, belly = look.main, shade(look.main, 0.78), look.second
    level = motion.level
    pen.stroke([(-0.5, 0.72), (-0.78, 0.55), (-0.88, 0.2 - 0.18 * motion.shake(4.0))], 0.17, dark, end=0.09)
    # Haunch, body, front legs.
    pen.blob([(-0.62, 0.9), (-0.68, 0.5), (-0.4, 0.15), (-0.05, -0.2), (0.25, -0.15), (0.28, 0.4), (0.1, 0.92)], main)
    pen.blob([(-0.62, 0.93), (-0.7, 0.62), (-0.45, 0.38), (-0.15, 0.55), (-0.12, 0.93)], dark)
    pen.oval(-0.18, 0.9, 0.22, 0.08, dark)
    pen.stroke([(0.12, 0.1), (0.15, 0.5), (0.14, 0.88)], 0.24, main, end=0.17)
    pen.oval(0.2, 0.91, 0.16, 0.07, main)
    pen.blob([(0.02, -0.1), (0.26, -0.1), (0.28, 0.2), (0.16, 0.42), (0.05, 0.2)], belly)
    pen.stroke([(0.0, -0.17), (0.15, -0.1), (0.29, -0.16)], 0.1, look.accent)
    head = pen.at(0.12, -0.38, turn=-16 * level + 3 * motion.shake(9.0))
    # Lower jaw first: it hangs behind the snout.
    jaw = head.at(0.22, 0.12, turn=46 * level)
    if level > 0.05:
        head.shape([(0.2, 0.06), (0.62, 0.02), (0.5, 0.1 + 0.42 * level), (0.24, 0.2)], MOUTH)
        jaw.oval(0.2, 0.0, 0.17, 0.05, TONGUE)
    jaw.blob([(-0.06, -0.03), (0.2, 0.01), (0.38, 0.0), (0.36, 0.09), (0.1, 0.13), (-0.05, 0.08)], dark)
    head.blob([(-0.3, 0.1), (-0.32, -0.2), (-0.08, -0.42), (0.2, -0.34), (0.3, -0.1), (0.22, 0.2), (-0.1, 0.28)], main)
    head.blob(
        [(0.14, -0.14), (0.34, -0.13), (0.62, -0.1), (0.68, 0.02), (0.58, 0.13), (0.3, 0.17), (0.12, 0.14)], belly
    )
    head.oval(0.64, -0.08, 0.09, 0.075, INK)
    head.oval(0.14, -0.16, 0.07, 0.08, WHITE)
    head.oval(0.16, -0.15, 0.045, 0.055, INK)
    ear = head.at(-0.14, -0.32, turn=14 * level)
    if look.variant == 0:
        ear.blob([(-0.12, 0.0), (0.08, -0.04), (0.08, 0.3), (-0.04, 0.52), (-0.18, 0.42), (-0.2, 0.15)], dark)
    else:
        ear.shape([(-0.14, 0.1), (-0.08, -0.38), (0.16, 0.0)], dark)


def draw_rooster(pen: Pen, look: Look, motion: Motion) -> None:
    """A rooster: it stretches its neck, opens the beak and beats a wing while it crows."""
    main, dark, red, yellow = look.main, shade(look.main, 0.72), (214, 48, 48), (246, 178, 46)
    level = motion.level
    for k, (x, y) in enumerate([(-0.95, 0.12), (-1.0, -0.2), (-0.9, -0.5), (-0.68, -0.68)]):
        pen.stroke(
            [(-0.3, 0.25), (-0.6, -0.1 - 0.1 * k), (x, y + 0.03 * motion.shake(6.0))],
            0.26,
            (look.accent, shade(look.accent, 0.75))[k % 2],
            end=0.06,
        )
    for x in (-0.08, 0.16):
        pen.stroke([(x, 0.5), (x + 0.02, 0.92)], 0.065, yellow)
        pen.stroke([(x - 0.08, 0.94), (x + 0.16, 0.94)], 0.05, yellow)
    pen.blob([(-0.5, 0.1), (-0.3, -0.02), (0.1, 0.0), (0.42, -0.1), (0.46, 0.3), (0.2, 0.6), (-0.2, 0.58)], main)
    # The neck reaches up and back.
    x, y = 0.42 + 0.02 * level, -0.42 - 0.22 * level + 0.02 * motion.shake(8.0)
    pen.stroke([(0.2, 0.2), (0.34, -0.1), (x - 0.02, y)], 0.5, look.second, end=0.24)
    head = pen.at(x, y, turn=-30 * level + 3 * motion.shake(8.0))
    for cx, cy, r in [(-0.12, -0.18, 0.075), (-0.01, -0.23, 0.09), (0.1, -0.18, 0.07)]:
        head.oval(cx, cy, r, r * 1.15, red)
    head.oval(0.0, 0.0, 0.17, 0.18, look.second)
    lower = head.at(0.12, 0.05, turn=38 * level)
    if level > 0.05:
        head.shape([(0.1, 0.0), (0.28, -0.02), (0.2, 0.2 * level + 0.05), (0.1, 0.08)], MOUTH)
    lower.shape([(0.0, -0.03), (0.21, 0.0), (0.0, 0.06)], shade(yellow, 0.85))
    head.shape([(0.11, -0.1), (0.36, 0.01), (0.11, 0.05)], yellow)
    head.blob([(0.08, 0.08), (0.15, 0.1), (0.14, 0.3), (0.06, 0.3)], red)
    head.oval(0.05, -0.05, 0.045, 0.05, WHITE)
    head.oval(0.06, -0.05, 0.028, 0.034, INK)
    wing = pen.at(0.12, 0.14, turn=12 * level + 12 * motion.shake(5.0))
    wing.blob([(0.06, 0.0), (-0.2, -0.06), (-0.52, 0.12), (-0.42, 0.24), (-0.12, 0.32), (0.08, 0.2)], dark)
    wing.blob([(0.02, 0.04), (-0.16, 0.0), (-0.36, 0.1), (-0.1, 0.2)], shade(dark, 0.8))


def draw_baby(pen: Pen, look: Look, motion: Motion) -> None:
    """A baby: mouth wide open, eyes shut, arms and head shaking, tears flying while it cries."""
    skin, suit, level = look.main, look.second, motion.level
    shake = motion.shake(4.5)
    pen.blob([(-0.46, 1.0), (-0.5, 0.6), (-0.25, 0.36), (0.25, 0.36), (0.5, 0.6), (0.46, 1.0)], suit)
    for side in (-1, 1):
        lift = 0.34 * level + side * 0.12 * shake
        pen.stroke([(side * 0.36, 0.58), (side * 0.62, 0.6 - 0.3 * lift), (side * 0.76, 0.5 - lift)], 0.2, suit)
        pen.oval(side * 0.78, 0.44 - lift, 0.11, 0.11, skin)
    pen.box(-0.08, 0.5, 0.08, 0.54, shade(suit, 0.75))
    for y in (0.62, 0.78):
        pen.oval(0.0, y, 0.04, 0.04, shade(suit, 0.7))
    head = pen.at(0.0, 0.36, turn=7 * shake).at(0.0, -0.5)
    for side in (-1, 1):
        head.oval(side * 0.62, 0.06, 0.12, 0.15, shade(skin, 0.9))
    head.blob(
        [(-0.6, 0.1), (-0.5, -0.4), (0.0, -0.62), (0.5, -0.4), (0.6, 0.1), (0.4, 0.46), (0.0, 0.56), (-0.4, 0.46)], skin
    )
    if look.variant == 0:
        head.stroke([(-0.06, -0.58), (0.1, -0.7), (0.16, -0.56), (0.05, -0.5)], 0.06, look.accent)
    else:
        head.sector(0.0, -0.18, 0.58, 0.5, 180, 360, look.accent)
        head.oval(0.0, -0.66, 0.11, 0.1, shade(look.accent, 1.4))
    flush = shade((238, 120, 110), 1.0 + 0.6 * (1.0 - level))
    for side in (-1, 1):
        head.oval(side * 0.36, 0.18, 0.13, 0.1, flush)
        if level > 0.25:
            head.stroke([(side * 0.36, -0.1), (side * 0.26, -0.03), (side * 0.14, -0.02)], 0.06, INK)
            head.stroke([(side * 0.4, -0.26), (side * 0.14, -0.18)], 0.05, shade(skin, 0.6))
            for k in range(2):
                fall = (motion.phase * 1.3 + 0.5 * k) % 1.0
                head.oval(side * (0.42 + 0.3 * fall), 0.02 + 0.4 * fall**2, 0.06, 0.08, (120, 196, 240))
        else:
            head.oval(side * 0.24, -0.04, 0.065, 0.085, INK)
            head.oval(side * 0.24 + 0.02, -0.07, 0.022, 0.026, WHITE)
    head.oval(0.0, 0.1, 0.055, 0.04, shade(skin, 0.82))
    if level > 0.05:
        height = 0.03 + 0.17 * level
        head.oval(0.0, 0.26 + 0.5 * height, 0.12 + 0.12 * level, height, MOUTH)
        head.oval(0.0, 0.27 + 1.0 * height, 0.1 + 0.04 * level, 0.42 * height, TONGUE)
    else:
        head.stroke([(-0.1, 0.3), (0.0, 0.33), (0.1, 0.3)], 0.045, MOUTH)


def draw_sneezer(pen: Pen, look: Look, motion: Motion) -> None:
    """A person in profile with a handkerchief: leans back on the breath, jerks forward at the burst, droplets fly."""
    skin, hair, shirt, level = look.main, look.accent, look.second, motion.level
    lean = float(np.interp(level, [0.0, 0.4, 0.62, 1.0], [0.0, -13.0, 12.0, 28.0])) + 4.0 * motion.shake(6.3)
    burst = float(np.clip((level - 0.5) / 0.3, 0.0, 1.0))
    body = pen.at(-0.2, 1.0, turn=0.4 * lean)
    body.blob([(-0.62, 0.02), (-0.56, -0.42), (-0.25, -0.64), (0.15, -0.62), (0.42, -0.4), (0.5, 0.02)], shirt)
    body.stroke([(-0.06, -0.55), (0.0, -0.75)], 0.3, shade(skin, 0.85))
    head = body.at(0.0, -0.8, turn=0.8 * lean + 2.0 * motion.shake(9.0))
    head.blob(
        [
            (-0.38, -0.3),
            (-0.3, -0.72),
            (0.08, -0.84),
            (0.38, -0.6),
            (0.42, -0.3),
            (0.36, 0.02),
            (0.14, 0.14),
            (-0.16, 0.06),
        ],
        skin,
    )
    head.blob([(0.34, -0.42), (0.47, -0.32), (0.6, -0.2), (0.54, -0.12), (0.38, -0.13)], shade(skin, 0.92))
    if burst > 0.0:
        head.oval(0.36, -0.02, 0.11, 0.06 + 0.07 * burst, MOUTH)
    elif level > 0.08:
        head.oval(0.35, -0.02, 0.07, 0.05 + 0.12 * level, MOUTH)
    else:
        head.stroke([(0.24, 0.0), (0.4, -0.02)], 0.045, MOUTH)
    if level > 0.12:
        head.stroke([(0.14, -0.34), (0.22, -0.3), (0.3, -0.34)], 0.05, INK)
    else:
        head.oval(0.22, -0.34, 0.05, 0.065, INK)
    head.stroke([(0.12, -0.48), (0.3, -0.5 - 0.06 * level)], 0.05, hair)
    hairline = [(0.4, -0.56), (0.3, -0.86), (0.0, -1.0), (-0.36, -0.86), (-0.5, -0.5), (-0.42, -0.12), (-0.2, -0.06)]
    if look.variant == 0:
        head.blob([*hairline, (-0.1, -0.3), (-0.02, -0.52), (0.2, -0.66)], hair)
    else:
        head.blob(
            [*hairline[:4], (-0.56, -0.4), (-0.62, 0.2), (-0.4, 0.42), (-0.14, 0.0), (-0.06, -0.5), (0.2, -0.66)], hair
        )
    head.oval(-0.04, -0.26, 0.08, 0.12, shade(skin, 0.86))
    # The hand with the handkerchief rises to the face.
    hand = pen.at(0.52, 0.72 - 0.2 * level)
    hand.stroke([(-0.4, 0.3), (-0.05, 0.22), (0.0, 0.04)], 0.2, shade(shirt, 0.85), end=0.15)
    hand.blob([(-0.14, -0.16), (0.06, -0.26), (0.2, -0.1), (0.16, 0.1), (-0.06, 0.12)], WHITE)
    hand.oval(0.02, 0.04, 0.1, 0.09, skin)
    if burst > 0.05:
        rng = np.random.default_rng(look.seed)
        for angle, speed, radius in zip(
            rng.uniform(-24, 34, 14), rng.uniform(0.2, 1.0, 14), rng.uniform(0.018, 0.04, 14), strict=True
        ):
            reach = 0.1 + 0.52 * ((speed + 2.3 * motion.phase) % 1.0) * burst
            spray = head.at(0.5, -0.06, turn=angle - 0.8 * lean)
            spray.oval(reach, 0.0, radius * 1.5, radius, (196, 228, 246))
