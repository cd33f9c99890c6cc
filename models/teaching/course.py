"""The course of a training: steps, progress, cancelling, and a state from which it goes on exactly."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.errors import CheckpointError, SettingsError
from models.teaching.contract import Report, TeachProgress

_TOLD_EVERY = 0.1  # seconds
_SAVED_EVERY = 3.0
_SHARE_OF_TIME = 20  # states that take long to write are written more rarely
_POINTS = 200  # of the curve
_CHECKED = 20  # times in a training at which the held-out examples are heard


class Course:
    """Tells how far teaching is; `report` may raise to end it.

    Attributes
    ----------
    curve
        Points of the training so far.
    """

    def __init__(self, report: Report | None) -> None:
        self.report = report
        self.curve: list[TeachProgress] = []
        self._begun = time.monotonic()
        self._before = 0.0
        self._told: tuple[str, float] = ("", -math.inf)

    @property
    def seconds(self) -> float:
        """Since the beginning, with what an interrupted run had taken."""
        return self._before + time.monotonic() - self._begun

    def go_on(self, seconds: float, curve: list[TeachProgress]) -> None:
        """Continue an interrupted run."""
        self._before, self.curve = seconds, curve

    def tell(
        self, stage: str, step: int, steps: int, loss: float | None = None, accuracy: float | None = None,
        seconds_left: float | None = None,
    ) -> None:  # fmt: skip
        """Report, but not more often than people can read."""
        now = time.monotonic()
        point = TeachProgress(stage, step, steps, loss, accuracy, self.seconds, seconds_left)
        if stage == "training" and (step in (1, steps) or accuracy is not None or step % max(1, steps // _POINTS) == 0):
            self.curve.append(point)
        if self.report is None or (stage == self._told[0] and now - self._told[1] < _TOLD_EVERY and step < steps):
            return
        self._told = stage, now
        self.report(point)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Around everything that writes files.

    Raises
    ------
    CheckpointError
        If a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _unwritten(what, error.errno in (errno.ENOSPC, errno.EDQUOT), error.strerror or "") from error
    except SafetensorError as error:
        raise _unwritten(what, f"os error {errno.ENOSPC}" in str(error), str(error)) from error
    except RuntimeError as error:
        # How torch's own writer says that it could not write.
        if "PytorchStreamWriter" not in str(error) and "file write failed" not in str(error):
            raise
        raise _unwritten(what, False, "not all of it was taken") from error


def _unwritten(what: str, full: bool, reason: str) -> CheckpointError:
    if full:
        return CheckpointError(f"{what} cannot be written: the disk is full.", "Free some space and teach again.")
    return CheckpointError(f"{what} cannot be written: {reason}.", "Check the folder that it is written to.")


class StateFile:
    """The state of an unfinished training: a file that is either the old one or the new one.

    Parameters
    ----------
    path
        Where it lies.
    fingerprint
        Of everything that the result depends on; the state of anything else is not used.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self._saved, self._cost = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to write it."""
        return time.monotonic() - self._saved > max(_SAVED_EVERY, _SHARE_OF_TIME * self._cost)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write it.

        Raises
        ------
        CheckpointError
            If it cannot be written.
        """
        begun = time.monotonic()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with writing("The state of the training"):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    torch.save({"fingerprint": self.fingerprint, **state}, file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._saved = time.monotonic()
        self._cost = self._saved - begun

    def load(self) -> dict[str, Any] | None:
        """The state; None if there is none, or it is damaged or that of another training."""
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError):
            return None
        return state if isinstance(state, dict) and state.get("fingerprint") == self.fingerprint else None

    def forget(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def cosine(step: int, steps: int, warm_up: float = 0.05) -> float:
    """Share of the learning rate in a step: a short linear rise, then half a cosine to 0."""
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def not_finite(step: int, rate: float) -> SettingsError:
    """The error of a training that went astray."""
    return SettingsError(
        f"The loss is not a number any more at step {step}, with a learning rate of {rate:.3g}. The model is unchanged.",
        "Teach with a lower learning rate, or leave it to the default.",
    )


def run(
    groups: list[tuple[dict[str, nn.Parameter], float]],
    steps: int,
    loss_at: Callable[[int], Tensor],
    course: Course,
    state_file: StateFile | None = None,
    *,
    weight_decay: float = 0.0,
    validate: Callable[[], float | None] | None = None,
    resume: bool = False,
) -> None:
    """Train parameters for some steps of AdamW; what is random in `loss_at` has to depend on the step alone.

    Parameters
    ----------
    groups
        Named parameters and their largest learning rate.
    loss_at
        The loss of a step, from 0.
    validate
        The share of held-out examples that are right.
    resume
        Go on from the state, if there is one.

    Raises
    ------
    SettingsError
        If the loss stops being a number.
    CheckpointError
        If the state cannot be written.
    """
    parameters = {name: value for named, _ in groups for name, value in named.items()}
    for value in parameters.values():
        value.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [{"params": list(named.values()), "lr": rate} for named, rate in groups], weight_decay=weight_decay
    )
    first = 0
    state = state_file.load() if state_file is not None and resume else None
    if state is not None:
        first = _restore(state, parameters, optimizer, course)
    every = max(1, steps // _CHECKED)
    begun = time.monotonic()

    def snapshot(done: int) -> dict[str, Any]:
        return {
            "step": done, "seconds": course.seconds, "optimizer": optimizer.state_dict(),
            "parameters": {name: value.detach().cpu() for name, value in parameters.items()},
            "curve": [[p.stage, p.step, p.steps, p.loss, p.validation_accuracy, p.seconds, p.seconds_left] for p in course.curve],
        }  # fmt: skip

    done = first
    try:
        for step in range(first, steps):
            for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate * cosine(step, steps)
            loss = loss_at(step)
            amount = loss.item()
            if not math.isfinite(amount):
                raise not_finite(step + 1, max(rate for _, rate in groups))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 10.0)
            optimizer.step()
            done = step + 1
            accuracy = validate() if validate is not None and (done % every == 0 or done == steps) else None
            left = (time.monotonic() - begun) / (done - first) * (steps - done)
            course.tell("training", done, steps, amount, accuracy, left)
            if state_file is not None and state_file.due:
                state_file.save(snapshot(done))
        if not all(bool(value.isfinite().all()) for value in parameters.values()):
            raise not_finite(steps, max(rate for _, rate in groups))
    except SettingsError:
        # Going on from here would go astray again.
        if state_file is not None:
            state_file.forget()
        raise
    except CheckpointError:
        raise
    except BaseException:
        # Cancelled: what was reached is kept, unless that cannot be written either.
        if state_file is not None and done > first:
            with contextlib.suppress(CheckpointError):
                state_file.save(snapshot(done))
        raise
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)


def _restore(
    state: dict[str, Any], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, course: Course
) -> int:
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(state["parameters"][name])
    optimizer.load_state_dict(state["optimizer"])
    curve = [TeachProgress(*point) for point in state["curve"]]
    course.go_on(float(state["seconds"]), curve)
    return int(state["step"])
