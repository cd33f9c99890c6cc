"""An event graph in words."""

from __future__ import annotations

import numpy as np

from saliency.graph import GraphExplanation
from saliency.graph_ablation import DeletionCurve
from workbench.labels import spoken
from workbench.verdict import clock, percent

RELATIONS = {"audio-audio": "from sound to sound", "video-video": "from picture to picture",
             "video-audio": "from picture to sound"}  # fmt: skip

NAMED = 6  # pieces and links that are left out and named one by one


def span_words(explanation: GraphExplanation, node: int) -> str:
    """When a node begins and ends, such as ``1.1–1.4 s``."""
    start, end = float(explanation.node_start[node]), float(explanation.node_end[node])
    if explanation.duration > 90:
        return f"{clock(start, explanation.duration)}–{clock(end, explanation.duration)} min"
    digits = 1 if end - start >= 0.2 else 2
    return f"{start:.{digits}f}–{end:.{digits}f} s"


def node_words(explanation: GraphExplanation, node: int) -> str:
    """A node within a sentence, such as ``the sound at 1.1–1.4 s``."""
    kind = "picture" if explanation.is_video[node] else "sound"
    return f"the {kind} at {span_words(explanation, node)}"


def edge_words(explanation: GraphExplanation, edge: int) -> str:
    """An edge as a title, such as ``Picture 1.0–1.5 s to sound 1.1–1.4 s``."""
    source, target = int(explanation.edge_source[edge]), int(explanation.edge_target[edge])
    kinds = ["picture" if explanation.is_video[node] else "sound" for node in (source, target)]
    return f"{kinds[0].capitalize()} {span_words(explanation, source)} to {kinds[1]} {span_words(explanation, target)}"


def strongest(explanation: GraphExplanation) -> int | None:
    """The edge that the sentence tells of: the one that supports most, else the strongest; None if none counts.

    Links within what the clip really has go first: the silence and the grey that follow a clip are linked too.
    """
    strength = explanation.strength
    if not strength.any():
        return None
    there = explanation.present[explanation.edge_source] & explanation.present[explanation.edge_target]
    supports = np.nan_to_num(explanation.edge_importance) > 0
    for candidates in (there & supports, there & (strength > 0), supports, strength > 0):
        if candidates.any():
            return int(np.where(candidates, strength, -1.0).argmax())
    return None


def linked(explanation: GraphExplanation) -> str:
    """Which two moments were linked most strongly, as one sentence."""
    edge = strongest(explanation)
    if edge is None:
        return "No link between two moments counts for this class."
    ends = int(explanation.edge_source[edge]), int(explanation.edge_target[edge])
    # The sound first: it is what was recognised.
    first, second = sorted(ends, key=lambda node: bool(explanation.is_video[node]))
    if explanation.edge_importance[edge] < 0:
        return (
            f"No link supports it; {node_words(explanation, first)} and {node_words(explanation, second)} "
            "oppose it most strongly."
        )
    return f"{node_words(explanation, first).capitalize()} and {node_words(explanation, second)} were linked most strongly."


def shares(explanation: GraphExplanation) -> dict[str, float]:
    """Share of each relation in the sizes of all importances; empty if none counts."""
    strength = explanation.strength
    total = float(strength.sum())
    if total <= 0:
        return {}
    source, target = explanation.is_video[explanation.edge_source], explanation.is_video[explanation.edge_target]
    masks = {"audio-audio": ~source & ~target, "video-video": source & target, "video-audio": source & ~target}
    return {name: float(strength[mask].sum()) / total for name, mask in masks.items() if mask.any()}


def shares_in_words(explanation: GraphExplanation) -> str:
    """Where the importance lies, as one sentence; empty for measures that know one relation only."""
    parts = {name: share for name, share in shares(explanation).items() if share > 0}
    if len(parts) < 2:
        return ""
    listed = [f"{percent(share)} is {RELATIONS[name]}" for name, share in sorted(parts.items(), key=lambda p: -p[1])]
    return f"Of all importance, {', '.join(listed[:-1])} and {listed[-1]}."


def window_in_words(explanation: GraphExplanation) -> str:
    """Which part of a longer clip was explained, as one sentence; empty if all of it was."""
    if len(explanation.windows) < 2:
        return ""
    start, end = explanation.windows[explanation.window]
    best = int(explanation.window_scores.argmax()) == explanation.window
    why = ", where the model is most sure of this class" if best else ""
    unit = "s" if explanation.duration <= 90 else "min"
    return (
        f"The graph shows {clock(float(start), explanation.duration)} to "
        f"{clock(min(float(end), explanation.duration), explanation.duration)} {unit} of the clip{why}."
    )


def missing_in_words(explanation: GraphExplanation, silent: bool = False) -> str:
    """What the clip does not have, and what the model took instead, as sentences; empty if nothing is missing."""
    sentences = []
    ends = explanation.video_duration > 0 and abs(explanation.video_duration - explanation.duration) < 0.1
    if ends and not silent and not explanation.present.all():
        return f"The clip ends at {explanation.duration:.1f} s: the model sees plain grey and hears silence after it."
    if explanation.video_duration <= 0:
        sentences.append("The clip has no moving picture: the model sees plain grey.")
    elif not explanation.present[explanation.is_video].all():
        sentences.append(f"The picture ends at {explanation.video_duration:.1f} s: the model sees plain grey after it.")
    if silent:
        sentences.append("The clip has no sound: the model hears silence.")
    elif not explanation.present[~explanation.is_video].all():
        sentences.append(f"The sound ends at {explanation.duration:.1f} s: the model hears silence after it.")
    return " ".join(sentences)


def out_in_words(explanation: GraphExplanation, nodes: tuple[int, ...], edges: tuple[int, ...]) -> str:
    """What is left out, as a sentence; empty if nothing is."""
    names = [node_words(explanation, node) for node in nodes]
    names += [f"the link from {edge_words(explanation, edge).lower()}" for edge in edges]
    if not names:
        return ""
    if len(names) > NAMED:
        return f"Left out: {len(nodes)} pieces and {len(edges)} links."
    return f"Left out: {', '.join(names)}."


def headline(explanation: GraphExplanation) -> str:
    """Class, score and the strongest link, as plain text."""
    return f"{spoken(explanation.target)} {percent(explanation.score)}: {linked(explanation)}"


def curve_in_words(curve: DeletionCurve) -> str:
    """What a deletion curve says, as sentences."""
    begin, end = float(curve.by_importance[0]), float(curve.by_importance[-1])
    ratio = curve.area_ratio
    lowest = min(float(curve.by_importance.min()), float(curve.random_low.min()))
    if ratio < 0.95:
        judged = (
            "deleting the most important links first takes the score away faster, so the measure finds links that count"
        )
    elif begin - lowest < 0.1:
        judged = "the score hardly falls in any order; here the model goes by the pieces themselves more than by links"
    elif ratio <= 1.05:
        judged = "deleting the most important links first is no faster than chance; do not take this measure for granted here"
    else:
        judged = "deleting the most important links first is slower than chance; do not trust this measure here"
    return (
        f"The area under the curve is {ratio:.2f} times that of random orders (mean of {curve.draws}): {judged}. "
        f"Without any link the model says {percent(end)} instead of {percent(begin)}."
    )
