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
from connectors.console.words import catalogue, changes
from schemas.rules import VALIDATIONS
from tests.console.conftest import Served
from tests.console.estate import put


def tree(text: str) -> Any:
    """A page taken apart."""
    return html.fromstring(text)


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, follow_redirects=True, timeout=120) as client:
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
    assert share == f"{100 * rows[0]['n'] / rows[0]['whole']:.1f} % Estimated"


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


def test_a_spike_does_not_flatten_the_curve_unless_the_whole_range_is_asked_for(web: httpx.Client) -> None:
    def look(query: str) -> tuple[Any, str]:
        page = tree(web.get(f"/console/todos/t0/card{query}").text)
        return page, " ".join(page.xpath("//p[@class='notice']")[0].text_content().split())

    page, said = look("")
    assert "Values beyond it: 1, the furthest 9.8 kWh" in said
    assert "9.8 kWh" in page.xpath("//*[@class='beyond']/title/text()")[0]
    assert "9.8 kWh" in page.xpath("//svg[@role='img']/@aria-label")[0], "who hears the picture is told too"
    assert "10" not in page.xpath("//svg//text[@class='tick']/text()")
    other = page.xpath("//a[@data-span='scale']/@href")[0]
    assert "scale=whole" in other
    whole, said = look(other)
    assert not whole.xpath("//*[@class='beyond']")
    assert "The whole range is shown" in said
    assert "10" in whole.xpath("//svg//text[@class='tick']/text()")
    assert "scale" not in whole.xpath("//a[@data-span='scale']/@href")[0]
    assert all("scale=whole" in href for href in whole.xpath("//nav/a[@data-span]/@href")), "zooming keeps the scale"
    assert not tree(web.get("/console/todos/t1/card").text).xpath("//a[@data-span='scale']"), "ordinary values need no other scale"


@pytest.mark.parametrize("name", ["reads", "vee"])
def test_bars_lead_where_the_rows_of_their_table_lead(web: httpx.Client, name: str) -> None:
    for days in (2, 7):
        widget = tree(web.get(f"/console/widgets/{name}?days={days}").text)
        bars, rows = widget.xpath("//svg//a/@href"), widget.xpath("//details//td[1]/a/@href")
        assert bars
        assert bars == rows
        assert len(widget.xpath("//svg//a[not(@tabindex)]")) == 1, "one stop of the Tab key per chart"
        assert all(widget.xpath("//svg//a/@aria-label"))
        assert web.get(bars[-1]).status_code == 200


def test_the_tiles_complete_and_estimated_lead_to_what_is_behind_them(served: Served, web: httpx.Client) -> None:
    complete = tree(web.get("/console/widgets/reads?days=7").text).xpath("//div[dt='Complete']//a/@href")[0]
    listed = tree(web.get(complete).text)
    assert listed.xpath("//input[@name='rule']/@value") == ["missing-quantity"]
    href = tree(web.get("/console/widgets/vee?days=7").text).xpath("//div[dt='Estimated']//a/@href")[0]
    found = tree(web.get(href).text).xpath("//main//tbody/tr")
    assert [row.xpath("./td[1]")[0].text_content() for row in found] == ["M1000"]
    rows = served.store.query_rows(
        "SELECT countIf(condition >= 300000 AND condition < 450000) AS n FROM intervals WHERE device = 'M1000' AND day >= today() - 8"
    )
    assert found[0].xpath("./td")[3].text_content() == str(rows[0]["n"])
    assert web.get(found[0].xpath(".//a/@href")[0]).status_code == 200
    assert web.get("/console/meters?estimated=1&from=yesterday").status_code == 422


def test_local_times_become_utc_or_are_refused_in_words(web: httpx.Client) -> None:
    def ask(*at: str, zone: str = "Europe/Madrid") -> httpx.Response:
        return web.get("/v1/local-times", params={"at": list(at), "zone": zone})

    answer = ask("2026-10-25 02:30 CEST", "2026-10-25 02:30 CET", "2026-07-01T12:00", "2026-07-01T12:00Z", "2026-03-29").json()["times"]
    assert [one["utc"] for one in answer] == [
        "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-07-01T10:00:00Z", "2026-07-01T12:00:00Z", "2026-03-28T23:00:00Z",
    ]  # fmt: skip
    assert answer[1]["local"] == "2026-10-25 02:30 CET"
    for text, words in (
        ("2026-10-25 02:30", "comes twice in Europe/Madrid when clocks are put back: write 02:30 CEST (00:30Z) or 02:30 CET (01:30Z)"),
        ("2026-03-29 02:30", "does not exist in Europe/Madrid"),
        ("2026-07-01 12:00 CET", "is 12:00 CEST (10:00Z), not CET"),
        ("noon", "noon is no time such as"),
    ):
        refused = ask(text)
        assert refused.status_code == 422
        assert words in refused.json()["detail"]
    assert ask("2026-07-01", zone="Mars/Olympus").status_code == 422


def test_orders_ask_for_local_times_of_the_service_point(web: httpx.Client) -> None:
    form = tree(web.get("/console/todos/t0/card").text).xpath("//form[@data-resolve]")[0]
    assert form.get("data-zone") == "Europe/Madrid"
    assert [label.text for label in form.xpath(".//label[input[@data-local]]")] == ["From (Europe/Madrid)", "To (Europe/Madrid)"]
    figure = tree(web.get("/console/todos/t0/card").text).xpath("//figure")[0]
    assert figure.get("data-from").split()[1:] in (["00:00", "CET"], ["00:00", "CEST"])
    bulk = tree(web.get("/console/exceptions?from=2026-07-01T12:00:00Z").text).xpath("//form[@data-order]")[0]
    assert bulk.get("data-zone") == "UTC"
    assert bulk.xpath(".//input[@name='select.from']/@value") == ["2026-07-01 12:00 UTC"]


def test_exports_hold_what_the_store_holds(served: Served, web: httpx.Client) -> None:
    stored = served.store.query_rows("SELECT start, value FROM intervals WHERE device = 'M1001' ORDER BY start")[-300:]
    span = f"channel=A%2B&from={stored[0]['start']:%Y-%m-%dT%H:%M:%SZ}"
    text = web.get(f"/console/meters/M1001/reads.csv?{span}").text.splitlines()
    table = pq.read_table(io.BytesIO(web.get(f"/console/meters/M1001/reads.parquet?{span}").content))
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


def test_what_an_act_changed_is_told_in_words() -> None:
    told = changes('{"priority": 8, "bill_at": 1743458400, "user": "", "changes": [{}, {}]}', "Europe/Madrid")
    assert told == "Priority: 8; Bill: 2025-04-01 00:00 CEST; Taken by: –; changes: 2"


def test_a_store_that_is_away_is_said_on_a_page(served: Served, web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> list[dict[str, object]]:
        raise StoreError("no route")

    monkeypatch.setattr(served.console.reader, "rows", away)
    answer = web.get("/console/todos")
    assert answer.status_code == 503
    assert catalogue()("error.store") in tree(answer.text).text_content()
