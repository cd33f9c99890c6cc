"""What published checkpoints of each family need besides their entries: settings, front end and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from torch import Tensor

from models.card import Task
from models.errors import CheckpointError
from models.families.ast import AST, ASTConfig
from models.layers.ast_names import from_hugging_face, is_hugging_face
from models.layers.position_grid import adapt_positions
from models.layers.slowfast_settings import frontend_from_settings, hints_from_settings
from models.network import Network, NetworkConfig

# Mean and divisor of the published features by number of classes, where they are not the family's default.
_AST_STATISTICS = {35: (-6.845978, 11.1309052), 50: (-6.6268077, 10.716932)}
_EQUIAV_VGGSOUND = (-4.956, 4.486)
# Published outputs of these families are sigmoids of every class by itself, whatever they are trained on.
_INDEPENDENT = {
    "equiav", "crnn", "cnn_transformer", "transformer", "linear", "fnet", "ffnet", "psla", "mobilenet", "resnet_attention"
}  # fmt: skip
_MULTI_LABEL_COUNTS = {527, 200}  # AudioSet, FSD50K
_INPUT_SIZE = ("target_length", "n_mels")


def published_cfg(given: Mapping[str, Any]) -> str | None:
    """The text of a settings file of a published run (its sections are in capitals), None for any other table."""
    if any(section in given for section in ("AUDIO_DATA", "MODEL", "TRAIN", "RESNET", "ENCODER")):
        return yaml.safe_dump(dict(given))
    return None


def settings_hints(cls: type[Network], cfg: Any) -> dict[str, Any]:
    """Hints for `Network.infer_config` from the settings that travel with a published checkpoint."""
    if not isinstance(cfg, str):
        return {}
    if cls.info.name == "slowfast":
        return hints_from_settings(cfg)
    return {"cfg": cfg} if cls.info.name == "play_it_back" else {}


def adapted_ast(
    state_dict: Mapping[str, Tensor], hints: Mapping[str, Any] | ASTConfig | NetworkConfig,
    stored: NetworkConfig | None = None,
) -> tuple[ASTConfig, dict[str, Tensor], tuple[str, ...]]:  # fmt: skip
    """Settings and entries of an AST; its table of positions is adapted where another input size is asked for.

    Hints that describe the stored table are taken as such. Otherwise `target_length` and `n_mels` are the wanted size, and
    the rest of the hints has to describe the file.

    Parameters
    ----------
    hints
        Of `AST.infer_config`, or the whole wanted configuration where `stored`, the file's, is known.

    Returns
    -------
    tuple
        Settings, entries, and what was adapted in words.

    Raises
    ------
    CheckpointError
        If the file's own input size cannot be told, or other strides are wanted than it was trained with.
    """
    if isinstance(hints, NetworkConfig):
        wanted, source = hints, stored
    else:
        try:
            return AST.infer_config(state_dict, hints), dict(state_dict), ()
        except CheckpointError as error:
            rest = {key: value for key, value in hints.items() if key not in _INPUT_SIZE}
            if len(rest) == len(hints):
                raise
            try:
                source = AST.infer_config(state_dict, rest)
            except CheckpointError:
                raise error from None
        wanted = ASTConfig.model_validate(source.model_dump() | dict(hints))
    assert isinstance(wanted, ASTConfig) and isinstance(source, ASTConfig)
    entries = from_hugging_face(state_dict) if is_hugging_face(state_dict) else dict(state_dict)
    same = source.model_copy(update={key: getattr(wanted, key) for key in (*_INPUT_SIZE, "eps", "head_eps")})
    if same != wanted:
        raise CheckpointError(
            f"An AST trained with strides {source.frequency_stride}/{source.time_stride} cannot be changed in more than its "
            "input size.",
            f"Only {', '.join(_INPUT_SIZE)} can differ from the file's.",
        )
    if min(wanted.grid) < 1:
        raise CheckpointError(f"{wanted.target_length} frames x {wanted.n_mels} bands hold no patch of 16 x 16.")
    if wanted.grid == source.grid:
        return wanted, entries, ()
    entries["v.pos_embed"] = adapt_positions(entries["v.pos_embed"], source.grid, wanted.grid)
    sizes = " to ".join(" x ".join(str(n) for n in grid) for grid in (source.grid, wanted.grid))
    return wanted, entries, (f"v.pos_embed: {sizes} patches (frequency x time)",)


def frontend_values(
    cls: type[Network], settings: NetworkConfig, cfg: Any, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The published front end of a checkpoint, changed as asked for.

    Raises
    ------
    CheckpointError
        If `given` is no table.
    """
    if given is not None and not isinstance(given, Mapping):
        raise CheckpointError("The setting 'frontend' is not a table.", "Write frontend: {mean: -4.27, ...}.")
    values = cls.default_frontend(settings).model_dump(mode="json")
    name = cls.info.name
    if name == "ast" and settings.n_classes in _AST_STATISTICS:
        mean, divisor = _AST_STATISTICS[settings.n_classes]
        values |= {"mean": mean, "std_scale": divisor}
    elif name.startswith("equiav") and settings.n_classes == 309:
        values |= {"mean": _EQUIAV_VGGSOUND[0], "std_scale": _EQUIAV_VGGSOUND[1]}
    elif name == "slowfast":
        values |= frontend_from_settings(cfg) or {}
    changes = dict(given or {})
    if changes.get("kind", values["kind"]) != values["kind"]:
        return changes
    return values | changes


def task_of(name: str, settings: NetworkConfig, notes: list[str]) -> Task:
    """Whether one class is right or any number; notes it where it is an assumption."""
    if name == "slowfast":
        return "multi-label" if getattr(settings, "head_activation", "") == "sigmoid" else "single-label"
    if name in _INDEPENDENT or (name != "hetero_graph" and settings.n_classes in _MULTI_LABEL_COUNTS):
        return "multi-label"
    if name == "ast" and settings.n_classes not in (35, 50):
        notes.append("It is assumed that one class is right for a clip; if any number is, set task: multi-label.")
    return "single-label"


def label_groups_of(settings: NetworkConfig | None) -> list[int]:
    """Sizes of groups of classes among which one is right (verbs and nouns), empty for one group."""
    groups = getattr(settings, "class_groups", None) or getattr(settings, "groups", None) or ()
    return [int(size) for size in groups] if len(groups) > 1 else []
