"""The example clips that are shipped, with their small pictures."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.clip import Clip, open_clip

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "clips"


@dataclass(frozen=True)
class ExampleClip:
    """A shipped clip: its id (also in addresses), title and file."""

    id: str
    title: str
    path: Path


@functools.cache
def example_clips() -> dict[str, ExampleClip]:
    """All shipped clips by id."""
    found = {}
    for path in sorted(FOLDER.glob("*.flac")):
        truth = path.with_suffix(".json")
        title = json.loads(truth.read_text(encoding="utf-8")).get("title", path.stem) if truth.is_file() else path.stem
        found[path.stem] = ExampleClip(path.stem, title, path)
    return found


@functools.lru_cache(maxsize=32)
def open_example(example_id: str) -> Clip:
    """A shipped clip, decoded."""
    example = example_clips()[example_id]
    return open_clip(example.path, name=example.title)


@functools.cache
def thumbnail(example_id: str) -> bytes:
    """A small dark spectrogram as PNG, for tiles."""
    from workbench.figures import grey_png, level_range, spectrogram_db

    clip = open_example(example_id)
    image = spectrogram_db(clip.waveform, clip.sample_rate, "mel", min(12000.0, clip.sample_rate / 2))
    bottom, top = level_range(image)
    shade = 28 + 190 * np.clip((image - bottom) / (top - bottom), 0, 1)
    return grey_png(shade[:: 256 // 64, :: max(1, image.shape[1] // 220)].astype(np.uint8))
