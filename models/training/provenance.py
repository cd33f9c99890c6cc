"""What a card says so that a run can be repeated: its recipe, hashes of its data, the versions that computed it."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from models.catalog import find_checkpoint, read_card
from models.data import Example, ExampleSet
from models.errors import CheckpointError
from models.training.config import TrainConfig

_PACKAGES = ("earwitness", "torch", "torchaudio", "numpy", "scipy", "soundfile", "soxr", "av", "accelerate")
_READ_UP_TO = 64e9  # bytes; larger data sets would take many minutes to read once more


def recipe_for_card(config: TrainConfig) -> dict[str, Any]:
    """The recipe as a card holds it: without the folders of this machine."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude={"output", "resume", "tracking"})
    values["data"]["root"] = config.data.root.name
    values["data"]["options"] = {key: _without_folder(value) for key, value in values["data"]["options"].items()}
    for start in values["start"]:
        start["checkpoint"] = Path(start["checkpoint"]).name
    for section, key in (("loss", "embeddings"), ("sampling", "weights"), ("teacher", "checkpoint")):
        if values[section] is not None and values[section][key] is not None:
            values[section][key] = Path(values[section][key]).name
    return values


def _without_folder(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide about the weights."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # Of torch also which build it is: "2.13.0+cu130".
    return found | {"torch": torch.__version__}


def annotation_hash(examples: ExampleSet) -> str:
    """SHA-256 over the annotation: names, sizes, labels, folds and parts of all files, and the classes."""
    digest = hashlib.sha256(repr(examples.labels).encode())
    for example in examples.examples:
        digest.update(_row(example).encode())
    return digest.hexdigest()


def _row(example: Example) -> str:
    size = example.path.stat().st_size
    return repr((example.path.name, size, example.labels, example.fold, example.start, example.stop))


def content_hash(examples: ExampleSet) -> str | None:
    """SHA-256 over the bytes of all files, each once in the annotation's order; None above 64 GB, which are not read."""
    paths = list(dict.fromkeys(example.path for example in examples.examples))
    if sum(path.stat().st_size for path in paths) > _READ_UP_TO:
        return None
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def describe_data(examples: ExampleSet) -> dict[str, Any]:
    """Number of clips, and hashes of their annotation and files."""
    content = content_hash(examples)
    return {
        "clips": len(examples.examples), "annotation_sha256": annotation_hash(examples),
        "files_sha256": content or "not read (more than 64 GB)",
    }  # fmt: skip


def checkpoint_hash(checkpoint: str) -> str:
    """Of a checkpoint its content hash, of another weights file the SHA-256 of its bytes."""
    try:
        if Path(checkpoint).is_file():
            with Path(checkpoint).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return read_card(find_checkpoint(checkpoint)).content_hash
    except (CheckpointError, OSError):
        return "not found any more"  # a training that is over is not lost for this


def describe_checkpoints(config: TrainConfig) -> list[dict[str, str]]:
    """The weights that a run began with, and those that it was taught by."""
    used = [start.checkpoint for start in config.start] + ([config.teacher.checkpoint] if config.teacher else [])
    return [{"name": Path(checkpoint).name, "content_hash": checkpoint_hash(checkpoint)} for checkpoint in used]


def provenance(config: TrainConfig, parts: dict[str, ExampleSet], processes: int = 1) -> dict[str, Any]:
    """The section ``training`` of a card.

    Parameters
    ----------
    config
        The recipe, with its seed.
    parts
        Examples by what they were for; those trained on are ``train``.
    processes
        That shared the work: together with the recipe's batch size they make the size of a step.
    """
    return {
        "recipe": recipe_for_card(config), "clips": len(parts["train"].examples),
        "data": {name: describe_data(examples) for name, examples in parts.items()},
        "processes": processes, "versions": versions(),
    } | ({"checkpoints": found} if (found := describe_checkpoints(config)) else {})  # fmt: skip
