"""Scenes that are heard and seen: what moves, moves with its sound; what is silent, does not; the truth says which."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from models.clip import Clip, open_clip
from models.data.scenes import (
    FURTHER_PORTRAITS,
    PORTRAITS,
    SYNTHESIZERS,
    VIDEOS,
    Actor,
    AudioVisualScene,
    VideoRecipe,
    random_audio_visual_scene,
    render_pictures,
    render_video,
)
from models.data.scenes.audio_visual import SAFE_WIDTH, measure_events
from models.data.scenes.backdrops import BACKDROPS
from models.data.scenes.motion import ENVELOPE_RATE, envelope, spans
from models.data.scenes.video_file import write_video
from models.data.scenes.video_scenes import Part, truth_of
from models.errors import SettingsError

CLIPS = Path(__file__).parents[2] / "assets" / "clips"
RATE = 20.0
ALL = PORTRAITS | FURTHER_PORTRAITS


def movement(frames: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """How much a part of the picture changes from frame to frame, `[n - 1]`; `box` is given in shares."""
    height, width = frames.shape[1:3]
    left, top, right, bottom = box
    part = frames[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    return np.abs(np.diff(part.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))


def loudness(scene_level: np.ndarray, n: int, frame_rate: float) -> np.ndarray:
    """Highest level around every change of frames, `[n - 1]`."""
    edges = [
        (round((k - 0.5) / frame_rate * ENVELOPE_RATE), round((k + 1.5) / frame_rate * ENVELOPE_RATE))
        for k in range(n - 1)
    ]
    return np.array([scene_level[max(0, a) : max(1, b)].max(initial=0.0) for a, b in edges])


def bursts(label: str) -> np.ndarray:
    """An envelope with two sounds that are usual for a class."""
    level = np.zeros(4 * ENVELOPE_RATE)
    for start, length in ((60, 90), (260, 80)) if SYNTHESIZERS[label].stretch else ((60, 25), (110, 25), (260, 25)):
        level[start : start + length] = np.clip(np.hanning(length) * 2.0, 0, 1)
    return level


@functools.cache
def shipped(name: str) -> Clip:
    return open_clip(CLIPS / f"{name}.mp4")


@pytest.mark.parametrize("label", PORTRAITS)
def test_an_actor_moves_with_its_envelope_and_in_its_box_only(label: str) -> None:
    level = bursts(label)
    silent = np.roll(level, 100) * (level == 0)
    cast = [Actor(label, 0.5, 0.5, 0.46, level, seed=3), Actor(label, 1.05, 0.5, 0.46, silent, seed=4, mirrored=True)]
    frames = render_pictures(cast, 4.0, RATE, (96, 150), np.random.default_rng(1))
    assert frames.shape == (80, 96, 150, 3) and frames.dtype == np.uint8
    shares = [tuple(np.array(actor.box(96, 150)) / (150, 96, 150, 96)) for actor in cast]
    own, other = (movement(frames, box) for box in shares)
    wanted = loudness(level, 80, RATE)
    assert np.corrcoef(own, wanted)[0, 1] > 0.5
    assert np.corrcoef(other, wanted)[0, 1] < 0.1
    assert np.corrcoef(other, loudness(silent, 80, RATE))[0, 1] > 0.5
    # Nothing moves before the first sound, and nothing ever moves outside of the boxes.
    assert own[:10].max() == 0.0 and own.max() > 0.5
    outside = frames.astype(np.int16) - frames[0]
    for actor in cast:
        left, top, right, bottom = actor.box(96, 150)
        outside[:, int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 0
    assert not outside.any()


@pytest.mark.parametrize("label", ALL)
def test_individuals_differ_and_can_be_told_from_the_backdrop(label: str) -> None:
    def picture(seed: int, there: bool = True) -> np.ndarray:
        cast = [Actor(label, 0.5, 0.5, 0.8, np.zeros(10), seed=seed)] if there else []
        return render_pictures(cast, 0.05, RATE, (64, 64), backdrop="paper", light=1.0)[0].astype(int)

    empty = picture(0, there=False)
    assert np.mean(np.abs(picture(1) - empty).max(axis=2) > 25) > 0.1
    assert len({picture(seed).tobytes() for seed in range(5)}) == 5


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_every_backdrop_is_drawn_and_varies(backdrop: str) -> None:
    pictures = [render_pictures([], 0.05, RATE, (48, 64), np.random.default_rng(seed), backdrop)[0] for seed in (0, 1)]
    assert pictures[0].std() > 3 and not np.array_equal(*pictures)


@pytest.mark.parametrize("label", ALL)
def test_random_scenes_tell_what_belongs_together(label: str) -> None:
    def scene() -> AudioVisualScene:
        return random_audio_visual_scene(np.random.default_rng(5), label, duration=3.0, size=(64, 86))

    first, again = scene(), scene()
    assert first.frames.tobytes() == again.frames.tobytes() and first.waveform.tobytes() == again.waveform.tobytes()
    assert (first.events, first.actors, first.correspondences) == (again.events, again.actors, again.correspondences)
    assert first.labels == (label,) and len(first.frames) == 60
    assert sorted(actor.role for actor in first.actors) == ["silent", "sounding"]
    assert [found.event for found in first.correspondences] == list(range(len(first.events)))
    for found in first.correspondences:
        event, actor = first.events[found.event], first.actors[found.actor]
        assert (actor.label, actor.role, found.label) == (label, "sounding", label)
        assert found.heard == (event.onset, event.offset)
        assert (
            abs(found.seen[0] + ALL[label].lead - event.onset) < 0.2
            and found.seen[0] < found.seen[1] <= event.offset + 0.31
        )
    for actor in first.actors:
        left, top, right, bottom = actor.box
        assert 0.5 - 0.51 * SAFE_WIDTH * 64 / 86 <= left < right <= 0.5 + 0.51 * SAFE_WIDTH * 64 / 86
        assert 0.0 <= top < bottom <= 1.0
        # It moves in the times that the truth says, and stands still in others.
        moving = movement(first.frames, actor.box)
        said = np.zeros(60, dtype=bool)
        for start, stop in actor.motion:
            said[max(0, int(start * RATE) - 1) : int(stop * RATE) + 4] = True
        assert moving[said[:-1]].max() > 0.2
        assert not moving[~said[:-1]].size or moving[~said[:-1]].max() < 0.5 * moving.max()
    sounding, silent = (
        {round(t * 50) for start, stop in actor.motion for t in np.arange(start, stop, 0.02)}
        for actor in sorted(first.actors, key=lambda actor: actor.role, reverse=True)
    )
    assert silent and sounding - silent, "something is heard while the silent actor stands still"


def test_cast_of_a_scene_is_as_asked_for() -> None:
    def cast(**options: object) -> tuple[list[tuple[str, str]], int]:
        scene = random_audio_visual_scene(np.random.default_rng(2), "dog", 2.0, size=(48, 64), **options)  # type: ignore[arg-type]
        return sorted((actor.role, actor.label) for actor in scene.actors), len(scene.correspondences)

    assert cast(distractor=False)[0] == [("sounding", "dog")]
    assert cast(distractor="dog")[0] == [("silent", "dog"), ("sounding", "dog")]
    roles, together = cast(distractor="rain", still="clock_tick")
    assert roles == [("silent", "rain"), ("sounding", "dog"), ("still", "clock_tick")] and together > 0
    assert cast(distractor="rooster", visible=False) == ([("silent", "rooster")], 0)
    assert cast(distractor=False, visible=False) == ([], 0)


def test_a_recording_drives_the_picture() -> None:
    rate, rng = 16_000, np.random.default_rng(0)
    t = np.arange(3 * rate) / rate
    sound = 0.003 * rng.standard_normal(len(t))
    for start, stop in ((0.5, 0.8), (1.9, 2.3)):
        sound += np.where((t >= start) & (t < stop), np.sin(2 * np.pi * 900 * t), 0.0)
    scene = random_audio_visual_scene(rng, "dog", waveform=sound, sample_rate=rate, distractor=False, size=(64, 64))
    assert scene.sample_rate == rate and len(scene.frames) == 60
    np.testing.assert_array_equal(scene.waveform, sound.astype(np.float32))
    assert [found.heard[0] for found in scene.correspondences] == pytest.approx([0.5, 1.9], abs=0.03)
    assert [found.heard[1] for found in scene.correspondences] == pytest.approx([0.8, 2.3], abs=0.03)
    assert all(event.f_low == pytest.approx(900, abs=30) for event in scene.events)
    moving = movement(scene.frames, scene.actors[0].box)
    assert np.corrcoef(moving, loudness(envelope(sound, rate), 60, RATE))[0, 1] > 0.6


def test_envelope_keeps_steady_sounds_and_takes_noise_off() -> None:
    rng = np.random.default_rng(0)
    steady = envelope(rng.standard_normal(32_000), 16_000)
    assert len(steady) == 200 and np.median(steady) > 0.8
    gated = rng.standard_normal(32_000) * np.repeat([0.05, 1.0, 0.05, 0.05], 8000)
    ((start, stop),) = spans(envelope(gated, 16_000), threshold=0.15)
    assert (start, stop) == pytest.approx((0.5, 1.0), abs=0.03)
    assert not envelope(np.zeros(16_000), 16_000).any()
    assert measure_events("dog", np.zeros(16_000), 16_000) == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: random_audio_visual_scene(rng, "unicorn"),
        lambda rng: random_audio_visual_scene(rng, "dog", distractor="unicorn"),
        lambda rng: random_audio_visual_scene(rng, "dog", waveform=np.ones(16_000)),
        lambda rng: render_pictures([], 1.0, backdrop="moon"),
        lambda rng: render_pictures([], 0.0),
        lambda rng: render_video("no such video"),
        lambda rng: write_video(Path("odd.mp4"), np.zeros((1, 33, 32, 3), np.uint8), 20, np.zeros(100), 16_000),
    ],
)
def test_impossible_wishes_are_refused(make: object) -> None:
    with pytest.raises(SettingsError):
        make(np.random.default_rng(0))  # type: ignore[operator]


def test_there_are_enough_shipped_videos() -> None:
    assert len(VIDEOS) >= 8 and {path.stem for path in CLIPS.glob("*.mp4")} == set(VIDEOS)
    roles = [sorted(actor["role"] for actor in truth(name)["actors"]) for name in VIDEOS]
    assert roles.count(["silent", "sounding"]) >= 4
    seen = {actor["label"] for name in VIDEOS for actor in truth(name)["actors"]}
    assert seen == set(ALL)
    assert sum(path.stat().st_size for path in CLIPS.glob("*.mp4")) < len(VIDEOS) * 200_000


def truth(name: str) -> dict:
    return json.loads((CLIPS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", VIDEOS)
def test_shipped_videos_are_what_their_truth_says(name: str) -> None:
    said, clip = truth(name), shipped(name)
    assert (CLIPS / f"{name}.mp4").stat().st_size <= 250_000
    assert clip.video is not None and (clip.video.width, clip.video.height) == (said["width"], said["height"])
    assert clip.video.frame_rate == pytest.approx(said["frame_rate"])
    assert said["title"] == VIDEOS[name].title and clip.sample_rate == said["sample_rate"]
    # Sound: louder within the events than outside.
    power = clip.mono().astype(float) ** 2
    inside = np.zeros(len(power), dtype=bool)
    for event in said["events"]:
        inside[round(event["onset"] * clip.sample_rate) : round(event["offset"] * clip.sample_rate)] = True
    inside[5 * clip.sample_rate :] = True  # the encoder's padding
    if not inside.all():
        assert power[inside].mean() > 50 * power[~inside].mean()
    # Picture: every actor moves in its box within its spans, and hardly outside of them.
    frames = clip.video.frames(list(np.arange(0.0, 5.0, 0.05) + 0.001), (180, 240))
    for actor in said["actors"]:
        pixels = np.array(actor["box_pixels"]) / ((said["width"], said["height"]) * 2)
        assert pixels.tolist() == pytest.approx(actor["box"], abs=1e-3)
        moving, spoken = movement(frames, tuple(actor["box"])), np.zeros(100, dtype=bool)
        for start, stop in actor["motion"]:
            spoken[max(0, int(start / 0.05) - 1) : int(stop / 0.05) + 4] = True
        assert moving[spoken[:-1]].mean() > 0.15
        rest = moving[~spoken[:-1]]
        assert not rest.size or rest.mean() < 0.3 * moving[spoken[:-1]].mean()
    labels = {event["label"] for event in said["events"]}
    assert {found["label"] for found in said["correspondences"]} == (
        labels & {actor["label"] for actor in said["actors"] if actor["role"] == "sounding"}
    )


@pytest.mark.parametrize("name", VIDEOS)
def test_shipped_videos_are_what_the_generator_makes(name: str) -> None:
    scene = render_video(name, size=(90, 120), frame_rate=5.0)
    made, said = truth_of(scene), truth(name)
    for kind in ("events", "actors", "correspondences"):
        assert len(made[kind]) == len(said[kind])
        for entry, stored in zip(json.loads(json.dumps(made[kind])), said[kind], strict=True):
            for key in entry.keys() - {"box_pixels"}:
                if isinstance(entry[key], str):
                    assert entry[key] == stored[key]
                else:
                    for a, b in zip(np.ravel(entry[key]), np.ravel(stored[key]), strict=True):
                        assert a == pytest.approx(b, rel=1e-3, abs=2.1e-2)
    clip = shipped(name)
    decoded = clip.mono()[: len(scene.waveform)]
    assert np.corrcoef(decoded, scene.waveform)[0, 1] > 0.8
    assert clip.video is not None
    seen = clip.video.frames([k / 5 + 0.001 for k in range(25)], (90, 120))
    assert np.abs(seen.astype(int) - scene.frames).mean() < 9


def test_a_video_recipe_of_ones_own() -> None:
    from models.data.scenes import Sound

    recipe = VideoRecipe(
        "own", "Own", (Part(Sound("dog", (0.5,)), 0.4, 0.5, 0.5), Part(Sound("rooster", ()), 0.9, 0.5, 0.5, heard=False)),
        "room", "paper", duration=2.0,
    )  # fmt: skip
    scene = render_video(recipe, size=(48, 64), frame_rate=10.0)
    assert [asdict(actor)["role"] for actor in scene.actors] == ["sounding", "still"]
    assert len(scene.frames) == 20 and len(scene.correspondences) == 1
