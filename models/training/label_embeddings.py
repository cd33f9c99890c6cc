"""Label Embeddings Projection: while training, the logits must also predict the word vectors of the true label.

An auxiliary regression behind the classifier (an affine map of its logits); at test time it never changes a prediction.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import DataError, SettingsError

Vectors = Mapping[str, np.ndarray]


def words_of(label: str) -> list[str]:
    """Lower-case words without punctuation: "playing violin, fiddle" has three."""
    return re.findall(r"[a-z']+", label.lower())


def label_vectors(
    labels: Sequence[str], vectors: Vectors, tokenize: Callable[[str], list[str]] = words_of
) -> np.ndarray:
    """Plain mean of the vectors of a label's known words, float32 ``[n_classes, dimensions]``.

    A label without a known word gets zeros and a warning. The published tables follow `words_of`; splitting on white space
    (``str.split``) loses words with a comma attached.

    Raises
    ------
    DataError
        If there are no vectors at all.
    """
    if not vectors:
        raise DataError("There are no word vectors to make label embeddings from.")
    size = len(next(iter(vectors.values())))
    table = np.zeros((len(labels), size), dtype=np.float32)
    unknown = []
    for row, label in enumerate(labels):
        known = [vectors[word] for word in tokenize(label) if word in vectors]
        if known:
            table[row] = np.mean(np.stack(known).astype(np.float32), axis=0, dtype=np.float32)
        else:
            unknown.append(label)
    if unknown:
        warnings.warn(f"No word of {len(unknown)} labels has a vector: {', '.join(unknown[:5])}.", stacklevel=2)
    return table


def load_word_vectors(path: Path, words: set[str] | None = None) -> dict[str, np.ndarray]:
    """Vectors of a text file with a word and its numbers on every line (GloVe; a word2vec header line is skipped).

    Parameters
    ----------
    words
        Only these; None: all.

    Raises
    ------
    DataError
        Naming the line that is not a word with as many numbers as the others.
    """
    found: dict[str, np.ndarray] = {}
    size = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if number == 1 and len(values) == 1:
                    continue
                size = size or len(values)
                if words is not None and word not in words:
                    continue
                if len(values) != size:
                    raise DataError(f"{path.name}, line {number}: {len(values)} numbers instead of {size}.")
                found[word] = np.array(values, dtype=np.float32)
    except OSError as error:
        raise DataError(f"The word vectors {path.name} cannot be read: {error.strerror}.") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path.name} holds something that is not a number.") from error
    return found


def load_label_embeddings(path: Path, n_classes: int) -> np.ndarray:
    """A table float32 ``[n_classes, dimensions]`` from a ``.npy`` file whose rows are in class order.

    Raises
    ------
    DataError
        If it is not such a table.
    """
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The label embeddings {path.name} cannot be read: {error}.", "Give a .npy file.") from error
    if not isinstance(table, np.ndarray) or table.ndim != 2 or not np.issubdtype(table.dtype, np.number):
        raise DataError(f"{path.name} does not hold a table of numbers.", "Give a .npy file [classes, dimensions].")
    if table.shape[0] != n_classes:
        raise DataError(
            f"{path.name} has {table.shape[0]} rows, but the model has {n_classes} classes.",
            "A table needs one row per class, in the order of the classes.",
        )
    table = table.astype(np.float32)
    if not np.isfinite(table).all():
        raise DataError(f"{path.name} holds values that are not numbers.")
    return table


@dataclass(frozen=True)
class EmbeddingLosses:
    """The loss and its two parts, scalars."""

    total: Tensor
    classification: Tensor
    embedding: Tensor


class LabelEmbeddingLoss(nn.Module):
    """``(1 - weight) * cross entropy + weight * mean squared error`` to the true label's embedding.

    Parameters
    ----------
    table
        ``[n_classes, dimensions]``, row = class.
    weight
        0 (the published default, no effect on training) to 1.
    trainable
        Let the table follow; the published code means to and never does, because its optimizer does not know the table.
    """

    def __init__(self, table: np.ndarray | Tensor, weight: float, *, trainable: bool = False) -> None:
        super().__init__()
        if not 0.0 <= weight <= 1.0:
            raise SettingsError(f"The weight of the label embeddings must be between 0 and 1, not {weight}.")
        self.weight = weight
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float32).clone(), requires_grad=trainable)

    def forward(self, logits: Tensor, embedding: Tensor, labels: Tensor) -> EmbeddingLosses:
        """Losses of logits ``[batch, n_classes]``, embeddings ``[batch, dimensions]`` and labels ``[batch]``.

        Labels may also be mixed, ``[batch, n_classes]``; the target embedding is then mixed by the same weights.
        """
        wanted = labels @ self.table if labels.ndim == 2 else self.table[labels]
        classification = nn.functional.cross_entropy(logits, labels)
        distance = nn.functional.mse_loss(embedding, wanted)
        return EmbeddingLosses((1 - self.weight) * classification + self.weight * distance, classification, distance)


def similarity(embedding: Tensor, table: Tensor) -> Tensor:
    """Cosine similarity ``[batch, rows]`` of embeddings ``[batch, dimensions]`` and rows of a table; differentiable."""
    return nn.functional.normalize(embedding, dim=-1) @ nn.functional.normalize(table, dim=-1).T


def nearest_labels(
    embedding: Tensor, table: Tensor, labels: Sequence[str], count: int = 5
) -> list[list[tuple[str, float]]]:
    """For every embedding the label concepts it is most similar to, with their cosine similarity.

    A reading aid of this project, not part of the published method.
    """
    best = similarity(embedding, table).topk(min(count, len(labels)), dim=-1)
    return [
        [(labels[i], score) for i, score in zip(indices, values, strict=True)]
        for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
