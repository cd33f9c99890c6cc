"""Windows over a clip, and how their scores become the clip's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import Card
from models.frontends import build_frontend
from models.network import Network, NetworkConfig
from models.prediction import Prediction, hop_samples, predict, window_starts
from models.recognizer import Recognizer

RATE, WINDOW = 1000, 400


class Loudness(Network):
    """Logits are weights times the mean square of the window: known by hand."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.linspace(-3.0, 4.0, config.n_classes))
        self.batches: list[int] = []

    def forward_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        self.batches.append(features.shape[0])
        return features.square().mean(dim=(1, 2))

    def forward_head(self, hidden: Tensor) -> Tensor:
        return hidden[:, None] * self.weight


def loudness(
    task: str, groups: tuple[int, ...] = (), hop_seconds: float | None = None, window: int | None = WINDOW, n: int = 5
) -> Recognizer:
    frontend = {"kind": "waveform", "n_mels": 0, "sample_rate": RATE, "target_length": window}
    card = Card(
        name="loudness", family="loudness", frontend=frontend, labels=[f"class {i}" for i in range(n)], task=task,
        label_groups=list(groups), hop_seconds=hop_seconds,
    )  # fmt: skip
    return Recognizer(Loudness(NetworkConfig(n_classes=n)), build_frontend(frontend), card)


def steps(*levels: float, length: int = 200) -> np.ndarray:
    return np.repeat(np.array(levels, dtype=np.float32), length)


