"""Recipes: read, overridden, and refused when something in them cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import SettingsError
from models.frontends import build_frontend
from models.registry import family
from models.training.config import TrainConfig, load_train_config

RECIPES = sorted((Path(__file__).parents[2] / "models" / "recipes").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "name": "tiny", "family": "linear", "frontend": {"kind": "slaney_db"}, "data": {"root": "somewhere"},
}  # fmt: skip


def recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | changes), encoding="utf-8")
    return path


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    config = load_train_config(recipe(tmp_path, optimizer={"epochs": 3}))
    assert config.optimizer.epochs == 3 and config.data.root == Path("somewhere")
    rest = config.model_dump(exclude={"name", "family", "frontend", "data", "optimizer"})
    assert rest == TrainConfig.model_validate(MINIMAL).model_dump(include=set(rest))
    assert config.teacher is None and config.half and config.task == "single-label"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7), ("optimizer.epochs=30", "optimizer.epochs", 30), ("half=false", "half", False),
        ("optimizer.learning_rate=1.5e-3", "optimizer.learning_rate", 0.0015),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 0.001),  # YAML reads this as text
        ("augment.noise_db=null", "augment.noise_db", None), ("augment.speed=[1.0, 2]", "augment.speed", (1.0, 2.0)),
        ("teacher.checkpoint=a=b", "teacher.checkpoint", "a=b"),
        ("data.options.only_esc10=true", "data.options", {"only_esc10": True}),
        ("frontend.n_mels=32", "frontend", {"kind": "slaney_db", "n_mels": 32}),
        ("config.hidden_size=8", "config", {"hidden_size": 8}), ('title="käse: 1"', "title", "käse: 1"),
    ],
)  # fmt: skip
def test_overrides_reach_their_setting(override: str, path: str, value: Any, tmp_path: Path) -> None:
    found: Any = load_train_config(recipe(tmp_path), [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_the_last_override_wins_and_the_file_stays(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    before = path.read_bytes()
    assert load_train_config(path, ["seed=1", "seed=2"]).seed == 2
    assert path.read_bytes() == before and load_train_config(path).seed == 0


def test_an_empty_section_can_be_filled_by_an_override(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL) + "optimizer:\n", encoding="utf-8")
    assert load_train_config(path, ["optimizer.epochs=4"]).optimizer.epochs == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "not of the form KEY=VALUE"), ("", "not of the form"), ("name.first=x", "'name' .* not a section"),
        ("optimizer.speed=3", "optimizer.speed: Extra inputs"), ("nonsense=3", "nonsense: Extra inputs"),
        ("title=", "title: Input should be a valid string"), ("seed=[1", "is not valid YAML"),
        ("seed=2020-99-99", "is not valid YAML"), ("=3", "not valid"),
        ("seed=!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)  # fmt: skip
def test_impossible_overrides_are_refused(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        load_train_config(recipe(tmp_path), [override])


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("optimizer", {"epochs": 0}), ("optimizer", {"batch_size": 0}), ("optimizer", {"learning_rate": -0.1}),
        ("optimizer", {"average_decay": 1.0}), ("optimizer", {"label_smoothing": 1.5}),
        ("optimizer", {"warmup_epochs": -1}), ("optimizer", {"mixed_precision": "int8"}),
        ("augment", {"speed": [0.0, 1.0]}), ("augment", {"mixup": 1.2}), ("augment", {"mixup_beta": 0.0}),
        ("augment", {"time_mask": -1}), ("augment", {"speed": [1.0]}), ("teacher", {"weight": 0.5}),
        ("teacher", {"checkpoint": "x", "temperature": 0.0}), ("teacher", {"checkpoint": "x", "weight": 1.5}),
        ("data", {"root": "x", "train_folds": "all"}), ("normalize", "perhaps"), ("task", "regression"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_cannot_work_are_refused_by_name(section: str, values: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"recipe.yaml is not valid: {section}"):
        load_train_config(recipe(tmp_path, **{section: values}))


@pytest.mark.parametrize("key", sorted(MINIMAL))
def test_what_a_recipe_must_say(key: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in MINIMAL.items() if k != key}), encoding="utf-8")
    with pytest.raises(SettingsError, match=f"{key}: Field required"):
        load_train_config(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Field required"), (b"- a\n- b\n", "holds no settings"), (b"hello", "holds no settings"),
        (b"name: [", "not valid YAML"), (b"\xff\xfe\x80", "not valid YAML"), (b"name: !!python/name:os.system x", "not valid YAML"),
    ],
)  # fmt: skip
def test_files_that_are_no_recipe_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(data)
    for overrides in (None, ["optimizer.epochs=3"]):
        with pytest.raises(SettingsError, match=message):
            load_train_config(path, overrides)


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent.yaml cannot be read: No such file"):
        load_train_config(tmp_path / "absent.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_train_config(tmp_path)


def ordinary_recipes() -> list[Path]:
    """Shipped recipes of the common trainer (others have sections of their own)."""
    return [p for p in RECIPES if set(yaml.safe_load(p.read_text(encoding="utf-8"))) <= set(TrainConfig.model_fields)]


@pytest.mark.parametrize("path", ordinary_recipes(), ids=lambda p: p.stem)
def test_shipped_recipes_describe_a_network_and_a_front_end(path: Path) -> None:
    config = load_train_config(path)
    cls = family(config.family)
    # Verbs and nouns: the classes are those of all groups.
    n_classes = sum(config.config.get("class_groups") or config.config.get("groups") or [3])
    assert cls.Config.model_validate(config.config | {"n_classes": n_classes}).n_classes == n_classes
    assert build_frontend(config.frontend).config.kind == config.frontend["kind"]


def test_some_recipes_are_shipped() -> None:
    assert ordinary_recipes()
