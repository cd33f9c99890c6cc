"""A report: one HTML file that shows and plays an analysis offline."""

from __future__ import annotations

import html
import json

from models.clip import Clip
from saliency.methods import METHODS
from saliency.reconstruction import SalientAudio
from workbench.analysis import Analysis
from workbench.figures import player_data
from workbench.graph_view.report import graph_section
from workbench.labels import spoken
from workbench.playback_report import playback_section
from workbench.report_page import Media, bars, embedded, report_page, table
from workbench.verdict import part_in_words, percent, trust, verdict, without_it


def report_html(clip: Clip, analysis: Analysis, sound: SalientAudio) -> str:
    """The report as HTML text; names and labels are escaped."""
    escape = html.escape
    media = Media()
    data = player_data(clip, analysis, sound, media.put)
    target_score = analysis.prediction.scores[analysis.prediction.labels.index(analysis.target)]
    method = METHODS[analysis.attribution.method] if analysis.attribution else None
    facts = [
        ("Clip", f"{analysis.clip.name}, {analysis.clip.duration:.2f} s, {analysis.clip.sample_rate} Hz"),
        ("Model", f"{analysis.model.title} ({analysis.model.name})"),
        ("Method", f"{method.title}: {method.summary}" if method else ""),
        ("Source of the method", method.citation if method else ""),
        ("Settings", json.dumps(analysis.settings.model_dump(mode="json"), ensure_ascii=False)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in analysis.versions.items())),
        ("Hash of the clip", analysis.clip.content_hash),
        ("Hash of the weights", analysis.model.content_hash),
    ]
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in trust(analysis))
    said = f"{verdict(analysis)} {without_it(analysis)}".strip()
    remarks = [text for text in (part_in_words(analysis), *analysis.clip.notes) if text]
    notes = "".join(f'<p class="muted">{escape(note)}</p>' for note in remarks)
    views = ""
    if analysis.listening is not None:
        views += playback_section(clip, analysis.listening, media)
    if analysis.graph is not None:
        views += graph_section(analysis.graph, clip, media)
    body = f"""<p class="muted">Earwitness report: {escape(analysis.clip.name)}</p>
<h1>{escape(spoken(analysis.target))}: {percent(target_score)}</h1>
<p>{escape(said)}</p>{notes}
{embedded("player", "player", data)}
{views}
<h2>What the model says</h2>{bars(analysis.prediction.ranking(), analysis.target)}
<h2>Can I trust this?</h2><div class="card">{sentences}</div>
<h2>How it was made</h2>{table(facts)}"""
    return report_page(f"{spoken(analysis.target)} in {analysis.clip.name}", body, media)
