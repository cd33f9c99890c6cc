"""The event graph in a report: one HTML file that shows and plays it offline."""

from __future__ import annotations

import html

from models.card import Card
from models.clip import Clip
from saliency.graph import MEASURES, GraphExplanation
from saliency.graph_ablation import DeletionCurve
from workbench.graph_view import standalone_assets
from workbench.graph_view.data import graph_view_data
from workbench.graph_view.words import curve_in_words, linked, missing_in_words, shares_in_words, window_in_words
from workbench.labels import spoken
from workbench.report_page import Media, bars, embedded, report_page, table
from workbench.verdict import percent

PLOT = (640, 260)


def curve_svg(curve: DeletionCurve) -> str:
    """A deletion curve as an SVG drawing whose text follows the page's colours."""
    width, height = PLOT
    left, bottom, top = 54, 40, 12

    def x(share: float) -> float:
        return left + share * (width - left - 12)

    def y(score: float) -> float:
        return top + (1 - score) * (height - top - bottom)

    def line(values: object) -> str:
        pairs = zip(curve.fractions, values, strict=True)  # type: ignore[call-overload]
        return " ".join(f"{x(float(f)):.1f},{y(float(v)):.1f}" for f, v in pairs)

    band = line(curve.random_high) + " " + " ".join(reversed(line(curve.random_low).split()))
    ticks = "".join(
        f'<line x1="{left}" x2="{width - 12}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="currentColor" opacity="0.15"/>'
        f'<text x="{left - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{100 * v:.0f} %</text>'
        for v in (0.0, 0.5, 1.0)
    ) + "".join(
        f'<text x="{x(v):.1f}" y="{height - 22}" text-anchor="{anchor}">{100 * v:.0f} %</text>'
        for v, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Deletion curve" style="max-width:{width}px;width:100%;'
        f'font-size:12px;fill:currentColor">{ticks}<polygon points="{band}" fill="currentColor" opacity="0.12"/>'
        f'<polyline points="{line(curve.random_mean)}" fill="none" stroke="currentColor" stroke-dasharray="5 4"/>'
        f'<polyline points="{line(curve.by_importance)}" fill="none" stroke="#d95f02" stroke-width="2.5"/>'
        f'<text x="{x(0.5):.1f}" y="{height - 4}" text-anchor="middle">links deleted: most important first (orange), '
        f"in random order (dashed, band: middle 80 %)</text></svg>"
    )


def graph_section(explanation: GraphExplanation, clip: Clip, media: Media, curve: DeletionCurve | None = None) -> str:
    """The event graph as a part of a report: script, style, graph and sentences; names and labels are escaped.

    The page around it holds `media`, and needs the content security policy of `report_page`, which lets nothing be
    loaded from outside.
    """
    script, style = standalone_assets()
    data = graph_view_data(clip, explanation, media.put, editable=False)
    silent = not clip.waveform.any()
    remarks = (shares_in_words(explanation), window_in_words(explanation), missing_in_words(explanation, silent))
    notes = "".join(f'<p class="muted">{html.escape(text)}</p>' for text in remarks if text)
    check = "" if curve is None else (
        f'<h2>Do the important links count?</h2><div class="card"><p>{html.escape(curve_in_words(curve))}</p>'
        f"{curve_svg(curve)}</div>"
    )  # fmt: skip
    measure = MEASURES[explanation.measure]
    return (
        f"<style>{style}</style><h2>Event graph</h2><p>{html.escape(linked(explanation))}</p>{notes}"
        f"{embedded('graph', 'event-graph', data)}"
        f'<p class="muted">{html.escape(f"{measure.title}: {measure.summary}")}</p>{check}'
        f"<script>{script}</script>"
    )


def graph_report(clip: Clip, explanation: GraphExplanation, curve: DeletionCurve | None, card: Card) -> str:
    """A whole report about an event graph alone, as HTML text that plays offline."""
    media = Media()
    facts = [
        ("Clip", f"{clip.name}, {clip.duration:.2f} s, {clip.sample_rate} Hz"),
        ("Model", f"{card.title or card.name} ({card.name})"),
        ("Source of the model", card.citation), ("Hash of the clip", clip.content_hash), ("Hash of the weights", card.content_hash),
    ]  # fmt: skip
    ranking = sorted(zip(explanation.labels, explanation.scores.tolist(), strict=True), key=lambda pair: -pair[1])
    body = f"""<p class="muted">Earwitness report: {html.escape(clip.name)}</p>
<h1>{html.escape(spoken(explanation.target))}: {percent(explanation.score)}</h1>
{graph_section(explanation, clip, media, curve)}
<h2>What the model says</h2>{bars(ranking, explanation.target)}
<h2>How it was made</h2>{table(facts)}"""
    return report_page(f"{spoken(explanation.target)} in {clip.name}: event graph", body, media, player=False)
