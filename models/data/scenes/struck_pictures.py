"""How a bell and a drum look and move: each blow lands in the very frame in which it is heard."""

from __future__ import annotations

import math

from models.data.scenes.animals import INK
from models.data.scenes.canvas import Pen, shade
from models.data.scenes.motion import Look, Motion

BELL_LEAD = 0.3
BELL_RELEASE = 0.35
_BELL_ANGLE = 24.0  # degrees to either side at a strike
_CLAPPER_ANGLE = 25.0  # degrees further: where the ball meets the lip
_HALF_SWING = 0.5  # s from one side to the other when it swings out
_TOGETHER = 1.2  # s; strikes no further apart are one swing

DRUM_LEAD = 0.12
DRUM_RELEASE = 0.12
_RAISE = 0.14  # s in which a stick is back up
_SKIN = -0.02  # height of the skin
_REACH = 0.2  # where on the skin the sticks land, left and right
_WRIST = (0.84, -0.52)
_STICK_ANGLE = 50.0  # degrees by which a raised stick is turned


def bell_swing(motion: Motion) -> float:
    """How far a bell has swung, -1 to 1: it strikes where it turns back, at -1 and 1 in turn, and rests at 0."""
    side = 1.0 if motion.strikes % 2 else -1.0  # of the last strike
    gap = motion.since + motion.until
    if motion.since == 0.0:
        return side
    if gap <= _TOGETHER:
        return side * math.cos(math.pi * motion.since / gap)
    position = 0.0
    if motion.level > 0.0 and motion.since < math.inf:
        position = side * 0.4 ** (motion.since / BELL_RELEASE) * math.cos(math.pi * motion.since / _HALF_SWING)
    share = min(max(1.0 - motion.until / BELL_LEAD, 0.0), 1.0)
    share = share * share * (3.0 - 2.0 * share)
    return (1.0 - share) * position - share * side


def draw_bell(pen: Pen, look: Look, motion: Motion) -> None:
    """A bell in a wooden frame: it swings, and where it turns back the clapper meets its lip."""
    wood, bronze = look.second, look.main
    pen.box(-1.12, 0.52, 1.12, 0.64, shade(wood, 0.6))
    for side in (-1.0, 1.0):
        pen.stroke([(side * 0.98, -0.78), (side * 0.98, 0.52)], 0.14, shade(wood, 0.85))
        pen.stroke([(side * 0.98, -0.4), (side * 0.62, -0.78)], 0.09, shade(wood, 0.7))
    swing = bell_swing(motion)
    bell = pen.at(0.0, -0.78, turn=-_BELL_ANGLE * swing)
    bell.blob(
        [
            (-0.1, 0.06), (0.1, 0.06), (0.24, 0.16), (0.29, 0.34), (0.32, 0.56), (0.38, 0.76), (0.5, 0.92),
            (0.3, 0.98), (0.0, 1.0), (-0.3, 0.98), (-0.5, 0.92), (-0.38, 0.76), (-0.32, 0.56), (-0.29, 0.34),
            (-0.24, 0.16),
        ],
        bronze,
    )  # fmt: skip
    bell.blob(
        [(-0.17, 0.18), (-0.1, 0.14), (-0.14, 0.5), (-0.26, 0.82), (-0.34, 0.82), (-0.24, 0.5)], shade(bronze, 1.7)
    )
    bell.blob([(0.14, 0.14), (0.22, 0.2), (0.3, 0.58), (0.44, 0.88), (0.3, 0.88), (0.2, 0.5)], shade(bronze, 0.84))
    for y, reach in ((0.3, 0.27), (0.38, 0.285), (0.8, 0.39)):
        bell.stroke([(-reach, y - 0.01), (0.0, y + 0.05), (reach, y - 0.01)], 0.03, shade(bronze, 0.7))
    # Seen a little from below: the lip, the dark inside, and the clapper's ball in it.
    bell.oval(0.0, 0.93, 0.5, 0.115, shade(bronze, 1.25))
    bell.oval(0.0, 0.935, 0.44, 0.088, shade(bronze, 0.28))
    clapper = bell.at(0.0, 0.12, turn=-_CLAPPER_ANGLE * swing**3)
    clapper.stroke([(0.0, 0.77), (0.0, 0.86)], 0.05, look.accent)
    clapper.oval(0.0, 0.86, 0.085, 0.085, look.accent)
    clapper.oval(-0.025, 0.835, 0.028, 0.028, shade(look.accent, 2.2))
    bell.box(-0.26, -0.1, 0.26, 0.09, shade(wood, 0.75))
    for x in (-0.16, 0.16):
        bell.box(x - 0.03, -0.08, x + 0.03, 0.12, INK)
    pen.stroke([(-1.04, -0.8), (1.04, -0.8)], 0.15, wood)
    pen.stroke([(-1.02, -0.83), (1.02, -0.83)], 0.035, shade(wood, 1.4))
    pen.oval(0.0, -0.8, 0.055, 0.055, INK)


