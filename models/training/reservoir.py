"""Which clips a device keeps, so that the kept classes follow the observed ones (specification, section 9.3).

Sources: reservoir sampling (Vitter, ACM TOMS 11(1), 1985); class-balancing reservoir sampling (Chrysakis and Moens, Online
Continual Learning from Imbalanced Data, ICML 2020), whose two branches are used here with a target distribution other than
the uniform one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from models.errors import SettingsError

Policy = Literal["matched", "published"]
Branch = Literal["append", "swap", "refresh", "reject", "replace"]
Decision = tuple[bool, "int | None", "int | None"]
_SAME = 1e-12


class RandomSource(Protocol):
    """What a decision draws from; `numpy.random.Generator` is one."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None) -> Any:
        """One of the entries of a sequence (of ``range(a)`` for a number), with probabilities `p`."""


@dataclass(frozen=True)
class Plan:
    """A decision before anything is drawn.

    Attributes
    ----------
    branch
        What would happen on acceptance.
    accept_probability
        Probability that the incoming example is stored.
    evictions
        For every possible class to reduce (None: no particular one) its probability, and the stored examples of which one is
        evicted uniformly. Empty if nothing is evicted.
    target, distance, distances
        ``[K]`` target distribution, its total-variation distance to the stored one, and the distance after evicting each
        stored example (policy ``matched``).
    """

    branch: Branch
    accept_probability: float
    evictions: tuple[tuple[int | None, float, tuple[int, ...]], ...] = ()
    target: np.ndarray | None = None
    distance: float | None = None
    distances: np.ndarray | None = None

    def draw(self, rng: RandomSource) -> Decision:
        """Draw a decision: (should_store, class_to_reduce, sample_to_evict)."""
        if self.accept_probability <= 0 or not rng.random() < self.accept_probability:
            return False, None, None
        if not self.evictions:
            return True, None, None
        which = 0
        if len(self.evictions) > 1:
            which = int(rng.choice(len(self.evictions), p=[probability for _, probability, _ in self.evictions]))
        reduced, _, candidates = self.evictions[which]
        evicted = int(rng.choice(candidates))
        return True, reduced, evicted


def example_labels(example: Mapping[str, Any] | Sequence[int]) -> list[int]:
    """Distinct classes of a stored example: ``{"labels": [...]}`` or the bare list."""
    labels = example["labels"] if isinstance(example, Mapping) else example
    return sorted({int(label) for label in labels})


def count_labels(examples: Sequence[Mapping[str, Any] | Sequence[int]], n_classes: int) -> np.ndarray:
    """Stored examples per class, int64 ``[K]``; an example counts once for each of its classes."""
    counts = np.zeros(n_classes, dtype=np.int64)
    for example in examples:
        for label in example_labels(example):
            if not 0 <= label < n_classes:
                raise SettingsError(f"A stored example has class {label}, but there are {n_classes} classes.")
            counts[label] += 1
    return counts


