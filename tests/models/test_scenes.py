"""Sound scenes: the same from the same seed, the truth where the sound is, and the shipped files as generated."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data.scenes import (
    GENERATOR_VERSION,
    SCENES,
    SYNTHESIZERS,
    Event,
    Recipe,
    Scene,
    Sound,
    Stem,
    generate_scene,
    measure_event,
    random_scene,
    render_stems,
    video_scenes,
    write_scenes,
)
from models.data.scenes.__main__ import main
from models.data.scenes.dsp import ROOMS, SAMPLE_RATE
from models.errors import SettingsError

CLIPS = Path(__file__).parents[2] / "assets" / "clips"
SIZE_LIMIT = 6_000_000


@functools.cache
def shipped(name: str) -> Scene:
    """Render each shipped scene once for all tests that only look at it."""
    return generate_scene(name)


@functools.cache
def stems_of(name: str) -> list[Stem]:
    """Render each scene's separate events once."""
    return render_stems(SCENES[name])[0]


def energy_inside(waveform: np.ndarray, event: Event) -> float:
    """Share of a signal's energy inside of an event's box."""
    start, stop = round(event.onset * SAMPLE_RATE), round(event.offset * SAMPLE_RATE)
    spectrum = np.abs(np.fft.rfft(waveform[start:stop])) ** 2
    f = np.fft.rfftfreq(stop - start, 1.0 / SAMPLE_RATE)
    in_band = spectrum[(f >= event.f_low) & (f <= event.f_high)].sum() / spectrum.sum()
    in_time = np.sum(waveform[start:stop] ** 2) / np.sum(waveform**2)
    return float(in_band * in_time)


@pytest.mark.parametrize("name", SCENES)
def test_same_seed_gives_identical_bytes_and_another_seed_does_not(name: str) -> None:
    scene = generate_scene(name)
    again = generate_scene(name)
    assert scene.waveform.tobytes() == again.waveform.tobytes()
    assert scene.events == again.events
    assert generate_scene(name, seed=1).waveform.tobytes() != scene.waveform.tobytes()


@pytest.mark.parametrize("name", SCENES)
def test_scene_is_finite_level_and_unclipped(name: str) -> None:
    scene = shipped(name)
    assert scene.waveform.dtype == np.float32 and scene.waveform.shape == (5 * SAMPLE_RATE,)
    peak = np.abs(scene.waveform).max()
    assert np.isfinite(peak) and 10 ** (-6.5 / 20) < peak < 10 ** (-2.5 / 20)
    assert abs(scene.waveform.mean()) < 1e-3


@pytest.mark.parametrize("name", SCENES)
def test_truth_boxes_hold_their_events(name: str) -> None:
    stems = stems_of(name)
    assert [stem.event for stem in stems] == list(shipped(name).events)
    for stem in stems:
        event = stem.event
        assert 0.0 <= event.onset < event.offset <= 5.0
        assert 0.0 < event.f_low < event.f_high <= SAMPLE_RATE / 2
        assert energy_inside(stem.waveform, event) >= 0.95


