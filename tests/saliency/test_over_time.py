"""What counted when: every kind for every family that offers it, in seconds of the clip, adding up where it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import Card
from models.errors import SettingsError
from models.frontends import build_frontend
from models.network import Network, NetworkConfig
from models.recognizer import Recognizer
from models.registry import FamilyInfo
from saliency.over_time import KINDS, OverTime, borders, kinds_of, over_time, without_crumbs
from saliency.rollout import attention_rollout
from tests.models.tiny_families import CONFIGS, sound, tiny_recognizer

# Families with every kind; the remainder beside the moments is the class's constant, or also the picture.
CASES = [(name, kind) for name in CONFIGS for kind in KINDS]
OFFERED = {
    "ast": ("token_attention", "class_scores"),
    "cnn_transformer": ("time_attention", "class_scores"),
    "crnn": ("time_attention", "class_scores"),
    "equiav": ("time_attention", "token_attention", "class_scores"),
    "equiav_pretraining": ("token_attention",),
    "ffnet": ("class_scores",),
    "fnet": ("class_scores",),
    "hetero_graph": ("time_attention", "class_scores"),
    "linear": ("time_attention", "class_scores"),
    "mobilenet": ("class_scores",),
    "play_it_back": ("class_scores",),
    "psla": ("time_attention", "class_scores"),
    "resnet_attention": ("time_attention", "class_scores"),
    "slowfast": ("time_attention", "class_scores"),
    "transformer": ("time_attention", "class_scores"),
}


def window_of(recognizer: Recognizer) -> np.ndarray:
    """A clip that fills a window, or 0.6 s for models that read any length."""
    samples = recognizer.window_samples or round(0.6 * recognizer.sample_rate)
    return sound(samples / recognizer.sample_rate, recognizer.sample_rate)[:samples]


def check(result: OverTime, seconds: float) -> None:
    """What holds for every kind."""
    assert result.title and result.zero and result.notes
    assert len(result.times) == len(result.values) == len(result.spans) > 0
    assert np.isfinite(result.values).all() and np.all(np.diff(result.times) > 0)
    assert result.spans[0, 0] == 0.0 and np.all(result.spans[1:, 0] == result.spans[:-1, 1])
    assert np.all(result.spans[:, 0] <= result.times + 1e-9) and np.all(result.times <= result.spans[:, 1] + 1e-9)
    assert result.spans[-1, 1] == pytest.approx(seconds, abs=0.03)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_offered(name: str) -> None:
    assert kinds_of(tiny_recognizer(name)) == OFFERED[name]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_kind_of_every_family(name: str, kind: str) -> None:
    recognizer = tiny_recognizer(name)
    waveform = window_of(recognizer)
    target = recognizer.labels[1]
    if kind not in kinds_of(recognizer):
        with pytest.raises(SettingsError, match="does not offer"):
            over_time(recognizer, waveform, target, kind)
        return
    result = over_time(recognizer, waveform, target, kind)
    check(result, len(waveform) / recognizer.sample_rate)
    assert result.kind == kind and result.target == ("" if kind == "token_attention" else target)
    if kind == "class_scores":
        assert result.unit == "probability" and np.all((result.values >= 0) & (result.values <= 1))
    elif kind == "token_attention":
        assert np.all(result.values >= 0) and result.values.mean() == pytest.approx(1.0, abs=0.02)
    else:
        with torch.no_grad():
            logit = float(recognizer(recognizer.features(waveform))[0, 1])
        assert result.adds_up_to in ("logit", "score")
        total = logit if result.adds_up_to == "logit" else 1 / (1 + np.exp(-logit))
        assert result.total == pytest.approx(total, abs=1e-3)
        assert result.values.sum() + result.rest == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(("name", "bias"), [("slowfast", "head.projection.bias"), ("equiav", "mlp_head.0.bias")])
def test_the_rest_is_the_constant_of_the_class(name: str, bias: str) -> None:
    recognizer = tiny_recognizer(name)
    parameters = dict(recognizer.network.named_parameters())
    with torch.no_grad():
        parameters[bias].copy_(torch.linspace(-2.0, 2.0, len(recognizer.labels)))
    result = over_time(recognizer, window_of(recognizer), recognizer.labels[2], "time_attention")
    assert result.rest == pytest.approx(float(parameters[bias][2]), abs=1e-3)


def test_padding_behind_a_short_clip_is_told_apart() -> None:
    recognizer = tiny_recognizer("psla")
    waveform = window_of(recognizer)[: recognizer.sample_rate // 2]
    result = over_time(recognizer, waveform, recognizer.labels[0], "time_attention")
    check(result, 0.5)
    assert abs(result.rest) > 1e-3 and "padding after the end" in " ".join(result.notes)


@pytest.mark.parametrize("name", ["psla", "slowfast", "equiav", "ast", "crnn", "hetero_graph", "play_it_back"])
def test_long_clips_window_by_window(name: str) -> None:
    recognizer = tiny_recognizer(name)
    window = recognizer.window_samples
    assert window is not None
    waveform = sound(2.5 * window / recognizer.sample_rate, recognizer.sample_rate)
    shares: list[float] = []
    for kind in kinds_of(recognizer):
        result = over_time(recognizer, waveform, recognizer.labels[0], kind, progress=shares.append)
        check(result, len(waveform) / recognizer.sample_rate)
        assert result.adds_up_to == "" and "at once" in " ".join(result.notes)
    assert shares[-1] == 1.0


# --- a network whose answer is known: the logit is the mean of the first class's band over time ----------------------


class Loud(Network):
    """Class 0 is how loud a frame is above its floor, averaged over time."""

    info = FamilyInfo(
        name="loud",
        title="Loud",
        summary="Loudness.",
        citation="2024",
        views=frozenset({"attribution", "time_attention"}),
    )
    config: NetworkConfig

    def __init__(self) -> None:
        super().__init__(NetworkConfig(n_classes=2))
        self.weight = torch.nn.Parameter(torch.ones(1))

    def _per_frame(self, features: Tensor) -> Tensor:
        loud = (features - features.amin(dim=(1, 2), keepdim=True)).mean(dim=2) * self.weight
        return torch.stack([loud, -loud], dim=1) / features.shape[1]

    def forward(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        return self._per_frame(features).sum(dim=2)

    def time_attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self._per_frame(features), torch.arange(features.shape[1]).float()


def loud(**frontend: Any) -> Recognizer:
    """A recognizer with that network; the front end may have a window."""
    values = {"kind": "kaldi_fbank", "n_mels": 32, "mean": -4.0, "std_scale": 4.0} | frontend
    card = Card(name="loud", family="loud", frontend=values, labels=["loud", "quiet"], task="single-label")
    return Recognizer(Loud(), build_frontend(values), card)


def click(at: float, seconds: float) -> np.ndarray:
    """A short noise at a time in a nearly silent clip."""
    rng = np.random.default_rng(1)
    waveform = 1e-4 * rng.standard_normal(round(seconds * 16000))
    first = round((at - 0.02) * 16000)
    waveform[first : first + 640] += 0.5 * rng.standard_normal(640)
    return waveform.astype(np.float32)


@pytest.mark.parametrize("seconds", [2.0, 5.0])
@pytest.mark.parametrize("at", [0.4, 1.3])
@pytest.mark.parametrize("length", [None, 198])
def test_a_click_is_found_at_its_second(at: float, seconds: float, length: int | None) -> None:
    recognizer = loud(target_length=length)
    for moment in (at, seconds - at):
        result = over_time(recognizer, click(moment, seconds), "loud", "time_attention")
        assert result.times[int(result.values.argmax())] == pytest.approx(moment, abs=0.03)
        alone = over_time(recognizer, click(moment, seconds), "quiet", "time_attention")
        assert alone.values.max() <= 0.0


def test_contributions_of_the_hand_made_network_add_up() -> None:
    result = over_time(loud(), click(0.5, 2.0), "loud", "time_attention")
    assert result.adds_up_to == "logit" and result.rest == pytest.approx(0.0, abs=1e-5)
    assert "add up to the class's logit" in " ".join(result.notes)


def test_the_stretch_with_the_click_is_heard_alone() -> None:
    result = over_time(loud(target_length=498), click(3.0, 5.0), "loud", "class_scores")
    best = result.times[result.values > result.values.min() + 0.5 * np.ptp(result.values)]
    assert len(best) and np.all(np.abs(best - 3.0) <= 0.55)
    assert "heard alone" in result.notes[0] and "silence" in result.notes[0]


# --- rollout ---------------------------------------------------------------------------------------------------------


def test_rollout_is_the_product_of_the_blocks() -> None:
    recognizer = tiny_recognizer("ast")
    network: Any = recognizer.network
    features = recognizer.features(window_of(recognizer))
    shares, centers = attention_rollout(network, features)
    kept: list[Tensor] = []
    hooks = []
    for block in network.v.blocks:
        block.attn.keep_attention = True
        hooks.append(
            block.attn.register_forward_hook(lambda module, _, __: kept.append(module.attention[0].mean(dim=0)))
        )
    with torch.no_grad():
        network(features)
    for hook in hooks:
        hook.remove()
    together = torch.eye(kept[0].shape[0])
    for weights in kept:
        together = (0.5 * weights + 0.5 * torch.eye(len(weights))) @ together
    expected = together[:2].mean(dim=0)[2:]
    expected = expected / expected.sum()
    np.testing.assert_allclose(shares.reshape(-1), expected.numpy(), atol=1e-6)
    assert shares.sum() == pytest.approx(1.0)
    assert centers[0] == 7.5 and np.all(np.diff(centers) == network.config.time_stride)


def test_rollout_leaves_the_network_as_it_was() -> None:
    recognizer = tiny_recognizer("ast")
    features = recognizer.features(window_of(recognizer))
    with torch.no_grad():
        before = recognizer(features)
        attention_rollout(recognizer.network, features)
        assert torch.equal(before, recognizer(features))
    assert not any(module._forward_hooks for module in recognizer.modules())


# --- errors and edges ------------------------------------------------------------------------------------------------


def test_errors() -> None:
    recognizer = tiny_recognizer("crnn")
    with pytest.raises(SettingsError, match="no view over time named"):
        over_time(recognizer, sound(), "class 0", "weather")
    with pytest.raises(SettingsError, match="no class named"):
        over_time(recognizer, sound(), "siren", "time_attention")
    with pytest.raises(SettingsError, match="no class named"):
        over_time(recognizer, sound(), "siren", "class_scores")


def test_what_is_shorter_than_a_frame_is_no_second_window() -> None:
    recognizer = tiny_recognizer("play_it_back")
    window = recognizer.window_samples
    assert window is not None
    assert len(without_crumbs(recognizer, np.zeros(window + 1, dtype=np.float32))) == window
    assert len(without_crumbs(recognizer, np.zeros(2 * window, dtype=np.float32))) == 2 * window
    assert len(without_crumbs(recognizer, np.zeros(5, dtype=np.float32))) == 5


@pytest.mark.parametrize("kind", ["time_attention", "class_scores"])
def test_what_a_codec_adds_changes_nothing(kind: str) -> None:
    recognizer = tiny_recognizer("crnn")
    window = recognizer.window_samples
    assert window
    clip = np.random.default_rng(0).standard_normal(window + window // 60).astype(np.float32)
    longer, plain = (over_time(recognizer, wave, "class 0", kind) for wave in (clip, clip[:window]))
    assert len(plain.values) > 4
    np.testing.assert_array_equal(longer.values, plain.values)


@pytest.mark.parametrize("samples", [0, 1, 37])
def test_clips_of_nearly_nothing(samples: int) -> None:
    recognizer = tiny_recognizer("crnn")
    for kind in kinds_of(recognizer):
        result = over_time(recognizer, np.zeros(samples, dtype=np.float32), "class 0", kind)
        assert len(result.values) == 1 and np.isfinite(result.values).all()


def test_borders() -> None:
    np.testing.assert_allclose(borders(np.array([0.1, 0.3, 0.9]), 1.0), [[0, 0.2], [0.2, 0.6], [0.6, 1.0]])
    np.testing.assert_allclose(borders(np.array([0.4]), 1.0), [[0, 1.0]])
