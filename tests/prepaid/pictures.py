"""Looks at the portal in a real Chromium, at phone and laptop size, light and dark: ``python -m tests.prepaid.pictures FOLDER``.

Writes the pictures of docs/img and fails where a page is wider than its window or complains.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from connectors.clickhouse import rows
from tests.prepaid.hub import Hub, finals_of, running, served

SIZES = {"phone": {"width": 390, "height": 844}, "laptop": {"width": 1280, "height": 800}}
PAGES = ("home", "usage", "hours", "recharge", "history", "notices")
PATHS = {
    "home": "/portal", "usage": "/portal/usage", "hours": "/portal/usage?grain=hour", "recharge": "/portal/recharge",
    "history": "/portal/history", "notices": "/portal/notices",
}  # fmt: skip


def filled(hub: Hub) -> None:
    """An account with a month of consumption."""
    hub.enrol("1002003")
    hub.topup("95.00", account="1002003", external_ref="card-1")
    blocks = []
    with hub.engine as driver:
        for n in range(24):
            day = (date(2026, 3, 2) + timedelta(days=n)).isoformat()
            values = [(180 + 40 * (n % 5) + (420 if 17 <= hour <= 21 else 0) + 13 * hour) * 1000 for hour in range(24)]
            blocks.append(finals_of("1002003", day, values, device="d1"))
            driver.tick(f"{(date(2026, 3, 3) + timedelta(days=n)).isoformat()}T09:00")
            driver.use(day, str(sum(values) / 1_000_000), "1002003", provisional=n == 23)
    table = rows.final_days(blocks)
    assert table is not None
    hub.store.insert_arrow("final_days", table)


def sign_in(page: Page, url: str, folder: Path) -> None:
    """Through the form, with the code of the letter."""
    page.goto(f"{url}/portal")
    page.get_by_label(re.compile("Account number|Kontonummer")).fill("1002003")
    page.get_by_role("button", name=re.compile("code|Code")).click()
    letters: list[Path] = []
    while not letters:
        time.sleep(0.1)
        letters = list((folder / "outbox" / "letters").glob("*.txt"))
    code = re.findall(r"\b\d{6}\b", letters[-1].read_text())[0]
    for letter in letters:
        letter.unlink()
    page.get_by_label("Code").fill(code)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/portal")


def look(page: Page, name: str, out: Path) -> list[str]:
    """A picture; what is wrong with the page."""
    page.screenshot(path=str(out / f"{name}.png"), full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return [f"{name}: {wide} pixels too wide"] if wide > 0 else []


def main(out: Path) -> list[str]:
    """All pictures; all problems."""
    out.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    portal = {"enabled": True, "payments": {"kind": "demo"}, "title": "Stadtwerk Demo", "help": "Help: 0800 123 456"}
    change = {"portal": portal, "messages": {"folder": "letters", "kinds": []}, "thresholds": [{"id": "soon", "amount": "5"}]}
    folder = Path(tempfile.mkdtemp())
    with running(folder, **change) as hub, served(hub) as url, sync_playwright() as play:
        filled(hub)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for size, scheme in (("phone", "light"), ("phone", "dark"), ("laptop", "light")):
            context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.on("console", lambda said, found=problems: found.append(said.text) if said.type == "error" else None)
            page.goto(f"{url}/portal")
            problems += look(page, f"portal-{size}-{scheme}-signin", out)
            sign_in(page, url, folder)
            for name in PAGES:
                page.goto(f"{url}{PATHS[name]}")
                problems += look(page, f"portal-{size}-{scheme}-{name}", out)
            if size == "laptop":
                page.goto(f"{url}/portal/recharge")
                page.get_by_label("Amount in EUR").fill("15")
                page.get_by_role("button", name="Go on to payment").click()
                page.get_by_role("button", name="Pay").click()
                assert "15.00 EUR were credited" in page.content()
                problems += look(page, "portal-laptop-light-paid", out)
                page.keyboard.press("Tab")
                assert page.evaluate("document.activeElement.className") == "skip", "the first stop of the keyboard skips to the content"
            context.close()
        browser.close()
    shutil.rmtree(folder, ignore_errors=True)
    return problems


if __name__ == "__main__":
    found = main(Path(sys.argv[1]))
    print("\n".join(found) or "all pages fit")  # noqa: T201
    sys.exit(bool(found))
