"""Auditory SlowFast: shapes, gradients, checkpoints, streams and what its heads decompose into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.card import Card
from models.checkpoint import fill_network, load_recognizer, save_checkpoint
from models.errors import CheckpointError, SettingsError
from models.families.slowfast import SlowFast
from models.frontends import build_frontend
from models.layers.slowfast_blocks import slow_index
from models.layers.slowfast_settings import SlowFastConfig, frontend_from_settings, hints_from_settings
from models.recognizer import Recognizer
from models.stream_evidence import decompose
from models.training.multiview import score_views

TINY: dict[str, dict[str, Any]] = {
    "slowfast": {"n_classes": 5, "width": 8, "n_frames": 32, "label_embedding_size": 6},
    "slow": {"n_classes": 5, "width": 4, "n_frames": 16, "arch": "slow"},
    "fast": {"n_classes": 7, "width": 4, "n_frames": 32, "arch": "fast", "class_groups": (3, 4)},
    "deep": {"n_classes": 5, "width": 4, "n_frames": 16, "arch": "slow", "depth": 101},
    "wide bands": {"n_classes": 5, "width": 8, "n_frames": 32, "alpha": 2, "beta": 4, "n_groups": 2},
}


def tiny(name: str, seed: int = 0) -> SlowFast:
    torch.manual_seed(seed)
    # Blocks that start as the identity would pass every test that looks at their convolutions.
    return SlowFast(SlowFastConfig.model_validate(TINY[name] | {"zero_init_final_bn": False})).eval()


def features(network: SlowFast, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, network.config.n_frames, network.config.n_mels, generator=generator)


def recognizer(name: str = "slowfast") -> Recognizer:
    network = tiny(name)
    frontend = SlowFast.default_frontend(network.config)
    labels = [f"class {i}" for i in range(network.config.n_classes)]
    card = Card(
        name="tiny", family="slowfast", config=network.config.model_dump(mode="json"), labels=labels,
        frontend=frontend.model_dump(mode="json"), task="single-label", label_groups=list(network.config.class_groups),
    )  # fmt: skip
    return Recognizer(network, build_frontend(frontend), card)


@pytest.mark.parametrize("name", TINY)
def test_shapes_and_gradients(name: str) -> None:
    network = tiny(name)
    x = features(network).requires_grad_(True)
    hidden = network.forward_features(x)
    assert hidden.shape[:3] == (2, 1, 1)
    logits = network.forward_head(hidden)
    assert logits.shape == (2, network.config.n_classes)
    torch.testing.assert_close(logits, network(x))
    logits.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=(0, 1)) > 0).all()
    heard = x.grad.abs().sum(dim=(0, 2)) > 0
    if network.config.arch == "slow":
        # A stem kernel of one frame with a stride of two: slow-only models never see every second frame.
        assert heard[::2].all() and not heard[1::2].any()
    else:
        assert heard.all()
    untouched = [k for k, p in network.named_parameters() if p.grad is None and not k.startswith("linear1")]
    assert untouched == []


@pytest.mark.parametrize("name", TINY)
def test_settings_and_weights_round_trip(name: str, tmp_path: Path) -> None:
    """Saved and loaded again (built on the meta device), and recognised from bare weights."""
    network = tiny(name)
    frontend = SlowFast.default_frontend(network.config)
    labels = [str(i) for i in range(network.config.n_classes)]
    card = Card(
        name="tiny", family="slowfast", config=network.config.model_dump(mode="json"), labels=labels,
        frontend=frontend.model_dump(mode="json"), task="single-label",
    )  # fmt: skip
    save_checkpoint(tmp_path / "tiny", network, card)
    loaded = load_recognizer(tmp_path / "tiny", "cpu")
    x = features(network)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x))
    weights = network.state_dict()
    assert SlowFast.recognizes(weights)
    hints = {"n_frames": network.config.n_frames, "alpha": network.config.alpha, "zero_init_final_bn": False}
    assert SlowFast.infer_config(weights, hints) == network.config


def test_the_published_front_ends_follow_from_the_settings() -> None:
    """Window, hop, frames and crop of the seven published configurations (seconds: 5.119 and 1.999)."""
    table = {
        ("slowfast", 309, 512): (16000, 320, 160, 5.119), ("fast", 309, 512): (16000, 320, 160, 5.119),
        ("slow", 309, 128): (16000, 320, 640, 5.119), ("slowfast", 397, 400): (24000, 240, 120, 1.999),
        ("slow", 397, 100): (24000, 240, 480, 1.999), ("slowfast", 44, 400): (24000, 240, 120, 1.999),
    }  # fmt: skip
    for (arch, classes, n_frames), expected in table.items():
        groups = (97, 300) if classes == 397 else ()
        config = SlowFastConfig(arch=arch, n_classes=classes, class_groups=groups, n_frames=n_frames)
        found = SlowFast.default_frontend(config).model_dump()
        assert (found["sample_rate"], found["win_length"], found["hop_length"], found["clip_seconds"]) == expected
        assert found["target_length"] == n_frames
        frontend = build_frontend(found)
        assert frontend.frames_for(frontend.window_samples) == n_frames


@pytest.mark.parametrize(
    ("frames", "alpha", "position", "frame"), [(160, 4, 13, 52), (512, 4, 127, 511), (512, 4, 126, 506)]
)
def test_slow_frames_are_picked_in_single_precision(frames: int, alpha: int, position: int, frame: int) -> None:
    index = slow_index(frames, alpha)
    assert len(index) == frames // alpha and index[position] == frame
    # The formula in float32: from below in the lower half, from above in the upper one.
    count = frames // alpha
    step = np.float32(frames - 1) / np.float32(count - 1)
    i = np.arange(count, dtype=np.float32)
    lower, upper = i * step, np.float32(frames - 1) - (count - 1 - i) * step
    assert index.tolist() == np.where(i < count // 2, lower, upper).astype(int).tolist()


def test_gradients_after_inference_mode() -> None:
    slow_index.cache_clear()
    network = tiny("slowfast")
    with torch.inference_mode():
        network(features(network))
    network(features(network).requires_grad_(True)).sum().backward()


@pytest.mark.parametrize("name", ["slowfast", "fast"])
def test_logits_decompose_exactly(name: str) -> None:
    network = tiny(name)
    x = features(network)
    with torch.no_grad():
        logits = network(x)
        maps = network.class_maps(x)
        summed = network.class_bias() + sum(part.sum(dim=(2, 3)) for part in maps)
        torch.testing.assert_close(summed, logits, rtol=1e-4, atol=1e-5)
        steps, centers = network.time_attention(x)
    torch.testing.assert_close(steps.sum(dim=2) + network.class_bias(), logits, rtol=1e-4, atol=1e-5)
    assert steps.shape == (2, network.config.n_classes, 8) and centers.tolist() == [4.0 * i for i in range(8)]


def test_decomposition_in_seconds_and_hertz() -> None:
    model = recognizer()
    wave = np.random.default_rng(0).standard_normal(model.window_samples).astype(np.float32) * 0.1
    found = decompose(model, wave, "class 2")
    assert [s.stream for s in found.streams] == ["slow", "fast"] and abs(found.gap) < 1e-5
    slow, fast = found.streams
    assert slow.values.shape == (2, 4) and fast.values.shape == (8, 4)
    np.testing.assert_allclose(fast.times, np.arange(8) * 4 * 160 / 16000)
    assert fast.frequencies[0, 0] < 100 and fast.frequencies[-1, 1] > 7500
    np.testing.assert_allclose(fast.frequencies[1:, 0], fast.frequencies[:-1, 1])
    with pytest.raises(SettingsError, match="no class named"):
        decompose(model, wave, "nonsense")


def test_cam_layers_lie_on_the_input() -> None:
    """A change of one cell moves the map most where the layer says that cell is."""
    network = tiny("slowfast")
    seen = {}
    layers = network.cam_layers()
    assert len(layers) == 6
    for layer in layers:
        layer.module.register_forward_hook(lambda _m, _i, out, name=layer.name: seen.update({name: out.detach()}))
    with torch.no_grad():
        network(features(network, 1))
    for layer in layers:
        found = layer.to_map(seen[layer.name])
        assert layer.time_center + layer.time_step * (found.shape[2] - 1) < network.config.n_frames
        assert layer.frequency_center + layer.frequency_step * (found.shape[3] - 1) < network.config.n_mels
        assert found.shape[3] == network.config.n_mels // layer.frequency_step


def test_several_positions_average_probabilities() -> None:
    """A longer clip in a single-stream model, and a wider one: probabilities are averaged, not logits."""
    network = tiny("slow")
    x = torch.randn(1, 24, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        positions = network.head(network.forward_features(x)).flatten(1, 2)
        assert positions.shape[1] == 3 * 2
        torch.testing.assert_close(network(x).softmax(dim=1), positions.softmax(dim=2).mean(dim=1))


@pytest.mark.parametrize(("name", "shape"), [("slowfast", (40, 128)), ("slow", (8, 128)), ("slowfast", (32, 64))])
def test_inputs_of_the_wrong_size_are_explained(name: str, shape: tuple[int, int]) -> None:
    network = tiny(name)
    with pytest.raises(SettingsError, match=f"reads {network.config.n_frames} frames x 128 bands"):
        network(torch.zeros(1, *shape))


def test_wrong_checkpoints_are_explained() -> None:
    weights = tiny("slowfast").state_dict()
    with pytest.raises(CheckpointError, match="how many frames"):
        SlowFast.infer_config(weights, {})
    with pytest.raises(CheckpointError, match="no classifier"):
        SlowFast.infer_config({k: v for k, v in weights.items() if not k.startswith("head")}, {"n_frames": 32})
    with pytest.raises(CheckpointError, match="not the weights"):
        SlowFast.infer_config({"head.projection.weight": torch.zeros(5, 3)}, {"n_frames": 32})
    with pytest.raises(CheckpointError, match="do not fit"):
        fill_network(tiny("slow"), SlowFast.convert_state_dict(weights, tiny("slow").config), "a file")
    with pytest.raises(CheckpointError, match="label embeddings"):
        tiny("slow").label_embedding(torch.zeros(1, 5))


def test_older_and_unused_label_embedding_entries_are_converted() -> None:
    network = tiny("slowfast")
    weights = network.state_dict()
    older = {k.replace("linear1.", "linear."): v for k, v in weights.items()}
    older |= {"linear2.weight": torch.zeros(100, 6), "bn1.running_mean": torch.zeros(6)}
    config = SlowFast.infer_config(older, {"n_frames": 32})
    assert config.label_embedding_size == 6
    assert set(SlowFast.convert_state_dict(older, config)) == set(weights)
    # A projection of another width (an abandoned draft) is dropped.
    draft = {k: v for k, v in weights.items() if not k.startswith("linear1")} | {
        "linear.weight": torch.zeros(2048, 300)
    }
    config = SlowFast.infer_config(draft, {"n_frames": 32})
    assert config.label_embedding_size == 0
    assert "linear1.weight" not in SlowFast.convert_state_dict(draft, config)


def test_settings_text_of_published_files() -> None:
    text = (
        "MODEL: {ARCH: slowfast, NUM_CLASSES: [97, 300]}\nSLOWFAST: {ALPHA: 8}\nAUDIO_DATA: {SAMPLING_RATE: 24000, "
        "CLIP_SECS: 1.999, WINDOW_LENGTH: 10, HOP_LENGTH: 5, NUM_FRAMES: 400, NUM_FREQUENCIES: 128}\n"
    )
    assert hints_from_settings(text) == {"arch": "slowfast", "alpha": 8, "n_frames": 400, "n_mels": 128}
    frontend = build_frontend(frontend_from_settings(text))
    assert (frontend.win_length, frontend.hop_length, frontend.window_samples) == (240, 120, 47975)
    for broken in (None, 3, "a: [", "just text", "- 1", "!!python/object/apply:os.system ['true']"):
        assert hints_from_settings(broken) == {} and frontend_from_settings(broken) is None


def test_views_of_a_clip() -> None:
    model = recognizer("fast")
    wave = np.random.default_rng(0).standard_normal(3 * model.window_samples).astype(np.float32)
    found = score_views(model, wave, n_views=3)
    assert found.views.shape == (3, 7) and found.starts[0] == 0.0
    np.testing.assert_allclose(found.starts[-1], (len(wave) - model.window_samples - 1) / model.sample_rate)
    np.testing.assert_allclose(found.combined, found.views.sum(axis=0), rtol=1e-6)
    # Verbs and nouns are each a distribution.
    np.testing.assert_allclose(found.views[:, :3].sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.views[:, 3:].sum(axis=1), 1.0, rtol=1e-5)
    short = score_views(model, wave[:500], n_views=2)
    np.testing.assert_array_equal(short.views[0], short.views[1])
