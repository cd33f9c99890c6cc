"""Corrected mode: the acceptance tests of its design."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.families.play_it_back import PlayItBack
from models.layers.replay import Clock, keep_and_drop, profile_on_frames, select_segments, sound_floor, token_profile
from models.training.playback_slots import decoder_loss, slot_loss, soft_mask, valid_frames
from tests.models.test_play_it_back import noise, tiny
from tests.parity.fill import fill_state_dict

VGG = Clock([200, 100, 67, 50], [400, 800, 1195, 1600], 16000)


def selected(profile: np.ndarray, budget: int) -> list[list[int]]:
    """Segments with the design's shortest length, gap and range."""
    return select_segments(profile, 16, 8, budget, 0.693).tolist()


def test_segments_check_values() -> None:
    profile = np.full(400, -2.0)
    profile[100:130], profile[135:140], profile[300:303] = 3.0, 2.0, 5.0
    assert selected(profile, 160) == [[100, 140], [294, 310]]
    assert selected(profile, 40) == [[294, 310]]
    assert selected(np.zeros(400), 100) == []
    step = np.where(np.arange(400) < 150, -3.0, 3.0)
    assert selected(step, 100) == [[150, 250]]


def test_segments_at_the_edges() -> None:
    profile = np.full(400, -2.0)
    profile[0], profile[399] = 5.0, 5.0
    assert selected(profile, 100) == [[0, 16], [384, 400]]
    assert selected(profile, 16) == [[0, 16]]
    assert selected(profile, 0) == []
    assert selected(np.zeros(0), 3) == []
    assert selected(np.array([np.nan, 1.0, 2.0]), 3) == []


@pytest.mark.parametrize(("level", "count"), [(1, 160), (2, 200), (3, 229)])
def test_replay_check_values(level: int, count: int) -> None:
    segments = np.array([[80, 120], [240, 300]])
    seconds, source_level, source_frame = VGG.replay(segments, level)
    assert (source_level == level).sum() == count and set(source_level) == {0, level}
    cell = np.floor(seconds / VGG.cell_seconds + 1e-9)
    inside = ((cell >= 80) & (cell < 120)) | ((cell >= 240) & (cell < 300))
    np.testing.assert_array_equal(inside, source_level == level)
    hops = np.array(VGG.hops)[source_level]
    assert np.abs(source_frame * hops / 16000 - seconds).max() <= 0.5 * 200 / 16000 + 1e-9


def test_nothing_selected_replays_level_0() -> None:
    seconds, level, frame = VGG.replay(np.zeros((0, 2), dtype=np.int64), 2)
    assert not level.any()
    np.testing.assert_array_equal(frame, np.arange(400))
    np.testing.assert_allclose(seconds, np.arange(400) * 0.0125)


def test_replay_time_always_rises() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        corners = np.sort(generator.choice(401, size=2 * generator.integers(1, 5), replace=False)).reshape(-1, 2)
        for level in (1, 2, 3):
            seconds, levels, frames = VGG.replay(corners, level)
            assert (np.diff(seconds) > 0).all() and seconds[0] == 0 and seconds[-1] < VGG.seconds
            assert (frames < np.array(VGG.lengths)[levels]).all()


def test_profile_peaks_where_its_token_is() -> None:
    for token in range(13):
        evidence = torch.zeros(1, 13, 4)
        evidence[0, token] = 1.0
        frames = profile_on_frames(token_profile(evidence), 400, 32)
        assert int(frames[0].argmax()) == min(32 * token, 399)
        assert float(frames[0].max()) == pytest.approx(1.0, abs=1e-6)


