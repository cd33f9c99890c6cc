"""By how much new classes are favoured: no more than it takes to recognise examples that are left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.network import Network
from models.teaching.contract import LeftOut
from models.teaching.head import HeadData

FAVOURS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # more costs too much of the old classes, see docs/teaching.md
WANTED = 0.85  # share of the examples that are to be recognised when they are left out
_ROUNDS = 5


def most_favour(n_classes: int, n_new: int) -> float:
    """By how much logits of new classes are lowered in the loss at most, so that the trained head favours them by as much.

    Embeddings were made to tell the old classes apart, and sounds of a new class that are not among the examples fall
    next to old ones. The logarithm of the ratio of old classes to new ones makes both alike before anything is heard
    (Menon et al.: Long-tail learning via logit adjustment, 2021).
    """
    n_old = n_classes - n_new
    return 0.0 if n_new == 0 or n_old <= n_new else min(FAVOURS[-1], math.log(n_old / n_new))


def rounds_of(sounds: Sequence[int], classes: Sequence[int]) -> list[int] | None:
    """In which round every example is left out: of every class about as many in each; None if a class has one sound only.

    Parameters
    ----------
    sounds
        For every example the number of its sound: copies of one sound are left out together.
    classes
        For every example its class.
    """
    of_class: dict[int, dict[int, int]] = {}
    for sound, label in zip(sounds, classes, strict=True):
        own = of_class.setdefault(label, {})
        own.setdefault(sound, len(own))
    rounds = min(_ROUNDS, min(len(own) for own in of_class.values()))
    if rounds < 2:
        return None
    return [of_class[label][sound] % rounds for sound, label in zip(sounds, classes, strict=True)]


def leave_out(
    data: HeadData,
    windows: Sequence[int],
    copies: int,
    rounds: Sequence[int],
    n_new: int,
    train: Callable[[HeadData, int], Network],
) -> LeftOut:
    """Leave every example out once, and favour the new classes as little as is enough.

    Parameters
    ----------
    data
        Begins with the windows of all examples, as they are and then `copies` - 1 times changed; the rest is rehearsed.
    windows
        To which example every window belongs.
    rounds
        For every example, when it is left out.
    n_new
        How many classes, the last ones, are new.
    train
        Trains a network without favour on the data of a round.
    """
    n_classes, most = data.targets.shape[1], most_favour(data.targets.shape[1], n_new)
    favours = [favour for favour in FAVOURS if favour < most] + [most]
    right = dict.fromkeys(favours, 0)
    examples, turn = torch.tensor(windows), torch.tensor(rounds)[windows]
    for number in range(max(rounds) + 1):
        kept = torch.ones(len(data.targets), dtype=torch.bool)
        kept[: len(windows) * copies] = (turn != number).repeat(copies)
        network = train(data.where(kept), number)
        out = (turn == number).nonzero()[:, 0]
        with torch.no_grad():
            logits = network.forward_head(data.hidden[out.to(data.hidden.device)]).float().cpu()
        wanted = data.targets.cpu()[out].argmax(dim=1)
        for favour in favours:
            shift = torch.zeros(n_classes)
            shift[n_classes - n_new :] = favour
            right[favour] += _right((logits + shift).softmax(dim=1), wanted, examples[out])
    chosen = next((favour for favour in favours if right[favour] >= WANTED * len(rounds)), most)
    return LeftOut(len(rounds), right[chosen], chosen)


def _right(scores: Tensor, wanted: Tensor, examples: Tensor) -> int:
    """How many examples are recognised: as in predictions, the scores of their windows are averaged."""
    found = 0
    for example in examples.unique():
        own = examples == example
        found += int(scores[own].mean(dim=0).argmax() == wanted[own][0])
    return found
