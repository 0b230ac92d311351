"""Commands on channel-days and readings: what they change, what they refuse, and that the audit tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.block import EXCEPTION, FINALIZED, OPEN
from schemas.conditions import EST_INTERPOLATED, OUTAGE, REGULAR, SUSPECT, USER_EDIT, USER_ESTIMATE
from schemas.rules import METHOD
from schemas.topology.vee import VeeSettings
from tests.vee.driver import MICRO, Hub, interval_row, register_row

DAY = 19_800  # in UTC
START = DAY * 86_400
HOUR = 3600
SPIKE = [1.0] * 40 + [500.0] + [1.0] * 55


def settings(*rules: dict[str, Any], **more: Any) -> VeeSettings:
    group = {"rules": [{"id": "interval-size"}, *rules]}
    return VeeSettings.model_validate({"groups": {"initial-load": group}} | more)


SPIKES = {"id": "interval-spike", "severity": "issue"}
STRAIGHT = {"id": "interval-interpolation", "max_gap": "2h"}


def hub_with(values: list[float | None], config: VeeSettings | None = None) -> Hub:
    hub = Hub(config or settings(SPIKES, STRAIGHT))
    hub.send(interval_row(START, values))
    return hub


def command(hub: Hub, action: str, start: int = START, end: int = START + 86_400, **more: Any) -> dict[str, Any]:
    body = {
        "id": f"c{len(hub.log)}", "action": action, "device": "M1", "channel": "E1", "start": start, "end": end, "seconds": None,
        "values": [], "reading": None, "method": None, "reason": "test", "user": "clerk", "expected_version": None,
        "dry_run": False, "bulk": "", "approved_by": "",
    } | more  # fmt: skip
    hub.apply("Command", body)
    told = [output.body for output in hub.log if output.type == "AuditEvent"]
    audit: dict[str, Any] = told[-1]
    return audit


def version(hub: Hub, day: int = DAY) -> int:
    return int(hub.day(day).version[0])


def test_an_edit_sets_values_and_is_not_undone_by_the_meter() -> None:
    hub = hub_with(SPIKE)
    assert int(hub.day(DAY).state[0]) == EXCEPTION
    audit = command(hub, "edit", START + 40 * 900, START + 42 * 900, values=[2 * MICRO, None])
    assert (audit["outcome"], audit["detail"], audit["actor"], audit["reason"]) == ("applied", "1 interval edited", "clerk", "test")
    before, after = json.loads(audit["before"]), json.loads(audit["after"])
    assert before == {"days": 1, "version": 1, "state": "exception", "total": "595", "conditions": {"regular": 95, "suspect": 1}}
    assert after == {"days": 1, "version": version(hub), "state": "final", "total": "97", "conditions": {"regular": 95, "user-edit": 1}}
    hub.send(interval_row(START, SPIKE))
    day = hub.day(DAY)
    assert int(day.values[40]) == 2 * MICRO
    assert int(day.conditions[40]) == USER_EDIT
    assert int(day.methods[40]) == METHOD["manual"]
    assert hub.rules() == []


def test_an_accepted_day_is_final_until_its_data_change() -> None:
    hub = hub_with(SPIKE)
    audit = command(hub, "accept")
    assert audit["outcome"] == "applied"
    assert json.loads(audit["after"])["state"] == "final"
    day = hub.day(DAY)
    assert (int(day.state[0]), int(day.conditions[40])) == (FINALIZED, SUSPECT)
    assert [body["status"] for body in hub.exceptions.values()] == ["overridden"]
    hub.send(interval_row(START, SPIKE))  # nothing new
    assert int(hub.day(DAY).state[0]) == FINALIZED
    hub.send(interval_row(START, [900.0]))
    assert int(hub.day(DAY).state[0]) == EXCEPTION
    assert hub.rules() == ["interval-spike"]


@pytest.mark.parametrize("restart", [False, True])
def test_an_accepted_day_stays_accepted_in_the_store(restart: bool) -> None:
    hub = hub_with(SPIKE)
    command(hub, "accept")
    for later in range(1, 5):
        hub.send(interval_row(START + later * 86_400, [1.0] * 96))
    if restart:
        hub.restart()
    audit = command(hub, "edit", START, START + 900, values=[3 * MICRO])
    assert hub.recalls >= 1
    assert audit["outcome"] == "applied"
    assert json.loads(audit["before"])["state"] == "final"
    assert json.loads(audit["after"])["state"] == "exception"  # the data changed: to be judged anew
    audit = command(hub, "accept")
    assert json.loads(audit["after"])["state"] == "final"


def test_a_terminating_exception_can_only_be_forced() -> None:
    hub = hub_with(SPIKE, settings(SPIKES | {"severity": "terminate"}, {"id": "zero-consumption"}))
    refused = command(hub, "accept")
    assert (refused["outcome"], refused["after"]) == ("refused", "")
    assert "forced" in refused["detail"]
    assert int(hub.day(DAY).state[0]) == EXCEPTION
    assert command(hub, "force")["outcome"] == "applied"
    assert int(hub.day(DAY).state[0]) == FINALIZED
    assert command(hub, "re-vee")["outcome"] == "applied"
    assert int(hub.day(DAY).state[0]) == EXCEPTION


def test_force_closes_an_open_day() -> None:
    hub = hub_with([1.0] * 10)
    assert int(hub.day(DAY).state[0]) == OPEN
    assert "still open" in command(hub, "accept")["detail"]
    command(hub, "force")
    assert int(hub.day(DAY).state[0]) == FINALIZED


def test_what_is_discarded_is_estimated_and_later_data_fill_it() -> None:
    hub = hub_with(SPIKE)
    audit = command(hub, "discard", START + 40 * 900, START + 41 * 900)
    assert audit["detail"] == "1 received value discarded"
    assert int(hub.day(DAY).state[0]) == OPEN  # it may come again
    hub.tick(close=True)
    day = hub.day(DAY)
    assert (int(day.values[40]), int(day.conditions[40])) == (MICRO, EST_INTERPOLATED)
    hub.send(interval_row(START + 40 * 900, [4.0]))
    day = hub.day(DAY)
    assert (int(day.values[40]), int(day.conditions[40])) == (4 * MICRO, REGULAR)
    assert "nothing has been received" in command(hub, "discard", START - 86_400, START)["detail"]


def test_an_estimate_is_ordered_slot_by_slot() -> None:
    hub = hub_with([1.0] * 40 + [500.0, 400.0] + [4.0] * 54)
    audit = command(hub, "estimate", START + 40 * 900, START + 42 * 900, method="interval-interpolation")
    assert audit["detail"] == "2 intervals estimated by interval-interpolation"
    day = hub.day(DAY)
    assert day.values[40:42].tolist() == [2 * MICRO, 3 * MICRO]
    assert set(day.conditions[40:42].tolist()) == {USER_ESTIMATE + 100 * METHOD["interval-interpolation"]}
    assert set(day.methods[40:42].tolist()) == {METHOD["interval-interpolation"]}
    zero = command(hub, "estimate", START, START + 900, method="outage-zero")
    assert zero["outcome"] == "applied"
    assert int(hub.day(DAY).values[0]) == 0


def test_an_estimate_without_result_changes_nothing() -> None:
    hub = hub_with(SPIKE)
    before = hub.finals()
    audit = command(hub, "estimate", START, START + 86_400, method="interval-interpolation")
    assert audit["detail"] == "interval-interpolation has no value for 96 of 96 intervals"
    audit = command(hub, "estimate", START, START + 900, method="profile")
    assert audit["outcome"] == "refused"
    assert hub.finals() == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"action": "hide"}, "'hide' is none of"),
        ({"start": START, "end": START}, "before end"),
        ({"end": START + 100 * 86_400}, "at most"),
        ({"channel": "E9"}, "no channel of this name"),
        ({"seconds": 1800}, "nothing has been received of this channel"),
        ({"start": START + 86_400, "end": START + 2 * 86_400}, "nothing has been received of these days"),
        ({"values": []}, "needs values"),
        ({"values": [1, 2]}, "2 values for 1 intervals"),
        ({"values": [None]}, "no value is given"),
        ({"values": [1], "reading": 1}, "not both"),
        ({"values": [1], "start": START + 1, "end": START + 901}, "where intervals do"),
        ({"values": [1], "expected_version": 7}, "version conflict: expected 7, it is 1"),
        ({"action": "estimate", "method": "guess"}, "method must be one of"),
        ({"action": "accept"}, "no open exception"),
    ],
)
def test_what_cannot_be_done_is_refused_and_audited(more: dict[str, Any], says: str) -> None:
    hub = hub_with([1.0] * 96)
    before = hub.finals()
    body = {"start": START, "end": START + 900, "values": [1], "action": "edit"} | more
    audit = command(hub, body.pop("action"), **body)
    assert audit["outcome"] == "refused"
    assert says in audit["detail"]
    assert hub.finals() == before


def test_a_right_version_is_no_conflict() -> None:
    hub = hub_with([1.0] * 96)
    assert command(hub, "edit", START, START + 900, values=[5], expected_version=1)["outcome"] == "applied"
    assert command(hub, "edit", START, START + 900, values=[6], expected_version=1)["outcome"] == "refused"


def test_a_command_on_stored_and_hot_days_waits_and_is_done_at_once() -> None:
    hub = Hub(settings(SPIKES, STRAIGHT))
    for day in range(6):
        hub.send(interval_row(START + day * 86_400, [float(day + 1)] * 96))
    hub.answering = False
    audits = len([o for o in hub.log if o.type == "AuditEvent"])
    hub.apply("Command", {
        "id": "long", "action": "edit", "device": "M1", "channel": "E1", "start": START + 3 * 86_400 + 95 * 900,
        "end": START + 4 * 86_400 + 900, "seconds": None, "values": [7, 8], "reading": None, "method": None, "reason": "", "user": "u",
        "expected_version": None,
    })  # fmt: skip
    assert len([o for o in hub.log if o.type == "AuditEvent"]) == audits
    hub.restart()
    hub.answering = True
    hub.deliver()
    assert [o.body["outcome"] for o in hub.log if o.type == "AuditEvent"] == ["applied"]
    assert int(hub.day(DAY + 3).values[95]) == 7
    assert int(hub.day(DAY + 4).values[0]) == 8


def test_days_are_local_and_as_long_as_they_are() -> None:
    hub = Hub(settings(STRAIGHT, zone="Europe/London"))
    start = 1_711_843_200  # 2024-03-31, 23 hours
    hub.send(interval_row(start, [1.0] * 92))
    audit = command(hub, "edit", start, start + 23 * HOUR, values=[2 * MICRO] * 92)
    assert audit["outcome"] == "applied"
    assert json.loads(audit["after"])["total"] == "184"
    assert json.loads(audit["after"])["days"] == 1


def test_readings_are_edited_and_discarded() -> None:
    hub = Hub(settings(STRAIGHT))
    hub.send(register_row([(START, 10.0), (START + HOUR, 99.0), (START + 2 * HOUR, 12.0)]))
    asked = {"channel": "R1", "start": START + HOUR, "end": START + HOUR + 1}
    audit = command(hub, "edit", reading=11 * MICRO, **asked)
    assert audit["outcome"] == "applied"
    assert hub.reads["M1", "R1", START + HOUR][:2] == (11 * MICRO, USER_EDIT)
    audit = command(hub, "discard", **asked)
    assert audit["detail"] == "1 reading discarded"
    assert hub.reads["M1", "R1", START + HOUR][1] < OUTAGE
    assert "no reading" in command(hub, "discard", **(asked | {"start": START + 5, "end": START + 6}))["detail"]
    assert "only" in command(hub, "accept", **asked)["detail"]
    hub.send(register_row([(START + HOUR, 11.5)]))
    assert hub.reads["M1", "R1", START + HOUR][:2] == (11_500_000, REGULAR)


def test_roles_choose_groups() -> None:
    strict = {"rules": [SPIKES, {"id": "interval-size"}]}
    config = VeeSettings.model_validate(
        {
            "groups": {"initial-load": strict, "by-hand": {"rules": [{"id": "missing-quantity"}]},
                       "estimated": {"rules": [{"id": "interval-interpolation", "max_gap": "2h"}, SPIKES]}},
            "roles": {"initial-load": "initial-load", "manual-override": "by-hand", "estimation": "estimated"},
        }
    )  # fmt: skip
    hub = hub_with(SPIKE, config)
    assert hub.rules() == ["interval-spike"]
    command(hub, "estimate", START, START + 900, method="outage-zero")
    assert hub.rules() == ["interval-spike"]  # the group of estimation looks for spikes too
    command(hub, "edit", START, START + 900, values=[MICRO])
    assert hub.rules() == []  # the one of manual override does not
    assert int(hub.day(DAY).state[0]) == FINALIZED
    command(hub, "discard", START, START + 900)
    assert hub.rules() == ["interval-spike"]


def test_of_two_commands_that_wait_for_one_day_the_second_sees_what_the_first_has_done() -> None:
    hub = Hub(settings(SPIKES))
    for day in range(6):
        hub.send(interval_row(START + day * 86_400, [1.0] * 96))
    hub.answering = False
    for name in ("first", "second"):
        hub.apply("Command", {
            "id": name, "action": "edit", "device": "M1", "channel": "E1", "start": START, "end": START + 900, "seconds": None,
            "values": [7], "reading": None, "method": None, "reason": "", "user": name, "expected_version": version(hub),
        })  # fmt: skip
    hub.answering = True
    hub.deliver()
    assert [o.body["outcome"] for o in hub.log if o.type == "AuditEvent"] == ["applied", "refused"]


def test_an_estimate_from_like_days_asks_the_store_for_them() -> None:
    hub = hub_with([1.0] * 96, settings({"id": "like-day-average", "min_days": 3, "max_days": 3}))
    for later in range(1, 5):  # Monday to Friday
        hub.send(interval_row(START + later * 86_400, [float(later + 1)] * 96))
    hub.recalls = 0
    begin = START + 4 * 86_400
    audit = command(hub, "estimate", begin, begin + 900, method="like-day-average")
    assert audit["outcome"] == "applied", audit
    assert hub.recalls == 3
    day = hub.day(DAY + 4)
    assert int(day.values[0]) == 3 * MICRO  # of Tuesday to Thursday, two of which had left the state
    assert int(day.methods[0]) == METHOD["like-day-average"]


ACTIONS = {
    "edit": {"values": [2 * MICRO], "start": START + 40 * 900, "end": START + 41 * 900},
    "estimate": {"method": "interval-interpolation", "start": START + 40 * 900, "end": START + 41 * 900},
    "discard": {"start": START + 40 * 900, "end": START + 41 * 900},
    "accept": {}, "force": {}, "re-vee": {},
}  # fmt: skip


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_preview_tells_what_the_command_does_and_changes_nothing(action: str, stored: bool) -> None:
    hub = hub_with(SPIKE)
    for later in range(1, 5 if stored else 1):
        hub.send(interval_row(START + later * 86_400, [1.0] * 96))
    finals, told, log = hub.finals(), dict(hub.exceptions), len(hub.log)
    seen = command(hub, action, **ACTIONS[action], dry_run=True)
    assert seen["outcome"] == "preview"
    assert (hub.finals(), hub.exceptions) == (finals, told)
    assert {output.type for output in hub.log[log:]} <= {"AuditEvent", "Recall"}
    assert not [entry for entry in hub.fold.state.entries if entry.split("/")[0] in ("preview", "asked", "orders")]
    effect = json.loads(seen["after"])
    before = hub.finals()
    done = command(hub, action, **ACTIONS[action])
    assert done["outcome"] == "applied"
    assert done["detail"] == seen["detail"]
    after = hub.finals()
    changed = {
        (day, slot) for key in after for day in [key[3]]
        for slot, cell in enumerate(zip(*after[key][:2], strict=True)) if cell != tuple(c[slot] for c in before[key][:2])
    }  # fmt: skip
    assert effect["changed_intervals"] == len(changed)
    assert effect["version"] == json.loads(done["after"])["version"]
    assert len(effect["exceptions"]) >= sum(hub.exceptions[k]["status"] != told[k]["status"] for k in told)
    if action == "edit":
        assert effect["changes"] == [
            {"channel": "E1", "start": "2024-03-18T10:00:00Z", "seconds": 900, "from": {"value": "500", "condition": SUSPECT},
             "to": {"value": "2", "condition": USER_EDIT}}
        ]  # fmt: skip


def test_a_preview_of_a_refused_command_says_why() -> None:
    hub = hub_with([1.0] * 96)
    seen = command(hub, "accept", dry_run=True)
    assert (seen["outcome"], seen["detail"]) == ("refused", "there is no open exception of these days")


def test_a_preview_that_waits_survives_a_restart() -> None:
    hub = hub_with(SPIKE)
    for later in range(1, 5):
        hub.send(interval_row(START + later * 86_400, [1.0] * 96))
    hub.answering = False
    hub.apply("Command", {
        "id": "p1", "action": "accept", "device": "M1", "channel": "E1", "start": START, "end": START + 86_400, "seconds": None,
        "values": [], "reading": None, "method": None, "reason": "", "user": "clerk", "expected_version": None, "dry_run": True,
        "bulk": "", "approved_by": "",
    })  # fmt: skip
    hub.restart()
    hub.send(interval_row(START + 5 * 86_400, [1.0] * 96))  # nothing waits for it
    assert int(hub.day(DAY + 5).state[0]) == FINALIZED
    hub.answering = True
    hub.deliver()
    audit = [output.body for output in hub.log if output.type == "AuditEvent"]
    assert [body["outcome"] for body in audit] == ["preview"]