def test_soft_mask_has_a_fixed_size() -> None:
    """Its mean is the budget, and no gradient can change that."""
    profile = (
        3 * torch.randn(4, 400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ).requires_grad_()
    valid = torch.arange(400)[None] < torch.tensor([400, 300, 100, 40])[:, None]
    mask = soft_mask(profile, valid, 0.25, 1.0)
    mean = mask.sum(dim=1) / valid.sum(dim=1)
    assert (mean - 0.25).abs().max() < 1e-4 and not mask[~valid].any()
    assert torch.autograd.grad(mean.sum(), profile, retain_graph=True)[0].abs().max() < 1e-6
    assert torch.autograd.grad(mask[:, 0].sum(), profile)[0].abs().max() > 1e-3


def test_floor_and_masked_inputs() -> None:
    inputs = torch.arange(40.0).reshape(1, 20, 2)
    valid = torch.arange(20)[None] < 11
    assert sound_floor(inputs, valid).flatten().tolist() == pytest.approx([2.0, 3.0])
    kept, dropped = keep_and_drop(inputs, (torch.arange(20)[None] < 3).float(), valid)
    assert torch.equal(kept[0, :3], inputs[0, :3]) and torch.equal(dropped[0, 3:], inputs[0, 3:])
    assert torch.equal(kept[0, 11:], inputs[0, 11:])
    assert kept[0, 3:11].unique(dim=0).tolist() == [[2.0, 3.0]]


VGG_SCHEDULE = {
    "clip_seconds": 5.0, "num_frames": 500, "hop_factor": 0.0249951175, "crop_frames": 400, "corrected": True
}  # fmt: skip


def sharp(playbacks: int = 3, seconds: float = 5.0) -> tuple[PlayItBack, Tensor]:
    """A corrected network whose slots select something, and features of two clips with a loud stretch."""
    network, front = tiny(playbacks=playbacks, schedule=VGG_SCHEDULE)
    shapes = {name: (list(value.shape), "float32") for name, value in network.state_dict().items()}
    network.load_state_dict(fill_state_dict(shapes, 1))
    with torch.no_grad():
        network.time_slots.slots_mu.mul_(10)
        network.time_slots.to_q.weight.mul_(4)
    wave = noise(seconds)
    wave[0, 6000:12000] *= 20
    wave[1, 2000:5000] *= 20
    return network, front(wave)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_gradients_go_where_they_should(step: int, multi_label: bool) -> None:
    network, features = sharp()
    targets = torch.eye(5)[[1, 3]]
    passes = network.listen(features, explain=True)
    valid = valid_frames(network, features, passes[step], None)
    loss = slot_loss(network, passes[step], valid, targets, multi_label)
    loss.total.backward()
    for name, parameter in network.named_parameters():
        touched = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert touched == name.startswith("time_slots."), name
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.zero_grad(set_to_none=True)
    decoder_loss(network, network.listen(features), targets, multi_label).backward()
    assert all(parameter.grad is None for parameter in network.time_slots.parameters())
    assert all(parameter.grad is not None for name, parameter in network.decoder.named_parameters())
    assert all(
        parameter.grad is not None for name, parameter in network.encoder.named_parameters() if "head" not in name
    )


def test_unlabelled_clips_teach_the_slots_too() -> None:
    network, features = sharp(1)
    (first, _) = network.listen(features)
    valid = valid_frames(network, features, first, None)
    own = torch.cat(network.encoder.classify(network.encoder.pool(first.tokens)), dim=1).argmax(dim=1)
    labelled = slot_loss(network, first, valid, torch.eye(5)[own]).total
    torch.testing.assert_close(slot_loss(network, first, valid, None).total, labelled)


def test_scores_depend_on_every_level_that_is_heard() -> None:
    network, features = sharp()
    features.requires_grad_()
    passes = network.listen(features)
    assert any(len(found) for heard in passes[:-1] for found in heard.segments or [])
    gradient = torch.autograd.grad(network(features).square().sum(), features)[0]
    used = torch.zeros(features.shape[:2], dtype=torch.bool)
    for heard in passes:
        used.scatter_(1, heard.index, True)
    parts = zip(gradient.abs().sum(dim=2).split(network.lengths(features), 1),
                used.split(network.lengths(features), 1), strict=True)  # fmt: skip
    for level, (values, heard_at) in enumerate(parts):
        assert (values.sum() > 0) == bool(heard_at.any()), level
        assert not values[~heard_at].any()


@pytest.mark.parametrize("seconds", [1.2, 3.1, 5.0])
def test_segments_stay_in_the_clip(seconds: float) -> None:
    """Inside the valid part (to one cell), at least the shortest length, together at most the budget."""
    network, features = sharp(seconds=seconds)
    clock = network.clock()
    guessed = network.valid_cells(features, clock, None)
    told = network.valid_cells(features, clock, [seconds] * 2)
    assert all(abs(a - b) <= 1 for a, b in zip(guessed, told, strict=True))
    shortest = round(network.config.encoder.total_stride[0] / 2)
    selected_any = False
    for heard in network.listen(features, valid_seconds=[seconds] * 2, explain=True):
        for found, cells in zip(heard.segments or [], told, strict=True):
            budget = int(0.25 * cells)
            selected_any |= len(found) > 0
            assert (found >= 0).all() and (found <= cells).all()
            assert (found[:, 1] - found[:, 0] >= min(shortest, budget)).all()
            assert (found[:, 1] - found[:, 0]).sum() <= budget
    assert selected_any


def test_chosen_segments_are_replayed() -> None:
    network, features = sharp(1)
    chosen = [np.array([[80, 120], [240, 300]]), np.zeros((0, 2), dtype=np.int64)]
    heard = network.listen(features, choose=lambda *_: chosen)[1]
    assert (heard.source_level[0] == 1).sum() == 160 and not heard.source_level[1].any()


def test_decoder_knows_when_a_token_was() -> None:
    """Positions follow the replayed time, not the place in the input."""
    network, features = sharp(1)
    chosen = [np.array([[0, 100]]), np.array([[300, 400]])]
    passes = network.listen(features, choose=lambda *_: chosen)
    contexts = network.contexts(passes)
    width, bands = network.config.encoder.width, network.config.decoder.n_frequency_bands
    assert passes[1].seconds is not None
    times = contexts[1][:, :: passes[1].grid[1], width + 2 * bands].detach().numpy()
    expected = 2 * passes[1].seconds[:, np.arange(0, 400, 32)] / 5.0 - 1
    np.testing.assert_allclose(times, expected, atol=1e-6)
    assert times[0, 1] < times[1, 1]
