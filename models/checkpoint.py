"""Checkpoints: a folder with ``model.safetensors`` and ``card.yaml``."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.card import Card
from models.catalog import CARD, WEIGHTS, find_checkpoint, read_card
from models.errors import CheckpointError, EarwitnessError
from models.frontends import build_frontend
from models.network import Network
from models.recognizer import Recognizer
from models.registry import family

_DRAWS = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_)


class Undrawn(TorchFunctionMode):
    """Draws no random numbers for tensors on the meta device: there they would only make torch import its compiler (1 s)."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Leave out `normal_` and `uniform_`."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def views_of(card: Card) -> frozenset[str]:
    """What a model can show (see `models.registry.VIEWS`), without loading its weights.

    Raises
    ------
    CheckpointError
        If the card describes no network.
    """
    key = json.dumps([card.family, card.config, card.labels], sort_keys=True)
    if key not in _views:
        _views[key] = build_network(card).views
    return _views[key]


_views: dict[str, frozenset[str]] = {}


def build_network(card: Card) -> Network:
    """The network a card describes, on the meta device: no memory, no random initialisation.

    Raises
    ------
    CheckpointError
        If the settings do not describe one, or the labels are not as many as its classes.
    """
    cls = family(card.family)
    try:
        config = cls.Config.model_validate(card.config)
    except ValidationError as error:
        raise CheckpointError(f"The settings of {card.name} do not fit the family {card.family}: {error}") from error
    try:
        with torch.device("meta"), Undrawn():
            network = cls(config)
    except EarwitnessError:
        raise
    except (ValueError, RuntimeError, ArithmeticError, IndexError) as error:
        raise CheckpointError(
            f"The settings of {card.name} do not describe a {cls.info.title}: {error}", "Check the card's config."
        ) from error
    n_classes = config.n_classes
    if card.labels and len(card.labels) != n_classes:
        raise CheckpointError(
            f"{card.name} names {len(card.labels)} labels, but its network has {n_classes} classes.",
            "The card needs one label for every class, in the order of the outputs.",
        )
    if card.label_groups and sum(card.label_groups) != n_classes:
        raise CheckpointError(
            f"The label groups of {card.name} hold {sum(card.label_groups)} classes, its network has {n_classes}.",
            "The sizes of the groups must add up to the number of classes.",
        )
    return network


def fill_network(network: Network, state_dict: dict[str, Tensor], origin: str) -> None:
    """Put weights into a network (strictly), as float32.

    Raises
    ------
    CheckpointError
        Naming what is missing, left over, misshapen or not a number.
    """
    expected = network.state_dict()
    missing = sorted(set(expected) - set(state_dict))
    unexpected = sorted(set(state_dict) - set(expected))
    misshapen = [
        f"{key} is {list(state_dict[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in state_dict and state_dict[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for what, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if found
    ]
    if problems:
        raise CheckpointError(
            f"The weights in {origin} do not fit a {network.info.title}: {'; '.join(problems)}.",
            "Check the family and its settings.",
        )
    filled = {}
    for key, value in state_dict.items():
        if value.is_floating_point():
            value = value.to(torch.float32)
            if not all_finite(value):
                raise CheckpointError(
                    f"The weights in {origin} hold values that are not numbers (in {key}).",
                    "The training that made them diverged, or the file is damaged; use an earlier checkpoint.",
                )
        filled[key] = value
    network.load_state_dict(filled, strict=True, assign=True)


def all_finite(value: Tensor) -> bool:
    """Whether no value is infinite or not a number."""
    # A sum meets every value and takes a tenth of the time; as finite values may overflow it, only a finite sum decides.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def load_recognizer(name_or_path: str | Path, device: str | torch.device | None = None) -> Recognizer:
    """A recognizer from a checkpoint, in evaluation mode.

    Parameters
    ----------
    name_or_path
        Name of a known checkpoint or path of its folder.
    device
        Default: the GPU if there is one.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or does not fit its card.
    """
    folder = find_checkpoint(name_or_path)
    card = read_card(folder)
    try:
        state_dict = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"The weights of {folder.name} cannot be read: {error}") from error
    network = build_network(card)
    fill_network(network, state_dict, f"{folder.name}/{WEIGHTS}")
    frontend = build_frontend(card.frontend)
    recognizer = Recognizer(network, frontend, card, folder)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    recognizer.to(device)
    recognizer.requires_grad_(False)
    return recognizer


def hash_weights(state_dict: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, independent of the file layout."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        value = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _halved(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    # Values beyond 65504, such as variances of unnormalised inputs, would become infinite.
    return half if torch.isfinite(half).all() else value


def save_checkpoint(folder: Path, network: Network, card: Card, *, half: bool = False) -> Card:
    """Write a checkpoint so that it is either whole or not there.

    Parameters
    ----------
    folder
        Replaced if it exists.
    half
        Store floating-point weights as float16, at half the size (but for tensors with values beyond its range).

    Returns
    -------
    Card
        The card as written, with its content hash.
    """
    state_dict = {}
    for key, value in network.state_dict().items():
        value = value.detach().cpu()
        # A copy: tied weights must not share storage in a safetensors file.
        state_dict[key] = (_halved(value) if half else value).contiguous().clone()
    card = card.model_copy(update={"content_hash": hash_weights(state_dict)})
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    replaced = staging.with_name(f"{staging.name}-replaced")
    try:
        save_file(state_dict, staging / WEIGHTS)
        write_card(staging, card)
        staging.chmod(0o755)
        if folder.exists():
            folder.rename(replaced)
        staging.rename(folder)
    except BaseException:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    return card


def write_card(folder: Path, card: Card) -> None:
    """Write ``card.yaml`` (to a temporary name first)."""
    text = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    temporary = folder / f".{CARD}.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / CARD)
