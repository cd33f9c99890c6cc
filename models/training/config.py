"""Settings of a training run, as read from a YAML recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.card import Task, TrainingData
from models.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataConfig(_Section):
    """Where the examples come from.

    Attributes
    ----------
    format
        Annotation format, a key of `models.data.READERS`.
    root
        Folder of the data set.
    options
        Further arguments of the reader.
    train_folds, validation_folds, test_folds
        Nothing is tuned on the test folds; validation folds are held out of training to compare settings.
    """

    format: str = "esc"
    root: Path
    options: dict[str, Any] = Field(default_factory=dict)
    train_folds: list[int] = Field(default_factory=lambda: [1, 2, 3, 4])
    validation_folds: list[int] = Field(default_factory=list)
    test_folds: list[int] = Field(default_factory=lambda: [5])


class AugmentConfig(_Section):
    """Random changes of the training clips; see `models.training.augment`.

    Attributes
    ----------
    shift
        Roll the clip in time by a random amount.
    gain_db
        Range of a random gain.
    speed
        Range of a random playback speed (changes pitch and tempo together).
    noise_db
        Range of the level of added white noise, in dB below full scale; None: no noise.
    mixup
        Probability of mixing a clip with another one.
    mixup_beta
        Both parameters of the beta distribution that the mixing weight is drawn from.
    frequency_mask, time_mask
        Largest width of the masked stripe, in mel bands and frames (SpecAugment; Park et al., 2019).
    """

    shift: bool = True
    gain_db: tuple[float, float] = (-12.0, 6.0)
    speed: tuple[float, float] = (0.9, 1.1)
    noise_db: tuple[float, float] | None = (-80.0, -40.0)
    mixup: float = 0.7
    mixup_beta: float = 1.0
    frequency_mask: int = 12
    time_mask: int = 64


class OptimizerConfig(_Section):
    """Optimisation: AdamW with linear warm-up and cosine decay, and an average of the weights.

    `mixed_precision` is ``no``, ``bf16`` (also on recent CPUs) or ``fp16`` (GPUs).
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    batch_size: int = 16
    epochs: int = 60
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.05
    gradient_clip: float = 5.0
    average_decay: float = 0.998
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"


class TeacherConfig(_Section):
    """Distillation (Hinton et al., 2015): the student also learns a teacher's soft answers to the same augmented clip."""

    checkpoint: str
    weight: float = 0.8
    temperature: float = 2.0


class TrainConfig(_Section):
    """A whole training run."""

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
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    teacher: TeacherConfig | None = None
    seed: int = 0
    half: bool = True
    output: Path = Path("runs")
    license: str = ""
    citation: str = ""


def load_train_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a recipe, with ``section.key=value`` overrides.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a setting is unknown or not valid.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"The recipe {path.name} is not valid YAML: {error}") from error
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator:
            raise SettingsError(f"{override!r} is not of the form KEY=VALUE.", "For example: optimizer.epochs=30.")
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise SettingsError(f"{parent!r} in {key!r} is a value, not a section.")
        section[last] = yaml.safe_load(text)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise SettingsError(f"The recipe {path.name} is not valid: {details}.") from error
