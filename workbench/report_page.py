"""What all reports share: one HTML file that shows and plays without a server; names and labels are escaped here."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable
from typing import Literal

from workbench.figures import data_url
from workbench.graph_view.data import GraphViewData
from workbench.labels import spoken
from workbench.player import PlayerData, standalone_assets
from workbench.verdict import percent

# Nothing from outside is loaded, whatever a clip or label is called.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src data: blob:; connect-src data: blob:"
)
STYLE = """
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


class Media:
    """Sounds and pictures of a page; each is in it once, however many of its parts show it."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}

    def put(self, data: bytes, mime: str) -> str:
        """A name for the data, in whose place `embedded` puts its URL when the page is opened."""
        name = f"media:{mime}:{hashlib.sha256(data).hexdigest()}"
        self._urls.setdefault(name, data_url(data, mime))
        return name

    def script(self) -> str:
        """Defines ``withMedia(data)``, a copy of data with URLs for names."""
        return (
            f"const MEDIA = new Map(Object.entries({_in_script(self._urls)}));\n"
            "const withMedia = data => JSON.parse(JSON.stringify(data), (key, value) => MEDIA.get(value) ?? value);"
        )


def report_page(title: str, body: str, media: Media, *, player: bool = True) -> str:
    """The whole file; `body` is HTML, and may have a player `embedded` where there is a `player`."""
    script, style = standalone_assets() if player else ("", "")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{html.escape(title)} - Earwitness</title>
<style>{STYLE}</style><style>{style}</style></head>
<body><main>
{body}
</main>
<script>{media.script()}</script>
{f"<script>{script}</script>" if player else ""}
</body></html>
"""


def _in_script(data: object) -> str:
    """Data as JSON inside a script element, which "</" or "<!--" in a label would end."""
    return json.dumps(data).replace("<", "\\u003c")


def embedded(component: Literal["player", "graph"], name: str, data: PlayerData | GraphViewData) -> str:
    """A player or graph with an id of its own, whose URLs are names of `Media`; the page's scripts may come later."""
    return (
        f'<div class="card stage"><div id="{name}" class="earwitness-{component}"></div></div>\n'
        f'<script>addEventListener("DOMContentLoaded", () => Earwitness{component.title()}.create('
        f'document.getElementById("{name}"), withMedia({_in_script(data.as_json())})));</script>'
    )


def bars(ranking: Iterable[tuple[str, float]], target: str, most: int = 8) -> str:
    """The most likely classes as bars."""
    rows = "".join(
        f'<div class="row{" target" if label == target else ""}"><span>{html.escape(spoken(label))}</span>'
        f'<span class="bar"><i style="width:{100 * score:.2f}%"></i></span><span>{percent(float(score))}</span></div>'
        for label, score in list(ranking)[:most]
    )
    return f'<div class="card bars">{rows}</div>'


def table(facts: Iterable[tuple[str, str]]) -> str:
    """Facts with their names; those without a value are left out."""
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts if v)
    return f'<div class="card"><table>{rows}</table></div>'
