"""Master data by their doors: one message and what became of each item, objects as of a date, acts, comparison, erasure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from connectors.enterprise.persons import Vault, VaultError, master_key
from schemas.master import KINDS
from tests.master.conftest import Hub

PERSON = {"name": "Erika Mustermann", "address": "Hauptstraße 1", "phone": "+49 30 123456", "mail": "erika@example.org", "tax_id": "DE99X"}
ESTATE: list[dict[str, Any]] = [
    {"kind": "person", "id": "P1", **PERSON},
    {"kind": "account", "id": "A1", "person": "P1"},
    {"kind": "service_point", "id": "SP1", "zone": "Europe/Berlin"},
    {"kind": "device", "id": "D1"},
    {"kind": "component", "id": "D1/1.8.0", "device": "D1", "channel": "1.8.0", "unit": "kWh", "seconds": 900, "multiplier": "40"},
    {"kind": "component", "id": "D1/r", "device": "D1", "channel": "r", "unit": "kWh", "seconds": 0},
    {"kind": "install", "id": "I1", "device": "D1", "service_point": "SP1", "event": "install", "at": "2024-01-01"},
    {"kind": "subscription", "id": "US1", "account": "A1", "service_points": ["SP1"], "from": "2024-01-01", "rate": "R1"},
]


def ndjson(lines: list[dict[str, Any]]) -> bytes:
    return b"\n".join(orjson.dumps(line) for line in lines)


@pytest.fixture
def loaded(hub: Hub) -> Hub:
    assert [one.outcome for one in hub.service.submit(ESTATE, "first", source="cis")] == ["applied"] * 8
    return hub


def test_a_document_of_objects_and_channels_with_bad_lines_among_them(hub: Hub) -> None:
    lines: list[Any] = [
        *ESTATE,
        {"device": "M", "channel": "c"},
        {"kind": "component", "id": "x", "channel": "q"},
        {"kind": "meter", "id": "y"},
    ]
    lines += [{"kind": "device", "id": "old", "from": "1912-01-01"}, {"kind": "install", "id": "z", "device": "D1"}]
    answer = hub.desk.take(ndjson(lines) + b"\nnot json\n" + ndjson([{"kind": "component", "id": "w", "device": "later", "channel": "a"}]))
    assert (answer.accepted, answer.refused) == (10, 5)
    assert {error.line: error.message for error in answer.errors} == {
        10: "device is missing",
        11: f"kind must be one of {', '.join(KINDS)}, not 'meter'",
        12: "from lies outside the years 1970 to 2100",
        13: "an install event needs the time at which it happens: at",
        14: "is not JSON: Expecting value (column 1)",
    }
    assert [item.outcome for item in answer.items][-1] == "parked"
    assert len(answer.ids) == 1
    assert sorted(r["channel"] for r in hub.records("vee.inbox", "MasterChannel")) == ["1.8.0", "c", "r"]


def test_a_message_sent_again_changes_nothing_and_has_the_same_answer(loaded: Hub) -> None:
    first = loaded.service.submit(ESTATE, "first", source="cis")
    assert [one.outcome for one in first] == ["applied"] * 8
    assert [one.version for one in first] == [1] * 8
    assert {one.outcome for one in loaded.service.submit(ESTATE, "second", source="cis")} == {"unchanged"}
    assert len(loaded.service.outcomes("first")) == 8
    assert len(loaded.records("reads.final", "UsageSubscription")) == 1


def test_one_bad_item_among_a_thousand(loaded: Hub) -> None:
    lines: list[dict[str, Any]] = [{"kind": "device", "id": f"N{n}"} for n in range(1000)]
    lines[500] = {"kind": "install", "id": "I2", "device": "D1", "service_point": "SP1", "event": "install", "at": "2025-01-01"}
    outcomes = loaded.service.submit(lines, "bulk", source="cis")
    assert [n for n, one in enumerate(outcomes) if one.outcome != "applied"] == [500]
    assert outcomes[500].reason.startswith("device D1 is installed at SP1 since 2023-12-31T23:00:00Z")
    assert len(loaded.reader.rows("SELECT id FROM master WHERE kind = 'device'", {})) == 1000


def test_an_object_as_of_a_date_with_its_history(loaded: Hub, client: TestClient) -> None:
    changed = client.patch("/v1/master/subscription/US1", json={"rate": "R2", "from": "2025-01-01"})
    assert (changed.status_code, changed.json()["outcome"]) == (200, "applied")
    rates = {
        day: client.get("/v1/master/subscription/US1", params={"as_of": day}).json()["attributes"].get("rate")
        for day in ("2023-06-01", "2024-06-01", "2025-06-01")
    }
    assert rates == {"2023-06-01": None, "2024-06-01": "R1", "2025-06-01": "R2"}
    history = client.get("/v1/master/subscription/US1", params={"history": True}).json()["history"]
    assert [(old["version"], old["action"], len(old["spans"])) for old in history] == [(1, "put", 1), (2, "patch", 2)]
    listed = client.get("/v1/master/subscription", params={"as_of": "2025-06-01"}).json()
    assert [(row["id"], row["valid_from"], row["attributes"]["rate"]) for row in listed["items"]] == [("US1", "2024-12-31T23:00:00Z", "R2")]
    assert client.get("/v1/master/subscription/none").status_code == 404


def test_lists_come_in_pages(loaded: Hub, client: TestClient) -> None:
    loaded.service.submit([{"kind": "device", "id": f"N{n:02}"} for n in range(25)], "m", source="cis")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/master/device", params={"limit": 10, **cursor}).json()
        seen += [row["id"] for row in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert seen == ["D1", *(f"N{n:02}" for n in range(25))]


def test_a_swap_in_one_act_with_its_readings(loaded: Hub, client: TestClient) -> None:
    asked = {"device": "D2", "at": "2025-03-01T10:00:00Z", "removal_readings": {"r": "1234.5"}, "start_readings": {"r": "0"}}
    answer = client.post("/v1/master/device/D1/exchange", json=asked)
    assert (answer.status_code, answer.json()["counts"]) == (200, {"applied": 5})
    reads = [json.loads(record.value) for record in loaded.log("hes.reads")]
    assert [(r["device"], r["channel"], r["unit"], r["readings"][0]["value"]) for r in reads[0]["reads"]] == [
        ("D1", "r", "kWh", "1234.5"),
        ("D2", "r", "kWh", "0"),
    ]
    assert client.post("/v1/master/device/D1/exchange", json=asked).json()["detail"] == "device D1 is not installed at 2025-03-01T10:00:00Z"
    new = [r for r in loaded.records("vee.inbox", "MasterChannel") if r["device"] == "D2" and r["channel"] == "1.8.0"]
    assert (new[-1]["account"], new[-1]["multiplier"]) == ("US1", 40_000_000)


def test_events_configurations_and_moves_by_their_routes(loaded: Hub, client: TestClient) -> None:
    cut = client.post("/v1/master/device/D1/disconnect", json={"at": "2025-02-01T00:00:00Z", "reason": "unpaid"})
    assert cut.json()["counts"] == {"applied": 1}
    set_up = {"at": "2025-02-10T00:00:00Z", "configuration": "C2", "components": {"1.8.0": {"multiplier": 50}}}
    assert client.post("/v1/master/device/D1/configuration", json=set_up).json()["counts"] == {"applied": 2}
    move = {"at": "2025-03-01T00:00:00Z", "subscription": "US2", "account": "A1", "attributes": {"payment": "prepaid"}}
    assert client.post("/v1/master/service_point/SP1/account", json=move).json()["counts"] == {"applied": 2}
    last = [r for r in loaded.records("vee.inbox", "MasterChannel") if r["channel"] == "1.8.0"][-1]
    told = [(p["state"], p["multiplier"] // 1_000_000, p["account"]) for p in last["periods"]]
    assert told == [("connected", 40, "US1"), ("disconnected", 40, "US1"), ("disconnected", 50, "US1"), ("disconnected", 50, "US2")]
    assert client.post("/v1/master/device/none/disconnect", json={"at": "2025-02-01T00:00:00Z"}).status_code == 409
    assert client.post("/v1/master/device/D1/disconnect", json={"at": "2025-02-01T00:00:00"}).status_code == 422
    assert client.post("/v1/master/device/D1/retire", json={"at": "2025-04-01T00:00:00Z"}).status_code == 409
    assert client.delete("/v1/master/account/A1").json()["detail"].endswith("account A1 cannot be taken away as if it never was")


def test_what_is_exported_says_the_same_when_loaded(loaded: Hub, client: TestClient) -> None:
    text = client.get("/v1/master/export", params={"personal": True}).content
    answer = loaded.desk.take(text)
    assert {item.outcome for item in answer.items} == {"unchanged"}
    assert len(answer.items) == 8
    assert b"person" not in client.get("/v1/master/export").content.replace(b'"person":"P1"', b"")


def test_an_extract_is_compared_and_applied(loaded: Hub, client: TestClient) -> None:
    extract = [dict(line) for line in ESTATE if line["id"] != "D1/r"]
    extract[0]["mail"] = "new@example.org"
    extract[-1]["rate"] = "R7"
    extract.append({"kind": "device", "id": "D9"})
    before = dict(loaded.pipeline.states["master", 0])
    told = [json.loads(line) for line in client.post("/v1/master/diff", content=ndjson(extract)).text.splitlines()]
    assert loaded.pipeline.states["master", 0] == before
    assert told[-1] == {"added": 1, "changed": 2, "ended": 1, "unchanged": 5, "errors": []}
    fields = {(one["kind"], f["name"]): (f["here"], f["there"]) for one in told[:-1] for f in one["fields"]}
    assert fields == {("person", "mail"): (PERSON["mail"], "new@example.org"), ("subscription", "rate"): ("R1", "R7")}
    assert [(one["change"], one["id"]) for one in told[:-1] if not one["fields"]] == [("added", "D9"), ("ended", "D1/r")]
    applied = client.post("/v1/master/diff", params={"apply": True}, content=ndjson(extract)).text.splitlines()[-1]
    assert json.loads(applied)["outcomes"] == {"applied": 4}
    again = client.post("/v1/master/diff", content=ndjson(extract)).text.splitlines()[-1]
    assert json.loads(again) == {"added": 0, "changed": 0, "ended": 0, "unchanged": 8, "errors": []}


def test_no_plain_text_of_a_person_leaves_the_door(loaded: Hub, client: TestClient) -> None:
    assert client.get("/v1/master/person/P1").json()["attributes"] == PERSON
    kafka = b"".join((r.value or b"") + r.key for topic in list(loaded.pipeline.topics) for r in loaded.log(topic))
    kafka += b"".join(value or b"" for rows in loaded.pipeline.states.values() for value in rows.values())
    stored = b"".join(
        orjson.dumps(row, default=str)
        for table in ("master_items", "master_objects", "master_versions", "master", "master_history")
        for row in loaded.reader.rows(f"SELECT * FROM {table}", {})
    )
    for text in PERSON.values():
        assert text.encode() not in kafka
        assert text.encode() not in stored
    assert b"sealed" in kafka
    assert b"sealed" in stored


def test_an_erased_person_is_gone_and_their_bills_stay(loaded: Hub, client: TestClient) -> None:
    sealed = orjson.loads(loaded.reader.rows("SELECT span_body[1] AS body FROM master_objects FINAL WHERE kind = 'person'", {})[0]["body"])[
        "sealed"
    ]
    assert client.delete("/v1/master/person/P1/data").json()["outcome"] == "applied"
    assert loaded.vault.open("P1", sealed) is None
    assert client.get("/v1/master/person/P1", params={"history": True}).json()["attributes"] == {"erased": True}
    assert client.get("/v1/master/account/A1").json()["attributes"] == {"person": "P1"}
    back = client.put("/v1/master/person/P1", json={"name": "Erika Mustermann"})
    assert (back.status_code, back.json()["detail"]) == (409, "the data of person P1 were erased: who comes back is another person")
    told = client.post("/v1/master/diff", content=ndjson(ESTATE)).text.splitlines()[-1]
    assert json.loads(told)["changed"] == 0
    assert client.delete("/v1/master/person/nobody/data").status_code == 409


# --- the keys of persons ------------------------------------------------------------------------------------------------------


def test_a_vault_seals_per_person_and_forgets(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "keys", b"1" * 32)
    one, other = vault.seal("a", {"name": "N"}), vault.seal("b", {"name": "N"})
    assert one != other
    assert vault.seal("a", {"name": "N"}) == one
    assert vault.seal("a", {"name": "M"})[:16] != one[:16]
    assert vault.open("a", one) == {"name": "N"}
    with pytest.raises(VaultError, match="not sealed with their key"):
        vault.open("a", other)
    assert vault.forget("a")
    assert vault.open("a", one) is None
    assert not vault.forget("a")
    assert vault.open("b", other) == {"name": "N"}
    vault.close()


def test_a_forgotten_key_is_not_in_the_file(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "keys", b"1" * 32)
    vault.seal("somebody", {"name": "N"})
    wrapped = vault._database.execute("SELECT wrapped FROM keys WHERE person = 'somebody'").fetchone()[0]
    assert wrapped in (tmp_path / "keys").read_bytes()
    vault.forget("somebody")
    assert wrapped not in (tmp_path / "keys").read_bytes()
    vault.close()


def test_a_wrong_master_key_is_told_at_once(tmp_path: Path) -> None:
    Vault(tmp_path / "keys", b"1" * 32).close()
    with pytest.raises(VaultError, match="wrapped by another master key"):
        Vault(tmp_path / "keys", b"2" * 32)


def test_the_file_of_the_master_key(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with pytest.raises(VaultError, match="No such file"):
        master_key(path, make=False)
    key = master_key(path, make=True)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert master_key(path, make=True) == key
    path.write_bytes(b"short")
    with pytest.raises(VaultError, match="must be 32 bytes"):
        master_key(path, make=False)
