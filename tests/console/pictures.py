"""Pictures of the console's screens: ``python -m tests.console.pictures FOLDER``. Chromium is CHROMIUM, or the one on the path."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from tests.console.conftest import serve
from tests.console.estate import seed

SCREENS: Final = {
    "dashboard": "/console/?days=7", "todos": "/console/todos?open=t0", "meter": "/console/meters/M1000", "rules": "/console/rules",
    "users": "/console/users", "operations": "/console/operations",
}  # fmt: skip
DARK: Final = ("dashboard", "todos")


def main(folder: Path) -> None:
    """Draws every screen over the fleet of ``estate``."""
    with tempfile.TemporaryDirectory() as place:
        store = open_store(f"chdb://{place}/store")
        migrate.up(store)
        seed(store, datetime.now(UTC))
        served, server, thread = serve(store)
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1366, "height": 850})
            for name, path in SCREENS.items():
                page.goto(served.url + path)
                page.wait_for_load_state("networkidle")
                page.screenshot(path=folder / f"console-{name}.png")
                if name in DARK:
                    page.emulate_media(color_scheme="dark")
                    page.wait_for_timeout(400)  # colours change softly
                    page.screenshot(path=folder / f"console-{name}-dark.png")
                    page.emulate_media(color_scheme="light")
            browser.close()
        server.should_exit = True
        thread.join(10)
        served.console.close()
        store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
