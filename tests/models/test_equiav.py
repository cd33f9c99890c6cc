"""EquiAV's fine-tuning network: modes, exact evidence, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import Card
from models.checkpoint import load_recognizer, save_checkpoint
from models.errors import CheckpointError, SettingsError
from models.families.equiav import EquiAV, EquiAVConfig
from models.frontends import build_frontend
from models.layers.equiav import sine_positions
from models.recognizer import Recognizer
from models.registry import family
from models.token_evidence import token_evidence
from models.training.equiav_weights import strip_prefixes

TINY: dict[str, Any] = {
    "n_classes": 5, "width": 16, "depth": 2, "n_heads": 2, "n_mels": 128, "target_length": 64, "image_size": 32,
    "projection_hidden": 12, "projection_size": 8, "head_hidden": 6,
}  # fmt: skip
VARIANTS = [
    {"mode": mode, "head_type": head, "inter_linear": linear}
    for mode in ("audio_only", "video_only", "multimodal")
    for head in ("linear", "mlp")
    for linear in (True, False)
]


def build(**changes: Any) -> EquiAV:
    torch.manual_seed(0)
    return EquiAV(EquiAVConfig.model_validate(TINY | changes)).eval()


def inputs(network: EquiAV, batch: int = 2) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, network.config.target_length, network.config.n_mels, generator=generator)
    frames = torch.rand(batch, 3, 3, 40, 36, generator=generator) if network.config.mode != "audio_only" else None
    return features, frames


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_shapes_and_gradients(variant: dict[str, Any]) -> None:
    network = build(**variant)
    features, frames = inputs(network)
    features.requires_grad_()
    hidden = network.forward_features(features, frames)
    logits = network(features, frames)
    assert hidden.shape == (2, network.config.head_input)
    assert logits.shape == (2, 5)
    assert torch.allclose(network.forward_head(hidden), logits)
    logits[:, 3].sum().backward()
    if variant["mode"] == "video_only":
        assert features.grad is None
    else:
        assert features.grad is not None and (features.grad.abs().amax(dim=(1, 2)) > 0).all()


def test_published_number_of_parameters_and_entries() -> None:
    with torch.device("meta"):
        household = EquiAV(EquiAVConfig(n_classes=21))
        everything = EquiAV(EquiAVConfig(n_classes=527, mode="multimodal"))
    assert (sum(p.numel() for p in household.parameters()), len(household.state_dict())) == (86_912_533, 252)
    assert (sum(p.numel() for p in everything.parameters()), len(everything.state_dict())) == (173_313_551, 498)


@pytest.mark.parametrize("mode", ["audio_only", "video_only", "multimodal"])
def test_evidence_sums_to_the_logit(mode: str) -> None:
    network = build(mode=mode)
    features, frames = inputs(network)
    with torch.no_grad():
        evidence = network.token_evidence(features, frames)
        total = network.mlp_head[0].bias + sum(part.sum(dim=(2, 3)) for part in evidence.values())
        assert torch.allclose(total, network(features, frames), atol=1e-5)
    assert set(evidence) == set(network.config.towers)
    shapes = {"a": (2, 5, 8, 4), "v": (2, 5, 2, 2)}
    assert all(part.shape == shapes[tower] for tower, part in evidence.items())


def test_evidence_is_refused_where_it_is_not_exact() -> None:
    for changes in ({"head_type": "mlp"}, {"inter_linear": False}):
        network = build(**changes)
        with pytest.raises(SettingsError, match="not linear"):
            network.token_evidence(inputs(network)[0])


def test_evidence_with_seconds_and_hertz() -> None:
    network = build()
    frontend = build_frontend(EquiAV.default_frontend(network.config))
    card = Card(name="t", family="equiav", frontend={}, labels=list("abcde"), task="multi-label")
    recognizer = Recognizer(network, frontend, card)
    waveform = np.random.default_rng(0).standard_normal(16000 * 4 // 10).astype(np.float32) * 0.1
    shown = token_evidence(recognizer, waveform)
    with torch.no_grad():
        logits = network(recognizer.features(waveform))[0].numpy()
    assert np.allclose(shown.logits, logits, atol=1e-5)
    assert np.allclose(shown.bias + shown.sound.sum(axis=(1, 2)), logits, atol=1e-5)  # type: ignore[union-attr]
    assert np.allclose(np.diff(shown.time_edges), 0.16)
    assert (np.diff(shown.frequency_ranges.ravel()) > 0).all()
    # 0.4 s give 38 frames: two columns are whole, the third has 6 of 16 frames, the last is padding.
    assert np.allclose(shown.padding, [0, 0, 10 / 16, 1])
    low = float(shown.over_time(0).min()) - 1
    assert shown.segments(0, low) == [(float(shown.time_edges[0]), float(shown.time_edges[3]))]
    assert np.isclose(shown.shares(0)[0], shown.over_frequency(0).sum())
    assert shown.shares(0)[1] == 0.0


def test_views() -> None:
    network = build()
    features, _ = inputs(network)
    evidence, centers = network.time_attention(features)
    assert evidence.shape == (2, 5, 4)
    assert centers.tolist() == [7.5, 23.5, 39.5, 55.5]
    received = network.token_attention(features)
    assert received.shape == (2, 2, 8, 4)
    # Every query spreads a weight of one over all keys.
    assert torch.allclose(received.sum(dim=(2, 3)), torch.ones(2, 2), atol=1e-5)
    assert all(block.attn.attention is None for block in network.blocks_a)  # type: ignore[union-attr]
    for layer in network.cam_layers():
        seen: list[Tensor] = []
        handle = layer.module.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
        network(features)
        handle.remove()
        assert layer.to_map(seen[0]).shape == (2, 16, 4, 8)


def test_patches_lie_where_the_map_says() -> None:
    network = build()
    blank = torch.zeros(1, 64, 128)
    marked = blank.clone()
    marked[0, 32:48, 16:32] = 1.0  # time column 2, frequency row 1
    with torch.no_grad():
        change = [network.embed_patches(x.unsqueeze(1).expand(-1, 3, -1, -1), "a") for x in (blank, marked)]
    moved = (change[0] - change[1]).abs().sum(dim=2)[0].unflatten(0, (8, 4))
    assert moved.nonzero().tolist() == [[1, 2]]


def test_views_of_a_configuration() -> None:
    assert build().views == EquiAV.info.views
    assert "time_attention" not in build(head_type="mlp").views | build(mode="multimodal").views
    assert build(mode="video_only").views == frozenset()
    assert build(mode="multimodal").modalities == ("audio", "video")
    assert build().modalities == ("audio",)


def test_missing_modality_is_named() -> None:
    with pytest.raises(SettingsError, match="video frame"):
        build(mode="multimodal")(torch.zeros(1, 64, 128))
    with pytest.raises(SettingsError, match="needs sound"):
        build()(None)
    with pytest.raises(SettingsError, match="reads 128 x 64"):
        build()(torch.zeros(1, 48, 128))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_published_file_is_recognised(variant: dict[str, Any]) -> None:
    network = build(**variant, both_towers=True)
    published = {f"__M__.{key}": value for key, value in network.state_dict().items()}
    published["__L_inter__.tau"] = torch.tensor(0.07)
    stripped = strip_prefixes(published)
    assert EquiAV.recognizes(stripped)
    hints = {"mode": variant["mode"], "n_heads": 2}
    config = EquiAV.infer_config(stripped, hints)
    expected = network.config.model_copy(update={"both_towers": False})
    ignore = {"head_hidden"} if variant["head_type"] == "linear" else set()
    ignore |= {"projection_hidden"} if variant["inter_linear"] else set()
    assert config.model_dump(exclude=ignore) == expected.model_dump(exclude=ignore)
    again = EquiAV(config).eval()
    again.load_state_dict(EquiAV.convert_state_dict(stripped, config))
    features, frames = inputs(network)
    with torch.no_grad():
        assert torch.equal(again(features, frames), network(features, frames))


def test_mode_is_told_from_the_head() -> None:
    for mode in ("audio_only", "video_only", "multimodal"):
        state_dict = build(mode=mode, both_towers=True, projection_size=6).state_dict()
        assert EquiAV.infer_config(state_dict, {}).mode == mode
    ambiguous = build(both_towers=True, projection_size=16).state_dict()
    with pytest.raises(CheckpointError, match="cannot be told"):
        EquiAV.infer_config(ambiguous, {})
    with pytest.raises(CheckpointError, match="not for multimodal"):
        EquiAV.infer_config(build().state_dict(), {"mode": "multimodal"})


def test_other_clip_lengths() -> None:
    state_dict = build().state_dict()
    shorter = EquiAV.infer_config(state_dict, {"target_length": 32, "n_heads": 2})
    table = EquiAV.convert_state_dict(state_dict, shorter)["pos_embed_a"]
    assert torch.equal(table, sine_positions(16, 8, 2))
    longer = EquiAV.infer_config(state_dict, {"target_length": 96, "n_heads": 2})
    converted = EquiAV.convert_state_dict(state_dict, longer)
    assert torch.equal(converted["pos_embed_a"], sine_positions(16, 8, 6))
    EquiAV(longer).load_state_dict(converted)
    trained = dict(state_dict) | {"pos_embed_a": torch.randn(1, 32, 16)}
    with pytest.raises(CheckpointError, match="cannot be extended"):
        EquiAV.convert_state_dict(trained, longer)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    network = build()
    frontend = EquiAV.default_frontend(network.config)
    card = Card(
        name="tiny", family="equiav", config=network.config.model_dump(), frontend=frontend.model_dump(),
        labels=list("abcde"), task="multi-label",
    )  # fmt: skip
    save_checkpoint(tmp_path / "tiny", network, card)
    again = load_recognizer(tmp_path / "tiny", "cpu")
    features, _ = inputs(network)
    with torch.no_grad():
        assert torch.equal(again(features), network(features))
    assert family("equiav") is EquiAV


def test_meta_device_build_takes_no_memory() -> None:
    with torch.device("meta"):
        network = EquiAV(EquiAVConfig(mode="multimodal"))
    assert {p.device.type for p in network.parameters()} == {"meta"}


def test_fixed_positions_do_not_train() -> None:
    assert not build().get_parameter("pos_embed_a").requires_grad
    assert build(learn_positions=True).get_parameter("pos_embed_a").requires_grad
