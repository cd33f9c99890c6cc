"""The contract of a front end, for every registered kind with its default settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.errors import MediaError, SettingsError
from models.frontends import FrontEnd, build_frontend, frontend_kinds

KINDS = sorted(frontend_kinds())
# Kinds whose frames are all the levels of a fixed clip, one after the other: their clock is not one of equal steps.
LEVELLED = {"play_it_back"}
CLOCKED = [kind for kind in KINDS if kind not in LEVELLED]
MEL = [kind for kind in KINDS if build_frontend({"kind": kind}).n_mels > 0]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frontend_of(kind: str, **settings: object) -> FrontEnd:
    return build_frontend({"kind": kind, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_settings_round_trip_through_a_card(kind: str) -> None:
    frontend = frontend_of(kind, mean=-1.5, std_scale=3.0)
    assert frontend.config.kind == kind
    again = build_frontend(frontend.config.model_dump(mode="json"))
    assert again.config == frontend.config == build_frontend(frontend.config).config
    torch.testing.assert_close(again(noise(1, 9000)), frontend(noise(1, 9000)), rtol=0, atol=0)


@pytest.mark.parametrize("samples", [1, 2, 399, 400, 401, 1023, 1024, 1025, 5000, 16000, 16001, 90000])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_counted_without_computing_them(kind: str, samples: int) -> None:
    frontend = frontend_of(kind)
    expected = frontend.frames_for(samples)
    if expected == 0:  # too short for a frame; padded with silence to one
        assert samples < frontend.samples_for(1)
        assert frontend(noise(1, samples)).shape[1] == (frontend.target_length or 1)
        return
    features = frontend(noise(1, samples))
    assert frontend.log_mel(noise(1, samples)).shape == (1, expected, max(frontend.n_mels, 1))
    assert features.shape == (1, frontend.target_length or expected, max(frontend.n_mels, 1))
    assert features.is_contiguous() and features.dtype == torch.float32
    assert frontend.valid_frames(samples) == min(expected, frontend.target_length or expected)


@pytest.mark.parametrize("frames", [1, 2, 7, 100, 1024])
@pytest.mark.parametrize("kind", CLOCKED)
def test_samples_for_is_the_fewest_that_give_the_frames(kind: str, frames: int) -> None:
    frontend = frontend_of(kind)
    samples = frontend.samples_for(frames)
    if samples > frontend.n_fft // 2 + 1:  # shorter clips may be lengthened first
        assert frontend.frames_for(samples) == frames and frontend.frames_for(samples - 1) == frames - 1
    else:
        assert frontend.frames_for(max(samples, 1)) >= frames


@pytest.mark.parametrize("kind", CLOCKED)
def test_a_window_fills_the_network_exactly(kind: str) -> None:
    frontend = frontend_of(kind, target_length=50)
    window = frontend.window_samples
    assert window is not None
    assert frontend(noise(1, window)).shape[1] == 50 == frontend.valid_frames(window)
    assert frontend_of(kind, target_length=None).window_samples is None or kind == "scaled_mel"  # a published crop


@pytest.mark.parametrize("kind", CLOCKED)
def test_a_click_shows_in_the_frame_whose_time_it_has(kind: str) -> None:
    frontend = frontend_of(kind)
    rate, samples = frontend.sample_rate, 60000
    for second in (0.9, 1.7, 2.6):
        waveform = torch.zeros(1, samples)
        waveform[0, round(second * rate)] = 0.9
        loudest = int(frontend.log_mel(waveform)[0].sum(dim=1).argmax())
        times = frontend.frame_times(frontend.frames_for(samples))
        assert abs(times[loudest] - second) <= frontend.hop_length / rate
        np.testing.assert_allclose(np.diff(times), frontend.hop_length / rate)


@pytest.mark.parametrize("kind", MEL)
def test_a_tone_shows_in_the_band_whose_frequency_it_has(kind: str) -> None:
    frontend = frontend_of(kind)
    frequencies = frontend.frequencies
    assert frequencies.shape == (frontend.n_mels,) and frequencies.dtype == np.float64
    assert (np.diff(frequencies) > 0).all() and frequencies[0] > 0 and frequencies[-1] < frontend.sample_rate / 2
    assert frontend.filterbank.shape == (frontend.n_mels, frontend.n_fft // 2 + 1)
    assert frontend.filterbank.dtype == torch.float32 and frontend.filterbank.min() >= 0
    time = torch.arange(frontend.window_samples or 32000) / frontend.sample_rate
    for hz in (600.0, 1500.0, 4000.0):
        log_mel = frontend.log_mel(0.5 * torch.sin(2 * math.pi * hz * time)[None])[0]
        loudest = int(log_mel[log_mel.shape[0] // 2].argmax())
        assert loudest == int(np.abs(frequencies - hz).argmin()) or abs(frequencies[loudest] - hz) < 0.04 * hz


@pytest.mark.parametrize("kind", KINDS)
def test_silence_has_the_value_it_says(kind: str) -> None:
    frontend = frontend_of(kind, mean=-2.0, std_scale=4.0)
    features = frontend(torch.zeros(1, frontend.window_samples or 30000))
    np.testing.assert_allclose(features.numpy(), frontend.silence, atol=1e-5)
    assert features.shape[1] > 1


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "scaled_mel"])  # that one stretches every band on its own
def test_normalisation_is_the_settings_and_can_be_undone(kind: str) -> None:
    plain, scaled = frontend_of(kind), frontend_of(kind, mean=-2.0, std_scale=4.0)
    log_mel = plain(noise(2, 9000))
    torch.testing.assert_close(scaled(noise(2, 9000)), (log_mel + 2.0) / 4.0)
    torch.testing.assert_close(scaled.denormalize(scaled(noise(2, 9000))), log_mel, atol=1e-4, rtol=1e-5)
    assert scaled.silence == pytest.approx((plain.floor + 2.0) / 4.0)


@pytest.mark.parametrize("padding", ["zero", "silence", "repeat"])
@pytest.mark.parametrize("kind", CLOCKED)
def test_padding_holds_what_the_setting_says(kind: str, padding: str) -> None:
    frontend = frontend_of(kind, target_length=60, padding=padding, mean=-2.0, std_scale=4.0)
    samples = frontend.samples_for(20) + frontend.hop_length // 2
    features = frontend(noise(2, samples))
    valid = frontend.valid_frames(samples)
    assert features.shape[1] == 60 and valid == frontend.frames_for(samples) < 60
    signal, tail = features[:, :valid], features[:, valid:]
    # Clips below a whole window are not stretched by scaled_mel, and neither is what is appended to them.
    scale = (lambda value: value) if kind == "scaled_mel" else lambda value: (value + 2.0) / 4.0
    if padding == "repeat":
        assert torch.equal(tail, signal[:, -1:].expand_as(tail)) and not torch.equal(signal[:, -1], signal[:, -2])
    else:
        torch.testing.assert_close(tail, torch.full_like(tail, scale(0.0 if padding == "zero" else frontend.floor)))


@pytest.mark.parametrize("kind", CLOCKED)
def test_what_is_too_long_is_cut_at_the_end(kind: str) -> None:
    frontend = frontend_of(kind, target_length=20)
    log_mel = frontend.log_mel(noise(1, 30000))
    assert log_mel.shape[1] > 20
    assert torch.equal(frontend.fit_length(log_mel), log_mel[:, :20])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_slope_of_the_features(kind: str) -> None:
    frontend = frontend_of(kind).double()
    # A waveform without silence: at the floor there is nothing to differentiate.
    generator = torch.Generator().manual_seed(1)
    waveform = (
        0.3 * torch.randn(1, frontend.window_samples or 8000, generator=generator, dtype=torch.float64)
    ).requires_grad_()
    direction = torch.randn(waveform.shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(frontend(waveform).shape, generator=generator, dtype=torch.float64)
    (slope,) = torch.autograd.grad((frontend(waveform) * weights).sum(), waveform)
    assert torch.isfinite(slope).all() and slope.abs().sum() > 0
    with torch.no_grad():
        step = 1e-6
        ahead, behind = (frontend(waveform + s * direction) for s in (step, -step))
        difference = ((ahead - behind) * weights).sum() / (2 * step)
    assert float((slope * direction).sum()) == pytest.approx(float(difference), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_in_a_batch_gets_what_it_gets_alone(kind: str) -> None:
    frontend = frontend_of(kind)
    batch = noise(3, frontend.window_samples or 12000)
    batch[1] *= 3.0
    together = frontend(batch)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], frontend(batch[row : row + 1]), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(100,), (1, 2, 1000)])
def test_other_shapes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(MediaError, match="batch, samples"):
        frontend_of(kind)(torch.zeros(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_front_ends_have_no_weights_and_leave_none_in_checkpoints(kind: str) -> None:
    frontend = frontend_of(kind)
    assert not list(frontend.parameters()) and not frontend.state_dict()


@pytest.mark.parametrize(
    "values",
    [
        {"sample_rate": 0}, {"sample_rate": -16000}, {"sample_rate": "fast"}, {"n_mels": -1}, {"target_length": 0},
        {"std_scale": 0.0}, {"std_scale": -1.0}, {"std_scale": math.nan}, {"mean": math.inf}, {"padding": "noise"},
        {"nonsense": 1},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_impossible_settings_are_refused(kind: str, values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="not valid"):
        frontend_of(kind, **values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("kaldi_fbank", {"f_min": 8000.0}), ("kaldi_fbank", {"f_max": 8001.0}), ("kaldi_fbank", {"f_min": -1.0}),
        ("kaldi_fbank", {"sample_rate": 50}), ("slaney_db", {"f_min": 9000.0}), ("slaney_db", {"f_max": 9000.0}),
        ("slaney_db", {"hop_length": 0}), ("slaney_db", {"win_length": 5000}), ("slaney_db", {"n_mels": 0}),
        ("scaled_mel", {"hop_length": 0}), ("waveform", {"n_mels": 64}),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(kind: str, values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="not valid"):
        frontend_of(kind, **values)


@pytest.mark.parametrize("kind", ["ear", "", None, "base"])
def test_unknown_kinds_are_refused_and_known_ones_listed(kind: object) -> None:
    with pytest.raises(SettingsError, match="no front end") as caught:
        build_frontend({"kind": kind})
    assert all(known in caught.value.advice for known in KINDS)
    with pytest.raises(SettingsError, match="no front end"):
        build_frontend({})
