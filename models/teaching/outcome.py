"""What came of teaching: held-out examples and old classes, before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from models.recognizer import Recognizer
from models.teaching.contract import HeldOut, Scores, TeachResult
from models.teaching.lesson import Lesson
from models.teaching.listening import changed, embed
from models.teaching.rehearsal import known_scenes
from models.teaching.scoring import score_hidden, scores_of, targets_of, widened

_SHARES = ("all", "half", "a third", "a quarter", "a fifth")  # by the number of the last round


def _before_and_after(
    lesson: Lesson, hidden: Callable[[Recognizer], list[Tensor]], targets: Tensor
) -> tuple[Scores | None, Scores | None]:
    """Scores of base and taught model on the same clips, one window each."""
    found = []
    for recognizer in (lesson.base, lesson.taught):
        scores = score_hidden(recognizer, hidden(recognizer), range(len(targets)), len(targets))
        found.append(scores_of(widened(scores, len(lesson.labels)), targets, lesson.labels, lesson.task))
    return found[0], found[1]


def old_classes(lesson: Lesson) -> tuple[Scores | None, Scores | None, str]:
    """The old classes before and after, and how that was measured."""
    tested, scenes = lesson.rehearsal.tested, lesson.rehearsal.scenes
    rehearsed = lesson.rehearsal.memory
    if lesson.remembered is not None and rehearsed is not None:
        first = rehearsed.chosen(rehearsed.first_copies())
        targets = widened(first.targets.float(), len(lesson.labels))
        scores = score_hidden(lesson.base, [first.values()], range(len(first)), len(first))
        assert lesson.rounds is not None
        how = (
            f"On {len(first)} remembered clips, {_SHARES[max(lesson.rounds)]} of them left out at a time while the rest was "
            "rehearsed. The base was trained on them, so it is better here than on other sounds; what counts is the difference."
        )
        before = scores_of(widened(scores, len(lesson.labels)), targets, lesson.labels, lesson.task)
        return before, scores_of(lesson.remembered, targets, lesson.labels, lesson.task), how
    if tested is not None:
        targets = widened(tested.targets.float(), len(lesson.labels))
        how = (
            f"On {len(tested)} remembered clips that were not rehearsed. The base was trained on them, so it is better here "
            "than on other sounds; what counts is the difference."
        )
        return *_before_and_after(lesson, lambda _: [tested.values()], targets), how
    known = known_scenes(scenes, lesson.base.labels) if scenes is not None else []
    if scenes is not None and known:
        # Other copies than those that were rehearsed.
        sounds = [changed(scenes.waveforms[row], lesson.settings.seed, 2 * 10**6 + row) for row, _ in known]
        pictures = [None] * len(sounds)
        targets = targets_of([[label] for _, label in known], lesson.labels)
        how = (
            f"On changed copies of {len(known)} generated sounds of {len({label for _, label in known})} old classes: no "
            "more than a hint."
        )
        return *_before_and_after(lesson, lambda r: list(embed(r, sounds, pictures)), targets), how
    how = (
        "It cannot be estimated what is forgotten: nothing is remembered of the old classes, and none of them can be "
        "generated. Hold out examples of old classes to measure it."
    )
    return None, None, how


def result_of(lesson: Lesson, folder: Path) -> TeachResult:
    """Everything that can be said about the new model."""
    before, after = lesson.scores(lesson.base, lesson.tested), lesson.scores(lesson.taught, lesson.tested)
    held_out = []
    for place, row in enumerate(lesson.tested):
        was, now = int(before[place].argmax()), int(after[place].argmax())
        held_out.append(HeldOut(
            lesson.examination.usable[row].index, lesson.labels_of(row), lesson.labels[was], float(before[place, was]),
            lesson.labels[now], float(after[place, now]),
        ))  # fmt: skip
    old_before, old_after, old_how = old_classes(lesson)
    return TeachResult(
        folder=folder, labels=lesson.labels, new_labels=lesson.new_labels, before=lesson.scored(before, lesson.tested),
        after=lesson.scored(after, lesson.tested), held_out=tuple(held_out), old_before=old_before,
        old_after=old_after, old_how=old_how, rehearsal=lesson.rehearsal.sentence, trained=lesson.way,
        trained_parameters=lesson.trained_parameters, curve=tuple(lesson.course.curve), settings=lesson.settings,
        findings=tuple(lesson.examination.findings), seconds=lesson.course.seconds, left_out=lesson.left_out,
    )  # fmt: skip
