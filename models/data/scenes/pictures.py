"""Pictures that move with a sound: actors of every class, drawn frame by frame from an envelope.

Flat illustrations, drawn at twice the size and averaged down. What an actor does in a frame depends on its envelope
alone, so the same drawing serves generated sounds, whose truth is exact, and recordings, whose envelope is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.data.scenes import animals, struck_pictures, things
from models.data.scenes.backdrops import BACKDROPS, draw_backdrop
from models.data.scenes.canvas import Colour, Pen
from models.data.scenes.motion import ENVELOPE_RATE, Look, Motion, follow, motions, strikes, swing
from models.errors import SettingsError

_FINER = 2  # drawn this many times larger
_Palette = tuple[tuple[Colour, Colour, Colour], ...]


@dataclass(frozen=True)
class Portrait:
    """How a class is drawn.

    Attributes
    ----------
    draw
        Draws one frame.
    extent
        Left, top, right and bottom of all that can be drawn, in the pen's coordinates.
    palette
        Colours of individuals: main, second, accent.
    release
        Seconds in which the motion falls by 60 % after the sound has stopped.
    gain
        The motion's size for a level, so that quiet crackles show as well.
    backdrops
        Places where people expect it.
    lead
        Of what is struck: seconds in which it moves to a blow; it then moves with the blows and not with the level.
    """

    draw: Callable[[Pen, Look, Motion], None]
    extent: tuple[float, float, float, float]
    palette: _Palette
    release: float = 0.06
    gain: float = 1.0
    backdrops: tuple[str, ...] = ("meadow",)
    lead: float = 0.0


_FUR: _Palette = (
    ((186, 128, 76), (240, 220, 190), (210, 50, 50)),
    ((116, 84, 62), (206, 176, 140), (60, 130, 200)),
    ((236, 208, 160), (252, 244, 226), (70, 150, 90)),
    ((92, 92, 102), (216, 214, 212), (230, 150, 40)),
    ((206, 152, 96), (250, 236, 214), (130, 70, 160)),
)
_PLUMAGE: _Palette = (
    ((182, 84, 44), (232, 152, 56), (38, 96, 92)),
    ((244, 240, 230), (250, 246, 236), (176, 176, 182)),
    ((72, 66, 84), (222, 160, 70), (40, 110, 130)),
    ((206, 138, 70), (240, 200, 120), (70, 60, 90)),
)
_BABIES: _Palette = (
    ((250, 212, 186), (130, 190, 226), (120, 78, 50)),
    ((226, 176, 140), (244, 190, 90), (50, 36, 32)),
    ((150, 102, 76), (160, 210, 150), (40, 28, 26)),
    ((244, 200, 170), (240, 160, 170), (222, 170, 90)),
    ((104, 70, 54), (244, 214, 110), (32, 24, 24)),
)
_PEOPLE: _Palette = (
    ((248, 208, 180), (72, 132, 180), (94, 60, 40)),
    ((214, 162, 124), (196, 84, 76), (40, 32, 34)),
    ((132, 90, 68), (90, 160, 120), (34, 26, 28)),
    ((244, 202, 172), (150, 110, 170), (214, 166, 84)),
    ((104, 70, 54), (230, 170, 70), (60, 56, 60)),
)
_WOOD: _Palette = (
    ((150, 92, 54), (252, 248, 236), (232, 190, 80)),
    ((104, 66, 50), (244, 236, 214), (220, 200, 150)),
    ((190, 140, 88), (255, 252, 246), (190, 120, 60)),
    ((74, 98, 106), (250, 246, 236), (236, 190, 90)),
)
_CLOUDS: _Palette = (
    ((206, 212, 222), (120, 166, 206), (58, 124, 200)),
    ((168, 176, 192), (104, 150, 190), (48, 106, 190)),
    ((232, 234, 240), (136, 178, 206), (76, 134, 206)),
)
_SEAS: _Palette = (
    ((54, 128, 176), (252, 250, 246), (206, 70, 60)),
    ((40, 140, 150), (252, 250, 246), (236, 160, 60)),
    ((62, 104, 160), (252, 250, 246), (70, 60, 90)),
    ((76, 150, 170), (252, 250, 246), (120, 70, 140)),
)
_FLAMES: _Palette = (
    ((116, 72, 48), (232, 86, 40), (252, 164, 50)),
    ((96, 66, 54), (220, 60, 44), (248, 140, 44)),
    ((134, 90, 58), (244, 110, 46), (255, 190, 70)),
)
_HULLS: _Palette = (
    ((206, 62, 54), (246, 240, 226), (0, 0, 0)),
    ((48, 104, 160), (244, 200, 70), (0, 0, 0)),
    ((238, 182, 60), (60, 66, 80), (0, 0, 0)),
    ((86, 120, 84), (226, 220, 190), (0, 0, 0)),
    ((240, 240, 240), (206, 62, 54), (0, 0, 0)),
)
_SAWS: _Palette = (
    ((236, 108, 40), (240, 240, 236), (150, 106, 70)),
    ((206, 50, 48), (60, 60, 66), (122, 88, 62)),
    ((242, 190, 50), (40, 40, 46), (168, 126, 86)),
    ((60, 130, 100), (240, 230, 200), (140, 110, 84)),
)
_BELLS: _Palette = (
    ((206, 150, 62), (128, 84, 56), (70, 66, 74)),
    ((176, 124, 74), (96, 72, 62), (60, 60, 66)),
    ((222, 178, 84), (150, 104, 70), (92, 70, 56)),
    ((130, 146, 122), (110, 76, 54), (64, 56, 54)),
)
_DRUMS: _Palette = (
    ((206, 58, 52), (250, 244, 228), (222, 178, 112)),
    ((52, 98, 160), (246, 238, 216), (200, 150, 92)),
    ((58, 130, 96), (250, 246, 236), (232, 196, 140)),
    ((226, 158, 52), (248, 240, 224), (170, 116, 70)),
    ((120, 74, 140), (244, 238, 230), (214, 172, 116)),
)

PORTRAITS: dict[str, Portrait] = {
    "dog": Portrait(animals.draw_dog, (-0.97, -1.1, 0.89, 1.0), _FUR, backdrops=("meadow", "town")),
    "rooster": Portrait(
        animals.draw_rooster, (-1.07, -1.0, 0.84, 1.0), _PLUMAGE, release=0.12, backdrops=("meadow", "beach")
    ),
    "crying_baby": Portrait(
        animals.draw_baby, (-0.95, -0.93, 0.95, 1.08), _BABIES, release=0.1, backdrops=("room", "paper")
    ),
    "sneezing": Portrait(
        animals.draw_sneezer, (-0.95, -0.86, 1.16, 1.16), _PEOPLE, release=0.1, backdrops=("room", "town")
    ),
    "clock_tick": Portrait(things.draw_clock, (-0.55, -1.02, 0.55, 0.98), _WOOD, backdrops=("room", "paper")),
    "rain": Portrait(things.draw_rain, (-0.9, -1.0, 0.9, 1.0), _CLOUDS, release=0.15, backdrops=("meadow", "town")),
    "sea_waves": Portrait(things.draw_waves, (-1.02, -0.95, 1.02, 0.95), _SEAS, release=0.25, backdrops=("beach",)),
    "crackling_fire": Portrait(
        things.draw_fire, (-0.95, -1.05, 0.95, 1.05), _FLAMES, release=0.08, gain=1.4, backdrops=("night",)
    ),
    "helicopter": Portrait(
        things.draw_helicopter, (-1.14, -0.74, 1.14, 0.86), _HULLS, release=0.2, backdrops=("town", "meadow")
    ),
    "chainsaw": Portrait(things.draw_chainsaw, (-1.12, -0.6, 1.12, 0.97), _SAWS, release=0.1, backdrops=("meadow",)),
}
"""How the ten classes of ESC-10 look: those of `SYNTHESIZERS`."""

FURTHER_PORTRAITS: dict[str, Portrait] = {
    "bell": Portrait(
        struck_pictures.draw_bell,
        (-1.14, -1.0, 1.14, 0.66),
        _BELLS,
        release=struck_pictures.BELL_RELEASE,
        backdrops=("town", "meadow"),
        lead=struck_pictures.BELL_LEAD,
    ),
    "drum": Portrait(
        struck_pictures.draw_drum,
        (-1.1, -0.98, 1.1, 0.98),
        _DRUMS,
        release=struck_pictures.DRUM_RELEASE,
        backdrops=("room", "town"),
        lead=struck_pictures.DRUM_LEAD,
    ),
}
"""How the classes of `FURTHER_SYNTHESIZERS` look; apart for the same reason: silent actors are drawn from all `PORTRAITS`."""


@dataclass(frozen=True, eq=False)
class Actor:
    """A visible thing.

    Attributes
    ----------
    label
        Its class, one of `PORTRAITS` or `FURTHER_PORTRAITS`.
    x, y
        Centre of its bounding box, in heights of the picture from the left upper corner.
    size
        Height or width of the bounding box, whichever is more, in heights of the picture.
    level
        Envelope that its motion follows, 0 to 1, `ENVELOPE_RATE` values per second; all zero for a still actor.
    seed
        Draws the individual: colours, details.
    mirrored
        Faces left.
    """

    label: str
    x: float
    y: float
    size: float
    level: NDArray[np.float64]
    seed: int = 0
    mirrored: bool = False

    @property
    def scale(self) -> float:
        """Heights of the picture in one unit of the portrait's coordinates."""
        left, top, right, bottom = portrait(self.label).extent
        return self.size / max(right - left, bottom - top)

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all that the actor can cover, in pixels of a picture."""
        left, top, right, bottom = portrait(self.label).extent
        half_width, half_height = 0.5 * self.scale * (right - left), 0.5 * self.scale * (bottom - top)
        return (
            max(0.0, height * (self.x - half_width)),
            max(0.0, height * (self.y - half_height)),
            min(float(width), height * (self.x + half_width)),
            min(float(height), height * (self.y + half_height)),
        )

    def movement(self) -> NDArray[np.float64]:
        """The level of motion over time, 0 to 1: the envelope with the inertia of the class."""
        style = portrait(self.label)
        level = np.minimum(style.gain * self.level, 1.0)
        level = swing(level, style.lead, style.release) if style.lead else follow(level, style.release)
        return np.where(level < 0.01, 0.0, level)

    def blows(self) -> list[int]:
        """When it is struck, as indices into its envelope; empty for what is not."""
        style = portrait(self.label)
        return strikes(np.minimum(style.gain * self.level, 1.0)) if style.lead else []


def portrait(label: str) -> Portrait:
    """Look up how a class is drawn.

    Raises
    ------
    SettingsError
        If it cannot be drawn.
    """
    known = PORTRAITS | FURTHER_PORTRAITS
    if label not in known:
        raise SettingsError(f"There is no picture of {label!r}.", f"Choose one of {', '.join(known)}.")
    return known[label]


def look_of(label: str, seed: int) -> Look:
    """Draw an individual of a class."""
    rng = np.random.default_rng([seed, 7])
    palette = portrait(label).palette
    colours = palette[int(rng.integers(len(palette)))]
    # No two dogs have quite the same brown.
    tones: list[Colour] = []
    for colour in colours:
        values = np.clip(np.array(colour[:3]) * rng.uniform(0.9, 1.08) + rng.uniform(-9, 9, 3), 0, 255).round()
        tones.append((int(values[0]), int(values[1]), int(values[2])))
    return Look(tones[0], tones[1], tones[2], int(rng.integers(2)), seed)


def _pen(target: ImageDraw.ImageDraw, actor: Actor, height: int) -> Pen:
    left, top, right, bottom = portrait(actor.label).extent
    side = -1.0 if actor.mirrored else 1.0
    scale = height * actor.scale
    middle = 0.5 * (left + right), 0.5 * (top + bottom)
    return Pen(
        target,
        np.array(
            [
                [side * scale, 0.0, height * actor.x - side * scale * middle[0]],
                [0.0, scale, height * actor.y - scale * middle[1]],
            ]
        ),
    )


def render_pictures(
    actors: Sequence[Actor],
    duration: float,
    frame_rate: float = 20.0,
    size: tuple[int, int] = (112, 112),
    rng: np.random.Generator | None = None,
    backdrop: str | None = None,
    light: float | None = None,
) -> NDArray[np.uint8]:
    """Draw the frames of a scene, uint8 RGB `[n, height, width, 3]`; frame i shows the time ``i / frame_rate``.

    Parameters
    ----------
    actors
        From the hindmost to the foremost.
    duration
        Length in s; `frame_rate` frames are drawn for each.
    size
        Height and width in pixels.
    rng
        Draws the backdrop and what is not asked for; default: always the same.
    backdrop
        One of `BACKDROPS`.
    light
        Brightness, 1 is full light.

    Raises
    ------
    SettingsError
        If there is no such backdrop or class, or the size or the duration is not positive.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    height, width = size
    n_frames = round(duration * frame_rate)
    if n_frames < 1 or height < 16 or width < 16:
        raise SettingsError("A scene needs at least one frame of at least 16 x 16 pixels.")
    if backdrop is not None and backdrop not in BACKDROPS:
        raise SettingsError(f"There is no backdrop {backdrop!r}.", f"Choose one of {', '.join(BACKDROPS)}.")
    name = str(rng.choice(list(BACKDROPS)))
    brightness = float(rng.uniform(0.82, 1.0))
    tall, wide = _FINER * height, _FINER * width
    stage = draw_backdrop(backdrop or name, rng, tall, wide)
    states = []
    for actor in actors:
        levels = actor.movement() if len(actor.level) else np.zeros(round(duration * ENVELOPE_RATE))
        states.append(motions(levels, n_frames, frame_rate, actor.blows()))
    looks = [look_of(actor.label, actor.seed) for actor in actors]
    shadow = ImageDraw.Draw(stage, "RGBA")
    for actor in actors:
        if actor.label not in ("rain", "helicopter", "sea_waves"):
            left, _, right, bottom = (_FINER * edge for edge in actor.box(height, width))
            reach = 0.03 * (right - left)
            shadow.ellipse(
                (left + 4 * reach, bottom - 2 * reach, right - 4 * reach, bottom + reach), fill=(20, 20, 40, 60)
            )
    table = np.round(np.arange(256) * (brightness if light is None else light)).astype(np.uint8).tolist() * 3
    stage = stage.point(table)
    frames = np.empty((n_frames, height, width, 3), dtype=np.uint8)
    canvas = Image.new("RGB", (wide, tall))
    target = ImageDraw.Draw(canvas, "RGBA")
    pens = [_pen(target, actor, tall) for actor in actors]
    for k in range(n_frames):
        if k and all(motion[k].same_as(motion[k - 1]) for motion in states):
            frames[k] = frames[k - 1]
            continue
        canvas.paste(stage)
        for actor, pen, look, motion in zip(actors, pens, looks, states, strict=True):
            portrait(actor.label).draw(pen, look, motion[k])
        frames[k] = np.asarray(canvas.reduce(_FINER))
    return frames
