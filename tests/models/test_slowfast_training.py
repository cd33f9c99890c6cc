"""Training pieces of SlowFast: label embeddings, schedules, masks, frozen batch norm, views and figures."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import DataError, SettingsError
from models.families.slowfast import SlowFast
from models.layers.slowfast_settings import SlowFastConfig
from models.training.label_embeddings import (
    LabelEmbeddingLoss,
    label_vectors,
    load_label_embeddings,
    load_word_vectors,
    nearest_labels,
    similarity,
)
from models.training.mean_masks import mask_batch, mask_with_mean
from models.training.multiview import (
    action_accuracy,
    combine_views,
    crop_view,
    ranking_figures,
    top_accuracy,
    view_bounds,
)
from models.training.sgd import (
    EPIC_POLICY,
    VGGSOUND_POLICY,
    LearningRatePolicy,
    build_sgd,
    freeze_batch_norm,
    precise_batch_norm,
)


def test_the_loss_is_a_weighted_sum() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    embedding = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    table = np.array([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    found = LabelEmbeddingLoss(table, 0.25)(logits, embedding, torch.tensor([0, 1]))
    entropy = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert found.classification.item() == pytest.approx(entropy)
    assert found.embedding.item() == pytest.approx(9 / 6)
    assert found.total.item() == pytest.approx(0.75 * entropy + 0.25 * 1.5)
    mixed = LabelEmbeddingLoss(table, 0.25)(logits, embedding, torch.eye(2))
    assert mixed.total.item() == pytest.approx(found.total.item())
    with pytest.raises(SettingsError):
        LabelEmbeddingLoss(table, 1.5)


def test_the_table_follows_only_if_asked() -> None:
    for trainable in (False, True):
        loss = LabelEmbeddingLoss(np.eye(2), 0.5, trainable=trainable)
        embedding = torch.zeros(1, 2, requires_grad=True)
        loss(torch.zeros(1, 2), embedding, torch.tensor([1])).total.backward()
        assert (loss.table.grad is not None) == trainable


def test_label_vectors_are_means_of_known_words() -> None:
    vectors = {"dog": np.array([1.0, 0.0]), "barking": np.array([0.0, 1.0]), "bird": np.array([4.0, 4.0])}
    with pytest.warns(UserWarning, match="No word of 1 labels"):
        table = label_vectors(["Dog, barking", "a bird", "xylophone"], vectors)
    np.testing.assert_array_equal(table, [[0.5, 0.5], [4.0, 4.0], [0.0, 0.0]])
    with pytest.raises(DataError):
        label_vectors(["dog"], {})


def test_word_vectors_and_tables_from_files(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("3 2\ndog 1 2\nbird 3 4\n,odd 5 6\n")
    assert set(load_word_vectors(path)) == {"dog", "bird", ",odd"}
    np.testing.assert_array_equal(load_word_vectors(path, {"bird"})["bird"], [3.0, 4.0])
    path.write_text("dog 1 2\nbird 3\n")
    with pytest.raises(DataError, match="line 2"):
        load_word_vectors(path)
    path.write_text("dog 1 two\n")
    with pytest.raises(DataError, match="not a number"):
        load_word_vectors(path)
    np.save(tmp_path / "table.npy", np.eye(3))
    assert load_label_embeddings(tmp_path / "table.npy", 3).dtype == np.float32
    with pytest.raises(DataError, match="3 rows"):
        load_label_embeddings(tmp_path / "table.npy", 4)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        load_label_embeddings(tmp_path / "objects.npy", 1)


def test_nearest_labels_and_their_gradient() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    embedding = torch.tensor([[3.0, 0.1]], requires_grad=True)
    assert [name for name, _ in nearest_labels(embedding, table, ["a", "b", "c"], 2)[0]] == ["a", "b"]
    similarity(embedding, table)[0, 1].backward()
    assert embedding.grad is not None and embedding.grad[0, 1] > 0


@pytest.mark.parametrize(
    ("policy", "epoch", "rate"),
    [
        (VGGSOUND_POLICY, 29.99, 1e-2), (VGGSOUND_POLICY, 30, 1e-3), (VGGSOUND_POLICY, 80, 1e-4),
        (EPIC_POLICY, 19, 1e-3), (EPIC_POLICY, 25, 1e-5),
        (LearningRatePolicy(1.0, "cosine", epochs=10, end=0.5), 5, 0.75),
        (LearningRatePolicy(1.0, "cosine", epochs=10, warmup_epochs=2, warmup_start=0.0), 1, (math.cos(0.2 * math.pi) + 1) / 4),
    ],
)  # fmt: skip
def test_learning_rates(policy: LearningRatePolicy, epoch: float, rate: float) -> None:
    assert policy.at(epoch) == pytest.approx(rate)


def test_optimizer_and_frozen_batch_norm() -> None:
    network = SlowFast(SlowFastConfig(n_classes=3, width=8, n_frames=32)).train()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 110
    groups = build_sgd(network, 0.1).param_groups
    assert [g["weight_decay"] for g in groups] == [0.0, 1e-4]
    assert len(groups[0]["params"]) == 220 and sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
    assert freeze_batch_norm(network) == 107
    assert sum(m.training for m in norms) == 3
    assert len(build_sgd(network, 0.1).param_groups[0]["params"]) == 6
    before = {k: v.clone() for k, v in network.state_dict().items() if "running_mean" in k}
    network(torch.randn(2, 32, 128, generator=torch.Generator().manual_seed(0)))
    changed = [k for k, v in network.state_dict().items() if k in before and not torch.equal(v, before[k])]
    assert sorted(changed) == [
        f"{n}.running_mean" for n in ("s1.pathway0_stem.bn", "s1.pathway1_stem.bn", "s1_fuse.bn")
    ]


def test_precise_batch_norm_measures_the_population() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)).train()
    network[1].eval()
    batches = list(torch.randn(4, 2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 + 1)
    assert precise_batch_norm(network, batches) == 4
    pixels = torch.stack(batches).permute(2, 0, 1, 3, 4).flatten(1)
    torch.testing.assert_close(network[0].running_mean, pixels.mean(dim=1))
    torch.testing.assert_close(network[0].running_var, pixels.var(dim=1, unbiased=False))
    assert network[1].running_mean.tolist() == [0.0] * 3
    assert precise_batch_norm(network, batches, limit=1) == 1
    torch.testing.assert_close(network[0].running_mean, batches[0].mean(dim=(0, 2, 3)))


def test_masks() -> None:
    image = torch.arange(24.0).reshape(4, 6)
    draws = iter([3, 1, 3])
    masked = mask_with_mean(image, 1, 5, 1, draw=lambda low, high: next(draws))
    assert (masked[:, 1:3] == image.mean()).all() and torch.equal(masked[:, 3:], image[:, 3:])
    # A width of 0 ends the masking: the second stripe is not drawn either.
    assert torch.equal(mask_with_mean(image, 1, 5, 2, draw=lambda low, high: 0), image)
    batch = torch.randn(3, 40, 30, generator=torch.Generator().manual_seed(0))
    once, again = (mask_batch(batch, 8, 8, generator=random.Random(4)) for _ in range(2))
    assert torch.equal(once, again) and not torch.equal(once, batch) and not torch.equal(once[0], once[1])
    assert torch.isfinite(mask_batch(batch[:, :2, :2], 27, 25, generator=random.Random(1))).all()


def test_views() -> None:
    assert view_bounds(160000, 81904, 2, 1) == (78096, 159999)
    samples = np.arange(1000)
    np.testing.assert_array_equal(crop_view(samples, 101, 2, 1), samples[899:999])
    np.testing.assert_array_equal(crop_view(samples, 101, 2, 1, (100, 300)), samples[199:299])
    np.testing.assert_array_equal(crop_view(samples, 101, 2, 1, (100, 150)), samples[100:150])
    scores = np.array([[0.1, 0.9], [0.6, 0.4], [0.5, 0.5], [0.2, 0.8]])
    np.testing.assert_allclose(combine_views(scores, 2), [[0.7, 1.3], [0.7, 1.3]])
    np.testing.assert_allclose(combine_views(scores, 2, "max"), [[0.6, 0.9], [0.5, 0.8]])
    for call in (lambda: combine_views(scores, 3), lambda: view_bounds(10, 5, 2, 2)):
        with pytest.raises(SettingsError):
            call()


def test_figures() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.4, 0.5, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1]])
    labels = np.array([0, 1, 0, 1])
    assert top_accuracy(scores, labels) == 0.75 and top_accuracy(scores, labels, 2) == 1.0
    assert action_accuracy(scores, scores, labels, np.array([0, 1, 1, 2])) == 0.5
    figures = ranking_figures(scores, labels)
    np.testing.assert_allclose(figures.roc_auc, [0.75, 0.75, np.nan])
    assert figures.mean_auc == 0.75 and figures.d_prime == pytest.approx(math.sqrt(2) * 0.6744898)
