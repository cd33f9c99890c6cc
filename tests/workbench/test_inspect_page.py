"""The page "Inspect" without a browser."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

from tests.workbench import app_pages
from tests.workbench.app_pages import ROOT, settle, text, until

CLIPS = ROOT / "assets" / "clips"


def open_page(**address: str) -> AppTest:
    return settle(app_pages.open_page(**address))


def test_opens_with_an_example_explained() -> None:
    app = open_page()
    assert not app.exception and not app.error
    assert "dog" in text(app) and "It went by" in text(app)
    assert app.button(key="bar_0").label.startswith("dog")
    assert len(app.get("download_button")) == 6


def test_the_address_decides() -> None:
    app = open_page(clip="rain_steady", model="resnet-esc10", method="gradient", **{"class": "sea_waves"})
    assert not app.exception and not app.error
    assert app.selectbox(key="target").value == "sea_waves"
    assert app.selectbox(key="method").value == "gradient"
    assert app.query_params["clip"] == "rain_steady"


@pytest.mark.parametrize("key", ["clip", "model", "method", "class"])
def test_nonsense_in_the_address_falls_back(key: str) -> None:
    app = open_page(**{key: "<b>no</b> such thing"})
    assert not app.exception


def test_a_bar_asks_why_that_class() -> None:
    app = open_page()
    app.button(key="bar_1").click()
    settle(app.run())
    second = app.selectbox(key="target").value
    assert second != "dog" and not app.exception


def test_another_example_and_another_method() -> None:
    app = open_page()
    app.button(key="example_rooster_farmyard").click()
    app.selectbox(key="method").set_value("grad_cam")
    settle(app.run())
    assert not app.exception and not app.error
    assert "rooster" in app.button(key="bar_0").label


def test_the_address_that_changed_is_followed() -> None:
    """What "back" does in a browser."""
    app = open_page()
    app.button(key="example_rooster_farmyard").click()
    settle(app.run())
    assert app.query_params["clip"] == ["rooster_farmyard"] or app.query_params["clip"] == "rooster_farmyard"
    app.query_params["clip"] = "rain_steady"
    settle(app.run())
    assert "rain" in app.button(key="bar_0").label


def test_menus_show_labels_as_they_are() -> None:
    app = open_page()
    assert app.selectbox(key="target").options[0] == "The most likely"
    assert not any("\\" in option for option in app.selectbox(key="target").options)


def test_a_failed_analysis_comes_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that looks again must not start what failed over and over."""
    import workbench.analysis as core
    from models.errors import SettingsError

    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise SettingsError("This cannot be explained.", "Take another method.")

    monkeypatch.setattr(core, "analyze_with_sound", fail)
    app = open_page(clip="clock_hallway", method="input_x_gradient")
    for _ in range(5):
        app.run()
        time.sleep(0.05)
    assert app.error and not app.exception
    assert len(calls) == 1


def test_upload_becomes_the_clip() -> None:
    app = open_page()
    app.file_uploader[0].upload("my cry.flac", (CLIPS / "baby_nursery.flac").read_bytes(), "audio/flac")
    settle(app.run())
    settle(app.run())
    assert not app.exception and not app.error
    assert app.query_params["clip"].startswith("u-")
    assert "baby" in app.button(key="bar_0").label


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.wav", b""),
        ("letter.wav", b"Dear model, I am not a sound." * 20),
        ("cut.mp3", b"\xff\xfb\x90\x00" + bytes(40)),
    ],
)
def test_a_bad_upload_is_explained_and_loses_nothing(name: str, data: bytes) -> None:
    app = open_page()
    app.file_uploader[0].upload(name, data, "audio/wav")
    app.run()
    until(app, lambda: bool(app.error))
    assert app.query_params["clip"] == "dog_garden"
    assert "dog" in app.button(key="bar_0").label
