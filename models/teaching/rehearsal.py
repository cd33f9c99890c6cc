"""What keeps the old classes from being forgotten: remembered embeddings, generated sounds, the base's own answers."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.clip import Clip
from models.data.scenes import SYNTHESIZERS, random_scene
from models.prediction import window_starts
from models.recognizer import Recognizer
from models.teaching.listening import window_length
from models.teaching.memory import Memory

SCENES_OF_A_CLASS = 2
_SEED = 411
_TESTED = 5  # every n-th remembered clip of a class is kept to test with


@dataclass(frozen=True, eq=False)
class SceneSet:
    """Generated sounds ``[n, samples]`` and what they are meant to be."""

    waveforms: Tensor
    labels: tuple[str, ...]


def plain_name(label: str) -> str:
    """A label as the generator would write it."""
    return label.strip().lower().replace(" ", "_").replace("-", "_")


@functools.lru_cache(maxsize=2)
def generated_scenes(sample_rate: int, samples: int, of_a_class: int) -> SceneSet:
    """Random scenes of every kind that the project can generate; the same in every run."""
    rng = np.random.default_rng(_SEED)
    waveforms, labels = [], []
    for label in SYNTHESIZERS:
        for _ in range(of_a_class):
            scene = random_scene(rng, label)
            sound = Clip.from_array(scene.waveform, scene.sample_rate).at(sample_rate)
            power = [float(np.mean(sound[s : s + samples] ** 2)) for s in window_starts(len(sound), samples)]
            start = window_starts(len(sound), samples)[int(np.argmax(power))]
            sound = sound[start : start + samples]
            waveforms.append(torch.nn.functional.pad(torch.from_numpy(sound), (0, samples - len(sound))))
            labels.append(label)
    return SceneSet(torch.stack(waveforms), tuple(labels))


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What is known of the old classes.

    Attributes
    ----------
    memory, tested
        Remembered embeddings to rehearse, and others that are kept to measure forgetting with; None without a memory, or
        where all is rehearsed.
    scenes
        Generated sounds, of which the model is to say what its base says; None where the memory knows all classes.
    distil
        Whether the base's opinion of the new examples is kept, too.
    sentence
        All that for people.
    """

    memory: Memory | None
    tested: Memory | None
    scenes: SceneSet | None
    distil: bool
    sentence: str


def split_memory(memory: Memory) -> tuple[Memory, Memory | None]:
    """What is rehearsed, and what is kept to test with (first copies only): every fifth clip of a class, if it has five."""
    kept = memory.turns(_TESTED) == _TESTED - 1
    tested = [row for row in memory.first_copies() if kept[row]]
    return memory.chosen((~kept).nonzero()[:, 0]), memory.chosen(tested) if tested else None


def prepare_rehearsal(
    base: Recognizer, memory: Memory | None, new_labels: Collection[str], *, usable: bool, whole: bool = False
) -> Rehearsal:
    """What can be rehearsed of a base.

    Parameters
    ----------
    usable
        Whether embeddings can be: only while nothing in front of the head is trained.
    whole
        Rehearse all that is remembered, and keep none of it to test with.
    """
    rehearsed = tested = None
    uncovered = set(base.labels)
    parts = []
    if memory is not None and usable:
        rehearsed, tested = (memory, None) if whole else split_memory(memory)
        uncovered = {label for label, any_ in zip(base.labels, memory.targets.any(dim=0), strict=True) if not any_}
        n_clips = len(set(rehearsed.groups.tolist()))
        parts.append(f"{n_clips} remembered clips are rehearsed ({memory.source or 'of unknown origin'})")
    scenes = None
    if uncovered:
        if not base.reads_video:
            scenes = _without(generated_scenes(base.sample_rate, window_length(base), SCENES_OF_A_CLASS), new_labels)
            parts.append(f"{len(scenes.labels)} generated sounds are to be answered as the base does")
        parts.append("and the base's opinion of the new examples is kept, as far as it is about old classes")
    sentence = "; ".join(parts)
    return Rehearsal(rehearsed, tested, scenes, bool(uncovered), sentence[:1].upper() + sentence[1:] + ".")


def _without(scenes: SceneSet, new_labels: Collection[str]) -> SceneSet:
    new = {plain_name(label) for label in new_labels}
    rows = [row for row, label in enumerate(scenes.labels) if label not in new]
    return SceneSet(scenes.waveforms[rows], tuple(scenes.labels[row] for row in rows))


def known_scenes(scenes: SceneSet, labels: Collection[str]) -> list[tuple[int, str]]:
    """Rows of scenes whose class a model knows, with the model's name for it."""
    names: dict[str, str] = {plain_name(label): label for label in labels}
    return [(row, names[label]) for row, label in enumerate(scenes.labels) if label in names]


@torch.no_grad()
def answers(base: Recognizer, logits: Tensor, n_classes: int) -> Tensor:
    """The base's scores as targets for all classes ``[n, n_classes]``."""
    scores = base.probabilities(logits)
    return torch.nn.functional.pad(scores, (0, n_classes - scores.shape[1]))
