"""A reservoir of labelled clips in a folder: bounded, and whole after a crash at any point."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.clip import Clip, encode_flac, open_clip
from models.errors import DataError, SettingsError
from models.training.reservoir import Policy, count_labels, plan_decision

STATE, _LOCK = "reservoir.json", ".lock"
_CLIP_NAME = re.compile(r"clip-(\d{8,})\.flac")


class ReservoirSettings(BaseModel):
    """What a reservoir keeps.

    Attributes
    ----------
    n_classes, capacity
        Number of classes, and most clips.
    max_seconds, max_sample_rate
        Longer clips are cut and faster ones resampled, so that the space on disk is bounded.
    replace_prob, policy, alpha
        See `models.training.reservoir.store_audio_decision`.
    forgetting
        Factor on the observed counts before every new clip; below 1 the reservoir follows a changing home.
    seed
        Of the decisions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_classes: int = Field(ge=1)
    capacity: int = Field(ge=1)
    max_seconds: float = Field(30.0, gt=0, allow_inf_nan=False)
    max_sample_rate: int = Field(48000, ge=100)
    replace_prob: float = Field(0.7, ge=0, le=1)
    policy: Policy = "matched"
    alpha: float = Field(1.0, ge=0, allow_inf_nan=False)
    forgetting: float = Field(1.0, gt=0, le=1)
    seed: int = 0


class StoredClip(BaseModel):
    """A clip in the reservoir: file name within the folder, classes, and what it was called (text from outside)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=_CLIP_NAME.pattern + "$")
    labels: list[int]
    name: str = ""


class _State(BaseModel):
    """Everything but the sound; replaced as a whole by every change."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    settings: ReservoirSettings
    obs_counts: list[float]
    examples: list[StoredClip] = []
    next_number: int = 1
    random_state: dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """What became of an offered clip.

    Attributes
    ----------
    stored
        Whether it is kept now.
    class_to_reduce
        The over-represented class for which room was made, if any.
    evicted
        The clip that it replaced, if any (its file is gone).
    """

    stored: bool
    class_to_reduce: int | None = None
    evicted: StoredClip | None = None


