"""The shipped videos: scenes to be heard and seen, with the truth about what belongs together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.data.scenes.audio_visual import AudioVisualScene, compose
from models.data.scenes.dsp import SAMPLE_RATE
from models.data.scenes.motion import ENVELOPE_RATE, envelope
from models.data.scenes.pictures import Actor
from models.data.scenes.scene import (
    GENERATOR_VERSION,
    Recipe,
    Sound,
    find_recipe,
    render_stems,
    sum_of,
    write_truth,
)
from models.data.scenes.video_file import write_video

SIZE = (360, 480)
FRAME_RATE = 25.0
VIDEO_VERSION = "1"
"""Raised whenever the same recipe and seed give another picture."""


@dataclass(frozen=True)
class Part:
    """One thing in a video: its sound, whether that is heard, and where it is seen.

    Attributes
    ----------
    sound
        What it sounds like; for a silent part, when it moves. No onsets: it stays still.
    x, y, size
        See `Actor`; size 0: it is not in the picture.
    heard
        Whether its sound is in the scene.
    seed, mirrored
        See `Actor`.
    """

    sound: Sound
    x: float = 0.0
    y: float = 0.0
    size: float = 0.0
    heard: bool = True
    seed: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class VideoRecipe:
    """A video to be rendered: its parts, the place in which it is heard (`dsp.ROOMS`) and seen (`backdrops.BACKDROPS`)."""

    name: str
    title: str
    parts: tuple[Part, ...]
    place: str
    backdrop: str
    background_level: float = -62.0
    duration: float = 5.0
    seed: int = 0

    def sound(self, parts: tuple[Part, ...]) -> Recipe:
        """The recipe of the sound of some of its parts."""
        sounds = tuple(part.sound for part in parts)
        return Recipe(self.name, self.title, sounds, self.place, self.background_level, self.duration, self.seed)


def render_video(
    name_or_recipe: str | VideoRecipe, size: tuple[int, int] = SIZE, frame_rate: float = FRAME_RATE
) -> AudioVisualScene:
    """Render a shipped video by its name, or any recipe; `size` is height and width in pixels.

    Raises
    ------
    SettingsError
        If there is no shipped video of that name, or the recipe cannot be rendered.
    """
    recipe = find_recipe(name_or_recipe, VIDEOS, "video")
    heard = tuple(part for part in recipe.parts if part.heard)
    stems, surroundings = render_stems(recipe.sound(heard))
    waveform = (sum_of(stems) + surroundings).astype(np.float32)
    cast, roles = [], []
    for part in recipe.parts:
        if not part.size:
            continue
        label = part.sound.label
        level = np.zeros(round(recipe.duration * ENVELOPE_RATE))
        if part.sound.onsets:
            own = stems if part.heard else render_stems(recipe.sound((part,)))[0]
            level = envelope(sum_of([stem for stem in own if stem.event.label == label]), SAMPLE_RATE)
        cast.append(Actor(label, part.x, part.y, part.size, level, part.seed, part.mirrored))
        roles.append("sounding" if part.heard else "silent" if part.sound.onsets else "still")
    rng = np.random.default_rng([recipe.seed, 5])
    events = [stem.event for stem in stems]
    return compose(waveform, SAMPLE_RATE, events, cast, roles, frame_rate, size, rng, recipe.backdrop, 1.0)


def truth_of(scene: AudioVisualScene) -> dict[str, Any]:
    """The truth about a scene as plain data, with all boxes as shares and in pixels of the picture."""
    height, width = scene.frames.shape[1:3]

    def pixels(entry: dict[str, Any]) -> dict[str, Any]:
        scales = (width, height, width, height)
        box = [round(share * scale, 1) for share, scale in zip(entry["box"], scales, strict=True)]
        return {**entry, "box_pixels": box}

    return {
        "sample_rate": scene.sample_rate,
        "duration": len(scene.waveform) / scene.sample_rate,
        "frame_rate": scene.frame_rate,
        "width": width,
        "height": height,
        "events": [asdict(event) for event in scene.events],
        "actors": [pixels(asdict(actor)) for actor in scene.actors],
        "correspondences": [pixels(asdict(found)) for found in scene.correspondences],
    }


def write_videos(folder: Path) -> None:
    """Write every shipped video to `folder`: `NAME.mp4` (H.264, AAC) and the truth beside it in `NAME.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, recipe in VIDEOS.items():
        scene = render_video(name)
        write_video(
            folder / f"{name}.mp4",
            scene.frames,
            scene.frame_rate,
            scene.waveform,
            scene.sample_rate,
            quality=25,
            preset="slow",
            audio_bit_rate=112_000,
        )
        truth = {
            "name": name,
            "title": recipe.title,
            "generator_version": GENERATOR_VERSION,
            "video_version": VIDEO_VERSION,
            "seed": recipe.seed,
            **truth_of(scene),
        }
        write_truth(folder, name, truth)


def _shipped() -> dict[str, VideoRecipe]:
    ticks = tuple(round(0.2 + 0.5 * k, 3) for k in range(10))
    dog = Sound("dog", (0.7, 1.15, 2.9, 3.4))
    recipes = [
        VideoRecipe(
            "video_dog_and_silent_helicopter",
            "A dog barks; the helicopter over it makes no sound",
            (
                Part(Sound("helicopter", (1.6,), 2.2), 0.84, 0.24, 0.42, heard=False, seed=1),
                Part(dog, 0.5, 0.68, 0.56, seed=3),
            ),
            "garden",
            "meadow",
            seed=1,
        ),
        VideoRecipe(
            "video_one_of_two_dogs",
            "Two dogs, but only one of them barks",
            (
                Part(Sound("dog", (0.35, 1.7, 2.15, 4.2)), 0.43, 0.68, 0.46, heard=False, seed=14),
                Part(Sound("dog", (0.9, 2.7, 3.15, 3.6)), 0.91, 0.68, 0.46, seed=2, mirrored=True),
            ),
            "yard",
            "town",
            seed=2,
        ),
        VideoRecipe(
            "video_clock_and_silent_baby",
            "A clock ticks beside a baby that cries without a sound",
            (
                Part(Sound("clock_tick", ticks), 0.42, 0.47, 0.78, seed=2),
                Part(Sound("crying_baby", (1.2, 3.3)), 0.89, 0.66, 0.52, heard=False, seed=5),
            ),
            "room",
            "room",
            -58.0,
            seed=3,
        ),
        VideoRecipe(
            "video_rooster_and_silent_dog",
            "A rooster crows; the dog barks without a sound",
            (
                Part(Sound("rooster", (1.8,)), 0.9, 0.62, 0.52, seed=4, mirrored=True),
                Part(Sound("dog", (0.4, 0.9, 4.2)), 0.41, 0.67, 0.45, heard=False, seed=8),
            ),
            "yard",
            "meadow",
            seed=4,
        ),
        VideoRecipe(
            "video_fire_and_silent_chainsaw",
            "A camp fire crackles; the chainsaw beside it runs without a sound",
            (
                Part(Sound("chainsaw", (2.2,), 2.0), 0.91, 0.66, 0.46, heard=False, seed=2),
                Part(Sound("crackling_fire", (0.0,)), 0.43, 0.66, 0.48, seed=1),
            ),
            "open",
            "night",
            -66.0,
            seed=5,
        ),
        VideoRecipe(
            "video_rain_and_silent_sneeze",
            "A shower of rain; somebody sneezes without a sound",
            (
                Part(Sound("rain", (1.0,), 2.4), 0.46, 0.46, 0.82, seed=2),
                Part(Sound("sneezing", (3.7,)), 0.93, 0.74, 0.48, heard=False, seed=6, mirrored=True),
            ),
            "open",
            "town",
            seed=6,
        ),
        VideoRecipe(
            "video_baby_and_dog",
            "A dog barks, then a baby cries: both are heard and seen",
            (
                Part(Sound("dog", (0.3, 0.75)), 0.4, 0.66, 0.54, seed=14),
                Part(Sound("crying_baby", (1.5, 3.2)), 0.9, 0.68, 0.52, seed=3),
            ),
            "room",
            "room",
            seed=7,
        ),
        VideoRecipe(
            "video_rooster",
            "A rooster crows on a meadow",
            (Part(Sound("rooster", (1.4,)), 0.66, 0.55, 0.78, seed=7),),
            "yard",
            "meadow",
            seed=8,
        ),
        VideoRecipe(
            "video_sneeze",
            "Somebody sneezes into a handkerchief",
            (Part(Sound("sneezing", (1.6,)), 0.68, 0.62, 0.84, seed=4),),
            "room",
            "room",
            seed=9,
        ),
        VideoRecipe(
            "video_helicopter",
            "A helicopter passes over a town",
            (Part(Sound("helicopter", (0.8,), 3.4), 0.67, 0.4, 0.8, seed=3),),
            "open",
            "town",
            seed=10,
        ),
        VideoRecipe(
            "video_waves",
            "Waves rock a small boat",
            (Part(Sound("sea_waves", (0.2, 2.4), 2.2), 0.67, 0.56, 0.84, seed=9),),
            "open",
            "beach",
            -50.0,
            seed=11,
        ),
        VideoRecipe(
            "video_dog_heard_rooster_seen",
            "A dog is heard, but a rooster is seen",
            (
                Part(Sound("dog", (0.6, 1.0, 3.6, 4.1))),
                Part(Sound("rooster", (1.6,)), 0.67, 0.55, 0.74, heard=False, seed=10),
            ),
            "garden",
            "meadow",
            seed=12,
        ),
        VideoRecipe(
            "video_bell_and_dog",
            "A bell rings and a dog barks at it: both are heard and seen",
            (
                Part(Sound("bell", (0.5, 1.55), level=-3.0), 0.42, 0.68, 0.6, seed=3),
                Part(Sound("dog", (2.3, 2.75, 3.7, 4.1)), 0.96, 0.69, 0.46, seed=2, mirrored=True),
            ),
            "garden",
            "meadow",
            seed=13,
        ),
        VideoRecipe(
            "video_bell_and_drum",
            "A bell rings, then somebody drums: both are heard and seen",
            (
                Part(Sound("bell", (0.4, 1.45)), 0.4, 0.66, 0.6, seed=2),
                Part(Sound("drum", (2.5, 2.86, 3.22, 3.4, 3.58, 4.3)), 0.95, 0.68, 0.48, seed=3),
            ),
            "yard",
            "town",
            seed=14,
        ),
        VideoRecipe(
            "video_drum_and_silent_bell",
            "Somebody drums; the bell beside it swings without a sound",
            (
                Part(Sound("bell", (2.3, 3.35)), 0.94, 0.64, 0.56, heard=False, seed=5),
                Part(Sound("drum", (0.5, 0.88, 1.26, 1.45, 1.64, 3.54, 3.92, 4.11, 4.3)), 0.4, 0.66, 0.52, seed=4),
            ),
            "room",
            "room",
            seed=15,
        ),
    ]
    return {recipe.name: recipe for recipe in recipes}


VIDEOS: dict[str, VideoRecipe] = _shipped()
"""The shipped videos by name."""
