"""Salient audio: what is kept and what is left always make the clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.clip import Clip, open_clip
from models.frontends import build_frontend
from saliency.reconstruction import (
    KeepSettings,
    attribution_to_mask,
    filter_with_mask,
    mel_mask_to_bins,
    salient_audio,
    without_islands,
)

FRONTEND = build_frontend({"kind": "kaldi_fbank", "n_mels": 64})
EXAMPLES = sorted((Path(__file__).parents[2] / "assets" / "clips").glob("*.flac"))
FORMS = [(8000, 1, 8000), (16000, 2, 16000), (22050, 1, 9999), (44100, 2, 44100), (48000, 6, 20000), (192000, 1, 96000)]


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((channels, samples)).astype(np.float32) * 0.2


def random_mask(frames: int = 100) -> np.ndarray:
    return np.random.default_rng(2).random((frames, 64)).astype(np.float32)


@pytest.mark.parametrize(("rate", "channels", "samples"), [*FORMS, (16000, 1, 1), (44100, 8, 3)])
def test_kept_and_removed_make_the_clip(rate: int, channels: int, samples: int) -> None:
    clip = Clip.from_array(noise(channels, samples), rate)
    sound = salient_audio(clip, random_mask(), FRONTEND.frame_times(100), FRONTEND)
    assert sound.kept.shape == sound.removed.shape == clip.waveform.shape
    assert np.abs(sound.kept + sound.removed - clip.waveform).max() < 1e-6


@pytest.mark.parametrize(("rate", "channels", "samples"), FORMS)
def test_the_complement_of_the_mask_gives_the_rest(rate: int, channels: int, samples: int) -> None:
    """Not only by subtraction: filtering with 1 - mask is what is left (below what the model hears)."""
    waveform, mask, times = noise(channels, samples), random_mask(), FRONTEND.frame_times(100)
    frequencies = np.linspace(0, rate / 2, 64)
    kept = filter_with_mask(waveform, rate, mask, times, frequencies)
    rest = filter_with_mask(waveform, rate, 1 - mask, times, frequencies)
    assert np.abs(kept + rest - waveform).max() < 1e-5


@pytest.mark.parametrize(("rate", "channels", "samples"), FORMS)
def test_everything_kept_is_the_clip(rate: int, channels: int, samples: int) -> None:
    waveform = noise(channels, samples)
    ones = np.ones((10, 5), dtype=np.float32)
    same = filter_with_mask(waveform, rate, ones, np.arange(10) / 10, np.linspace(0, rate / 2, 5))
    assert np.abs(same - waveform).max() < 1e-5


def test_blocks_do_not_show() -> None:
    waveform, mask = noise(2, 48000), random_mask()
    times, frequencies = FRONTEND.frame_times(100) * 2, np.linspace(0, 8000, 64)
    whole = filter_with_mask(waveform, 16000, mask, times, frequencies, block_seconds=100)
    parts = filter_with_mask(waveform, 16000, mask, times, frequencies, block_seconds=0.1)
    assert np.abs(whole - parts).max() < 1e-6


def test_only_the_masked_time_and_band_sound() -> None:
    """Two tones one after the other: a mask on the first leaves silence where the second was."""
    t = np.arange(32000) / 16000
    x = np.where(t < 1, np.sin(2 * np.pi * 500 * t), np.sin(2 * np.pi * 3000 * t)).astype(np.float32)[None] * 0.5
    mask = np.zeros((198, 64), dtype=np.float32)
    mask[:99, FRONTEND.frequencies < 1000] = 1
    sound = salient_audio(Clip.from_array(x, 16000), mask, FRONTEND.frame_times(198), FRONTEND)
    energy = lambda y, a, b: float(np.square(y[0, int(a * 16000) : int(b * 16000)]).mean())  # noqa: E731
    assert energy(sound.kept, 0.1, 0.9) > 0.98 * energy(x, 0.1, 0.9)
    assert energy(sound.kept, 1.1, 1.9) < 1e-6 * energy(x, 1.1, 1.9)
    correlation = np.corrcoef(sound.kept[0, 1600:14400], x[0, 1600:14400])[0, 1]
    assert correlation > 0.999


def test_what_the_model_cannot_hear_is_never_kept() -> None:
    t = np.arange(48000) / 48000
    x = 0.5 * np.sin(2 * np.pi * 15000 * t).astype(np.float32)[None]
    mask = np.ones((98, 64), dtype=np.float32)
    sound = salient_audio(Clip.from_array(x, 48000), mask, FRONTEND.frame_times(98), FRONTEND)
    # The tone's abrupt ends are clicks, which reach down to what the model hears.
    assert np.square(sound.kept[:, 4800:-4800]).mean() < 1e-6 * np.square(x).mean()


def test_mel_mask_to_bins_derived_again() -> None:
    bank = FRONTEND.filterbank.numpy()
    mask = random_mask(7)
    bins = mel_mask_to_bins(mask, bank)
    for k in (5, 40, 200):
        expected = sum(mask[3, m] * bank[m, k] for m in range(64)) / bank[:, k].sum()
        assert bins[3, k] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(mel_mask_to_bins(np.ones((2, 64)), bank), 1.0)
    np.testing.assert_allclose(bins + mel_mask_to_bins(1 - mask, bank), 1.0, atol=1e-6)
    assert bins[:, -1] == pytest.approx(bins[:, -2])  # Nyquist is in no band and copies its neighbour


@pytest.mark.parametrize("rule", ["area", "relevance", "soft"])
@pytest.mark.parametrize("sign", ["supports", "opposes", "both"])
def test_masks_keep_what_they_say(rule: str, sign: str) -> None:
    values = np.zeros((60, 64), dtype=np.float32)
    values[10:20, 10:20], values[40:50, 40:50] = 1.0, -1.0
    settings = KeepSettings(rule=rule, sign=sign, fraction=0.03 if rule == "area" else 0.5, smooth_bands=0.5)
    mask = attribution_to_mask(values, 0.01, settings)
    assert mask.min() >= 0 and mask.max() <= 1
    assert (mask[12:18, 12:18].mean() > 0.3) == (sign != "opposes")
    assert (mask[42:48, 42:48].mean() > 0.3) == (sign != "supports")
    if rule == "area":
        assert mask.sum() == pytest.approx(0.03 * mask.size, abs=2)


def test_no_relevance_keeps_nothing() -> None:
    assert not attribution_to_mask(np.zeros((20, 64), dtype=np.float32), 0.01).any()
    assert not attribution_to_mask(-np.ones((20, 64), dtype=np.float32), 0.01).any()


def test_cells_without_relevance_are_not_kept_to_fill_the_area() -> None:
    values = np.zeros((50, 64), dtype=np.float32)
    values[5, 5] = 1.0
    mask = attribution_to_mask(values, 0.01, KeepSettings(fraction=0.9, smooth_seconds=0, smooth_bands=0))
    assert mask.sum() == 1


def test_islands_go_and_the_largest_group_stays() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:12, 2:12] = True
    mask[18, 18] = True
    assert without_islands(mask, 0.05).sum() == 100
    single = np.zeros((5, 5), dtype=bool)
    single[1, 1] = single[3, 3] = True
    assert without_islands(single, 0.5).sum() == 2


def test_common_gain_keeps_all_tracks_from_clipping() -> None:
    clip = Clip.from_array(noise(1, 16000) * 10, 16000)
    sound = salient_audio(clip, random_mask(), FRONTEND.frame_times(100), FRONTEND)
    for track in (clip.waveform, sound.kept, sound.removed):
        assert np.abs(track * sound.gain).max() <= 1 + 1e-6


def test_floor_leaves_the_rest_faintly_audible() -> None:
    clip = Clip.from_array(noise(1, 16000), 16000)
    nothing = np.zeros((98, 64), dtype=np.float32)
    sound = salient_audio(clip, nothing, FRONTEND.frame_times(98), FRONTEND, floor_db=-20)
    assert sound.energy_share == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_adds_up(path: Path) -> None:
    clip = open_clip(path)
    truth = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["events"]
    frames = FRONTEND.frames_for(int(clip.duration * 16000))
    times = FRONTEND.frame_times(frames)
    mask = np.zeros((frames, 64), dtype=np.float32)
    for event in truth:
        inside = (times >= event["onset"]) & (times <= event["offset"])
        band = (FRONTEND.frequencies >= event["f_low"]) & (FRONTEND.frequencies <= event["f_high"])
        mask[np.ix_(inside, band)] = 1
    sound = salient_audio(clip, mask, times, FRONTEND)
    assert np.abs(sound.kept + sound.removed - clip.waveform).max() < 1e-5
    assert sound.energy_share > 0.5
