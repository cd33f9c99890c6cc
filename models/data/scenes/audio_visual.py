"""Scenes to be heard and seen, and the truth about what belongs together.

In a picture there are *actors*: those that sound move with their own sound, silent ones move at times of their own,
still ones do not move. The truth says for every event when it is heard, when its actor moves, and where in the picture.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.data.scenes.dsp import SAMPLE_RATE
from models.data.scenes.motion import ENVELOPE_RATE, MOVING, envelope, follow, spans
from models.data.scenes.pictures import PORTRAITS, Actor, portrait, render_pictures
from models.data.scenes.scene import Event, Recipe, Sound, random_recipe, render_stems, sum_of
from models.data.scenes.synthesis import synthesizer
from models.errors import SettingsError

Box = tuple[float, float, float, float]
_BLIP = 0.025  # s; shorter noises in a recording are no events

SAFE_WIDTH = 0.86
"""Actors of random scenes stay within this many heights around the middle: networks cut the sides off."""


@dataclass(frozen=True)
class VisibleActor:
    """The truth about one actor.

    Attributes
    ----------
    label
        Its class.
    role
        `sounding`, `silent` (moves, but is not heard) or `still`.
    motion
        Time spans in s in which it moves.
    box
        Left, top, right and bottom of all that it can cover, as shares of the picture's width and height.
    """

    label: str
    role: str
    motion: tuple[tuple[float, float], ...]
    box: Box


@dataclass(frozen=True)
class Correspondence:
    """One event that is both heard and seen: indices into the scene's events and actors, its time spans in s, its place.

    `box` is the actor's, as shares of the picture's width and height.
    """

    event: int
    actor: int
    label: str
    heard: tuple[float, float]
    seen: tuple[float, float]
    box: Box


@dataclass(frozen=True, eq=False)
class AudioVisualScene:
    """A rendered scene.

    Attributes
    ----------
    waveform
        float32 `[samples]` at `sample_rate` Hz.
    frames
        uint8 RGB `[n, height, width, 3]` at `frame_rate` per second; frame i shows the time ``i / frame_rate``.
    events
        What is heard.
    actors
        What is seen, from the hindmost to the foremost.
    correspondences
        What is both; empty if what sounds is not in the picture.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    frames: NDArray[np.uint8]
    frame_rate: float
    events: tuple[Event, ...]
    actors: tuple[VisibleActor, ...]
    correspondences: tuple[Correspondence, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that are heard."""
        return tuple(sorted({event.label for event in self.events}))


@dataclass(frozen=True)
class Role:
    """An actor's class and envelope, and whether the sound in the scene is its own."""

    label: str
    level: NDArray[np.float64]
    sounding: bool


def measure_events(label: str, waveform: NDArray[np.floating], sample_rate: int) -> tuple[Event, ...]:
    """Find when a recording of one class sounds, and in which band (1 % to 99 % of each event's energy)."""
    events = []
    duration = len(waveform) / sample_rate
    for start, stop in spans(envelope(waveform, sample_rate), threshold=0.15, gap=0.25):
        part = np.asarray(waveform[round(start * sample_rate) : round(stop * sample_rate)], dtype=np.float64)
        if stop - start < _BLIP:
            continue
        energy = np.cumsum(np.abs(np.fft.rfft(part)) ** 2)
        low, high = np.searchsorted(energy, [0.01 * energy[-1], 0.99 * energy[-1]]) * sample_rate / len(part)
        events.append(
            Event(label, round(start, 4), round(min(stop, duration), 4), round(float(low), 1), round(float(high), 1))
        )
    return tuple(events)


def compose(
    waveform: NDArray[np.floating],
    sample_rate: int,
    events: Sequence[Event],
    cast: Sequence[Actor],
    roles: Sequence[str],
    frame_rate: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    backdrop: str | None = None,
    light: float | None = None,
) -> AudioVisualScene:
    """Draw a scene and write down what belongs together.

    Parameters
    ----------
    cast, roles
        The actors, and for each whether it is `sounding`, `silent` or `still`.
    """
    height, width = size
    duration = len(waveform) / sample_rate
    visible = []
    for actor, role in zip(cast, roles, strict=True):
        left, top, right, bottom = actor.box(height, width)
        box = (round(left / width, 4), round(top / height, 4), round(right / width, 4), round(bottom / height, 4))
        motion = tuple(
            (round(start, 3), round(min(stop, duration), 3))
            for start, stop in spans(actor.movement())
            if start < duration
        )
        visible.append(VisibleActor(actor.label, role, motion, box))
    correspondences = []
    for index, event in enumerate(events):
        for number, (actor, role) in enumerate(zip(cast, roles, strict=True)):
            if role == "sounding" and actor.label == event.label:
                following = [e.onset for e in events if e.label == event.label and e.onset > event.onset]
                # What is struck swings to the next blow before it is heard.
                seen = _seen(
                    actor, event, min([*(onset - portrait(actor.label).lead for onset in following), duration])
                )
                correspondences.append(
                    Correspondence(index, number, event.label, (event.onset, event.offset), seen, visible[number].box)
                )
    frames = render_pictures(cast, duration, frame_rate, size, rng, backdrop, light)
    return AudioVisualScene(
        np.asarray(waveform, dtype=np.float32),
        sample_rate,
        frames,
        frame_rate,
        tuple(events),
        tuple(visible),
        tuple(correspondences),
    )


def _seen(actor: Actor, event: Event, end: float) -> tuple[float, float]:
    """The part of an actor's motion that belongs to an event, in s; motion may outlast the sound a little."""
    movement = actor.movement()
    first = max(0, round((event.onset - portrait(actor.label).lead) * ENVELOPE_RATE) - 2)
    last = round(min(event.offset + 0.3, end) * ENVELOPE_RATE)
    moving = np.flatnonzero(movement[first:last] >= MOVING)
    if not len(moving):
        return event.onset, event.offset
    start, stop = float(first + moving[0]), float(first + moving[-1] + 1)
    return round(start / ENVELOPE_RATE, 3), round(stop / ENVELOPE_RATE, 3)


def _bursts(rng: np.random.Generator, label: str, duration: float) -> Recipe:
    """A random recipe in which sounds that could last as long as asked mostly begin and end within the scene."""
    recipe = random_recipe(rng, label, duration)
    if not recipe.sounds[0].onsets:  # in a very short scene
        recipe = replace(recipe, sounds=(Sound(label, (0.1 * duration,), duration=duration),))
    if synthesizer(label).stretch is None or rng.random() < 0.2:
        return recipe
    length = float(rng.uniform(0.2, 0.45) * duration)
    first = float(rng.uniform(0.04, 0.3) * duration)
    second = first + length + float(rng.uniform(0.15, 0.3) * duration)
    onsets = (first, second) if second < 0.85 * duration and rng.random() < 0.6 else (first,)
    return replace(recipe, sounds=(Sound(label, onsets, duration=length),))


@functools.lru_cache(maxsize=512)
def _silent_level(label: str, number: int, duration: float = 5.0) -> NDArray[np.float64]:
    """How something of a class moves that is not heard: as it would if it sounded."""
    rng = np.random.default_rng([number, 11])
    recipe = replace(_bursts(rng, label, duration), place="open", background_level=-90.0)
    stems, _ = render_stems(recipe, seed=number)
    level = envelope(sum_of(stems), SAMPLE_RATE)
    level.setflags(write=False)
    return level


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    n = min(len(first), len(second))
    a, b = first[:n] >= MOVING, second[:n] >= MOVING
    return int(np.sum(a & b)) / max(1, min(int(np.sum(a)), int(np.sum(b))))


def _other_times(
    rng: np.random.Generator, level: NDArray[np.float64], heard: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move an envelope to times that are, at least partly, not those of the sound."""
    # A longer scene repeats it, a shorter one shows the part around a moment in which it moves.
    start = int(rng.choice(np.flatnonzero(level >= MOVING))) - len(heard) // 2
    level = np.resize(level, len(heard)) if len(heard) > len(level) else np.roll(level, -start)[: len(heard)]
    if np.mean(follow(level, 0.2) >= MOVING) > 0.6 or np.mean(heard >= MOVING) > 0.9:
        # One of them never pauses: the silent one moves in a part of the time only.
        share = rng.uniform(0.3, 0.55)
        time = np.linspace(0.0, 1.0, len(level), endpoint=False)
        gate = np.clip(np.minimum(time, share - time) * len(level) / 15.0, 0.0, 1.0)
        level = level * gate
    candidates = [np.roll(level, int(rng.integers(len(level)))) for _ in range(12)]
    overlaps = [_overlap(candidate, heard) for candidate in candidates]
    fitting = [k for k, overlap in enumerate(overlaps) if overlap < 0.3]
    return candidates[fitting[0] if fitting else int(np.argmin(overlaps))]


def _placed(rng: np.random.Generator, roles: Sequence[Role], size: tuple[int, int]) -> list[Actor]:
    """Random sizes and positions without overlap."""
    width = min(SAFE_WIDTH, size[1] / size[0])
    left = 0.5 * (size[1] / size[0] - width)
    largest = 0.82 if len(roles) == 1 else 0.56
    tries = 0
    while True:
        scale = 0.96 ** (tries // 12)
        tries += 1
        boxes: list[Box] = []
        for role in roles:
            extent = portrait(role.label).extent
            wide, tall = extent[2] - extent[0], extent[3] - extent[1]
            measure = scale * rng.uniform(0.72, 1.0) * largest
            # Something slim may be larger than something square.
            measure *= min(1.25, (max(wide, tall) / min(wide, tall)) ** 0.3)
            w, h = measure * wide / max(wide, tall), measure * tall / max(wide, tall)
            x = left + rng.uniform(0.5 * w, max(0.5 * w, width - 0.5 * w))
            y = rng.uniform(0.02 + 0.5 * h, max(0.02 + 0.5 * h, 0.98 - 0.5 * h))
            boxes.append((x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h))
        apart = all(
            a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1] for k, a in enumerate(boxes) for b in boxes[:k]
        )
        if apart:
            break
    return [
        Actor(
            role.label,
            0.5 * (box[0] + box[2]),
            0.5 * (box[1] + box[3]),
            max(box[2] - box[0], box[3] - box[1]),
            role.level,
            int(rng.integers(2**31)),
            bool(rng.random() < 0.5),
        )
        for role, box in zip(roles, boxes, strict=True)
    ]


def _other_class(rng: np.random.Generator, label: str, chosen: bool | str) -> str:
    if isinstance(chosen, str):
        portrait(chosen)
        return chosen
    return str(rng.choice([name for name in PORTRAITS if name != label]))


def random_audio_visual_scene(
    rng: np.random.Generator,
    label: str,
    duration: float = 5.0,
    distractor: bool | str = True,
    waveform: NDArray[np.floating] | None = None,
    sample_rate: int | None = None,
    *,
    visible: bool = True,
    still: bool | str = False,
    frame_rate: float = 20.0,
    size: tuple[int, int] = (112, 112),
) -> AudioVisualScene:
    """Render a random scene with one sounding class; everything random comes from `rng`.

    Parameters
    ----------
    label
        Class that sounds.
    duration
        Length in s; of a recording, all of it is used and its own length counts.
    distractor
        Whether there is a silent actor that moves at times of its own, or its class.
    waveform, sample_rate
        A recording `[samples]` of the class; default: a generated sound.
    visible
        Whether what sounds is in the picture. Without it, a distractor makes a mismatch of sound and picture.
    still
        Whether there is an actor that does not move, or its class.
    frame_rate, size
        Frames per second; height and width in pixels.

    Raises
    ------
    SettingsError
        If a class is unknown, or a recording comes without its sample rate.
    """
    portrait(label)
    if waveform is None:
        recipe = _bursts(rng, label, duration)
        stems, surroundings = render_stems(recipe, seed=int(rng.integers(2**31)))
        clean = sum_of(stems)
        events = tuple(stem.event for stem in stems)
        sound, sample_rate = (clean + surroundings).astype(np.float32), SAMPLE_RATE
        level = envelope(clean, SAMPLE_RATE)
    else:
        if sample_rate is None:
            raise SettingsError("A recording needs its sample rate.", "Give `sample_rate` in Hz.")
        sound = np.asarray(waveform, dtype=np.float32)
        duration = len(sound) / sample_rate
        level = envelope(sound, sample_rate)
        events = measure_events(label, sound, sample_rate)
    roles = [Role(label, level, True)] if visible else []
    if distractor:
        other = _other_class(rng, label, distractor)
        silent = _silent_level(other, int(rng.integers(64)))
        roles.append(Role(other, _other_times(rng, silent, level), False))
    if still:
        taken = {role.label for role in roles}
        names = [name for name in PORTRAITS if name not in taken and name != label]
        other = still if isinstance(still, str) else str(rng.choice(names))
        roles.append(Role(other, np.zeros_like(level), False))
    order = [int(k) for k in rng.permutation(len(roles))]
    roles = [roles[k] for k in order]
    cast = _placed(rng, roles, size)
    names = ["sounding" if role.sounding else "silent" if role.level.any() else "still" for role in roles]
    return compose(sound, sample_rate, events, cast, names, frame_rate, size, rng)
