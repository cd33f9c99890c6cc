"""Sections of a training recipe, one class each; `models.training.config.TrainConfig` holds them all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Settings that belong together; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


class DataConfig(Section):
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
    memory_limit_gb
        Data sets whose samples need more memory than this are decoded clip by clip while training.
    workers
        Processes that decode such a data set.
    video
        Read the picture too, for families that look at it.
    """

    format: str = "esc"
    root: Path
    options: dict[str, Any] = Field(default_factory=dict)
    train_folds: list[int] = Field(default_factory=lambda: [1, 2, 3, 4])
    validation_folds: list[int] = Field(default_factory=list)
    test_folds: list[int] = Field(default_factory=lambda: [5])
    memory_limit_gb: float = Field(default=8.0, ge=0)
    workers: int = Field(default=0, ge=0)
    video: bool = False


class SamplingConfig(Section):
    """In which order clips are drawn.

    Attributes
    ----------
    kind
        ``plain``: every clip once an epoch; ``balanced``: with replacement, by weights that favour rare classes (PSLA).
    weights
        File with one weight a line for every training clip (published ``NAME_weight.csv``); None: made from the annotation.
    weighted_partners
        Draw the partners of mixup by the same weights.
    """

    kind: Literal["plain", "balanced"] = "plain"
    weights: Path | None = None
    weighted_partners: bool = False


class AugmentConfig(Section):
    """Random changes of the training clips; see `models.training.augmentations`.

    Attributes
    ----------
    kind
        ``standard`` uses all settings but `noise` and `cutmix`. The others change clips as these systems did:
        ``audio_tagging`` (`mixup`, `frequency_mask`, `time_mask`, `noise`), ``slowfast`` (masks), ``play_it_back`` (masks,
        `mixup`, `cutmix`) and ``equiav`` (`mixup`, `shift`).
    noise
        ``audio_tagging``: noise and a roll of up to 10 frames, as for Speech Commands.
    cutmix
        ``play_it_back``: share of the mixtures that are pasted boxes.
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
    hide_picture, hide_sound
        With video: share of the clips whose picture becomes grey, and of those that fall silent, so that the model learns
        to do without either.
    turn
        With moving pictures: turn sound and picture of a clip round in time by the same random amount.
    any_picture
        Of families that look at one picture of a clip: any of ten, whatever `kind` says.
    """

    kind: Literal["standard", "audio_tagging", "slowfast", "play_it_back", "equiav"] = "standard"
    shift: bool = True
    gain_db: tuple[float, float] = (-12.0, 6.0)
    speed: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (0.9, 1.1)
    noise_db: tuple[float, float] | None = (-80.0, -40.0)
    mixup: float = Field(default=0.7, ge=0.0, le=1.0)
    mixup_beta: float = Field(default=1.0, gt=0.0)
    frequency_mask: int = Field(default=12, ge=0)
    time_mask: int = Field(default=64, ge=0)
    noise: bool = False
    cutmix: float = Field(default=0.5, ge=0, le=1)
    hide_picture: float = Field(default=0.0, ge=0, le=1)
    hide_sound: float = Field(default=0.0, ge=0, le=1)
    turn: bool = False
    any_picture: bool = False

    @property
    def mixes_decoded(self) -> bool:
        """Whether clips are mixed with a partner from the whole data set, before anything else."""
        return self.kind in ("audio_tagging", "equiav") and self.mixup > 0


class LossConfig(Section):
    """What is minimised.

    Attributes
    ----------
    kind
        A key of `models.training.losses.LOSSES`; None: ``bce`` for multi-label tasks, else ``cross_entropy``.
    class_weights
        Weigh classes by ``N / (n_classes * count)`` (``cross_entropy`` only).
    probabilities_as_logits
        A defect of a published comparison: models that output probabilities are trained as if these were logits. Only to
        repeat its results.
    embeddings
        ``label_embeddings``: file ``.npy`` with a row for every class.
    embedding_weight
        ``label_embeddings``: share of the squared error to the embeddings (published default 0: no effect).
    """

    kind: Literal["cross_entropy", "bce", "heads", "focal", "label_embeddings", "play_it_back"] | None = None
    class_weights: bool = False
    probabilities_as_logits: bool = False
    embeddings: Path | None = None
    embedding_weight: float = Field(default=0.0, ge=0, le=1)


class OptimizerConfig(Section):
    """Optimisation; the defaults are AdamW with linear warm-up and cosine decay, and an average of the weights.

    Attributes
    ----------
    kind
        ``adamw``, ``adam`` or ``sgd``.
    learning_rate, weight_decay
        The rate that the schedule changes; decay of the weights (of Adam and SGD: added to the gradient).
    betas
        Of Adam and AdamW.
    momentum, nesterov
        Of SGD.
    decay_of
        Which parameters `weight_decay` is for: ``matrices`` (not biases and norms), ``all``, or ``not_batch_norm`` (no entry
        with ``bn`` in its name).
    head_learning_rate, head_names
        Rate of the parameters whose names start with one of these; None: `learning_rate`.
    batch_size, epochs
        Clips of a step (on each device), and how often all clips are heard.
    warmup_epochs
        Of the schedules ``cosine``, ``steps``, ``play_it_back`` and ``half_cosine``.
    label_smoothing
        Of cross entropies; binary ones are not smoothed.
    gradient_clip
        Largest norm of all gradients together; 0: not clipped.
    accumulate
        Batches whose mean gradient makes one step.
    average_decay
        Of the exponential average of the weights, which is what is kept; of step n at most (1 + n) / (10 + n), so that
        short runs forget their beginning. 0: none.
    average_epochs
        First and last epoch of a plain average of the weights at their ends, which is kept instead.
    average_first_twice
        Count the first of them twice, as PSLA's loop does.
    mixed_precision
        ``no``, ``bf16`` (also on recent CPUs) or ``fp16`` (GPUs).
    frozen
        Parameters whose names start so are not trained.
    freeze_batch_norm
        Fix statistics and scales of all batch norms but SlowFast's first ones.
    precise_batch_norm
        Batches over which the statistics of batch norms are measured anew after every epoch (SlowFast: 200); 0: not.
    """

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=0.02, ge=0)
    decay_of: Literal["matrices", "all", "not_batch_norm"] = "matrices"
    head_learning_rate: float | None = None
    head_names: list[str] = Field(default_factory=list)
    batch_size: int = Field(default=16, ge=1)
    epochs: int = Field(default=60, ge=1)
    warmup_epochs: float = Field(default=3.0, ge=0)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    gradient_clip: float = Field(default=5.0, ge=0)
    accumulate: int = Field(default=1, ge=1)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    average_epochs: tuple[int, int] | None = None
    average_first_twice: bool = False
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    frozen: list[str] = Field(default_factory=list)
    freeze_batch_norm: bool = False
    precise_batch_norm: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _averaged_epochs_are_run(self) -> OptimizerConfig:
        if self.average_epochs is not None and not 1 <= self.average_epochs[0] <= self.average_epochs[1] <= self.epochs:
            raise ValueError(f"average_epochs must lie within the {self.epochs} epochs that are run")
        return self


