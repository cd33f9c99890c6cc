"""Recipes, averages, sampling, augmentations and figures of the published audio taggers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import training
from models.errors import CheckpointError, DataError, SettingsError
from models.families.ast import AST, ASTConfig
from models.families.linear import Linear, LinearConfig
from models.frontends import build_frontend
from models.layers.position_grid import adapt_positions
from models.registry import family
from models.training import metrics
from models.training.ast_start import adapt_audioset, adapt_deit, start_from
from models.training.averaging import PredictionAverage, average_state_dicts
from models.training.config import load_train_config
from models.training.label_enhancement import Ontology, enhance_labels, score_thresholds
from models.training.published import PublishedRecipe, train_published
from models.training.published_augment import MaskDraws, mask_spectrogram, mix_targets, mix_waveforms, mixing_weight
from models.training.sampling import read_weights, sampling_weights, write_weights

RECIPES = Path(training.__file__).parents[1] / "recipes"


def data(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips whose class is the loud band."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 4
    features = torch.randn(count, 6, 8, generator=generator)
    features[torch.arange(count), :, classes] += 4
    return features, torch.eye(4)[classes]


def run(recipe: PublishedRecipe) -> tuple[Linear, object]:
    torch.manual_seed(0)
    network = Linear(LinearConfig(n_mels=8, hidden_size=16, n_classes=4, dropout=0.0))
    (train_x, train_y), (test_x, test_y) = data(0, 64), data(1, 16)
    result = train_published(
        network, lambda: zip(train_x.split(8), train_y.split(8), strict=True), lambda: [(test_x, test_y)], recipe
    )
    return network, result


@pytest.mark.parametrize("loss", ["bce", "cross_entropy"])
def test_a_recipe_learns(loss: str) -> None:
    recipe = PublishedRecipe(0.01, 8, loss=loss, metric="accuracy", milestones=(2, 4), average=(5, 8))  # type: ignore[arg-type]
    _, result = run(recipe)
    assert result.rows[-1][0] >= 0.9  # type: ignore[attr-defined]
    assert result.averaged[0] >= 0.9  # type: ignore[attr-defined]
    assert result.rows[-1][5] < result.rows[0][5]  # type: ignore[attr-defined]


def test_learning_rates_of_warm_up_and_milestones() -> None:
    _, result = run(PublishedRecipe(1.0e-2, 14, warmup=True, milestones=(8,)))
    rates = result.learning_rates  # type: ignore[attr-defined]
    assert rates[:50] == [0.0] * 50
    assert rates[50] == pytest.approx(1e-2 * 50 / 1000)
    # The milestone halves the current rate until the next multiple of 50 overwrites it.
    assert (
        rates[63] == pytest.approx(5e-4) and rates[64] == pytest.approx(2.5e-4) and rates[99] == pytest.approx(2.5e-4)
    )
    assert rates[100] == pytest.approx(1e-3)


def test_more_epochs_to_average_than_to_run_is_refused() -> None:
    with pytest.raises(SettingsError, match="averaged"):
        run(PublishedRecipe(0.01, 2, average=(1, 5)))


def test_weight_average_counts_the_first_twice_on_demand() -> None:
    parts = [{"w": torch.tensor([0.0]), "n": torch.tensor(1)}, {"w": torch.tensor([3.0]), "n": torch.tensor(3)}]
    assert average_state_dicts(parts)["w"].item() == 1.5
    assert average_state_dicts(parts, first_twice=True)["w"].item() == 1.0
    assert average_state_dicts(parts)["n"].dtype == torch.int64
    ensemble = PredictionAverage()
    ensemble.add(np.array([[1.0]]))
    assert ensemble.add(np.array([[0.0]])).item() == 0.5


def test_sampling_weights_and_their_file(tmp_path: Path) -> None:
    weights = sampling_weights([["a"], ["a", "b"]], {"b": 0.5})
    np.testing.assert_allclose(weights, [1000 / 2.01, 1000 / 2.01 + 1000 / 1.01 + 0.8])
    write_weights(tmp_path / "w.csv", weights)
    np.testing.assert_array_equal(read_weights(tmp_path / "w.csv", 2), weights)
    with pytest.raises(DataError, match="2 weights for 3"):
        read_weights(tmp_path / "w.csv", 3)
    (tmp_path / "bad.csv").write_text("1\nx\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path / "bad.csv", 2)


def test_mixtures() -> None:
    first, second = torch.randn(100) + 1, torch.randn(60)
    mixed = mix_waveforms(first, second, 0.25)
    assert mixed.shape == (100,) and abs(mixed.mean()) < 1e-6
    shared = mix_targets(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), 0.25)
    torch.testing.assert_close(shared, torch.tensor([1.0, 0.75]))
    generator = torch.Generator().manual_seed(0)
    draws = np.array([mixing_weight(generator) for _ in range(2000)])
    # Beta(10, 10): mean 1/2, variance 1/84.
    assert abs(draws.mean() - 0.5) < 0.01 and abs(draws.var() - 1 / 84) < 0.002


def test_masks_are_stripes_of_zeros() -> None:
    log_mel = torch.full((20, 10), -3.0)
    masked = mask_spectrogram(log_mel, 4, 8, MaskDraws(0.75, 0.5, 0.5, 0.25))
    bands, frames = (masked == 0).all(dim=0), (masked == 0).all(dim=1)
    assert torch.nonzero(bands).flatten().tolist() == [3, 4, 5]
    assert torch.nonzero(frames).flatten().tolist() == [4, 5, 6, 7]
    assert torch.equal(mask_spectrogram(log_mel, 0, 0, MaskDraws(1, 1, 1, 1)), log_mel)


def test_figures() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.2], [0.6, 0.7], [0.7, 0.8], [0.1, 0.1]])
    np.testing.assert_allclose(metrics.roc_auc(scores, targets), [0.75, 1.0])
    assert np.isnan(metrics.roc_auc(scores, np.ones_like(targets))).all()
    assert metrics.d_prime(0.5) == pytest.approx(0.0)
    assert metrics.d_prime(0.9786) == pytest.approx(2.864, abs=1e-3)
    np.testing.assert_allclose(metrics.best_f1_thresholds(scores, targets), [0.6, 0.7])
    thresholds = metrics.best_micro_f1_thresholds(scores, targets)
    best = max(
        metrics.micro_f1(scores, targets, np.array([a, b])) for a in [*scores[:, 0], 2.0] for b in [*scores[:, 1], 2.0]
    )
    assert metrics.micro_f1(scores, targets, thresholds) == pytest.approx(best)
    confusion = metrics.multi_label_confusion(scores, targets)
    assert confusion.tolist() == [[2, 0], [0, 2]]
    assert metrics.multi_label_confusion(scores[2:3], np.array([[1, 0]])).tolist() == [[0, 1], [0, 0]]


def test_labels_are_added_from_relatives() -> None:
    ontology = Ontology({"animal": ("dog", "cat"), "dog": ("bark",), "sound": ("animal",)})
    assert ontology.ancestors("bark") == {"dog", "animal", "sound"}
    labels = ["animal", "dog", "bark", "cat"]
    targets = np.array([[0, 1, 0, 0], [1, 0, 0, 1]])
    scores = np.array([[0.9, 0.8, 0.7, 0.9], [0.6, 0.9, 0.9, 0.2]])
    thresholds = np.array([0.5, 0.5, 0.8, 0.5])
    both = enhance_labels(targets, scores, labels, ontology, thresholds)
    assert both.tolist() == [[1, 1, 0, 0], [1, 1, 0, 1]]
    assert enhance_labels(targets, scores, labels, ontology, thresholds, children=False)[1].tolist() == [1, 0, 0, 1]
    assert score_thresholds(scores, targets).tolist() == [0.6, 0.8, np.inf, 0.2]


def test_ast_from_images() -> None:
    config = ASTConfig(model_size="custom", width=64, n_heads=1, depth=1, n_mels=36, target_length=96, n_classes=3)
    torch.manual_seed(0)
    fresh = AST(config)
    deit = {key.removeprefix("v."): value for key, value in fresh.state_dict().items() if key.startswith("v.")}
    deit |= {
        "pos_embed": torch.randn(1, 2 + 16, 64), "patch_embed.proj.weight": torch.randn(64, 3, 16, 16),
        "head.weight": torch.zeros(1000, 64),
    }  # fmt: skip
    network = start_from(AST(config), adapt_deit(deit, config))
    torch.testing.assert_close(network.v.patch_embed.proj.weight, deit["patch_embed.proj.weight"].sum(1, keepdim=True))
    assert torch.equal(network.v.pos_embed[:, :2], deit["pos_embed"][:, :2])
    with pytest.raises(CheckpointError, match="no square"):
        adapt_deit(deit | {"pos_embed": torch.randn(1, 2 + 15, 64)}, config)
    with pytest.raises(CheckpointError, match="do not fit"):
        start_from(AST(ASTConfig(model_size="custom", width=64, n_heads=1, depth=2)), adapt_deit(deit, config))


def test_ast_from_audioset_insists_on_its_strides() -> None:
    table = {"v.pos_embed": torch.randn(1, 2 + 1212, 8), "mlp_head.1.weight": torch.zeros(5, 8)}
    config = ASTConfig(target_length=512)
    adapted = adapt_audioset(table, config)
    assert set(adapted) == {"v.pos_embed"} and adapted["v.pos_embed"].shape == (1, 602, 8)
    with pytest.raises(CheckpointError, match="strides 10/10"):
        adapt_audioset(table, ASTConfig(time_stride=16))


def test_positions_of_the_same_grid_stay() -> None:
    table = torch.randn(1, 2 + 12, 4)
    assert torch.equal(adapt_positions(table, (3, 4), (3, 4)), table)
    cropped = adapt_positions(table, (3, 4), (1, 2))
    assert torch.equal(cropped[0, 2:], table[0, 2:].unflatten(0, (3, 4))[1:2, 1:3].flatten(0, 1))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_describe_networks_that_read_their_features(path: Path) -> None:
    config = load_train_config(path)
    cls = family(config.family)
    network_config = cls.Config.model_validate(config.config)
    frontend = build_frontend(config.frontend)
    for name in ("n_mels", "target_length"):
        wanted = getattr(network_config, name, None)
        if wanted is not None:
            assert getattr(frontend, name) == wanted
