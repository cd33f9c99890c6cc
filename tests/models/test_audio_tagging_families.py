"""What every audio-tagging family has to do, on tiny configurations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.card import Card
from models.checkpoint import build_network, fill_network, load_recognizer, save_checkpoint
from models.errors import CheckpointError, SettingsError
from models.frontends import build_frontend
from models.layers.frame_tagging import FrameTagger
from models.layers.talnet import with_duplicates, without_duplicates
from models.network import Network
from models.registry import family

_STACK = {"n_mels": 16, "embedding_size": 16, "n_conv_layers": 4, "n_pool_layers": 2}
# name: (family, settings, shape of the features)
TINY: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "ast": ("ast", {"model_size": "custom", "width": 32, "n_heads": 2, "depth": 3, "n_mels": 36, "target_length": 56}, (2, 56, 36)),
    "resnet": ("resnet_attention", {"block": "basic", "layers": (1, 1, 1, 1), "width": 4}, (2, 70, 64)),
    "resnet corrected": (
        "resnet_attention", {"block": "basic", "layers": (1, 1, 1, 1), "width": 4, "corrected_head": True}, (2, 70, 64)
    ),
    "crnn lin": ("crnn", _STACK, (2, 41, 16)),
    "crnn att": ("crnn", _STACK | {"pooling": "att"}, (2, 41, 16)),
    "crnn max": ("crnn", _STACK | {"pooling": "max"}, (2, 41, 16)),
    "crnn h-att": ("crnn", _STACK | {"pooling": "h-att"}, (2, 57, 16)),
    "crnn all": ("crnn", _STACK | {"pooling": "all"}, (2, 41, 16)),
    "crnn corrected": ("crnn", _STACK | {"corrected_head": True}, (2, 41, 16)),
    "crnn without batch norm": ("crnn", _STACK | {"batch_norm": False, "kernel_size": (3, 5)}, (2, 41, 16)),
    "cnn_transformer": ("cnn_transformer", _STACK | {"pooling": "att"}, (2, 41, 16)),
    "cnn_transformer positions": ("cnn_transformer", _STACK | {"addpos": True, "target_length": 41}, (2, 41, 16)),
    "transformer": ("transformer", {"n_mels": 16, "embedding_size": 16, "pooling": "exp"}, (2, 41, 16)),
    "linear": ("linear", {"n_mels": 16, "hidden_size": 8}, (2, 11, 16)),
    "fnet": ("fnet", {"n_mels": 16, "n_layers": 2, "hidden_size": 8, "intermediate_size": 12}, (2, 11, 16)),
    "ffnet": ("ffnet", {"n_mels": 16, "n_layers": 2, "hidden_size": 8, "intermediate_size": 12}, (2, 11, 16)),
    "psla": ("psla", {"b": 0}, (2, 65, 128)),
    "psla one head": ("psla", {"b": 0, "heads": 1, "corrected_head": True}, (2, 65, 128)),
    "psla mean": ("psla", {"b": 0, "heads": 0}, (2, 65, 128)),
    "mobilenet": ("mobilenet", {}, (2, 50, 40)),
}  # fmt: skip
N_CLASSES = 5
WITH_TIME = [name for name, (family_name, _, _) in TINY.items() if "time_attention" in family(family_name).info.views]


def tiny(name: str) -> tuple[Network, Tensor]:
    family_name, settings, shape = TINY[name]
    torch.manual_seed(0)
    cls = family(family_name)
    network = cls(cls.Config.model_validate(settings | {"n_classes": N_CLASSES}))
    # Random normalisation statistics, so that evaluation mode differs from the identity.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval(), torch.randn(shape)


def card_of(network: Network) -> Card:
    frontend = network.default_frontend(network.config)
    return Card(
        name="tiny", family=network.info.name, config=network.config.model_dump(mode="json"),
        frontend=frontend.model_dump(mode="json"), labels=[f"class {i}" for i in range(N_CLASSES)], task="multi-label",
    )  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_forward_is_features_then_head(name: str) -> None:
    network, features = tiny(name)
    logits = network(features)
    assert logits.shape == (2, N_CLASSES)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, network.forward_head(network.forward_features(features)))
    single = torch.cat([network(features[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(single, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_the_input_and_all_weights(name: str) -> None:
    network, features = tiny(name)
    features.requires_grad_(True)
    network(features).square().sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    without = [key for key, p in network.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", TINY)
def test_checkpoint_round_trip(name: str, tmp_path: Path) -> None:
    network, features = tiny(name)
    save_checkpoint(tmp_path / "tiny", network, card_of(network))
    loaded = load_recognizer(tmp_path / "tiny", device="cpu")
    weights = loaded.network.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():
        # Not bit by bit: kernels round by where in memory the file's weights lie.
        torch.testing.assert_close(loaded.network(features), network(features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_built_without_memory_and_filled(name: str) -> None:
    network, features = tiny(name)
    empty = build_network(card_of(network))
    assert all(value.is_meta for value in empty.state_dict().values())
    fill_network(empty, network.state_dict(), "a test")
    with torch.no_grad():
        torch.testing.assert_close(empty.eval()(features), network(features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_wrong_weights_are_refused_by_name(name: str) -> None:
    network, _ = tiny(name)
    weights = dict(network.state_dict())
    missing = next(iter(weights))
    del weights[missing]
    weights["surplus.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="surplus") as error:
        fill_network(network, weights, "a test")
    assert missing in str(error.value)


@pytest.mark.parametrize("name", WITH_TIME)
def test_time_contributions_sum_to_the_output(name: str) -> None:
    network, features = tiny(name)
    with torch.no_grad():
        contributions, centers = network.time_attention(features)
        logits = network(features)
    assert contributions.shape == (2, N_CLASSES, len(centers))
    corrected = getattr(network.config, "corrected_head", False)
    total = contributions.sum(dim=2)
    torch.testing.assert_close(total, logits if corrected else logits.sigmoid(), atol=2e-5, rtol=1e-4)
    assert (centers.diff() > 0).all() and centers[0] >= 0 and centers[-1] < features.shape[1]


@pytest.mark.parametrize("name", [name for name in TINY if tiny(name)[0].cam_layers()])
def test_cam_layers_have_maps_with_gradients(name: str) -> None:
    network, features = tiny(name)
    for layer in network.cam_layers():
        kept: list[Tensor] = []
        handle = layer.module.register_forward_hook(lambda _m, _i, output, kept=kept: kept.append(output))
        logits = network(features.clone().requires_grad_(True))
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), kept)
        grid = layer.to_map(kept[0])
        assert grid.ndim == 4 and grid.shape[0] == 2
        assert layer.to_map(gradient).abs().sum() > 0, layer.name
        # The last column's centre lies within the clip (a strided map may reach half a cell beyond it).
        assert layer.time_center + (grid.shape[2] - 1) * layer.time_step < features.shape[1] + layer.time_step
        assert (
            layer.frequency_center + (grid.shape[3] - 1) * layer.frequency_step
            < features.shape[2] + layer.frequency_step
        )


@pytest.mark.parametrize("name", TINY)
def test_every_activation_module_is_used_once_and_keeps_its_input(name: str) -> None:
    """What DeepLift and guided backpropagation need."""
    network, features = tiny(name)
    calls: Counter[str] = Counter()
    for key, module in network.named_modules():
        if isinstance(module, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.GELU):
            assert not getattr(module, "inplace", False)
            module.register_forward_hook(lambda _m, _i, _o, key=key: calls.update([key]))
    network(features)
    assert [key for key, count in calls.items() if count != 1] == []


@pytest.mark.parametrize("name", TINY)
def test_published_front_end_fits(name: str) -> None:
    """A clip through the family's own front end has the shape that its network reads."""
    network, features = tiny(name)
    config = network.default_frontend(network.config)
    frontend = build_frontend(config)
    assert frontend.config.padding == "zero"
    assert frontend(torch.zeros(1, 4000)).shape[1] == config.target_length
    if hasattr(network.config, "n_mels"):
        assert config.n_mels == features.shape[2]


