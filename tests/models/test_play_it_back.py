"""Play It Back: published mode, front end, checkpoints, playback result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.card import Card
from models.checkpoint import build_network, fill_network, load_recognizer, save_checkpoint
from models.errors import CheckpointError, SettingsError
from models.families.play_it_back import PlayItBack, PlayItBackConfig
from models.frontends import build_frontend
from models.frontends.play_it_back import SCHEDULES, PlayItBackMel, PlayItBackMelConfig, take_apart
from models.layers.mvit import MViTConfig
from models.playback import replayed_stretches, tidy_segments

TINY_ENCODER = {
    "embed_dim": 8, "depth": 4, "width_factors": [(1, 2), (2, 2), (3, 2)], "head_factors": [(1, 2), (2, 2), (3, 2)],
    "query_strides": [(1, 2, 2), (2, 2, 2), (3, 2, 2)],
}  # fmt: skip
TINY_DECODER = {
    "n_latents": 8, "latent_dim": 16, "cross_dim_head": 8, "latent_heads": 2, "latent_dim_head": 8, "self_per_cross": 1
}  # fmt: skip


def tiny_config(**changes: Any) -> PlayItBackConfig:
    """A small model for half-second clips: levels of 50, 100, 150 and 200 frames."""
    schedule = {"clip_seconds": 0.5, "num_frames": 50, "hop_factor": 0.2, "crop_frames": 50}
    schedule |= changes.pop("schedule", {})
    values = {
        "n_classes": 5, "playbacks": 2, "n_mels": 32, "encoder": TINY_ENCODER, "decoder": TINY_DECODER,
        "schedule": schedule, "slot_resolution": 50, "slots": {"slot_dim": 16},
    }  # fmt: skip
    return PlayItBackConfig.model_validate(values | changes)


def tiny(**changes: Any) -> tuple[PlayItBack, PlayItBackMel]:
    """A small network in evaluation mode, and its front end."""
    torch.manual_seed(0)
    network = PlayItBack(tiny_config(**changes)).eval()
    return network, build_frontend(PlayItBack.default_frontend(network.config))  # type: ignore[return-value]


def noise(seconds: float = 0.5, batch: int = 2) -> torch.Tensor:
    """White noise at 16 kHz."""
    return torch.randn(batch, round(16000 * seconds), generator=torch.Generator().manual_seed(1)) * 0.1


VARIANTS: dict[str, dict[str, Any]] = {
    "encoder": {"playbacks": 0},
    "x1": {"playbacks": 1},
    "x2": {"playbacks": 2},
    "x3": {"playbacks": 3},
    "two groups": {"n_classes": 5, "groups": (2, 3)},
    "squeezed": {"schedule": {"squeeze": True}},
    "predictions": {"decoder": TINY_DECODER | {"fusion_of": "predictions"}},
    "concat": {"decoder": TINY_DECODER | {"fusion": "adaptive_concat"}},
    "tied": {"playbacks": 3, "decoder": TINY_DECODER | {"tie_layers": True, "self_per_cross": 2}},
    "corrected": {"schedule": {"corrected": True}},
    "corrected encoder": {"playbacks": 0, "schedule": {"corrected": True}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_gradient_and_round_trip(variant: str, tmp_path: Path) -> None:
    network, front = tiny(**VARIANTS[variant])
    features = front(noise()).requires_grad_()
    logits = network(features)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, network.forward_head(network.forward_features(features)))
    gradient = torch.autograd.grad(logits[:, 1].sum(), features)[0]
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    card = Card(
        name="tiny", family="play_it_back", config=network.config.model_dump(mode="json"),
        frontend=front.config.model_dump(mode="json"), labels=list("abcde"), task="single-label",
        label_groups=list(network.config.groups),
    )  # fmt: skip
    save_checkpoint(tmp_path / "tiny", network, card)
    loaded = load_recognizer(tmp_path / "tiny")
    torch.testing.assert_close(loaded(loaded.features(noise())), logits.detach(), atol=1e-6, rtol=0)
    assert build_network(card).state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize("schedule", [{}, {"corrected": True}])
def test_batch_mates_do_not_matter(schedule: dict[str, Any]) -> None:
    network, front = tiny(schedule=schedule)
    features = front(noise())
    together = network(features)
    torch.testing.assert_close(together[1:], network(features[1:]), atol=1e-6, rtol=0)


def test_published_code_lets_batch_mates_matter() -> None:
    network, front = tiny(minimum_over_batch=True)
    features = front(noise())
    assert not torch.equal(network(features)[1:], network(features[1:]))


def test_published_sizes() -> None:
    """Parameter counts of the specification."""
    with torch.device("meta"):

        def count(**values: Any) -> int:
            network = PlayItBack(PlayItBackConfig.model_validate(values))
            return sum(parameter.numel() for parameter in network.parameters())

        encoders = {size: count(encoder=size, playbacks=0) for size in "TSB"}
        assert encoders == {"T": 23_551_125, "S": 34_216_917, "B": 50_759_157}
        assert count(encoder="S") == 70_425_298
        assert count() == 86_967_538
        assert count(playbacks=2) == 104_925_654
        assert count(playbacks=3) == 122_883_770
        assert count(playbacks=3, n_classes=527, schedule="audioset") == 123_163_246
        assert count(playbacks=3, n_classes=397, groups=(97, 300), schedule="epickitchens") == 122_996_586


@pytest.mark.parametrize(
    ("name", "computed"),
    [
        ("vggsound", [400, 800, 1195, 1600]), ("audioset", [400, 800, 1204, 1600]),
        ("epickitchens", [400, 800, 1185, 1600]),
    ],
)  # fmt: skip
def test_schedules(name: str, computed: list[int]) -> None:
    schedule = SCHEDULES[name]
    assert [schedule.computed_frames(level) for level in range(4)] == computed
    corrected = schedule.model_copy(update={"corrected": True, "squeeze": False})
    assert corrected.lengths(4) == computed


def test_levels_as_published() -> None:
    """Lengths after stacking and taking apart, also told from their sum alone."""
    wanted = {
        ("vggsound", 2): [400, 800], ("vggsound", 3): [398, 796, 1195], ("vggsound", 4): [400, 800, 1200, 1600],
        ("epickitchens", 3): [395, 790, 1185], ("audioset", 2): [200, 400], ("audioset", 3): [133, 266, 400],
        ("audioset", 4): [100, 200, 300, 400], ("vggsound", 1): [400], ("audioset", 1): [200],
    }  # fmt: skip
    for (name, n_levels), lengths in wanted.items():
        assert SCHEDULES[name].lengths(n_levels) == lengths
        assert SCHEDULES[name].lengths(n_levels, sum(lengths)) == lengths
    # A short clip of three levels is a little longer than a full one.
    assert SCHEDULES["vggsound"].lengths(3, 2400) == [400, 800, 1200]
    with pytest.raises(SettingsError, match="not the 3 levels"):
        SCHEDULES["vggsound"].lengths(3, 2390)


def test_frame_times_point_at_the_sound() -> None:
    """A click is at the same second at every level."""
    front = PlayItBackMel(PlayItBackMelConfig(n_levels=4))
    wave = torch.zeros(1, 80000)
    wave[0, 40000] = 1.0
    features = front(wave)[0]
    for level in front.levels:
        frame = int(features[level.frames].mean(dim=1).argmax())
        assert level.times[frame] == pytest.approx(2.5, abs=level.hop_seconds)
    assert front.frame_times(features.shape[0]).shape == (4000,)
    assert (front.levels[2].times < 0).sum() == 5
    merged, times = front.merge_levels(np.exp(features.numpy()))
    assert times[merged.sum(axis=1).argmax()] == pytest.approx(2.5, abs=0.0125)


@pytest.mark.parametrize("seconds", [0.001, 0.2, 0.4999, 0.5, 0.9])
@pytest.mark.parametrize("schedule", [{}, {"squeeze": True}, {"corrected": True}])
def test_clips_of_any_length(seconds: float, schedule: dict[str, Any]) -> None:
    network, front = tiny(schedule=schedule)
    features = front(noise(seconds, batch=1))
    assert features.shape[1] == front.frames_for(round(16000 * seconds))
    assert front.frame_times(features.shape[1]).shape == (features.shape[1],)
    assert network(features).isfinite().all()


def test_silence_has_no_gradient_trouble() -> None:
    network, front = tiny()
    wave = torch.zeros(1, 8000, requires_grad=True)
    network(front(wave)).sum().backward()
    assert wave.grad is not None and wave.grad.isfinite().all()


def test_wrong_features_are_refused() -> None:
    network, _ = tiny()
    with pytest.raises(SettingsError, match="not the 3 levels"):
        network(torch.zeros(1, 77, 32))
    with pytest.raises(SettingsError, match="front end"):
        network(torch.zeros(1, 300, 64))
    with pytest.raises(SettingsError, match="class token"):
        PlayItBack(tiny_config(encoder=TINY_ENCODER | {"class_token": True}))


def test_published_container() -> None:
    """Recognised and rebuilt from its own settings, and from shapes alone."""
    network, _ = tiny(playbacks=1)
    weights = network.state_dict()
    assert PlayItBack.recognizes(weights)
    config = PlayItBack.infer_config(weights, {
        "schedule": network.config.schedule, "n_mels": 32,
        "decoder": network.config.decoder,
    })  # fmt: skip
    assert config.encoder.blocks == network.config.encoder.blocks
    rebuilt = build_network(Card(
        name="x", family="play_it_back", config=config.model_dump(), frontend={}, labels=[], task="single-label"
    ))  # fmt: skip
    fill_network(rebuilt, PlayItBack.convert_state_dict(weights, config), "file")
    text = """
    MODEL: {NUM_CLASSES: 527, PLAYBACK: 2}
    TRAIN: {DATASET: audioset}
    AUDIO_DATA: {SAMPLING_RATE: 16000, CLIP_SECS: 10.0, NUM_FRAMES: 1000, WINDOW_LENGTH: 20}
    DATA_LOADER: {TEST_CROP_SIZE: [400, 128]}
    ENCODER: {DEPTH: 24, DROPPATH_RATE: 0.3, DIM_MUL: [[2, 2.0], [5, 2.0], [21, 2.0]], REL_POS_SPATIAL: false,
      HEAD_MUL: [[2, 2.0], [5, 2.0], [21, 2.0]], POOL_KV_STRIDE_ADAPTIVE: [4, 4],
      POOL_Q_STRIDE: [[0, 1, 1], [2, 2, 2], [5, 2, 2], [21, 2, 2]]}
    DECODER: {FUSION_LOC: features}
    """
    published = PlayItBack.infer_config({}, {"cfg": text})
    assert published.schedule == SCHEDULES["audioset"]
    assert published.encoder.blocks == MViTConfig.of_size("B").blocks and published.playbacks == 2
    with pytest.raises(CheckpointError, match="YAML"):
        PlayItBack.infer_config({}, {"cfg": "{"})


def test_bare_encoder_keeps_its_norm() -> None:
    network, _ = tiny(playbacks=0)
    bare = {key.removeprefix("encoder."): value for key, value in network.state_dict().items()}
    assert PlayItBack.recognizes(bare)
    config = PlayItBack.infer_config(bare, {"n_mels": 32})
    assert config.playbacks == 0 and config.n_classes == 5
    converted = PlayItBack.convert_state_dict(bare, config)
    assert torch.equal(converted["encoder.norm.weight"], bare["norm.weight"])
    assert "norm.weight" not in converted


def test_published_file_in_corrected_mode(caplog: pytest.LogCaptureFixture) -> None:
    """What the mode lacks is named, and its slots start new; a foreign file is refused."""
    published, _ = tiny(playbacks=1)
    corrected, front = tiny(playbacks=1, schedule={"corrected": True})
    with caplog.at_level("WARNING"):
        weights = PlayItBack.convert_state_dict(published.state_dict(), corrected.config)
    assert "saliency_slots.0.0.embedding.bias" in caplog.text and "untrained" in caplog.text
    corrected.load_state_dict(weights)
    assert corrected(front(noise())).isfinite().all()
    inferred = PlayItBack.infer_config(corrected.state_dict(), {"schedule": published.config.schedule, "n_mels": 32})
    assert inferred.corrected
    foreign = {"v.patch_embed.proj.weight": torch.zeros(8, 1, 16, 16)}
    assert not PlayItBack.recognizes(foreign)
    with pytest.raises(CheckpointError, match="missing"):
        fill_network(corrected, PlayItBack.convert_state_dict(foreign, corrected.config), "foreign.pth")


def test_published_levels_reach_every_pass() -> None:
    """Every input frame is the level's frame it says it is."""
    network, front = tiny(playbacks=3)
    features = front(noise())
    levels = features.split(network.lengths(features), dim=1)
    for heard in network.listen(features, explain=True):
        for clip in range(2):
            rows = zip(heard.source_level[clip].tolist(), heard.source_frame[clip].tolist(), strict=True)
            rebuilt = torch.stack([levels[level][clip, frame] for level, frame in rows])
            assert torch.equal(rebuilt, heard.inputs[clip])


