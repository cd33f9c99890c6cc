"""Pictures of a training: its curves while it runs, and which class was taken for which."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.labels import spoken

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_POINTS = 300
MOST_CLASSES = 20
HEIGHT = 260  # px
# Orange and blue of the workbench, light enough for dark pages and dark enough for light ones (3:1 on both).
LOSS, ACCURACY = "#c9662b", "#3f7fbf"


def thinned(points: Sequence[dict[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """At most so many points; those with a validation figure and the last one always stay."""
    step = max(1, len(points) // most + (len(points) % most > 0))
    last = len(points) - 1
    return [p for i, p in enumerate(points) if i % step == 0 or i == last or p.get("accuracy") is not None]


def latest_run(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without what a resumed run repeats: for every step what was told last."""
    by_step: dict[int, dict[str, Any]] = {}
    for point in history:
        if not isinstance(point.get("step"), int):
            continue
        known = by_step.get(point["step"], {})
        by_step[point["step"]] = known | {k: v for k, v in point.items() if v is not None}
    return [by_step[step] for step in sorted(by_step)]


def training_curves(history: Sequence[dict[str, Any]], measure: str = "Held-out right") -> go.Figure:
    """Loss (left axis) and the held-out figure (right axis) over steps."""
    import plotly.graph_objects as go

    points = thinned(latest_run(history))
    loss = [(p["step"], p["loss"]) for p in points if p.get("loss") is not None]
    accuracy = [(p["step"], 100 * p["accuracy"]) for p in points if p.get("accuracy") is not None]
    steps = max([p.get("steps") or 1 for p in points] or [1])
    figure = go.Figure()
    figure.add_scatter(
        x=[s for s, _ in loss], y=[v for _, v in loss], name="Loss", mode="lines", line={"color": LOSS, "width": 2},
        hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[s for s, _ in accuracy], y=[v for _, v in accuracy], name=measure, yaxis="y2", mode="lines+markers",
        line={"color": ACCURACY, "width": 2, "dash": "dot"}, marker={"size": 5},
        hovertemplate="step %{x}: %{y:.0f} %<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=HEIGHT, margin={"l": 50, "r": 50, "t": 30, "b": 40}, uirevision="same", showlegend=True,
        legend={"orientation": "h", "y": 1.16, "x": 0}, hovermode="closest",
        xaxis={"title": "Step", "range": [0, max(steps, 1)], "fixedrange": True},
        yaxis={"title": "Loss", "rangemode": "tozero", "fixedrange": True},
        yaxis2={"title": "%", "range": [0, 104], "overlaying": "y", "side": "right", "showgrid": False, "fixedrange": True},
    )  # fmt: skip
    return figure


def confusion_table(scores: dict[str, Any], title: str) -> str:
    """A table as HTML, names escaped: true classes down, what the model said across; only classes that occur."""
    counts, labels = scores["confusion"], scores["labels"]
    rows = [i for i, row in enumerate(counts) if any(row)]
    columns = [j for j in range(len(labels)) if any(row[j] for row in counts)]
    shown = sorted({*rows, *columns}, key=lambda i: i)
    columns = [j for j in shown if j in columns or j in rows]
    if not rows:
        return ""
    if len(columns) > MOST_CLASSES:
        return f'<p class="ew-muted">{html.escape(title)}: {len(columns)} classes are too many for a table.</p>'
    head = "".join(f'<th scope="col"><span>{html.escape(spoken(labels[j]))}</span></th>' for j in columns)
    body = ""
    for i in rows:
        total = max(1, sum(counts[i]))
        cells = "".join(
            f'<td class="{"ew-right" if i == j else "ew-wrong"}" style="--share:{100 * counts[i][j] / total:.0f}%">'
            f"{counts[i][j] or ''}</td>"
            for j in columns
        )
        body += f'<tr><th scope="row">{html.escape(spoken(labels[i]))}</th>{cells}</tr>'
    return (
        f'<div class="ew-scroll"><table class="ew-confusion"><caption>{html.escape(title)}</caption>'
        f'<thead><tr><th scope="col" class="ew-corner">heard as</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def per_class_table(result: dict[str, Any]) -> str:
    """Share of every class's held-out clips that is right, before and after, as an HTML table."""
    before, after = result.get("before") or {}, result.get("after") or {}
    old_before, old_after = result.get("old_before") or {}, result.get("old_after") or {}
    was = {**old_before.get("per_class", {}), **before.get("per_class", {})}
    now = {**old_after.get("per_class", {}), **after.get("per_class", {})}
    rows = ""
    for label, share in now.items():
        new = label in result["new_labels"]
        old = "new" if new else (f"{100 * was[label]:.0f} %" if label in was else "-")
        rows += (
            f'<tr><th scope="row">{html.escape(spoken(label))}</th><td>{old}</td><td>'
            f'<span class="ew-share" style="--share:{100 * share:.0f}%"></span>{100 * share:.0f} %</td></tr>'
        )
    return (
        '<div class="ew-scroll ew-tall"><table class="ew-classes"><thead><tr><th scope="col">Class</th><th scope="col">Before</th>'
        f'<th scope="col">After</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
