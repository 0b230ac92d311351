"""Pages as the server makes them: figures agree with the store, everything is escaped, errors are pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from lxml import html

from connectors.clickhouse.store import StoreError
from connectors.console.figures import WIDGETS
from connectors.console.lists import LISTS
from connectors.console.part import MENU
from connectors.console.words import catalogue
from schemas.rules import VALIDATIONS
from tests.console.conftest import Served
from tests.console.estate import put


def tree(text: str) -> Any:
    """A page taken apart."""
    return html.fromstring(text)


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, follow_redirects=True, timeout=30) as client:
        yield client


def test_a_browser_that_asks_for_nothing_in_particular_gets_the_console(web: httpx.Client) -> None:
    assert web.get("/", headers={"accept": "text/html"}).url.path == "/console/"
    assert web.get("/", headers={"accept": "*/*"}).json()["console"] == "/console/"


@pytest.mark.parametrize("name", [name for name in MENU if name != "dashboard"] + [""])
def test_every_entry_of_the_menu_is_a_page_under_a_strict_policy(web: httpx.Client, name: str) -> None:
    answer = web.get(f"/console/{name}")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = tree(answer.text)
    assert page.xpath("//h1")
    assert page.xpath("//nav//a[@aria-current='page']")
    assert not page.xpath("//@style | //@onclick | //script[not(@src) and not(@type)]")
    assert all(address.startswith("/console/") for address in page.xpath("//link/@href | //script/@src"))


@pytest.mark.parametrize("name", WIDGETS)
def test_every_widget_answers(web: httpx.Client, name: str) -> None:
    answer = web.get(f"/console/widgets/{name}?days=7")
    assert answer.status_code == 200
    assert "notice" not in answer.text


def test_figures_are_those_of_the_store(served: Served, web: httpx.Client) -> None:
    tiles = tree(web.get("/console/widgets/todos").text).xpath("//dd")
    assert [tile.text_content().split()[0] for tile in tiles] == ["5", "4", "5"]
    rows = served.store.query_rows(
        "SELECT countIf(condition >= 300000 AND condition < 450000) AS n, count() AS whole FROM intervals WHERE day >= today() - 7"
    )
    share = tree(web.get("/console/widgets/vee?days=7").text).xpath("//dd")[0].text_content()
    assert share == f"{100 * rows[0]['n'] / rows[0]['whole']:.1f} %"


def test_the_queue_filters_sorts_and_groups(web: httpx.Client) -> None:
    def shown(query: str) -> Any:
        return tree(web.get(f"/console/todos?{query}").text).xpath("//tr/@data-todo")

    assert shown("") == ["t0", "t4", "t1", "t3", "t2"]
    assert shown("sort=newest") == ["t0", "t1", "t2", "t3", "t4"]
    assert shown("rule=sum-check") == ["t3"]
    assert shown("user=maria&state=working") == ["t2"]
    assert shown("age=fresh") == ["t0"]
    groups = tree(web.get("/console/todos?group=role").text).xpath("//main//td[1]//text()")
    assert [text for text in groups if text.strip()] == ["clerk", "operations"]


def test_a_todo_shows_its_curve_and_what_each_rule_says(web: httpx.Client) -> None:
    card = tree(web.get("/console/todos/t0/card").text)
    assert card.xpath("//svg//*[@class='band']")
    assert card.xpath("//svg//*[@class='received']")
    assert card.xpath("//svg//*[@class='line-estimate']")
    assert card.xpath("//svg//*[@class='shade-outage']")
    assert card.xpath("//svg//*[@class='register']")
    assert card.xpath("//svg//*[@class='event']")
    assert card.xpath("//svg//*[@class='neighbours']")
    assert card.xpath("//svg//*[@class='register-line']")
    assert card.xpath("//svg//*[@class='temperature']")
    legend = card.xpath("//ul[@class='legend']")[0].text_content()
    assert "3 neighbours in G-7 (median)" in legend
    assert "temperature, from W1" in legend
    first = card.xpath("//ul[@class='verdicts']/li")[0].text_content()
    assert "objects" in first
    assert "interval-spike" in first
    assert "9.8 kWh" in first
    assert "CE" in card.xpath("//dl//time")[0].text_content()  # the service point's zone, not ours


def test_a_span_that_is_no_time_is_told(web: httpx.Client) -> None:
    answer = web.get("/console/todos/t0/card?from=yesterday", headers={"X-Piece": "1"})
    assert answer.status_code == 422
    assert "yesterday" in answer.text
    assert "<html" not in answer.text


def test_a_meter_is_found_by_device_service_point_and_account(web: httpx.Client) -> None:
    for text in ("M1002", "SP-2", "ACC-2"):
        assert web.get("/console/meters", params={"q": text}).url.path == "/console/meters/M1002", text
    assert len(tree(web.get("/console/meters?q=M100").text).xpath("//main//tbody/tr")) == 5  # M1004 was never heard of
    assert web.get("/console/meters/nobody").status_code == 404


def test_exports_hold_what_the_store_holds(served: Served, web: httpx.Client) -> None:
    stored = served.store.query_rows(
        "SELECT start, value FROM intervals WHERE device = 'M1001' AND start >= now() - INTERVAL 7 DAY ORDER BY start"
    )
    text = web.get("/console/meters/M1001/reads.csv?channel=A%2B").text.splitlines()
    table = pq.read_table(io.BytesIO(web.get("/console/meters/M1001/reads.parquet?channel=A%2B").content))
    assert len(text) - 1 == table.num_rows == len(stored)
    assert table.column("value").to_pylist() == [row["value"] for row in stored]


def test_every_rule_gives_its_verdict_in_words(web: httpx.Client) -> None:
    said = {
        line.xpath("./strong/text()")[0]: line.text_content()
        for line in tree(web.get("/console/todos/t0/card").text).xpath("//ul/li[strong]")
    }
    assert set(VALIDATIONS) <= set(said)
    assert "Zero consumption: nothing found" in said["zero-consumption"]


@pytest.mark.parametrize("name", LISTS)
def test_lists_filter(web: httpx.Client, name: str) -> None:
    listing = LISTS[name].listing
    for column in (*listing.equals, *listing.begins):
        page = tree(web.get(f"/console/{name}?{column}=no-such-thing").text)
        assert not page.xpath("//main//tbody/tr"), column


def test_what_the_store_holds_cannot_become_markup(served: Served, web: httpx.Client) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    put(served.store, "event_log", [{"id": "evil", "device": "M1003", "kind": evil, "at": 1_700_000_000, "detail": evil, "source": evil}])
    for path in ("/console/events", "/console/meters/M1003", "/console/widgets/events"):
        assert "<img src" not in web.get(path).text


def test_a_store_that_is_away_is_said_on_a_page(served: Served, web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> list[dict[str, object]]:
        raise StoreError("no route")

    monkeypatch.setattr(served.console.reader, "rows", away)
    answer = web.get("/console/todos")
    assert answer.status_code == 503
    assert catalogue()("error.store") in tree(answer.text).text_content()
