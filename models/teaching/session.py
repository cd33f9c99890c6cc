"""Teaching: from examples to a new checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.checkpoint import load_recognizer
from models.errors import SettingsError
from models.teaching.contract import Report, TeachingExample, TeachResult, TeachSettings
from models.teaching.course import Course, StateFile
from models.teaching.labels import check_name
from models.teaching.lesson import Lesson
from models.teaching.outcome import result_of
from models.teaching.saving import save


def teach(
    base: str | Path,
    examples: Sequence[TeachingExample],
    settings: TeachSettings,
    output: Path,
    *,
    name: str,
    title: str = "",
    report: Report | None = None,
    resume: bool = False,
) -> TeachResult:
    """Teach a model; the base is only read.

    Parameters
    ----------
    base
        Name or folder of a checkpoint.
    examples
        Of new classes, of known ones, or both.
    output
        Folder in which the new checkpoint ``output / name`` is made, whole or not at all; it must not exist.
    name, title
        Of the new model; an empty title is made from the base's.
    report
        Told how far it is; what it raises ends the teaching, and reaches the caller.
    resume
        Go on from what an interrupted teaching with the same examples and settings left in `output`, if there is such.

    Raises
    ------
    EarwitnessError
        If the examples or settings cannot work, the training goes astray, or the disk is full.
    """
    check_name(name)
    output = Path(output)
    folder = output / name
    if folder.exists():
        raise SettingsError(f"There is a model named {name} already.", "Choose another name.")
    course = Course(report)
    recognizer = load_recognizer(base)
    lesson = Lesson(recognizer, examples, settings, course)
    state = StateFile(output / f".{name}.state", lesson.fingerprint)
    lesson.train(state, resume)
    course.tell("testing", 0, 1)
    result = result_of(lesson, folder)
    course.tell("saving", 0, 1)
    result = save(lesson, result, folder, title)
    state.forget()
    course.tell("saving", 1, 1)
    return result
