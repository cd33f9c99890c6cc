"""Training a recognizer from a recipe: reading the data, building the network, and writing the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
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
    from models.training.standard_loop import run

    if config.optimizer.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise SettingsError(
            "Training in fp16 needs a GPU, and this machine has none.", "Set optimizer.mixed_precision to no or bf16."
        )
    set_seed(config.seed)
    # A second training in one process may want another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=config.optimizer.mixed_precision)
    device = accelerator.device
    prepared = prepare_training(config)
    examples, network, frontend = prepared.examples, prepared.network, prepared.frontend.to(device)
    teacher = load_recognizer(config.teacher.checkpoint, device) if config.teacher else None
    if teacher is not None and list(teacher.labels) != list(examples.labels):
        raise SettingsError(
            "The teacher knows other classes than the data set.", "Choose a teacher with the same ones."
        )
    if teacher is not None and teacher.sample_rate != frontend.sample_rate:
        raise SettingsError(
            f"The teacher hears {teacher.sample_rate} Hz, the recipe's front end {frontend.sample_rate} Hz.",
            "Choose a teacher of the same sample rate.",
        )
    card = make_card(config, prepared, parent=teacher.card.content_hash if teacher else None)
    config.output.mkdir(parents=True, exist_ok=True)
    trained = run(config, network, frontend, prepared.clips, teacher, accelerator, prepared.validation, report)
    folder = config.output / config.name
    if accelerator.is_main_process:
        save_checkpoint(folder, trained, card, half=config.half)
    return folder


def recipe_for_card(config: TrainConfig) -> dict[str, Any]:
    """The recipe as a card holds it: without the folders of this machine."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude={"output", "data", "resume"})
    for start in values["start"]:
        start["checkpoint"] = Path(start["checkpoint"]).name
    for section, key in (("loss", "embeddings"), ("sampling", "weights"), ("teacher", "checkpoint")):
        if values[section] is not None and values[section][key] is not None:
            values[section][key] = Path(values[section][key]).name
    return values


def make_card(config: TrainConfig, prepared: Preparation, parent: str | None = None) -> Card:
    """The card of a model trained from a recipe."""
    from models.training.losses import label_groups

    network, clips = prepared.network, len(prepared.clips)
    return Card(
        name=config.name, title=config.title, description=config.description, family=config.family,
        config=network.config.model_dump(mode="json"), frontend=prepared.frontend.config.model_dump(mode="json"),
        labels=list(prepared.examples.labels), label_groups=list(label_groups(network)), task=config.task,
        training={"recipe": recipe_for_card(config), "clips": clips},
        training_data=config.training_data, parent=parent, license=config.license, citation=config.citation,
    )  # fmt: skip
