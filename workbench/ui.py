"""Small pieces every page uses: look, escaping, errors."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import quote

import streamlit as st

from models.errors import EarwitnessError

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~:$<>&])")

_STATIC = Path(__file__).parent / "static"
_MARK = "data:image/svg+xml," + quote((_STATIC / "favicon.svg").read_text(encoding="utf-8").strip())

STYLE = f"<style>{(_STATIC / 'style.css').read_text(encoding='utf-8')}</style>"


def plain(text: str) -> str:
    """Text that Streamlit's Markdown shows letter by letter: uploaded names and labels are hostile until escaped."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def escaped(text: str) -> str:
    """Text for HTML."""
    return html.escape(text)


def show_error(error: EarwitnessError) -> None:
    """What happened and what to do, in the place where it happened."""
    st.error(
        f"{plain(error.message)}\n\n{plain(error.advice)}" if error.advice else plain(error.message),
        icon=":material/error:",
    )


def brand() -> None:
    """Name and mark of the workbench."""
    st.html(
        f'<style>.ew-mark {{ background: url("{_MARK}") }}</style><div class="ew-brand"><i class="ew-mark"></i>Earwitness</div>'
    )


def step(number: int, title: str) -> None:
    """Heading of one of the page's steps."""
    st.html(f'<div class="ew-step" role="heading" aria-level="2"><b>{number}</b>{escaped(title)}</div>')
