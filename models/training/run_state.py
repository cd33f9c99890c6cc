"""What an interrupted training run needs to go on exactly: written again and again, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import random
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.errors import CheckpointError, SettingsError
from models.training.config import TrainConfig

_FULL = {errno.ENOSPC, errno.EDQUOT}
_SHARE_OF_TIME = 20
# Settings that change nothing about the weights.
_WITHOUT_EFFECT = {
    "resume", "output", "title", "description", "license", "citation", "training_data", "tracking",
    "checkpoint_every_seconds", "checkpoint_every_steps",
}  # fmt: skip


def state_path(config: TrainConfig) -> Path:
    """Where a recipe's state lies while it is trained."""
    return config.output / f"{config.name}.state"


_STATE = 2  # to be raised when states hold something else: a run is not resumed from one that lacks what it needs


def fingerprint(config: TrainConfig) -> str:
    """Of everything in a recipe that training depends on; where files lie and what texts say does not count."""
    values = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    for name in ("root", "workers", "memory_limit_gb"):
        values["data"].pop(name)
    values["state"] = _STATE
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


@contextlib.contextmanager
def written(what: str) -> Iterator[None]:
    """Around everything that writes files: says in two sentences that it failed.

    Parameters
    ----------
    what
        Begins the sentence, such as "The checkpoint of tones".

    Raises
    ------
    CheckpointError
        If a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _not_written(what, error.errno in _FULL, error.strerror or str(error)) from error
    except SafetensorError as error:
        raise _not_written(what, f"os error {errno.ENOSPC}" in str(error), str(error)) from error
    except RuntimeError as error:
        # torch's writer complains about its end when it could not write the middle.
        cause = error.__context__
        if isinstance(cause, OSError):
            raise _not_written(what, cause.errno in _FULL, cause.strerror or str(cause)) from error
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise _not_written(what, False, "not all of it was taken") from error


def _not_written(what: str, full: bool, reason: str) -> CheckpointError:
    if full:
        return CheckpointError(
            f"{what} cannot be written: the disk is full.",
            "Free some space, then go on from the last state with resume=true.",
        )
    return CheckpointError(
        f"{what} cannot be written: {reason}.", "Check the folder (output), then go on with resume=true."
    )


def save_state(path: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write a state so that the file is either the old or the new one.

    Raises
    ------
    CheckpointError
        If it cannot be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with written(f"The training state of {config.name}"):
            with temporary.open("wb") as file:
                torch.save({"recipe": fingerprint(config), **state}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def not_finite(what: str, epoch: int, step: int, learning_rate: float) -> SettingsError:
    """The error of a training that went astray."""
    return SettingsError(
        f"{what} is not a number any more in epoch {epoch}, at step {step} with a learning rate of {learning_rate:.3g}.",
        "Lower optimizer.learning_rate, clip gradients (optimizer.gradient_clip) or check the data; "
        "what was saved before it is kept.",
    )


class Saver:
    """Decides when the state of a run is written, and writes it.

    Between two states lie `checkpoint_every_steps` steps or `checkpoint_every_seconds` seconds, whichever comes first; of
    states that take long to write, no more are written than fit into a twentieth of the time.

    Parameters
    ----------
    config
        The recipe.
    main
        Whether this process writes; of several only one does.
    """

    def __init__(self, config: TrainConfig, *, main: bool = True) -> None:
        self.config, self.main, self.path = config, main, state_path(config)
        self._step, self._time, self._took = 0, time.monotonic(), 0.0
        if main:
            # Left behind by a process that was killed while it wrote.
            for left in self.path.parent.glob(f".{self.path.name}.*.tmp"):
                left.unlink(missing_ok=True)

    def load(self) -> dict[str, Any]:
        """The state to go on from (see `load_state`)."""
        return load_state(self.path, self.config)

    def begin(self, step: int) -> None:
        """The run begins, or goes on, after this many steps."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether it is time to save after this many steps."""
        if not self.main:
            return False
        steps, seconds = self.config.checkpoint_every_steps, self.config.checkpoint_every_seconds
        if steps is not None and step - self._step >= steps:
            return True
        waited = time.monotonic() - self._time
        return seconds is not None and waited >= max(seconds, _SHARE_OF_TIME * self._took)

    def save(self, state: dict[str, Any], step: int = 0) -> None:
        """Write a state, reached after `step` steps.

        Raises
        ------
        EarwitnessError
            If its weights are not numbers or the disk is full; the old state stays.
        """
        if not self.main:
            return
        for name, value in state.get("network", {}).items():
            if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
                raise SettingsError(
                    f"The weights are not numbers any more after step {step} (in {name}).",
                    "Lower optimizer.learning_rate; what was saved before it is kept.",
                )
        started = time.monotonic()
        save_state(self.path, self.config, state)
        self._step, self._time = step, time.monotonic()
        self._took = self._time - started

    def finish(self) -> None:
        """The checkpoint is written: the state is not needed any more."""
        if self.main:
            self.path.unlink(missing_ok=True)


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
            f"The interrupted training of {config.name} had other settings, or an older version began it.",
            "Give the same recipe and settings, or start again without resume=true.",
        )
    return state
