"""A visitor's reservoir: the clips that a device with little room would keep of the stream of sounds it hears.

The reservoir itself is `models.training.reservoir_store.AudioReservoir`; here it gets class names, a place on the server, and
a record of how stored and observed classes developed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.clip import Clip
from models.errors import SettingsError
from models.training.reservoir import Policy, SimulationResult, simulate_reservoir
from models.training.reservoir_store import AudioReservoir, ReservoirSettings
from workbench.examples import example_clips, open_example
from workbench.home import check_space, data_home
from workbench.labels import spoken

NAMES, HISTORY = "labels.json", "history.jsonl"
MOST_CLASSES, LONGEST_NAME, MOST_STEPS = 40, 60, 2000
# One process holds a folder at a time; within the server, one visitor's tabs wait for each other.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Told:
    """What became of an offered clip, as a sentence."""

    stored: bool
    sentence: str


@dataclass(frozen=True, eq=False)
class Contents:
    """What a reservoir holds.

    Attributes
    ----------
    labels
        Class names, in the order of the columns.
    observed, stored
        Share of every class after every offered clip, ``[clips, n_classes]``; classes that came later are 0 before.
    counts
        Stored clips per class now, ``[n_classes]``.
    clips
        Stored clips: name, class names, and the file in the reservoir's folder.
    capacity, policy, max_bytes, used_bytes
        Its limits, and what lies on disk.
    notes
        What was mended when it was opened.
    """

    labels: tuple[str, ...]
    observed: np.ndarray
    stored: np.ndarray
    counts: np.ndarray
    clips: tuple[tuple[str, tuple[str, ...], Path], ...]
    capacity: int
    policy: Policy
    max_bytes: int
    used_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def distance(self) -> float:
        """Total variation of stored and observed classes now, 0 to 1; 0 before anything was heard."""
        return 0.5 * float(np.abs(self.stored[-1] - self.observed[-1]).sum()) if len(self.observed) else 0.0


def folder_of(workspace: str) -> Path:
    """Where a visitor's reservoir lies; the workspace's name has no part in the path."""
    return data_home() / "reservoirs" / hashlib.sha256(workspace.encode()).hexdigest()[:24]


def compare_policies(
    n_classes: int, capacity: int, steps: int, replace_prob: float, seed: int
) -> dict[Policy, SimulationResult]:
    """The same random stream into a reservoir of each rule.

    Raises
    ------
    SettingsError
        If the numbers make no simulation.
    """
    policies: tuple[Policy, ...] = ("matched", "published")
    return {p: simulate_reservoir(n_classes, capacity, steps, replace_prob, policy=p, seed=seed) for p in policies}


def start_anew(workspace: str, capacity: int = 20, policy: Policy = "matched") -> None:
    """Throw a visitor's reservoir away and begin an empty one.

    Raises
    ------
    EarwitnessError
        If the settings are not valid, or the disk is full.
    """
    folder = folder_of(workspace)
    with _LOCK:
        shutil.rmtree(folder, ignore_errors=True)
        _begin(folder, capacity, policy)


def _begin(folder: Path, capacity: int, policy: Policy) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_space(folder)
    AudioReservoir(folder, ReservoirSettings(n_classes=1, capacity=capacity, policy=policy, max_seconds=10.0)).close()
    (folder / NAMES).write_text("[]", encoding="utf-8")
    (folder / HISTORY).write_text("", encoding="utf-8")


def offer(workspace: str, clip: Clip, labels: Sequence[str]) -> Told:
    """Let a visitor's reservoir observe a clip and decide whether to keep it.

    Raises
    ------
    EarwitnessError
        If there is no label or too many, or the disk is full.
    """
    wanted = list(dict.fromkeys(label.strip()[:LONGEST_NAME] for label in labels if label.strip()))
    if not wanted:
        raise SettingsError("A clip without a class is not observed.", "Say what is heard in it.")
    folder = folder_of(workspace)
    with _LOCK:
        if not (folder / NAMES).is_file():
            _begin(folder, 20, "matched")
        check_space(folder)
        names: list[str] = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        names += [label for label in wanted if label not in names]
        if len(names) > MOST_CLASSES:
            raise SettingsError(
                f"A reservoir here holds {MOST_CLASSES} classes.", "Use classes that are there, or begin anew."
            )
        with AudioReservoir(folder) as reservoir:
            if len(names) > reservoir.settings.n_classes:
                reservoir.extend_classes(len(names))
            # Names first: a crash in between leaves a name without clips, not a clip without a name.
            _replace(folder / NAMES, json.dumps(names, ensure_ascii=False))
            found = reservoir.offer(clip, [names.index(label) for label in wanted])
            line = {"observed": reservoir.obs_counts.tolist(), "stored": reservoir.stored_counts.tolist()}
            full = len(reservoir.examples) >= reservoir.settings.capacity
        lines = [*_lines(folder), json.dumps(line)][-MOST_STEPS:]
        _replace(folder / HISTORY, "\n".join(lines) + "\n")
    what = ", ".join(spoken(label) for label in wanted)
    if not found.stored:
        return Told(
            False,
            f"{clip.name} ({what}) was heard and is not kept: enough like it is stored for how often it is heard.",
        )
    if found.evicted is None:
        return Told(True, f"{clip.name} ({what}) is kept{'; the reservoir is full now' if full else ''}.")
    gone = ", ".join(spoken(names[label]) for label in found.evicted.labels)
    return Told(True, f"{clip.name} ({what}) is kept in place of {found.evicted.name} ({gone}).")


def labels_of(clip_id: str) -> list[str]:
    """The classes of an example; of a visitor's own clip nobody has said them yet."""
    example = example_clips().get(clip_id)
    return list(example.labels) if example is not None else []


def offer_examples(workspace: str, seed: int, progress: Callable[[str, float], None]) -> int:
    """Let the reservoir hear all examples, in an order of its own; returns how many were kept."""
    ids = list(example_clips())
    kept = 0
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(ids))):
        progress("The examples pass by", number / len(ids))
        kept += offer(workspace, open_example(ids[index]), labels_of(ids[index])).stored
    return kept


def contents(workspace: str) -> Contents | None:
    """What a visitor's reservoir holds; None before there is one.

    Raises
    ------
    DataError
        If its state is damaged.
    """
    folder = folder_of(workspace)
    with _LOCK:
        if not (folder / NAMES).is_file():
            return None
        names: list[str] = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        with AudioReservoir(folder) as reservoir:
            clips = tuple(
                (clip.name, tuple(names[label] for label in clip.labels), reservoir.path(clip))
                for clip in reservoir.examples
            )
            settings, counts, notes = reservoir.settings, reservoir.stored_counts, tuple(reservoir.notes)
            limit = reservoir.max_bytes
        steps = [json.loads(line) for line in _lines(folder)]
        used = sum(file.stat().st_size for file in folder.glob("clip-*.flac"))

    def shares(key: str) -> np.ndarray:
        values = np.zeros((len(steps), len(names)))
        for row, step in zip(values, steps, strict=True):
            row[: len(step[key])] = step[key][: len(names)]
        return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)

    return Contents(
        tuple(names), shares("observed"), shares("stored"), counts[: len(names)], clips, settings.capacity, settings.policy,
        limit, used, notes,
    )  # fmt: skip


def _lines(folder: Path) -> list[str]:
    try:
        return [line for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines() if line]
    except FileNotFoundError:
        return []


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
