"""Sound scenes with known truth: what sounds when, and in which band.

A scene is rendered from a recipe and a seed, and from nothing else. The truth is measured on each event's own signal,
in its place but before it is mixed with anything, so it holds whatever else sounds at the same time.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import signal

from models.data.scenes.dsp import ROOMS, SAMPLE_RATE, Signal, decibels, room_response, samples
from models.data.scenes.nature import background
from models.data.scenes.synthesis import synthesizer
from models.errors import SettingsError

AnyRecipe = TypeVar("AnyRecipe")

GENERATOR_VERSION = "1"
"""Raised whenever the same recipe and seed give a different sound."""

ONSET_LEVEL = -40.0
"""Level in dB below an event's peak at which it counts as begun or ended."""

PEAK = decibels(-3.0)
LOUDEST = decibels(-16.0)
"""A scene is scaled to this peak, or to this RMS of its loudest 0.4 s if that comes first."""


@dataclass(frozen=True)
class Event:
    """One sounding thing: its class, its time span in s, and the band in Hz that holds 98 % of its energy."""

    label: str
    onset: float
    offset: float
    f_low: float
    f_high: float


@dataclass(frozen=True)
class Sound:
    """What a recipe asks for: one source that sounds at `onsets` (s), `duration` s each, at a level in dB."""

    label: str
    onsets: tuple[float, ...]
    duration: float = 5.0
    level: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """A scene to be rendered: its sounds, its place (see `dsp.ROOMS`) and how loud the surroundings are in dBFS.

    `seed` is used where no other is asked for.
    """

    name: str
    title: str
    sounds: tuple[Sound, ...]
    place: str
    background_level: float = -62.0
    duration: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """A rendered scene: waveform float32 `[samples]`, its sample rate in Hz, and the truth about it."""

    name: str
    title: str
    waveform: NDArray[np.float32]
    sample_rate: int
    events: tuple[Event, ...]
    seed: int


@dataclass(frozen=True)
class Stem:
    """One event on its own, float64 `[samples]`, at the place and level that it has in the scene."""

    event: Event
    waveform: Signal


def measure_event(label: str, waveform: Signal) -> Event:
    """Measure time span and band of an event on its own signal.

    Parameters
    ----------
    label
        Class of the event.
    waveform
        The event alone `[samples]`, at its place in time.

    Returns
    -------
    Event
        From the first to the last moment within 40 dB of the loudest (RMS over 5 ms), and from the 1 % to the 99 %
        point of the energy spectrum.
    """
    frame = samples(0.005)
    padded = np.pad(waveform, (0, -len(waveform) % frame))
    level = np.sqrt(np.mean(padded.reshape(-1, frame) ** 2, axis=1))
    if level.max() == 0.0:
        raise SettingsError(f"The event {label!r} is silent.", "Place it inside the scene.")
    loud = np.flatnonzero(level >= level.max() * decibels(ONSET_LEVEL))
    energy = np.cumsum(np.abs(np.fft.rfft(waveform)) ** 2)
    frequencies = np.fft.rfftfreq(len(waveform), 1.0 / SAMPLE_RATE)
    low, high = np.searchsorted(energy, [0.01 * energy[-1], 0.99 * energy[-1]])
    return Event(
        label=label,
        onset=round(float(loud[0] * frame / SAMPLE_RATE), 4),
        offset=round(float(min((loud[-1] + 1) * frame, len(waveform)) / SAMPLE_RATE), 4),
        f_low=round(float(frequencies[low]), 1),
        f_high=round(float(frequencies[high]), 1),
    )


def _loudest(waveform: Signal) -> float:
    """RMS of the loudest 0.4 s."""
    width = min(samples(0.4), len(waveform))
    power = np.cumsum(np.pad(waveform**2, (1, 0)))
    return float(np.sqrt(np.max(power[width:] - power[:-width]) / width))


