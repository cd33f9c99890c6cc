"""What an interrupted training run needs to go on exactly: written after every epoch, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import CheckpointError, SettingsError
from models.training.config import TrainConfig


def state_path(config: TrainConfig) -> Path:
    """Where a recipe's state lies while it is trained."""
    return config.output / f"{config.name}.state"


def fingerprint(config: TrainConfig) -> str:
    """Of everything in a recipe that training depends on; where files lie and what texts say does not count."""
    values = config.model_dump(
        mode="json", exclude={"resume", "output", "title", "description", "license", "citation", "training_data"}
    )
    for name in ("root", "workers", "memory_limit_gb"):
        values["data"].pop(name)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def random_states(*generators: torch.Generator) -> dict[str, Any]:
    """States of all random numbers: Python's, numpy's, torch's on all devices, and of `generators`."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "generators": [generator.get_state() for generator in generators],
    }


def set_random_states(states: dict[str, Any], *generators: torch.Generator) -> None:
    """Go on from `random_states`."""
    random.setstate(states["python"])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    for generator, state in zip(generators, states["generators"], strict=True):
        generator.set_state(state)


def save_state(path: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write a state so that the file is either the old or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"recipe": fingerprint(config), **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, config: TrainConfig) -> dict[str, Any]:
    """The state of an interrupted run of the same recipe.

    Raises
    ------
    SettingsError
        If there is none, or the recipe is another one.
    CheckpointError
        If the file is damaged.
    """
    if not path.is_file():
        raise SettingsError(
            f"There is no interrupted training of {config.name} in {path.parent.name} to go on with.",
            "Leave out resume=true to start from the beginning.",
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"The training state {path.name} is damaged.", "Start again without resume=true."
        ) from error
    if not isinstance(state, dict) or state.get("recipe") != fingerprint(config):
        raise SettingsError(
            f"The interrupted training of {config.name} had other settings.",
            "Give the same recipe and settings, or start again without resume=true.",
        )
    return state
