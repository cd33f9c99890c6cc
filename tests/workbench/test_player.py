"""The player's Python side: what it accepts, what it hands to the browser, and what it believes of the answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from streamlit.testing.v1 import AppTest

import workbench.player as package
from models.errors import SettingsError
from workbench.player import data as shapes
from workbench.player import standalone_assets
from workbench.player.data import PlayerData, checked

FOLDER = Path(package.__file__).parent


def smallest(**changes: Any) -> dict[str, Any]:
    return {
        "duration": 2.0,
        "tracks": [{"id": "original", "label": "Original", "url": "/a.wav"}, {"id": "kept", "label": "K", "url": "/b"}],
        "spectrogram": {"url": "/s.png", "start": 0, "end": 2, "dbMin": -80, "dbMax": 0},
        "frequencyAxis": {"scale": "mel", "ticks": [{"position": 0.5, "hz": 1000}]},
        **changes,
    }


def test_the_browser_gets_its_own_names_and_nothing_that_is_not_given() -> None:
    data = checked(smallest(overlay={"keptOutline": "/k.png"}, clip_id="abc"))
    result = data.as_json()
    assert result["spectrogram"] == {"url": "/s.png", "start": 0.0, "end": 2.0, "dbMin": -80.0, "dbMax": 0.0}
    assert result["overlay"] == {"keptOutline": "/k.png"}
    assert result["clipId"] == "abc"
    assert "curve" not in result
    assert checked(result) == data


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"duration": 0}, "duration"),
        ({"duration": float("nan")}, "duration"),
        ({"tracks": []}, "tracks"),
        ({"tracks": [{"id": "a", "label": "A"}]}, "tracks.0.url"),
        ({"frequencyAxis": {"scale": "bark", "ticks": []}}, "frequencyAxis.scale"),
        ({"frequencyAxis": {"scale": "mel", "ticks": [{"position": 1.2, "hz": 5}]}}, "frequencyAxis.ticks.0.position"),
        ({"curve": {"label": "p", "times": [0, 1], "values": [0.5]}}, "curve"),
        ({"curve": {"label": "p", "times": [0], "values": [1.5]}}, "curve.values.0"),
        ({"segments": [{"start": -1, "end": 1, "label": "x"}]}, "segments.0.start"),
        ({"colour": "red"}, "colour"),
        ({"height": 5}, "height"),
    ],
)
def test_data_that_cannot_be_shown_is_refused_by_name(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"{where}: ")):
        checked(smallest(**changes))


PAIRS: dict[str, type[BaseModel]] = {
    "Track": shapes.Track,
    "FrequencyTick": shapes.FrequencyTick,
    "FrequencyAxis": shapes.FrequencyAxis,
    "Segment": shapes.Segment,
    "PlayerData": shapes.PlayerData,
}


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_know_the_same_fields(name: str) -> None:
    source = (FOLDER / "src" / "types.ts").read_text(encoding="utf-8")
    block = re.search(rf"export interface {name} \{{(.*?)^\}}", source, re.DOTALL | re.MULTILINE)
    assert block
    there = set(re.findall(r"^  (\w+)\??:", block.group(1), re.MULTILINE))
    assert {field.alias for field in PAIRS[name].model_fields.values()} == there


def test_standalone_assets_fit_into_a_page() -> None:
    script, style = standalone_assets()
    assert "EarwitnessPlayer" in script
    assert "</script" not in script.lower()
    assert "</style" not in style.lower()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script + style), "something comes from outside"
    assert "@import" not in style
    assert "innerHTML" not in script


def test_the_package_needs_no_streamlit_to_be_imported() -> None:
    code = "import sys, workbench.player as p; p.standalone_assets(); sys.exit('streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parents[1], check=False).returncode == 0


def test_the_committed_bundle_belongs_to_the_sources(tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node or not (FOLDER / "node_modules").is_dir():
        pytest.skip("needs node and `npm ci` in workbench/player")
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=FOLDER, check=True, capture_output=True)
    built, committed = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (tmp_path, FOLDER / "dist")
    )
    assert sorted(built) == sorted(committed)
    assert [name for name in built if built[name] != committed[name]] == [], "run `make player`"


# --- in an app


def page() -> None:
    import streamlit as st

    from workbench.player import player

    def drawn(selection: object) -> None:
        st.session_state.drawn = "cleared" if selection is None else "box"

    state = player(st.session_state.data, key="p", on_selection=drawn)
    st.text(f"track={state.track} selection={state.selection} segment={state.segment}")


def shown(state: dict[str, Any] | None = None) -> str:
    app = AppTest.from_function(page, default_timeout=30)
    app.session_state["data"] = smallest()
    if state is not None:
        app.session_state["p"] = state
    app.run()
    assert not app.exception
    return str(app.text[0].value)


def test_in_an_app_it_starts_with_the_first_track() -> None:
    assert shown() == "track=original selection=None segment=None"


@pytest.mark.parametrize(("track", "expected"), [("kept", "kept"), ("<b>", "original"), (7, "original")])
def test_only_tracks_that_there_are_count(track: object, expected: str) -> None:
    assert shown({"track": track}).startswith(f"track={expected} ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"selection": {"start": 0.5, "end": 1, "f_low": 100, "f_high": 200}}, (0.5, 1.0, 100.0, 200.0)),
        ({"selection": None}, None),
        (None, None),
        ("text", None),
        ({"selection": {"start": "x"}}, None),
        ({"selection": {"start": float("nan"), "end": 1, "f_low": 1, "f_high": 2}}, None),
        ({"selection": {"start": -1, "end": 1, "f_low": 1, "f_high": 2}}, None),
        ({"selection": {"start": 2, "end": 1, "f_low": 1, "f_high": 2}}, None),
    ],
)
def test_answers_of_the_browser_are_checked(value: Any, expected: tuple[float, ...] | None) -> None:
    selection = package._selection(value)
    assert (selection and (selection.start, selection.end, selection.f_low, selection.f_high)) == expected


def test_the_model_itself_is_accepted() -> None:
    data = PlayerData.model_validate(smallest())
    assert checked(data) is data
