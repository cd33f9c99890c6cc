"""The page "Teach" as a class uses it: three tabs of one server teach at once, in real Chromium."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import ROOT, fits_its_width, serving, visiting

PATIENCE = 400_000  # ms; three trainings at once on a busy machine
BASE = ROOT / "assets" / "checkpoints" / "resnet-esc10"


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a data folder of its own; gives its address."""
    home = tmp_path_factory.mktemp("home")
    with serving(EARWITNESS_HOME=str(home), OMP_NUM_THREADS="1", EARWITNESS_JOBS="3") as address:
        yield address


def settled(page: Page) -> None:
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=PATIENCE)


def fingerprint() -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(BASE.iterdir())}


def fill_in(page: Page, address: str) -> None:
    page.goto(f"{address}/teach", timeout=PATIENCE)
    page.get_by_role("button", name="Fill in an example").click(timeout=PATIENCE)
    expect(page.get_by_text("16 examples: 8 doorbell, 8 kettle")).to_be_visible(timeout=PATIENCE)
    settled(page)


def name_it(page: Page, title: str) -> None:
    field = page.get_by_label("Name of the new model")
    field.fill(title)
    field.press("Enter")
    settled(page)


@pytest.mark.slow
def test_three_tabs_teach_at_once(chromium: Browser, classroom: str) -> None:
    before = fingerprint()
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    outside: list[str] = []
    context.on(
        "request", lambda r: None if r.url.startswith((classroom, "data:", "blob:", "ws:")) else outside.append(r.url)
    )
    pages = [context.new_page() for _ in range(3)]
    titles = ["First <b>bell</b>", "Second", "Third"]
    for page, title in zip(pages, titles, strict=True):
        fill_in(page, classroom)
        name_it(page, title)
    assert len({page.url for page in pages}) == 3
    for page in pages:
        start = page.get_by_role("button", name="Teach", exact=True)
        expect(start).to_be_enabled(timeout=PATIENCE)
        start.click()
        # What happens stays in sight beside the button, far down as that is.
        expect(page.get_by_role("button", name="Cancel")).to_be_in_viewport(timeout=PATIENCE)
    # A reload while it is taught keeps the view: it still runs, or is done by now; never an empty page.
    pages[0].reload()
    expect(pages[0].get_by_text(titles[0]).first).to_be_visible(timeout=PATIENCE)
    for page, title in zip(pages, titles, strict=True):
        expect(page.get_by_text("It now knows").first).to_be_visible(timeout=PATIENCE)
        # Each tab has its own result.
        expect(page.locator(".ew-verdict .ew-eyebrow").first).to_have_text(title)
        expect(page.locator(".ew-verdict").first).to_contain_text("held-out clips right")
    assert fingerprint() == before
    first = pages[0]
    expect(first.get_by_text("of what counts lies elsewhere").first).to_be_visible(timeout=PATIENCE)
    expect(first.locator(".earwitness-player")).to_have_count(3, timeout=PATIENCE)
    settled(first)
    first.get_by_role("button", name="Keep").click()
    expect(first.get_by_role("button", name="Rename")).to_be_visible(timeout=PATIENCE)
    with first.expect_download(timeout=PATIENCE) as download:
        first.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".zip")
    # All three are listed, and only for this browser.
    pages[1].goto(f"{classroom}/jobs")
    for title in titles:
        expect(pages[1].get_by_text(title, exact=True).first).to_be_visible(timeout=PATIENCE)
    stranger = chromium.new_context().new_page()
    stranger.set_default_timeout(PATIENCE)
    stranger.goto(f"{classroom}/jobs")
    expect(stranger.get_by_text("No jobs yet")).to_be_visible(timeout=PATIENCE)
    assert not outside, outside
    stranger.context.close()
    context.close()


@pytest.mark.slow
def test_the_page_fits_a_phone(chromium: Browser, classroom: str) -> None:
    with visiting(chromium, [classroom], viewport={"width": 390, "height": 844}) as page:
        fill_in(page, classroom)
        fits_its_width(page, 390)
