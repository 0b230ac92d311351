"""Every page and action of the console in a real Chromium against a whole running hub where people have to sign in.

The tests go on from one another: an administrator makes the people, these work To-Dos off.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from connectors.console.part import MENU
from connectors.rights.chain import verify
from schemas.topology import parse_topology
from tests.console.hub import Running, master, reads, running
from tests.patience import PATIENCE

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"), pytest.mark.timeout(1800)]
METERS = 14
SECRET = "correct horse battery"


class People:
    """Browsers of people who have signed in, and what went wrong in them."""

    def __init__(self, hub: Running, browser: Browser) -> None:
        self.hub, self.browser, self.wrong = hub, browser, list[str]()
        self.contexts: dict[str, BrowserContext] = {}

    def fresh(self) -> BrowserContext:
        """A browser that nobody has signed in with."""
        context = self.browser.new_context(base_url=self.hub.url, viewport={"width": 1366, "height": 900}, accept_downloads=True)
        context.set_default_timeout(PATIENCE * 1000)
        context.on("weberror", lambda error: self.wrong.append(str(error.error)))
        return context

    def of(self, name: str) -> BrowserContext:
        """The browser of a person, signed in once."""
        if name not in self.contexts:
            context = self.contexts[name] = self.fresh()
            page = context.new_page()
            page.goto("/console/login")
            page.fill("[name=user]", name)
            page.fill("[name=password]", SECRET)
            page.click("[data-login] button")
            page.wait_for_url("**/console/")
            page.close()
        return self.contexts[name]

    @contextmanager
    def page(self, name: str, path: str) -> Iterator[Page]:
        """A page of a person; afterwards no script may have failed on it."""
        page = self.of(name).new_page()
        page.goto(path)
        yield page
        page.close()
        assert not self.wrong

    def api(self, name: str) -> httpx.Client:
        """The interface as a person reaches it, to look at what became of clicks."""
        cookies = {one["name"]: one["value"] for one in self.of(name).cookies()}
        return httpx.Client(base_url=self.hub.url, cookies=cookies, headers={"X-CSRF-Token": cookies["mdh_csrf"]}, timeout=120)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDH_RIGHTS_MODE", "enforced")
        with running(tmp_path_factory.mktemp("hub"), todo={"bulk_alone": 3}) as made:
            yield made


@pytest.fixture(scope="module")
def people(hub: Running) -> Iterator[People]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        made = People(hub, browser)
        context = made.contexts["root"] = made.fresh()
        link = hub.data_dir / "run" / "first-admin"
        hub.until(lambda: link.is_file() and link.read_text())
        page = context.new_page()
        page.goto(link.read_text())
        page.fill("#user", "root")
        page.fill("#password", SECRET)
        page.click("button")
        page.wait_for_url("**/console/")
        page.close()
        yield made
        browser.close()


def todos(people: People, **filters: Any) -> list[dict[str, Any]]:
    """To-Dos as the interface tells of them."""
    with people.api("root") as api:
        answer = api.get("/v1/todos", params={"limit": 100, **filters})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])


def pick(page: Page, device: str) -> str:
    """Opens the To-Do of a device in the queue; its id."""
    row = page.locator("[data-todo]", has_text=device)
    id_ = str(row.get_attribute("data-todo"))
    row.locator("a").click()
    expect(page.locator(f"[data-card='{id_}']")).to_be_visible()
    return id_


def news(page: Page, text: str) -> None:
    """Waits until the page says so."""
    expect(page.locator("#news")).to_contain_text(re.compile(text))


def reloads(page: Page, button: Locator) -> None:
    """Clicks what has the page loaded anew once it is done."""
    with page.expect_navigation():
        button.click()


def state(people: People, id: str, wanted: str) -> dict[str, Any]:
    """A To-Do once it is in a state."""

    def look() -> dict[str, Any] | None:
        with people.api("root") as api:
            told: dict[str, Any] = api.get(f"/v1/todos/{id}").json()
        return told if told["todo"]["state"] == wanted else None

    found: dict[str, Any] = people.hub.until(look)
    return found


def test_the_administrator_makes_people_changes_and_disables_them(people: People) -> None:
    with people.page("root", "/console/users") as page:
        for name, role in (("ann", "clerk"), ("sue", "supervisor"), ("bob", "supervisor"), ("zoe", "clerk")):
            form = page.locator("form[data-order='/v1/users']")
            form.locator("[name=name]").fill(name)
            form.locator("[name=password]").fill(SECRET)
            form.locator("[name='grants.0.role']").select_option(role)
            if name == "zoe":
                form.locator("[name='grants.0.region']").fill("south")
            reloads(page, form.get_by_role("button"))
            expect(page.locator(f"[data-user={name}]")).to_contain_text(role)
        bob = page.locator("[data-user=bob]")
        bob.locator("summary").click()
        bob.locator("[name='grant.role']").select_option("analyst")
        reloads(page, bob.locator("form[data-order$='/grants'] button"))
        expect(bob).to_contain_text("analyst")
        reloads(page, bob.get_by_role("button", name="Take away: analyst"))
        expect(bob.locator("td").nth(3)).not_to_contain_text("analyst")
        page.on("dialog", lambda dialog: dialog.accept())
        reloads(page, bob.get_by_role("button", name="Disable"))
        expect(bob).to_contain_text("disabled")
        assert httpx.post(f"{people.hub.url}/v1/session", json={"user": "bob", "password": SECRET}, timeout=120).status_code == 401
        reloads(page, bob.get_by_role("button", name="Enable"))
        expect(bob.get_by_role("button", name="Disable")).to_be_visible()
        for password in (f"{SECRET} two", SECRET):
            bob.locator("summary").click()
            bob.locator("[name=password]").fill(password)
            reloads(page, bob.get_by_role("button", name="Set password"))
            news(page, "Saved")
    assert people.of("bob")


def test_reads_become_todos(people: People) -> None:
    with people.api("root") as api:
        assert api.post("/v1/master", content=master(METERS)).status_code < 300
        sent = api.post("/v1/reads", content=reads(METERS), headers={"content-type": "text/csv", "x-source": "hes-1"})
        assert sent.status_code == 202, sent.text
        assert api.post("/v1/reads", content=b"\x00\x01 nothing anybody knows", headers={"x-source": "hes-1"}).status_code == 202
    people.hub.until(lambda: len(todos(people, rule="interval-spike")) == METERS)


def test_a_clerk_takes_the_next_comments_gives_it_back_and_undoes(people: People) -> None:
    with people.page("ann", "/console/todos?rule=interval-spike") as page:
        assert page.locator("[data-bulk-open]").count() == 0, "bulk work is not a clerk's"
        page.click("[data-next]")
        news(page, "Taken")
        card = page.locator("[data-card]")
        expect(card).to_contain_text("being worked: ann")
        id_ = str(card.get_attribute("data-card"))
        for part in ("final", "band", "neighbours", "temperature"):
            if part != "band":  # four weeks of history are not there
                expect(page.locator(f"svg.curve .{part}").first).to_be_attached()
        expect(page.locator(".verdicts").first).to_contain_text("Interval spike")
        page.fill("[data-note]", "customer was called")
        page.click("[data-act=comment]")
        news(page, "Comment")
        expect(page.locator("section", has_text="History").last).to_contain_text("customer was called")
        page.click("[data-act=release]")
        news(page, "Give back")
        expect(page.locator("[data-card] .head")).to_contain_text("open")
        reloads(page, page.locator("[data-undo]"))
        news(page, "Undone: 1")
        expect(page.locator("[data-card] .head")).to_contain_text("being worked: ann")
        page.keyboard.press("?")
        expect(page.locator("dialog[data-keys]")).to_be_visible()
    told = state(people, id_, "working")
    assert [event["action"] for event in told["history"] if event["user"] == "ann"] == ["assigned", "commented", "released", "undone"]


def resolve(page: Page, action: str, **fields: str) -> None:
    """Previews a resolution and does it."""
    form = page.locator("[data-resolve]")
    form.locator("[name=action]").select_option(action)
    for name, value in fields.items():
        field = form.locator(f"[name={name}]")
        if name == "method":
            field.select_option(value)
        else:
            field.fill(value)
    form.locator("[name=preview]").click()
    expect(page.locator("[data-apply]")).to_be_enabled()


def test_estimate_with_preview(people: People) -> None:
    with people.page("ann", "/console/todos?rule=interval-spike") as page:
        id_ = pick(page, "M01")
        resolve(page, "estimate", method="interval-interpolation")
        seen = page.locator("[data-preview]")
        expect(seen.locator("table").first).to_contain_text("43")
        expect(seen).to_contain_text("Bill determinants of the day")
        assert {todo["id"] for todo in todos(people, rule="interval-spike")} >= {id_}, "a preview changes nothing"
        page.click("[data-apply]")
        news(page, "Done: 1")
    assert state(people, id_, "completed")["todo"]["outcome"] == "estimate"
    with people.api("root") as api:
        held = api.get("/v1/intervals", params={"device": "M01", "limit": 1000}).json()["items"]
    assert max(float(row["value"]) for row in held) < 2


def test_edit_begins_with_what_is_there(people: People) -> None:
    with people.page("sue", "/console/todos?rule=interval-spike") as page:
        id_ = pick(page, "M02")
        form = page.locator("[data-resolve]")
        form.locator("[name=action]").select_option("edit")
        expect(form.locator("[name=values]")).to_have_value("44")
        resolve(page, "edit", values="0.75", reason="read on site")
        expect(page.locator("[data-preview] table").first).to_contain_text("0.75")
        page.click("[data-apply]")
        news(page, "Done: 1")
    assert state(people, id_, "completed")["todo"]["reason"] == "read on site"


@pytest.mark.parametrize(("device", "action"), [("M03", "accept"), ("M04", "discard"), ("M05", "force")])
def test_other_resolutions(people: People, device: str, action: str) -> None:
    with people.page("sue", "/console/todos?rule=interval-spike") as page:
        id_ = pick(page, device)
        resolve(page, action, reason="seen")
        page.click("[data-apply]")
        news(page, "Done: 1")
    assert state(people, id_, "completed")["todo"]["outcome"] == action


def test_two_people_meet_and_one_is_told(people: People) -> None:
    with (
        people.page("sue", "/console/todos?rule=interval-spike") as mine,
        people.page("bob", "/console/todos?rule=interval-spike") as theirs,
    ):
        id_ = pick(mine, "M06")
        pick(theirs, "M06")
        mine.fill("[data-to]", "bob")
        mine.click("[data-act=assign-to]")
        news(mine, "Assign")
        theirs.click("[data-act=complete]")
        news(theirs, "Somebody changed")
        expect(theirs.locator("[data-card] .head")).to_contain_text("being worked: bob")
        mine.locator("[data-urgency]").select_option("10")
        expect(mine.locator("[data-card] .facts")).to_contain_text(re.compile("Priority\\s*10"))
        mine.locator("[data-role]").select_option("supervisor")
        expect(mine.locator("[data-card] .facts")).to_contain_text("supervisor")
    assert state(people, id_, "open")["todo"]["priority"] == 10


def test_bulk_with_preview_and_undo(people: People) -> None:
    with people.page("sue", "/console/todos?rule=interval-spike&state=open") as page:
        for device in ("M07", "M08"):
            page.locator("[data-todo]", has_text=device).locator("input").check()
        page.click("[data-bulk-open=some]")
        dialog = page.locator("[data-bulk-dialog]")
        dialog.locator("[name=action]").select_option("complete")
        dialog.locator("[name=reason]").fill("same feeder")
        dialog.locator("[name=preview]").click()
        expect(dialog).to_contain_text("2 To-Dos would be changed.")
        expect(dialog.locator("table")).to_contain_text("M07/E1")
        reloads(page, dialog.locator("[data-bulk-do]"))
        news(page, "Changed: 2")
        expect(page.locator("[data-todo]", has_text="M07")).to_have_count(0)
        reloads(page, page.locator("[data-undo]"))
        news(page, "Undone: 2")
    people.hub.until(lambda: {todo["device"] for todo in todos(people, state="open")} >= {"M07", "M08"})


def test_many_need_a_second_person(people: People) -> None:
    with people.page("sue", "/console/todos?rule=interval-spike&state=open") as page:
        assert page.locator("[data-todo]").count() > 3
        one = str(page.locator("[data-todo]").first.get_attribute("data-todo"))
        page.click("[data-bulk-open=all]")
        dialog = page.locator("[data-bulk-dialog]")
        dialog.locator("[name=action]").select_option("comment")
        dialog.locator("[name=text]").fill("storm of yesterday")
        dialog.locator("[name=preview]").click()
        expect(dialog).to_contain_text("A second person has to agree.")
        reloads(page, dialog.locator("[data-bulk-do]"))
        news(page, "waits for a second person")
        page.locator("[data-acts] button", has_text="Approve").click()
        news(page, "Somebody else than")
    with people.page("bob", "/console/todos") as page:
        line = page.locator("[data-waiting]")
        expect(line).to_contain_text("sue")
        reloads(page, line.get_by_role("button", name="Approve"))
        expect(page.locator("[data-waiting]")).to_have_count(0)
    with people.api("root") as api:
        told = api.get(f"/v1/todos/{one}").json()["history"]
    assert "storm of yesterday (approved by bob)" in [event["text"] for event in told]


def test_bulk_orders_of_exceptions(people: People) -> None:
    with people.page("sue", "/console/exceptions?rule=interval-spike&status=open&device=M1") as page:
        form = page.locator("form[data-order='/v1/commands/bulk']")
        form.locator("[name=reason]").fill("feeder test")
        form.get_by_role("button", name="Preview").click()
        expect(form.locator("[data-said]")).to_contain_text("exceptions of")
        reloads(page, form.locator("[data-do]"))
        news(page, "Ordered: [1-9]")
    people.hub.until(lambda: not [todo for todo in todos(people, rule="interval-spike") if todo["device"].startswith("M1")])


def test_a_clerk_of_an_area_sees_and_gets_only_what_is_in_it(people: People) -> None:
    inside = {todo["device"] for todo in todos(people, region="south")}
    outside = next(todo for todo in todos(people, rule="interval-spike") if todo["device"] not in inside)
    with people.page("zoe", "/console/todos") as page:
        shown = set(page.locator("[data-todo] a").all_text_contents())
        assert {text.split(" ")[0] for text in shown} <= inside
    with people.api("zoe") as api:
        assert api.get(f"/v1/todos/{outside['id']}").status_code == 404
        assert api.post(f"/v1/todos/{outside['id']}/complete", json={}).status_code == 404


def test_a_page_one_may_not_see_says_so_in_words(people: People) -> None:
    with people.page("ann", "/console/users") as page:
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("main")).to_contain_text("You may not see this. This needs the permission users.read")
        expect(page.locator("nav.menu")).to_contain_text("To-Dos")
        assert page.request.get("/console/users", headers={"accept": "text/html"}).status == 403
        assert page.request.get("/console/users", headers={"accept": "*/*"}).json()["permission"] == "users.read"
        assert page.request.get("/console/refused").status == 404


def test_dead_letters_are_sent_again(people: People) -> None:
    with people.page("root", "/console/operations") as page:
        reloads(page, page.locator("[data-api='/v1/dead-letters/replay']").first)
        news(page, "✓")
    with people.page("root", "/console/operations") as page:
        expect(page.locator("#o-store")).to_be_visible()


def test_a_dashboard_is_arranged_and_kept_with_the_person(people: People) -> None:
    def order(page: Page) -> list[str]:
        return [str(card.get_attribute("data-widget")) for card in page.locator("[data-widget]").all() if card.is_visible()]

    with people.page("sue", "/console/?days=7") as page:
        page.wait_for_selector("body[data-loaded]")
        expect(page.locator("#w-fleet")).to_contain_text("DCU-0")
        expect(page.locator("#w-fleet")).to_contain_text("north")
        expect(page.locator("#w-temperature")).to_contain_text("W1")
        before = order(page)
        page.click("[data-arrange]")
        page.locator(f"#w-{before[1]} [data-move='-1']").click()
        page.locator(f"#w-{before[2]} [data-hide]").click()
        page.locator(f"#w-{before[3]} [data-wide]").click()
        page.click("[data-arrange]")
        news(page, "Saved")
    people.contexts.pop("sue").close()  # another browser, the same person
    with people.page("sue", "/console/") as page:
        assert order(page)[:3] == [before[1], before[0], before[3]]
        expect(page.locator(f"#w-{before[3]}")).to_have_class(re.compile("wide-widget"))
        page.locator("#w-fleet summary", has_text="DCU").click()
        page.locator("#w-fleet a", has_text="DCU-0").click()
        expect(page.locator("main tbody")).to_contain_text("M00")
    with people.page("bob", "/console/") as page:
        assert order(page) == before


def test_reads_are_exported(people: People, tmp_path: Path) -> None:
    with people.page("ann", "/console/meters/M02") as page:
        for kind in ("csv", "parquet"):
            with page.expect_download() as waiting:
                page.locator(f"a[download][href*='reads.{kind}']").click()
            waiting.value.save_as(tmp_path / f"reads.{kind}")
        with (tmp_path / "reads.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == pq.read_table(tmp_path / "reads.parquet").num_rows > 24
        assert [row["method"] for row in rows if Decimal(row["value"]) == Decimal("0.75")] == ["manual"], "what was edited before"


def test_a_change_of_rules_is_proposed_compared_downloaded_and_withdrawn(people: People, tmp_path: Path) -> None:
    with people.page("sue", "/console/rules") as page:
        with page.expect_download() as waiting:
            page.locator("a[href='/console/rules/in-force.yaml']").click()
        waiting.value.save_as(tmp_path / "in-force.yaml")
        parse_topology((tmp_path / "in-force.yaml").read_text())
        page.click("[data-fill]")
        text = page.locator("#proposal")
        expect(text).not_to_have_value("")
        text.fill(text.input_value().replace("tolerance_percent: 2000", "tolerance_percent: 1500"))
        page.get_by_role("button", name="Check and compare").click()
        expect(page.locator("[data-checked]")).to_contain_text("tolerance_percent")
        expect(page.locator("[data-checked]")).to_contain_text("whatever the date")
        page.fill("[name=title]", "Spikes earlier")
        reloads(page, page.locator("[data-propose]"))
        expect(page.locator("table", has_text="Spikes earlier")).to_be_visible()
        page.get_by_role("link", name="Spikes earlier").click()
        expect(page.locator("pre .add").last).to_contain_text("1500")
        with page.expect_download() as waiting:
            page.locator("a[download][href*='/v1/proposals/']").click()
        waiting.value.save_as(tmp_path / "proposed.yaml")
        proposed = parse_topology((tmp_path / "proposed.yaml").read_text())
        assert proposed.vee != parse_topology((tmp_path / "in-force.yaml").read_text()).vee
        reloads(page, page.get_by_role("button", name="Withdraw"))
        expect(page.locator("table", has_text="Spikes earlier")).to_contain_text("withdrawn")
        page.fill("#proposal", "topics: 7")
        page.get_by_role("button", name="Check and compare").click()
        expect(page.locator("[data-checked]")).to_contain_text("cannot be used")


@pytest.mark.parametrize("name", MENU)
def test_every_page_opens_without_errors(people: People, name: str) -> None:
    with people.page("root", f"/console/{'' if name == 'dashboard' else name}") as page:
        page.wait_for_load_state("networkidle")
        assert page.locator("h1").count() == 1
        assert page.locator(".notice.bad").count() == 0


def test_a_person_signs_in_by_a_link_that_is_shown_once(people: People) -> None:
    with people.page("root", "/console/users") as page:
        form = page.locator("form[data-order='/v1/users']")
        form.locator("[name=name]").fill("tom")
        form.get_by_role("button").click()
        dialog = page.locator("[data-link-dialog]")
        expect(dialog).to_contain_text("tom")
        link = dialog.locator("input").input_value()
        reloads(page, dialog.get_by_role("button", name="Close"))
        expect(page.locator("[data-user=tom]")).to_contain_text("no password yet")
        assert link.partition("code=")[2] not in page.content(), "it is shown once"
    context = people.fresh()
    page = context.new_page()
    page.goto(link)
    page.fill("#password", SECRET)
    page.click("button")
    page.wait_for_url("**/console/")
    with people.page("root", "/console/users") as users:
        line = users.locator("[data-user=tom]")
        expect(line).not_to_contain_text("no password yet")
        line.locator("summary").click()
        users.once("dialog", lambda asked: asked.accept())
        line.locator("[data-link]").click()
        again = users.locator("[data-link-dialog] input")
        expect(again).not_to_have_value("")
        assert again.input_value() != link
    page.goto("/console/")
    expect(page).to_have_url(re.compile("/console/login"))  # the reset ended the session
    context.close()
    with people.api("root") as api:
        told = people.hub.until(lambda: api.get("/v1/audit", params={"subject": "user/tom", "action": "users.write"}).json()["items"])
    assert link.partition("code=")[2] not in str(told), "the audit knows of the link, and not the link"


def test_what_was_done_with_to_dos_is_in_the_audit(people: People) -> None:
    def found() -> list[dict[str, Any]]:
        with people.api("root") as api:
            items: list[dict[str, Any]] = api.get("/v1/audit", params={"action": "todo-complete", "limit": 1000}).json()["items"]
        return [row for row in items if row["reason"] == "same feeder"]

    told = people.hub.until(lambda: len(found()) == 2 and found())
    assert {(row["actor"], row["outcome"], row["device"]) for row in told} == {("sue", "applied", "M07"), ("sue", "applied", "M08")}
    assert all('"open"' in row["before"] and '"completed"' in row["after"] and row["bulk"] for row in told)
    with people.page("root", "/console/audit?action=todo-complete") as page:
        expect(page.locator("main")).to_contain_text("same feeder")
    with people.api("root") as api:
        lines = api.get("/v1/audit/export", params={"format": "ndjson"}).text.splitlines()
    rows = [row for row in map(orjson.loads, lines) if row["writer"].startswith("todo-")]
    chain = verify([{**row, **{name: datetime.fromisoformat(row[name]) for name in ("at", "start", "end")}} for row in rows])
    assert chain.entries >= 2
    assert chain.problems == []


def test_signing_out_ends_it(people: People) -> None:
    with people.page("ann", "/console/") as page:
        page.click("[data-sign-out]")
        page.wait_for_url("**/console/login")
        page.goto("/console/todos")
        expect(page).to_have_url(re.compile("/console/login"))
