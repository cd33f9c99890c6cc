"""What a model did over time as part of a report: shown and played offline."""

from __future__ import annotations

import html

from models.clip import Clip
from saliency.listening import Listening
from saliency.playback import PlaybackExplanation
from workbench.labels import spoken
from workbench.playback_view import cautions, change_figure_html, clip_player, headline, in_words, through_player
from workbench.report_page import Media, embedded, report_page
from workbench.verdict import percent


def playback_section(clip: Clip, listening: Listening, media: Media) -> str:
    """HTML of the section; the page around it holds `media`, and the player's script and style (`standalone_assets`)."""
    escape = html.escape
    title = "Listening again" if listening.playback is not None else "Over time"
    parts = [f"<h2>{title}</h2>", f"<p>{escape(headline(listening))}</p>"]
    parts += [f'<p class="muted">{escape(said)}</p>' for said in _others(listening)]
    parts.append(embedded("player", "over-time-player", clip_player(clip, listening, media.put)))
    if listening.playback is not None:
        parts.append("<h3>Probability after each pass, and of all passes together</h3>")
        parts.append(f"<div class='card'>{change_figure_html(listening.playback)}</div>")
        through = through_player(clip, listening, media.put)
        assert through is not None
        parts.append(
            "<h3>Listen through: the clip, then what was replayed</h3>"
            + embedded("player", "through-player", through[0])
        )
        parts.append(_table(listening.playback))
    parts += [f'<p class="muted">{escape(note)}</p>' for note in cautions(listening)]
    return "\n".join(parts)


def _others(listening: Listening) -> list[str]:
    """What the courses say besides the headline."""
    said = [in_words(course) for course in listening.courses]
    return [one for one in said if one and one != headline(listening)]


def _table(playback: PlaybackExplanation) -> str:
    """Probabilities after every pass as numbers."""
    chosen = playback.shown_classes()
    # The report lays the cells of its own table one under the other on a phone; here a row stays a row.
    cell = '<td style="display:table-cell;min-width:0;white-space:nowrap">'
    head = "".join(
        f"<th style='text-align:left;padding-right:12px'>{html.escape(spoken(playback.labels[index]))}</th>"
        for index in chosen
    )
    rows = [(f"Pass {one.number}", one.probabilities) for one in playback.passes] + [
        ("All passes", playback.probabilities)
    ]
    body = "".join(
        f"<tr>{cell}{name}</td>" + "".join(f"{cell}{percent(float(values[index]))}</td>" for index in chosen) + "</tr>"
        for name, values in rows
    )
    return f'<div class="card" style="overflow-x:auto"><table><tr><th></th>{head}</tr>{body}</table></div>'


def listening_report(clip: Clip, listening: Listening, model: str) -> str:
    """A report of its own, for the command line: one HTML file that plays offline."""
    media = Media()
    body = f"""<p class="muted">Earwitness: {html.escape(clip.name)}, heard by {html.escape(model)}</p>
<h1>{html.escape(spoken(listening.target))}: {percent(listening.probability)}</h1>
{playback_section(clip, listening, media)}"""
    return report_page(f"{spoken(listening.target)} in {clip.name}", body, media)
