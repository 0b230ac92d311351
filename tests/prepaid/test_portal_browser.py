"""The portal on a phone, in a real Chromium: pages fit, axe is content, a payment of the fake provider arrives, statements are saved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from tests.patience import PATIENCE
from tests.prepaid.hub import Hub, running, served
from tests.prepaid.pictures import PATHS, SIZES, filled, sign_in

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@dataclass
class Phone:
    """A signed-in customer's phone."""

    page: Page
    url: str
    hub: Hub
    said: list[str]


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    folder = tmp_path_factory.mktemp("portal")
    portal = {"enabled": True, "payments": {"kind": "demo"}, "title": "Stadtwerk Demo", "help": "Help: 0800 123 456"}
    change: dict[str, Any] = {
        "portal": portal,
        "messages": {"folder": "letters", "kinds": []},
        "thresholds": [{"id": "soon", "amount": "5"}],
    }
    with running(folder, **change) as hub, served(hub) as url, sync_playwright() as play:
        filled(hub)
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport=SIZES["phone"], has_touch=True, is_mobile=True, accept_downloads=True)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE * 1000)
        page, said = context.new_page(), list[str]()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}/portal")
        assert flaws(page) == []
        sign_in(page, url, folder)
        yield Phone(page, url, hub, said)
        browser.close()


def flaws(page: Page) -> list[str]:
    """What axe objects to, and pages wider than the phone."""
    found = [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in Axe().run(page, options=WCAG).response["violations"]]
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return found + ([f"{wide} pixels too wide"] if wide > 0 else [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PATHS)
def test_a_page_fits_the_phone_and_everybody_can_use_it(phone: Phone, name: str, scheme: str) -> None:
    phone.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    phone.page.goto(f"{phone.url}{PATHS[name]}")
    assert flaws(phone.page) == []
    assert phone.said == []


def test_days_and_hours_tell_what_they_cost(phone: Phone) -> None:
    phone.page.goto(f"{phone.url}/portal/usage")
    text = phone.page.inner_text("main")
    assert "kWh" in text
    assert "EUR" in text or "€" in text
    phone.page.goto(f"{phone.url}/portal/usage?grain=hour")
    hours = phone.page.inner_text("main")
    assert "The cost of an hour is its share of the day's cost." in hours
    assert [hour for hour in ("00", "06", "12", "18") if f"\n{hour}\n" in hours] == ["00", "06", "12", "18"]


def test_a_recharge_goes_through_the_provider_and_arrives(phone: Phone) -> None:
    before = phone.hub.balance("1002003")
    phone.page.goto(f"{phone.url}/portal/recharge")
    phone.page.get_by_label("Amount in EUR").fill("15")
    phone.page.get_by_role("button", name="Go on to payment").tap()
    phone.page.get_by_role("button", name="Pay", exact=True).wait_for()
    assert flaws(phone.page) == []
    phone.page.get_by_role("button", name="Pay", exact=True).tap()
    phone.page.get_by_text("15.00 EUR were credited").wait_for()
    assert "15.00 EUR were credited" in phone.page.inner_text("main")
    assert float(phone.hub.balance("1002003")) == pytest.approx(float(before) + 15)


@pytest.mark.parametrize(("format", "begins"), [("pdf", b"%PDF-"), ("csv", b"")])
def test_a_statement_is_saved(phone: Phone, format: str, begins: bytes) -> None:
    phone.page.goto(f"{phone.url}/portal/history")
    phone.page.locator("#from").fill("2026-03-01")
    phone.page.locator("#to").fill("2026-03-26")
    link = phone.page.locator(f"button[value='{format}']")
    with phone.page.expect_download() as waited:
        link.tap()
    data = waited.value.path().read_bytes()
    assert waited.value.suggested_filename.endswith(f".{format}")
    assert data.startswith(begins)
    assert len(data) > 1000
