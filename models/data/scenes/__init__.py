"""Sound scenes with known truth, rendered from a seed."""

from models.data.scenes.scene import (
    GENERATOR_VERSION,
    SCENES,
    Event,
    Recipe,
    Scene,
    Sound,
    Stem,
    generate_scene,
    measure_event,
    random_recipe,
    random_scene,
    render_stems,
    write_scenes,
)
from models.data.scenes.synthesis import SYNTHESIZERS

__all__ = [
    "GENERATOR_VERSION",
    "SCENES",
    "SYNTHESIZERS",
    "Event",
    "Recipe",
    "Scene",
    "Sound",
    "Stem",
    "generate_scene",
    "measure_event",
    "random_recipe",
    "random_scene",
    "render_stems",
    "write_scenes",
]
