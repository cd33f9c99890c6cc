"""Lessons: which examples a visitor collected to teach a model, on the server's disk, so that a reload loses nothing.

A visitor's files lie in one folder under names made from their content, never under the names they came with. Each tab
has a lesson of its own, whose id is in its address.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import EarwitnessError, MediaError, SettingsError
from models.teaching.contract import LONGEST_LABEL, TeachingExample
from workbench.home import check_space, data_home
from workbench.jobs.records import mended_errors

MOST_EXAMPLES = 300
MOST_BYTES = 500 * 2**20  # of one visitor's files
LONGEST_SECONDS = 120.0
_LESSON = re.compile(r"[0-9a-f]{12}")
_WORKSPACE = re.compile(r"[0-9a-f]{32}")
_lock = threading.RLock()


class LessonExample(BaseModel):
    """One collected example.

    Attributes
    ----------
    id
        Names its row.
    name
        What the visitor calls it; text from outside.
    file
        Its name in the visitor's folder, made from its content.
    labels
        What is heard in it.
    seconds
        Its length.
    held_out
        Tested with, not trained on.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    file: str
    labels: tuple[str, ...] = ()
    seconds: float = 0.0
    held_out: bool = False


class Lesson(BaseModel):
    """What one tab teaches: examples, the model to start from, and the job once there is one."""

    model_config = ConfigDict(frozen=True)

    id: str
    examples: tuple[LessonExample, ...] = ()
    base: str = ""
    job: str = ""
    changed: float = Field(default_factory=time.time)

    @property
    def labels(self) -> list[str]:
        """All labels of the examples, in the order in which they came up."""
        return list(dict.fromkeys(label for example in self.examples for label in example.labels))


def clean_label(text: str) -> str:
    """A class name as it is stored.

    Raises
    ------
    SettingsError
        If it is empty or too long.
    """
    label = " ".join(text.split())
    if not label:
        raise SettingsError("A class needs a name.", "Type what is heard, such as 'doorbell'.")
    if len(label) > LONGEST_LABEL:
        raise SettingsError(
            f"This class name has {len(label)} characters; the limit is {LONGEST_LABEL}.",
            "Give the class a short name.",
        )
    if not label.isprintable():
        raise SettingsError("This class name holds characters that cannot be shown.", "Use letters and digits.")
    return label


class LessonBook:
    """One visitor's lessons and files.

    Parameters
    ----------
    workspace
        The visitor's id, 32 hexadecimal digits.
    home
        The data folder; default: the server's.
    """

    def __init__(self, workspace: str, home: Path | None = None) -> None:
        if not _WORKSPACE.fullmatch(workspace):
            raise SettingsError("This is not a workspace.")
        self.folder = (home or data_home()) / "lessons" / workspace
        self.files = self.folder / "files"
        with mended_errors():
            self.files.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, lesson_id: str) -> Lesson:
        """A lesson by its id; an empty one with a new id if there is none."""
        if _LESSON.fullmatch(lesson_id):
            path = self.folder / f"{lesson_id}.json"
            try:
                return Lesson.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                return Lesson(id=lesson_id)
        return Lesson(id=secrets.token_hex(6))

    def lessons(self) -> list[Lesson]:
        """All lessons that hold something, the latest first."""
        found = [self.open(path.stem) for path in self.folder.glob("*.json")]
        return sorted((lesson for lesson in found if lesson.examples), key=lambda lesson: -lesson.changed)

    def update(self, lesson_id: str, change: Callable[[Lesson], Lesson]) -> Lesson:
        """Change a lesson and store it."""
        with _lock, mended_errors():
            lesson = change(self.open(lesson_id)).model_copy(update={"changed": time.time()})
            path = self.folder / f"{lesson.id}.json"
            temporary = path.with_name(f".{lesson.id}.tmp")
            temporary.write_text(lesson.model_dump_json(), encoding="utf-8")
            temporary.replace(path)
            return lesson

    def set(self, lesson_id: str, **values: Any) -> Lesson:
        """Set fields of a lesson."""
        return self.update(lesson_id, lambda lesson: lesson.model_copy(update=values))

    def set_example(self, lesson_id: str, example_id: str, **values: Any) -> Lesson:
        """Set fields of one example."""

        def change(lesson: Lesson) -> Lesson:
            changed = tuple(e.model_copy(update=values) if e.id == example_id else e for e in lesson.examples)
            return lesson.model_copy(update={"examples": changed})

        return self.update(lesson_id, change)

    def put_back(self, lesson_id: str, examples: Sequence[LessonExample]) -> Lesson:
        """Set all examples: what "undo" does."""
        return self.set(lesson_id, examples=tuple(examples))

    def remove(self, lesson_id: str, example_ids: Sequence[str]) -> Lesson:
        """Take examples out; their files stay until no lesson names them and room is needed."""
        gone = set(example_ids)
        return self.update(
            lesson_id,
            lambda lesson: lesson.model_copy(
                update={"examples": tuple(e for e in lesson.examples if e.id not in gone)},
            ),
        )

    def add(
        self, lesson_id: str, data: bytes, name: str, labels: Sequence[str], seconds: float, held_out: bool = False
    ) -> LessonExample:
        """Store a file that was opened and found good, and add it to a lesson.

        Raises
        ------
        EarwitnessError
            If a limit or the disk does not allow it.
        """
        if seconds > LONGEST_SECONDS:
            raise MediaError(
                f"An example may last {LONGEST_SECONDS:g} s; this lasts {seconds:.0f} s.",
                "Cut out the part in which the sound is heard.",
            )
        file = hashlib.sha256(data).hexdigest()[:40]
        with _lock, mended_errors():
            if len(self.open(lesson_id).examples) >= MOST_EXAMPLES:
                raise SettingsError(
                    f"A lesson holds {MOST_EXAMPLES} examples.", "Remove some, or begin another lesson."
                )
            path = self.files / file
            if not path.exists():
                check_space(self.folder, len(data))
                self._make_room(len(data))
                temporary = path.with_name(f".{file}.tmp")
                temporary.write_bytes(data)
                temporary.replace(path)
            example = LessonExample(
                id=secrets.token_hex(5), name=name, file=file, labels=tuple(labels), seconds=seconds, held_out=held_out
            )
            self.update(lesson_id, lambda lesson: lesson.model_copy(update={"examples": (*lesson.examples, example)}))
        return example

    def _make_room(self, wanted: int) -> None:
        """Let files go that no lesson names any more, if the limit would be exceeded.

        Raises
        ------
        EarwitnessError
            If that is not enough.
        """
        sizes = {path: path.stat().st_size for path in self.files.iterdir()}
        held = sum(sizes.values()) + wanted
        if held > MOST_BYTES:
            named = {e.file for lesson in self.lessons() for e in lesson.examples}
            for path, size in sizes.items():
                if path.name not in named:
                    path.unlink(missing_ok=True)
                    held -= size
        if held > MOST_BYTES:
            raise EarwitnessError(
                f"Your examples take more than {MOST_BYTES // 2**20} MiB on this server.",
                "Remove some, in this lesson or an older one, or cut them shorter.",
            )

    def path_of(self, example: LessonExample) -> Path:
        """Where an example's file lies."""
        return self.files / Path(example.file).name

    def teaching_examples(self, lesson: Lesson) -> tuple[TeachingExample, ...]:
        """The examples as the core takes them."""
        return tuple(TeachingExample(e.name, self.path_of(e), e.labels, e.held_out) for e in lesson.examples)
