"""How long a visitor of the page waits, in a real Chromium against a freshly started server.

``python tests/benchmarks/bench_page.py``
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from side_by_side import table

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
STARTS = 2
FIRST, OTHERS = "dog_garden", ("rooster_farmyard", "sneeze_room", "clock_hallway")
PATIENCE = 90_000  # ms

VERDICT = """before => {
    const box = document.querySelector(".ew-verdict"), why = box?.querySelector(".ew-why");
    return why && box.querySelector(".ew-eyebrow").textContent !== before;
}"""
REASON = """() => /It went by/.test(document.querySelector(".ew-verdict .ew-why")?.textContent ?? "")"""

Times = dict[str, list[float]]


@contextmanager
def server() -> Iterator[tuple[str, float]]:
    """The workbench as a person starts it; its address and the moment it was started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.perf_counter()
    command = [sys.executable, "-m", "workbench.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", started
    finally:
        process.terminate()
        process.wait(20)


def wait_for_health(address: str) -> None:
    """Until the server answers."""
    for _ in range(2000):
        try:
            urllib.request.urlopen(f"{address}/earwitness/health", timeout=1).read()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("The server does not answer.")


def settled(page: Page) -> None:
    """Until the downloads are there and the script rests: nothing is left to do."""
    page.wait_for_function(
        """() => document.querySelectorAll('[data-testid=stDownloadButton]').length === 6 &&
           document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'""",
        timeout=PATIENCE,
    )


def visit(page: Page, address: str, times: Times, kind: str, since: float | None = None) -> None:
    """Open the page; until the verdict is visible, and until its reason is."""
    since = time.perf_counter() if since is None else since
    page.goto(f"{address}/?clip={FIRST}", wait_until="commit")
    page.wait_for_function(VERDICT, arg="", timeout=PATIENCE)
    times.setdefault(f"{kind}: verdict", []).append(time.perf_counter() - since)
    page.wait_for_function(REASON, timeout=PATIENCE)
    times.setdefault(f"{kind}: reason", []).append(time.perf_counter() - since)
    settled(page)


def choose(page: Page, clip: str, times: Times, kind: str) -> None:
    """Click an example; until its verdict and its reason are visible."""
    if not page.locator(f".st-key-example_{clip} button").is_visible():
        page.get_by_text("Examples", exact=True).click()
    before = page.locator(".ew-verdict .ew-eyebrow").inner_text()
    button = page.locator(f".st-key-example_{clip} button")
    button.scroll_into_view_if_needed()
    since = time.perf_counter()
    button.click()
    page.wait_for_function(VERDICT, arg=before, timeout=PATIENCE)
    times.setdefault(f"{kind}: verdict", []).append(time.perf_counter() - since)
    page.wait_for_function(REASON, timeout=PATIENCE)
    times.setdefault(f"{kind}: reason", []).append(time.perf_counter() - since)
    settled(page)


def keep_more(page: Page, times: Times) -> None:
    """One step of "How much to keep"; until the browser has the sound that is kept now."""
    page.get_by_role("slider", name="How much to keep").focus()

    def is_sound(response: object) -> bool:
        return response.headers.get("content-type", "").startswith("audio/")  # type: ignore[attr-defined]

    since = time.perf_counter()
    with page.expect_response(is_sound, timeout=PATIENCE) as waiting:
        page.keyboard.press("ArrowRight")
    waiting.value.finished()
    times.setdefault("another amount to keep: its sound is in the browser", []).append(time.perf_counter() - since)
    settled(page)


def in_own_context(browser: Browser, use: Callable[[Page], None]) -> None:
    """A visitor with an empty cache and no cookie."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    use(context.new_page())
    context.close()


def one_start(browser: Browser, times: Times) -> None:
    """Everything that is measured from one start of the server on."""
    with server() as (address, started):
        wait_for_health(address)
        times.setdefault("start of the server: it answers", []).append(time.perf_counter() - started)
        in_own_context(
            browser, lambda page: visit(page, address, times, "start of the server, then first visit", started)
        )

        def second(page: Page) -> None:
            visit(page, address, times, "second visitor")
            for clip in OTHERS:
                choose(page, clip, times, "a clip that is new to the server")
            for clip in (FIRST, *OTHERS[:-1]):
                choose(page, clip, times, "a clip that was analysed before")
            for _ in range(4):
                keep_more(page, times)
            for _ in range(2):
                visit(page, address, times, "the same visitor again")

        in_own_context(browser, second)


def main() -> None:
    """Print the shortest and the longest time of every step."""
    if not CHROMIUM:
        raise SystemExit("Needs Chromium: apt-get install chromium, or set CHROMIUM to its path.")
    times: Times = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        for _ in range(STARTS):
            one_start(browser, times)
        browser.close()
    rows = [[name, f"{min(found):.2f} s", f"{max(found):.2f} s", str(len(found))] for name, found in times.items()]
    print(table(["from ... : until ...", "shortest", "longest", "measured"], rows))


if __name__ == "__main__":
    main()
