"""The To-Do engine by story: raised, grouped, taken, passed on, escalated, done, undone."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from connectors.rights.chain import verify
from schemas.topology.todo import BusinessHours
from streams.todo.hours import Hours
from tests.todo.driver import HOUR, MONDAY, Driver


def test_an_exception_becomes_one_todo_and_goes_with_its_cause() -> None:
    driver = Driver()
    driver.exception("e1")
    driver.exception("e1")
    driver.exception("e2")
    todo = driver.todo()
    assert (todo["type"], todo["state"], todo["count"], todo["open"], todo["role"]) == ("validation", "open", 2, 2, "clerk")
    driver.exception("e1", status="superseded")
    assert driver.todo()["state"] == "open"
    driver.exception("e2", status="resolved")
    assert (driver.todo()["state"], driver.todo()["outcome"]) == ("completed", "auto")
    assert driver.history(todo["id"]) == ["created", "raised", "raised", "completed"]
    driver.exception("e3")
    assert driver.todo()["id"] != todo["id"], "the next time it is another one"


def test_what_nobody_must_act_on_is_no_todo() -> None:
    driver = Driver()
    driver.exception("e1", severity="info")
    assert driver.said["Todo"] == []


def test_a_flood_of_one_payload_is_one_todo_with_a_count() -> None:
    driver = Driver(types=[{"id": "validation", "about": "x", "rules": ["*"], "together_above": 10}])
    for number in range(5000):
        driver.exception(f"e{number}", device=f"m{number}")
    assert len(driver.said["Todo"]) == 11
    driver.restart()
    driver.tick(MONDAY + 60)
    todo = driver.todo()
    assert (todo["grouped"], todo["count"], todo["subject"]) == (True, 4990, "interval-spike: payload p1")
    assert len(todo["exceptions"]) == 50
    driver.tick(MONDAY + 120)
    assert len(driver.said["Todo"]) == 12


def test_next_gives_the_most_urgent_to_one_person_each() -> None:
    driver = Driver(
        routes=[{"rules": ["negative-consumption"], "role": "clerk", "more_urgent": 2}, {"devices": ["big*"], "role": "expert"}]
    )
    driver.exception("e1", device="m1")
    driver.exception("e2", device="m2", rule="negative-consumption")
    driver.exception("e3", device="big1")
    first, second = driver.act("next", user="ann", roles=["clerk"]), driver.act("next", user="bob", roles=["clerk"])
    assert driver.todo(first["done"][0])["device"] == "m2"
    assert driver.todo(second["done"][0])["device"] == "m1"
    assert driver.act("next", roles=["clerk"])["status"] == "refused"
    assert driver.todo(driver.act("next", roles=["clerk", "expert"])["done"][0])["device"] == "big1"


def test_the_second_of_two_people_gets_a_conflict() -> None:
    driver = Driver()
    driver.exception("e1")
    todo = driver.todo()
    assert driver.act("complete", todo["id"], versions=[todo["version"]], user="ann")["status"] == "done"
    outcome = driver.act("assign", todo["id"], versions=[todo["version"]], user="bob", to="bob")
    assert (outcome["status"], outcome["conflicts"]) == ("conflict", [todo["id"]])
    assert driver.todo()["state"] == "completed"


def test_acts_of_people_are_one_chain_of_the_audit_with_before_after_and_why() -> None:
    driver = Driver()
    for number in range(3):
        driver.exception(f"e{number}", device=f"m{number}")
    one, two, three = (todo["id"] for todo in driver.said["Todo"])
    assert driver.said["AuditEvent"] == [], "what the hub does by itself is in the history alone"
    driver.act("assign", one)
    driver.restart()
    driver.act("complete", one, two, id="bulk/0000", versions=[1, 1], to="false-alarm", reason="known feeder", approver="bob", text="seen")
    driver.act("release", "nothing-like-it")
    driver.act("forward", three, role="supervisor", reason="not mine")
    driver.act("forward", three, role="supervisor", id="c-again")
    driver.act("forward", three, role="supervisor", id="c-again")
    told = driver.said["AuditEvent"]
    assert verify(told).problems == []
    assert [(row["action"], row["subject"], row["outcome"]) for row in told] == [
        ("todo-assign", one, "applied"), ("todo-complete", two, "applied"), ("todo-complete", one, "refused"),
        ("todo-release", "nothing-like-it", "refused"), ("todo-forward", three, "applied"), ("todo-forward", three, "applied"),
    ]  # fmt: skip
    done = told[1]
    assert (done["actor"], done["approved_by"], done["reason"], done["bulk"], done["device"]) == (
        "ann",
        "bob",
        "known feeder",
        "bulk",
        "m1",
    )
    assert orjson.loads(done["before"])["state"] == "open"
    assert orjson.loads(done["after"]) == {"state": "completed", "outcome": "false-alarm", "reason": "known feeder", "open": 0}
    assert verify([*told[:1], {**told[1], "reason": "another"}, *told[2:]]).problems


def test_deadlines_count_business_hours_and_escalate_three_times() -> None:
    driver = Driver(types=[{"id": "validation", "about": "x", "rules": ["*"], "assign_within": "4h", "resolve_within": "2d"}])
    driver.tick(MONDAY + 4 * 24 * HOUR + 7 * HOUR)  # Friday 16:00
    driver.exception("e1")
    todo = driver.todo()
    assert todo["assign_by"] == datetime(2026, 3, 9, 11, tzinfo=UTC), "one hour on Friday, three on Monday"
    driver.tick(int(todo["assign_by"].timestamp()) - 1)
    assert driver.todo()["level"] == 0
    driver.tick(int(todo["assign_by"].timestamp()))
    assert (driver.todo()["level"], driver.todo()["priority"], driver.todo()["role"]) == (1, 6, "supervisor")
    for days in range(1, 30):
        driver.tick(MONDAY + 7 * 24 * HOUR + days * 24 * HOUR)
    assert driver.todo()["level"] == 3
    assert driver.history(todo["id"]).count("escalated") == 3


def test_bulk_work_can_be_undone_where_nobody_has_gone_on() -> None:
    driver = Driver(bulk_alone=3)
    for number in range(5):
        driver.exception(f"e{number}", device=f"m{number}")
    ids = [record["id"] for record in driver.said["Todo"]]
    assert driver.act("complete", *ids, user="ann")["status"] == "refused"
    assert driver.act("complete", *ids, user="ann", approver="ann")["status"] == "refused"
    act = driver.act("complete", *ids, user="ann", approver="sue", reason="estimates are fine")
    assert len(act["done"]) == 5
    driver.act("reopen", ids[0], user="bob")
    undone = driver.act("undo", user="ann", of=act["id"])
    assert (undone["status"], len(undone["done"]), undone["conflicts"]) == ("partly", 4, [ids[0]])
    assert {driver.todo(id)["state"] for id in ids} == {"open"}
    assert driver.act("undo", of=act["id"])["status"] == "refused"


def test_commands_are_carried_out_once_and_survive_a_restart() -> None:
    driver = Driver()
    driver.exception("e1")
    id = driver.todo()["id"]
    driver.act("comment", id, id="k1", text="called the customer")
    driver.restart()
    assert driver.act("comment", id, id="k1", text="called the customer")["status"] == "duplicate"
    driver.act("forward", id, role="field")
    assert (driver.todo()["role"], driver.todo()["state"]) == ("field", "open")
    driver.act("assign", id, to="bob")
    driver.act("release", id)
    assert driver.history(id) == ["created", "commented", "forwarded", "assigned", "released"]


def test_work_is_shared_out_to_those_who_have_least() -> None:
    driver = Driver()
    for number in range(7):
        driver.exception(f"e{number}", device=f"m{number}")
    ids = [record["id"] for record in driver.said["Todo"]]
    driver.act("assign", ids[0], to="ann")
    driver.act("assign", ids[1], to="ann")
    driver.act("distribute", *ids[2:], roles=["ann", "bob", "cid"])
    users = [driver.todo(id)["user"] for id in ids]
    assert {name: users.count(name) for name in ("ann", "bob", "cid")} == {"ann": 3, "bob": 2, "cid": 2}


def test_what_a_search_found_is_raised_once_and_closed_when_it_is_gone() -> None:
    driver = Driver()
    found = [{"type": "silent-meter", "subject": "m1/1.8.0", "device": "m1", "channel": "1.8.0", "detail": "no reads for 4 days"}]
    driver.act("found", user="system", items=found)
    driver.act("found", user="system", items=found)
    assert len(driver.said["Todo"]) == 1
    seen = {"todo": driver.todo()["id"], "version": driver.todo()["version"]}
    driver.act("comment", seen["todo"], text="asked the field crew")
    driver.act("gone", user="system", items=[seen])
    assert driver.todo()["state"] == "open", "somebody was at it since it was looked for"
    driver.act("gone", user="system", items=[{**seen, "version": driver.todo()["version"]}])
    assert (driver.todo()["state"], driver.todo()["outcome"]) == ("completed", "auto")
    for wrong in ([*found, {"type": "nonsense", "subject": "x"}], [5], [{"type": "silent-meter"}]):
        before = len(driver.said["Todo"])
        assert driver.act("found", user="system", items=wrong)["status"] == "refused"
        assert len(driver.said["Todo"]) == before, "refused as a whole"


def test_a_completed_todo_is_forgotten_after_its_time() -> None:
    driver = Driver(reopen_within="1d")
    driver.exception("e1")
    id = driver.todo()["id"]
    driver.act("complete", id)
    driver.tick(MONDAY + 25 * HOUR)
    assert driver.act("reopen", id)["status"] == "refused"
    assert not any(key.startswith("t/") for key in driver.fold.state.entries)


def test_an_exception_that_opens_again_counts_again() -> None:
    driver = Driver()
    driver.exception("e1")
    driver.exception("e2")
    driver.exception("e1", status="superseded")
    driver.exception("e1")
    driver.exception("e2", status="superseded")
    assert (driver.todo()["state"], driver.todo()["open"]) == ("open", 1)


def test_a_storm_without_a_payload_is_grouped_by_rule_and_moment() -> None:
    driver = Driver(types=[{"id": "validation", "about": "x", "rules": ["*"], "together_above": 3}])
    for number in range(20):
        driver.exception(f"e{number}", device=f"m{number}", payload="", rule="missing" if number % 2 else "late")
    driver.tick(MONDAY + 60)
    grouped = {record["subject"]: record["count"] for record in driver.said["Todo"] if record["grouped"]}
    assert grouped == {"missing: 2026-03-02T09:00:00Z": 9, "late: 2026-03-02T09:00:00Z": 8}


def test_a_million_of_one_thing_are_queued_once() -> None:
    driver = Driver(types=[{"id": "validation", "about": "x", "rules": ["*"], "together_above": 1}])
    for number in range(3000):
        driver.exception(f"e{number}", device=f"m{number}")
    items = driver.fold.items
    assert sum(len(queue) for queue in items._queues.values()) + len(items._deadlines) + len(items._by_exception) < 70


def test_facts_route_and_the_nearness_of_a_bill_makes_urgent() -> None:
    driver = Driver(
        routes=[
            {"commodities": ["gas"], "regions": ["north*"], "role": "gas-team"},
            {"customer_classes": ["large"], "role": "clerk", "more_urgent": 1},
        ],
        bill_bands=["3d", "1d", "0s"],
    )  # fmt: skip
    driver.exception("e1", device="m1")
    driver.exception("e2", device="m2")
    gas, large = (record["id"] for record in driver.said["Todo"])
    bill = MONDAY + 2 * 24 * HOUR
    told = [
        {"todo": gas, "commodity": "gas", "region": "north-2"},
        {"todo": large, "customer_class": "large", "account": "a1", "bill_at": bill},
    ]
    assert len(driver.act("facts", user="system", items=told)["done"]) == 2
    assert (driver.todo(gas)["role"], driver.todo(gas)["priority"]) == ("gas-team", 5)
    assert (driver.todo(large)["priority"], driver.todo(large)["bill_at"]) == (7, datetime.fromtimestamp(bill, UTC))
    assert driver.act("facts", user="system", items=told)["done"] == [], "nothing is new"
    driver.tick(bill - 2 * HOUR)
    level = driver.todo(large)["level"]
    assert driver.todo(large)["priority"] == 8 + level
    driver.act("prioritise", large, to="2")
    driver.tick(bill)
    assert driver.todo(large)["priority"] == 3 + driver.todo(large)["level"] - level, "the last band adds to what the person said"


def test_a_bulk_act_in_which_one_is_gone_does_the_rest() -> None:
    driver = Driver()
    driver.exception("e1")
    outcome = driver.act("complete", driver.todo()["id"], "nonsense")
    assert (outcome["status"], outcome["conflicts"]) == ("partly", ["nonsense"])


def test_what_is_kept_for_a_while_goes() -> None:
    driver = Driver(undo_within="1d")
    driver.exception("e1")
    act = driver.act("comment", driver.todo()["id"], text="x")
    driver.tick(MONDAY + 9 * 24 * HOUR)
    assert not any(key.startswith(("b/", "g/")) for key in driver.fold.state.entries)
    assert driver.act("undo", of=act["id"])["status"] == "refused"


@pytest.mark.parametrize(
    ("at", "hours", "then"),
    [
        ("2026-03-02T09:00", 8, "2026-03-02T17:00"),
        ("2026-03-02T09:00", 9, "2026-03-03T09:00"),
        ("2026-03-06T20:00", 1, "2026-03-09T09:00"),
        ("2026-03-07T12:00", 10, "2026-03-10T09:00"),
    ],
)
def test_business_time(at: str, hours: int, then: str) -> None:
    moment = int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp())
    found = Hours(BusinessHours()).after(moment, hours * HOUR)
    assert datetime.fromtimestamp(found, UTC).isoformat()[:16] == then
