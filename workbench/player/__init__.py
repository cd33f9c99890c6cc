"""The synchronised player: sound, spectrogram, explanation and segments on one clock.

Inside the app it is a Streamlit component (:func:`player`). The same code without a server is in
:func:`standalone_assets`, for reports that are opened from disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from workbench.player.data import (
    ClickedSegment,
    Curve,
    FrequencyAxis,
    FrequencyTick,
    Initial,
    Lane,
    Overlay,
    PlayerData,
    Segment,
    Selection,
    SpectrogramImage,
    Track,
    Video,
    Waveform,
    checked,
)

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

__all__ = [
    "ClickedSegment",
    "Curve",
    "FrequencyAxis",
    "FrequencyTick",
    "Initial",
    "Lane",
    "Overlay",
    "PlayerData",
    "PlayerState",
    "Segment",
    "Selection",
    "SpectrogramImage",
    "Track",
    "Video",
    "Waveform",
    "player",
    "standalone_assets",
]

_Model = TypeVar("_Model", bound=BaseModel)
_HTML = "<div class='earwitness-player'></div>\n"


@dataclass(frozen=True)
class PlayerState:
    """What the visitor did.

    ``track`` is the id of the chosen track and stays. ``selection`` and ``segment`` are set only in the one run that
    a drawn box or a clicked segment started.
    """

    track: str
    selection: Selection | None = None
    segment: ClickedSegment | None = None


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("workbench.player") / "dist" / name).read_text(encoding="utf-8")


@functools.cache
def _component() -> ComponentRenderer:
    # At the first use and not at import: the command line and the report need no Streamlit.
    from streamlit.components import v2

    # A line break inside tells Streamlit that this is code and not the name of a file.
    script, style = (f"/* Earwitness player */\n{_asset(name)}" for name in ("player.js", "player.css"))
    return v2.component("earwitness_player", js=script, css=style, html=_HTML)


def standalone_assets() -> tuple[str, str]:
    """Script and style sheet for a page without a server.

    Returns
    -------
    tuple of str
        JavaScript that defines ``EarwitnessPlayer.create(root, data)`` (``data`` = :meth:`PlayerData.as_json`), safe
        inside ``<script>``; and CSS, safe inside ``<style>``.
    """
    return _asset("standalone.js"), _asset("player.css")


def player(
    data: PlayerData | dict[str, Any],
    *,
    key: str,
    on_selection: Callable[[Selection | None], None] | None = None,
    on_segment: Callable[[ClickedSegment], None] | None = None,
    on_track: Callable[[str], None] | None = None,
    height: int | None = None,
) -> PlayerState:
    """Shows the player at this place of the page.

    Parameters
    ----------
    data
        What to show. When a later run gives other data for the same ``clip_id``, only what changed is loaded.
    key
        Name of this player in the session; the same in every run.
    on_selection
        Called before the run with a box drawn on the spectrogram, or with None when the box was cleared.
    on_segment, on_track
        Called before the run with the clicked segment, or the id of the chosen track.
    height
        Height of the spectrogram in CSS pixels (default 240).

    Raises
    ------
    SettingsError
        If the data cannot be shown.
    """
    import streamlit as st

    shown = checked(data)
    if height is not None:
        shown = checked({**shown.as_json(), "height": height})
    initial = shown.initial or Initial()
    start = initial.track or shown.tracks[0].id

    def answer(name: str) -> Any:
        state = st.session_state.get(key)
        return None if state is None else state.get(name)

    def track_of(value: Any) -> str:
        return value if any(track.id == value for track in shown.tracks) else start

    def selected() -> None:
        if on_selection:
            on_selection(_selection(answer("selection")))

    def clicked() -> None:
        segment = _read(ClickedSegment, answer("segment"))
        if on_segment and segment:
            on_segment(segment)

    def chosen() -> None:
        if on_track:
            on_track(track_of(answer("track")))

    # A visitor who comes back to the page finds the track that was chosen.
    track = track_of(answer("track"))
    result = _component()(
        key=key,
        data=shown.model_copy(update={"initial": initial.model_copy(update={"track": track})}).as_json(),
        default={"track": start},
        on_track_change=chosen,
        on_selection_change=selected,
        on_segment_change=clicked,
    )
    return PlayerState(
        track=track_of(result.get("track")),
        selection=_selection(result.get("selection")),
        segment=_read(ClickedSegment, result.get("segment")),
    )


def _selection(value: Any) -> Selection | None:
    # Wrapped, because a bare None would be the same as no event at all.
    return _read(Selection, value["selection"]) if isinstance(value, dict) and "selection" in value else None


def _read(model: type[_Model], value: Any) -> _Model | None:
    """An answer of the browser, or None where there is none or it is not what the player sends."""
    try:
        return None if value is None else model.model_validate(value)
    except ValidationError:
        return None