def test_self_attention_rows_sum_to_one_and_leave_nothing_behind() -> None:
    for name in ("cnn_transformer", "transformer"):
        network, features = tiny(name)
        before = network(features)
        weights = network.self_attention(features)  # type: ignore[operator]
        steps = network.forward_features(features).shape[1] if name == "cnn_transformer" else features.shape[1]
        assert weights.shape == (2, 2, 8, steps, steps)
        torch.testing.assert_close(weights.sum(dim=4), torch.ones(2, 2, 8, steps))
        assert torch.equal(network(features), before)
        attentions = [module for module in network.modules() if hasattr(module, "kept")]
        assert all(module.kept == [] and not module.keep_attention for module in attentions)


def test_doubled_names_of_convolutions() -> None:
    network, _ = tiny("crnn att")
    weights = network.state_dict()
    published = with_duplicates(weights)
    assert published["conv1.conv.weight"] is published["conv.0.conv.weight"]
    only_second = {key: value for key, value in published.items() if not key.startswith("conv.")}
    for given in (published, only_second):
        back = without_duplicates(given)
        assert set(back) == set(weights)
        assert all(torch.equal(back[key], weights[key]) for key in weights)


def test_pooling_without_weights_has_to_be_given() -> None:
    network, _ = tiny("crnn lin")
    assert isinstance(network, FrameTagger)
    with pytest.raises(CheckpointError, match="pooled"):
        type(network).infer_config(network.state_dict(), {})
    assert type(network).infer_config(network.state_dict(), {"pooling": "lin"}) == network.config


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"n_conv_layers": 5}, "multiple"),
        ({"kernel_size": (2, 3)}, "odd"),
        ({"n_mels": 3}, "halved"),
        ({"embedding_size": 18}, "remaining bands"),
    ],
)
def test_impossible_convolutions_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        family("crnn").Config.model_validate(_STACK | settings)


