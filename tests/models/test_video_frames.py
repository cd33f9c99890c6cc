"""Pictures as networks read them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from models.clip import open_clip
from models.video_frames import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    crop_offsets,
    prepare_frames,
    prepare_picture,
    published_frame_times,
    read_published_frame,
    resized_shape,
)
from tests.models.media_files import grey, noise, with_pyav


def test_size_and_crop_are_the_published_ones() -> None:
    assert resized_shape(256, 340, 224) == (224, 297)
    assert resized_shape(150, 110, 96) == (130, 96)
    assert crop_offsets(224, 297, 224) == (0, 36)  # 36.5, to even


def test_grey_pictures_get_three_channels() -> None:
    picture = prepare_picture(Image.fromarray(np.full((40, 60), 128, dtype=np.uint8)), 32)
    expected = (128 / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert picture.shape == (3, 32, 32)
    assert np.allclose(picture.mean(dim=(1, 2)), expected, atol=1e-5)


def test_tensor_path_agrees_with_pillow() -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((80, 60), Image.Resampling.BICUBIC))
    frames = torch.from_numpy(smooth.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
    frames.requires_grad_()
    prepared = prepare_frames(frames, 32)
    # Pillow rounds to 8 bits after each of its two passes.
    assert (prepared[0] - prepare_picture(Image.fromarray(smooth), 32)).abs().max() < 3 / 255 / min(IMAGENET_STD)
    prepared.sum().backward()
    assert frames.grad is not None and frames.grad.abs().sum() > 0


def test_published_frame_of_a_video() -> None:
    assert published_frame_times(20.0, 25.0)[5] == 124 / 25
    assert published_frame_times(4.0, 10.0) == [0, 0.3, 0.7, 1.1, 1.5, 1.9, 2.3, 2.7, 3.1, 3.5]
    assert published_frame_times(0.1, 10.0) == [0.0] * 10
    pictures = [grey(10 * number) for number in range(20)]
    clip = open_clip(with_pyav("mp4", "aac", noise(48000, 2.0), pictures=pictures, frame_rate=10), name="v.mp4")
    assert clip.video is not None
    frame = read_published_frame(clip.video)
    assert frame.shape == (1, 3, 48, 64)
    assert abs(float(frame.mean()) * 255 - 90) < 4  # picture 9 of 20
