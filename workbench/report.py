"""A report: one HTML file that shows and plays an analysis offline."""

from __future__ import annotations

import html
import json

from models.clip import Clip
from saliency.methods import METHODS
from saliency.reconstruction import SalientAudio
from workbench.analysis import Analysis
from workbench.figures import data_url, player_data
from workbench.labels import spoken
from workbench.player import standalone_assets
from workbench.verdict import part_in_words, percent, trust, verdict, without_it

# Nothing from outside is loaded, whatever a clip or label is called.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src data: blob:; connect-src data: blob:"
)
_STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --muted: #5a6675; --page: #fbfaf8; --card: #fff; --line: #dfe3e8;
  --accent: #b8480a; }
@media (prefers-color-scheme: dark) { :root { --text: #e8ebef; --muted: #9aa6b5; --page: #14181d; --card: #1b2027;
  --line: #323a45; --accent: #ff9d5c; } }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; } h2 { font-size: 1.05rem; margin: 28px 0 8px; }
p { margin: 4px 0 10px; } .muted { color: var(--muted); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 4px 12px; align-items: center;
  font-variant-numeric: tabular-nums; }
.bar { height: 10px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--muted); } .target .bar i { background: var(--accent); }
.row { display: contents; } .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; margin: 16px 0; }
.card.stage { background: var(--page); }
table { border-collapse: collapse; width: 100%; } td { padding: 3px 12px 3px 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { color: var(--muted); min-width: 7em; overflow-wrap: normal; }
h1, p { overflow-wrap: anywhere; } @media (max-width: 600px) { td { display: block; } .card { padding: 10px; } }
"""


def report_html(clip: Clip, analysis: Analysis, sound: SalientAudio) -> str:
    """The report as HTML text; names and labels are escaped."""
    escape = html.escape
    data = player_data(clip, analysis, sound, data_url)
    script, style = standalone_assets()
    # "</" or "<!--" in a label would end the script element.
    payload = json.dumps(data.as_json()).replace("<", "\\u003c")
    target_score = analysis.prediction.scores[analysis.prediction.labels.index(analysis.target)]
    bars = "".join(
        f'<div class="row{" target" if label == analysis.target else ""}"><span>{escape(spoken(label))}</span>'
        f'<span class="bar"><i style="width:{100 * score:.2f}%"></i></span><span>{percent(score)}</span></div>'
        for label, score in analysis.prediction.ranking()[:8]
    )
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
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in facts if v)
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in trust(analysis))
    said = f"{verdict(analysis)} {without_it(analysis)}".strip()
    remarks = [text for text in (part_in_words(analysis), *analysis.clip.notes) if text]
    notes = "".join(f'<p class="muted">{escape(note)}</p>' for note in remarks)
    views = ""
    if analysis.listening is not None:
        from workbench.playback_report import playback_section

        views += playback_section(clip, analysis.listening)
    if analysis.graph is not None:
        from workbench.graph_view.report import graph_section

        views += graph_section(analysis.graph, clip)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(spoken(analysis.target))} in {escape(analysis.clip.name)} - Earwitness</title>
<style>{_STYLE}</style><style>{style}</style></head>
<body><main>
<p class="muted">Earwitness report: {escape(analysis.clip.name)}</p>
<h1>{escape(spoken(analysis.target))}: {percent(target_score)}</h1>
<p>{escape(said)}</p>{notes}
<div class="card stage"><div id="player" class="earwitness-player"></div></div>
{views}
<h2>What the model says</h2><div class="card bars">{bars}</div>
<h2>Can I trust this?</h2><div class="card">{sentences}</div>
<h2>How it was made</h2><div class="card"><table>{rows}</table></div>
</main>
<script>{script}</script>
<script>EarwitnessPlayer.create(document.getElementById("player"), {payload});</script>
</body></html>
"""
