"""ESC-10 together with generated sound scenes, in many of which a class is heard only for a part of the clip."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from models.data.esc import read_esc
from models.data.examples import Example, ExampleSet
from models.data.scenes import GENERATOR_VERSION, SYNTHESIZERS, Recipe, Scene, Sound, generate_scene, random_scene
from models.data.scenes.synthesis import synthesizer
from models.errors import DataError

SCENES_FOLD = 0
"""Fold of the generated scenes; those of ESC are 1 to 5."""
_TABLE = "scenes.json"


def partial_recipe(rng: np.random.Generator, label: str, duration: float = 5.0) -> Recipe:
    """Draw a recipe in which one class is heard for a part of the clip only, anywhere in it.

    Sounds that can last (rain, an engine) do for 0.6 to 2 s; of the others come as many as begin within 1.2 s.
    """
    model = synthesizer(label)
    if model.stretch is not None:
        length = float(rng.uniform(0.6, 2.0))
        sound = Sound(label, (float(rng.uniform(0.0, duration - length)),), length)
    else:
        drawn = np.array(model.onsets(rng, duration))
        group = drawn[drawn < drawn[0] + 1.2] - drawn[0]
        sound = Sound(label, tuple((rng.uniform(0.1, duration - 2.0) + group).tolist()), duration)
    return Recipe(
        name=f"partial-{label}",
        title=f"A random scene with {label.replace('_', ' ')} for a part of the time",
        sounds=(sound,),
        place=str(rng.choice(model.places)),
        background_level=float(rng.uniform(-70.0, -52.0)),
        duration=duration,
    )


def numbered_scene(label: str, number: int, seed: int) -> Scene:
    """One of the endlessly many scenes of a class: odd numbers are heard for a part of the clip, even ones as usual."""
    rng = np.random.default_rng([seed, zlib.crc32(label.encode()), number])
    if number % 2 == 0:
        return random_scene(rng, label)
    return generate_scene(partial_recipe(rng, label), seed=int(rng.integers(2**31)))


def render_scenes(folder: Path, labels: Sequence[str], per_class: int, seed: int) -> list[tuple[Path, str]]:
    """Render scenes into a folder, unless they are there already: files and their classes, the same on every machine.

    Raises
    ------
    DataError
        If there is no generator for a class, or the folder cannot be written.
    """
    unknown = [label for label in labels if label not in SYNTHESIZERS]
    if unknown:
        raise DataError(f"There are no generated scenes of {unknown[0]!r}.", "Set data.options.scenes_per_class to 0.")
    wanted = [(f"{label}-{number:04d}", label, number) for label in labels for number in range(per_class)]
    table, truth = folder / _TABLE, {}
    try:
        known = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
        if known.get("generator_version") == GENERATOR_VERSION and known.get("seed") == seed:
            truth = known["events"]
        missing = [row for row in wanted if row[0] not in truth or not (folder / f"{row[0]}.flac").is_file()]
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
            for name, label, number in missing:
                scene = numbered_scene(label, number, seed)
                soundfile.write(folder / f"{name}.flac", scene.waveform, scene.sample_rate, subtype="PCM_16")
                truth[name] = [asdict(event) for event in scene.events]
            # Written last: scenes that are not in the table are rendered again.
            values = {"generator_version": GENERATOR_VERSION, "seed": seed, "events": truth}
            table.write_text(json.dumps(values) + "\n", encoding="utf-8")
    except (OSError, soundfile.LibsndfileError, ValueError, KeyError) as error:
        raise DataError(
            f"The scenes in {folder} cannot be read or written: {error}.", "Choose another data.options.scenes_folder."
        ) from error
    return [(folder / f"{name}.flac", label) for name, label, _ in wanted]


def read_esc_scenes(
    root: Path, *, only_esc10: bool = False, categories: Sequence[str] | None = None, scenes_per_class: int = 24,
    scenes_seed: int = 1, scenes_folder: str = "runs/scenes",
) -> ExampleSet:  # fmt: skip
    """Examples of an ESC folder, and generated scenes of the same classes in fold 0.

    Parameters
    ----------
    scenes_per_class, scenes_seed
        How many, and from which seed; half of them are heard for a part of the clip only.
    scenes_folder
        Where they are rendered to (once).

    Raises
    ------
    DataError
        As `read_esc`, or if the scenes cannot be rendered.
    """
    real = read_esc(root, only_esc10=only_esc10, categories=categories)
    rendered = render_scenes(Path(scenes_folder) / f"seed-{scenes_seed}", real.labels, scenes_per_class, scenes_seed)
    scenes = tuple(Example(path, (label,), SCENES_FOLD) for path, label in rendered)
    return ExampleSet(real.examples + scenes, real.labels, real.missing, dict(real.titles))