@pytest.mark.parametrize("hop", [None, 1, 50, 100, 399, 400, 1000])
@pytest.mark.parametrize("n_samples", [1, 399, 400, 409, 600, 601, 999, 1234])
def test_windows_cover_the_clip_and_the_last_ends_with_it(n_samples: int, hop: int | None) -> None:
    starts = window_starts(n_samples, WINDOW, hop)
    length = min(WINDOW, n_samples)
    heard = np.zeros(n_samples, dtype=int)
    for start in starts:
        assert start >= 0 and start + length <= n_samples
        heard[start : start + length] += 1
    assert heard.min() >= 1 and starts[-1] + length == n_samples
    assert starts[0] == 0 and starts == sorted(set(starts))
    steps_taken = set(np.diff(starts)[:-1])
    assert steps_taken <= {min(hop or WINDOW // 2, WINDOW)}
    assert (starts == [0]) == (n_samples <= WINDOW)


@pytest.mark.parametrize(("n_samples", "window"), [(10, None), (1, 1), (5, 1)])
def test_windows_of_odd_sizes(n_samples: int, window: int | None) -> None:
    assert window_starts(n_samples, window) == list(range(n_samples if window else 1))


def test_what_a_codec_adds_is_no_second_window() -> None:
    assert [window_starts(n, 400) for n in (401, 408, 409)] == [[0], [0], [0, 9]]
    recognizer = loudness("single-label")
    prediction = predict(recognizer, np.ones(408, dtype=np.float32))
    assert prediction.windows.tolist() == [[0.0, 0.4]]
    np.testing.assert_array_equal(prediction.scores, predict(recognizer, np.ones(400, dtype=np.float32)).scores)


def test_windows_by_hand() -> None:
    assert window_starts(1000, 400) == [0, 200, 400, 600]
    assert window_starts(1001, 400) == [0, 200, 400, 600, 601]
    assert window_starts(1000, 400, 250) == [0, 250, 500, 600]


@pytest.mark.parametrize(("seconds", "samples"), [(None, None), (0.25, 250), (1e-9, 1)])
def test_the_card_sets_the_distance_of_windows(seconds: float | None, samples: int | None) -> None:
    recognizer = loudness("single-label", hop_seconds=seconds)
    assert hop_samples(recognizer) == samples
    prediction = predict(recognizer, np.ones(420, dtype=np.float32))
    starts = np.round(prediction.windows[:, 0] * RATE).astype(int).tolist()
    assert starts == window_starts(420, WINDOW, samples)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_scores_are_pooled_as_the_task_asks(task: str) -> None:
    recognizer = loudness(task)
    prediction = predict(recognizer, steps(0.0, 0.0, 1.0, 0.5, 2.0))
    # Windows of two steps, one step apart: their mean squares are means of two neighbours.
    power = np.array([(0 + 0) / 2, (0 + 1) / 2, (1 + 0.25) / 2, (0.25 + 4) / 2])
    logits = power[:, None] * np.linspace(-3.0, 4.0, 5)
    np.testing.assert_allclose(prediction.windows, [[0.0, 0.4], [0.2, 0.6], [0.4, 0.8], [0.6, 1.0]])
    if task == "single-label":
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        pooled = expected.mean(axis=0)
        assert prediction.scores.sum() == pytest.approx(1.0, abs=1e-5)
    else:
        expected = 1 / (1 + np.exp(-logits))
        pooled = expected.max(axis=0)
    np.testing.assert_allclose(prediction.window_scores, expected, atol=1e-5)
    np.testing.assert_allclose(prediction.scores, pooled, atol=1e-5)
    np.testing.assert_allclose(prediction.logits, logits.max(axis=0), atol=1e-4)
    assert prediction.labels == tuple(f"class {i}" for i in range(5))


def test_each_group_of_labels_sums_to_one() -> None:
    prediction = predict(loudness("single-label", groups=(2, 3)), steps(1.0, 0.5, 2.0))
    assert prediction.scores[:2].sum() == pytest.approx(1.0, abs=1e-5)
    assert prediction.scores[2:].sum() == pytest.approx(1.0, abs=1e-5)
    logits = np.linspace(-3.0, 4.0, 5) * (1.0 + 0.25) / 2
    first = np.exp(logits[:2]) / np.exp(logits[:2]).sum()
    np.testing.assert_allclose(prediction.window_scores[0, :2], first, atol=1e-5)


def test_several_groups_are_no_matter_for_multi_label_models() -> None:
    waveform = steps(1.0, 0.5)
    together, grouped = (predict(loudness("multi-label", groups=g), waveform) for g in ((), (2, 3)))
    np.testing.assert_array_equal(together.scores, grouped.scores)


@pytest.mark.parametrize("samples", [1, 250, 400])
def test_short_clips_are_one_window(samples: int) -> None:
    prediction = predict(loudness("single-label"), np.ones(samples, dtype=np.float32))
    np.testing.assert_allclose(prediction.windows, [[0.0, samples / RATE]])
    # Padding is silence: the mean square falls with the share that is padded.
    np.testing.assert_allclose(prediction.logits, np.linspace(-3, 4, 5) * samples / WINDOW, atol=1e-5)


def test_a_model_without_a_window_hears_everything_at_once() -> None:
    prediction = predict(loudness("single-label", window=None), steps(1.0, 0.0, 0.0, 0.0))
    np.testing.assert_allclose(prediction.windows, [[0.0, 0.8]])
    np.testing.assert_allclose(prediction.logits, np.linspace(-3, 4, 5) / 4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_change_nothing_and_progress_reaches_the_end(batch_size: int) -> None:
    recognizer = loudness("single-label")
    network = recognizer.network
    assert isinstance(network, Loudness)
    waveform = np.random.default_rng(0).normal(size=1500).astype(np.float32)
    alone = predict(recognizer, waveform)
    network.batches.clear()
    seen: list[tuple[int, int]] = []
    prediction = predict(recognizer, waveform, batch_size=batch_size, progress=lambda d, t: seen.append((d, t)))
    np.testing.assert_allclose(prediction.window_scores, alone.window_scores, atol=1e-6)
    n = len(prediction.windows)
    assert sum(network.batches) == n and max(network.batches) <= batch_size
    assert seen[-1] == (n, n) and [d for d, _ in seen] == np.cumsum(network.batches).tolist()


def test_nothing_is_remembered_for_gradients() -> None:
    recognizer = loudness("single-label")
    seen: list[bool] = []
    recognizer.network.register_forward_hook(lambda m, i, out: seen.append(out.requires_grad))
    predict(recognizer, steps(1.0))
    assert seen == [False] and torch.is_grad_enabled()


def test_ranking_is_best_first_and_keeps_the_order_of_equals() -> None:
    scores = np.array([0.1, 0.4, 0.1, 0.4, 0.0])
    prediction = Prediction(tuple("abcde"), scores, scores, np.zeros((1, 2)), scores[None])
    assert prediction.ranking() == [("b", 0.4), ("d", 0.4), ("a", 0.1), ("c", 0.1), ("e", 0.0)]
