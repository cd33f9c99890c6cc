"""From one EquiAV checkpoint to another: published files, MAE and pre-trained initialisation, class extension."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError


class MissingFileError(CheckpointError, FileNotFoundError):
    """A file that was asked for by name does not exist."""

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()


@dataclass(frozen=True)
class LoadReport:
    """What became of the entries of a checkpoint.

    Attributes
    ----------
    loaded, ignored, fresh
        Copied entries; entries of the file without a use here; entries of the network that keep their initial values.
    unexpected
        Entries of a fine-tuned file whose names mean nothing here (`ignored` are then those of an unused tower).
    rows_copied, rows_fresh
        Classes taken over and classes added by class extension (0 and 0 if the classes agree).
    """

    loaded: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    rows_copied: int = 0
    rows_fresh: int = 0
    unexpected: tuple[str, ...] = ()
    merged: dict[str, Tensor] = field(default_factory=dict, repr=False)


def read_published(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a ``.pth`` file without containers and prefixes (``__M__.``, ``module.``) and temperatures.

    Raises
    ------
    CheckpointError
        If there is no such file, or it holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no weights file {path.name}.", "Check the path for typing errors.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read as weights: it is damaged, or holds more than tensors.",
            "Save the state dict alone with torch.save.",
        ) from error
    for container in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise CheckpointError(f"{path.name} does not hold a state dict.", "Save the state dict alone with torch.save.")
    return strip_prefixes(content)


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without leading ``module.`` and ``__M__.``; learnable temperatures (``__L_*``) are dropped."""
    stripped = {}
    for key, value in state_dict.items():
        while key.startswith(("module.", "__M__.")):
            key = key.split(".", 1)[1]
        if not key.startswith("__L_"):
            stripped[key] = value
    return stripped


def write_published(path: str | Path, network: nn.Module) -> None:
    """Write weights under published names (prefix ``__M__.``), so that the file is either whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        entries = {f"__M__.{k}": v.detach().cpu().clone() for k, v in network.state_dict().items()}
        with temporary.open("wb") as file:
            torch.save(entries, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def checkpoint_kind(state_dict: Mapping[str, Tensor]) -> str:
    """``pre-training``, ``fine-tuned`` or ``mae``.

    Raises
    ------
    CheckpointError
        If it is none of them.
    """
    if any(key.startswith("cross_attn_a.") for key in state_dict):
        return "pre-training"
    if any(key.startswith("mlp_head.") for key in state_dict):
        return "fine-tuned"
    if any(key.startswith("blocks.0.") for key in state_dict):
        return "mae"
    raise CheckpointError("The file is neither an EquiAV checkpoint nor an MAE transformer.", "Check its origin.")


def copy_matching(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> LoadReport:
    """Pre-training to fine-tuning: an entry is taken over if the target has one of the same name and shape."""
    loaded = tuple(k for k, v in source.items() if k in target and target[k].shape == v.shape)
    taken = set(loaded)
    merged = {key: source[key] if key in taken else value for key, value in target.items()}
    return LoadReport(
        loaded, tuple(k for k in source if k not in taken), tuple(k for k in target if k not in taken), merged=merged
    )


def initialize_from_mae(
    audio: Mapping[str, Tensor] | None, visual: Mapping[str, Tensor] | None, target: Mapping[str, Tensor]
) -> LoadReport:
    """MAE transformers (one per modality) into the two towers.

    The tower's suffix is put after the first part of a name. Patches of one input channel are repeated three times without
    division, as published. Class token and position table have no place here.
    """
    merged, loaded, ignored = dict(target), [], []
    for tower, source in (("a", audio), ("v", visual)):
        for key, value in (source or {}).items():
            first, dot, rest = key.partition(".")
            name = f"{first}_{tower}{dot}{rest}"
            if key == "patch_embed.proj.weight" and value.shape[1] == 1:
                value = value.repeat(1, 3, 1, 1)
            if name in merged and merged[name].shape == value.shape:
                merged[name] = value
                loaded.append(name)
            else:
                ignored.append(name)
    taken = set(loaded)
    return LoadReport(tuple(loaded), tuple(ignored), tuple(k for k in target if k not in taken), merged=merged)


def extend_classes(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], *, allow_shrink: bool = False
) -> LoadReport:
    """A fine-tuned checkpoint into a network with another number of classes.

    The first ``min(old, new)`` rows of the last head layer are the old ones, further rows keep the target's initial values;
    everything else has to agree.

    Raises
    ------
    CheckpointError
        If another entry is missing or differs, if the head reads something else, or if classes would be lost and
        `allow_shrink` is not set.
    """
    merged, unexpected = dict(target), []
    copied = fresh = 0
    wrong: list[str] = []
    last = "mlp_head.3." if "mlp_head.3.weight" in target else "mlp_head.0."
    for key, value in source.items():
        if key not in target:
            unexpected.append(key)
            continue
        wanted = target[key]
        if wanted.shape == value.shape:
            merged[key] = value
        elif key.startswith(last) and wanted.shape[1:] == value.shape[1:]:
            old, new = value.shape[0], wanted.shape[0]
            if new < old and not allow_shrink:
                raise CheckpointError(
                    f"The checkpoint knows {old} classes, but only {new} are wanted.",
                    "Give a class table that contains all old classes, or allow dropping them (allow_shrink).",
                )
            copied, fresh = min(old, new), max(0, new - old)
            merged[key] = wanted.clone()
            merged[key][:copied] = value[:copied]
        else:
            wrong.append(f"{key} is {list(value.shape)} instead of {list(wanted.shape)}")
    missing = [key for key in target if key not in source]
    if wrong or missing:
        problems = "; ".join(wrong[:3] + [f"{key} is missing" for key in missing[:3]])
        raise CheckpointError(
            f"The checkpoint does not fit this EquiAV: {problems}.",
            "Check modality mode, head type and sizes.",
        )
    loaded = tuple(key for key in source if key in target)
    return LoadReport(loaded, (), (), copied, fresh, tuple(unexpected), merged)