def stick_heights(motion: Motion) -> tuple[float, float]:
    """How far above the skin the tips of the left and the right stick are: 0 touches, 1 is at rest; they take turns."""
    heights = [1.0, 1.0]
    last, following = (motion.strikes + 1) % 2, motion.strikes % 2
    share = min(motion.since / _RAISE, 1.0)
    heights[last] = 1.0 - (1.0 - share) ** 2
    share = min(max(1.0 - motion.until / DRUM_LEAD, 0.0), 1.0)
    heights[following] = 1.0 - share**3 + 0.8 * share * (1.0 - share) ** 2
    return heights[0], heights[1]


def draw_drum(pen: Pen, look: Look, motion: Motion) -> None:
    """A drum and two hands with sticks: they strike in turn, the skin trembles and the drum gives a little."""
    main, skin, hoop = look.main, look.second, shade(look.accent, 0.8)
    hand = ((238, 196, 160), (152, 106, 80))[look.seed % 2]
    # The sticks already move before a blow, the drum only after it.
    tremble = 0.4 ** (motion.since / DRUM_RELEASE) if motion.level > 0.0 else 0.0
    wave = tremble * math.sin(2 * math.pi * 9.0 * motion.time)
    drum = pen.at(0.0, 0.016 * tremble * math.sin(2 * math.pi * 8.7 * motion.time))
    width, flat, low = 0.62, 0.17, 0.72
    drum.oval(0.0, low, width, flat, main)
    drum.box(-width, _SKIN, width, low, main)
    drum.shape(
        [(-width, _SKIN), (-0.4, _SKIN), (-0.4, low + 0.13), (-0.52, low + 0.09), (-width, low)], shade(main, 1.3)
    )
    drum.shape([(width, _SKIN), (0.36, _SKIN), (0.36, low + 0.135), (0.52, low + 0.09), (width, low)], shade(main, 0.8))
    # Ropes run in zigzag between the hoops.
    angles = [math.radians(12 + 26 * k) for k in range(7)]
    tops = [(width * math.cos(a), _SKIN + 0.08 + flat * math.sin(a)) for a in angles]
    bottoms = [(width * math.cos(a + 0.22), low - 0.02 + flat * math.sin(a + 0.22)) for a in angles[:-1]]
    for k, (x, y) in enumerate(bottoms):
        drum.stroke([tops[k], (x, y)], 0.028, shade(skin, 0.92))
        drum.stroke([(x, y), tops[k + 1]], 0.028, shade(skin, 0.92))
    for y in (low, _SKIN + 0.06):
        around = [(width * math.cos(math.radians(a)), y + flat * math.sin(math.radians(a))) for a in range(0, 181, 20)]
        drum.stroke(around, 0.1, hoop)
    drum.oval(0.0, _SKIN, width + 0.03, flat + 0.025, shade(hoop, 0.8))
    drum.oval(0.0, _SKIN, width - 0.03, flat - 0.02, skin)
    # Rings that run out from the blow while the skin trembles.
    for k, share in enumerate((0.8, 0.55, 0.3)):
        tone = 1.0 - 0.16 * tremble * (1.0 + math.sin(2 * math.pi * (9.0 * motion.time + 0.33 * k)))
        lift = 0.05 * wave * (1.0 - share)
        drum.oval(0.0, _SKIN + lift, share * (width - 0.03), share * (flat - 0.02), shade(skin, tone))
    if look.variant:
        drum.oval(0.0, _SKIN + 0.035 * wave, 0.24 * width, 0.24 * flat, shade(main, 1.5))
    for side, height in zip((-1.0, 1.0), stick_heights(motion), strict=True):
        dark = round(90 * max(0.0, 1.0 - 0.7 * height))
        pen.oval(side * _REACH, _SKIN, 0.07, 0.022, (40, 30, 30, dark))
        x, y = side * _WRIST[0], _WRIST[1] - 0.07 * height
        # Towards where it lands, and up from there.
        landing = math.atan2(_SKIN - 0.045 - _WRIST[1], _REACH - _WRIST[0])
        turn = math.degrees(landing) + _STICK_ANGLE * height
        length = math.hypot(_SKIN - 0.045 - _WRIST[1], _REACH - _WRIST[0])
        stick = pen.at(x, y, turn=turn if side > 0 else 180.0 - turn)
        stick.stroke([(-0.16, 0.0), (length, 0.0)], 0.06, look.accent, end=0.045)
        stick.oval(length, 0.0, 0.055, 0.045, shade(look.accent, 1.25))
        # The fist that holds it, and its sleeve.
        pen.stroke([(x + side * 0.16, y + 0.2), (x + side * 0.05, y + 0.06)], 0.2, shade(main, 0.6), end=0.16)
        pen.oval(x, y, 0.105, 0.1, hand)
        pen.stroke([(x - side * 0.06, y - 0.01), (x + side * 0.03, y + 0.03)], 0.045, shade(hand, 0.86))
