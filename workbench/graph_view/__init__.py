"""The event graph in the browser: sounds and pictures on a time axis, and the links between them.

Inside the app it is a Streamlit component (:func:`graph_view`). The same code without a server is in
:func:`standalone_assets`, for reports that are opened from disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from workbench.graph_view.data import GraphViewData

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

__all__ = ["GraphViewData", "graph_view", "standalone_assets"]

_HTML = "<div class='earwitness-graph'></div>\n"


@functools.cache
def _asset(name: str) -> str:
    # Sources and bundles are the player's: both are built from one set of modules.
    return (resources.files("workbench.player") / "dist" / name).read_text(encoding="utf-8")


@functools.cache
def _component() -> ComponentRenderer:
    # At the first use and not at import: the command line and the report need no Streamlit.
    from streamlit.components import v2

    # A line break inside tells Streamlit that this is code and not the name of a file.
    script, style = (f"/* Earwitness event graph */\n{_asset(name)}" for name in ("graph.js", "graph.css"))
    return v2.component("earwitness_graph", js=script, css=style, html=_HTML)


def standalone_assets() -> tuple[str, str]:
    """Script and style sheet for a page without a server.

    Returns
    -------
    tuple of str
        JavaScript that defines ``EarwitnessGraph.create(root, data)`` (``data`` = :meth:`GraphViewData.as_json`), safe
        inside ``<script>``; and CSS, safe inside ``<style>``.
    """
    return _asset("graph-standalone.js"), _asset("graph.css")


def graph_view(
    data: GraphViewData,
    *,
    key: str,
    on_leave_out: Callable[[Any], None],
    on_put_back: Callable[[bool], None],
) -> None:
    """Shows an event graph at this place of the page.

    Parameters
    ----------
    data
        What to show.
    key
        Name of this graph in the session; the same in every run.
    on_leave_out
        Called before the run with what the visitor asked to leave out, as the browser sent it: check it with
        `workbench.graph_view.data.selection_of`.
    on_put_back
        Called before the run when something is to be put back: True for everything, False for what was left out last.
    """
    import streamlit as st

    def answer(name: str) -> Any:
        state = st.session_state.get(key)
        return None if state is None else state.get(name)

    def left_out() -> None:
        value = answer("leave_out")
        if value is not None:
            on_leave_out(value)

    def put_back() -> None:
        value = answer("put_back")
        if isinstance(value, dict):
            on_put_back(value.get("all") is True)

    _component()(key=key, data=data.as_json(), on_leave_out_change=left_out, on_put_back_change=put_back)
