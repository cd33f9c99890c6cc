"""Looking at examples before teaching: too few, unbalanced, silent, the same twice, or under the wrong name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.card import Task
from models.checkpoint import load_recognizer
from models.errors import DataError
from models.recognizer import Recognizer
from models.teaching.contract import MOST_CLASSES, Finding, TeachingExample, TeachSettings
from models.teaching.labels import label_problem, shown
from models.teaching.listening import (
    SILENT,
    HeardExample,
    Progress,
    embed,
    hear,
    outlines,
    summary,
    window_length,
)
from models.teaching.ways import teachable_problem

FEW = 5  # examples of a class below which it is hard to say what they have in common
UNBALANCED = 5.0
SAME_SOUND = 0.97  # correlation of two outlines; different clips reach 0.94
_SURE = 0.9
_NEIGHBOURS = 5
_NAMED = 3  # examples that a message names


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found, and the examples as they were heard.

    Attributes
    ----------
    usable
        Opened examples that are not silent.
    hidden
        For each of them what the base's head reads of its windows.
    same
        For each of them the number of the sound: copies have the same.
    """

    findings: list[Finding]
    usable: list[HeardExample]
    hidden: list[Tensor]
    same: list[int]

    def check(self) -> None:
        """Refuse to teach.

        Raises
        ------
        DataError
            With the first finding that stops.
        """
        for finding in self.findings:
            if finding.stops:
                raise DataError(finding.message, finding.advice)


def examine(
    base_name: str | Path,
    examples: Sequence[TeachingExample],
    progress: Progress | None = None,
    settings: TeachSettings | None = None,
) -> list[Finding]:
    """What a person should know about examples before teaching a model with them.

    Parameters
    ----------
    base_name
        Name or folder of the model that is to be taught.
    progress
        Called with how many examples are heard, and how many there are.

    Raises
    ------
    EarwitnessError
        If the model cannot be loaded.
    """
    return examine_with(load_recognizer(base_name), examples, settings or TeachSettings(), progress).findings


def examine_with(
    base: Recognizer, examples: Sequence[TeachingExample], settings: TeachSettings, progress: Progress | None = None
) -> Examination:
    """The same with a loaded model; also gives the examples as they were heard."""
    findings = _at_a_glance(base, examples, settings.task or base.card.task)
    if any(finding.stops for finding in findings):
        return Examination(findings, [], [], [])
    heard, problems = hear(base, examples, progress)
    for index, message in problems.items():
        findings.append(
            Finding("unreadable", f"{shown(examples[index].name)} cannot be used: {message}",
                    "Convert it to WAV, or leave it out; teaching goes on without it.", (index,), False)
        )  # fmt: skip
    silent = [example.index for example in heard if example.peak < SILENT]
    usable = [example for example in heard if example.peak >= SILENT]
    if silent and not usable:
        findings.append(Finding(
            "all_silent", "All examples are silent.", "Check the recordings: nothing in them is louder than -80 dB.",
            tuple(silent), True,
        ))  # fmt: skip
    elif silent:
        findings.append(Finding(
            "silent", f"{_these(silent, examples)} silent.", "Teaching goes on without them.", tuple(silent), False
        ))  # fmt: skip
    elif not usable:
        findings.append(Finding(
            "none", "None of the examples can be opened.", "Check the files.", tuple(problems), True
        ))  # fmt: skip
    findings += _too_few(base, examples, usable, settings)
    hidden = _embedded(base, usable)
    same = _copies(outlines([e.windows[0] for e in usable], base.sample_rate, window_length(base)))
    findings += _duplicates(examples, usable, same, settings.task or base.card.task)
    findings += _mislabelled(base, examples, usable, hidden, same)
    return Examination(findings, usable, hidden, same)


def _at_a_glance(base: Recognizer, examples: Sequence[TeachingExample], task: Task) -> list[Finding]:
    """What can be said without opening a file."""
    problem = teachable_problem(base)
    if problem:
        return [Finding("not_teachable", problem, "Choose a model that names classes.", (), True)]
    if not examples:
        return [Finding("none", "There are no examples.", "Add at least two sounds of every new class.", (), True)]
    findings = []
    unlabelled = tuple(i for i, e in enumerate(examples) if not e.labels)
    if unlabelled:
        findings.append(Finding(
            "no_label", f"{_these(unlabelled, examples)} without a class.", "Name what is heard in every example.",
            unlabelled, True,
        ))  # fmt: skip
    for label in dict.fromkeys(label for e in examples for label in e.labels):
        reason = label_problem(label)
        own = tuple(i for i, e in enumerate(examples) if label in e.labels)
        if reason and label not in base.labels:
            findings.append(Finding(
                "bad_label", f"A class cannot be named {shown(label)}: {reason}.", "Choose a short plain name.", own, True
            ))  # fmt: skip
    several = tuple(i for i, e in enumerate(examples) if len(set(e.labels)) > 1)
    if several and task == "single-label":
        findings.append(Finding(
            "several_labels",
            f"{_these(several, examples)} labelled with several classes, but {base.name} says one class for every clip.",
            "Give every example one class, or make it a model of several classes at once (task: multi-label).",
            several, True,
        ))  # fmt: skip
    names = set(base.labels) | {label for e in examples for label in e.labels}
    if len(names) > MOST_CLASSES:
        findings.append(Finding(
            "too_many_classes", f"The model would have {len(names)} classes.", f"Teach at most {MOST_CLASSES}.", (), True
        ))  # fmt: skip
    if base.card.label_groups and names != set(base.labels):
        findings.append(Finding(
            "not_teachable", f"{base.name} names one class of each of several groups, and cannot be taught new ones.",
            "Teach it the classes that it has, or choose another model.", (), True,
        ))  # fmt: skip
    return findings


