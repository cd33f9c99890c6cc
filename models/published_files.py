"""Files of published weights: opened without running anything in them, unwrapped, and rid of training prefixes."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.errors import CheckpointError

SUFFIXES = (".pth", ".pyth", ".pt", ".bin", ".ckpt", ".safetensors")
# Under which names training programs keep the weights.
_WRAPPERS = ("model_state", "model_state_dict", "state_dict", "model")
_PREFIXES = ("module.", "__M__.")
_TEMPERATURES = "__L_"  # of EquiAV's losses, kept beside the network
_EXPECTED = f"Expected is a file of weights ({', '.join(SUFFIXES)}) that holds tensors by name."


@dataclass(frozen=True, eq=False)
class PublishedFile:
    """What a file of weights holds.

    Attributes
    ----------
    name
        Of the file.
    state_dict
        Tensors by name, without wrappers and prefixes.
    container
        What stood beside the weights (``cfg``, ``epoch``, ...), without optimizer states.
    dropped
        Entries beside the network's that no network reads.
    sha256
        Of the file.
    """

    name: str
    state_dict: dict[str, Tensor]
    container: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def epoch(self) -> int | None:
        """Number of the last finished epoch as the file counts it, None if it does not say."""
        epoch = self.container.get("epoch")
        return epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None


def read_published_file(path: Path) -> PublishedFile:
    """Weights of a ``.pth``, ``.pyth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.safetensors`` file.

    Pickles are read by torch's restricted unpickler, which knows tensors and plain containers only.

    Raises
    ------
    CheckpointError
        If the file is missing, empty, damaged, holds more than tensors and plain data, or no weights.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path.name}.", "Check the path for typing errors.")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path.name} is empty (0 bytes).", "Download it again.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    weights, container = unwrap(content, path.name)
    weights, dropped = strip_prefixes(weights)
    return PublishedFile(path.name, weights, container, dropped, _sha256(path))


def _pickled(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(64)
    if start[:15].lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path.name} is a web page, not weights.", "Download the file itself, not its page.")
    # Only zip archives can be mapped; older files are read as a whole.
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is damaged, or holds more than tensors and plain data; nothing in it was run.",
            "Get a file with the state dict alone, saved with torch.save(model.state_dict(), path).",
        ) from error
    except Exception as error:  # torch's readers raise errors of many kinds for damaged files
        raise CheckpointError(
            f"{path.name} cannot be read: it is damaged, cut off, or no file of weights ({type(error).__name__}).",
            f"{_EXPECTED} Compare its size with the original's, and download it again.",
        ) from error


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read: it is damaged, cut off, or no safetensors file.",
            "Compare its size with the original's, and download it again.",
        ) from error


def unwrap(content: Any, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict in what a file holds, and the plain data beside it.

    Raises
    ------
    CheckpointError
        If there is none; says what was found instead.
    """
    container: dict[str, Any] = {}
    for _ in range(3):
        if not isinstance(content, Mapping) or not content:
            break
        if all(isinstance(value, Tensor) for value in content.values()):
            return {str(key): value for key, value in content.items()}, container
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        container |= {
            str(key): value
            for key, value in content.items()
            if key != inner and isinstance(value, (str, int, float, bool)) and len(str(value)) < 10**6
        }
        content = content[inner]
    found = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        found = "entries named " + ", ".join(str(key)[:40] for key in list(content)[:5]) if content else "no entries"
    raise CheckpointError(f"{name} holds no weights, but {found}.", _EXPECTED)


def strip_prefixes(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Names without ``module.`` and ``__M__.``, and the names of entries that belong to no network.

    A prefix is stripped where all names have it, as wrappers of whole networks leave it: a part of a network may be called
    ``module``, too.
    """
    dropped = tuple(key for key in weights if key.removeprefix("module.").startswith(_TEMPERATURES))
    stripped = {key: value for key, value in weights.items() if key not in set(dropped)}
    prefix: str | None = ""
    while prefix is not None:
        prefix = next((p for p in _PREFIXES if stripped and all(key.startswith(p) for key in stripped)), None)
        if prefix is not None:
            stripped = {key[len(prefix) :]: value for key, value in stripped.items()}
    return stripped, dropped


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_table(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table; empty if it cannot be read as one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
