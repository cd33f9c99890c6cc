"""What teaching takes and gives; plain data, and nothing here loads a deep-learning library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.card import Task

Way = Literal["auto", "head", "last_blocks", "low_rank", "everything"]
LONGEST_LABEL = 80  # characters of a class name
MOST_CLASSES = 5000  # of a model after teaching


@dataclass(frozen=True)
class TeachingExample:
    """A sound or video file and what is heard in it.

    Attributes
    ----------
    name
        What to call it; text from outside.
    path
        The file.
    labels
        Classes that are present: one for single-label models, any number for multi-label ones.
    held_out
        Keep it out of training and test with it. Where no example of a class says so, `TeachSettings.held_out_share` are
        drawn.
    """

    name: str
    path: Path
    labels: tuple[str, ...]
    held_out: bool = False


class TeachSettings(BaseModel):
    """How to teach; the defaults fit the data.

    Attributes
    ----------
    train
        What is trained: the ``head`` on stored embeddings, the head and the ``last_blocks``, ``low_rank`` additions to all
        linear layers, or ``everything``; ``auto`` chooses by the number of examples.
    epochs
        Passes over the examples; None: chosen by what is trained and how many examples there are. Of ``head``: steps, each
        over all examples.
    learning_rate
        Largest rate; None: chosen by what is trained.
    held_out_share
        Share of every class's examples that is kept out of training to test with, if no example says `held_out`. At least
        two stay for training; 0: none is kept out.
    augment
        Train on changed copies too (shifted, faster and slower, louder and softer, with noise).
    views
        Changed copies of every example; None: by the number of examples.
    task
        None: that of the base. A single-label model can become a multi-label one.
    rank
        Of ``low_rank`` additions.
    blocks
        How many of the ``last_blocks`` are trained.
    keep_memory
        Put embeddings of some examples into the new model, so that it does not forget them when it is taught further.
    seed
        Of all random numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Way = "auto"
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    learning_rate: float | None = Field(default=None, gt=0.0, le=10.0, allow_inf_nan=False)
    held_out_share: float = Field(default=0.25, ge=0.0, le=0.8)
    augment: bool = True
    views: int | None = Field(default=None, ge=0, le=64)
    task: Task | None = None
    rank: int = Field(default=8, ge=1, le=256)
    blocks: int = Field(default=1, ge=1, le=64)
    keep_memory: bool = True
    seed: int = Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True)
class TeachProgress:
    """Where teaching stands.

    Attributes
    ----------
    stage
        ``listening`` (reading the examples), ``embedding`` (their changed copies), ``checking`` (leaving each out in turn),
        ``training``, ``testing`` or ``saving``.
    step, steps
        Within the stage.
    loss
        Of the last step; None outside of training.
    validation_accuracy
        Share of held-out examples that are right (multi-label: mean average precision); None without any or not measured yet.
    seconds, seconds_left
        Since the beginning; None: not known yet.
    """

    stage: str
    step: int
    steps: int
    loss: float | None
    validation_accuracy: float | None
    seconds: float
    seconds_left: float | None


Report = Callable[[TeachProgress], None]


@dataclass(frozen=True)
class Finding:
    """Something about the examples that a person should know.

    Attributes
    ----------
    kind
        ``none``, ``too_few``, ``one_class``, ``unbalanced``, ``duplicate``, ``duplicate_labels``, ``looks_mislabelled``,
        ``silent``, ``all_silent``, ``unreadable``, ``bad_label``, ``several_labels``, ``no_label``, ``too_many_classes`` or
        ``not_teachable``.
    message, advice
        What was found, and what to do about it. Names in it are text from outside: escape them where they are shown.
    examples
        Indices of the examples it is about.
    stops
        Teaching is not possible before this is mended.
    """

    kind: str
    message: str
    advice: str
    examples: tuple[int, ...]
    stops: bool


@dataclass(frozen=True)
class Scores:
    """How well a model does on some clips.

    Attributes
    ----------
    clips
        How many they are.
    accuracy
        Share of clips whose best class is right; of multi-label models the mean average precision.
    per_class
        For every class with a clip: the share of its clips that are recognised (multi-label: its average precision).
    labels, confusion
        Classes, and counts ``[true class][predicted class]`` (multi-label: a clip counts for its first class).
    """

    clips: int
    accuracy: float
    per_class: dict[str, float]
    labels: tuple[str, ...]
    confusion: list[list[int]]


@dataclass(frozen=True)
class HeldOut:
    """One held-out example before and after: the best class and its score."""

    example: int
    labels: tuple[str, ...]
    before: str
    before_score: float
    after: str
    after_score: float


@dataclass(frozen=True)
class LeftOut:
    """What is recognised of learned examples while each of them is left out in turn, before all are learned.

    Attributes
    ----------
    examples, recognised
        How many there are, and how many of them are recognised.
    favour
        By how much new classes are favoured: the least with which enough examples are recognised, or all that is allowed.
    """

    examples: int
    recognised: int
    favour: float


@dataclass(frozen=True)
class TeachResult:
    """What came of teaching.

    Attributes
    ----------
    folder
        The new checkpoint.
    labels, new_labels
        All classes in the order of the logits, and those that the base did not know.
    before, after
        On the held-out examples; None if there are none. The base cannot recognise new classes.
    held_out
        The held-out examples one by one.
    old_before, old_after
        On the old classes, where that can be estimated; `old_how` says how it was, or why it cannot be.
    rehearsal
        What keeps the old classes from being forgotten, in a sentence.
    trained, trained_parameters
        What was trained, and how many numbers those are.
    curve
        Progress of training, at most some hundred points.
    settings
        As used: what was left open is filled in.
    findings
        What `examine` said about the examples.
    left_out
        What is recognised of examples that are left out in turn; None where new classes are not weighed against old ones.
    """

    folder: Path
    labels: tuple[str, ...]
    new_labels: tuple[str, ...]
    before: Scores | None
    after: Scores | None
    held_out: tuple[HeldOut, ...]
    old_before: Scores | None
    old_after: Scores | None
    old_how: str
    rehearsal: str
    trained: str
    trained_parameters: int
    curve: tuple[TeachProgress, ...]
    settings: TeachSettings
    findings: tuple[Finding, ...]
    seconds: float
    left_out: LeftOut | None = None
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``result.json`` holds it; the folder is named, not located."""
        values = asdict(self)
        values["folder"] = self.folder.name
        values["settings"] = self.settings.model_dump(mode="json")
        return values
