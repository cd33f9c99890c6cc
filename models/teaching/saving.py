"""Writing a taught model: weights, card, memory and result, all or nothing."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from models.card import TrainingData
from models.catalog import CARD
from models.checkpoint import save_checkpoint
from models.errors import SettingsError
from models.teaching.contract import TeachResult
from models.teaching.course import writing
from models.teaching.lesson import Lesson
from models.teaching.memory import Memory, pack, save_memory
from models.teaching.scoring import widened

RESULT = "result.json"
_REMEMBERED_VIEWS = 2
_NAMED = 10  # classes that a memory's description names


def memory_after(lesson: Lesson) -> Memory | None:
    """The base's memory, as far as it still holds, and embeddings of the examples."""
    if not lesson.settings.keep_memory:
        return None
    rows = lesson.learned
    places = lesson.windows(rows)[2]
    targets = lesson.learned_targets()[places]
    parts = lesson.copies[: 1 + _REMEMBERED_VIEWS]
    if lesson.way != "head":
        parts = [torch.cat([part.cpu() for part in lesson.hidden(lesson.taught, rows)])]
    hidden, wanted = torch.cat(parts), targets.repeat(len(parts), 1)
    groups = torch.tensor(places).repeat(len(parts))
    taught = list(dict.fromkeys(label for row in rows for label in lesson.labels_of(row)))
    named = ", ".join(taught[:_NAMED]) + (", ..." if len(taught) > _NAMED else "")
    source = f"{len(rows)} examples of {named}"
    if lesson.memory is not None and lesson.way == "head":
        hidden = torch.cat([lesson.memory.values(), hidden])
        wanted = torch.cat([widened(lesson.memory.targets.float(), len(lesson.labels)), wanted])
        groups = torch.cat([lesson.memory.groups, groups + int(lesson.memory.groups.max()) + 1])
        source = f"{lesson.memory.source}; {source}"
    return pack(hidden, wanted, groups, source)


def save(lesson: Lesson, result: TeachResult, folder: Path, title: str) -> TeachResult:
    """Write the checkpoint with its memory and the result, all or nothing.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    memory = memory_after(lesson)
    base = lesson.base.card
    taught: dict[str, Any] = {
        "base": base.name, "settings": result.settings.model_dump(mode="json"), "trained": result.trained,
        "new_labels": list(result.new_labels), "rehearsal": result.rehearsal,
        "examples": [
            {"sha256": e.content_hash, "labels": list(lesson.labels_of(row)), "held_out": row in set(lesson.tested)}
            for row, e in enumerate(lesson.examination.usable)
        ],
    }  # fmt: skip
    if result.left_out is not None:
        taught["left_out"] = asdict(result.left_out)
    if memory is not None:
        taught["memory"] = (
            f"memory.safetensors holds embeddings of {len(set(memory.groups.tolist()))} clips ({memory.source}), so "
            "that teaching this model more forgets little."
        )
    card = lesson.taught.card.model_copy(
        update={
            "name": folder.name, "title": title or f"{base.title or base.name}, taught further",
            "description": f"{base.name}, taught {', '.join(lesson.new_labels) or 'more of its own classes'}.",
            "parent": base.content_hash or base.name, "metrics": [], "training": {"taught": taught},
            "training_data": [*base.training_data, TrainingData(name="own examples", license="not stated")],
        }
    )  # fmt: skip
    result = replace(result, folder=folder, seconds=lesson.course.seconds)
    with writing(f"The model {folder.name}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            made = staging / folder.name
            written = save_checkpoint(made, lesson.taught.network, card)
            if memory is not None:
                save_memory(made, memory, written.content_hash)
            text = json.dumps(result.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
            (made / RESULT).write_text(text + "\n", encoding="utf-8")
            _settle(made, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return result


def _settle(made: Path, folder: Path) -> None:
    """Move a finished checkpoint to its place.

    Raises
    ------
    SettingsError
        If there is one by now.
    """
    if not (made / CARD).is_file():
        raise SettingsError(f"The model {folder.name} was not written completely.")
    try:
        made.rename(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            if any(folder.iterdir()):
                raise SettingsError(f"There is a model named {folder.name} already.", "Choose another name.") from error
        raise
