"""Small pieces every page uses: look, escaping, errors."""

from __future__ import annotations

import functools
import html
import importlib.metadata
import re
from pathlib import Path
from urllib.parse import quote

import streamlit as st

from models.errors import EarwitnessError
from workbench import __version__

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


_NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(%|s|ms|min|Hz|kHz|dB)(?![\w]))")


def sentence(text: str) -> str:
    """A sentence for HTML in which a number and its unit stay on one line."""
    return escaped(_NUMBER_AND_UNIT.sub("\u00a0", text.strip()))


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


def skip_links() -> None:
    """Ways past the steps: for the keyboard, and on a phone down to them, which come after the result there."""
    st.html(
        '<a class="ew-skip" href="#ew-result">Skip to the result</a>'
        '<nav class="ew-phone"><b>Earwitness</b><a href="#ew-steps">Choose a sound</a></nav>'
    )


def way_back() -> None:
    """On a phone, where the steps come last: up to the result."""
    st.html('<div class="ew-phone-result"><a href="#ew-result">See the result</a></div>')


def place(name: str) -> None:
    """Something that a link on the page leads to."""
    st.html(f'<div id="ew-{name}" class="ew-place" tabindex="-1"></div>')


def about() -> None:
    """What the page is about, in a minute; the way to the documentation."""
    with st.expander("What is this?"):
        st.markdown(
            "A model names the sound. **What it heard** is the part of the clip that it went by, **What is left** is the "
            "rest; together they are the clip.\n\n"
            "On the picture (time from left to right, low to high from bottom to top) orange **supports** the class and blue "
            "**opposes** it. The thin line encloses what is kept.\n\n"
            "An explanation can be wrong: *Can I trust this?* plays the parts to the model itself and tells what it says then."
        )
        st.caption(f"Earwitness {__version__}. Everything is computed on this server; nothing is sent elsewhere.")
        for name, address in _links().items():
            st.link_button(plain(name), address, width="stretch")


@functools.cache
def _links() -> dict[str, str]:
    """The project's addresses, as its package tells them."""
    try:
        lines = importlib.metadata.metadata("earwitness").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
        return {}
    pairs = [line.partition(",")[::2] for line in lines]
    return {name.strip(): address.strip() for name, address in pairs}


def step(number: int, title: str) -> None:
    """Heading of one of the page's steps."""
    st.html(f'<div class="ew-step" role="heading" aria-level="2"><b>{number}</b>{escaped(title)}</div>')
