"""By how much new classes are favoured: no more than it takes to recognise examples that are left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.network import Network
from models.teaching.contract import LeftOut
from models.teaching.head import HeadData
from models.teaching.scoring import by_clip

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


def leave_out(data: HeadData, turns: Tensor, train: Callable[[HeadData, int], Network]) -> Tensor:
    """What is said of every row while it is left out: logits ``[n, n_classes]``.

    Parameters
    ----------
    turns
        ``[n]``: the round in which a row is left out; -1: in none, and nothing is said of it.
    train
        Trains a network without favour on the data of a round.
    """
    logits = torch.zeros(data.targets.shape)
    for number in range(int(turns.max()) + 1):
        network = train(data.where(turns != number), number)
        rows = (turns == number).nonzero()[:, 0]
        with torch.no_grad():
            logits[rows] = network.forward_head(data.hidden[rows.to(data.hidden.device)]).float().cpu()
    return logits


def favoured(logits: Tensor, n_new: int, favour: float) -> Tensor:
    """Scores ``[n, n_classes]`` of a single-label model where the last `n_new` classes are favoured."""
    shift = torch.zeros(logits.shape[1])
    shift[logits.shape[1] - n_new :] = favour
    return (logits + shift).softmax(dim=1)


def least_favour(logits: Tensor, targets: Tensor, examples: Sequence[int], n_new: int) -> LeftOut:
    """As little favour of the new classes as is enough to recognise examples that are left out.

    Parameters
    ----------
    logits, targets
        ``[n, n_classes]``: what is said of windows while they are left out, and what they are.
    examples
        To which example every window belongs.
    """
    n, most = max(examples) + 1, most_favour(logits.shape[1], n_new)
    wanted = by_clip(targets, examples, n, "single-label").argmax(dim=1)
    for favour in [*(favour for favour in FAVOURS if favour < most), most]:
        scores = by_clip(favoured(logits, n_new, favour), examples, n, "single-label")
        found = LeftOut(n, int((scores.argmax(dim=1) == wanted).sum()), favour)
        if found.recognised >= WANTED * n:
            break
    return found
