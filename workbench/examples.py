"""The example clips that are shipped, with their small pictures."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.clip import Clip, open_clip
from models.errors import MediaError

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "clips"
TILE_HEIGHT = 96  # pixels
TILE_SHAPE = 2.3  # width over height; tiles stretch their picture to about this


@dataclass(frozen=True)
class ExampleClip:
    """A shipped clip: its id (also in addresses), title, file, and whether it has a picture."""

    id: str
    title: str
    path: Path
    is_video: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that are heard in it."""
        return tuple(dict.fromkeys(event["label"] for event in truth_of(self.path).get("events", [])))


@functools.cache
def example_clips() -> dict[str, ExampleClip]:
    """All shipped clips by id: sounds first, then videos."""
    found = {}
    for suffix in (".flac", ".mp4"):
        for path in sorted(FOLDER.glob(f"*{suffix}")):
            found[path.stem] = ExampleClip(
                path.stem, str(truth_of(path).get("title", path.stem)), path, suffix == ".mp4"
            )
    return found


def truth_of(path: Path) -> dict[str, Any]:
    """What is known about a shipped clip; empty if nothing is."""
    truth = path.with_suffix(".json")
    return json.loads(truth.read_text(encoding="utf-8")) if truth.is_file() else {}


@functools.lru_cache(maxsize=32)
def open_example(example_id: str) -> Clip:
    """A shipped clip, decoded."""
    example = example_clips()[example_id]
    return open_clip(example.path, name=example.title)


@functools.cache
def thumbnail(example_id: str) -> bytes:
    """A small picture as PNG, for tiles: of a sound its dark spectrogram, of a video a telling frame."""
    from workbench.figures import grey_png, level_range, spectrogram_db

    if example_clips()[example_id].is_video:
        return _frame(example_id)
    clip = open_example(example_id)
    image = spectrogram_db(clip.waveform, clip.sample_rate, "mel", min(12000.0, clip.sample_rate / 2))
    bottom, top = level_range(image)
    shade = 28 + 190 * np.clip((image - bottom) / (top - bottom), 0, 1)
    return grey_png(shade[:: 256 // 64, :: max(1, image.shape[1] // 220)].astype(np.uint8))


def _frame(example_id: str) -> bytes:
    """A frame in which something moves, cut to the wide shape of a tile around what is in the picture."""
    clip, truth = open_example(example_id), truth_of(example_clips()[example_id].path)
    if clip.video is None:
        raise MediaError("The picture of the example cannot be read.", "Install the program again.")
    together = [entry["seen"] for entry in truth.get("correspondences", [])]
    spans = together or [span for actor in truth.get("actors", []) for span in actor["motion"]]
    start, stop = spans[0] if spans else (0.0, clip.duration)
    pixels = clip.video.frames([start + 0.4 * (stop - start)])[0]
    boxes = np.array([actor["box"] for actor in truth.get("actors", [])] or [(0.0, 0.0, 1.0, 1.0)])
    height, width = pixels.shape[:2]
    top, bottom = height * max(0.0, boxes[:, 1].min() - 0.05), height * min(1.0, boxes[:, 3].max() + 0.03)
    # Not narrower than the frame: what is cut off above and below is backdrop.
    spare = max(0.0, width / TILE_SHAPE - (bottom - top))
    top = float(np.clip(top - 0.5 * spare, 0.0, height - min(height, bottom - top + spare)))
    cut = pixels[round(top) : round(min(height, max(bottom, top + width / TILE_SHAPE)))]
    missing = max(0, round(TILE_SHAPE * len(cut)) - width)
    cut = np.pad(cut, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), mode="edge")
    picture = Image.fromarray(cut).resize((round(TILE_SHAPE * TILE_HEIGHT), TILE_HEIGHT), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