def _these(indices: Sequence[int], examples: Sequence[TeachingExample]) -> str:
    names = ", ".join(shown(examples[index].name) for index in indices[:_NAMED])
    if len(indices) > _NAMED:
        return f"{len(indices)} examples ({names}, …) are"
    return f"{names} {'is' if len(indices) == 1 else 'are'}"


def _too_few(
    base: Recognizer, examples: Sequence[TeachingExample], usable: Sequence[HeardExample], settings: TeachSettings
) -> list[Finding]:
    findings, counts = [], {}
    for label in dict.fromkeys(label for e in examples for label in e.labels):
        own = tuple(e.index for e in usable if label in examples[e.index].labels and not examples[e.index].held_out)
        counts[label] = len(own)
        new = label not in base.labels
        everything = tuple(i for i, e in enumerate(examples) if label in e.labels)
        if not own and not new:
            continue
        if not own:
            findings.append(Finding(
                "too_few", f"There is no usable example of {shown(label)} to learn from.", "Add at least two.", everything, True
            ))  # fmt: skip
        elif len(own) == 1 and new:
            findings.append(Finding(
                "too_few", f"There is only one usable example of {shown(label)}: nobody can tell from it what the class is.",
                f"Add at least one more; {2 * FEW} are good.", everything, True,
            ))  # fmt: skip
        elif len(own) < FEW and new:
            findings.append(Finding(
                "too_few", f"There are only {len(own)} usable examples of {shown(label)}.",
                f"Add more if you can: {2 * FEW} are good.", own, False,
            ))  # fmt: skip
    used = {label: count for label, count in counts.items() if count}
    if len(used) > 1:
        most, least = max(used, key=lambda label: used[label]), min(used, key=lambda label: used[label])
        if used[most] >= UNBALANCED * used[least]:
            findings.append(Finding(
                "unbalanced", f"{shown(most)} has {used[most]} examples, {shown(least)} only {used[least]}.",
                f"Classes count alike in training, but add examples of {shown(least)} if you can.",
                tuple(e.index for e in usable if least in examples[e.index].labels), False,
            ))  # fmt: skip
    return findings


def _embedded(base: Recognizer, usable: Sequence[HeardExample]) -> list[Tensor]:
    """What the head reads of every example's windows."""
    windows = [window for example in usable for window in example.windows]
    pictures = [picture for example in usable for picture in example.pictures]
    if not windows:
        return []
    hidden = torch.cat([part.cpu() for part in embed(base, windows, pictures)])
    return list(hidden.split([len(example.windows) for example in usable]))


def _copies(sounds: Tensor) -> list[int]:
    """Number of the first example that sounds the same, for every example, by their outlines."""
    if not len(sounds):
        return []
    alike = sounds @ sounds.T > SAME_SOUND
    first = alike.float().argmax(dim=1).tolist()
    # Chains (a like b, b like c) end at their first link.
    for index, target in enumerate(first):
        first[index] = index if target >= index else first[target]
    return [int(number) for number in first]


def _duplicates(
    examples: Sequence[TeachingExample], usable: Sequence[HeardExample], same: Sequence[int], task: Task
) -> list[Finding]:
    findings = []
    for number in sorted(set(same)):
        group = [usable[row].index for row, own in enumerate(same) if own == number]
        if len(group) < 2:
            continue
        labels = {examples[index].labels for index in group}
        if len(labels) > 1 and task == "single-label":
            findings.append(Finding(
                "duplicate_labels", f"{_these(group, examples)} the same sound under different names.",
                "Keep one of them, under the right name.", tuple(group), True,
            ))  # fmt: skip
            continue
        both = len({examples[index].held_out for index in group}) > 1
        findings.append(Finding(
            "duplicate", f"{_these(group, examples)} the same sound.",
            "Keep one of them"
            + (": a sound that is both learned and tested with makes the model look better than it is." if both else
               "; a sound that is there twice teaches no more."),
            tuple(group), False,
        ))  # fmt: skip
    return findings


@torch.no_grad()
def _mislabelled(
    base: Recognizer,
    examples: Sequence[TeachingExample],
    usable: Sequence[HeardExample],
    hidden: Sequence[Tensor],
    same: Sequence[int],
) -> list[Finding]:
    """Examples whose neighbours have another name, or that the base is sure to know under another name."""
    rows = [row for row, number in enumerate(same) if number == row and len(examples[usable[row].index].labels) == 1]
    labels = [examples[usable[row].index].labels[0] for row in rows]
    findings = []
    vectors = torch.stack([summary(hidden[row]).mean(dim=0) for row in rows]) if rows else torch.zeros(0, 1)
    alike = vectors @ vectors.T
    for own, row in enumerate(rows):
        index, label = usable[row].index, labels[own]
        others = [other for other in torch.argsort(alike[own], descending=True).tolist() if other != own]
        nearest = [labels[other] for other in others[:_NEIGHBOURS]]
        # With fewer examples than that, one more neighbour of another class says nothing.
        enough = labels.count(label) > _NEIGHBOURS and len(nearest) == _NEIGHBOURS
        wrong = max(set(nearest), key=nearest.count) if nearest else label
        neighbours = enough and wrong != label and nearest.count(wrong) == _NEIGHBOURS
        scores = base.probabilities(base.network.forward_head(hidden[row].to(base.device))).mean(dim=0)
        best = base.labels[int(scores.argmax())]
        sure = label in base.labels and best != label and float(scores.max()) > _SURE
        if neighbours or sure:
            known = best if sure else wrong
            findings.append(Finding(
                "looks_mislabelled", f"{shown(examples[index].name)} is named {shown(label)}, but sounds like {shown(known)}.",
                "Listen to it, and mend its name if that is wrong.", (index,), False,
            ))  # fmt: skip
    return findings
