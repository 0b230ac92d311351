"""The master agent: what objects mean for channels and subscriptions, what is refused, what waits."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tests.master.kit import Driver, estate, outcomes, second


def spans(record: dict[str, Any]) -> list[tuple[int | None, int | None]]:
    return [(span["from"], span["to"]) for span in record["changed"]]


def uses(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(period[name] for name in ("from", "to", "state", "service_point", "account")) for period in record["periods"]]


def test_the_objects_of_a_metered_place_become_a_channel_and_a_subscription() -> None:
    hub = Driver()
    assert outcomes(hub.submit(*estate())) == ["applied"] * 6
    (record,) = hub.channels()
    since = second("2024-01-01")
    assert uses(record) == [(since, None, "connected", "SP1", "US1")]
    named = {name: record[name] for name in ("device", "channel", "service_point", "account", "unit", "zone", "seconds", "multiplier")}
    assert named == {
        "device": "D1", "channel": "1.8.0", "service_point": "SP1", "account": "US1", "unit": "kWh", "zone": "Europe/Berlin",
        "seconds": 900, "multiplier": 40_000_000,
    }  # fmt: skip
    (usage,) = hub.told("reads.final", "UsageSubscription")
    assert usage["subscription"] == "US1"
    assert usage["periods"][0]["service_points"] == ["SP1"]
    assert usage["periods"][0]["payment"] == "postpaid"
    assert spans(usage) == [(since, None)]
    assert len(hub.told("vee.inbox", "MasterPresent")) == 4


@pytest.mark.parametrize("order", [*list(permutations(range(6)))[::97], (5, 4, 3, 2, 1, 0)])
def test_in_whatever_order_objects_come_the_same_is_known_in_the_end(order: tuple[int, ...]) -> None:
    straight, shuffled = Driver(), Driver()
    straight.submit(*estate())
    for position in order:
        shuffled.submit(estate()[position])
        shuffled.restart()
    (expected,) = straight.channels()
    told = [o.body for o in shuffled.outputs if o.type == "MasterChannel"][-1]
    assert {k: v for k, v in told.items() if k not in ("version", "changed")} == {
        k: v for k, v in expected.items() if k not in ("version", "changed")
    }
    assert shuffled.fold.parked.count == 0


def test_an_item_with_an_unknown_reference_waits_and_is_applied_when_it_comes() -> None:
    hub = Driver()
    account, point, device, component, install, subscription = estate()
    (change,) = hub.submit(install)
    assert (change["outcome"], change["reason"]) == ("parked", "there is no device D1 yet")
    hub.restart()
    assert outcomes(hub.submit(device)) == ["applied", "parked"]
    assert [(c["item"], c["outcome"]) for c in hub.submit(point)] == [("m3/0", "applied"), ("m1/0", "applied")]
    assert outcomes(hub.submit(component, account, subscription)) == ["applied"] * 3


def test_strict_submissions_are_refused_instead() -> None:
    hub = Driver()
    (change,) = hub.submit(estate()[3], strict=True)
    assert (change["outcome"], change["reason"]) == ("refused", "there is no device D1")
    assert hub.fold.parked.count == 0


def test_one_bad_item_among_a_thousand_leaves_the_others_alone() -> None:
    hub = Driver()
    hub.submit(*estate())
    lines: list[dict[str, Any]] = [{"kind": "device", "id": f"X{n}"} for n in range(999)]
    lines.insert(500, {"kind": "install", "id": "bad", "device": "D1", "service_point": "SP1", "event": "install", "at": "2025-01-01"})
    changes = hub.submit(*lines)
    assert [c["item"] for c in changes if c["outcome"] != "applied"] == ["m2/500"]
    assert changes[500]["reason"].startswith("device D1 is installed at SP1 since 2024-01-01T00:00:00Z")


OVERLAPS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "the device is installed elsewhere": (
        [{"kind": "service_point", "id": "SP2"},
         {"kind": "install", "id": "X", "device": "D1", "service_point": "SP2", "event": "install", "at": "2024-06-01"}],
        "device D1 is installed at SP1 since 2024-01-01T00:00:00Z: it cannot be installed at SP2",
    ),
    "the device is installed elsewhere later": (
        [{"kind": "service_point", "id": "SP2"},
         {"kind": "install", "id": "X", "device": "D1", "service_point": "SP2", "event": "install", "at": "2023-06-01"}],
        "device D1 is installed at SP2 since 2023-06-01T00:00:00Z: it cannot be installed at SP1",
    ),
    "another device is there": (
        [{"kind": "device", "id": "D2"},
         {"kind": "install", "id": "X", "device": "D2", "service_point": "SP1", "event": "install", "at": "2024-06-01"}],
        "at service point SP1 device D1 is installed from 2024-01-01T00:00:00Z to the end of time",
    ),
    "removed where it is not": (
        [{"kind": "service_point", "id": "SP2"},
         {"kind": "install", "id": "X", "device": "D1", "service_point": "SP2", "event": "remove", "at": "2024-06-01"}],
        "remove at SP2 on 2024-06-01T00:00:00Z: device D1 is installed at SP1 then",
    ),
    "connected before it is installed": (
        [{"kind": "install", "id": "X", "device": "D1", "service_point": "SP1", "event": "connect", "at": "2023-06-01"}],
        "connect at SP1 on 2023-06-01T00:00:00Z: device D1 is not installed anywhere then",
    ),
    "a second subscription at the same time": (
        [{"kind": "subscription", "id": "US2", "account": "A1", "service_points": ["SP1"], "from": "2025-01-01"}],
        "service point SP1 is used by subscription US1 from 2025-01-01T00:00:00Z to the end of time",
    ),
    "a second component for a channel": (
        [{"kind": "component", "id": "other", "device": "D1", "channel": "1.8.0"}],
        "channel 1.8.0 of device D1 is component D1/1.8.0",
    ),
    "a component that changes its device": (
        [{"kind": "device", "id": "D2"},
         {"kind": "component", "id": "D1/1.8.0", "device": "D2", "channel": "1.8.0", "from": "2025-01-01"}],
        "component D1/1.8.0 belongs to device D1; it cannot belong to D2 at another time",
    ),
    "a device that is still installed retires": (
        [{"kind": "device", "id": "D1", "action": "end", "from": "2025-01-01"}],
        "device D1 is installed at SP1 until the end of time: remove it first",
    ),
    "a service point in use ends": (
        [{"kind": "service_point", "id": "SP1", "action": "end", "from": "2025-01-01"}],
        "device D1 is installed at service point SP1: remove it first",
    ),
    "an account in use ends": (
        [{"kind": "account", "id": "A1", "action": "end", "from": "2025-01-01"}],
        "subscription US1 uses it from 2024-01-01T00:00:00Z to the end of time",
    ),
    "an account in use is taken away": (
        [{"kind": "account", "id": "A1", "action": "remove"}],
        "subscription US1 names it: account A1 cannot be taken away as if it never was",
    ),
    "an install where the place did not exist yet": (
        [{"kind": "service_point", "id": "SP9", "from": "2025-01-01"}, {"kind": "device", "id": "D9"},
         {"kind": "install", "id": "X", "device": "D9", "service_point": "SP9", "event": "install", "at": "2024-06-01"}],
        "service point SP9 does not exist at 2024-06-01T00:00:00Z",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OVERLAPS)
def test_what_does_not_fit_together_is_refused_with_words_and_changes_nothing(name: str) -> None:
    lines, said = OVERLAPS[name]
    hub = Driver()
    hub.submit(*estate())
    hub.submit(*lines[:-1])
    before = dict(hub.fold.state.entries)
    (change,) = hub.submit(lines[-1])
    assert change["outcome"] == "refused"
    assert said in change["reason"]
    after = dict(hub.fold.state.entries)
    changed = {key.partition("/")[0] for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed <= {"s", "sequence"}
    assert not hub.channels()
    hub.restart()
    assert outcomes(hub.submit(*estate())) == ["unchanged"] * 6


def test_duplicates_and_replays_change_nothing() -> None:
    hub = Driver()
    first = [{**line, "item": f"i{n}"} for n, line in enumerate(estate())]
    hub.submit(*first)
    hub.submit({"kind": "service_point", "id": "SP1", "zone": "Europe/Paris"})
    (record,) = hub.channels()
    assert (record["zone"], spans(record)) == ("Europe/Paris", [(None, None)])
    entries = {key: value for key, value in hub.fold.state.entries.items() if not key.startswith("s")}
    assert hub.submit(*first) == []  # the same items: an older truth does not come back
    hub.restart()
    assert hub.submit(*first) == []
    assert {key: value for key, value in hub.fold.state.entries.items() if not key.startswith("s")} == entries
    assert not hub.channels()


def test_a_swap_is_one_act_and_names_the_spans_it_changes() -> None:
    hub = Driver()
    hub.submit(*estate())
    swap: list[dict[str, Any]] = [
        {"kind": "install", "id": "R1", "device": "D1", "service_point": "SP1", "event": "remove", "at": "2024-06-01", "group": "g"},
        {"kind": "device", "id": "D2", "group": "g"},
        {"kind": "component", "id": "D2/1.8.0", "device": "D2", "channel": "1.8.0", "unit": "kWh", "seconds": 900, "group": "g"},
        {"kind": "install", "id": "I2", "device": "D2", "service_point": "SP1", "event": "install", "at": "2024-06-01", "group": "g"},
    ]
    assert outcomes(hub.submit(*swap)) == ["applied"] * 4
    old, new = hub.channels()
    at = second("2024-06-01")
    assert uses(old) == [(second("2024-01-01"), at, "connected", "SP1", "US1")]
    assert spans(old) == [(at, None)]
    assert uses(new) == [(at, None, "connected", "SP1", "US1")]


def test_a_swap_that_fails_in_one_part_fails_in_all() -> None:
    hub = Driver()
    hub.submit(*estate())
    swap: list[dict[str, Any]] = [
        {"kind": "install", "id": "R1", "device": "D1", "service_point": "SP1", "event": "remove", "at": "2024-06-01", "group": "g"},
        {"kind": "device", "id": "D2", "group": "g"},
        {"kind": "install", "id": "I2", "device": "D2", "service_point": "SP1", "event": "install", "at": "2024-05-01", "group": "g"},
        {"kind": "device", "id": "D3"},
    ]
    changes = hub.submit(*swap)
    assert outcomes(changes) == ["refused"] * 3 + ["applied"]
    assert not hub.fold.registry.has(("device", "D2"))
    assert not hub.channels()


def test_connect_and_disconnect_are_states_in_time() -> None:
    hub = Driver()
    hub.submit(*estate())
    events = [("E1", "disconnect", "2024-03-01"), ("E2", "connect", "2024-04-01"), ("E3", "remove", "2024-05-01")]
    for id, event, at in events:
        hub.submit({"kind": "install", "id": id, "device": "D1", "service_point": "SP1", "event": event, "at": at})
    (record,) = hub.channels()
    states = [(period["from"], period["to"], period["state"]) for period in record["periods"]]
    dates = [second(day) for day in ("2024-01-01", "2024-03-01", "2024-04-01", "2024-05-01")]
    assert states == [(dates[0], dates[1], "connected"), (dates[1], dates[2], "disconnected"), (dates[2], dates[3], "connected")]
    assert spans(record) == [(dates[3], None)]


BACKDATED: dict[str, tuple[dict[str, Any], list[tuple[str | None, str | None]]]] = {
    "another account moved in": ({"kind": "subscription", "id": "US1", "action": "end", "from": "2024-05-01"}, [("2024-05-01", None)]),
    "the multiplier was another one": (
        {"kind": "component", "id": "D1/1.8.0", "action": "patch", "multiplier": 50, "from": "2024-02-01", "to": "2024-03-01"},
        [("2024-02-01", "2024-03-01")],
    ),
    "installed earlier": (
        {"kind": "install", "id": "I-D1", "device": "D1", "service_point": "SP1", "event": "install", "at": "2023-12-01"},
        [("2023-12-01", "2024-01-01")],
    ),
    "installed later": (
        {"kind": "install", "id": "I-D1", "device": "D1", "service_point": "SP1", "event": "install", "at": "2024-01-15"},
        [("2024-01-01", "2024-01-15")],
    ),
    "the transformer was another one": (
        {"kind": "install", "id": "I-D1", "device": "D1", "service_point": "SP1", "event": "install", "at": "2024-01-01", "multiplier": 20},
        [("2024-01-01", None)],
    ),
    "it was disconnected for a time": (
        {"kind": "install", "id": "E", "device": "D1", "service_point": "SP1", "event": "disconnect", "at": "2024-07-01"},
        [("2024-07-01", None)],
    ),
    "the unit was another one": (
        {"kind": "component", "id": "D1/1.8.0", "action": "patch", "unit": "Wh", "to": "2024-02-01"}, [("2024-01-01", "2024-02-01")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BACKDATED)
def test_a_backdated_change_names_exactly_the_spans_it_changes(name: str) -> None:
    line, expected = BACKDATED[name]
    hub = Driver()
    hub.submit(*estate())
    assert outcomes(hub.submit(line)) == ["applied"]
    (record,) = hub.channels()
    assert spans(record) == [(second(a), second(b)) for a, b in expected]


def test_what_does_not_concern_a_channel_is_not_told_of() -> None:
    hub = Driver()
    hub.submit(*estate())
    hub.submit({"kind": "device", "id": "D1", "model": "M"}, {"kind": "subscription", "id": "US1", "action": "patch", "rate": "R2"})
    assert not hub.channels()
    (usage,) = hub.told("reads.final")
    assert (usage["version"], spans(usage)) == (2, [(second("2024-01-01"), None)])
    assert (usage["periods"][0]["rate"], usage["periods"][0]["usage_group"]) == ("R2", "residential")


def test_a_rate_from_a_date_on_keeps_what_was_before() -> None:
    hub = Driver()
    hub.submit(*estate())
    hub.submit({"kind": "subscription", "id": "US1", "action": "patch", "rate": "R2", "from": "2024-06-01"})
    (usage,) = hub.told("reads.final")
    edge = second("2024-06-01")
    assert [(p["from"], p["to"], p["rate"]) for p in usage["periods"]] == [(second("2024-01-01"), edge, None), (edge, None, "R2")]
    assert spans(usage) == [(edge, None)]


def test_commodities_share_a_service_point() -> None:
    hub = Driver()
    hub.submit(*estate())
    lines: list[dict[str, Any]] = [
        {"kind": "service_point", "id": "SP1", "zone": "Europe/Berlin", "several": True},
        {"kind": "subscription", "id": "US1", "action": "patch", "commodity": "electricity"},
        {"kind": "subscription", "id": "GAS", "account": "A1", "service_points": ["SP1"], "commodity": "gas"},
        {"kind": "device", "id": "G"},
        {"kind": "component", "id": "G/v", "device": "G", "channel": "v", "unit": "m3", "commodity": "gas"},
        {"kind": "component", "id": "D1/1.8.0", "action": "patch", "commodity": "electricity"},
        {"kind": "install", "id": "IG", "device": "G", "service_point": "SP1", "event": "install", "at": "2024-01-01"},
    ]
    assert outcomes(hub.submit(*lines)) == ["applied"] * 7
    accounts = {record["channel"]: record["account"] for record in hub.channels()}
    assert accounts == {"v": "GAS"}  # nothing else of the electricity meter, which stays with the other one


def test_retiring_a_device_ends_its_parts() -> None:
    hub = Driver()
    hub.submit(*estate())
    gone = {"kind": "install", "id": "R", "device": "D1", "service_point": "SP1", "event": "remove", "at": "2024-06-01"}
    assert outcomes(hub.submit(gone, {"kind": "device", "id": "D1", "action": "end", "from": "2024-06-01"})) == ["applied"] * 2
    assert hub.fold.registry.get(("component", "D1/1.8.0")).spans[-1][1] == second("2024-06-01")


def test_a_newer_word_on_an_object_takes_the_place_of_one_that_waits() -> None:
    hub = Driver()
    hub.submit(*estate())
    (waiting,) = hub.submit({"kind": "subscription", "id": "US9", "account": "A9", "service_points": []})
    assert waiting["outcome"] == "parked"
    changes = hub.submit({"kind": "subscription", "id": "US9", "account": "A1", "service_points": []})
    assert [(c["item"], c["outcome"]) for c in changes] == [("m3/0", "applied"), ("m2/0", "refused")]
    assert outcomes(hub.submit({"kind": "account", "id": "A9"})) == ["applied"]
    assert hub.fold.registry.get(("subscription", "US9")).spans[0][2]["account"] == "A1"


def test_agents_that_ask_hear_the_answer() -> None:
    hub = Driver()
    hub.submit(estate()[0], answer="enterprise.inbox", answer_partition=3)
    (output, body) = next(pair for pair in hub.last if pair[0].topic == "enterprise.inbox")
    assert (output.partition, output.key, body["outcome"]) == (3, b"m1", "applied")


def test_a_channel_given_whole_is_kept_and_yields_to_a_component() -> None:
    hub = Driver()
    line = {"device": "D1", "channel": "1.8.0", "unit": "kWh", "account": "old"}
    (change,) = hub.take("MasterChannel", line)
    assert (change["kind"], change["object"], change["outcome"]) == ("channel", "D1/1.8.0", "applied")
    assert outcomes(hub.take("MasterChannel", line)) == ["unchanged"]
    hub.submit(*estate())
    (change,) = hub.take("MasterChannel", line)
    assert (change["outcome"], change["reason"]) == ("refused", "this channel is made of component D1/1.8.0")
    (again,) = hub.channels()
    assert again["account"] == "US1"


def test_what_is_forgotten_leaves_the_id() -> None:
    hub = Driver()
    hub.submit({"kind": "person", "id": "P", "sealed": "ciphertext"}, {"kind": "account", "id": "A", "person": "P"})
    (change,) = hub.submit({"kind": "person", "id": "P", "action": "forget"})
    assert [span["body"] for span in change["spans"]] == ['{"erased":true}']
    assert hub.fold.registry.users(("person", "P"), "account") == ["A"]
    (change,) = hub.submit({"kind": "person", "id": "P", "sealed": "again"})  # the next extract must not bring it back
    assert (change["outcome"], change["reason"]) == ("refused", "the data of person P were erased: who comes back is another person")