class AudioReservoir:
    """At most `capacity` labelled clips in a folder.

    A change writes the new clip, then replaces ``reservoir.json`` in one step, then deletes the old clip. Whatever a crash
    leaves behind, the state file names only whole clips; what it does not name is removed when the reservoir is opened
    next. Between changes the folder holds at most `capacity` clips, during one at most one more.

    Parameters
    ----------
    folder
        Created if needed. One process at a time can have it open.
    settings
        Needed for a new folder; for an existing one None, or the same number of classes and any other settings, which are
        taken over (the capacity must not fall below what is stored).

    Attributes
    ----------
    notes
        What was mended when it was opened.

    Raises
    ------
    SettingsError
        If another process has it open, or the settings do not fit what is stored.
    DataError
        If the state file is damaged.
    """

    def __init__(self, folder: str | Path, settings: ReservoirSettings | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.notes: list[str] = []
        self._lock = _acquire(self.folder / _LOCK)
        try:
            self._state = self._open(settings)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process open it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> AudioReservoir:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def settings(self) -> ReservoirSettings:
        """What it keeps."""
        return self._state.settings

    @property
    def examples(self) -> tuple[StoredClip, ...]:
        """The stored clips."""
        return tuple(self._state.examples)

    @property
    def obs_counts(self) -> np.ndarray:
        """How often each class was observed, float64 ``[K]``."""
        return np.array(self._state.obs_counts, dtype=np.float64)

    @property
    def stored_counts(self) -> np.ndarray:
        """Stored clips per class, int64 ``[K]``."""
        return count_labels([clip.labels for clip in self._state.examples], self.settings.n_classes)

    @property
    def max_bytes(self) -> int:
        """Most space on disk for sound, during a change: 16 bits a sample, plus the files' heads."""
        samples = math.ceil(self.settings.max_seconds * self.settings.max_sample_rate)
        return (self.settings.capacity + 1) * (2 * samples + samples // 64 + 16384)

    def path(self, clip: StoredClip) -> Path:
        """File of a stored clip."""
        return self.folder / clip.file

    def open_clip(self, clip: StoredClip) -> Clip:
        """A stored clip, decoded."""
        return open_clip(self.path(clip), name=clip.name or clip.file)

    def offer(self, clip: Clip, labels: Sequence[int]) -> Offer:
        """Observe a labelled clip and decide whether to keep it.

        Parameters
        ----------
        clip
            Kept as its mono mix, 16-bit FLAC.
        labels
            Its classes; a clip without any is not observed and not kept.

        Raises
        ------
        SettingsError
            If a label is not in 0 to the number of classes - 1.
        """
        state, settings = self._state, self.settings
        classes = sorted({int(label) for label in labels})
        if any(not 0 <= label < settings.n_classes for label in classes):
            raise SettingsError(f"The labels {classes} are not all in 0 to {settings.n_classes - 1}.")
        if not classes:
            return Offer(False)
        observed = [count * settings.forgetting for count in state.obs_counts]
        for label in classes:
            observed[label] += 1.0
        rng = np.random.default_rng()
        rng.bit_generator.state = state.random_state
        plan = plan_decision(
            observed, self.stored_counts, classes, [c.labels for c in state.examples], settings.replace_prob,
            policy=settings.policy, capacity=settings.capacity, alpha=settings.alpha,
        )  # fmt: skip
        keep, reduced, place = plan.draw(rng)
        if keep and place is None and len(state.examples) >= settings.capacity:
            keep = False
        changed = state.model_copy(
            update={"obs_counts": observed, "random_state": rng.bit_generator.state, "examples": list(state.examples)}
        )
        evicted = None
        if keep:
            stored = StoredClip(file=f"clip-{state.next_number:08d}.flac", labels=classes, name=clip.name[:120])
            changed.next_number += 1
            _write_whole(self.folder / stored.file, self._encoded(clip))
            if place is None:
                changed.examples.append(stored)
            else:
                evicted, changed.examples[place] = changed.examples[place], stored
        self._commit(changed)
        if evicted is not None:
            self.path(evicted).unlink(missing_ok=True)
        return Offer(keep, reduced if keep else None, evicted)

    def extend_classes(self, n_classes: int) -> None:
        """Go on with more classes; the counts of new ones are 0.

        Raises
        ------
        SettingsError
            If there are fewer than before.
        """
        if n_classes < self.settings.n_classes:
            raise SettingsError(f"A reservoir of {self.settings.n_classes} classes cannot go on with {n_classes}.")
        observed = self._state.obs_counts + [0.0] * (n_classes - self.settings.n_classes)
        settings = self.settings.model_copy(update={"n_classes": n_classes})
        self._commit(self._state.model_copy(update={"settings": settings, "obs_counts": observed}))

    # --- files ------------------------------------------------------------------------------------------------------

    def _encoded(self, clip: Clip) -> bytes:
        rate = min(clip.sample_rate, self.settings.max_sample_rate)
        samples = clip.mono() if rate == clip.sample_rate else clip.at(rate)
        return encode_flac(samples[None, : max(1, int(self.settings.max_seconds * rate))], rate)

    def _commit(self, state: _State) -> None:
        """The one step by which a change becomes true."""
        _write_whole(self.folder / STATE, state.model_dump_json(indent=1).encode())
        self._state = state

    def _open(self, settings: ReservoirSettings | None) -> _State:
        file = self.folder / STATE
        if not file.is_file():
            if settings is None:
                raise SettingsError(
                    f"There is no reservoir in {self.folder.name}.",
                    "Give its settings (n_classes and capacity) to begin one.",
                )
            generator: Any = np.random.default_rng(settings.seed).bit_generator.state
            state = _State(settings=settings, obs_counts=[0.0] * settings.n_classes, random_state=generator)
            self._sweep(state)
            _write_whole(file, state.model_dump_json(indent=1).encode())
            return state
        state = self._read(file)
        kept = [clip for clip in state.examples if self.path(clip).is_file()]
        changed = len(kept) < len(state.examples)
        if changed:
            self.notes.append(f"{len(state.examples) - len(kept)} stored clips have vanished and were struck off.")
            state.examples = kept
        if settings is not None and settings != state.settings:
            if settings.n_classes != state.settings.n_classes:
                raise SettingsError(
                    f"The reservoir knows {state.settings.n_classes} classes, not {settings.n_classes}.",
                    "Open it without settings and call extend_classes.",
                )
            if settings.capacity < len(kept):
                raise SettingsError(f"The reservoir holds {len(kept)} clips already, more than {settings.capacity}.")
            state.settings, changed = settings, True
        if changed:
            _write_whole(file, state.model_dump_json(indent=1).encode())
        self._sweep(state)
        return state

    def _read(self, file: Path) -> _State:
        advice = "Restore the file from a backup, or move the folder away and begin a new reservoir."
        try:
            state = _State.model_validate(json.loads(file.read_text(encoding="utf-8")))
            if state.format != 1 or len(state.obs_counts) != state.settings.n_classes:
                raise ValueError("its parts do not fit together")
            count_labels([clip.labels for clip in state.examples], state.settings.n_classes)
            np.random.default_rng().bit_generator.state = state.random_state
            if not all(math.isfinite(count) and count >= 0 for count in state.obs_counts):
                raise ValueError("a count is no number")
        except (OSError, ValueError, ValidationError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"The reservoir's {STATE} is damaged ({str(error)[:200]}).", advice) from error
        return state

    def _sweep(self, state: _State) -> None:
        """Remove what an interrupted change left behind: temporary files and clips that the state does not name."""
        named = {clip.file for clip in state.examples}
        for path in self.folder.iterdir():
            leftover = path.name.endswith(".tmp") and path.name.startswith(".")
            if leftover or (_CLIP_NAME.fullmatch(path.name) and path.name not in named):
                path.unlink(missing_ok=True)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there, also after a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where folders can be synchronised (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int | None:
    """An exclusive lock that ends with the process; None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SettingsError(
            "Another process has this reservoir open.", "Close it there, or use another folder."
        ) from error
    return descriptor
