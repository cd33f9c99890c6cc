"""A recognizer: waveform in, scores out, and copies that are safe beside each other."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from models.errors import SettingsError
from models.recognizer import Recognizer
from models.registry import VIEWS
from tests.conftest import make_recognizer


def test_it_reads_what_its_front_end_reads(recognizer: Recognizer, chirp: np.ndarray) -> None:
    features = recognizer.features(chirp)
    assert features.shape == (1, 128, 32)
    torch.testing.assert_close(features, recognizer.frontend(torch.from_numpy(chirp)[None]))
    double = recognizer.features(np.stack([chirp, chirp]).astype(np.float64))
    assert double.dtype == torch.float32 and torch.allclose(double[1:], features)
    assert recognizer.sample_rate == 16000 and recognizer.window_samples == 400 + 127 * 160
    logits = recognizer(features)
    assert logits.shape == (1, 3) and torch.equal(logits, recognizer.network(features))
    assert recognizer.device.type == "cpu" and recognizer.name == recognizer.card.name
    assert recognizer.labels == ["dog", "rain", "clock"]


def test_it_is_in_evaluation_mode(recognizer: Recognizer) -> None:
    assert not any(module.training for module in recognizer.modules())


@pytest.mark.parametrize("groups", [[], [1, 2], [3]])
@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_scores_are_softmax_within_groups_or_sigmoid(task: str, groups: list[int]) -> None:
    recognizer = make_recognizer("resnet_attention", task=task)
    recognizer.card = recognizer.card.model_copy(update={"label_groups": groups})
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 30.0, 0.0]])
    found = recognizer.probabilities(logits)
    if task == "multi-label":
        expected = 1 / (1 + torch.exp(-logits))
    elif groups == [1, 2]:
        ratio = torch.exp(logits[:, 1:])
        expected = torch.cat([torch.ones(2, 1), ratio / ratio.sum(dim=1, keepdim=True)], dim=1)
    else:
        expected = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected)


def test_classes_are_found_by_name_or_refused(recognizer: Recognizer) -> None:
    assert [recognizer.target_index(label) for label in ("dog", "rain", "clock")] == [0, 1, 2]
    for label in ("Dog", "", "unicorn"):
        with pytest.raises(SettingsError, match=f"no class named {label!r}") as caught:
            recognizer.target_index(label)
        assert "dog, rain, clock" in caught.value.advice


def test_long_lists_of_classes_are_cut_in_messages() -> None:
    many = make_recognizer("resnet_attention", labels=tuple(f"label-{i}" for i in range(40)))
    with pytest.raises(SettingsError) as caught:
        many.target_index("x")
    assert "label-11, ..." in caught.value.advice and "label-12" not in caught.value.advice


def test_views_are_those_of_its_network(recognizer: Recognizer) -> None:
    assert {view for view in VIEWS if recognizer.supports(view)} == recognizer.network.views
    assert recognizer.supports("attribution") and not recognizer.supports("telepathy")


def test_a_replica_gives_the_same_and_has_its_own_hooks_and_lock(recognizer: Recognizer, chirp: np.ndarray) -> None:
    copy = recognizer.replica()
    assert copy.card is recognizer.card and copy.lock is not recognizer.lock
    mine, theirs = list(recognizer.modules()), list(copy.modules())
    assert len(mine) == len(theirs) and not {id(m) for m in mine} & {id(m) for m in theirs}
    tensors = [*recognizer.parameters(), *recognizer.buffers()]
    assert [t.data_ptr() for t in tensors] == [t.data_ptr() for t in [*copy.parameters(), *copy.buffers()]]
    features = recognizer.features(chirp)
    assert torch.equal(copy(features), recognizer(features))
    calls: list[int] = []
    copy.network.register_forward_hook(lambda *_: calls.append(1))
    recognizer(features)
    assert not calls
    # The lock is the holder's alone: another thread can use the other one meanwhile.
    taken: list[bool] = []
    with recognizer.lock:
        thread = threading.Thread(
            target=lambda: taken.extend(r.lock.acquire(blocking=False) for r in (copy, recognizer))
        )
        thread.start()
        thread.join()
    assert taken == [True, False]
