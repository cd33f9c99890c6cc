"""EquiAV's pre-training: network, augmentations, losses, a step that learns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from PIL import Image
from torch import nn

from models.errors import SettingsError
from models.families.equiav import EquiAV, EquiAVConfig
from models.families.equiav_pretraining import EquiAVPretraining, EquiAVPretrainingConfig
from models.training.equiav import PretrainingLoss, inter_modal_loss, intra_modal_loss
from models.training.equiav_augment import (
    AudioAugmentation,
    Jitter,
    VideoAugmentation,
    audio_vector,
    augment_picture,
    augment_spectrogram,
    centroid_vectors,
    draw_audio_augmentation,
    draw_video_augmentation,
    shift_hue,
    video_vector,
)
from models.training.equiav_views import pretraining_batch, pretraining_step
from models.training.equiav_weights import copy_matching

TINY: dict[str, Any] = {
    "n_classes": 8, "intra_size": 6, "width": 16, "depth": 1, "n_heads": 2, "target_length": 64, "image_size": 32,
    "projection_hidden": 12, "vector_width": 10, "n_centroid": 3,
}  # fmt: skip


def build(**changes: Any) -> EquiAVPretraining:
    torch.manual_seed(0)
    return EquiAVPretraining(EquiAVPretrainingConfig.model_validate(TINY | changes)).eval()


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_published_number_of_parameters_and_entries() -> None:
    with torch.device("meta"):
        network = EquiAVPretraining(EquiAVPretrainingConfig())
    assert (sum(p.numel() for p in network.parameters()), len(network.state_dict())) == (211_655_168, 586)


def test_embedding_is_no_matter_of_chance() -> None:
    network, features = build(), torch.randn(2, 64, 128)
    with torch.no_grad():
        first, second = network(features), network(features)
        assert first.shape == (2, 8)
        assert torch.equal(first, second)
        assert not torch.equal(first, build(centroid_seed=1)(features))
        assert torch.equal(first[:1], network(features[:1])) or torch.allclose(
            first[:1], network(features[:1]), atol=1e-5
        )
    assert network.embed_frames(torch.rand(2, 1, 3, 32, 32)).shape == (2, 8)
    attention = network.predictor_attention(torch.randn(2, 3, 64, 128), torch.randn(2, 3, 24), "a")
    assert attention.shape == (2, 8, 3, 32)
    assert torch.allclose(attention.sum(dim=3), torch.ones(2, 8, 3), atol=1e-5)


def test_vector_sizes_are_checked() -> None:
    with pytest.raises(SettingsError, match="audio_vector_size cannot be 26"):
        build(audio_vector_size=26)
    with pytest.raises(SettingsError, match="video_vector_size cannot be 17"):
        build(video_vector_size=17)


def test_file_is_recognised_and_feeds_fine_tuning() -> None:
    network = build()
    state_dict = network.state_dict()
    assert EquiAVPretraining.recognizes(state_dict)
    assert not EquiAV.recognizes(state_dict)
    config = EquiAVPretraining.infer_config(state_dict, {"n_heads": 2, "n_centroid": 3})
    assert config == network.config
    tuned = EquiAV(EquiAVConfig(
        n_classes=3, width=16, depth=1, n_heads=2, target_length=64, image_size=32, projection_size=8, mode="multimodal"
    ))  # fmt: skip
    report = copy_matching(state_dict, tuned.state_dict())
    tuned.load_state_dict(report.merged)
    assert torch.equal(tuned.get_parameter("norm_a.weight"), network.get_parameter("norm_a.weight"))
    assert "pred_a_inter.weight" in report.fresh
    assert "cross_attn_a.norm.weight" in report.ignored


@pytest.mark.parametrize("size", [7, 12, 21, 23, 24])
def test_audio_vectors(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(50):
        drawn = draw_audio_augmentation(96, 128, rng, size, time_mask=20, frequency_mask=10)
        vector = audio_vector(drawn, 96, 128, size)
        assert vector.shape == (size,)
        assert torch.isfinite(vector).all()
        view = augment_spectrogram(torch.randn(3, 96, 128), drawn)
        assert view.shape == (3, 96, 128)
        if drawn.mask is not None:
            assert vector[0] == 1 and drawn.mask.time[1] - drawn.mask.time[0] <= 20
            assert 0 <= drawn.mask.frequency[0] <= drawn.mask.frequency[1] <= 128
        else:
            assert not vector[:7].any()
        assert (drawn.crop is None) == (size < 12)
        assert (drawn.blur_sigma is None and not drawn.flip) or size >= 23


@pytest.mark.parametrize("size", [16, 18, 21])
def test_video_vectors(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(20):
        drawn = draw_video_augmentation(40, 50, rng, size)
        assert video_vector(drawn, 40, 50, size).shape == (size,)
        assert augment_picture(picture(), drawn, 32).shape == (3, 32, 32)
        assert not (drawn.flip or drawn.grey) or size >= 18
        assert (drawn.turns is None and not drawn.upside_down) or size >= 21


def test_mask_flip_and_turn_do_what_they_say() -> None:
    whole = (0, 0, 64, 128)
    spectrogram = torch.rand(3, 64, 128) + 1
    flipped = augment_spectrogram(spectrogram, AudioAugmentation(None, whole, flip=True))
    assert torch.allclose(flipped, spectrogram.flip(2))
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:8, :8] = 255  # a bright top left corner goes to the bottom left with a quarter turn counter-clockwise
    turned = augment_picture(Image.fromarray(pixels), VideoAugmentation((0, 0, 32, 32), turns=1), 32)
    assert turned[0, -4, 4] > 1 and turned[0, 4, 4] < 0


def test_hue_follows_colorsys() -> None:
    import colorsys

    colours = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    shifted = shift_hue(colours, 0.3)
    for row in range(4):
        for column in range(5):
            hue, saturation, value = colorsys.rgb_to_hsv(*colours[:, row, column].tolist())
            expected = colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value)
            assert torch.allclose(shifted[:, row, column], torch.tensor(expected), atol=1e-5)


def test_jitter_loses_what_is_below_the_mean() -> None:
    spectrogram = torch.tensor([-2.0, 0.5]).view(1, 1, 2).expand(3, 1, 2)
    jitter = Jitter((0, 1, 2, 3), 1.0, 1.0, 1.0, 0.0)
    view = augment_spectrogram(spectrogram, AudioAugmentation(None, None, jitter))
    assert view.min() == 0.0


def test_centroid_vectors_come_from_their_seed() -> None:
    first = centroid_vectors("a", 4, 24, seed=3)
    assert first.shape == (4, 24)
    first.zero_()  # a caller's change must not reach the next one
    assert centroid_vectors("a", 4, 24, seed=3).any()
    assert not torch.equal(centroid_vectors("v", 4, 18, seed=3), centroid_vectors("v", 4, 18, seed=4))


def test_losses_of_perfect_and_random_pairs() -> None:
    x = torch.eye(6)
    assert inter_modal_loss(x, x).accuracy == 100
    assert inter_modal_loss(x, x).loss < 1e-4
    assert intra_modal_loss(x, x).accuracy == 100
    assert inter_modal_loss(x, x.roll(1, 0)).accuracy == 0
    same = torch.ones(6, 3)
    assert math.isclose(inter_modal_loss(same, same).loss.item(), math.log(6), rel_tol=1e-5)
    assert math.isclose(intra_modal_loss(same, same).loss.item(), math.log(11), rel_tol=1e-5)


def test_temperatures_can_be_learnt() -> None:
    loss = PretrainingLoss(0, 0)
    assert {name for name, _ in loss.named_parameters()} == {"inter_temperature", "intra_temperature"}
    embeddings = tuple(torch.randn(4, 5) for _ in range(6))
    loss(embeddings).loss.backward()
    assert all(p.grad is not None and p.grad != 0 for p in loss.parameters())
    with pytest.raises(SettingsError):
        PretrainingLoss(-1)


def test_steps_learn_to_tell_pairs_apart() -> None:
    network = build()
    rng = np.random.default_rng(0)
    features = torch.randn(4, 64, 128, generator=torch.Generator().manual_seed(0))
    batch = pretraining_batch(features, [picture(i) for i in range(4)], network.config, rng, 20, 10)
    assert batch.audio_vector.shape == (4, 24) and batch.video_centroid.shape == (4, 3, 18)
    before = [error.mean().item() for error in network.forward_views(*batch).equivariance_error()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, betas=(0.9, 0.95))
    losses = [pretraining_step(network, PretrainingLoss(), batch, optimizer).loss.item() for _ in range(25)]
    assert losses[-1] < 0.6 * losses[0]
    after = [error.mean().item() for error in network.forward_views(*batch).equivariance_error()]
    assert after[0] < 0.7 * before[0] and after[1] < 0.7 * before[1]
    unused = [n for n, p in network.named_parameters() if p.grad is None and "norm1_" not in n and "norm2_" not in n]
    assert unused  # gradients are cleared after a step
    network.zero_grad()
    PretrainingLoss()(network.forward_views(*batch)).loss.backward()
    idle = {n.split(".")[-2] for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == {"norm1_a", "norm1_v", "norm2_a", "norm2_v"}
    with pytest.raises(SettingsError, match="2 pictures for 4"):
        pretraining_batch(features, [picture()] * 2, network.config, rng)


def test_step_refuses_a_loss_that_is_not_a_number() -> None:
    network = build()
    batch = pretraining_batch(torch.randn(2, 64, 128), [picture()] * 2, network.config, np.random.default_rng(0))
    before = network.get_parameter("norm_a.weight").clone()
    with pytest.raises(SettingsError, match="not a number"):
        pretraining_step(
            network,
            PretrainingLoss(),
            batch._replace(audio=batch.audio * math.nan),
            torch.optim.SGD(network.parameters(), 1.0),
        )
    assert torch.equal(network.get_parameter("norm_a.weight"), before)
    assert isinstance(network, nn.Module)


def two_batches() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator)


def one_of_two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    results: dict[str, torch.Tensor] = {}
    for name, function in (("inter", inter_modal_loss), ("intra", intra_modal_loss)):
        first, second = (x[3 * rank : 3 * rank + 3].clone().requires_grad_() for x in two_batches())
        result = function(first, second, 0.2)
        result.loss.backward()
        assert first.grad is not None
        results |= {f"{name}_loss": result.loss.detach(), f"{name}_grad": first.grad}
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compare_with_each_others_keys(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two_processes, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, function in (("inter", inter_modal_loss), ("intra", intra_modal_loss)):
        first, second = two_batches()
        first.requires_grad_()
        whole = function(first, second, 0.2)
        mean = (parts[0][f"{name}_loss"] + parts[1][f"{name}_loss"]) / 2
        assert torch.allclose(mean, whole.loss.detach(), atol=1e-5)
        if name == "intra":  # keys carry gradient, summed over processes
            whole.loss.backward()
            assert first.grad is not None
            gathered = torch.cat([part["intra_grad"] for part in parts])
            assert torch.allclose(gathered, 2 * first.grad, atol=1e-5)
    # Between modalities keys carry none: only the direction sound -> picture reaches the sound.
    first, second = two_batches()
    first.requires_grad_()
    a, v = nn.functional.normalize(first, dim=1), nn.functional.normalize(second, dim=1)
    nn.functional.cross_entropy(a @ v.T / 0.2, torch.arange(6)).backward()
    assert first.grad is not None
    assert torch.allclose(torch.cat([part["inter_grad"] for part in parts]), first.grad, atol=1e-5)
