"""How well a model does on embedded clips, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.card import Task
from models.recognizer import Recognizer
from models.teaching.contract import Scores
from models.training.metrics import average_precision


def widened(scores: Tensor, n_classes: int) -> Tensor:
    """Scores ``[n, old]`` with zeros for the classes that a base does not know, ``[n, n_classes]``."""
    return torch.nn.functional.pad(scores, (0, n_classes - scores.shape[1]))


@torch.no_grad()
def score_hidden(recognizer: Recognizer, hidden: Sequence[Tensor], clips: Sequence[int], n_clips: int) -> Tensor:
    """Scores ``[n_clips, n_classes]`` of clips whose windows were embedded.

    Parameters
    ----------
    hidden
        Batches of embeddings.
    clips
        To which clip each of them belongs. As in predictions, windows are averaged (single-label), or the best one counts.
    """
    if not hidden:
        return torch.zeros(n_clips, len(recognizer.labels))
    parts = [recognizer.probabilities(recognizer.network.forward_head(part.to(recognizer.device))) for part in hidden]
    return by_clip(torch.cat(parts).float().cpu(), clips, n_clips, recognizer.card.task)


def by_clip(scores: Tensor, clips: Sequence[int], n_clips: int, task: Task) -> Tensor:
    """Scores ``[n_clips, n_classes]`` of clips from those of their windows ``[n, n_classes]``, as in predictions."""
    index = torch.as_tensor(clips, dtype=torch.long).unsqueeze(1).expand_as(scores)
    how = "mean" if task == "single-label" else "amax"
    return torch.zeros(n_clips, scores.shape[1]).scatter_reduce(0, index, scores, how, include_self=False)


def scores_of(scores: Tensor, targets: Tensor, labels: Sequence[str], task: Task) -> Scores | None:
    """Accuracy, per class and confusion of ``[n, n_classes]`` each; None without clips."""
    if not len(scores):
        return None
    true = targets > 0.5
    predicted, first = scores.argmax(dim=1), true.float().argmax(dim=1)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (first.numpy(), predicted.numpy()), 1)
    present = [c for c in range(len(labels)) if bool(true[:, c].any())]
    if task == "multi-label":
        values = average_precision(scores.double().numpy(), true.numpy())
        per_class = {labels[c]: float(values[c]) for c in present}
        accuracy = float(np.mean([values[c] for c in present])) if present else 0.0
    else:
        right = predicted == first
        per_class = {labels[c]: float(right[first == c].float().mean()) for c in present if bool((first == c).any())}
        accuracy = float(right.float().mean())
    return Scores(len(scores), accuracy, per_class, tuple(labels), confusion.tolist())


def targets_of(names: Sequence[Sequence[str]], labels: Sequence[str]) -> Tensor:
    """Multi-hot targets ``[n, n_classes]`` of lists of labels."""
    index = {label: i for i, label in enumerate(labels)}
    targets = torch.zeros(len(names), len(labels))
    for row, own in enumerate(names):
        for label in own:
            targets[row, index[label]] = 1.0
    return targets
