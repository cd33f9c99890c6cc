"""The deletion curve as a figure."""

from __future__ import annotations

import plotly.graph_objects as go

from saliency.graph_ablation import DeletionCurve
from workbench.labels import spoken

ORANGE, GREY = "#d95f02", "#7a8594"


def deletion_figure(curve: DeletionCurve) -> go.Figure:
    """Score of the class over the share of deleted links; random orders as a mean with the band of their middle 80 %."""
    x = 100 * curve.fractions
    figure = go.Figure()
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=x, y=100 * curve.random_low, **hidden)
    figure.add_scatter(x=x, y=100 * curve.random_high, fill="tonexty", fillcolor="rgba(122,133,148,0.22)", **hidden)
    figure.add_scatter(
        x=x, y=100 * curve.random_mean, mode="lines", name="In random order", line={"color": GREY, "dash": "dash"}
    )
    figure.add_scatter(
        x=x, y=100 * curve.by_importance, mode="lines", name="Most important first", line={"color": ORANGE, "width": 3}
    )
    figure.update_layout(
        height=300, margin={"l": 0, "r": 8, "t": 8, "b": 0}, hovermode="x unified",
        legend={"orientation": "h", "y": -0.28, "x": 0}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    figure.update_xaxes(title="Links deleted (%)", range=[0, 100], fixedrange=True)
    figure.update_yaxes(title=f"Score of {spoken(curve.target)} (%)", range=[0, 101], fixedrange=True)
    return figure
