"""Augmentations: what they change, by how much, and what they leave alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.training.augment import augment_waveforms, change_speed, mask_features
from models.training.config import AugmentConfig

RATE = 16000
NOTHING: dict[str, object] = {
    "shift": False, "gain_db": (0.0, 0.0), "speed": (1.0, 1.0), "noise_db": None, "mixup": 0.0, "frequency_mask": 0,
    "time_mask": 0,
}  # fmt: skip


def settings(**changes: object) -> AugmentConfig:
    return AugmentConfig.model_validate(NOTHING | changes)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hz: float, samples: int = RATE) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(samples) / RATE)


def peak_hz(waveform: Tensor) -> float:
    spectrum = torch.fft.rfft(waveform * torch.hann_window(waveform.shape[0])).abs()
    return float(spectrum.argmax()) * RATE / waveform.shape[0]


def batch(n: int = 6, samples: int = 4000, seed: int = 3) -> tuple[Tensor, Tensor]:
    return 0.1 * torch.randn(n, samples, generator=generator(seed)), torch.eye(n)


@pytest.mark.parametrize("hz", [200.0, 1000.0, 5000.0])
@pytest.mark.parametrize("speed", [0.5, 0.8, 0.9, 1.1, 1.25, 1.4])
def test_speed_moves_a_tone_and_keeps_its_level(speed: float, hz: float) -> None:
    changed = change_speed(tone(hz), speed)
    assert changed.shape == (RATE,)
    # The length is rounded to thousands of samples, so the speed is met within 3 % of a second's clip.
    assert peak_hz(changed) == pytest.approx(hz * speed, rel=0.04)
    middle = changed[2000:6000]
    assert float(middle.square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(2), rel=0.03)


def test_what_would_fold_is_left_out() -> None:
    """6 kHz at 1.6 times the speed would be 9.6 kHz, which does not exist at 16 kHz."""
    assert float(change_speed(tone(6000.0), 1.6).abs().max()) < 0.02


def test_a_faster_clip_starts_again_and_a_slower_one_is_cut() -> None:
    click = torch.zeros(RATE)
    click[[4000, 12000]] = torch.tensor([1.0, 0.5])
    fast, slow = change_speed(click, 2.0), change_speed(click, 0.5)
    for half in (fast[:8000], fast[8000:]):
        assert int(half.argmax()) == 2000 and int(half[4000:].argmax()) == 2000
    assert int(slow.argmax()) == 8000 and float(slow[12000:].abs().max()) < 0.01


@pytest.mark.parametrize("samples", [1, 2, 3, 100, 3999, 4001])
@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_clips_of_any_length_keep_it(samples: int, speed: float) -> None:
    changed = change_speed(torch.ones(samples), speed)
    assert changed.shape == (samples,) and torch.isfinite(changed).all()


def test_the_speed_of_one_changes_nothing() -> None:
    torch.testing.assert_close(change_speed(batch()[0][0], 1.0), batch()[0][0], atol=1e-6, rtol=0)


def test_nothing_asked_nothing_done() -> None:
    waveforms, targets = batch()
    found, found_targets = augment_waveforms(waveforms, targets, settings(), generator())
    torch.testing.assert_close(found, waveforms, atol=1e-6, rtol=0)
    assert torch.equal(found_targets, targets)
    features = torch.randn(3, 20, 8)
    assert torch.equal(mask_features(features, settings(), -9.0, generator()), features)


def test_shifts_roll_every_clip_by_its_own_amount() -> None:
    ramps = torch.arange(1000.0).repeat(8, 1) / 1000
    found, _ = augment_waveforms(ramps, torch.eye(8), settings(shift=True), generator())
    by = found.argmin(dim=1)
    assert len(set(by.tolist())) > 4
    for row, amount in enumerate(by.tolist()):
        torch.testing.assert_close(found[row], ramps[row].roll(amount), atol=1e-5, rtol=0)


def test_gains_lie_in_their_range_and_do_not_clip_beyond_full_scale() -> None:
    waveforms = 0.1 * torch.ones(400, 50)
    found, _ = augment_waveforms(waveforms, torch.eye(400), settings(gain_db=(-12.0, 6.0)), generator())
    gains = 20 * torch.log10(found[:, 0] / 0.1)
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-6)
    assert -12.01 <= gains.min() < -11 and 5 < gains.max() <= 6.01
    assert float(gains.mean()) == pytest.approx(-3.0, abs=0.8)
    loud, _ = augment_waveforms(waveforms * 9, torch.eye(400), settings(gain_db=(20.0, 20.0)), generator())
    assert torch.equal(loud, torch.ones_like(loud))


def test_noise_has_the_level_it_should() -> None:
    silent = torch.zeros(3, 20000)
    found, _ = augment_waveforms(silent, torch.eye(3), settings(noise_db=(-40.0, -40.0)), generator())
    np.testing.assert_allclose(found.std(dim=1), 0.01, rtol=0.03)
    assert abs(float(torch.corrcoef(found)[0, 1])) < 0.05


def test_mixtures_have_the_labels_of_what_is_in_them() -> None:
    # Clip i holds its own unit vector, so a mixture shows its weights.
    n = 64
    waveforms, targets = torch.eye(n), torch.eye(n)
    found, found_targets = augment_waveforms(waveforms, targets, settings(mixup=1.0), generator())
    torch.testing.assert_close(found, found_targets, atol=1e-6, rtol=0)
    torch.testing.assert_close(found_targets.sum(dim=1), torch.ones(n))
    own = found_targets.diagonal()
    assert (own >= 0.5 - 1e-6).all() and own.std() > 0.05  # the own clip is never the weaker one
    assert ((found_targets > 0).sum(dim=1) <= 2).all()
    half, _ = augment_waveforms(torch.eye(400), torch.eye(400), settings(mixup=0.5), generator())
    assert 0.4 < float((half.diagonal() < 1).float().mean()) < 0.6


def test_speeds_are_changed_for_about_half_the_clips() -> None:
    waveforms = tone(1000.0, 8000).repeat(60, 1)
    found, _ = augment_waveforms(waveforms, torch.eye(60), settings(speed=(1.25, 1.25)), generator())
    peaks = np.array([peak_hz(w) for w in found])
    altered = np.abs(peaks - 1000) > 50
    assert 0.3 < altered.mean() < 0.7
    np.testing.assert_allclose(peaks[altered], 1250, rtol=0.1)


def test_the_same_seed_gives_the_same_and_arguments_are_left_alone() -> None:
    waveforms, targets = batch()
    before = waveforms.clone(), targets.clone()
    runs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        runs.append(augment_waveforms(waveforms, targets, AugmentConfig(), generator(seed)))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])
    assert torch.equal(waveforms, before[0]) and torch.equal(targets, before[1])


@pytest.mark.parametrize(("bands", "frames"), [(3, 0), (0, 5), (3, 5), (100, 100)])
def test_masks_are_one_stripe_of_bands_and_one_of_frames(bands: int, frames: int) -> None:
    features = torch.ones(200, 20, 8)
    masked = mask_features(features, settings(frequency_mask=bands, time_mask=frames), -9.0, generator())
    assert torch.equal(features, torch.ones(200, 20, 8)) and set(masked.unique().tolist()) <= {1.0, -9.0}
    hidden = masked == -9.0
    stripes_of_bands, stripes_of_frames = hidden.all(dim=1), hidden.all(dim=2)
    for row in range(200):
        whole = stripes_of_bands[row][None] | stripes_of_frames[row][:, None]
        assert torch.equal(whole, hidden[row])  # nothing but stripes
        if hidden[row].all():
            continue
        for stripe, largest in ((stripes_of_bands[row], bands), (stripes_of_frames[row], frames)):
            where = torch.nonzero(stripe).flatten()
            assert len(where) <= largest and (len(where) == 0 or int(where[-1] - where[0]) == len(where) - 1)
    widths = (stripes_of_bands.sum(dim=1) if bands == 3 else stripes_of_frames.sum(dim=1)).unique()
    assert len(widths) >= 4  # from nothing to the largest
