"""What of a network can be trained, and what is sensible for how many examples."""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from models.errors import SettingsError
from models.network import Network
from models.recognizer import Recognizer
from models.teaching.contract import TeachSettings
from models.teaching.extension import head_parameters
from models.teaching.listening import window_length
from models.teaching.low_rank import linear_layers

SENTENCES = {
    "head": "Only the classifier is trained, on stored embeddings: seconds, and little is forgotten.",
    "last_blocks": "The classifier and the last layers: slower, and forgets more; for sounds that it does not tell apart yet.",
    "low_rank": "The classifier and small additions to all linear layers: between the head and everything.",
    "everything": "All weights: slow, needs many examples, and forgets most.",
}
# Examples of a class (on average) from which on more than the head is worth training, where no memory would be left unused.
_MANY = 100
_BLOCK = re.compile(r"^(.*?(?:^|[._a-z])\d+)(?:\.|$)")


def teachable_problem(recognizer: Recognizer) -> str:
    """Why a model cannot be taught at all; empty if it can."""
    if not recognizer.labels:
        return f"{recognizer.name} has no classes: it was trained without labels."
    if recognizer.card.family == "equiav_pretraining":
        return f"{recognizer.name} compares sounds with pictures and names no classes."
    return ""


def blocks(network: Network, features: Tensor, frames: Tensor | None, head: Collection[str]) -> list[list[str]]:
    """Names of the parameters outside of the head by block, in the order in which they are last used.

    A block is what a number in a name stands for, such as ``v.blocks.3`` or ``model.layer4``; layers between two blocks
    belong to the earlier one, and those before the first are in none.
    """
    used: dict[str, None] = {}

    def note(name: str) -> None:
        used.pop(name, None)
        used[name] = None

    handles = [
        module.register_forward_hook(lambda *_, name=name: note(name))
        for name, module in network.named_modules()
        if name and any(True for _ in module.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            network.forward_features(features) if frames is None else network.forward_features(features, frames)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, list[str]] = {}
    current = ""
    for name in used:
        match = _BLOCK.match(name)
        if match:
            current = match.group(1)
        if not current:
            continue
        own = [f"{name}.{key}" for key, _ in network.get_submodule(name).named_parameters(recurse=False)]
        own = [key for key in own if key not in head]
        if own:
            names = found.pop(current, [])
            found[current] = names + own
    return list(found.values())


def silent_input(recognizer: Recognizer) -> tuple[Tensor, Tensor | None]:
    """Features and encoded picture of a window of silence, to look at shapes with."""
    features = recognizer.features(torch.zeros(window_length(recognizer)))
    frames = recognizer.frames(None)
    with torch.no_grad():
        return features, None if frames is None else recognizer.network.encode_frames(frames)


def head_of(recognizer: Recognizer) -> dict[str, nn.Parameter]:
    """Parameters of the head, by name."""
    features, frames = silent_input(recognizer)
    network = recognizer.network
    with torch.no_grad():
        hidden = network.forward_features(features) if frames is None else network.forward_features(features, frames)
    return head_parameters(network, hidden)


def offered_ways(recognizer: Recognizer) -> dict[str, str]:
    """Which ways of training a model has (`TeachSettings.train` without ``auto``), with a sentence each; none: not teachable."""
    if teachable_problem(recognizer):
        return {}
    head = set(head_of(recognizer))
    ways = ["head"]
    if len(blocks(recognizer.network, *silent_input(recognizer), head)) > 1:
        ways.append("last_blocks")
    sizes = {name: value.numel() for name, value in recognizer.network.named_parameters() if name not in head}
    linear = sum(layer.weight.numel() for layer in linear_layers(recognizer.network, head).values())
    # Where most weights lie in convolutions, additions to a few linear layers change next to nothing.
    if linear > 0.3 * max(1, sum(sizes.values())):
        ways.append("low_rank")
    if sizes:
        ways.append("everything")
    return {way: SENTENCES[way] for way in ways}


def chosen_way(
    recognizer: Recognizer, settings: TeachSettings, n_examples: int, n_labels: int, *, remembers: bool
) -> str:
    """What is trained.

    Parameters
    ----------
    remembers
        Whether the base has a memory. It can be rehearsed only while the head alone is trained, and that was better for new
        and old classes with up to 30 examples a class, all there were to measure with.

    Raises
    ------
    SettingsError
        If the model has no such way.
    """
    offered = offered_ways(recognizer)
    if not offered:
        raise SettingsError(teachable_problem(recognizer), "Choose a model that names classes.")
    if settings.train == "auto":
        many = n_examples / max(1, n_labels) >= _MANY
        return "last_blocks" if many and not remembers and "last_blocks" in offered else "head"
    if settings.train not in offered:
        raise SettingsError(
            f"{recognizer.name} cannot be trained with {settings.train}.", f"It offers: {', '.join(offered)}."
        )
    return settings.train
