"""Front ends of SlowFast: against librosa, exact lengths, gradients and padding."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from models.errors import SettingsError
from models.frontends import build_frontend
from models.frontends.htk_mel import htk_mel_banks


@pytest.mark.parametrize(
    ("rate", "n_mels", "f_min", "f_max"), [(16000, 128, 0, 0), (24000, 128, 0, 0), (16000, 40, 50, 7000)]
)
def test_filterbank_is_librosas(rate: int, n_mels: int, f_min: float, f_max: float) -> None:
    expected = librosa.filters.mel(
        sr=rate, n_fft=2048, n_mels=n_mels, htk=True, norm=None, fmin=f_min, fmax=f_max or rate / 2
    )
    banks = htk_mel_banks(n_mels, 2048, rate, f_min, f_max).numpy()
    np.testing.assert_allclose(banks, expected, atol=2e-6)
    if f_min == f_max == 0:
        assert (banks.sum(axis=1) > 0).all() and banks[:, 0].max() == 0 and banks[:, -1].max() == 0


def test_features_are_librosas() -> None:
    wave = np.random.default_rng(0).standard_normal(9000).astype(np.float32) * 0.1
    wave[:2000] = 0.0
    frontend = build_frontend({"kind": "htk_mel", "sample_rate": 24000, "win_length": 240, "hop_length": 120})
    spectrum = np.abs(librosa.stft(wave, n_fft=2048, hop_length=120, win_length=240, pad_mode="constant"))
    banks = librosa.filters.mel(sr=24000, n_fft=2048, n_mels=128, htk=True, norm=None)
    found = frontend(torch.from_numpy(wave)[None])[0].numpy()
    np.testing.assert_allclose(found, np.log(banks @ spectrum + 1e-6).T, atol=2e-4)
    np.testing.assert_allclose(found[0], frontend.silence, atol=1e-5)
    assert frontend.silence == pytest.approx(np.log(1e-6))


def test_a_published_crop_gives_the_published_frames() -> None:
    frontend = build_frontend(
        {"kind": "htk_mel", "target_length": 128, "win_length": 320, "hop_length": 640, "clip_seconds": 5.119}
    )
    assert frontend.window_samples == 81903 and frontend.frames_for(81903) == 128
    without = build_frontend({"kind": "htk_mel", "target_length": 128, "hop_length": 640})
    assert without.window_samples == 127 * 640


def test_short_clips_repeat_their_last_frame() -> None:
    frontend = build_frontend({"kind": "htk_mel", "target_length": 20})
    found = frontend(torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (2, 20, 128) and frontend.valid_frames(1000) == 7
    assert (found[:, 7:] == found[:, 6:7]).all() and not torch.equal(found[:, 5], found[:, 6])


@pytest.mark.parametrize("kind", ["htk_mel", "scaled_mel"])
def test_gradients_are_finite_even_in_silence(kind: str) -> None:
    frontend = build_frontend(
        {"kind": kind, "target_length": 8, **({"clip_seconds": 0.1} if kind == "scaled_mel" else {})}
    )
    wave = torch.zeros(2, 2000)
    wave[1, 900:] = torch.randn(1100, generator=torch.Generator().manual_seed(0))
    wave.requires_grad_(True)
    frontend(wave).square().sum().backward()
    assert wave.grad is not None and torch.isfinite(wave.grad).all() and wave.grad[1].abs().sum() > 0


def test_scaled_mel_stretches_every_band_of_whole_clips_only() -> None:
    frontend = build_frontend({"kind": "scaled_mel", "target_length": 60, "clip_seconds": 1.0})
    wave = torch.randn(1, 15999, generator=torch.Generator().manual_seed(0))
    whole = frontend(wave)
    assert whole.shape == (1, 60, 128)
    torch.testing.assert_close(whole.amin(dim=1), torch.full((1, 128), -10.0))
    torch.testing.assert_close(whole.amax(dim=1), torch.full((1, 128), 10.0))
    assert frontend(torch.zeros(1, 15999)).unique().tolist() == [frontend.silence]
    assert frontend(wave[:, :8000]).min() >= 0.0  # log(1 + S), not stretched
    with pytest.raises(SettingsError, match="stretched"):
        frontend.denormalize(whole)


def test_scaled_mel_filterbank_is_librosas_default() -> None:
    frontend = build_frontend({"kind": "scaled_mel"})
    np.testing.assert_allclose(frontend.filterbank.numpy(), librosa.filters.mel(sr=16000, n_fft=2048), atol=1e-7)


@pytest.mark.parametrize(
    "values",
    [{"win_length": 4096}, {"f_min": 9000.0}, {"f_max": 9000.0}, {"hop_length": 0}, {"eps": 0.0}, {"nonsense": 1}],
)
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        build_frontend({"kind": "htk_mel", **values})
