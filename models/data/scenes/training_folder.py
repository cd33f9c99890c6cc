"""A folder of random audio-video scenes to train on: recordings of ESC and generated sounds, with drawn pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.clip import open_clip
from models.data.esc import read_esc
from models.data.scenes.audio_visual import AudioVisualScene, random_audio_visual_scene
from models.data.scenes.pictures import PORTRAITS, portrait
from models.data.scenes.video_file import write_video
from models.data.scenes.video_scenes import truth_of
from models.errors import DataError, SettingsError

TRAIN_FOLD, TEST_FOLD = 6, 7
"""Folds of generated scenes; recordings keep folds 1 to 5."""

COLUMNS = ("filename", "fold", "category", "origin", "kind")
KINDS = ("alone", "distractor", "mismatch")


@dataclass(frozen=True)
class FolderSettings:
    """What a folder holds.

    Attributes
    ----------
    scenes, test_scenes
        Generated scenes to train on (fold 6) and to test on (fold 7), the classes in turn.
    repeats
        How many different pictures every recording gets.
    alone, mismatched
        Shares of clips in which the sounding thing is alone in the picture, and in which only another class is. In
        all others there is a silent distractor; every fourth of those has a thing that stays still as well.
    seed, frame_rate, height, width
        Of the pictures; sizes in pixels, both even.
    classes
        What is heard in generated scenes; empty: the classes of ESC-10.
    """

    scenes: int = 600
    test_scenes: int = 120
    repeats: int = 1
    alone: float = 0.3
    mismatched: float = 0.0
    seed: int = 0
    frame_rate: float = 20.0
    height: int = 128
    width: int = 172
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.scenes, self.test_scenes, self.repeats) < 0 or self.height % 2 or self.width % 2:
            raise SettingsError("Counts must not be negative, height and width must be even.")
        if min(self.height, self.width) < 32 or self.frame_rate <= 0:
            raise SettingsError("Pictures need at least 32 x 32 pixels and a positive frame rate.")
        for label in self.classes:
            portrait(label)
        if min(self.alone, self.mismatched) < 0 or self.alone + self.mismatched > 1:
            raise SettingsError("The shares of clips must lie between 0 and 1, and so must their sum.")


def render_folder(
    output: Path, esc: Path | None, settings: FolderSettings, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write a data set: mp4 files in `clips/`, `meta.csv` and the truth, a line of JSON a clip, in `scenes.jsonl`.

    Every clip depends on the seed and its own number alone.

    Parameters
    ----------
    output
        New or empty folder.
    esc
        Folder of ESC-10 or ESC-50 (see `read_esc`); None: generated sounds only.
    progress
        Called with the number of clips done, and of all.

    Returns
    -------
    int
        How many clips were written.

    Raises
    ------
    DataError
        If the output folder holds something, or the ESC folder cannot be read.
    """
    if output.exists() and any(output.iterdir()):
        raise DataError(f"The folder {output.name} is not empty.", "Choose a new folder.")
    jobs: list[tuple[str, int, str, Path | None, int]] = []
    if esc is not None:
        for row, example in enumerate(read_esc(esc, categories=list(PORTRAITS)).examples):
            for repeat in range(settings.repeats):
                name = f"esc-{example.path.stem}-{repeat}.mp4"
                jobs.append((name, example.fold or 0, example.labels[0], example.path, row * 1000 + repeat))
    labels = settings.classes or tuple(PORTRAITS)
    for number in range(settings.scenes + settings.test_scenes):
        fold = TRAIN_FOLD if number < settings.scenes else TEST_FOLD
        # Test scenes have numbers of their own: they stay the same when more scenes to train on are wanted.
        count = number if fold == TRAIN_FOLD else number - settings.scenes
        own = count if fold == TRAIN_FOLD else 10_000_000 + count
        jobs.append((f"scene-{fold}-{count:06d}.mp4", fold, labels[count % len(labels)], None, own))
    (output / "clips").mkdir(parents=True, exist_ok=True)
    with (
        (output / "meta.csv").open("w", newline="", encoding="utf-8") as table,
        (output / "scenes.jsonl").open("w", encoding="utf-8") as truths,
    ):
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for done, (name, fold, label, path, number) in enumerate(jobs, start=1):
            scene, kind = _scene(settings, label, path, number)
            write_video(
                output / "clips" / name, scene.frames, scene.frame_rate, scene.waveform, scene.sample_rate, quality=20
            )
            origin = "generated" if path is None else "recording"
            line: dict[str, Any] = {"filename": name, "fold": fold, "category": label, "origin": origin, "kind": kind}
            writer.writerow(line)
            truths.write(json.dumps(line | truth_of(scene)) + "\n")
            if progress is not None:
                progress(done, len(jobs))
    return len(jobs)


def _scene(settings: FolderSettings, label: str, path: Path | None, number: int) -> tuple[AudioVisualScene, str]:
    rng = np.random.default_rng([settings.seed, 0 if path is None else 1, number])
    draw = float(rng.random())
    kind = "alone" if draw < settings.alone else "mismatch" if draw > 1.0 - settings.mismatched else "distractor"
    still = bool(rng.random() < 0.25) and kind == "distractor"
    waveform, sample_rate = None, None
    if path is not None:
        clip = open_clip(path)
        waveform, sample_rate = clip.mono(), clip.sample_rate
    scene = random_audio_visual_scene(
        rng,
        label,
        distractor=kind != "alone",
        waveform=waveform,
        sample_rate=sample_rate,
        visible=kind != "mismatch",
        still=still,
        frame_rate=settings.frame_rate,
        size=(settings.height, settings.width),
    )
    return scene, kind
