"""Settings of a training run, as read from a YAML recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from models.card import Task, TrainingData
from models.errors import SettingsError
from models.training.sections import (
    AugmentConfig,
    DataConfig,
    LoopConfig,
    LossConfig,
    OptimizerConfig,
    SamplingConfig,
    ScheduleConfig,
    Section,
    StartConfig,
    TeacherConfig,
    ValidationConfig,
)

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "LoopConfig",
    "LossConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "StartConfig",
    "TeacherConfig",
    "TrainConfig",
    "ValidationConfig",
    "load_train_config",
]


class TrainConfig(Section):
    """A whole training run.

    Attributes
    ----------
    name
        Of the checkpoint and its folder.
    title, description, license, citation
        For people; they go into the checkpoint's card.
    family, config
        Registered family and the settings of its network; the number of classes follows from the data.
    frontend
        Settings of the front end, with its ``kind``.
    training_data
        Data sets for the card, each with name, split, license and source.
    task
        ``single-label``: one class is right; ``multi-label``: any number is.
    seed
        Of all random numbers.
    output
        Folder of the checkpoint, its history (``NAME.jsonl``) and the state of an unfinished run (``NAME.state``).
    normalize
        ``measured``: mean and twice the deviation of the training features; ``given``: what `frontend` says.
    half
        Store the weights as float16.
    checkpoint_every_seconds, checkpoint_every_steps
        How often the state of the run is saved within an epoch, whichever comes first (at its end it always is); None: not.
    tracking
        ``tensorboard`` is always written (``NAME.tensorboard``); ``wandb``: to Weights & Biases too.
    resume
        Go on where an interrupted run of the same recipe stopped, at the last state that was saved.
    """

    name: str
    title: str = ""
    description: str = ""
    family: str
    config: dict[str, Any] = Field(default_factory=dict)
    frontend: dict[str, Any]
    normalize: Literal["measured", "given"] = "measured"
    task: Task = "single-label"
    data: DataConfig
    training_data: list[TrainingData] = Field(default_factory=list)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    start: list[StartConfig] = Field(default_factory=list)
    loop: LoopConfig = Field(default_factory=LoopConfig)
    teacher: TeacherConfig | None = None
    seed: int = 0
    half: bool = True
    checkpoint_every_seconds: float | None = Field(default=60.0, ge=0)
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    tracking: Literal["tensorboard", "wandb"] = "tensorboard"
    resume: bool = False
    output: Path = Path("runs")
    license: str = ""
    citation: str = ""

    @field_validator("start", mode="before")
    @classmethod
    def _one_start(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _validation_has_data(self) -> TrainConfig:
        needs = self.validation.keep == "best" or self.validation.patience is not None
        if needs and not self.data.validation_folds and self.loop.kind == "standard":
            raise ValueError("choosing the best epoch and stopping early need data.validation_folds")
        return self

    @model_validator(mode="after")
    def _embeddings_are_read_by_a_head(self) -> TrainConfig:
        learned = self.teacher is not None and self.teacher.embedding_weight > 0
        if learned and (self.loop.kind != "standard" or self.loss.kind == "play_it_back"):
            raise ValueError("teacher.embedding_weight is for the loop standard, and not for the loss play_it_back")
        return self


def load_train_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a recipe, with ``section.key=value`` overrides; of a checkpoint's card, the recipe that it was trained with.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a setting is unknown or not valid.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"The recipe {path.name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The recipe {path.name} holds no settings.", "Write lines of the form 'key: value'.")
    training = values.get("training")
    if isinstance(training, dict) and isinstance(training.get("recipe"), dict):
        values = training["recipe"]
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator:
            raise SettingsError(f"{override!r} is not of the form KEY=VALUE.", "For example: optimizer.epochs=30.")
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise SettingsError(f"{parent!r} in {key!r} is a value, not a section.")
        try:
            section[last] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise SettingsError(f"The value in {override!r} is not valid YAML.", "Put text in quotes.") from error
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise SettingsError(f"The recipe {path.name} is not valid: {details}.") from error