def target_distribution(obs_counts: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """``o ** alpha`` normalised over observed classes: 1 follows the observations, 0 balances the classes."""
    observed = np.asarray(obs_counts, dtype=np.float64)
    powered = np.zeros_like(observed)
    seen = observed > 0
    powered[seen] = observed[seen] ** alpha
    return powered / powered.sum()


def total_variation(counts: np.ndarray, target: np.ndarray) -> float:
    """``1/2 sum |s / sum s - q|``; 1 if nothing is stored."""
    total = counts.sum()
    return 1.0 if total == 0 else float(0.5 * np.abs(counts / total - target).sum())


def plan_published(
    obs_counts: np.ndarray,
    stored_counts: np.ndarray,
    incoming: Sequence[int],
    stored: Sequence[list[int]],
    replace_prob: float,
) -> Plan:
    """The published rule.

    It never grows beyond what it is given (one example, started empty), accepts rare classes least, and may evict the class
    that arrives; it is here for comparison.
    """
    if stored_counts.sum() == 0:
        return Plan("append", 1.0)
    observed, kept = obs_counts / obs_counts.sum(), stored_counts / stored_counts.sum()
    if not incoming:
        return Plan("reject", 0.0)
    accept = float(replace_prob * np.mean([observed[label] for label in incoming]))
    surplus = np.maximum(kept - observed, 0.0)
    everyone = tuple(range(len(stored)))
    if surplus.sum() <= 0:
        return Plan("replace", accept, ((None, 1.0, everyone),))
    evictions = []
    for label, probability in enumerate(surplus / surplus.sum()):
        if probability > 0:
            holders = tuple(i for i, labels in enumerate(stored) if label in labels)
            evictions.append((label, float(probability), holders or everyone))
    return Plan("replace", accept, tuple(evictions))


def plan_matched(
    obs_counts: np.ndarray,
    stored_counts: np.ndarray,
    incoming: Sequence[int],
    stored: Sequence[list[int]],
    replace_prob: float,
    capacity: int | None = None,
    alpha: float = 1.0,
) -> Plan:
    """The default rule: fill up; then swap if that lowers the distance to the target, else refresh within a class.

    With fixed observations the distance never grows; single-label streams come to rest at ``TV <= K / (4 capacity)``.
    """
    if not incoming:
        return Plan("reject", 0.0)
    size = len(stored) if capacity is None else capacity
    if len(stored) < max(size, 1):
        return Plan("append", 1.0)
    target = target_distribution(obs_counts, alpha)
    distance = total_variation(stored_counts, target)
    arriving = np.zeros(len(obs_counts))
    arriving[list(incoming)] = 1.0
    after = np.repeat((stored_counts + arriving)[None], len(stored), axis=0)
    for index, labels in enumerate(stored):
        after[index, labels] -= 1.0
    totals = after.sum(axis=1, keepdims=True)
    shares = np.divide(after, totals, out=np.zeros_like(after), where=totals > 0)
    distances = np.where(totals[:, 0] > 0, 0.5 * np.abs(shares - target).sum(axis=1), 1.0)
    best = distances.min()
    if best < distance - _SAME:
        surplus = stored_counts / stored_counts.sum() - target
        by_class: dict[int | None, list[int]] = {}
        for row in map(int, np.flatnonzero(distances <= best + _SAME)):
            by_class.setdefault(_most_excessive(stored[row], surplus), []).append(row)
        n_best = sum(map(len, by_class.values()))
        evictions = tuple((label, len(rows) / n_best, tuple(rows)) for label, rows in by_class.items())
        return Plan("swap", replace_prob, evictions, target, distance, distances)
    twins = tuple(row for row, labels in enumerate(stored) if labels == list(incoming))
    if not twins:
        return Plan("reject", 0.0, (), target, distance, distances)
    accept = float(np.mean([replace_prob * min(1.0, stored_counts[c] / obs_counts[c]) for c in incoming]))
    return Plan("refresh", accept, ((None, 1.0, twins),), target, distance, distances)


def _most_excessive(labels: Sequence[int], surplus: np.ndarray) -> int | None:
    """The label with the largest surplus if that is positive; of equal ones the lowest."""
    best: int | None = None
    for label in labels:
        if surplus[label] > 0 and (best is None or surplus[label] > surplus[best] + _SAME):
            best = label
    return best


def plan_decision(
    obs_counts: Sequence[float] | np.ndarray,
    stored_counts: Sequence[int] | np.ndarray,
    incoming_labels: Sequence[int],
    stored_examples: Sequence[Mapping[str, Any] | Sequence[int]],
    replace_prob: float,
    *,
    policy: Policy = "matched",
    capacity: int | None = None,
    alpha: float = 1.0,
) -> Plan:
    """Check the arguments of `store_audio_decision` and work out the probabilities.

    Raises
    ------
    SettingsError
        If they contradict each other (it is a ValueError).
    """
    observed, counts = np.asarray(obs_counts, dtype=np.float64), np.asarray(stored_counts, dtype=np.float64)
    if observed.ndim != 1 or observed.shape != counts.shape:
        raise SettingsError(f"obs_counts {observed.shape} and stored_counts {counts.shape} must be equally long lists.")
    if not np.isfinite(observed).all() or observed.sum() <= 0:
        raise SettingsError("Nothing has been observed yet.", "Count the incoming example in obs_counts first.")
    stored = [example_labels(example) for example in stored_examples]
    incoming = sorted({int(label) for label in incoming_labels})
    if any(not 0 <= label < len(observed) for label in incoming):
        raise SettingsError(f"The labels {incoming} are not all in 0 to {len(observed) - 1}.")
    if policy == "published":
        return plan_published(observed, counts, [int(label) for label in incoming_labels], stored, replace_prob)
    if policy != "matched":
        raise SettingsError(f"There is no policy {policy!r}.", "Known are 'matched' and 'published'.")
    if (observed < 0).any() or (counts < 0).any():
        raise SettingsError("Counts cannot be negative.")
    if any(observed[label] == 0 for label in incoming):
        raise SettingsError(
            "A class of the incoming example has never been observed.",
            "Count the incoming example in obs_counts first.",
        )
    if not 0.0 <= replace_prob <= 1.0:
        raise SettingsError(f"replace_prob is a probability, not {replace_prob}.")
    if capacity is not None and capacity < 1:
        raise SettingsError(f"A reservoir cannot hold {capacity} examples.", "Give a capacity of at least 1.")
    if not np.array_equal(count_labels(stored_examples, len(observed)), counts):
        raise SettingsError(
            "stored_counts are not the counts of the stored examples.", "Count every class of an example once."
        )
    return plan_matched(observed, counts, incoming, stored, replace_prob, capacity, alpha)


def store_audio_decision(
    obs_counts: Sequence[float] | np.ndarray,
    stored_counts: Sequence[int] | np.ndarray,
    incoming_labels: Sequence[int],
    stored_examples: Sequence[Mapping[str, Any] | Sequence[int]],
    replace_prob: float,
    *,
    policy: Policy = "matched",
    capacity: int | None = None,
    alpha: float = 1.0,
    rng: RandomSource | None = None,
) -> Decision:
    """Whether to keep an incoming example, and which stored one makes room for it.

    The caller applies the result: append if `sample_to_evict` is None, else overwrite that place; subtract the evicted labels
    from, and add the incoming ones to, `stored_counts`.

    Parameters
    ----------
    obs_counts
        ``[K]`` how often each class was observed, the incoming example included.
    stored_counts
        ``[K]`` stored examples per class.
    incoming_labels
        Classes of the incoming example.
    stored_examples
        ``{"labels": [...]}`` each.
    replace_prob
        Probability with which an improvement is carried out.
    policy
        ``matched`` (default), or ``published``: the published rule, for comparison.
    capacity
        Most examples; None: as many as there are.
    alpha
        1: keep what is observed; 0: keep all classes equally; between: tempered.
    rng
        Default: a fresh random generator.

    Returns
    -------
    tuple
        (should_store, class_to_reduce, sample_to_evict); the latter two may be None.

    Raises
    ------
    SettingsError
        If the arguments contradict each other (it is a ValueError).
    """
    plan = plan_decision(
        obs_counts, stored_counts, incoming_labels, stored_examples, replace_prob,
        policy=policy, capacity=capacity, alpha=alpha,
    )  # fmt: skip
    return plan.draw(np.random.default_rng() if rng is None else rng)


@dataclass(frozen=True)
class SimulationResult:
    """A simulated stream.

    Attributes
    ----------
    stored, observed
        Proportions per class after every step, ``[steps, K]``.
    distance
        Total-variation distance of stored and target distribution, ``[steps + 1]``, the first before any step.
    accepted
        How many incoming examples were stored.
    """

    stored: np.ndarray
    observed: np.ndarray
    distance: np.ndarray
    accepted: int


def simulate_reservoir(
    n_classes: int = 5,
    capacity: int = 50,
    steps: int = 100,
    replace_prob: float = 0.7,
    *,
    policy: Policy = "matched",
    alpha: float = 1.0,
    probabilities: Sequence[float] | None = None,
    most_labels: int = 2,
    seed: int = 0,
) -> SimulationResult:
    """Stream random examples into a reservoir that is full of uniformly drawn ones.

    Observed counts start at 50 to 199 per class; with `probabilities` given, at 0 and the stream follows them.
    """
    if n_classes < 1 or capacity < 1 or steps < 0 or not 1 <= most_labels <= n_classes:
        raise SettingsError("A simulation needs at least one class, one place, and 1 to n_classes labels per example.")
    rng = np.random.default_rng(seed)
    observed = rng.integers(50, 200, size=n_classes) if probabilities is None else np.zeros(n_classes, dtype=np.int64)

    def draw(p: Sequence[float] | None) -> list[int]:
        n_labels = int(rng.integers(1, most_labels + 1))
        return [int(c) for c in rng.choice(n_classes, size=n_labels, replace=False, p=p)]

    stored = [{"labels": draw(None)} for _ in range(capacity)]
    counts = count_labels(stored, n_classes)
    start = target_distribution(observed, alpha) if observed.sum() else np.full(n_classes, 1 / n_classes)
    distances, stored_history, observed_history, accepted = [total_variation(counts, start)], [], [], 0
    for _ in range(steps):
        incoming = draw(probabilities)
        observed[incoming] += 1
        keep, _, evicted = store_audio_decision(
            observed, counts, incoming, stored, replace_prob, policy=policy, capacity=capacity, alpha=alpha, rng=rng
        )
        if keep:
            accepted += 1
            if evicted is None:
                stored.append({"labels": incoming})
            else:
                counts[stored[evicted]["labels"]] -= 1
                stored[evicted] = {"labels": incoming}
            counts[incoming] += 1
        stored_history.append(counts / max(1, counts.sum()))
        observed_history.append(observed / observed.sum())
        distances.append(total_variation(counts, target_distribution(observed, alpha)))
    shape = (steps, n_classes)
    return SimulationResult(
        np.array(stored_history).reshape(shape),
        np.array(observed_history).reshape(shape),
        np.array(distances),
        accepted,
    )
