"""Filters, addresses, circuits, secrets, the fold of the registry, objects: each by itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.clickhouse.store import StoreError
from connectors.subscribers import objects, signing
from connectors.subscribers.circuit import OPENS_AFTER, Circuit, pause
from connectors.subscribers.filters import Wanted, commodity_of, matcher
from connectors.subscribers.guard import ForbiddenError, Guard, UnresolvedError
from connectors.subscribers.objects import DEFINITIONS, Reader, Record, describe, json_schema, record_types
from connectors.subscribers.parcel import AwayError, parcel_of
from connectors.subscribers.past import Regions
from connectors.subscribers.registry import folded
from connectors.subscribers.secrets import SecretError, Secrets, key_id
from schemas.topology import TopologyError, parse_topology
from schemas.topology.subscribers import DeliverySettings, Filter, Retry, Subscriber
from tests.subscribers.kit import CODEC, SECRET, TOPOLOGY, determinant

PUBLIC = "93.184.216.34"


# --- filters


@pytest.mark.parametrize(
    ("channel", "unit", "commodity"),
    [
        ("1-0:1.8.0*255", "m3", "electricity"), ("1.0.1.8.0.255", "", "electricity"), ("7-0:3.0.0", "m3", "gas"),
        ("8-0:1.0.0", "m3", "water"),
        ("6-0:1.0.0", "kWh", "heat"), ("1.8.0", "kWh", "electricity"), ("E1", "kvarh", "electricity"), ("flow", "m3", ""),
        ("x", "Gcal", "heat"), ("x", "therm", "gas"), ("x", "L", "water"), ("1.8.0", "m3", ""),
    ],
)  # fmt: skip
def test_commodity_by_medium_then_by_unit(channel: str, unit: str, commodity: str) -> None:
    assert commodity_of(channel, unit) == commodity


@given(st.text("ab*[?]x", max_size=8))
def test_only_the_star_is_special_in_patterns(text: str) -> None:
    plain = text.replace("*", "")
    assert matcher([plain])(plain)
    assert matcher([f"{plain}*"])(plain + "anything\nelse")
    assert not matcher([f"a{plain}*"])("z" + plain)


def test_every_list_must_match_and_a_missing_field_does_not() -> None:
    settings = DeliverySettings.model_validate({"regions": {"north": {"service_points": ["N-*"]}}})

    def wanted(item: dict[str, Any], **lists: Any) -> bool:
        return Wanted(Filter.model_validate(lists), settings)("determinants", item)

    item = {"account": "a-1", "service_point": "N-7", "unit": "kWh", "channel": "1.8.0", "kind": "k"}
    assert wanted(item)
    assert wanted(item, account=["a-*"], unit=["kWh"], region=["north"], commodity=["electricity"])
    assert not wanted(item, account=["a-*"], unit=["m3"])
    assert not wanted(item, rule=["*"])
    assert not wanted({**item, "service_point": "S-1"}, region=["north"])
    assert wanted({**item, "service_point": "S-1", "region": "north"}, region=["no*"]), "a record may know its region itself"
    assert not wanted({**item, "account": None}, account=["*"])


def test_regions_of_service_points_come_from_master_data_and_are_looked_up_again_now_and_then() -> None:
    now, rows = [0.0], [{"object": "sp-1", "region": "north"}]

    class Store:
        def rows(self, *_: Any) -> list[dict[str, Any]]:
            if not rows:
                raise StoreError("away")
            return list(rows)

    regions = Regions(Store(), clock=lambda: now[0])
    wanted = Wanted(Filter(region=["no*"]), DeliverySettings(), regions.of)
    assert wanted("determinants", {"service_point": "sp-1"})
    assert not wanted("determinants", {"service_point": "sp-2"})
    assert not wanted("determinants", {"service_point": ""})
    assert not wanted("determinants", {"service_point": "sp-1", "region": "south"}), "a record's own region goes before"
    rows[:] = [{"object": "sp-2", "region": "north"}]
    assert wanted("determinants", {"service_point": "sp-1"}), "not asked again yet"
    now[0] = 61
    assert not wanted("determinants", {"service_point": "sp-1"})
    rows.clear()
    now[0] = 200
    assert wanted("determinants", {"service_point": "sp-2"}), "what was known holds while the store is away"
    with pytest.raises(AwayError):
        Regions(Store()).of("sp-1")


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "ff02::1", "::",
    ],
)  # fmt: skip
def test_addresses_inside_are_refused_by_name_and_by_number(address: str) -> None:
    with pytest.raises(ForbiddenError):
        Guard(DeliverySettings(), lambda *_: [address]).address("innocent.example", 443)
    with pytest.raises(ForbiddenError):
        Guard(DeliverySettings(), lambda *_: [PUBLIC]).check_name(address)


def test_a_name_with_one_private_address_is_refused_whole() -> None:
    with pytest.raises(ForbiddenError):
        Guard(DeliverySettings(), lambda *_: [PUBLIC, "10.0.0.1"]).address("two.example", 443)


def test_a_name_that_changes_its_mind_is_looked_at_every_time() -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]
    guard = Guard(DeliverySettings(), lambda *_: answers.pop(0))
    assert guard.address("rebind.example", 443) == PUBLIC
    with pytest.raises(ForbiddenError):
        guard.address("rebind.example", 443)


def test_networks_hosts_and_plain_http_of_the_settings() -> None:
    inside = DeliverySettings(networks=["10.20.0.0/16"], hosts=["*.utility.example"], plain_http=True)
    guard = Guard(inside, lambda *_: ["10.20.1.1"])
    assert guard.address("crm.utility.example", 80, "http") == "10.20.1.1"
    with pytest.raises(ForbiddenError, match=r"delivery\.hosts"):
        guard.check_name("utility.example.evil.example")
    with pytest.raises(ForbiddenError, match="not public"):
        Guard(inside, lambda *_: ["10.21.0.1"]).address("crm.utility.example", 443)
    with pytest.raises(ForbiddenError, match=r"delivery\.networks only"):
        Guard(inside, lambda *_: [PUBLIC]).address("crm.utility.example", 80, "http")
    with pytest.raises(ForbiddenError, match="not encrypted"):
        Guard(DeliverySettings(), lambda *_: [PUBLIC]).address("crm.example", 80, "http")
    with pytest.raises(UnresolvedError):
        Guard(DeliverySettings(), lambda *_: []).address("crm.example", 443)


# --- circuits


def test_the_circuit_opens_probes_once_and_closes() -> None:
    now = [0.0]
    circuit = Circuit(Retry(first=10, most=100, patience=1000), clock=lambda: now[0], chance=lambda: 1.0)
    for _ in range(OPENS_AFTER):
        assert circuit.admit() == 0
        circuit.failed("away")
    assert circuit.state == "open"
    assert circuit.admit() > 0
    now[0] += 40
    assert circuit.state == "half-open"
    assert circuit.admit() == 0
    assert circuit.admit() > 0, "one probe at a time"
    circuit.failed("still away")
    assert circuit.admit() > 0
    now[0] += 80
    assert circuit.admit() == 0
    circuit.succeeded()
    assert (circuit.state, circuit.admit(), circuit.exhausted) == ("closed", 0, False)
    circuit.failed("again")
    now[0] += 1001
    assert circuit.exhausted


@given(st.integers(1, 500), st.floats(0, 1))
def test_pauses_grow_and_never_leave_their_bounds(failures: int, chance: float) -> None:
    retry = Retry(first=2, most=300)
    assert 1 <= pause(retry, failures, lambda: chance) <= 300
    assert pause(retry, failures, lambda: 0.0) <= pause(retry, failures + 1, lambda: 0.0)


# --- secrets and signatures


def test_secrets_come_from_their_own_folder_or_prefix_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "subscribers").mkdir()
    (tmp_path / "subscribers" / "crm").write_bytes(b"x" * 24 + b"\r\n")
    (tmp_path / "kafka_password").write_text("not for you")
    secrets = Secrets(tmp_path, {"MDH_SUBSCRIBER_SECRET_MY_ERP": "e" * 24, "MDH_KAFKA__SECURITY__PASSWORD": "no"})
    assert secrets.signing_key("crm") == b"x" * 24
    assert secrets.get("my-erp") == b"e" * 24
    for name in ("kafka_password", "../kafka_password", "..", "/etc/passwd", "", "kafka-password", "UPPER"):
        with pytest.raises(SecretError):
            secrets.get(name)


def test_secrets_of_the_standard_webhooks_kind_are_decoded_and_short_ones_refused() -> None:
    encoded = base64.b64encode(bytes(range(32))).decode()
    secrets = Secrets(
        None, {"MDH_SUBSCRIBER_SECRET_A": f"whsec_{encoded}", "MDH_SUBSCRIBER_SECRET_B": "short", "MDH_SUBSCRIBER_SECRET_C": "whsec_!"}
    )
    assert secrets.signing_key("a") == bytes(range(32))
    for name in "bc":
        with pytest.raises(SecretError) as caught:
            secrets.signing_key(name)
        assert "short" not in str(caught.value)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks specification's reference implementations."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signing.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert key_id(key) not in made


# --- registry


def change(version: int, **changes: Any) -> dict[str, Any]:
    spec = {"objects": ["audit"], "channel": {"kind": "kafka"}}
    return {
        "id": "s", "version": version, "at": 1000 * version, "actor": "x", "action": "change", "reason": "", "request": "r",
        "origin": "api", "status": "active", "epoch": 1, "position": "now", "spec": orjson.dumps(spec).decode(), **changes,
    }  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["active", "paused"])), max_size=20))
def test_of_two_writers_of_a_version_the_first_counts(records: list[tuple[int, str]]) -> None:
    entry, expected = None, []
    for version, status in records:
        entry = folded(entry, change(version, status=status))
        if version == len(expected) + 1:
            expected.append(status)
    assert (entry.version if entry else 0) == len(expected)
    assert not expected or entry.status == expected[-1]


def test_the_moment_of_a_position_is_that_of_the_version_that_set_it() -> None:
    entry = folded(folded(folded(None, change(1)), change(2)), change(3, epoch=3, position="2026-01-01"))
    assert (entry.positioned, entry.position) == (3000, "2026-01-01")
    assert folded(entry, change(4, epoch=3, position="2026-01-01")).positioned == 3000


# --- objects


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_object_is_described_and_its_sample_fits_its_schema(name: str) -> None:
    found = describe(TOPOLOGY, CODEC, name)
    assert found["available"] == bool(record_types(TOPOLOGY, name))
    if found["available"]:
        schema = json_schema(TOPOLOGY, name)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(found["sample"])
        assert {field["name"] for field in found["fields"]} == set(found["sample"])
        assert found["schema_versions"]


def test_items_of_real_records_fit_the_schema() -> None:
    reader = Reader(CODEC, frozenset({"determinants"}), lambda *_: True)
    [unit] = reader.units(Record("billing.determinants", 0, 5, 0, "k", CODEC.encode("Determinant", determinant(1))))
    jsonschema.Draft202012Validator(json_schema(TOPOLOGY, "determinants")).validate(unit.items[0])


def test_a_delivery_has_one_id_however_often_it_is_made_and_another_for_anything_else() -> None:
    def made(number: int, version: int = 1, subscriber: str = "s", offset: int = 5, again: str = "") -> str:
        reader = Reader(CODEC, frozenset({"determinants"}), lambda *_: True)
        [unit] = reader.units(
            Record("billing.determinants", 0, offset, 0, "k", CODEC.encode("Determinant", determinant(number, version=version)))
        )
        return parcel_of(subscriber, [unit], 1, again=again).id

    assert made(1) == made(1, offset=9), "the same thing at another place is the same delivery"
    assert len({made(1), made(2), made(1, 2), made(1, subscriber="t"), made(1, again="x")}) == 5


def test_ticks_labels_and_the_like_are_no_items() -> None:
    reader = Reader(CODEC, frozenset(DEFINITIONS), lambda *_: True)
    assert not list(reader.units(Record("reads.final", 0, 0, 0, "", CODEC.encode("Tick", {"at": 5, "close": True}))))


def test_device_events_are_decoded_and_have_ids_of_their_own() -> None:
    reader = Reader(CODEC, frozenset({"device-events"}), Wanted(Filter(kind=["outage"]), DeliverySettings()))
    events = [{"device": "m1", "kind": kind, "at": "2026-01-01T00:00:00Z"} for kind in ("outage", "restore")]
    [unit] = reader.units(Record("hes.events", 0, 0, 0, "hes", orjson.dumps({"source": "hes", "events": events})))
    assert [item["kind"] for item in unit.items] == ["outage"]
    jsonschema.Draft202012Validator(json_schema(TOPOLOGY, "device-events")).validate(unit.items[0])
    with pytest.raises(ValueError, match="JSON"):
        list(reader.units(Record("hes.events", 0, 0, 0, "hes", b"\0")))


def test_final_keys_are_what_filters_see() -> None:
    block = objects.sample_block()
    assert objects.final_keys(block)[0].items() <= objects.final_items(block)[0].items()


# --- settings


def topology_with(text: str) -> str:
    source = (Path(__file__).resolve().parent.parent.parent / "topology.yaml").read_text()
    return f"{source}\nsubscribers:\n{text}\n"


GOOD = "  crm:\n    objects: [determinants]\n    channel: {kind: webhook, url: 'https://crm.example/in', secrets: [crm]}\n"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("https://crm.example/in", "ftp://crm.example", "must be https://"),
        ("https://crm.example/in", "https://user:pw@crm.example", "no user, password"),
        ("[determinants]", "[nonsense]", "must be"),
        ("[determinants]", "[determinants, determinants]", "twice"),
        ("secrets: [crm]", "secrets: []", "at least 1 item"),
        ("secrets: [crm]", "secrets: [../crm]", "pattern"),
        ("secrets: [crm]", "secrets: [crm], headers: {webhook-id: x}", "set by the hub"),
        ("kind: webhook, url: 'https://crm.example/in', secrets: [crm]", "kind: file, folder: ../../etc", "below the outbox"),
        ("kind: webhook, url: 'https://crm.example/in', secrets: [crm]", "kind: file, folder: a, format: nem12", "holds final-intervals"),
        ("kind: webhook, url: 'https://crm.example/in', secrets: [crm]", "kind: kafka, topic: vee.inbox", "names delivery as a writer"),
        ("kind: webhook, url: 'https://crm.example/in', secrets: [crm]",
         "kind: sftp, host: h.example, user: u, host_key: ssh-ed25519 AAAAAAAA",
         "key or password"),
        ("    channel", "    start: 2026-01-01T00:00:00\n    channel", "needs an offset"),
        ("  crm:", "  CRM:", "pattern"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_subscriber_of_the_topology_is_named_with_its_line(old: str, new: str, what: str) -> None:
    parse_topology(topology_with(GOOD))
    assert old in GOOD
    with pytest.raises(TopologyError) as caught:
        parse_topology(topology_with(GOOD.replace(old, new)))
    assert what in str(caught.value)
    lines = len(topology_with("").splitlines())
    assert all(int(line.split(":")[1]) >= lines - 1 for line in str(caught.value).splitlines())


def test_settings_survive_their_way_through_the_registry() -> None:
    spec = parse_topology(topology_with(GOOD)).subscribers["crm"]
    assert Subscriber.model_validate_json(orjson.dumps(spec.model_dump(mode="json"))) == spec
    assert SECRET not in str(spec)