class ScheduleConfig(Section):
    """Learning rate over time.

    Attributes
    ----------
    kind
        ``cosine`` to 0, set before every step; ``milestones``: multiplied by `decay` after these epochs (AST, PSLA and the
        comparison); ``steps``: `factors` from the epochs `steps` on (SlowFast); ``play_it_back`` and ``half_cosine``
        (EquiAV): cosines from the learning rate to `end`.
    milestones, decay
        Of ``milestones``: epochs, counted from 1, and the factor.
    steps, factors
        Of ``steps``: fractional epochs, counted from 0, and the share of the learning rate from there on.
    warmup_steps
        ``milestones``: at steps 0, 50, ... up to this the rate becomes ``learning_rate * step / warmup_steps``; published:
        1000; 0: no warm-up.
    end
        Of ``play_it_back`` and ``half_cosine``: the last rate.
    start
        ``steps``, ``play_it_back``, ``half_cosine``: rate at which warm-up begins.
    """

    kind: Literal["cosine", "milestones", "steps", "play_it_back", "half_cosine"] = "cosine"
    milestones: list[int] = Field(default_factory=list)
    decay: float = 0.5
    warmup_steps: int = Field(default=0, ge=0)
    steps: list[float] = Field(default_factory=lambda: [0.0])
    factors: list[float] = Field(default_factory=lambda: [1.0])
    start: float = 0.0
    end: float = 0.0

    @model_validator(mode="after")
    def _as_many_factors_as_steps(self) -> ScheduleConfig:
        if len(self.steps) != len(self.factors) or not self.steps:
            raise ValueError("steps and factors need the same length, at least one")
        return self


class ValidationConfig(Section):
    """What is done with the validation folds after every epoch.

    Attributes
    ----------
    metric
        ``accuracy`` (of verb and noun together where there are both) or ``mAP``.
    keep
        ``last`` weights (or their average), or those of the ``best`` epoch; the earlier one of equals.
    patience
        Stop after so many epochs without a better figure; None: never.
    """

    metric: Literal["accuracy", "mAP"] = "accuracy"
    keep: Literal["last", "best"] = "last"
    patience: int | None = Field(default=None, ge=1)


class StartConfig(Section):
    """Weights to start from.

    Attributes
    ----------
    checkpoint
        Name or folder of a checkpoint, or a published weights file.
    kind
        ``whole``: every entry has to fit; ``matching``: entries of the same name and shape, such as all but the classifier;
        ``deit``: AST from images; ``audioset``: AST from a published AudioSet file of another input size; ``backbone``: R3D-18
        or wav2vec 2.0 for the event graph; ``mae``: a masked auto-encoder of pictures for both towers of EquiAV.
    prefix
        ``matching``: put before every name of the file.
    """

    checkpoint: str
    kind: Literal["whole", "matching", "deit", "audioset", "backbone", "mae"] = "whole"
    prefix: str = ""


class LoopConfig(BaseModel):
    """Which iteration trains the network: ``standard``, or one that a family has of its own, with its settings.

    Attributes
    ----------
    kind
        ``standard``; ``playback_stages``: Play It Back in corrected mode; ``event_graph``: iterations with early stopping;
        ``online``: EquiAV, clip by clip; ``pretraining``: EquiAV, without labels.
    """

    model_config = ConfigDict(extra="allow")

    kind: Literal["standard", "playback_stages", "event_graph", "online", "pretraining"] = "standard"

    @property
    def settings(self) -> dict[str, Any]:
        """The loop's own settings."""
        return dict(self.model_extra or {})


class TeacherConfig(Section):
    """Distillation (Hinton et al., 2015): the student also learns a teacher's soft answers to the same augmented clip.

    Attributes
    ----------
    checkpoint
        Of the teacher, with the same classes and sample rate.
    weight
        Share of the distance to its answers.
    temperature
        Of both softmaxes.
    embedding_weight
        Of the squared distance between what both heads read, added to the loss: a linear map of the student's embedding,
        which is thrown away in the end, shall give the teacher's (its largest value over time, normalised over channels;
        Romero et al.: FitNets, 2015). Such an embedding tells more apart than the classes need. Of the loop ``standard``.
    """

    checkpoint: str
    weight: float = Field(default=0.8, ge=0.0, le=1.0)
    temperature: float = Field(default=2.0, gt=0.0)
    embedding_weight: float = Field(default=0.0, ge=0.0)
