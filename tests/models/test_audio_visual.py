"""From clips to what audio-visual networks read: frames, the published loader, samples as features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio_visual import (
    PIXEL_MEAN,
    fit_picture,
    normalize_picture,
    published_clip,
    published_resample,
    read_frames,
)
from models.clip import open_clip
from models.errors import EarwitnessError, MediaError
from models.frontends import build_frontend
from tests.models.media_files import chirp, grey, with_pyav


def test_frames_of_a_video_at_the_network_s_rate() -> None:
    data = with_pyav("mp4", "aac", chirp(48_000, 1.0), pictures=[grey(8 * i) for i in range(25)])
    clip = open_clip(data)
    assert clip.video is not None
    frames = read_frames(clip.video, seconds=1.5, frame_rate=20.0)
    assert frames.shape == (30, 3, 112, 112) and frames.dtype == torch.float32
    levels = frames.mean(dim=(1, 2, 3)) * 255
    # Frame i shows the picture of i / 20 s, which is picture floor(25 i / 20); H.264 rounds grey levels a little.
    expected = torch.tensor([8.0 * (25 * i // 20) for i in range(20)])
    assert (levels[:20] - expected).abs().max() < 4
    torch.testing.assert_close(normalize_picture(frames[20:]), torch.zeros(10, 3, 112, 112), atol=1e-6, rtol=0)


def test_no_video_is_mean_grey() -> None:
    frames = read_frames(None, 0.5, 20.0)
    assert frames.shape == (10, 3, 112, 112)
    torch.testing.assert_close(frames[0, :, 0, 0], torch.tensor(PIXEL_MEAN))


def test_picture_keeps_its_middle_and_its_type() -> None:
    picture = torch.zeros(1, 3, 128, 171, dtype=torch.uint8)
    picture[:, :, 8 : 8 + 112, 30 : 30 + 112] = 200
    fitted = fit_picture(picture)
    assert fitted.dtype == torch.uint8 and fitted.shape == (1, 3, 112, 112) and (fitted == 200).all()


def test_published_loader_keeps_its_quirks() -> None:
    video = torch.full((20, 3, 8, 8), 255, dtype=torch.uint8)
    sound = torch.zeros(1, 16000)
    ordinary = published_clip(video, 20.0, sound, 16000, clip_seconds=1)
    short = published_clip(video[:18], 20.0, sound[:, :15000], 16000, clip_seconds=1)
    assert ordinary.video.max() < 3
    assert short.video.max() > 1000  # not divided by 255
    assert short.video.shape == ordinary.video.shape == (3, 20, 112, 112)
    assert short.audio.shape == ordinary.audio.shape == (1, 16000)
    torch.testing.assert_close(ordinary.frames, torch.ones(20, 3, 112, 112))
    with pytest.raises(MediaError):
        published_clip(video[:0], 20.0, sound, 16000)
    with pytest.raises(MediaError):
        published_clip(video, 20.0, sound[:, :0], 16000)


@pytest.mark.parametrize(
    ("rate", "samples"), [(16000, 160000), (44100, 160000), (48000, 160000), (8000, 159360), (22050, 160320)]
)
def test_published_resampling_length(rate: int, samples: int) -> None:
    assert published_resample(torch.zeros(2, 10 * rate), rate).shape == (2, samples)


def test_published_resampling_is_right_at_44100_only() -> None:
    def error(rate: int) -> float:
        tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)[None]
        expected = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
        middle = slice(1000, 15000)
        return float((published_resample(tone, rate)[0, middle] - expected[middle]).abs().max())

    assert error(44100) < 0.01
    assert error(48000) > 0.1


def test_waveform_front_end_has_no_bands_and_the_samples_times() -> None:
    frontend = build_frontend({"kind": "waveform", "sample_rate": 8000, "n_mels": 0, "target_length": 400})
    assert frontend.n_mels == 0 and frontend.frequencies.shape == (0,) and frontend.filterbank.shape[0] == 0
    assert frontend.silence == 0.0
    assert frontend.window_samples == 400 and frontend.valid_frames(300) == 300
    np.testing.assert_allclose(frontend.frame_times(2), [0.5 / 8000, 1.5 / 8000])
    waveform = torch.randn(1, 500, requires_grad=True)
    features = frontend(waveform)
    assert features.shape == (1, 400, 1)
    features.sum().backward()
    assert waveform.grad is not None and waveform.grad.sum() == 400
    with pytest.raises(EarwitnessError, match="no mel bands"):
        build_frontend({"kind": "waveform", "n_mels": 64})