@pytest.mark.parametrize("schedule", [{}, {"squeeze": True}, {"corrected": True}])
def test_playback_is_plain_data(schedule: dict[str, Any]) -> None:
    network, front = tiny(schedule=schedule)
    features = front(noise(batch=1))
    result = network.playback(features, draws=3)
    np.testing.assert_allclose(result.scores, network(features)[0].detach().numpy(), atol=1e-5)
    assert result.scores_by_pass().shape == (3, 5) and len(result.passes) == 3
    n_frames = network.lengths(features)[0]
    for step, heard in enumerate(result.passes):
        assert heard.features.shape == (n_frames, 32) and heard.source_seconds.shape == (n_frames,)
        assert heard.attention.shape == heard.attention_seconds.shape == heard.attention_spread.shape
        assert (heard.attention_spread.max() > 0) == (not result.corrected)
        assert heard.decoder_map.sum() == pytest.approx(1.0, abs=1e-4)
        for scores in (heard.scores, heard.encoder_scores, heard.for_scores, heard.against_scores):
            assert scores.shape == (5,) and np.isfinite(scores).all()
        assert heard.hop_seconds == pytest.approx(network.config.schedule.hop(step) / 16000)
        for segments in (heard.selected, heard.replayed):
            assert segments.ndim == 2 and (segments[:, 1] > segments[:, 0]).all()
    if result.corrected:
        np.testing.assert_array_equal(result.passes[0].selected, result.passes[1].replayed)
        assert result.passes[0].token_map is not None
    else:
        assert "random start" in result.notes[0]
    with pytest.raises(SettingsError, match="one clip"):
        network.playback(front(noise()))
    with pytest.raises(SettingsError, match="only once"):
        tiny(playbacks=0)[0].playback(features)


