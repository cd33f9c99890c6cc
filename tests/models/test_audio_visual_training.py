"""What training from sound and picture adds: kept pictures, what is done to both together, synchrony, a start from mel bands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.audio_visual import PIXEL_MEAN, read_frames
from models.checkpoint import load_recognizer
from models.clip import open_clip
from models.data.esc import read_esc
from models.families.equiav import EquiAV
from models.families.hetero_graph import HeteroGraph
from models.layers.wav2vec2_frontend import Wav2Vec2FrontEnd, mel_filters, start_from_mel
from models.network import Network
from models.training.clips import Draw, TrainingClips
from models.training.config import AugmentConfig, TrainConfig
from models.training.pictures import picture_reader
from models.training.synchrony import overlap, synchrony_loss
from models.training.trainer import train
from models.video_frames import IMAGENET_MEAN
from tests.models.media_files import chirp, grey, with_pyav
from tests.models.test_equiav import TINY as EQUIAV
from tests.models.test_hetero_graph import TINY, tiny
from tests.models.training_data import write_videos

SMALL = TINY | {"frame_size": 24, "sample_rate": 16000, "frame_rate": 20.0}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos"))


def network(family: str) -> Network:
    if family == "equiav":
        return EquiAV(EquiAV.Config.model_validate(EQUIAV | {"mode": "multimodal", "n_classes": 2}))
    return tiny(**{key: value for key, value in SMALL.items() if key in ("frame_size", "sample_rate", "frame_rate")})


def clips_of(root: Path, family: str, **augment: Any) -> TrainingClips:
    reader = picture_reader(network(family))
    return TrainingClips(read_esc(root), 16000, 16000, picture=reader, augment=AugmentConfig(**augment))


def test_a_frame_size_takes_the_middle_square_of_the_picture() -> None:
    wide = [np.zeros((48, 96, 3), dtype=np.uint8) for _ in range(10)]
    for picture in wide:
        picture[:, 24:72] = 200
    clip = open_clip(with_pyav("mp4", "aac", chirp(16_000, 0.5), pictures=wide, frame_rate=20))
    frames = read_frames(clip.video, 0.5, 20.0, 24)
    assert frames.shape == (10, 3, 24, 24)
    assert (frames[:, :, 2:-2, 2:-2] - 200 / 255).abs().max() < 0.05


def test_a_network_of_another_frame_size_reads_it_and_knows_its_grey() -> None:
    small = tiny(frame_size=24)
    clip = open_clip(with_pyav("mp4", "aac", chirp(16_000, 1.0), pictures=[grey(100)] * 20, frame_rate=20))
    assert small.read_frames(clip.video).shape == (1, 20, 3, 24, 24)
    sound = torch.randn(1, 8000, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(small(sound), small(sound, small.read_frames(None)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["hetero_graph", "equiav"])
def test_kept_pictures_are_those_that_are_decoded_when_drawn(family: str, videos: Path) -> None:
    decoded, kept = clips_of(videos, family), clips_of(videos, family)
    kept.keep()
    for draw in (0, Draw(3), Draw(5, picture=0.93)):
        first, second = decoded[draw], kept[draw]
        assert first.frames is not None and second.frames is not None
        assert torch.equal(first.frames, second.frames) and torch.equal(first.waveform, second.waveform)


def test_memory_counts_pictures(videos: Path) -> None:
    sound_alone = TrainingClips(read_esc(videos), 16000, 16000).gigabytes
    assert math.isclose(clips_of(videos, "hetero_graph").gigabytes - sound_alone, 8 * 20 * 3 * 24**2 / 1e9)


@pytest.mark.parametrize(("family", "mean"), [("hetero_graph", PIXEL_MEAN), ("equiav", IMAGENET_MEAN)])
def test_pictures_and_sounds_are_hidden_as_often_as_asked(family: str, mean: Any, videos: Path) -> None:
    clips = clips_of(videos, family, hide_picture=0.5, hide_sound=0.25)
    clips.keep()
    hidden = silent = 0
    for key in range(200):
        item = clips[Draw(key % 8, key=key)]
        assert item.frames is not None
        no_picture = torch.allclose(item.frames, torch.tensor(mean)[:, None, None].expand_as(item.frames))
        no_sound = not item.waveform.any()
        assert not (no_picture and no_sound)
        hidden, silent = hidden + no_picture, silent + no_sound
    assert 80 <= hidden <= 120 and 32 <= silent <= 70
    item = clips[3]  # what is validated stays as it is
    assert item.frames is not None and item.waveform.any() and item.frames.std() > 0.01


def test_sound_and_picture_are_turned_round_together(videos: Path) -> None:
    clips = clips_of(videos, "hetero_graph", turn=True)
    clips.keep()
    whole = clips[2]
    assert whole.frames is not None
    steps = set()
    for key in range(12):
        item = clips[Draw(2, key=key)]
        assert item.frames is not None
        step = next(s for s in range(20) if torch.equal(whole.frames.roll(s, 0), item.frames))
        assert torch.equal(whole.waveform.roll(step * 800), item.waveform)
        steps.add(step)
    assert len(steps) > 4


def test_any_of_the_pictures_can_be_drawn(videos: Path) -> None:
    clips = clips_of(videos, "equiav", any_picture=True)
    clips.keep()
    means = {round(float(clips[Draw(1, key=key)].frames.mean()), 6) for key in range(30)}  # type: ignore[union-attr]
    assert len(means) >= 5


def test_what_moves_can_be_amplified_and_what_does_not_left_out() -> None:
    generator = torch.Generator().manual_seed(2)
    picture = torch.rand(1, 1, 3, 24, 24, generator=generator).expand(1, 20, 3, 24, 24)
    moving = picture.clone()
    moving[:, 6:9, :, 4:12, 4:12] = 1.0
    plain, amplified, changes = (tiny(frame_size=24, **more) for more in (
        {}, {"motion_gain": 4.0}, {"motion_gain": 4.0, "still_picture": False}))  # fmt: skip
    grey = torch.zeros(1, 3, 20, 24, 24)
    with torch.no_grad():
        still = [network.encode_frames(picture) for network in (plain, amplified, changes)]
        moved = [network.encode_frames(moving) for network in (plain, amplified, changes)]
        nothing = changes.encode_video(grey)
    # Without motion the gain changes nothing, and without the still picture nothing is left to be seen.
    torch.testing.assert_close(still[0], still[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(still[2], nothing, atol=1e-4, rtol=1e-4)
    spread = [nodes.var(dim=1).sum().item() for nodes in moved]
    assert spread[1] > 2 * spread[0] and spread[2] > 2 * spread[0]


def test_nodes_are_matched_by_changes() -> None:
    generator = torch.Generator().manual_seed(3)
    audio, video = (torch.randn(1, n, size, generator=generator) for n, size in ((5, 8), (4, 16)))
    raw, changes = tiny(), tiny(match_changes=True)
    first, second = raw.reason(audio, video), changes.reason(audio, video)
    layer = next(iter(first.meeting))
    for plain, centred in zip(first.meeting[layer], second.meeting[layer], strict=True):
        torch.testing.assert_close(plain - plain.mean(dim=1, keepdim=True), centred)
    assert not torch.equal(first.distances[layer], second.distances[layer])


def test_only_what_is_near_in_time_is_linked() -> None:
    generator = torch.Generator().manual_seed(3)
    audio, video = (torch.randn(2, n, size, generator=generator) for n, size in ((5, 8), (4, 16)))
    anywhere, near = tiny(), tiny(match_seconds=0.0, n_nearest=1)
    shared = overlap(near.config)
    layer = next(iter(near.reason(audio, video).matches))
    pictures, sounds = near.reason(audio, video).matches[layer]
    assert pictures.tolist() == list(range(2 * 4)) and (pictures // 4 == sounds // 5).all()
    # Nothing is exactly at the same time here: the nearest in time is taken, which shares more time than any other.
    assert (shared[sounds % 5, pictures % 4] == shared.amax(dim=0)[pictures % 4]).all()
    assert anywhere.reason(audio, video).matches[layer].shape[1] == 3 * 2 * 4


def test_overlap_of_nodes_in_time() -> None:
    shared = overlap(tiny().config)
    assert shared.shape == (5, 4) and shared.max() <= 0.0501  # sounds last 50 ms, pictures 150 ms
    assert shared[0, 0] == pytest.approx(0.05) and shared[0, 3] == 0


def test_synchrony_prefers_contemporaries_and_ignores_clips_without_sound_or_picture() -> None:
    small = tiny(fusion_layers=(-2,), n_video_nodes=5, clip_seconds=1.0)
    config = small.config
    wanted = overlap(config)
    assert (wanted.argmax(dim=0) == torch.arange(5)).all()
    generator = torch.Generator().manual_seed(0)
    audio, video = (torch.randn(2, 5, size, generator=generator) for size in (8, 16))
    run = small.reason(audio, video)
    nodes = torch.randn(2, 5, 8, generator=generator)

    def loss(heard: Tensor, seen: Tensor) -> float:
        run.meeting = {0: (heard, seen)}
        return synchrony_loss(run, config).item()

    together, apart = loss(nodes, nodes), loss(nodes, nodes.roll(2, 1))
    assert together < 0.4 < 2 < apart
    same = nodes[:, :1].expand(2, 5, 8)
    assert loss(same, nodes) == 0.0 and loss(nodes, same) == 0.0
    half = torch.cat([nodes[:1], same[1:]])
    assert loss(half, nodes) == pytest.approx(loss(nodes[:1], nodes[:1]))


def test_gradient_of_synchrony_reaches_both_backbones() -> None:
    small = tiny(frame_size=24).train()
    generator = torch.Generator().manual_seed(1)
    sound, picture = torch.randn(2, 8000, 1, generator=generator), torch.rand(2, 20, 3, 24, 24, generator=generator)
    synchrony_loss(small.reason(small.encode_audio(sound), small.video_nodes(picture, 2)), small.config).backward()
    for part in (small.audio_head.conv_layers, small.video_head.stem):
        assert sum(p.grad.abs().sum().item() for p in part.parameters() if p.grad is not None) > 0


def test_mel_filters_pass_their_bands_in_order() -> None:
    filters = mel_filters(64, 256, 16000)[:, 0].numpy()
    responses = np.abs(np.fft.rfft(filters, 4096))
    peaks = responses.argmax(axis=1) * 16000 / 4096
    assert np.isfinite(filters).all() and (np.abs(filters).sum(axis=1) > 0).all()
    bands = peaks.reshape(2, 16, 2).mean(axis=2)
    # Two gains of the same bands, from low to high, further apart the higher they are.
    assert np.abs(bands[0] - bands[1]).max() < 10 and (np.diff(bands[0]) > 0).all()
    assert np.diff(bands[0])[-1] > 3 * np.diff(bands[0])[0] and bands[0][-1] < 8000
    gains = responses.max(axis=1).reshape(2, 32)
    np.testing.assert_allclose(gains, [[0.3] * 32, [0.02] * 32], rtol=1e-5)


def test_a_mel_start_tells_tones_apart() -> None:
    """Before any training the mean output of a low tone is unlike that of a high one, loud or quiet."""
    torch.manual_seed(0)
    frontend = Wav2Vec2FrontEnd(((64, 256, 80), (32, 4, 2)))
    start_from_mel(frontend, 16000)
    time = torch.arange(8000) / 16000
    tones = torch.stack([gain * torch.sin(2 * math.pi * f * time) for f in (431.0, 2903.0) for gain in (0.3, 0.05)])
    with torch.no_grad():
        nodes = torch.nn.functional.normalize(frontend(tones).mean(dim=1), dim=1)
    likeness = nodes @ nodes.T
    assert likeness[0, 1] > likeness[0, 2] and likeness[2, 3] > likeness[1, 3]


def test_the_loop_trains_with_all_of_it(videos: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if key != "n_classes"} | {
        "conv_layers": ((8, 64, 20), (8, 3, 2)), "fusion_layers": (-2,), "batch_independent": True,
    }  # fmt: skip
    config = TrainConfig.model_validate({
        "name": "tiny-graph", "family": "hetero_graph", "config": settings, "normalize": "given", "half": True,
        "frontend": {"kind": "waveform", "sample_rate": 16000, "n_mels": 0, "target_length": 16000},
        "data": {"root": videos, "train_folds": [1], "test_folds": [2], "video": True}, "output": tmp_path,
        "augment": {
            "shift": False, "mixup": 0.0, "frequency_mask": 0, "time_mask": 0, "hide_picture": 0.2, "hide_sound": 0.2,
            "turn": True,
        },
        "optimizer": {"batch_size": 3},
        "loop": {
            "kind": "event_graph", "augment": True, "mel_start": True, "synchrony": 1.0, "picture": 0.5,
            "evaluate_every": 2, "keep": "last",
            "solver": {"OPTIM": "AdamW", "BASE_LR": 0.001, "MAX_ITER": 4, "LR_SCHEDULER_NAME": "WarmupCosineLR"},
        },
    })  # fmt: skip
    recognizer = load_recognizer(str(train(config)), "cpu")
    assert isinstance(recognizer.network, HeteroGraph) and recognizer.labels == ["high", "low"]
    assert all(p.isfinite().all() for p in recognizer.parameters())
    assert (tmp_path / "tiny-graph.jsonl").read_text().count("\n") == 2
