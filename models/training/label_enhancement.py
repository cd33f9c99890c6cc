"""Adding labels that annotators left out, with the ontology and the scores of a first model (PSLA, section III-C)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import DataError


@dataclass(frozen=True)
class Ontology:
    """Links between classes.

    Attributes
    ----------
    children
        Direct children of every class that is not abstract.
    """

    children: Mapping[str, tuple[str, ...]]

    def parents(self, label: str) -> set[str]:
        """Direct parents; links of abstract classes do not count."""
        return {parent for parent, children in self.children.items() if label in children}

    def ancestors(self, label: str) -> set[str]:
        """Parents, their parents, and so on."""
        found: set[str] = set()
        waiting = [label]
        while waiting:
            new = self.parents(waiting.pop()) - found
            found |= new
            waiting += new
        return found


def read_ontology(path: Path) -> Ontology:
    """AudioSet's ``ontology.json``.

    Raises
    ------
    DataError
        If it is not one.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        children = {
            str(entry["id"]): tuple(str(child) for child in entry["child_ids"])
            for entry in entries
            if "abstract" not in entry["restrictions"]
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path.name} is not AudioSet's ontology: {error}") from error
    return Ontology(children)


def score_thresholds(scores: np.ndarray, targets: np.ndarray, percentile: float | None = None) -> np.ndarray:
    """Threshold of every class, ``[n_classes]``: over the clips labelled with it, the mean score, or a percentile of it.

    Parameters
    ----------
    percentile
        Published: 50 (median), 5, 10 or 25; None: the mean. Classes without clips get an infinite threshold.
    """
    thresholds = np.full(targets.shape[1], np.inf)
    for c in range(targets.shape[1]):
        own = scores[targets[:, c] > 0, c]
        if own.size:
            thresholds[c] = own.mean() if percentile is None else np.percentile(own, percentile)
    return thresholds


def enhance_labels(
    targets: np.ndarray,
    scores: np.ndarray,
    labels: Sequence[str],
    ontology: Ontology,
    thresholds: np.ndarray,
    *,
    children: bool = True,
    ancestors: bool = True,
) -> np.ndarray:
    """Targets ``[n, n_classes]`` with relatives of present classes whose score exceeds their own threshold.

    Parameters
    ----------
    labels
        Class codes in index order; relatives that are not among them are skipped.
    children
        Type 1: add direct children of present classes.
    ancestors
        Type 2: add all ancestors. Both start from the original labels; the result is their union.
    """
    index = {label: i for i, label in enumerate(labels)}
    enhanced = targets.copy()
    for c, label in enumerate(labels):
        related = set(ontology.children.get(label, ())) if children else set()
        if ancestors:
            related |= ontology.ancestors(label)
        present = targets[:, c] > 0
        for other in related:
            i = index.get(other)
            if i is not None:
                enhanced[present & (scores[:, i] > thresholds[i]), i] = 1
    return enhanced
