"""Data sets: annotation formats read into one common form."""

from collections.abc import Callable

from models.data.audio_visual_scenes import read_audio_visual_scenes
from models.data.audioset_json import read_audioset_json, read_audioset_segments
from models.data.audioset_table import read_audioset_tables
from models.data.av_folders import read_av_folders
from models.data.epic import read_epic_kitchens, read_epic_sounds
from models.data.equiav_json import read_equiav_json
from models.data.esc import read_esc
from models.data.esc_scenes import read_esc_scenes
from models.data.examples import Example, ExampleSet
from models.data.speech_commands import read_speech_commands
from models.data.vggsound import read_vggsound

# Name of a format in recipes and on the command line: its reader.
READERS: dict[str, Callable[..., ExampleSet]] = {
    "audio_visual_scenes": read_audio_visual_scenes,
    "audioset_json": read_audioset_json,
    "audioset_segments": read_audioset_segments,
    "audioset_tables": read_audioset_tables,
    "av_folders": read_av_folders,
    "epic_kitchens": read_epic_kitchens,
    "epic_sounds": read_epic_sounds,
    "equiav_json": read_equiav_json,
    "esc": read_esc,
    "esc_scenes": read_esc_scenes,
    "speech_commands": read_speech_commands,
    "vggsound": read_vggsound,
}

__all__ = ["READERS", "Example", "ExampleSet", "read_esc"]
