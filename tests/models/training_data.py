"""Tiny data sets for tests of training: sounds in the ESC layout, an annotated long recording, videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.models.media_files import with_pyav

RATE = 16000


def tone(index: int, seconds: float = 1.0, sample_rate: int = RATE) -> np.ndarray:
    """One of two tones with a little noise."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(index).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * (400 if index % 2 else 1700) * t) * (t > 0.2) + 0.02 * noise).astype(np.float32)


def write_sounds(folder: Path, folds: tuple[int, ...] = (6, 2)) -> Path:
    """As many clips of a second in fold 1, 2, ... as `folds` says, of the classes high and low in turn."""
    (folder / "audio").mkdir(parents=True)
    rows, index = ["filename,fold,category"], 0
    for fold, count in enumerate(folds, start=1):
        for _ in range(count):
            soundfile.write(folder / "audio" / f"{index}.wav", tone(index), RATE)
            rows.append(f"{index}.wav,{fold},{'low' if index % 2 else 'high'}")
            index += 1
    (folder / "meta.csv").write_text("\n".join(rows))
    return folder


def write_kitchen(folder: Path) -> Path:
    """Six actions in a recording of six seconds, as EPIC-KITCHENS annotates them; one is shorter than a crop."""
    (folder / "audio").mkdir(parents=True)
    recording = np.concatenate([tone(index, 1.0, 24000) for index in range(6)])
    soundfile.write(folder / "audio" / "P01_01.wav", recording, 24000)
    rows = ["narration_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class"]
    for index in range(6):
        stop = f"00:00:{index:02d}.{'10' if index == 2 else '90'}"
        rows.append(f"P01_01_{index},P01_01,00:00:{index:02d}.00,{stop},{index % 2},{index % 3}")
    (folder / "EPIC_100_train.csv").write_text("\n".join(rows))
    return folder


def write_videos(folder: Path, seconds: float = 1.0) -> Path:
    """A folder a class with four videos each; also in the ESC layout (``meta.csv``)."""
    (folder / "audio").mkdir(parents=True)
    rows, rng = ["filename,fold,category"], np.random.default_rng(0)
    for index in range(8):
        name = "low" if index % 2 else "high"
        pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(round(20 * seconds))]
        media = with_pyav(
            "mp4", "aac", tone(index, seconds)[None], RATE, pictures=pictures, frame_rate=20
        )  # fmt: skip
        (folder / "classes" / name).mkdir(parents=True, exist_ok=True)
        for path in (folder / "classes" / name / f"{index}.mp4", folder / "audio" / f"{index}.mp4"):
            path.write_bytes(media)
        rows.append(f"{index}.mp4,{1 if index < 6 else 2},{name}")
    (folder / "meta.csv").write_text("\n".join(rows))
    return folder
