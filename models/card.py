"""The card that travels with every checkpoint: what the model is, what it was trained on, what was measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["single-label", "multi-label"]


class Metric(BaseModel):
    """One measured figure and the command that measured it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    value: float
    data: str = ""
    command: str = ""


class TrainingData(BaseModel):
    """A data set a model was trained on."""

    model_config = ConfigDict(extra="forbid")

    name: str
    split: str = ""
    license: str = ""
    source: str = ""


class Card(BaseModel):
    """Everything that is needed to rebuild a recognizer, and to judge it.

    Attributes
    ----------
    name
        Name of the checkpoint, also that of its folder.
    family, config
        Registered family and the settings of its network.
    frontend
        Settings of the front end, with its ``kind``.
    labels
        Class names in the order of the logits.
    label_groups
        Sizes of consecutive groups of labels among which one is right (verbs and nouns), empty for one group.
    task
        ``single-label``: one class is right (softmax); ``multi-label``: any number is (sigmoid).
    hop_seconds
        Distance of analysis windows on long clips (at most a window); None: half the window.
    parent
        Name or hash of the checkpoint this one was trained or distilled from.
    content_hash
        SHA-256 of the weights.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    name: str
    title: str = ""
    description: str = ""
    family: str
    config: dict[str, Any] = Field(default_factory=dict)
    frontend: dict[str, Any]
    labels: list[str]
    label_groups: list[int] = Field(default_factory=list)
    task: Task
    hop_seconds: float | None = Field(default=None, gt=0.0)
    training_data: list[TrainingData] = Field(default_factory=list)
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: list[Metric] = Field(default_factory=list)
    parent: str | None = None
    license: str = ""
    citation: str = ""
    content_hash: str = ""
