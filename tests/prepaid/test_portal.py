"""The customers' portal: signing in, seeing one's own and nothing else, paying through a provider."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from connectors.clickhouse import rows
from connectors.prepaid.portal.charts import Bar, bars
from connectors.prepaid.portal.colours import GROUNDS, contrast, readable, style_of
from connectors.prepaid.portal.desk import PortalDesk, TooManyError
from connectors.prepaid.texts import Texts, _catalogue
from connectors.subscribers import signing
from schemas.topology.portal import LANGUAGES, NOTICES, Portal
from streams.prepaid.accounts import STATES
from tests.patience import eventually
from tests.prepaid.hub import Hub, finals_of, running

PORTAL = {"enabled": True, "payments": {"kind": "demo"}, "title": "Stadtwerk <Demo>", "help": "0800 1"}
SEEN: set[Path] = set()
FORM = re.compile(r'name="form" value="([0-9a-f]{64})"')


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One hub; each test has accounts of its own."""
    with running(tmp_path_factory.mktemp("hub"), portal=PORTAL, messages={"folder": "letters"}) as found:
        yield found


class Browser:
    """A customer's browser: its own cookies, forms sent as pages have them."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.cookies, self.text, self.headers = hub, dict[str, str](), "", dict[str, str]()

    def go(self, path: str, **params: str) -> int:
        return self._take(self.hub.client.get(path, params=params or None, headers=self._cookie()))

    def send(self, path: str, form: str | None = None, origin: str | None = None, **fields: str) -> int:
        given = {"form": form if form is not None else FORM.findall(self.text)[0], **fields}
        headers = self._cookie() | ({"origin": origin} if origin else {})
        return self._take(self.hub.client.post(path, data=given, headers=headers))

    def _cookie(self) -> dict[str, str]:
        self.hub.client.cookies.clear()
        return {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def _take(self, answer: object) -> int:
        for line in answer.headers.get_list("set-cookie"):  # type: ignore[attr-defined]
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        self.text, self.headers = answer.text, answer.headers  # type: ignore[attr-defined]
        return int(answer.status_code)  # type: ignore[attr-defined]

    def code(self, account: str) -> str:
        """The code of the letter that comes next."""

        def look() -> str | None:
            for letter in (self.hub.folder / "outbox" / "letters").glob(f"{account}-*.txt"):
                found = re.findall(r"\b(\d{6}) is your code", letter.read_text())
                if found and letter not in SEEN:
                    SEEN.add(letter)
                    return str(found[0])
            return None

        return str(eventually(look, pause=0.01))

    def sign_in(self, account: str) -> None:
        assert self.go("/portal/signin") == 200
        assert self.send("/portal/signin", account=account) == 200
        assert self.send("/portal/signin/code", account=account, code=self.code(account)) == 303
        assert self.go("/portal") == 200


def enrolled(hub: Hub, account: str, amount: str = "20.00") -> Browser:
    hub.enrol(account)
    hub.topup(amount, account=account)
    return Browser(hub)


def test_signing_in_shows_balance_and_signing_out_ends_it(hub: Hub) -> None:
    browser = enrolled(hub, "p1")
    assert browser.go("/portal") == 303
    assert browser.headers["location"] == "/portal/signin"
    browser.go("/portal/signin")
    before = browser.cookies["mdh_portal"]
    browser.sign_in("p1")
    assert browser.cookies["mdh_portal"] != before, "a cookie planted before is worth nothing"
    assert "20.00 EUR" in browser.text
    assert "Stadtwerk &lt;Demo&gt;" in browser.text
    assert "frame-ancestors 'none'" in browser.headers["content-security-policy"]
    held = dict(browser.cookies)
    assert browser.send("/portal/signout") == 303
    browser.cookies = held
    assert browser.go("/portal") == 303, "the session is over on the server"


def test_the_cookie_is_for_us_alone(hub: Hub) -> None:
    answer = hub.client.get("/portal/signin")
    parts = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/portal"} <= set(parts)


def test_a_code_is_good_once_and_void_after_wrong_tries(hub: Hub) -> None:
    browser = enrolled(hub, "p2")
    browser.go("/portal/signin")
    browser.send("/portal/signin", account="p2")
    code = browser.code("p2")
    wrong = "000000" if code != "000000" else "000001"
    assert browser.send("/portal/signin/code", account="p2", code=wrong) == 403
    assert browser.send("/portal/signin/code", account="p2", code=code) == 303
    browser.go("/portal/signin")
    assert browser.send("/portal/signin/code", account="p2", code=code) == 403, "it was good once"
    browser.send("/portal/signin", account="p2")
    code = browser.code("p2")
    for _ in range(5):
        browser.send("/portal/signin/code", account="p2", code="x")
    assert browser.send("/portal/signin/code", account="p2", code=code) == 429


def test_nobody_can_tell_whether_an_account_exists(hub: Hub) -> None:
    enrolled(hub, "p3")
    pages = []
    for account in ("p3", "p?"):
        browser = Browser(hub)
        browser.go("/portal/signin")
        status = browser.send("/portal/signin", account=account)
        pages.append((status, FORM.sub("", browser.text).replace(account, "")))
    assert pages[0] == pages[1]
    Browser(hub).code("p3")
    assert hub.part.portal is not None
    hub.part.portal._send("p?", "123456")
    assert not list((hub.folder / "outbox" / "letters").glob("p_-*"))


def test_forms_of_other_sites_and_of_other_sessions_do_nothing(hub: Hub) -> None:
    browser = enrolled(hub, "p4")
    assert browser.send("/portal/signin", form="0" * 64, account="p4") == 403, "no session yet"
    browser.sign_in("p4")
    mine = FORM.findall(browser.text)[0]
    other = Browser(hub)
    other.go("/portal/signin")
    theirs = FORM.findall(other.text)[0]
    for form in ("", "0" * 64, theirs):
        assert browser.send("/portal/recharge", form=form, amount="5") in (403, 422)
        assert browser.send("/portal/signout", form=form) in (403, 422)
    assert browser.send("/portal/recharge", form=mine, origin="https://evil.example", amount="5") == 403
    assert browser.go("/portal") == 200, "still signed in"


def test_what_belongs_to_somebody_else_is_not_there(hub: Hub) -> None:
    browser, other = enrolled(hub, "p5"), enrolled(hub, "p6", "33.00")
    browser.sign_in("p5")
    other.sign_in("p6")
    other.go("/portal/recharge")
    other.send("/portal/recharge", amount="7")
    payment = re.findall(r"[?&]id=([0-9a-f]{32})", other.headers["location"])[0]
    assert browser.go(f"/portal/recharge/{payment}") == 404
    missing = FORM.sub("", browser.text)
    assert browser.go(f"/portal/recharge/{'0' * 32}") == 404
    assert FORM.sub("", browser.text) == missing, "the same words as for what nobody has"
    for path in ("/portal/statement?format=csv&account=p6", "/portal/history?account=p6", "/portal?account=p6"):
        browser.go(path)
        assert "33.00" not in browser.text, path
        assert "p6" not in browser.text, path


def pay(browser: Browser, amount: str, choice: str) -> int:
    """Through the demo provider and back."""
    browser.go("/portal/recharge")
    assert browser.send("/portal/recharge", amount=amount) == 303
    assert browser.go(browser.headers["location"].removeprefix("http://testserver")) == 200
    hidden = dict(
        re.findall(r'<input type="hidden" name="(id|account|amount|currency|callback|return|signature)" value="([^"]*)"', browser.text)
    )
    browser.hub.client.cookies.clear()
    answer = browser.hub.client.post("/portal/demo-provider", data=hidden | {"choice": choice})
    assert answer.status_code == 303
    return browser.go(answer.headers["location"].removeprefix("http://testserver"))


def test_recharging_goes_through_the_provider_once(hub: Hub) -> None:
    browser = enrolled(hub, "p7")
    browser.sign_in("p7")
    assert pay(browser, "12,50", "failed") == 200
    assert "Nothing was paid" in browser.text
    assert pay(browser, "12,50", "paid") == 200
    assert "12.50 EUR were credited" in browser.text
    assert hub.balance("p7") == "32.50"
    browser.go("/portal/recharge")
    for bad in ("0", "-5", "1e9", "abc", "0.001", "NaN"):
        assert browser.send("/portal/recharge", amount=bad) == 422, bad


def test_callbacks_are_signed_fresh_and_credited_once(hub: Hub) -> None:
    enrolled(hub, "p8", "1.00")
    assert hub.part.portal is not None
    key, now = hub.part.portal.desk.demo_key, int(time.time())
    payment = hub.part.portal.desk.new_payment("p8", "9.00")
    said = {"id": payment.id, "account": "p8", "amount": "9.00", "currency": "EUR", "status": "paid"}

    def call(said: dict[str, str], key: bytes = key, at: int = now) -> int:
        body = orjson.dumps(said)
        return int(hub.client.post("/portal/payments/callback", content=body, headers=signing.headers([key], "m", at, body)).status_code)

    assert call(said, b"x" * 32) == 401
    assert call(said, at=now - 3600) == 401, "replayed an hour later"
    assert hub.client.post("/portal/payments/callback", content=orjson.dumps(said)).status_code == 401
    assert call({**said, "amount": "900.00"}) == 409
    hub.engine.away = True
    assert call(said) == 503, "it must come again"
    hub.engine.away = False
    assert [call(said) for _ in range(3)] == [200, 200, 200]
    assert hub.balance("p8") == "10.00"
    lost = {**said, "id": "f" * 32}
    assert call(lost) == 200, "begun by a hub that lost its file: signed, so credited"
    assert hub.balance("p8") == "19.00"
    assert call({**said, "id": "e" * 32, "account": "nobody"}) == 404


def test_usage_history_messages_and_statement_show_what_there_is(hub: Hub) -> None:
    browser = enrolled(hub, "p9")
    table = rows.final_days([finals_of("p9", "2026-03-02", [500_000] * 24, device="d-p9")])
    assert table is not None
    hub.store.insert_arrow("final_days", table)
    with hub.engine as driver:
        driver.use("2026-03-02", "12", "p9", device="d-p9")
    browser.sign_in("p9")
    assert browser.text.count("<rect") == 1
    assert "about 4 days" in browser.text
    for grain, bars_shown in (("day", 2), ("hour", 48)):
        browser.go("/portal/usage", grain=grain, **{"from": "2026-03-01", "to": "2026-03-02"})
        assert browser.text.count("<rect") == bars_shown
        assert "Together 12" in browser.text
        assert "3.60 EUR" in browser.text
    browser.go("/portal/usage", **{"from": "x"})
    assert browser.headers["content-type"].startswith("text/html")
    browser.go("/portal/history")
    assert "Recharge" in browser.text
    assert "-3.60" in browser.text
    browser.go("/portal/notices", lang="de")
    assert "Vielen Dank für 20,00 EUR." in browser.text
    assert 'lang="de"' in browser.text
    browser.go("/portal/notices")
    assert "Vielen Dank" in browser.text, "the language stays"
    assert browser.go("/portal/statement", format="csv", **{"from": "2026-03-01", "to": "2026-03-31"}) == 200
    assert browser.headers["content-type"].startswith("text/csv")
    assert browser.go("/portal/statement", format="pdf") == 200


def test_sessions_end_and_asking_is_limited() -> None:
    clock = [1000.0]
    desk = PortalDesk(None, Portal(session=60, codes_per_hour=3, code_life=60), lambda: clock[0])
    code = desk.new_code("a", "ip")
    assert code is not None
    assert desk.enter("b", code, "ip") is None, "a code is for its account"
    token = desk.enter("a", code, "ip")
    assert token is not None
    clock[0] += 50
    assert desk.account_of(token) == "a"
    clock[0] += 61
    assert desk.account_of(token) is None
    assert [desk.new_code("a", "ip") is not None for _ in range(3)] == [True, True, False]
    late = desk.new_code("c", "ip")
    assert late is not None
    clock[0] += 61
    assert desk.enter("c", late, "ip") is None
    for _ in range(60):
        assert desk.enter("nobody", "x", "other") is None
    with pytest.raises(TooManyError):
        desk.enter("nobody", "x", "other")
    desk.close()


def test_an_embedded_portal_is_framed_by_its_sites_only(tmp_path: Path) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from connectors.prepaid.part import Prepaid, routes
    from connectors.subscribers.secrets import Secrets
    from tests.prepaid.driver import settings
    from tests.prepaid.hub import CODEC, FakeMaster, hub_topology

    of = settings(portal={"enabled": True, "origin": "https://my.example", "embed": ["https://www.example"]})
    part = Prepaid(hub_topology(of), None, None, CODEC, FakeMaster(), Secrets(None, {}), tmp_path)  # type: ignore[arg-type]
    app = FastAPI()
    app.include_router(routes(part))
    answer = TestClient(app).get("/portal/signin")
    assert "frame-ancestors https://www.example" in answer.headers["content-security-policy"]
    assert {"SameSite=None", "Partitioned", "Secure"} <= set(answer.headers["set-cookie"].split("; "))
    part.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_in_every_language_with_the_same_gaps(language: str) -> None:
    english, other = _catalogue("en"), _catalogue(language)
    assert set(english) == set(other)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", other[key])), key
    texts = Texts(language)
    assert all(texts.has(f"notice.{kind}") for kind in NOTICES)
    assert all(texts.has(f"state.{state}") for state in STATES)


def test_any_colour_can_be_read() -> None:
    for accent in ("#0b5fa5", "#ffff00", "#000000", "#ffffff", "#7f7f7f"):
        for ground in GROUNDS.values():
            assert contrast(readable(accent, ground), ground) >= 4.5
        over = re.findall(r"--on-accent: (#\w+)", style_of(accent))[0]
        assert contrast(accent, over) >= 4.5


def test_bars_hold_no_markup_from_outside() -> None:
    from decimal import Decimal
    from xml.etree import ElementTree

    picture = bars([Bar("<b>", Decimal("2.5"), "a & b"), Bar("x", Decimal("-1"), "c")], '"t"', "kWh")
    root = ElementTree.fromstring(picture)
    heights = [float(rect.attrib["height"]) for rect in root.iter() if rect.tag == "rect"]
    assert heights[0] == pytest.approx(heights[1] * 2.5, rel=0.02)
