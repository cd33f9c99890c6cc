"""Every attribution method on every tiny model, from the registry; and each formula derived again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from models.errors import SettingsError
from models.recognizer import Recognizer
from saliency.attribution import attribute, fold_padding, working_batch_size
from saliency.methods import METHODS, find_method
from saliency.methods.base import FromSilence
from tests.conftest import TINY, make_recognizer

# With random weights everything may speak against a class: Grad-CAM keeps its signs here.
SMALL = {
    "grad_cam": {"positive_only": False},
    "integrated_gradients": {"steps": 8},
    "occlusion": {"frames": 32, "bands": 16},
}
CASES = [(name, method) for name in sorted(TINY) for method in METHODS]


@pytest.mark.parametrize(("family", "method"), CASES)
def test_shape_axes_and_progress(family: str, method: str, chirp: np.ndarray) -> None:
    recognizer = make_recognizer(family)
    shares: list[float] = []
    result = attribute(recognizer, chirp, "dog", method, SMALL.get(method), progress=shares.append)
    frames = recognizer.frontend.frames_for(len(chirp))
    assert result.values.shape == (frames, recognizer.frontend.n_mels)
    assert result.values.dtype == np.float32
    assert np.isfinite(result.values).all()
    assert np.abs(result.values).max() > 0
    assert result.times.shape == (frames,) and np.all(np.diff(result.times) > 0)
    assert np.all(np.diff(result.frequencies) > 0)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    assert result.passes > 0


@pytest.mark.parametrize(("family", "method"), CASES)
def test_the_model_is_left_as_it_was(family: str, method: str, chirp: np.ndarray) -> None:
    recognizer = make_recognizer(family)
    before = recognizer(recognizer.features(chirp))
    attribute(recognizer, chirp, "rain", method, SMALL.get(method))
    assert torch.equal(before, recognizer(recognizer.features(chirp)))
    assert not any(m._forward_hooks or m._backward_hooks for m in recognizer.modules())


def test_gradient_is_the_derivative(recognizer: Recognizer, chirp: np.ndarray) -> None:
    values = attribute(recognizer, chirp, "dog", "gradient").values
    features = recognizer.features(chirp).requires_grad_(True)
    recognizer(features)[0, 0].backward()
    assert features.grad is not None
    expected = features.grad[0, : len(values)].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_input_x_gradient_counts_from_silence(recognizer: Recognizer, chirp: np.ndarray) -> None:
    gradient = attribute(recognizer, chirp, "dog", "gradient").values
    product = attribute(recognizer, chirp, "dog", "input_x_gradient").values
    above = recognizer.features(chirp)[0, : len(gradient)].numpy() - recognizer.frontend.silence
    np.testing.assert_allclose(product, above * gradient, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_derived_again(recognizer: Recognizer, chirp: np.ndarray) -> None:
    steps = 8
    result = attribute(recognizer, chirp, "rain", "integrated_gradients", {"steps": steps})
    features = recognizer.features(chirp)
    above = features - recognizer.frontend.silence
    total = torch.zeros_like(features)
    for k in range(steps):
        point = (recognizer.frontend.silence + (k + 0.5) / steps * above).requires_grad_(True)
        recognizer(point)[0, 1].backward()
        total += point.grad
    whole = (above * total / steps)[0].numpy()
    np.testing.assert_allclose(result.values, whole[: len(result.values)], rtol=1e-3, atol=1e-5)
    silent = torch.full_like(features, recognizer.frontend.silence)
    difference = (recognizer(features) - recognizer(silent))[0, 1].item()
    gap = abs(whole.sum() - difference) / abs(difference)
    assert result.completeness_gap == pytest.approx(gap, abs=1e-4)


def test_integrated_gradients_become_complete(recognizer: Recognizer, chirp: np.ndarray) -> None:
    gaps = [
        attribute(recognizer, chirp, "dog", "integrated_gradients", {"steps": steps}).completeness_gap
        for steps in (4, 256)
    ]
    assert gaps[1] is not None and gaps[0] is not None
    assert gaps[1] < 0.01 or gaps[1] < gaps[0] / 4


@pytest.mark.parametrize("family", sorted(TINY))
def test_grad_cam_derived_again(family: str, chirp: np.ndarray) -> None:
    recognizer = make_recognizer(family)
    layer = recognizer.network.cam_layers()[0]
    kept: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = layer.module.register_forward_hook(keep)
    features = recognizer.features(chirp).requires_grad_(True)
    recognizer(features)[0, 2].backward()
    handle.remove()
    maps, slopes = layer.to_map(kept[0].detach()), layer.to_map(kept[0].grad)
    cam = (slopes.mean((2, 3), keepdim=True) * maps).sum(1)[0].numpy()
    values = attribute(recognizer, chirp, "clock", "grad_cam", {"positive_only": False}).values
    clamped = attribute(recognizer, chirp, "clock", "grad_cam").values
    assert clamped.min() >= 0
    # At the cells' own centres nothing is interpolated.
    for step in range(cam.shape[0]):
        frame = round(layer.time_center + step * layer.time_step)
        if abs(frame - (layer.time_center + step * layer.time_step)) > 1e-6 or frame >= len(values):
            continue
        band = round(layer.frequency_center)
        if abs(band - layer.frequency_center) < 1e-6:
            assert values[frame, band] == pytest.approx(cam[step, 0], rel=1e-3, abs=1e-6)


def test_occlusion_of_one_patch_is_the_drop(chirp: np.ndarray) -> None:
    recognizer = make_recognizer("resnet_attention")
    features = recognizer.features(chirp)
    frames, bands = features.shape[1:]
    values = attribute(recognizer, chirp, "dog", "occlusion", {"frames": frames, "bands": bands}).values
    silent = torch.full_like(features, recognizer.frontend.silence)
    drop = (recognizer(features) - recognizer(silent))[0, 0].item()
    np.testing.assert_allclose(values, drop, rtol=1e-4)


def test_long_clips_are_explained_in_overlapping_windows(chirp: np.ndarray) -> None:
    recognizer = make_recognizer("resnet_attention")
    window = recognizer.window_samples
    assert window is not None
    long = np.tile(chirp, 4)
    result = attribute(recognizer, long, "dog", "gradient")
    assert len(result.values) == recognizer.frontend.frames_for(len(long))
    alone = attribute(recognizer, long[:window], "dog", "gradient").values
    quarter = round(window / 4 / recognizer.frontend.hop_length)
    # Before the second window starts, only the first one speaks.
    np.testing.assert_allclose(result.values[:quarter], alone[:quarter], rtol=1e-5, atol=1e-8)
    assert result.explained == pytest.approx((0.0, len(long) / 16000))


def test_only_the_asked_part_is_explained(chirp: np.ndarray) -> None:
    recognizer = make_recognizer("resnet_attention")
    long = np.tile(chirp, 6)
    result = attribute(recognizer, long, "dog", "gradient", explain=(3.0, 3.2))
    assert result.explained[0] <= 3.0 and result.explained[1] >= 3.2
    outside = (result.times < result.explained[0]) | (result.times > result.explained[1] + 0.02)
    assert outside.any() and not result.values[outside].any()


def test_padding_that_repeats_belongs_to_the_last_frame() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    folded = fold_padding(values, 4, repeated=True)
    np.testing.assert_allclose(folded[-1], values[3:].sum(axis=0))
    assert fold_padding(values, 4, repeated=False).shape == (4, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (dict(target="unicorn"), "unicorn"),
        (dict(target="dog", method="magic"), "magic"),
        (dict(target="dog", method="integrated_gradients", parameters={"steps": 0}), "steps"),
        (dict(target="dog", method="grad_cam", parameters={"layer": 99}), "layer 99"),
        (dict(target="dog", method="gradient", parameters={"strange": 1}), "strange"),
    ],
)
def test_impossible_wishes_are_refused(call: dict, words: str, chirp: np.ndarray) -> None:
    with pytest.raises(SettingsError, match=words):
        attribute(make_recognizer("resnet_attention"), chirp, **call)


def test_batch_size_is_bounded_by_memory(chirp: np.ndarray) -> None:
    recognizer = make_recognizer("resnet_attention")
    size = working_batch_size(recognizer, recognizer.features(chirp))
    assert 1 <= size <= 16


@pytest.mark.parametrize("method", list(METHODS))
def test_two_threads_get_the_maps_they_would_get_alone(method: str, chirp: np.ndarray) -> None:
    """Two visitors, one model, hook-based methods: the lock or the replica keeps them apart."""
    recognizer = make_recognizer("resnet_attention")
    alone = {
        label: attribute(recognizer, chirp, label, method, SMALL.get(method)).values for label in recognizer.labels
    }
    for shared in (True, False):
        found: list[tuple[str, np.ndarray]] = []

        def visit(label: str, model: Recognizer, found: list = found) -> None:
            for _ in range(4):
                found.append((label, attribute(model, chirp, label, method, SMALL.get(method)).values))

        threads = [
            threading.Thread(target=visit, args=(label, recognizer if shared else recognizer.replica()))
            for label in recognizer.labels
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 12
        for label, values in found:
            np.testing.assert_allclose(values, alone[label], rtol=1e-5, atol=1e-7)


def test_a_replica_shares_weights_but_not_modules() -> None:
    recognizer = make_recognizer("ast")
    twin = recognizer.replica()
    assert next(twin.parameters()).data_ptr() == next(recognizer.parameters()).data_ptr()
    assert twin.network is not recognizer.network and twin.lock is not recognizer.lock


def test_cancelling_from_the_progress_leaves_no_hooks(chirp: np.ndarray) -> None:
    recognizer = make_recognizer("resnet_attention")

    class StopError(Exception):
        pass

    def stop(share: float) -> None:
        raise StopError

    for method in METHODS:
        with pytest.raises(StopError):
            attribute(recognizer, chirp, "dog", method, SMALL.get(method), progress=stop)
    assert not any(m._forward_hooks for m in recognizer.modules())


def test_counting_from_silence() -> None:
    recognizer = make_recognizer("resnet_attention")
    model = FromSilence(recognizer, 1, lambda share: None)
    silent = recognizer.features(np.zeros(16000, dtype=np.float32))
    assert torch.allclose(model.above(silent), torch.zeros_like(silent), atol=1e-5)
    assert find_method("gradient").title == "Gradient"
