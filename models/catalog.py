"""Which checkpoints there are, and what their cards say; loads no weights and no deep-learning library."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import ValidationError

from models.card import Card
from models.errors import CheckpointError

WEIGHTS, CARD = "model.safetensors", "card.yaml"
# Where else a name may be looked up: functions that give its folder, or None. Such models are in nobody's list by that.
FINDERS: list[Callable[[str], Path | None]] = []
SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "checkpoints"


def checkpoint_folders(extra: tuple[Path, ...] = ()) -> dict[str, Path]:
    """Names and folders of all checkpoints: the shipped ones, those under ``EARWITNESS_CHECKPOINTS``, and `extra`."""
    roots = [SHIPPED, *(Path(p) for p in os.environ.get("EARWITNESS_CHECKPOINTS", "").split(os.pathsep) if p), *extra]
    found: dict[str, Path] = {}
    for root in roots:
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                # Hidden folders are checkpoints that are being written.
                if not folder.name.startswith(".") and (folder / CARD).is_file() and (folder / WEIGHTS).is_file():
                    found[folder.name] = folder
    return found


def find_checkpoint(name_or_path: str | Path) -> Path:
    """Folder of a checkpoint, by name or path.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    path = Path(name_or_path)
    known = checkpoint_folders()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    for find in FINDERS:
        if (folder := find(str(name_or_path))) is not None:
            return folder
    try:
        if (path / CARD).is_file():
            return path
        there = path.exists()
    except (OSError, ValueError):  # not even a possible path: too long, or with a zero byte
        there = False
    if there:
        raise CheckpointError(
            f"{path.name} is not a checkpoint: it has no {CARD}.",
            "Bring in a published checkpoint with 'earwitness models import'.",
        )
    raise CheckpointError(
        f"There is no model named {str(name_or_path)!r}.",
        f"Known are: {', '.join(known) or 'none'}; a path to a checkpoint folder works too.",
    )


def read_card(folder: Path) -> Card:
    """The card of a checkpoint, without its weights.

    Raises
    ------
    CheckpointError
        If it is missing or not valid.
    """
    try:
        return Card.model_validate(yaml.safe_load((folder / CARD).read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"The card of {folder.name} cannot be read: {error.strerror}.") from error
    # ValueError: bytes that are no text, numbers of too many digits; RecursionError: brackets within brackets.
    except (yaml.YAMLError, ValidationError, ValueError, RecursionError) as error:
        raise CheckpointError(f"The card of {folder.name} is not valid: {error}") from error