@pytest.mark.parametrize("name", SCENES)
def test_truth_boxes_are_tight(name: str) -> None:
    # Nothing that matters lies outside, and each border cuts off something when it is moved inwards.
    stems = stems_of(name)
    for stem in stems:
        start, stop = round(stem.event.onset * SAMPLE_RATE), round(stem.event.offset * SAMPLE_RATE)
        frame = SAMPLE_RATE // 200
        loudest = max(
            np.mean(part**2)
            for part in np.split(stem.waveform[: len(stem.waveform) // frame * frame], len(stem.waveform) // frame)
        )
        for edge in (stem.waveform[start : start + frame], stem.waveform[stop - frame : stop]):
            assert np.mean(edge**2) >= 0.99e-4 * loudest
        f = np.fft.rfftfreq(len(stem.waveform), 1.0 / SAMPLE_RATE)
        spectrum = np.abs(np.fft.rfft(stem.waveform)) ** 2
        middle = (f >= stem.event.f_low * 1.1) & (f <= stem.event.f_high / 1.1)
        assert spectrum[middle].sum() < 0.9795 * spectrum.sum()


def test_stems_and_background_add_up_to_the_scene() -> None:
    stems, surroundings = render_stems(SCENES["dog_in_rain"])
    total = np.sum([stem.waveform for stem in stems], axis=0) + surroundings
    np.testing.assert_allclose(generate_scene("dog_in_rain").waveform, total, atol=1e-7)


def test_measured_box_of_a_known_burst() -> None:
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    burst = np.where((t >= 0.5) & (t < 1.0), np.sin(2 * np.pi * 1000 * t) + np.sin(2 * np.pi * 3000 * t), 0.0)
    event = measure_event("tone", burst)
    assert event.label == "tone"
    assert event.onset == pytest.approx(0.5, abs=0.005) and event.offset == pytest.approx(1.0, abs=0.005)
    assert event.f_low == pytest.approx(1000, abs=30) and event.f_high == pytest.approx(3000, abs=30)


def test_short_events_leave_silence_around_them() -> None:
    for name in ("dog_garden", "rooster_farmyard", "baby_nursery", "sneeze_room", "clock_hallway"):
        scene = shipped(name)
        covered = np.zeros(5000, dtype=bool)
        for event in scene.events:
            covered[round(event.onset * 1000) : round(event.offset * 1000)] = True
        assert covered.mean() < 0.8
        power = np.mean(scene.waveform.reshape(5000, -1) ** 2, axis=1)
        assert power[covered].mean() > 100 * power[~covered].mean()


def test_at_least_two_scenes_have_overlapping_events_of_different_classes() -> None:
    overlapping = []
    for name in SCENES:
        events = shipped(name).events
        if any(
            a.label != b.label and min(a.offset, b.offset) - max(a.onset, b.onset) > 0.1 for a in events for b in events
        ):
            overlapping.append(name)
    assert len(overlapping) >= 2
    assert overlapping == [name for name, recipe in SCENES.items() if len(recipe.sounds) > 1]


@pytest.mark.parametrize("label", SYNTHESIZERS)
def test_random_scenes_differ_and_come_with_truth(label: str) -> None:
    rng = np.random.default_rng(7)
    first, second = random_scene(rng, label), random_scene(rng, label)
    assert {event.label for event in first.events} == {label} == {event.label for event in second.events}
    assert first.waveform.tobytes() != second.waveform.tobytes()
    assert np.abs(first.waveform).max() < 1.0
    again = random_scene(np.random.default_rng(7), label)
    assert again.waveform.tobytes() == first.waveform.tobytes()


@pytest.mark.parametrize("place", ROOMS)
def test_every_place_renders(place: str) -> None:
    scene = generate_scene(Recipe("try", "A bark", (Sound("dog", (0.5,)),), place, duration=2.0))
    assert len(scene.waveform) == 2 * SAMPLE_RATE and len(scene.events) == 1


@pytest.mark.parametrize(
    "recipe",
    [
        "no such scene",
        Recipe("try", "Unknown class", (Sound("unicorn", (0.5,)),), "room"),
        Recipe("try", "Unknown place", (Sound("dog", (0.5,)),), "moon"),
        Recipe("try", "Too late", (Sound("dog", (7.0,)),), "room"),
    ],
)
def test_impossible_recipes_are_refused(recipe: str | Recipe) -> None:
    with pytest.raises(SettingsError) as error:
        generate_scene(recipe)
    assert error.value.advice


def test_all_classes_are_shipped() -> None:
    assert len(SCENES) >= 12
    assert {sound.label for recipe in SCENES.values() for sound in recipe.sounds} == set(SYNTHESIZERS)


@pytest.mark.parametrize("name", SCENES)
def test_shipped_files_are_what_the_generator_makes(name: str) -> None:
    scene = shipped(name)
    decoded, sample_rate = soundfile.read(CLIPS / f"{name}.flac", dtype="int16")
    assert sample_rate == scene.sample_rate and decoded.shape == scene.waveform.shape
    made = np.round(scene.waveform.astype(np.float64) * 32768.0)
    assert np.max(np.abs(decoded - made)) <= 1
    truth = json.loads((CLIPS / f"{name}.json").read_text(encoding="utf-8"))
    assert truth["title"] == scene.title and truth["generator_version"] == GENERATOR_VERSION
    assert (truth["name"], truth["seed"], truth["sample_rate"]) == (name, scene.seed, scene.sample_rate)
    assert len(truth["events"]) == len(scene.events)
    for stored, event in zip(truth["events"], scene.events, strict=True):
        assert stored.pop("label") == event.label
        for key, value in stored.items():
            # Rounding may differ in the last digit between platforms.
            assert value == pytest.approx(asdict(event)[key], rel=1e-3, abs=6e-3)


def test_shipped_folder_is_complete_and_small() -> None:
    assert {path.stem for path in CLIPS.glob("*.flac")} >= set(SCENES)
    assert sum((CLIPS / f"{name}.flac").stat().st_size for name in SCENES) < SIZE_LIMIT


def test_command_writes_all_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of the videos stands for all: they take a second each.
    name, recipe = next(iter(video_scenes.VIDEOS.items()))
    monkeypatch.setattr(video_scenes, "VIDEOS", {name: recipe})
    assert main([str(tmp_path / "clips")]) == 0
    assert len(list((tmp_path / "clips").glob("*.flac"))) == len(SCENES)
    assert [path.name for path in (tmp_path / "clips").glob("*.mp4")] == [f"{name}.mp4"]
    assert (tmp_path / "clips" / f"{name}.json").read_bytes() == (CLIPS / f"{name}.json").read_bytes()
    assert soundfile.info(tmp_path / "clips" / "dog_garden.flac").subtype == "PCM_16"
    assert main([]) == 2 and "Usage" in capsys.readouterr().err
    write_scenes(tmp_path / "again")
    first, again = (tmp_path / folder / "dog_garden.json" for folder in ("clips", "again"))
    assert first.read_bytes() == again.read_bytes()
