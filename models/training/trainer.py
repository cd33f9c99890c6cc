"""Training a recognizer from a recipe: reading the data, building the network, and writing the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from pydantic import ValidationError
from torch import Tensor

from models.card import Card
from models.checkpoint import load_recognizer, save_checkpoint
from models.data import READERS, ExampleSet
from models.errors import DataError, SettingsError
from models.frontends import FrontEnd, build_frontend
from models.network import Network
from models.recognizer import Recognizer
from models.registry import family
from models.training.config import TrainConfig
from models.training.provenance import provenance
from models.training.provenance import recipe_for_card as recipe_for_card
from models.training.run_state import written

if TYPE_CHECKING:
    from models.training.clips import TrainingClips

_MEASURED_CLIPS = 500  # of data sets that do not fit into memory


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch.

    `validation_accuracy` is the recipe's validation metric, None without validation folds.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    validation_accuracy: float | None
    seconds: float


def read_examples(config: TrainConfig) -> ExampleSet:
    """All examples of a recipe's data set.

    Raises
    ------
    SettingsError
        If the format is unknown.
    """
    reader = READERS.get(config.data.format)
    if reader is None:
        raise SettingsError(
            f"There is no data format named {config.data.format!r}.", f"Known are: {', '.join(READERS)}."
        )
    return reader(config.data.root, **config.data.options)


def training_part(config: TrainConfig, examples: ExampleSet) -> ExampleSet:
    """The examples to train on: those of the training folds that are not held out.

    Raises
    ------
    DataError
        If there are none.
    """
    held_out = set(config.data.validation_folds) | set(config.data.test_folds)
    part = examples.folds(set(config.data.train_folds) - held_out)
    if not part.examples:
        raise DataError(
            f"None of the {len(examples.examples)} clips lies in a training fold.",
            "Set data.train_folds to folds that the annotation has and that are not held out.",
        )
    return part


def measured_frontend(config: TrainConfig, waveforms: Tensor) -> FrontEnd:
    """The recipe's front end, with mean and twice the deviation of the training features (as AST normalises)."""
    frontend = build_frontend(config.frontend)
    if config.normalize == "given":
        return frontend
    values = torch.cat([frontend.log_mel(part).flatten() for part in waveforms.split(64)])
    # Digital silence in cut-off recordings says nothing about the sounds and would widen the scale.
    heard = values[(values - frontend.floor).abs() > 1e-3]
    if heard.numel() < 2 or heard.std() == 0:
        raise DataError("The training clips are silent.", "Check the audio files of the data set.")
    statistics = {"mean": round(heard.mean().item(), 4), "std_scale": round(2 * heard.std().item(), 4)}
    return build_frontend(config.frontend | statistics)


def build_network(config: TrainConfig, n_classes: int) -> Network:
    """A fresh network as a recipe describes it.

    Raises
    ------
    SettingsError
        If its settings are not valid, or do not fit the number of classes.
    """
    cls = family(config.family)
    try:
        return cls(cls.Config.model_validate(config.config | {"n_classes": n_classes}))
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors()[:3])
        raise SettingsError(f"The network's settings do not fit {n_classes} classes: {details}.") from error


