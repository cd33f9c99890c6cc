"""Pictures of a reservoir: stored against observed classes over time, and their distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.training.reservoir import Policy, SimulationResult
from workbench.labels import spoken
from workbench.reservoirs import compare_policies

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito's colours: told apart by colour-blind eyes, 3:1 on light and dark pages where lines are 2 px.
COLOURS = ("#c9662b", "#3f7fbf", "#0f9d76", "#b07aa1", "#8a8f00", "#d0457a", "#4d9fb5", "#7a6ff0")
DISTANCES: dict[Policy, tuple[str, str]] = {
    "matched": ("Follows the stream", COLOURS[1]),
    "published": ("As published", COLOURS[0]),
}
FRAMES, POINTS = 60, 400


def _layout(figure: go.Figure, height: int, title: str, y_title: str, x_title: str, y_top: float) -> None:
    figure.update_layout(
        height=height, margin={"l": 56, "r": 16, "t": 46, "b": 44}, title={"text": title, "font": {"size": 15}, "x": 0},
        xaxis={"title": x_title, "fixedrange": True}, showlegend=False, hovermode="closest",
        yaxis={"title": y_title, "range": [0, y_top], "fixedrange": True, "tickformat": ".0%"},
    )  # fmt: skip


def _steps(n: int) -> np.ndarray:
    """Which steps are drawn: all, or about `POINTS` of them."""
    return np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int))


def shares_chart(
    stored: np.ndarray, observed: np.ndarray, labels: Sequence[str], title: str, *, animated: bool = False
) -> go.Figure:
    """Share of every class over time: stored as lines, observed dashed. `animated` adds a button that plays it.

    Parameters
    ----------
    stored, observed
        ``[steps, n_classes]`` in 0..1.
    """
    import plotly.graph_objects as go

    at = _steps(len(stored))
    traces: list[Any] = []
    for index, label in enumerate(labels):
        colour = COLOURS[index % len(COLOURS)]
        for values, what, dash in ((stored, "stored", "solid"), (observed, "observed", "dash")):
            traces.append(
                go.Scatter(
                    x=at + 1, y=values[at, index], mode="lines", line={"color": colour, "width": 2, "dash": dash},
                    name=f"{spoken(label)}, {what}", opacity=1.0 if what == "stored" else 0.7,
                    hovertemplate=f"{spoken(label)[:40]}, {what}: %{{y:.1%}} after %{{x}}<extra></extra>".replace("<b", "&lt;b"),
                )
            )  # fmt: skip
    figure = go.Figure(traces)
    top = float(min(1.0, 1.15 * max(stored.max(initial=0.1), observed.max(initial=0.1))))
    _layout(figure, 300, title, "Share", "Clips heard", top)
    figure.update_xaxes(range=[1, max(2, len(stored))])
    if animated and len(at) > 2:
        ends = np.unique(np.linspace(2, len(at), FRAMES).round().astype(int))
        figure.frames = [
            go.Frame(data=[go.Scatter(x=trace.x[:end], y=trace.y[:end]) for trace in traces]) for end in ends
        ]
        play = {"frame": {"duration": 90, "redraw": False}, "transition": {"duration": 0}, "fromcurrent": False}
        figure.update_layout(
            updatemenus=[
                {
                    "type": "buttons", "direction": "left", "x": 1.0, "y": 1.2, "xanchor": "right", "showactive": False,
                    "pad": {"t": 0, "r": 0},
                    "buttons": [{"label": "Play the stream", "method": "animate", "args": [None, play]}],
                }
            ]
        )  # fmt: skip
    return figure


def distance_chart(results: Mapping[Any, SimulationResult]) -> go.Figure:
    """Total-variation distance of stored and observed classes over time, for every rule."""
    import plotly.graph_objects as go

    figure = go.Figure()
    top = 0.05
    for policy, result in results.items():
        title, colour = DISTANCES[policy]
        at = _steps(len(result.distance))
        top = max(top, float(result.distance.max()))
        figure.add_scatter(
            x=at, y=result.distance[at], mode="lines", line={"color": colour, "width": 2}, name=title,
            hovertemplate=f"{title}: %{{y:.1%}} after %{{x}}<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(
            x=at[-1], y=float(result.distance[at[-1]]), text=title, showarrow=False, xanchor="right", yanchor="bottom",
            font={"color": colour, "size": 13},
        )  # fmt: skip
    _layout(figure, 240, "How far stored and observed are apart", "Distance", "Clips heard", 1.1 * top)
    return figure


def simulation_shown(n_classes: int, capacity: int, steps: int, replace: float, seed: int) -> tuple[str, list[Any]]:
    """The same stream into a reservoir of each rule: a sentence and three charts."""
    found = compare_policies(n_classes, capacity, steps, replace, seed)
    matched, published = found["matched"].distance, found["published"].distance
    sentence = (
        f"After {steps} clips, what is stored is {100 * matched[-1]:.1f} % away from what was heard with the rule that follows "
        f"the stream, and {100 * published[-1]:.1f} % with the published rule. Both began {100 * matched[0]:.1f} % away."
    )
    names = [f"Class {i + 1}" for i in range(n_classes)]
    titles: dict[Policy, str] = {"matched": "The rule that follows the stream", "published": "The published rule"}
    charts = [
        shares_chart(found[rule].stored, found[rule].observed, names, f"{title}: stored (line), observed (dashed)", animated=True)
        for rule, title in titles.items()
    ]  # fmt: skip
    return sentence, [*charts, distance_chart(found)]
