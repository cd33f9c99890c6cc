"""The small features of the audio-tagging comparison."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from models.frontends import build_frontend
from models.frontends.slaney import SlaneyDb, SlaneyDbConfig, audio_tagging_frontend, slaney_banks


@pytest.mark.parametrize(("n_mels", "n_fft", "sample_rate"), [(64, 4096, 16000), (40, 1024, 22050), (80, 2048, 48000)])
def test_filterbank_is_librosas(n_mels: int, n_fft: int, sample_rate: int) -> None:
    expected = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, norm="slaney", htk=False)
    own = slaney_banks(n_mels, n_fft, sample_rate, 0.0, sample_rate / 2).numpy()
    np.testing.assert_allclose(own, expected, atol=1e-7)


def test_power_is_that_of_librosas_spectrogram() -> None:
    waveform = np.random.default_rng(0).normal(size=6000).astype(np.float32)
    frontend = SlaneyDb(SlaneyDbConfig())
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=4096, win_length=1024, hop_length=400, n_mels=64, pad_mode="constant"
    )
    own = frontend.mel_power(torch.from_numpy(waveform)[None])[0].T.numpy()
    np.testing.assert_allclose(own, expected, rtol=2e-4, atol=1e-7 * expected.max())


def test_silence_and_length() -> None:
    frontend = SlaneyDb(SlaneyDbConfig(target_length=400, padding="silence"))
    log_mel = frontend.log_mel(torch.zeros(1, 160000))
    assert log_mel.shape == (1, 401, 64)
    assert (log_mel == frontend.floor).all()
    assert frontend.frames_for(160000) == 401
    assert frontend(torch.zeros(1, frontend.window_samples or 0)).shape == (1, 400, 64)


def test_a_tone_lies_in_its_band_and_frame() -> None:
    frontend = SlaneyDb(SlaneyDbConfig())
    time = torch.arange(16000) / 16000
    tone = torch.where((time > 0.45) & (time < 0.55), torch.sin(2 * torch.pi * 1500 * time), 0.0)
    log_mel = frontend.log_mel(tone[None])[0]
    frame, band = divmod(int(log_mel.argmax()), 64)
    assert abs(frontend.frame_times(log_mel.shape[0])[frame] - 0.5) < 0.05
    assert abs(frontend.frequencies[band] - 1500) < 60
    assert (np.diff(frontend.frequencies) > 0).all()


def test_gradients_are_finite_even_for_silence() -> None:
    frontend = SlaneyDb(SlaneyDbConfig())
    waveform = torch.zeros(1, 4000, requires_grad=True)
    frontend(waveform).sum().backward()
    assert waveform.grad is not None and torch.isfinite(waveform.grad).all()


def test_the_number_of_bands_chooses_the_kind() -> None:
    assert build_frontend(audio_tagging_frontend(128)).hop_length == 160
    assert build_frontend(audio_tagging_frontend(64)).hop_length == 400
    assert audio_tagging_frontend(64, 200).target_length == 200