def test_display_segments() -> None:
    raw = np.array([[0.0, 0.02], [0.05, 0.1], [1.0, 1.02], [2.0, 2.3]])
    np.testing.assert_allclose(tidy_segments(raw), [[0.0, 0.1], [2.0, 2.3]])
    seconds, levels = np.array([0.0, 0.1, 0.15, 0.2, 0.3, 0.6, 0.65]), np.array([0, 1, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(replayed_stretches(seconds, levels, 1, 0.05), [[0.075, 0.225], [0.575, 0.675]])


@pytest.mark.parametrize("schedule", [{}, {"corrected": True}])
def test_cam_layer_is_called_once_and_fits(schedule: dict[str, Any]) -> None:
    network, front = tiny(playbacks=1, schedule=schedule)
    (layer,) = network.cam_layers()
    maps = []
    handle = layer.module.register_forward_hook(lambda _m, _i, out: maps.append(layer.to_map(out)))
    network(front(noise()))
    handle.remove()
    assert len(maps) == 1 and maps[0].shape == (2, 64, 2, 1)
    assert (layer.time_step, layer.frequency_step) == (32, 32)


def test_stacked_levels_come_apart() -> None:
    stacked = torch.arange(2 * 3 * 1195 * 2, dtype=torch.float32).reshape(2, 3, 1195, 2)
    features = take_apart(stacked)
    parts = features.split([398, 796, 1195], dim=1)
    for level, part in enumerate(parts):
        assert torch.equal(part, stacked[:, level, -part.shape[1] :])