def render_stems(recipe: Recipe, seed: int | None = None) -> tuple[list[Stem], Signal]:
    """Render a recipe as separate events and the background; their sum is the scene's waveform.

    Raises
    ------
    SettingsError
        If the recipe names an unknown class or place, or puts a sound outside of the scene.
    """
    if recipe.place not in ROOMS:
        raise SettingsError(f"There is no place {recipe.place!r}.", f"Choose one of {', '.join(ROOMS)}.")
    rng = np.random.default_rng([zlib.crc32(recipe.name.encode()), recipe.seed if seed is None else seed])
    n = samples(recipe.duration)
    response = room_response(rng, recipe.place)
    parts: list[tuple[str, Signal]] = []
    for sound in recipe.sounds:
        for onset in sound.onsets:
            if not 0.0 <= onset < recipe.duration:
                raise SettingsError(
                    f"A {sound.label!r} at {onset} s lies outside of the scene.",
                    f"Use onsets from 0 to {recipe.duration} s.",
                )
        durations = [min(sound.duration, recipe.duration - onset) for onset in sound.onsets]
        source = np.zeros(n)
        placed: list[Signal] = []
        for onset, take in zip(sound.onsets, synthesizer(sound.label).render(rng, durations), strict=True):
            stem = np.zeros(n)
            start = samples(onset)
            wet = signal.fftconvolve(take, response)[: n - start]
            stem[start : start + len(wet)] = wet
            placed.append(stem)
            source += stem
        # Levels compare what the ear compares: the loudest moments of two sources, not their peaks.
        gain = decibels(sound.level) / _loudest(source)
        parts += [(sound.label, gain * stem) for stem in placed]
    mixed = np.sum([stem for _, stem in parts], axis=0)
    gain = min(PEAK / np.abs(mixed).max(), LOUDEST / _loudest(mixed))
    surroundings = decibels(recipe.background_level) * background(rng, recipe.place, recipe.duration)
    stems = [Stem(measure_event(label, gain * stem), gain * stem) for label, stem in parts]
    return sorted(stems, key=lambda stem: (stem.event.onset, stem.event.label)), surroundings


def sum_of(stems: Sequence[Stem]) -> Signal:
    """All events together, without the background."""
    return np.sum([stem.waveform for stem in stems], axis=0)


def find_recipe(name_or_recipe: str | AnyRecipe, shipped: Mapping[str, AnyRecipe], kind: str) -> AnyRecipe:
    """Look up a shipped recipe by its name; a recipe is given back as it is.

    Raises
    ------
    SettingsError
        If there is no shipped one of that name.
    """
    if not isinstance(name_or_recipe, str):
        return name_or_recipe
    if name_or_recipe not in shipped:
        raise SettingsError(f"There is no {kind} {name_or_recipe!r}.", f"Choose one of {', '.join(shipped)}.")
    return shipped[name_or_recipe]


def generate_scene(name_or_recipe: str | Recipe, seed: int | None = None) -> Scene:
    """Render a shipped scene by its name, or any recipe.

    Raises
    ------
    SettingsError
        If there is no shipped scene of that name, or the recipe cannot be rendered.
    """
    recipe = find_recipe(name_or_recipe, SCENES, "scene")
    stems, surroundings = render_stems(recipe, seed)
    waveform = sum_of(stems) + surroundings
    return Scene(
        name=recipe.name,
        title=recipe.title,
        waveform=waveform.astype(np.float32),
        sample_rate=SAMPLE_RATE,
        events=tuple(stem.event for stem in stems),
        seed=recipe.seed if seed is None else seed,
    )


def random_recipe(rng: np.random.Generator, label: str, duration: float = 5.0) -> Recipe:
    """Draw a recipe for one class: onsets, place and background as they are usual for it."""
    model = synthesizer(label)
    onsets = tuple(model.onsets(rng, duration))
    return Recipe(
        name=f"random-{label}",
        title=f"A random scene with {label.replace('_', ' ')}",
        sounds=(Sound(label, onsets, duration=duration),),
        place=str(rng.choice(model.places)),
        background_level=float(rng.uniform(-70.0, -52.0)),
        duration=duration,
    )


