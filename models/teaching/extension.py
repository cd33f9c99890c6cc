"""A network with more classes than its base: old rows keep their values and their indices."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.card import Card
from models.checkpoint import Undrawn
from models.errors import SettingsError
from models.network import Network
from models.recognizer import Recognizer


def class_rows(network: Network, extended: Network) -> dict[str, int]:
    """Entries that have a row for every class, and the number of the base's rows in them.

    Raises
    ------
    SettingsError
        If the networks differ in more than such rows.
    """
    found = {}
    before, after = network.state_dict(), extended.state_dict()
    for key, value in after.items():
        old = before.get(key)
        if old is not None and old.shape == value.shape:
            continue
        if old is None or old.ndim == 0 or old.shape[1:] != value.shape[1:] or old.shape[0] > value.shape[0]:
            raise SettingsError(
                f"A {network.info.title} cannot be taught new classes: {key} is not made of one row for every class.",
                "Teach it the classes that it has, or choose another model.",
            )
        found[key] = old.shape[0]
    return found


def extend_network(network: Network, added: int) -> tuple[Network, dict[str, int]]:
    """A copy with `added` more classes, and the entries with class rows (empty if none are added).

    New rows begin as the mean of the old ones: every new class starts as an average class.

    Raises
    ------
    SettingsError
        If the architecture has no simple rows for classes.
    """
    if added == 0:
        return copy.deepcopy(network), {}
    values = network.config.model_dump() | {"n_classes": network.config.n_classes + added}
    try:
        config = type(network).Config.model_validate(values)
        with torch.device("meta"), Undrawn():
            extended = type(network)(config)
    except ValueError as error:
        raise SettingsError(
            f"A {network.info.title} with these settings cannot be taught new classes.",
            "Teach it the classes that it has, or choose another model.",
        ) from error
    rows = class_rows(network, extended)
    filled = {}
    for key, wanted in extended.state_dict().items():
        old = network.state_dict()[key].detach()
        if key in rows:
            mean = old.mean(dim=0, keepdim=True) if old.is_floating_point() else old[:1]
            old = torch.cat([old, mean.expand(wanted.shape[0] - old.shape[0], *old.shape[1:])])
        filled[key] = old.clone()
    extended.load_state_dict(filled, strict=True, assign=True)
    return extended.eval().requires_grad_(False), rows


def extended_card(card: Card, network: Network, new_labels: tuple[str, ...]) -> Card:
    """The card of a base with its network extended."""
    config = card.config | {"n_classes": network.config.n_classes} if new_labels else card.config
    return card.model_copy(update={"config": config, "labels": [*card.labels, *new_labels]})


def extend_recognizer(base: Recognizer, new_labels: tuple[str, ...]) -> tuple[Recognizer, dict[str, int]]:
    """A recognizer of its own with further classes, and its entries with class rows.

    Raises
    ------
    SettingsError
        If the labels of the base are in groups, or its architecture has no simple rows for classes.
    """
    if new_labels and base.card.label_groups:
        raise SettingsError(
            f"{base.name} names a class of each of {len(base.card.label_groups)} groups, and cannot be taught new ones.",
            "Choose a model with one list of classes.",
        )
    network, rows = extend_network(base.network, len(new_labels))
    network = network.to(base.device)
    card = extended_card(base.card, network, new_labels)
    return Recognizer(network, base.frontend, card).requires_grad_(False), rows


def head_parameters(network: Network, hidden: Tensor) -> dict[str, nn.Parameter]:
    """Parameters that `forward_head` reads, found by asking for their gradients.

    Parameters
    ----------
    hidden
        What the head reads, of any clip.
    """
    named = {key: value for key, value in network.named_parameters() if value.is_floating_point()}
    wanted = {key: value.requires_grad for key, value in named.items()}
    try:
        for value in named.values():
            value.requires_grad_(True)
        with torch.enable_grad():
            output = network.forward_head(hidden.detach())
            gradients = torch.autograd.grad(output.sum(), list(named.values()), allow_unused=True)
    finally:
        for key, value in named.items():
            value.requires_grad_(wanted[key])
    return {key: value for (key, value), found in zip(named.items(), gradients, strict=True) if found is not None}
