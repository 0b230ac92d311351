"""The console in a real Chromium: no script errors, nothing that axe objects to, keys that work."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from connectors.console.part import MENU
from tests.console.conftest import Served
from tests.patience import PATIENCE

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
SCREENS = ["", *MENU[1:], "todos?open=t0", "todos?group=rule", "meters?dcu=DCU-0", "meters/M1000", "login"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 850})
        page.set_default_timeout(PATIENCE * 1000)
        yield page
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", SCREENS)
def test_a_screen_has_no_script_errors_and_axe_is_content(served: Served, page: Page, path: str, scheme: str) -> None:
    errors: list[str] = []
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{served.url}/console/{path}")
    page.wait_for_load_state("networkidle")
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.evaluate("document.querySelectorAll('tr:nth-child(n+13)').forEach((row) => { row.remove(); })")  # rows of a table are alike
    page.wait_for_function("document.getAnimations().every((one) => one.playState !== 'running')")  # colours change softly

    assert not errors
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in Axe().run(page).response["violations"]] == []


def test_no_screen_is_wider_than_a_phone(served: Served, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    wide = {}
    for path in SCREENS:
        page.goto(f"{served.url}/console/{path}")
        page.wait_for_load_state("networkidle")
        wide[path] = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.set_viewport_size({"width": 1366, "height": 850})
    assert {path: more for path, more in wide.items() if more > 0} == {}


def test_tables_of_the_dashboard_fit_their_cards(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/console/")
    page.wait_for_load_state("networkidle")
    expect(page.locator(".widget .scroll").first).to_be_visible()
    cut = page.eval_on_selector_all(
        ".widget .scroll",
        "all => all.filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)",
    )
    assert cut == []


def test_the_scale_is_switched_with_the_keyboard_and_kept_while_zooming(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/console/todos?open=t0")
    switch = page.locator("[data-span=scale]")
    expect(switch).to_have_text("Show the whole range")
    switch.press("Enter")
    expect(switch).to_have_text("Show the ordinary range")
    expect(switch).to_be_focused()
    assert "scale=whole" in page.url
    page.locator("[data-span=in]").press("Enter")
    expect(page.locator("[data-span=in]")).to_be_focused()
    expect(page.locator("svg.curve .beyond")).to_have_count(0)
    assert "scale=whole" in page.url
    page.reload()
    expect(switch).to_have_text("Show the ordinary range")
    switch.press("Enter")
    expect(page.locator("svg.curve .beyond")).to_have_count(1)
    assert "scale" not in page.url


def test_arrow_keys_go_from_bar_to_bar(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/console/?days=7")
    bars = page.locator("#w-vee svg.bars a")
    bars.first.focus()
    page.keyboard.press("ArrowRight")
    expect(bars.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/exceptions?from=*")


def test_times_of_an_order_are_local_and_what_comes_twice_is_told(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/console/todos?open=t0")
    form = page.locator("[data-resolve]")
    form.locator("[name=action]").select_option("edit")
    expect(form.locator("[name=values]")).to_have_value("9.8")
    form.locator("[data-span-shown]").click()
    expect(form.locator("[name=start]")).to_have_value(re.compile(r"^\d{4}-\d\d-\d\d 00:00 CES?T$"))
    expect(form.locator("[name=values]")).to_have_value(re.compile(r"^([\d.]+, ){200}"))
    page.fill("[data-my-name]", "maria")
    form.locator("[name=start]").fill("2026-10-25 02:30")
    form.locator("[name=preview]").click()
    expect(form.locator("[data-preview]")).to_contain_text("comes twice in Europe/Madrid")


def test_keys_move_through_the_queue(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/console/todos")
    page.keyboard.press("j")
    page.wait_for_selector("[data-card='t0'] ~ section svg.curve")
    page.keyboard.press("j")
    page.wait_for_selector("[data-card='t4']")
    page.keyboard.press("x")

    expect(page.locator("[data-count]")).to_have_text("1")
