"""The enterprise agent's conversations over time: deadlines, cancellations, locks, corrections."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest

from schemas.topology.enterprise import EnterpriseSettings, ReadingRule
from streams.determinants.usage.billed import subject_of
from streams.enterprise.choosing import Read, Wanted, choose, estimate
from streams.enterprise.fold import EnterpriseFold
from streams.runtime.fold import Message

DAY = 86_400
NOW = 1_777_593_600  # 2026-05-01 00:00 UTC
REGISTER = {"device": "M1", "zone": "UTC", "point": "P1", "channels": {"1.8.0": {"decimals": 0, "zone": "UTC", "unit": "kWh"}}}


class Talk:
    """A fold, and what it says."""

    def __init__(self, **settings: Any) -> None:
        self.fold = EnterpriseFold(EnterpriseSettings(**settings))
        self.number = itertools.count()
        self.fold.desk.records.put("d/M1", {**REGISTER, "system": "sap"})
        self.said: dict[str, list[Any]] = {}

    def _tell(self, kind: str, body: Any) -> dict[str, list[Any]]:
        result = self.fold.apply(Message(kind, body, f"{next(self.number):032x}"))
        self.said = {}
        for output in result.outputs:
            name = output.body["kind"] if output.type == "EnterpriseMessage" else output.type
            self.said.setdefault(name, []).append(output.body)
        return self.said

    def ask(self, kind: str, body: dict[str, Any], id: str = "", system: str = "sap", at: int = NOW) -> str:
        """One item; the category it was answered with at once, or ``-``."""
        item = {"id": id or f"i{next(self.number)}", "body": orjson.dumps(body).decode(), "category": "", "note": ""}
        said = self._tell("EnterpriseRequest", {
            "system": system, "protocol": system, "kind": kind, "message": "m", "bulk": False, "received_at": at, "items": [item],
        })  # fmt: skip
        answers = said.get(f"{kind}-answer")
        return answers[0]["items"][0]["category"] if answers else "-"

    def tick(self, at: int) -> dict[str, list[Any]]:
        return self._tell("Tick", {"at": at, "close": False})

    def store(self, found: Any) -> dict[str, list[Any]]:
        """Answers the question at hand."""
        (question,) = self.said["EnterpriseQuestion"]
        items = [orjson.dumps([orjson.loads(line), found]).decode() for line in question["items"]]
        return self._tell("EnterpriseAnswer", {"question": question["id"], "kind": question["kind"], "items": items})

    def items(self, kind: str) -> list[dict[str, Any]]:
        return [{**item, "body": orjson.loads(item["body"])} for message in self.said.get(kind, []) for item in message["items"]]


def order(number: int = 1, reason: str = "01", channel: str = "1.8.0") -> dict[str, Any]:
    return {"order": str(number), "reason": reason, "date": "2026-05-01", "zone": "UTC", "channel": channel, "device": "M1"}


def test_an_order_is_asked_from_its_day_on_and_answered_once_cut_to_the_registers_decimals() -> None:
    talk = Talk()
    assert talk.ask("reading-order", order(), "u1") == ""
    assert "EnterpriseQuestion" not in talk.tick(NOW + DAY - 1)
    talk.tick(NOW + DAY)
    assert not talk.store(None)
    talk.tick(NOW + DAY + 60)
    talk.store({"at": NOW + DAY, "value": 12_900_000, "condition": 500_000, "estimated": False, "unit": "kWh"})
    assert [item["body"]["value"] for item in talk.items("reading-result")] == ["12"]
    assert talk.said["EnterpriseConversation"][0]["state"] == "delivered"
    assert "EnterpriseQuestion" not in talk.tick(NOW + 9 * DAY)
    assert talk.ask("reading-order", order(), "u1") == "", "the same UUID: the same answer, no second order"
    assert talk.ask("reading-order", order(), "u2") == "PRE.CVE"


def test_an_order_that_may_not_be_estimated_ends_overdue_and_is_told_as_an_event() -> None:
    talk = Talk(readings=ReadingRule(estimate=False, wait=DAY))
    talk.ask("reading-order", order())
    talk.tick(NOW + 2 * DAY)
    talk.store(None)
    assert "none may be estimated" in talk.items("event")[0]["body"]["text"]
    assert talk.said["EnterpriseConversation"][0]["state"] == "overdue"


@pytest.mark.parametrize(
    ("body", "category"),
    [(order(channel="1.8.1"), "PRE.IDE"), (order() | {"device": "M9"}, "PRE.IDE"), (order() | {"date": "1900-01-01"}, "PRE.VAE")],
)
def test_orders_that_cannot_be_are_refused(body: dict[str, Any], category: str) -> None:
    assert Talk().ask("reading-order", body) == category


def test_a_cancelled_order_is_never_answered() -> None:
    talk = Talk()
    assert talk.ask("reading-cancel", {"order": "1"}) == "PRE.IDE"
    talk.ask("reading-order", order())
    assert talk.ask("reading-cancel", {"order": "1"}) == ""
    assert "EnterpriseQuestion" not in talk.tick(NOW + 2 * DAY)


def connect(**more: Any) -> dict[str, Any]:
    return {"request": "c", "action": "disconnect", "devices": ["M1"], "category": "1", **more}


def test_a_connection_change_waits_for_its_time_its_reply_and_no_longer_than_allowed() -> None:
    talk = Talk(connection_wait=3600)
    assert talk.ask("connection", connect(planned=NOW + 100)) == "-"
    assert "DeviceCommand" not in talk.said
    (command,) = talk.tick(NOW + 100)["DeviceCommand"]
    reply = {"command": command["id"], "device": "M1", "status": "accepted", "at": NOW + 101, "code": "", "detail": ""}
    assert not talk._tell("DeviceReply", reply)
    talk.tick(NOW + 3700)
    assert talk.items("connection-answer")[0]["category"] == "PRE"
    talk._tell("DeviceReply", reply | {"status": "done"})
    assert "carried out after it was given up" in talk.items("event")[0]["body"]["text"]
    assert talk.said["MasterSubmission"][0]["items"][0]["kind"] == "install"


def test_a_planned_change_can_be_cancelled_and_a_sent_one_cannot() -> None:
    talk = Talk()
    talk.ask("connection", connect(planned=NOW + 100))
    talk.ask("connection-cancel", {"request": "c"})
    assert [item["category"] for item in talk.items("connection-answer")] == ["PRE.CVE"]
    assert "DeviceCommand" not in talk.tick(NOW + 200)
    talk.ask("connection", connect(request="d"))
    talk.ask("connection-cancel", {"request": "d"})
    assert "PRE.CVE" in talk.items("event")[0]["body"]["text"], "a notification has no confirmation: its failure is an event"


def calculation(name: str) -> dict[str, Any]:
    days = [NOW // DAY, NOW // DAY + 1]
    return {
        "calculation": name,
        "order": "",
        "series": "s",
        "rule": "total",
        "days": days,
        "zone": "UTC",
        "device": "M1",
        "channel": "1.8.0",
    }


def test_one_open_calculation_locks_the_series_and_the_registers_until_it_is_answered() -> None:
    talk = Talk()
    assert talk.ask("calculation", calculation("a")) == "-"
    assert talk.ask("calculation", calculation("b")) == "PRE.TEE.LRE"
    assert talk.ask("register-change", {"device": "M1", "objects": [], "know": {}}) == "PRE.TEE.LRE"
    talk.tick(NOW + DAY)
    sums = {"unit": "kWh", "sums": [{"tou": "", "quantity": 1, "estimated": 0}], "complete": False, "missing": 1}
    assert not talk.store(sums)
    talk.tick(NOW + DAY + 60)
    talk.store(sums | {"complete": True, "missing": 0})
    assert talk.items("calculation-answer")[0]["body"]["sums"] == sums["sums"]
    assert talk.ask("calculation", calculation("b")) == "-"


def determinants(quantity: str, version: int = 1, usage: str = "") -> dict[str, Any]:
    one = {"device": "M1", "channel": "c", "kind": "interval-consumption", "name": "", "tou": "", "unit": "kWh", "quantity": quantity}
    return {"determinants": [{**one, "condition": 500_000, "slots": 1, "actual": 1, "estimated": 0, "version": version, "usage": usage}]}


def test_usage_is_corrected_once_it_is_on_a_bill_and_sent_anew_before() -> None:
    talk = Talk(recheck=60)
    usage = {"usage": "u", "account": "A", "start": NOW - DAY, "end": NOW}
    assert talk.ask("usage-used", {"usage": "u"}, system="ccb") == "PRE.IDE"
    assert talk.ask("usage-request", usage, system="ccb") == ""
    states = [body["state"] for body in talk.said["EnterpriseConversation"]]
    assert states == ["PENDING", "SEND_REQUEST", "AWAITING_BILL_DETERMINANTS"]
    talk.tick(NOW + 1)
    talk.store(determinants("5"))
    assert talk.items("usage")[0]["body"]["version"] == 1
    talk.tick(NOW + 100)
    assert not talk.store(determinants("5")), "nothing changed, nothing said"
    talk.tick(NOW + 200)
    talk.store(determinants("6"))
    assert (talk.items("usage")[0]["body"]["version"], talk.items("usage")[0]["body"]["corrects"]) == (2, 0)
    talk.ask("usage-used", {"usage": "u", "bill": "B"}, system="ccb", at=NOW + 201)
    talk.tick(NOW + 300)
    talk.store(determinants("7"))
    body = talk.items("usage-correction")[0]["body"]
    assert (body["version"], body["corrects"]) == (3, 2)
    assert [(change["old"], change["new"]) for change in body["changes"]] == [("6", "7")]


@pytest.mark.parametrize("usage", ["", "w"])
def test_what_is_on_a_bill_is_told_to_determinants_once_for_each_time_it_was_given(usage: str) -> None:
    talk = Talk(recheck=60)
    talk.ask("usage-request", {"usage": "u", "account": "A", "start": NOW - DAY, "end": NOW}, system="ccb")
    talk.tick(NOW + 1)
    talk.store(determinants("5", 2, usage))
    told = []
    for at, bill in ((10, "B"), (20, "B"), (110, "C")):
        if bill == "C":
            talk.tick(NOW + 100)
            talk.store(determinants("6", 3, usage))
        talk.ask("usage-used", {"usage": "u", "bill": bill}, system="ccb", at=NOW + at)
        told += talk.said.get("UsedOnBill", [])
    subject = "" if usage else subject_of(determinants("")["determinants"][0] | {"account": "A"}, NOW - DAY)
    assert [(body["account"], body["usage"], body["subject"], body["version"], body["bill"]) for body in told] == [
        ("A", usage, subject, 2, "B"), ("A", usage, subject, 3, "C"),
    ]  # fmt: skip
    assert len({body["id"] for body in told}) == 2


def test_sums_of_days_are_no_determinants_a_bill_could_name() -> None:
    talk = Talk(recheck=60)
    talk.ask("usage-request", {"usage": "u", "account": "A", "start": NOW - DAY, "end": NOW}, system="ccb")
    talk.tick(NOW + 1)
    talk.store(determinants("5", 0))
    talk.ask("usage-used", {"usage": "u", "bill": "B"}, system="ccb", at=NOW + 10)
    assert "UsedOnBill" not in talk.said


def test_a_usage_request_without_determinants_times_out() -> None:
    talk = Talk(usage_wait=DAY)
    talk.ask("usage-request", {"usage": "u", "account": "A", "start": NOW - DAY, "end": NOW}, system="ccb")
    talk.tick(NOW + DAY)
    talk.store(None)
    assert talk.items("usage-failed")[0]["body"]["state"] == "TIMEOUT"


def test_the_same_uuid_for_something_else_is_refused_and_the_first_stays() -> None:
    talk = Talk()
    assert talk.ask("reading-order", order(1), "u") == ""
    assert talk.ask("reading-order", order(2), "u") == "PRE.CVE"
    assert talk.ask("reading-order", order(1), "u") == ""


def test_reads_are_chosen_by_reason_and_measured_ones_come_first() -> None:
    reads = [Read(-10, 1, 500_000), Read(10, 2, 310_000), Read(20, 3, 500_000), Read(90, 4, 500_000), Read(120, 5, 500_000)]

    def value(which: Any, tolerance: int = 0, estimates: bool = False, some: list[Read] = reads) -> int | None:
        found = choose(some, Wanted(which, 0, 100, 100, tolerance), estimates=estimates)
        return found.value if found else None

    assert (value("earliest"), value("latest"), value("closest")) == (3, 4, 4)
    assert value("closest", some=[reads[1]]) is None
    assert value("closest", estimates=True, some=[reads[1]]) == 2
    assert (value("earliest", 15, some=[reads[0], reads[4]]), value("earliest", 5, some=[reads[0]])) == (1, None)


def test_an_estimate_lies_on_the_line_and_turns_over_with_the_register() -> None:
    low, high = Read(0, 99_000_000, 500_000), Read(100, 1_000_000, 500_000)
    assert estimate([low, high], 50, dials=2).value == 0  # type: ignore[union-attr]
    assert estimate([low, high], 50) is None
    assert estimate([low], 50) is None
    assert estimate([Read(0, 0, 500_000), Read(10, 5, 500_000)], 30).value == 15  # type: ignore[union-attr]


def test_a_refused_item_can_be_tried_again_when_what_it_names_has_come() -> None:
    talk = Talk(keep_refused=DAY)
    wanted = order() | {"device": "M9"}
    assert talk.ask("reading-order", wanted, "u1") == "PRE.IDE"
    (kept,) = [one for one in talk.said["EnterpriseConversation"] if one["kind"] == "refused-item"]
    assert (kept["subject"], kept["state"], orjson.loads(kept["detail"])["category"]) == ("u1", "refused", "PRE.IDE")
    assert talk.ask("reading-order", wanted, "u1") == "PRE.IDE", "sent again it has the same answer"
    retry = [{"id": "u1", "body": "", "category": "", "note": ""}, {"id": "nobody", "body": "", "category": "", "note": ""}]
    asked = {"system": "sap", "protocol": "sap", "kind": "retry", "message": "r", "bulk": True, "received_at": NOW + 60, "items": retry}
    talk._tell("EnterpriseRequest", asked)
    assert talk.items("reading-order-answer")[0]["category"] == "PRE.IDE"
    talk.fold.desk.records.put("d/M9", {**REGISTER, "system": "sap"})
    talk._tell("EnterpriseRequest", asked)
    assert [(one["reference"], one["category"]) for one in talk.items("reading-order-answer")] == [("u1", "")]
    assert not talk._tell("EnterpriseRequest", asked), "once taken there is nothing to try again"
    assert talk.ask("reading-order", wanted, "u1") == "", "the id is known with its new answer"


def test_what_the_door_refused_is_seen_like_all_else_and_may_come_again_put_right() -> None:
    talk = Talk(keep_refused=DAY)
    item = {"id": "u9", "body": orjson.dumps({"id": "M1"}).decode(), "category": "VME.XML", "note": "no date"}
    request = {"system": "sap", "protocol": "sap", "kind": "reading-order", "message": "m", "bulk": False, "received_at": NOW}
    talk._tell("EnterpriseRequest", {**request, "items": [item]})
    (kept,) = talk.said["EnterpriseConversation"]
    assert (kept["subject"], kept["state"], orjson.loads(kept["detail"])["door"]) == ("u9", "refused", True)
    talk._tell("EnterpriseRequest", {**request, "kind": "retry", "items": [{**item, "category": ""}]})
    assert not talk.said, "only its sender can put it right"
    assert talk.ask("reading-order", order(), "u9") == ""
    assert [one["state"] for one in talk.said["EnterpriseConversation"] if one["kind"] == "refused-item"] == ["sent again"]


def test_what_was_refused_is_kept_for_a_time() -> None:
    talk = Talk(keep_refused=DAY)
    talk.ask("reading-order", order() | {"device": "M9"}, "u1")
    item = {"id": "u2", "body": '{"id":"x"}', "category": "PRE.VAE", "note": "no date"}
    head = {"system": "sap", "protocol": "sap", "kind": "reading-order", "message": "m", "bulk": False, "received_at": NOW}
    talk._tell("EnterpriseRequest", head | {"items": [item]})
    assert talk.fold.desk.records.get("r/sap/u1")
    assert talk.fold.desk.records.get("r/sap/u2")
    talk.tick(NOW + DAY)
    assert not talk.fold.desk.records.get("r/sap/u1")
    assert not talk.fold.desk.records.get("r/sap/u2")
