"""The example clips that are shipped."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from workbench.examples import FOLDER, TILE_HEIGHT, TILE_SHAPE, example_clips, open_example, thumbnail

SOUNDS = sorted(path.stem for path in FOLDER.glob("*.flac"))
VIDEOS = sorted(path.stem for path in FOLDER.glob("*.mp4"))
IDS = SOUNDS + VIDEOS


def test_every_shipped_clip_is_an_example() -> None:
    assert list(example_clips()) == IDS and len(SOUNDS) >= 5 and len(VIDEOS) >= 8
    for name, example in example_clips().items():
        assert example.id == name and example.path == FOLDER / f"{name}{'.mp4' if name in VIDEOS else '.flac'}"
        assert example.is_video == (name in VIDEOS)
        assert name.replace("_", "").isalnum() and name.isascii()  # ids stand in addresses
    titles = [example.title for example in example_clips().values()]
    assert len(set(titles)) == len(titles) and all(title.strip() for title in titles)


@pytest.mark.parametrize("name", IDS)
def test_titles_are_those_of_the_annotations(name: str) -> None:
    truth = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert example_clips()[name].title == truth["title"]


def test_an_example_is_opened_as_it_is_on_disk() -> None:
    clip = open_example(IDS[0])
    samples, rate = soundfile.read(FOLDER / f"{IDS[0]}.flac", dtype="float32", always_2d=True)
    assert clip.sample_rate == rate and clip.name == example_clips()[IDS[0]].title
    np.testing.assert_array_equal(clip.waveform, samples.T)
    assert open_example(IDS[0]) is clip  # decoded once
    with pytest.raises(KeyError):
        open_example("nonsense")


def test_a_thumbnail_is_a_small_picture_of_the_sound() -> None:
    contrast = {}
    for name in ("dog_garden", "rain_steady"):
        data = thumbnail(name)
        picture = np.asarray(Image.open(io.BytesIO(data)))
        assert picture.ndim == 2 and picture.shape[0] == 64 and 110 <= picture.shape[1] <= 440 and len(data) < 40_000
        assert picture.min() >= 28 and picture.max() <= 218 and picture.std() > 10
        contrast[name] = picture.mean(axis=0).std()
    # Barks are short: the columns of their picture differ more than those of steady rain.
    assert contrast["dog_garden"] > 2 * contrast["rain_steady"]


def test_an_example_with_a_picture_is_opened_with_it() -> None:
    clip = open_example(VIDEOS[0])
    assert clip.video is not None and clip.name == example_clips()[VIDEOS[0]].title
    assert clip.duration == pytest.approx(5.0, abs=0.05) and open_example(SOUNDS[0]).video is None


def test_the_thumbnail_of_a_video_is_a_frame_in_colour() -> None:
    pictures = []
    for name in ("video_rooster", "video_clock_and_silent_baby", "video_waves"):
        data = thumbnail(name)
        picture = np.asarray(Image.open(io.BytesIO(data)))
        assert picture.shape == (TILE_HEIGHT, round(TILE_SHAPE * TILE_HEIGHT), 3) and len(data) < 40_000
        assert picture.std() > 10 and np.ptp(picture.astype(int), axis=2).max() > 60
        pictures.append(picture.tobytes())
    assert len(set(pictures)) == 3
