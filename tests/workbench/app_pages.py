"""Pages of the workbench without a browser: open one, let it look again as the browser does, read it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
LONG = 400.0  # seconds after which a test that hangs gives up


def open_page(page: str = "inspect", state: dict[str, Any] | None = None, **address: str) -> AppTest:
    """A page after its first run.

    Parameters
    ----------
    page
        Name of its file in workbench/pages.
    state
        What the session remembers.
    address
        What its address says.
    """
    app = AppTest.from_file(str(ROOT / "workbench" / "app.py"), default_timeout=60)
    if page != "inspect":
        app.switch_page(f"pages/{page}.py")
    for key, value in (state or {}).items():
        app.session_state[key] = value
    for key, value in address.items():
        app.query_params[key] = value
    return app.run()


def until(app: AppTest, holds: Callable[[], bool]) -> AppTest:
    """Run again, as the browser's polling does, until something holds."""
    end = time.monotonic() + LONG
    while not holds():
        assert not app.exception, app.exception
        assert time.monotonic() < end, text(app)[-3000:]
        time.sleep(0.1)
        app.run()
    assert not app.exception, app.exception
    return app


def settle(app: AppTest, holds: Callable[[], bool] | None = None) -> AppTest:
    """Run again until something holds (the downloads are there, if nothing else is named), or an error is shown."""
    return until(app, lambda: bool(app.error) or (holds() if holds else len(app.get("download_button")) > 0))


def text(app: AppTest) -> str:
    """All that is said on the page, as it is given to the browser."""
    said = [element.proto.body for element in app.get("html")]
    return " ".join([*said, *(element.value for element in [*app.markdown, *app.caption, *app.error])])


def has(app: AppTest, key: str) -> bool:
    """Whether there is a button with this key."""
    return any(button.key == key for button in app.button)