@torch.no_grad()
def score(recognizer: Recognizer, waveforms: Tensor, batch_size: int = 32) -> Tensor:
    """Probabilities ``[n, n_classes]`` of waveforms ``[n, samples]``."""
    parts = [
        recognizer.probabilities(recognizer(recognizer.features(part))).cpu() for part in waveforms.split(batch_size)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Preparation:
    """Everything that a training starts from: all examples, the clips of both parts, front end and network."""

    examples: ExampleSet
    clips: TrainingClips
    validation: TrainingClips | None
    frontend: FrontEnd
    network: Network


def prepare_training(config: TrainConfig) -> Preparation:
    """Read the data, build front end and network, and put in the weights to start from.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    # Imported here: these modules use this one's parts.
    from models.training.clips import clips_of
    from models.training.start import start_network

    examples = read_examples(config)
    part = training_part(config, examples)
    frontend = build_frontend(config.frontend)
    samples = frontend.window_samples or 5 * frontend.sample_rate
    network = build_network(config, len(examples.labels))
    clips = clips_of(config, part, frontend.sample_rate, samples, network)
    if config.normalize == "measured":
        measured = clips.first(_MEASURED_CLIPS, torch.Generator().manual_seed(config.seed))
        frontend = measured_frontend(config, measured)
    for start in config.start if not config.resume else ():
        start_network(network, start)
    validation = None
    if config.data.validation_folds:
        held_out = examples.folds(config.data.validation_folds)
        if not held_out.examples:
            raise DataError("No clip lies in a validation fold.", "Set data.validation_folds to folds that there are.")
        validation = clips_of(config, held_out, frontend.sample_rate, samples, network)
    return Preparation(examples, clips, validation, frontend, network)


def load_teacher(
    config: TrainConfig, labels: Sequence[str], sample_rate: int, device: torch.device
) -> Recognizer | None:
    """The recipe's teacher, if it has one; it hears what the student hears.

    Raises
    ------
    SettingsError
        If it knows other classes or hears another sample rate.
    """
    if config.teacher is None:
        return None
    teacher = load_recognizer(config.teacher.checkpoint, device)
    if list(teacher.labels) != list(labels):
        raise SettingsError(
            "The teacher knows other classes than the data set.", "Choose a teacher with the same ones."
        )
    if teacher.sample_rate != sample_rate:
        raise SettingsError(
            f"The teacher hears {teacher.sample_rate} Hz, the recipe's front end {sample_rate} Hz.",
            "Choose a teacher of the same sample rate.",
        )
    return teacher


def begin(config: TrainConfig) -> Accelerator:
    """Seeds all random numbers, and finds out about devices and the other processes that share the work.

    Raises
    ------
    SettingsError
        If the machine cannot do what the recipe asks for.
    """
    from models.training.tracking import check_tracking

    if config.optimizer.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise SettingsError(
            "Training in fp16 needs a GPU, and this machine has none.", "Set optimizer.mixed_precision to no or bf16."
        )
    check_tracking(config)
    set_seed(config.seed)
    # A second training in one process may want another precision.
    AcceleratorState._reset_state()
    return Accelerator(
        # Without this, processes on machines without GPUs would not find each other.
        cpu=not torch.cuda.is_available(),
        mixed_precision=config.optimizer.mixed_precision,
        # Frozen parts, and layers that a loss does not use, get no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def train(config: TrainConfig, report: Callable[[EpochReport], None] | None = None) -> Path:
    """Train as a recipe says and write the checkpoint.

    Returns
    -------
    Path
        The checkpoint's folder, ``config.output / config.name``.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    if config.loop.kind != "standard":
        from models.training.loops import LOOPS

        return LOOPS[config.loop.kind](config, report)
    from models.training.standard_loop import StandardLoop

    accelerator = begin(config)
    device, main = accelerator.device, accelerator.is_main_process
    prepared = prepare_training(config)
    examples, network, frontend = prepared.examples, prepared.network, prepared.frontend.to(device)
    teacher = load_teacher(config, examples.labels, frontend.sample_rate, device)
    parent = teacher.card.content_hash if teacher else None
    card = make_card(config, prepared, parent, accelerator.num_processes) if main else None
    loop = StandardLoop(config, network, frontend, prepared.clips, prepared.validation, teacher, accelerator)
    trained = loop.run(report)
    if card is not None:
        write_checkpoint(config, trained, card)
        loop.saver.finish()
    accelerator.wait_for_everyone()
    return config.output / config.name


def write_checkpoint(config: TrainConfig, network: Network, card: Card) -> Path:
    """Write what was trained, whole or not at all; returns its folder.

    Raises
    ------
    CheckpointError
        If it cannot be written, such as on a full disk.
    """
    folder = config.output / config.name
    with written(f"The checkpoint {config.name}"):
        save_checkpoint(folder, network, card, half=config.half)
    return folder


def make_card(config: TrainConfig, prepared: Preparation, parent: str | None = None, processes: int = 1) -> Card:
    """The card of a model trained from a recipe."""
    from models.training.losses import label_groups

    network, parts = prepared.network, {"train": prepared.clips.examples}
    if prepared.validation is not None:
        parts["validation"] = prepared.validation.examples
    return Card(
        name=config.name, title=config.title, description=config.description, family=config.family,
        config=network.config.model_dump(mode="json"), frontend=prepared.frontend.config.model_dump(mode="json"),
        labels=list(prepared.examples.labels), label_groups=list(label_groups(network)), task=config.task,
        training=provenance(config, parts, processes),
        training_data=config.training_data, parent=parent, license=config.license, citation=config.citation,
    )  # fmt: skip
