"""Does what a model selects mean anything? What its card says about that."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.card import Card, Metric

NOT_BETTER = "The selection is not better than chance."


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether what is selected means anything, as the model's card says it was measured.

    Attributes
    ----------
    measured, better
        Whether it was, and whether both differences to the rotated mask exceed 0 with their 95 % interval.
    drop, keep
        Probability of the truth that is lost without the selection, and that is left with the selection alone.
    rotated_drop, rotated_keep
        The same with the selection moved to other places.
    drop_interval, keep_interval
        95 % intervals of the differences to them.
    data
        On what it was measured.
    sentence
        All that for people.

    What the card does not tell is None.
    """

    measured: bool
    better: bool
    drop: float | None
    keep: float | None
    rotated_drop: float | None
    rotated_keep: float | None
    drop_interval: tuple[float, float] | None
    keep_interval: tuple[float, float] | None
    data: str
    sentence: str


_NUMBER = r"([-+−]?\d+(?:\.\d+)?)"
_INTERVAL = re.compile(rf"{_NUMBER}\s*(?:to|\.\.|–|,|;)\s*{_NUMBER}")


def reliability(card: Card, corrected: bool) -> Reliability:
    """What a card's metrics say about the selection.

    They are named ``playback drop`` and ``playback keep`` (of the probability of the truth, on clips that the encoder gets
    right), ``playback drop rotated`` and ``playback keep rotated`` (the same for the mask at other places) and
    ``playback drop low``, ``... high``, ``playback keep low``, ``... high`` (95 % bootstrap interval of the differences).
    An interval may instead stand in the text ``data`` of the first two.
    """
    metrics = {_words(metric.name): metric for metric in card.metrics}
    drop, keep = metrics.get("playback drop"), metrics.get("playback keep")
    if drop is None or keep is None:
        sentence = (
            "Whether the selection means anything has not been measured for this model."
            if corrected
            else f"{NOT_BETTER} Published training never reaches the part that selects."
        )
        return Reliability(False, False, None, None, None, None, None, None, "", sentence)
    intervals = [_interval(metrics, name, metric) for name, metric in (("drop", drop), ("keep", keep))]
    rotated = [
        next((metrics[key].value for key in (f"playback {name} rotated", f"playback rotated {name}") if key in metrics), None)
        for name in ("drop", "keep")
    ]  # fmt: skip
    better = all(pair is not None and pair[0] > 0 for pair in intervals)
    data = re.split(r"[;,(]", drop.data)[0].strip()
    on = f" on {data}" if data else ""
    points = ["" if pair is None else f"{100 * pair[0]:.0f} to {100 * pair[1]:.0f}" for pair in intervals]
    if better:
        sentence = (
            f"Measured{on}: without what it selects the right class loses {100 * drop.value:.0f} points, {points[0]} more than "
            f"without the same amount elsewhere; from the selection alone {100 * keep.value:.0f} points are left, {points[1]} "
            "more than from as much elsewhere (95 % intervals)."
        )
    elif None in intervals:
        sentence = f"{NOT_BETTER} (No interval is known for what was measured{on}.)"
    else:
        sentence = (
            f"{NOT_BETTER} Measured{on}, compared with as much sound elsewhere: leaving it out costs {points[0]} points more, "
            f"hearing it alone keeps {points[1]} points more (95 % intervals, which include 0)."
        )
    return Reliability(
        True, better, drop.value, keep.value, rotated[0], rotated[1], intervals[0], intervals[1], data, sentence
    )


def _words(name: str) -> str:
    return " ".join(re.split(r"[\s_\-:,]+", name.lower())).strip()


def _interval(metrics: dict[str, Metric], name: str, metric: Metric) -> tuple[float, float] | None:
    low, high = metrics.get(f"playback {name} low"), metrics.get(f"playback {name} high")
    if low is not None and high is not None:
        return low.value, high.value
    # The last pair of numbers: before it may stand folds and numbers of clips.
    pairs = _INTERVAL.findall(
        metric.data[metric.data.rfind("interval") :] if "interval" in metric.data else metric.data
    )
    if not pairs:
        return None
    first, last = (float(number.replace("−", "-")) for number in pairs[-1])
    return first, last
