"""What came of teaching, in sentences made from its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.labels import spoken
from workbench.verdict import hertz

if TYPE_CHECKING:
    from saliency.difference import Movement

Values = dict[str, Any]
NEAR = 0.05  # below this share, an explanation counts as unmoved


def listed(labels: Sequence[str], most: int = 4) -> str:
    """Class names in quotes: ``“a”, “b” and “c”``."""
    names = [f"“{spoken(label)}”" for label in labels[:most]]
    if len(labels) > most:
        names = [*names, f"{len(labels) - most} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def duration(seconds: float | None) -> str:
    """A length of time as one says it."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def points(share: float) -> str:
    """A difference of two shares in points."""
    text = f"{abs(100 * share):.1f}".removesuffix(".0")
    return f"{text} point{'' if text == '1' else 's'}"


def right(scores: Values) -> int:
    """How many clips were right."""
    return round(scores["accuracy"] * scores["clips"])


def outcome(result: Values, multi_label: bool = False) -> str:
    """The verdict on a taught model."""
    new, after, before = result["new_labels"], result.get("after"), result.get("before")
    learnt = listed(new) if new else listed(list((after or {}).get("per_class", {})) or result["labels"])
    said = f"It now knows {learnt}" if new else f"It was trained further on {learnt}"
    if after is None:
        if result.get("left_out"):
            return f"{said}. {left_out(result)}"
        return f"{said}. No example was held out, so nobody knows how well: hold some out, or test it with other clips."
    if multi_label:
        said += f": mean average precision {after['accuracy']:.2f} on {after['clips']} held-out clips"
        said += f", before {before['accuracy']:.2f}." if before else "."
    else:
        clips = "clip" if after["clips"] == 1 else "clips"
        said += f": {right(after)} of {after['clips']} held-out {clips} right"
        said += f", before {right(before)}." if before else "."
    if after["clips"] < 10:
        said += " So few clips say little: each is worth "
        said += f"{100 / max(1, after['clips']):.0f} points."
    return said


def left_out(result: Values) -> str:
    """What was recognised of the learned examples while each of them was left out."""
    found = result.get("left_out")
    if not found:
        return ""
    counts = f"{found['recognised']} of {found['examples']}"
    return f"Each example that it learned from was left out once: {counts} were recognised then."


def forgetting(result: Values) -> str:
    """What became of the old classes."""
    before, after = result.get("old_before"), result.get("old_after")
    if before is None or after is None:
        return result.get("old_how") or "What became of the old classes was not measured."
    change = after["accuracy"] - before["accuracy"]
    if abs(change) < 0.0005:
        return "The old classes lost nothing."
    return f"The old classes {'lost' if change < 0 else 'gained'} {points(change)}."


def worst_class(result: Values) -> str:
    """The class that most is wrong with, if any is."""
    after = result.get("after")
    if not after or not after["per_class"]:
        return ""
    label, share = min(after["per_class"].items(), key=lambda item: item[1])
    if share >= 0.8:
        return ""
    said = f"“{spoken(label)}” is the hardest: {100 * share:.0f} % of its held-out clips are recognised."
    return f"{said} More examples of it help most."


def untested(result: Values) -> str:
    """New classes that no held-out clip says anything about."""
    after = result.get("after")
    if not after:
        return ""
    missing = [label for label in result["new_labels"] if label not in after["per_class"]]
    if not missing:
        return ""
    return (
        f"How well it knows {listed(missing)} was not tested: no example of it was held out. Bring more different ones."
    )


def box(part: tuple[float, float, float, float]) -> str:
    """A box of time and frequency in words."""
    start, end, low, high = part
    when = f"around {start:.1f} s" if end - start < 0.15 else f"{start:.1f}–{end:.1f} s"
    where = f"around {hertz(low)}" if high - low < 50 else f"{hertz(low)} to {hertz(high)}"
    return f"{when}, {where}"


def moved_in_words(movement: Movement, before: str, after: str) -> str:
    """How far the explanation moved, and from where to where; `before` and `after` are the classes explained."""
    of = "" if before == after else f" Before, the model took it for “{spoken(before)}”; now for “{spoken(after)}”."
    if movement.moved < NEAR:
        return f"It goes by the same as before: {100 * movement.moved:.0f} % of what counts lies elsewhere.{of}"
    said = f"{100 * movement.moved:.0f} % of what counts lies elsewhere now.{of}"
    if movement.gained is not None:
        said += f" More than before: {box(movement.gained)}."
    if movement.lost is not None:
        said += f" Less than before: {box(movement.lost)}."
    return said
