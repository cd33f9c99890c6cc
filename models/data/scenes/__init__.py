"""Sound scenes with known truth, rendered from a seed, and scenes that are seen as well."""

from models.data.scenes.audio_visual import (
    AudioVisualScene,
    Correspondence,
    VisibleActor,
    random_audio_visual_scene,
)
from models.data.scenes.pictures import FURTHER_PORTRAITS, PORTRAITS, Actor, render_pictures
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
from models.data.scenes.synthesis import FURTHER_SYNTHESIZERS, SYNTHESIZERS
from models.data.scenes.video_scenes import VIDEOS, VideoRecipe, render_video, write_videos

__all__ = [
    "FURTHER_PORTRAITS",
    "FURTHER_SYNTHESIZERS",
    "GENERATOR_VERSION",
    "PORTRAITS",
    "SCENES",
    "SYNTHESIZERS",
    "VIDEOS",
    "Actor",
    "AudioVisualScene",
    "Correspondence",
    "Event",
    "Recipe",
    "Scene",
    "Sound",
    "Stem",
    "VideoRecipe",
    "VisibleActor",
    "generate_scene",
    "measure_event",
    "random_audio_visual_scene",
    "random_recipe",
    "random_scene",
    "render_pictures",
    "render_stems",
    "render_video",
    "write_scenes",
    "write_videos",
]