def test_features_that_do_not_fit_are_refused() -> None:
    psla, _ = tiny("psla mean")
    with pytest.raises(SettingsError, match="128 mel bands"):
        psla(torch.randn(1, 65, 64))
    table, _ = tiny("cnn_transformer positions")
    with pytest.raises(SettingsError, match="positions of 41 frames"):
        table(torch.randn(1, 42, 16))


def test_head_weights_that_exceed_one() -> None:
    """Published: clamped; normalised on demand, then contributions still sum to the output."""
    network, features = tiny("psla")
    with torch.no_grad():
        network.attention.head_weight.fill_(0.6)  # type: ignore[union-attr, operator]
        plain = network.pool(network.forward_features(features))  # type: ignore[operator]
        weights = network.state_dict()
        cls = family("psla")
        normal = cls(cls.Config.model_validate({"b": 0, "n_classes": N_CLASSES, "normalize_heads": True})).eval()
        normal.load_state_dict(weights)
        torch.testing.assert_close(normal(features).sigmoid(), plain.output / 2.4)
        contributions, _ = normal.time_attention(features)
        torch.testing.assert_close(contributions.sum(dim=2), plain.output / 2.4)


def test_legacy_resnet_has_no_time_attention() -> None:
    cls = family("resnet_attention")
    network = cls(cls.Config.model_validate({"legacy_832": True, "n_classes": N_CLASSES})).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 400, 64)).shape == (1, N_CLASSES)
    with pytest.raises(CheckpointError, match="no time"):
        network.time_attention(torch.randn(1, 400, 64))
    with pytest.raises(SettingsError, match="385 to 416"):
        network(torch.randn(1, 300, 64))


def test_ast_strides_are_those_of_the_published_file_with_as_many_patches() -> None:
    cls = family("ast")
    sizes = {"model_size": "custom", "width": 64, "n_heads": 1, "depth": 1, "n_classes": 35}
    for stride, length in ((10, 1024), (12, 1024), (14, 1024), (16, 1024), (10, 512), (10, 128)):
        config = cls.Config.model_validate(
            sizes | {"frequency_stride": stride, "time_stride": stride, "target_length": length}
        )
        assert cls.infer_config(cls(config).state_dict(), {}) == config
    with pytest.raises(CheckpointError, match="patch positions"):
        cls.infer_config(cls(config).state_dict(), {"time_stride": 16})


def test_ast_attention_is_a_share_of_all_tokens() -> None:
    network, features = tiny("ast")
    maps = network.token_attention(features)  # type: ignore[operator]
    assert maps.shape == (2, 3, *network.config.grid)  # type: ignore[attr-defined]
    assert (maps >= 0).all() and (maps.sum(dim=(2, 3)) < 1).all()