def random_scene(rng: np.random.Generator, label: str, duration: float = 5.0) -> Scene:
    """Render a random scene of one class: another individual, other onsets, another background each time."""
    recipe = random_recipe(rng, label, duration)
    return generate_scene(recipe, seed=int(rng.integers(2**31)))


def write_scenes(folder: Path) -> None:
    """Write every shipped scene to `folder`: `NAME.flac` (16 bit, mono) and the truth beside it in `NAME.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCENES:
        scene = generate_scene(name)
        soundfile.write(folder / f"{name}.flac", scene.waveform, scene.sample_rate, subtype="PCM_16")
        truth = {
            "name": scene.name,
            "title": scene.title,
            "generator_version": GENERATOR_VERSION,
            "seed": scene.seed,
            "sample_rate": scene.sample_rate,
            "duration": len(scene.waveform) / scene.sample_rate,
            "events": [asdict(event) for event in scene.events],
        }
        write_truth(folder, name, truth)


def write_truth(folder: Path, name: str, truth: dict[str, Any]) -> None:
    """Write what is known about a clip beside it, to ``NAME.json``."""
    (folder / f"{name}.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def _shipped() -> dict[str, Recipe]:
    ticks = tuple(round(0.2 + 0.5 * k, 3) for k in range(10))
    recipes = [
        Recipe(
            "dog_garden",
            "A dog barks four times in a quiet garden",
            (Sound("dog", (0.7, 1.15, 2.9, 3.4)),),
            "garden",
            -58.0,
        ),
        Recipe("rooster_farmyard", "A rooster crows once in a farmyard", (Sound("rooster", (0.9,)),), "yard"),
        Recipe(
            "baby_nursery", "A baby cries three times in a nursery", (Sound("crying_baby", (0.3, 1.75, 3.2)),), "room"
        ),
        Recipe("sneeze_room", "Somebody sneezes in a quiet room", (Sound("sneezing", (1.6,)),), "room"),
        Recipe("clock_hallway", "A clock ticks in a hallway", (Sound("clock_tick", ticks),), "room", -56.0),
        Recipe("rain_steady", "Steady rain", (Sound("rain", (0.0,)),), "open"),
        Recipe("waves_beach", "Two waves break on a beach", (Sound("sea_waves", (0.0, 1.7), 3.3),), "open", -50.0),
        Recipe("fire_camp", "A camp fire crackles", (Sound("crackling_fire", (0.0,)),), "open", -66.0),
        Recipe("helicopter_pass", "A helicopter passes overhead", (Sound("helicopter", (0.0,)),), "open"),
        Recipe("chainsaw_yard", "A chainsaw starts to cut", (Sound("chainsaw", (0.6,), 4.1),), "yard", -56.0, seed=6),
        Recipe(
            "dog_in_rain",
            "A dog barks twice in the rain",
            (Sound("rain", (0.0,), level=0.0), Sound("dog", (1.1, 2.9))),
            "garden",
        ),
        Recipe(
            "dog_and_helicopter",
            "A dog barks at a passing helicopter",
            (Sound("helicopter", (0.0,), level=-3.0), Sound("dog", (1.2, 1.75, 3.4))),
            "open",
        ),
        Recipe(
            "baby_and_clock",
            "A baby cries in a room with a ticking clock",
            (Sound("crying_baby", (0.9, 2.6)), Sound("clock_tick", ticks, level=-8.0)),
            "room",
        ),
        Recipe(
            "rooster_in_rain",
            "A rooster crows in the rain",
            (Sound("rain", (0.0,), level=-4.0), Sound("rooster", (1.2,))),
            "yard",
            seed=7,
        ),
    ]
    return {recipe.name: recipe for recipe in recipes}


SCENES: dict[str, Recipe] = _shipped()
"""The shipped scenes by name."""
