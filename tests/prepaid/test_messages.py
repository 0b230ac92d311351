"""Notices on their way to customers: once, in quiet hours not, with a state for each, whatever receivers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default as policy
from typing import Any

import orjson
import pytest
from aiosmtpd.controller import Controller

from connectors.embedded.place import Port
from connectors.subscribers import signing
from schemas.topology.subscribers import DeliverySettings
from tests.patience import PATIENCE
from tests.prepaid.hub import Hub, running
from tests.subscribers.kit import receiver

SECRET = "s" * 32
LOCAL = DeliverySettings(networks=["127.0.0.0/8"], plain_http=True)
RETRY = {"first": "10s", "most": "10s", "attempts": 3, "refusals": 2}


class Mailbox:
    """An SMTP server that answers what a test says."""

    def __init__(self) -> None:
        self.answer = "250 OK"
        self.taken: list[Message] = []
        self.asked = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.asked += 1
        if self.answer.startswith("250"):
            self.taken.append(message_from_bytes(envelope.content, policy=policy))
        return self.answer


@contextmanager
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box, kept = Mailbox(), Port()
    controller = Controller(box, hostname="127.0.0.1", port=kept.number, ready_timeout=PATIENCE)
    controller.start()
    try:
        yield box, kept.number
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Mailbox, Any]]:
    """A hub that sends by mail and SMS, and the two that take it."""
    with mailbox() as (box, port), receiver() as gateway:
        ways = {
            "mail": {"host": "127.0.0.1", "port": port, "security": "none", "from": "energy@utility.example"},
            "sms": {"url": gateway.url, "secrets": ["sms"]}, "retry": RETRY,
        }  # fmt: skip
        change = {"messages": ways, "thresholds": [{"id": "soon", "amount": "5"}], "quiet": [{"from": "21:00", "to": "24:00"}]}
        with running(tmp_path_factory.mktemp("hub"), LOCAL, {"sms": SECRET}, **change) as hub:
            yield hub, box, gateway


class Post:
    """What a test does: accounts with contacts, time, and looks of the courier."""

    def __init__(self, world: tuple[Hub, Mailbox, Any]) -> None:
        self.hub, self.box, self.gateway = world
        self.box.answer, self.gateway.answer = "250 OK", lambda _: 204
        courier = self.hub.part.courier
        for told in (courier, *courier.journals.values()):
            told._clock = lambda: float(self.now)
        with self.hub.engine as driver:
            self.now = driver.now
        self.wait(3 * 86_400)  # what other tests left is old news by now
        self.look()
        self.box.taken.clear()
        self.gateway.taken.clear()
        self.box.asked = 0

    def wait(self, seconds: int) -> None:
        self.now += seconds
        for circuit in self.hub.part.courier.circuits.values():
            circuit.succeeded()
        with self.hub.engine as driver:
            driver.tick(self.now)

    def fall(self, account: str) -> None:
        """From 9.00 to 4.00."""
        body = {"amount": "-5.00", "reason": "test", "user": "ann", "approver": "bob"}
        assert self.hub.client.post(f"/v1/prepaid/accounts/{account}/adjustments", json=body).status_code == 201

    def look(self) -> int:
        found = self.hub.part.courier.round()
        self.hub.engine.settle()
        return found

    def mails(self, account: str) -> list[str]:
        texts = [str(mail.get_content()) for mail in self.box.taken if account in str(mail["Subject"])]
        return [text.splitlines()[0] for text in texts]

    def states(self, account: str) -> list[tuple[str, str, str]]:
        items = self.hub.client.get(f"/v1/prepaid/accounts/{account}/notices").json()["items"]
        return [(item["kind"], sent["channel"], sent["status"]) for item in items for sent in item["deliveries"]]


@pytest.fixture
def post(world: tuple[Hub, Mailbox, Any]) -> Post:
    return Post(world)


def test_a_notice_is_told_once_by_every_way_that_reaches(post: Post) -> None:
    post.hub.enrol("m1")
    contact = {"mail": "ann@customer.example", "phone": "+49 (151) 23", "language": "de"}
    assert post.hub.client.put("/v1/prepaid/accounts/m1/contact", json=contact).status_code == 204
    assert post.hub.client.get("/v1/prepaid/accounts/m1/contact").json() == {
        "mail": "a…@customer.example",
        "phone": "… 23",
        "language": "de",
    }
    post.hub.topup("9.00", account="m1")
    post.fall("m1")
    for _ in range(3):
        post.look()
    assert sorted(post.mails("m1")) == sorted(["Ihr Konto wird jetzt im Voraus bezahlt. Ihr Guthaben ist 0,00 EUR.",
                                "Vielen Dank für 9,00 EUR. Ihr Guthaben ist 9,00 EUR.",
                                "Ihr Guthaben ist niedrig: 4,00 EUR."])  # fmt: skip
    (sms,) = post.gateway.taken
    body = orjson.loads(sms.body)
    assert (body["to"], body["text"]) == ("+4915123", "Ihr Guthaben ist niedrig: 4,00 EUR.")
    assert signing.verify([SECRET.encode()], sms.headers, sms.body, post.now)
    states = post.states("m1")
    assert sorted(states) == sorted([("enrolled", "mail", "sent"), ("topup.posted", "mail", "sent"), ("balance.low", "mail", "sent"),
                                     ("balance.low", "sms", "sent")])  # fmt: skip


def test_contacts_come_from_the_person_behind_the_account(post: Post) -> None:
    objects = post.hub.master.objects
    objects["subscription", "m2"] = {"account": "payer"}
    objects["account", "payer"] = {"person": "bob"}
    objects["person", "bob"] = {"mail": "bob@customer.example"}
    post.hub.enrol("m2")
    post.look()
    assert [mail["To"] for mail in post.box.taken if "m2" in str(mail["Subject"])] == ["bob@customer.example"]
    post.hub.enrol("m3")
    post.look()
    assert post.states("m3") == [("enrolled", "mail", "skipped")], "nobody known to tell"


def test_quiet_hours_are_kept(post: Post) -> None:
    post.hub.enrol("m4")
    post.hub.client.put("/v1/prepaid/accounts/m4/contact", json={"mail": "c@customer.example"})
    post.wait(11 * 3600 - (post.now + 3600) % 86_400 + 11 * 3600)  # 22:00 in Berlin
    post.look()
    post.hub.topup("9.00", account="m4")
    post.fall("m4")
    post.look()
    assert post.mails("m4")[1:] == ["Thank you for 9.00 EUR. Your balance is 9.00 EUR."], "the low balance waits"
    post.wait(3 * 3600)
    post.look()
    assert post.mails("m4")[2:] == ["Your balance is low: 4.00 EUR."]


def test_a_held_notice_is_dropped_when_a_worse_one_overtakes_it(post: Post) -> None:
    post.hub.enrol("h1", "h2", "h3")
    for account in ("h1", "h2", "h3"):
        post.hub.client.put(f"/v1/prepaid/accounts/{account}/contact", json={"mail": f"{account}@customer.example"})
    post.wait(11 * 3600 - (post.now + 3600) % 86_400 + 11 * 3600)  # 22:00 in Berlin
    for account in ("h1", "h2", "h3"):
        post.hub.topup("9.00", account=account)
        post.fall(account)
    post.look()
    post.wait(60)
    post.fall("h1")  # used up: told at any hour
    post.hub.topup("9.00", account="h2", key="k2")  # above the threshold again
    post.look()
    assert post.mails("h1")[-1].startswith("Your balance is used up")
    post.wait(3 * 3600)
    for _ in range(2):
        post.look()
    for account in ("h1", "h2"):
        assert not [text for text in post.mails(account) if "low" in text], post.states(account)
    assert ("balance.low", "mail", "overtaken") in post.states("h1")
    assert ("balance.low", "mail", "overtaken") in post.states("h2")
    assert post.mails("h3")[-1] == "Your balance is low: 4.00 EUR."
    items = post.hub.client.get("/v1/prepaid/accounts/h1/notices").json()["items"]
    (sent,) = [sent for item in items if item["kind"] == "balance.low" for sent in item["deliveries"] if sent["channel"] == "mail"]
    assert sent["reason"] == "overtaken by balance.zero"


def test_a_receiver_that_is_away_is_tried_until_it_takes_it(post: Post) -> None:
    post.hub.enrol("m5")
    post.hub.client.put("/v1/prepaid/accounts/m5/contact", json={"mail": "d@customer.example"})
    post.box.answer = "451 come again"
    post.look()
    post.look()
    assert post.box.asked == 1, "not before its time"
    assert post.states("m5") == [("enrolled", "mail", "retrying")]
    post.wait(30)
    post.look()
    post.box.answer = "250 OK"
    post.wait(30)
    post.look()
    assert (post.box.asked, post.states("m5")) == (3, [("enrolled", "mail", "sent")])
    ids = {mail["Message-ID"] for mail in post.box.taken if "m5" in str(mail["Subject"])}
    assert len(ids) == 1


def test_messages_to_one_customer_keep_their_order(post: Post) -> None:
    post.hub.enrol("o8", "o9")
    for account in ("o8", "o9"):
        post.hub.client.put(f"/v1/prepaid/accounts/{account}/contact", json={"mail": f"{account}@customer.example"})
    post.look()
    post.box.answer = "451 come again"
    post.hub.topup("9.00", account="o8")
    post.look()
    post.box.answer = "250 OK"
    post.hub.part.courier.circuits["mail"].succeeded()
    post.fall("o8")
    post.hub.topup("9.00", account="o9")
    post.look()
    post.hub.part.courier._held.clear()  # as a restart does
    post.look()
    assert len(post.mails("o8")) == 1, "the recharge waits to be tried again, and what came behind it waits for it"
    assert len(post.mails("o9")) == 2, "nobody else waits"
    post.wait(30)
    post.look()
    post.look()
    assert [kind for kind, way, _ in post.states("o8") if way == "mail"] == ["enrolled", "topup.posted", "balance.low"]
    _, recharged, low = post.mails("o8")
    assert "9.00" in recharged
    assert "4.00" in low


def test_what_is_refused_for_good_is_given_up(post: Post) -> None:
    post.hub.enrol("m6")
    post.hub.client.put("/v1/prepaid/accounts/m6/contact", json={"mail": "e@customer.example"})
    post.box.answer = "550 no such person"
    for _ in range(4):
        post.look()
        post.wait(30)
    assert (post.box.asked, post.states("m6")) == (2, [("enrolled", "mail", "dead")])


def test_a_courier_that_starts_anew_repeats_and_forgets_nothing(post: Post) -> None:
    post.hub.enrol("m7")
    post.hub.client.put("/v1/prepaid/accounts/m7/contact", json={"mail": "f@customer.example"})
    post.look()
    courier = post.hub.part.courier
    courier._lately.clear()
    courier._attempts.clear()
    post.hub.topup("9.00", account="m7")
    post.look()
    assert len(post.mails("m7")) == 2


def test_a_contact_that_could_carry_headers_is_refused(post: Post) -> None:
    post.hub.enrol("m8")
    for bad in ({"mail": "a@b\nBcc: x@y"}, {"mail": "a@b,c@d"}, {"phone": "call me"}, {"mail": "a@b.example", "zzz": 1}):
        assert post.hub.client.put("/v1/prepaid/accounts/m8/contact", json=bad).status_code == 422, bad


def test_folders_and_messages_are_checked_in_topology() -> None:
    from schemas.topology.portal import Mail, Payments, Portal

    for model, given in (
        (Mail, {"host": "h", "from": "a@b", "security": "none", "user": "u", "password": "p"}),
        (Mail, {"host": "h", "from": "a@b", "user": "u"}),
        (Payments, {"kind": "hosted"}), (Payments, {"kind": "demo", "secrets": ["x"]}),
        (Portal, {"embed": ["https://a.example"]}), (Portal, {"embed": ["https://a.example/x"], "origin": "https://b.example"}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\w"):
            model.model_validate(given)
