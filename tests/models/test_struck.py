"""A bell and a drum: partials where physics says, strikes when the truth says, and pictures that strike with them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import signal, special

from models.data.scenes import (
    FURTHER_PORTRAITS,
    FURTHER_SYNTHESIZERS,
    PORTRAITS,
    SYNTHESIZERS,
    VIDEOS,
    Actor,
    Sound,
    VideoRecipe,
    random_audio_visual_scene,
    random_recipe,
    render_pictures,
    render_stems,
    render_video,
)
from models.data.scenes.dsp import SAMPLE_RATE
from models.data.scenes.motion import ENVELOPE_RATE, Motion, envelope, motions, strikes, swing
from models.data.scenes.pictures import look_of
from models.data.scenes.scene import sum_of
from models.data.scenes.struck import BELL_PARTIALS, DRUM_MODES, bell_strike, drum_strike
from models.data.scenes.struck_pictures import BELL_LEAD, BELL_RELEASE, DRUM_LEAD, bell_swing, stick_heights
from models.data.scenes.video_scenes import Part

STRUCK = sorted(FURTHER_SYNTHESIZERS)
# Hum, prime, tierce, quint, nominal and what lies above, over the prime.
BELL = (0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166)


def spectrum(take: np.ndarray, start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
    part = take[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]
    n = 1 << 18
    return np.fft.rfftfreq(n, 1.0 / SAMPLE_RATE), np.abs(np.fft.rfft(part * np.hanning(len(part)), n))


def hum_of(take: np.ndarray) -> float:
    """Frequency in Hz of the lowest partial: the stronger of its pair."""
    lowest = peaks_of(take, 0.05, 1.2, -50.0, 4000.0)[0]
    f, level = spectrum(take, 0.05, 1.2)
    near = (f > 0.95 * lowest) & (f < 1.1 * lowest)
    return float(f[near][level[near].argmax()])


def peaks_of(take: np.ndarray, start: float, stop: float, floor: float, below: float) -> np.ndarray:
    """Frequencies of all spectral peaks that are at most `floor` dB below the highest, from 40 to `below` Hz."""
    f, level = spectrum(take, start, stop)
    inside = (f > 40) & (f < below)
    found, _ = signal.find_peaks(level[inside], height=level[inside].max() * 10 ** (floor / 20))
    return f[inside][found]


@pytest.mark.parametrize("seed", range(6))
def test_a_bell_has_the_partials_of_a_church_bell(seed: int) -> None:
    for take in bell_strike(np.random.default_rng(seed), 2):
        found = peaks_of(take, 0.05, 1.2, -50.0, 4000.0)
        prime = 2.0 * hum_of(take)
        assert 315 < prime < 645
        for ratio in BELL:
            assert np.min(np.abs(found / (ratio * prime) - 1.0)) < 0.008, ratio


@pytest.mark.parametrize("seed", range(3))
def test_the_higher_a_partial_of_a_bell_the_sooner_it_is_gone(seed: int) -> None:
    (take,) = bell_strike(np.random.default_rng(seed), 1)
    hum = hum_of(take)

    def lost(ratio: float) -> float:
        """Loss in dB within a second."""
        levels = []
        for start in (0.2, 1.2):
            f, level = spectrum(take, start, start + 0.8)
            levels.append(level[np.abs(f / (2.0 * ratio * hum) - 1.0) < 0.012].max())
        return float(20 * np.log10(levels[0] / levels[1]))

    losses = [lost(ratio) for ratio in (0.5, 1.506, 4.166)]
    assert 2 < losses[0] < losses[1] - 5 and losses[1] + 10 < losses[2]


def test_tables_are_those_of_the_bell_and_of_the_membrane() -> None:
    assert tuple(ratio for _, ratio, _, _ in BELL_PARTIALS) == BELL
    zeros = {(m, n): special.jn_zeros(m, n)[-1] for m in range(5) for n in range(1, 4)}
    lowest = sorted(value / zeros[0, 1] for value in zeros.values())[: len(DRUM_MODES)]
    assert [ratio for _, ratio, _ in DRUM_MODES] == pytest.approx(lowest, abs=6e-4)
    for m, ratio, _ in DRUM_MODES:
        assert min(abs(special.jn_zeros(m, 3) / zeros[0, 1] - ratio)) < 6e-4


def test_a_drum_has_the_modes_of_a_circular_membrane() -> None:
    ratios = {
        mode: special.jn_zeros(*mode)[-1] / special.jn_zeros(0, 1)[0] for mode in ((1, 1), (2, 1), (0, 2), (3, 1))
    }
    heard = dict.fromkeys(ratios, 0)
    for seed in range(12):
        found = peaks_of(drum_strike(np.random.default_rng(seed), 1)[0], 0.12, 0.7, -45.0, 700.0)
        assert 90 < found[0] < 190
        for mode, ratio in ratios.items():
            heard[mode] += bool(np.min(np.abs(found / (ratio * found[0]) - 1.0)) < 0.015)
    # A mode is missing where the skin is hit on one of its nodes, which only (0, 2) has there.
    assert heard[1, 1] == heard[2, 1] == 12 and heard[3, 1] >= 10 and heard[0, 2] >= 6


def test_the_pitch_of_a_drum_falls() -> None:
    for seed in range(6):
        (take,) = drum_strike(np.random.default_rng(seed), 1)
        lowest = peaks_of(take, 0.12, 0.7, -45.0, 700.0)[0]
        # Passed through a filter twice, forwards and backwards: nothing is delayed.
        sos = signal.butter(2, [0.75 * lowest, 1.3 * lowest], "bandpass", fs=SAMPLE_RATE, output="sos")
        phase = np.unwrap(np.angle(signal.hilbert(signal.sosfiltfilt(sos, take))))

        def pitch(start: float, stop: float, phase: np.ndarray = phase) -> float:
            a, b = round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)
            return float((phase[b] - phase[a]) / (2 * np.pi * (stop - start)))

        early, late = pitch(0.015, 0.045), pitch(0.2, 0.35)
        assert 1.01 < early / late < 1.1
        assert late == pytest.approx(lowest, rel=0.012)


@pytest.mark.parametrize("label", STRUCK)
@pytest.mark.parametrize("seed", range(5))
def test_strikes_sound_when_the_truth_says(label: str, seed: int) -> None:
    recipe = random_recipe(np.random.default_rng(seed), label)
    (sound,) = recipe.sounds
    assert len(sound.onsets) >= 2
    stems, _ = render_stems(recipe, seed)
    assert [stem.event.onset for stem in stems] == pytest.approx(sorted(sound.onsets), abs=0.0101)
    mixed = sum_of(stems)
    # The blow itself is bright: it stands out from what still rings.
    power = signal.sosfilt(signal.butter(4, 2500, "highpass", fs=SAMPLE_RATE, output="sos"), mixed) ** 2
    ten = SAMPLE_RATE // 100
    for onset in sound.onsets:
        at = round(onset * SAMPLE_RATE)
        assert power[at : at + ten].sum() > 20 * power[at - ten - 32 : at - 32].sum()
    # And it is found again in the envelope, from which pictures move.
    found = np.array(strikes(envelope(mixed, SAMPLE_RATE))) / ENVELOPE_RATE
    assert found.tolist() == pytest.approx(sound.onsets, abs=0.0101)


@pytest.mark.parametrize("label", STRUCK)
def test_further_sounds_stay_out_of_what_models_are_trained_on(label: str) -> None:
    assert list(SYNTHESIZERS) == list(PORTRAITS) and len(SYNTHESIZERS) == 10
    assert set(FURTHER_SYNTHESIZERS) == set(FURTHER_PORTRAITS) and label not in SYNTHESIZERS
    first, again = (random_audio_visual_scene(np.random.default_rng(2), label, size=(48, 64)) for _ in range(2))
    assert first.waveform.tobytes() == again.waveform.tobytes() and first.frames.tobytes() == again.frames.tobytes()
    assert first.labels == (label,) and {actor.label for actor in first.actors} - {label} <= set(PORTRAITS)


def struck(times: tuple[float, ...], seconds: float = 4.0, ring: float = 0.3) -> np.ndarray:
    """The envelope of something struck that rings on."""
    t = np.arange(round(seconds * ENVELOPE_RATE)) / ENVELOPE_RATE
    return np.max([np.where(t >= at - 1e-9, 0.4 ** ((t - at) / ring), 0.0) for at in times], axis=0)


def states(times: tuple[float, ...], lead: float, release: float, frame_rate: float = 25.0) -> list[Motion]:
    level = struck(times)
    moving = swing(level, lead, release)
    return motions(np.where(moving < 0.01, 0.0, moving), round(4 * frame_rate), frame_rate, strikes(level))


@pytest.mark.parametrize("times", [(0.8, 1.7, 2.6), (0.53, 1.91), (1.234,), (0.1, 3.97)])
def test_a_bell_is_at_its_strike_position_in_the_frame_of_the_strike_only(times: tuple[float, ...]) -> None:
    frames = states(times, BELL_LEAD, BELL_RELEASE)
    angles = [bell_swing(motion) for motion in frames]
    struck_in = [k for k, angle in enumerate(angles) if abs(angle) == 1.0]
    assert [k / 25 for k in struck_in] == pytest.approx(times, abs=0.021)
    # It turns from side to side, without a jump, and is at rest where nothing moves.
    assert [math.copysign(1, angles[k]) for k in struck_in] == [1.0, -1.0, 1.0][: len(times)]
    assert np.abs(np.diff(angles)).max() < 0.3
    assert all(angle == 0.0 for angle, motion in zip(angles, frames, strict=True) if motion.level == 0.0)


@pytest.mark.parametrize("times", [(0.8, 1.16, 1.34, 1.52, 3.0), (0.53, 0.71, 2.0), (0.05, 3.97)])
def test_a_stick_touches_the_skin_in_the_frame_of_the_stroke_only(times: tuple[float, ...]) -> None:
    level = struck(times, ring=0.1)
    moving = swing(level, DRUM_LEAD, 0.12)
    frames = motions(np.where(moving < 0.01, 0.0, moving), 100, 25.0, strikes(level))
    heights = np.array([stick_heights(motion) for motion in frames])
    assert heights.min() == 0.0
    touched = [(k, hand) for k, pair in enumerate(heights) for hand in (0, 1) if pair[hand] == 0.0]
    assert [k / 25 for k, _ in touched] == pytest.approx(times, abs=0.021)
    assert [hand for _, hand in touched] == [k % 2 for k in range(len(times))]
    assert all((pair == 1.0).all() for pair, motion in zip(heights, frames, strict=True) if motion.level == 0.0)


def drawn(label: str, times: tuple[float, ...], frame_rate: float) -> np.ndarray:
    """Frames of one actor in the middle, moving as if struck."""
    actor = Actor(label, 0.5, 0.5, 0.9, struck(times, 3.0, 0.1), seed=3)
    return render_pictures([actor], 3.0, frame_rate, (160, 160), backdrop="paper", light=1.0)


def of_colour(frames: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return np.asarray((np.abs(frames.astype(int) - colour[:3]) < 8).all(axis=-1))


def test_the_drawn_bell_is_furthest_to_the_side_when_it_strikes() -> None:
    times = (0.8, 1.6, 2.4)
    bronze = of_colour(drawn("bell", times, 50.0), look_of("bell", 3).main)
    columns = np.arange(160)
    place = np.array([(mask.sum(axis=0) * columns).sum() / mask.sum() for mask in bronze])
    aside = place - place[0]
    for k, at in enumerate(times):
        strike = round(at * 50)
        around = aside[strike - 14 : strike + 15] * (-1) ** k
        assert around[14] > 8.0 and around[14] > 0.97 * around.max() and abs(int(around.argmax()) - 14) <= 3
        assert max(around[2], around[26]) < 0.8 * around[14]
    # Half-way between two strikes it hangs straight.
    assert np.abs(aside[[60, 100]]).max() < 1.0


def test_the_drawn_stick_lands_on_the_skin() -> None:
    times = (0.8, 1.2, 1.6)
    frames, look = drawn("drum", times, 50.0), look_of("drum", 3)
    skin_rows = np.flatnonzero(of_colour(frames[0], look.second)[:, 70:90].any(axis=1))
    middle = 0.5 * (skin_rows[0] + skin_rows[-1])
    sticks = of_colour(frames, look.accent)

    def tip(k: int, hand: int) -> int:
        """Lowest row with the colour of a stick."""
        half = sticks[k][:, :80] if hand == 0 else sticks[k][:, 80:]
        return int(np.flatnonzero(half.any(axis=1)).max())

    for number, at in enumerate(times):
        k, hand = round(at * 50), number % 2
        assert abs(tip(k, hand) - middle) <= 5
        assert tip(k - 5, hand) < middle - 16 and tip(k + 7, hand) < middle - 16
        assert tip(k, 1 - hand) < middle - 16


def changes(frames: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).max(axis=(1, 2, 3))


@pytest.mark.parametrize(("label", "before", "after"), [("bell", BELL_LEAD, 1.8), ("drum", DRUM_LEAD, 0.65)])
def test_nothing_moves_but_around_the_strikes(label: str, before: float, after: float) -> None:
    times = (0.6, 2.9) if label == "bell" else (0.6, 0.9, 2.4)
    moved = changes(drawn(label, times, 25.0)) > 0
    t = (np.arange(len(moved)) + 0.5) / 25
    near = np.any([(t > at - before - 0.04) & (t < at + after + 0.04) for at in times], axis=0)
    assert not moved[~near].any() and (~near).any()
    # From the swing to the blow until the end of the shimmer it moves all the time.
    for at in times[:1]:
        assert moved[(t > at - 0.7 * before) & (t < at + 0.25)].all()


@pytest.mark.parametrize("label", STRUCK)
@pytest.mark.parametrize("mirrored", [False, True])
def test_it_stays_in_its_box(label: str, mirrored: bool) -> None:
    actor = Actor(label, 0.7, 0.5, 0.6, struck((0.5, 0.9, 1.3), 2.0, 0.1), seed=4, mirrored=mirrored)
    frames = render_pictures([actor], 2.0, 25.0, (96, 136), backdrop="paper", light=1.0)
    outside = frames.astype(np.int16) - render_pictures([], 0.04, 25.0, (96, 136), backdrop="paper", light=1.0)[0]
    left, top, right, bottom = actor.box(96, 136)
    shadow = slice(int(bottom) - 4, int(bottom) + 6)  # on the ground, still
    outside[:, shadow] -= outside[:1, shadow]
    outside[:, int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 0
    assert not outside.any()


def test_the_skin_trembles_after_a_stroke_and_not_before() -> None:
    frames = drawn("drum", (1.0,), 50.0)
    skin = of_colour(frames[0], look_of("drum", 3).second)
    rows = np.flatnonzero(skin[:, 70:90].any(axis=1))
    part = frames[:, rows[0] : rows[-1], 75:85]  # between the sticks' landing places
    moved = changes(part)
    assert not moved[:46].any() and moved[50:62].min() > 3 and not moved[90:].any()


def test_a_silent_drum_moves_and_does_not_sound() -> None:
    times = (0.5, 0.9, 2.6)
    recipe = VideoRecipe(
        "silent", "A silent drum",
        (Part(Sound("drum", times), 0.4, 0.5, 0.5, heard=False), Part(Sound("dog", (1.7,)), 1.0, 0.6, 0.5)),
        "room", "paper", duration=3.5,
    )  # fmt: skip
    scene = render_video(recipe, size=(120, 160), frame_rate=25.0)
    drum, dog = scene.actors
    assert (drum.role, dog.role) == ("silent", "sounding") and scene.labels == ("dog",)
    assert {found.label for found in scene.correspondences} == {"dog"}
    moved = changes(scene.frames[:, :, :84]) > 0
    starts = [k / 25 for k, (a, b) in enumerate(itertools.pairwise([False, *moved])) if b and not a]
    assert starts == pytest.approx([0.5 - DRUM_LEAD, 2.6 - DRUM_LEAD], abs=0.09)
    assert [span[0] for span in drum.motion] == pytest.approx([0.5 - DRUM_LEAD, 2.6 - DRUM_LEAD], abs=0.03)
    quiet = scene.waveform[: round(1.5 * SAMPLE_RATE)]
    assert np.abs(quiet).max() < 0.02 * np.abs(scene.waveform).max()


def test_what_belongs_together_includes_the_swing_to_the_blow() -> None:
    recipe = VideoRecipe(
        "both", "Bell and drum",
        (Part(Sound("bell", (0.6, 1.7)), 0.4, 0.5, 0.5), Part(Sound("drum", (3.0, 3.3)), 1.0, 0.6, 0.5)),
        "yard", "town",
    )  # fmt: skip
    scene = render_video(recipe, size=(60, 80), frame_rate=10.0)
    seen = [(found.label, found.heard[0], found.seen) for found in scene.correspondences]
    assert [label for label, _, _ in seen] == ["bell", "bell", "drum", "drum"]
    for label, onset, (start, stop) in seen:
        lead = FURTHER_PORTRAITS[label].lead
        assert onset - lead - 0.05 < start < onset < stop and onset - start > 0.5 * lead
    # The bell rings on after it has come to rest.
    assert scene.events[1].offset > scene.actors[0].motion[-1][1] + 0.2


@pytest.mark.parametrize("name", [name for name in VIDEOS if "bell" in name or "drum" in name])
def test_shipped_videos_strike_when_their_recipe_says(name: str) -> None:
    recipe = VIDEOS[name]
    heard = render_stems(recipe.sound(tuple(part for part in recipe.parts if part.heard)))[0]
    for part in recipe.parts:
        if part.sound.label not in STRUCK:
            continue
        own = heard if part.heard else render_stems(recipe.sound((part,)))[0]
        level = envelope(sum_of([stem for stem in own if stem.event.label == part.sound.label]), SAMPLE_RATE)
        assert np.array(strikes(level)) / ENVELOPE_RATE == pytest.approx(part.sound.onsets, abs=0.0101)
