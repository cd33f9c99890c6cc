"""Starting a training run from weights that are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.catalog import WEIGHTS
from models.checkpoint import load_recognizer
from models.errors import CheckpointError, SettingsError
from models.families.ast import AST, ASTConfig
from models.layers.hetero_settings import convert_backbone
from models.network import Network
from models.published_files import SUFFIXES, read_published_file
from models.training.ast_start import adapt_audioset, adapt_deit, start_from
from models.training.config import StartConfig
from models.training.equiav_weights import initialize_from_mae


def stored_weights(name_or_path: str, network: Network) -> dict[str, Tensor]:
    """Entries of a checkpoint folder (by name or path), or of a published weights file, as the file names them.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix in SUFFIXES and path.name != WEIGHTS:
        return read_published_file(path).state_dict
    return load_recognizer(name_or_path, "cpu").network.state_dict()


@torch.no_grad()
def start_network(network: Network, start: StartConfig) -> tuple[str, ...]:
    """Put the weights that a recipe names into a fresh network.

    Returns
    -------
    tuple
        Entries that keep their random start.

    Raises
    ------
    CheckpointError
        If they do not fit.
    SettingsError
        If the kind of start is not for this family.
    """
    weights = stored_weights(start.checkpoint, network)
    own = network.state_dict()
    if start.kind in ("deit", "audioset"):
        if not isinstance(network, AST):
            raise SettingsError(f"A start of the kind {start.kind!r} is for AST only.", "Use the kind 'matching'.")
        config: ASTConfig = network.config
        adapted = adapt_deit(weights, config) if start.kind == "deit" else adapt_audioset(_as_ast(weights), config)
        start_from(network, adapted)
        return tuple(key for key in own if key not in adapted)
    if start.kind == "mae":
        report = initialize_from_mae(weights, weights, own)
        taken = {key: report.merged[key] for key in report.loaded}
    elif start.kind == "backbone":
        taken = matching(convert_backbone(weights), own)
    elif start.kind == "matching":
        taken = matching({f"{start.prefix}{key}": value for key, value in weights.items()}, own)
    else:
        taken = dict(weights)
        if set(taken) != set(own):
            taken = network.convert_state_dict(weights, network.config)
        wrong = sorted(
            set(own) ^ set(taken) | {key for key in set(own) & set(taken) if own[key].shape != taken[key].shape}
        )
        if wrong:
            raise CheckpointError(
                f"The weights of {start.checkpoint} do not fit in {len(wrong)} entries ({', '.join(wrong[:3])}).",
                "Say start.kind: matching to take over only what fits, such as all but the classifier.",
            )
    if not taken:
        raise CheckpointError(
            f"No entry of {start.checkpoint} fits a {network.info.title}.",
            "Check the family, its sizes and start.prefix.",
        )
    network.load_state_dict(taken, strict=False)
    return tuple(key for key in own if key not in taken)


def matching(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of the same name and shape."""
    return {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}


def _as_ast(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if "v.pos_embed" not in weights:
        raise CheckpointError("These are not the weights of a published AST.", "Give an AudioSet AST (.pth).")
    return weights
