"""What a model that listens again did with a clip: passes, what it heard again, and what that changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.card import Card
from models.errors import SettingsError
from models.playback import Playback
from models.prediction import hop_samples, predict, window_starts
from models.recognizer import Recognizer
from saliency.over_time import without_crumbs
from saliency.trust.selection import Reliability, reliability

Progress = Callable[[float], None]
MIND = 0.01  # a smaller change of a probability is none


@dataclass(frozen=True, eq=False)
class PassHeard:
    """One pass; all times are seconds of the clip.

    Attributes
    ----------
    number
        1 hears everything; 2, 3, ... listen again to what the pass before selected.
    hop_seconds
        How finely what is replayed was heard (pass 1: everything).
    replayed, selected
        What this pass heard again, and what it chose for the next one, ``[n, 2]`` in order of time.
    times, attention, spread
        Attention over time in 0..1 at rising times, and its standard deviation over draws of the slots' noise.
    probabilities
        Of all classes after this pass and those before it, ``[n_classes]``.
    """

    number: int
    hop_seconds: float
    replayed: np.ndarray
    selected: np.ndarray
    times: np.ndarray
    attention: np.ndarray
    spread: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class PlaybackExplanation:
    """A clip as a model listened to it, for one class.

    Attributes
    ----------
    target, labels
        The class, and the names of all.
    start, end
        The part of the clip that was listened to, in seconds (the model's window).
    passes
        In order.
    probabilities
        Of all classes from all passes together: the model's answer, ``[n_classes]``.
    changed
        Number of the first pass after which another class led than before it; 0 if the lead never changed.
    mind
        What made it change its mind, as one sentence.
    resolution_seconds
        Finer structure of the attention means nothing.
    corrected
        Whether what is selected is what is replayed (see the family's documentation).
    reliability
        What the model's card says about its selection.
    notes
        What a reader has to know beside the pictures.
    """

    target: str
    labels: tuple[str, ...]
    start: float
    end: float
    passes: tuple[PassHeard, ...]
    probabilities: np.ndarray
    changed: int
    mind: str
    resolution_seconds: float
    corrected: bool
    reliability: Reliability
    notes: tuple[str, ...]

    def by_pass(self) -> np.ndarray:
        """Probabilities after every pass, ``[passes, n_classes]``."""
        return np.stack([one.probabilities for one in self.passes])

    def shown_classes(self, most: int = 5) -> list[int]:
        """The class and the others that were most probable after any pass, best first behind it."""
        best = np.maximum(self.by_pass().max(axis=0), self.probabilities)
        target = self.labels.index(self.target)
        others = [int(index) for index in np.argsort(-best, kind="stable") if index != target]
        return [target, *others[: most - 1]]


def listen_again(
    recognizer: Recognizer, waveform: np.ndarray, target: str | None = None, *, draws: int = 8, progress: Progress | None = None
) -> PlaybackExplanation:  # fmt: skip
    """How a recognizer listened to a mono waveform ``[samples]`` at its rate.

    Of a clip longer than the model's window, the window is shown in which it finds the class most probable.

    Parameters
    ----------
    target
        Label of the class; None: the most probable.
    draws
        Draws of the start noise over which attention of published models is averaged; corrected ones have none.
    progress
        Called with the share that is done, 0 to 1. It may raise, to cancel.

    Raises
    ------
    SettingsError
        If the model does not listen again, or has no such class.
    """
    if not recognizer.supports("playback"):
        raise SettingsError(
            f"{recognizer.name} hears a clip once.", "Choose a model that listens again (family play_it_back)."
        )
    from models.families.play_it_back import PlayItBack

    network, rate, window = recognizer.network, recognizer.sample_rate, recognizer.window_samples
    assert isinstance(network, PlayItBack)
    if target is not None:
        recognizer.target_index(target)
    waveform = without_crumbs(recognizer, waveform)
    found = predict(
        recognizer, waveform, progress=None if progress is None else lambda done, total: progress(0.5 * done / total)
    )
    target = found.ranking()[0][0] if target is None else target
    index = recognizer.target_index(target)
    number = int(np.argmax(found.window_scores[:, index]))
    first = window_starts(len(waveform), window, hop_samples(recognizer))[number]
    samples = waveform[first : first + (window or len(waveform))]
    start, seconds = first / rate, max(1, len(samples)) / rate
    with recognizer.lock, torch.no_grad():
        features = recognizer.features(samples)
        played = network.playback(features, valid_seconds=seconds, draws=draws)
        logits = torch.from_numpy(np.vstack([played.scores_by_pass(), played.scores[None]])).to(recognizer.device)
        chances = recognizer.probabilities(logits).double().cpu().numpy()
    if progress is not None:
        progress(1.0)
    passes = _passes(played, chances[:-1], start, seconds)
    notes = list(played.notes)
    if len(found.windows) > 1:
        notes.insert(
            0,
            f"The model hears {seconds:.3g} s at once. Shown is the part from {start:.2f} to {start + seconds:.2f} s, in which "
            "it finds this class most probable.",
        )
    group = _group_of(recognizer.card, index)
    changed, mind = change_of_mind(passes, chances[-1], recognizer.labels, index, group)
    return PlaybackExplanation(
        target, tuple(recognizer.labels), start, start + seconds, passes, chances[-1], changed, mind,
        played.resolution_seconds, played.corrected, reliability(recognizer.card, played.corrected), tuple(notes),
    )  # fmt: skip


def _passes(played: Playback, chances: np.ndarray, start: float, seconds: float) -> tuple[PassHeard, ...]:
    """The passes in seconds of the clip; what lies in the padding of a short clip is left out."""

    def within(segments: np.ndarray) -> np.ndarray:
        inside = np.clip(segments.reshape(-1, 2), 0.0, seconds)
        return inside[inside[:, 1] - inside[:, 0] > 1e-6] + start

    found = []
    for one, chance in zip(played.passes, chances, strict=True):
        heard = (one.attention_seconds >= 0) & (one.attention_seconds < seconds + 1e-9)
        found.append(
            PassHeard(
                one.index + 1, one.hop_seconds, within(one.replayed), within(one.selected), one.attention_seconds[heard] + start,
                one.attention[heard].astype(np.float64), one.attention_spread[heard].astype(np.float64), chance,
            )
        )  # fmt: skip
    return tuple(found)


def _group_of(card: Card, index: int) -> np.ndarray:
    """Classes among which one is right: those of the target's group."""
    edges = np.cumsum([0, *(card.label_groups or [len(card.labels)])])
    number = int(np.searchsorted(edges, index, side="right")) - 1
    return np.arange(edges[number], edges[number + 1])


# --- in words ------------------------------------------------------------------------------------------------------


def plain_percent(value: float) -> str:
    """A probability in percent, without digits where they say nothing."""
    return f"{100 * value:.0f} %" if 0.01 <= value <= 0.99 else f"{100 * value:.1f} %"


def spans_in_words(spans: np.ndarray) -> str:
    """Stretches in seconds as a phrase; more than three are counted."""
    if len(spans) == 0:
        return ""
    if len(spans) > 3:
        return f"{len(spans)} moments between {spans[0, 0]:.2f} and {spans[-1, 1]:.2f} s"
    parts = [f"{start:.2f}–{end:.2f}" for start, end in spans]
    return (parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}") + " s"


def hop_in_words(seconds: float) -> str:
    """The hop of a level: 12.5 ms, 6.25 ms, 4.19 ms."""
    return f"{1000 * seconds:.3g} ms"


def pass_title(one: PassHeard) -> str:
    """What a pass heard: the heading of its lane."""
    if one.number == 1:
        return f"Pass 1: hears everything, every {hop_in_words(one.hop_seconds)}"
    if len(one.replayed) == 0:
        return f"Pass {one.number}: hears everything again, because nothing stood out"
    return f"Pass {one.number}: hears {spans_in_words(one.replayed)} again, every {hop_in_words(one.hop_seconds)}"


def _spoken(label: str) -> str:
    return " ".join(label.replace("_", " ").split())


def change_of_mind(
    passes: tuple[PassHeard, ...], final: np.ndarray, labels: list[str], target: int, group: np.ndarray
) -> tuple[int, str]:
    """Number of the pass that changed the lead (0: none), and a sentence about what the passes changed.

    Parameters
    ----------
    final
        Probabilities from all passes together, ``[n_classes]``.
    group
        Classes among which one is right.
    """
    leads = [int(group[np.argmax(one.probabilities[group])]) for one in passes]
    for before, after in zip(range(len(passes)), range(1, len(passes)), strict=False):
        old, new = leads[before], leads[after]
        if old == new:
            continue
        one = passes[after]
        chances = passes[before].probabilities[new], one.probabilities[new]
        why = f"It heard {spans_in_words(one.replayed)} again" if len(one.replayed) else "It heard everything again"
        sentence = (
            f"{why}, and changed its mind from '{_spoken(labels[old])}' to '{_spoken(labels[new])}' "
            f"({plain_percent(chances[0])} before, {plain_percent(chances[1])} after pass {one.number})."
        )
        return one.number, sentence + _together(leads[-1], final, labels, group)
    name, lead = _spoken(labels[target]), leads[0]
    steps = [float(b.probabilities[target] - a.probabilities[target]) for a, b in itertools.pairwise(passes)]
    largest = int(np.argmax(np.abs(steps))) if steps else 0
    kept = f"It did not change its mind: '{_spoken(labels[lead])}' led after every pass."
    if not steps or abs(steps[largest]) < MIND:
        return 0, f"{kept} Listening again hardly changed '{name}'." + _together(lead, final, labels, group)
    one, before_it = passes[largest + 1], passes[largest]
    what = spans_in_words(one.replayed) or "everything"
    raised = "raised" if steps[largest] > 0 else "lowered"
    sentence = (
        f"{kept} Hearing {what} again {raised} '{name}' from {plain_percent(before_it.probabilities[target])} "
        f"to {plain_percent(one.probabilities[target])}."
    )
    return 0, sentence + _together(lead, final, labels, group)


def _together(last: int, final: np.ndarray, labels: list[str], group: np.ndarray) -> str:
    """A sentence where the answer from all passes together is not that after the last one."""
    answer = int(group[np.argmax(final[group])])
    if answer == last:
        return ""
    return f" All passes together, though, say '{_spoken(labels[answer])}' ({plain_percent(float(final[answer]))})."
