"""Somebody whose rights hold in an area asks at every door there is: nothing from outside the area is ever in an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, cast

import httpx
import orjson
import pytest
from fastapi.testclient import TestClient

from connectors.clickhouse import migrate
from connectors.clickhouse.store import Store, open_store
from connectors.console import figures
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import Writer
from connectors.head_end.reading import StoreReader
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from connectors.rights import policy, scope
from connectors.rights.accounts import UserSpec, new_token
from connectors.rights.roles import Area
from mdh.parts import PARTS, RIGHTS_PART, Surroundings, build_parts
from schemas.codec import Codec
from schemas.topology import load_topology
from schemas.topology.rights import Grant
from tests.brokers import begin_topics
from tests.console.estate import ZONE, put
from tests.rights.test_policy import doors, whole_app

IN, OUT = "AREAIN", "AREAOUT"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DAY = (NOW.astimezone(ZONE) - timedelta(days=1)).replace(hour=0)
KINDS = ("service_point", "device", "component", "install", "subscription", "contract", "account")
BOUNDED = ("fleet", "reads", "vee", "todos", "exceptions", "billing", "prepaid", "events", "temperature")


def named(side: str, count: int) -> list[str]:
    """Ids that paths may name."""
    stems = ("D", "SP", "A", "X", "T", "U", "O", "Q")
    return [f"{side}-{stem}{number}" for stem in stems for number in range(count)]


def seed(store: Store, side: str, count: int) -> None:
    """So many meters of an area, with everything there can be about a meter; every text names the side."""
    place = {"zone": "Europe/Madrid", "region": side, "grid_area": f"G-{side}", "commodity": "electricity"}
    objects, both = [], {"channel": "A+", "payload": f"{side}-Q0", "status": "open", "version": 1}
    for n in range(count):
        device, point, account = f"{side}-D{n}", f"{side}-SP{n}", f"{side}-A{n}"
        about = {"device": device, "service_point": point}
        objects += [
            ("service_point", point, place), ("device", device, {"head_end": f"{side}-H", "dcu": f"{side}-DCU", "serial": f"{side}-S{n}"}),
            ("component", f"{side}-C{n}", {"device": device, "channel": "A+", "unit": "kWh", "seconds": 3600}),
            ("install", f"{side}-I{n}", {**about, "event": "install"}),
            ("install", f"{side}-J{n}", {"device": f"{side}-W{n}", "service_point": point, "event": "install"}),
            ("subscription", account, {"account": f"{side}-P{n}", "service_points": [point]}),
            ("contract", f"{side}-K{n}", {"subscription": account, "account": f"{side}-P{n}"}),
            ("account", f"{side}-P{n}", {"person": f"{side}-N{n}"}),
        ]  # fmt: skip
        days = {
            **about, "channel": "A+", "unit": "kWh", "account": account, "zone": "Europe/Madrid", "direction": 1, "day": DAY.date(),
            "day_start": DAY, "seconds": 3600, "step": 1000, "version": 1, "state": 1, "multiplier": 1_000_000,
            "values": [100 + n] * 24, "conditions": [500_000] * 20 + [100_000] * 4, "methods": [0] * 24, "payload": f"{side}-Q0",
            "source": f"{side}-H",
        }  # fmt: skip
        put(store, "final_days", [days, days | {"device": f"{side}-W{n}", "channel": "T", "unit": "C", "account": ""}])
        put(store, "vee_exceptions", [
            {**both, **about, "id": f"{side}-X{n}", "rule": "interval-spike", "severity": "issue", "start": DAY, "end": NOW, "count": 1,
             "detail": f"{side} is far above"}
        ])  # fmt: skip
        put(store, "register_reads", [
            {**about, "channel": "R", "unit": "kWh", "zone": "Europe/Madrid", "at": DAY, "account": account, "reading": 7, "version": 1,
             "condition": 500_000, "multiplier": 1_000_000, "source": f"{side}-H"}
        ])  # fmt: skip
        put(store, "event_log", [
            {"id": f"{side}-E{n}", "device": device, "kind": f"{side}-outage", "at": DAY, "source": f"{side}-H", "severity": "warning",
             "detail": side, "code": "1"}
        ])  # fmt: skip
        todo = {
            **about, "id": f"{side}-T{n}", "version": 1, "type": "validation", "state": "open", "priority": 5, "role": "clerk",
            "subject": f"{device}/A+", "channel": "A+", "account": account, "payload": f"{side}-Q0", "rule": "interval-spike",
            "severity": "issue", "count": 1, "open": 1, "first_seen": DAY, "last_seen": DAY, "start": DAY, "end": NOW, "region": side,
            "assign_by": DAY, "resolve_by": DAY, "detail": side, "exceptions": [f"{side}-X{n}"],
        }  # fmt: skip
        put(store, "todo_items", [todo])
        put(store, "todo_open", [todo])
        put(store, "todo_event_log", [{"id": f"{side}-h{n}", "todo": f"{side}-T{n}", "version": 1, "at": DAY, "action": "created"}])
        put(store, "bill_determinants", [
            {**about, "id": f"{side}-B{n}", "account": account, "channel": "A+", "period": "month", "period_start": DAY, "period_end": NOW,
             "kind": f"{side}-consumption", "tou": "peak", "unit": "kWh", "quantity": "4.125", "condition": 500_000, "status": "released",
             "version": 1, "reason": side}
        ])  # fmt: skip
        put(store, "usage_transactions", [
            {"id": f"{side}-U{n}", "usage": f"{side}-U{n}", "account": account, "group": "residential", "period_start": DAY,
             "period_end": NOW, "trigger": "cycle", "status": "sent", "version": 1, "reason": side, "at": NOW}
        ])  # fmt: skip
        put(store, "prepaid_account_states", [
            {**about, "account": account, "version": 1, "as_of": NOW, "zone": "Europe/Madrid", "tariff": f"{side}-home", "currency": "EUR",
             "balance": 100 + n, "state": "on", "level": "normal", "days_left": 9, "postings": 1}
        ])  # fmt: skip
        put(store, "prepaid_postings", [
            {"id": f"{side}-L{n}", "account": account, "sequence": 1, "at": NOW, "kind": "payment", "amount": 5, "currency": "EUR",
             "change": 5, "balance": 5, "reason": side}
        ])  # fmt: skip
        put(store, "device_command_log", [
            {"id": f"{side}-O{n}", "device": device, "action": "connect", "issued_at": NOW, "expires_at": NOW, "reason": side}
        ])  # fmt: skip
        put(store, "audit_events", [
            {"id": f"{side}-Y{n}", "at": NOW, "actor": "maria", "action": "estimate", "subject": device, "device": device, "channel": "A+",
             "start": DAY, "end": NOW, "reason": side, "outcome": "applied", "command": f"{side}-O{n}"}
        ])  # fmt: skip
    put(store, "delivery_log", [
        {"id": f"{side}-V", "subscriber": f"{side}-V", "object": "determinants", "status": "delivered", "version": 1, "at": NOW,
         "since": NOW, "records": 4, "code": 200}
    ])  # fmt: skip
    put(store, "master_objects", [
        {"kind": kind, "object": id, "version": 1, "sequence": n, "at": NOW, "source": f"{side}-S", "action": "put", "span_from": [-1],
         "span_to": [-1], "span_body": [orjson.dumps(body).decode()]}
        for n, (kind, id, body) in enumerate(objects)
    ])  # fmt: skip


@dataclass
class Hub:
    """All parts of a hub over a store and a mock broker; ``only`` are the widgets when the store held the inside alone."""

    client: TestClient
    reader: StoreReader
    only: dict[str, figures.Content]
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)

    def ask(self, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return cast(httpx.Response, self.client.request(method, path, headers=self.tokens[who], json=body))


def widgets(reader: StoreReader, area: scope.Within) -> dict[str, figures.Content]:
    span = figures.Span(NOW + timedelta(hours=1), 3)
    return {name: figures.WIDGETS[name](reader, span, area) for name in BOUNDED}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder: Path = tmp_path_factory.mktemp("walk")
    topology, codec, stop = load_topology(), Codec(), threading.Event()
    store = open_store(f"chdb://{folder}/store")
    migrate.up(store)
    reader = StoreReader(store, 4)
    seed(store, IN, 1)
    only = widgets(reader, scope.EVERYWHERE)
    seed(store, OUT, 3)
    with MockBroker() as broker, pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("MDH_RIGHTS_MODE", "enforced")
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        begin_topics(kafka, topology)
        writer = Writer(kafka, max_bytes=1_000_000, timeout=30)
        parts: list[Any] = build_parts(Surroundings(topology, kafka, codec, store, reader, writer, folder))
        rights, followed = parts[RIGHTS_PART].rights, ("rights", "sessions", "audit", "console", "delivery-registry", "registry")
        loops = {name: loop for part in parts for name, loop in part.loops().items() if name in followed}
        threads = [threading.Thread(target=loop, args=(stop,), daemon=True) for loop in loops.values()]
        for thread in threads:
            thread.start()
        assert rights.accounts.wait_ready(60)
        assert rights.sessions.wait_ready(60)
        nothing = cast(Any, None)
        routers = [part.routes(service) for part, service in zip(PARTS, parts, strict=True) if part.routes]
        app = create_app(Desk(nothing, cast(Any, reader), nothing, list), routers, rights)
        client = stack.enter_context(TestClient(app, base_url="http://hub", raise_server_exceptions=False, follow_redirects=False))
        found = Hub(client, reader, only)
        for name, grant in (("ina", Grant(role="admin", region=IN)), ("root", Grant(role="admin"))):
            spec = UserSpec(password="", epoch=1, grants=(grant,))
            rights.accounts.put(f"user/{name}", spec, "create", actor="test", before=None)
            secret = new_token(rights.accounts, name, "", None, int(rights.clock()) + 86_400, actor="test").secret
            found.tokens[name] = {"Authorization": f"Bearer {secret}"}
        yield found
        stop.set()
        for thread in threads:
            thread.join(30)
        for part in parts:
            part.close()
        writer.close(1)
    store.close()


def paths(pattern: str, side: str) -> Iterator[tuple[str, list[str]]]:
    """Addresses of a route that name things of a side, each with all that it names."""
    choices: dict[str, list[str]] = {
        "kind": ["csv", "parquet"] if "reads." in pattern else list(KINDS), "device": [f"{side}-D0"],
        "name": list(figures.WIDGETS) if "widgets" in pattern else ["determinants"], "widget": list(figures.WIDGETS),
    }  # fmt: skip
    names = [part.split("}")[0] for part in pattern.split("{")[1:]]
    for values in product(*(choices.get(name.split(":")[0], named(side, 1)) for name in names)):
        path = pattern
        for name, value in zip(names, values, strict=True):
            path = path.replace(f"{{{name}}}", value)
        asked = [value for value in values if value.startswith(side)]
        extra = {"/v1/meters/{device}/curve": "?channel=A%2B", "/console/meters/{device}/reads.{kind}": "?channel=A%2B"}.get(pattern, "")
        yield path + extra, asked


def without(text: str, asked: list[str]) -> str:
    """An answer without what the question named."""
    for name in asked:
        text = text.replace(name, "")
    return text


GETS = sorted(path for method, path in doors(whole_app().routes) if method == "GET")


def test_the_test_would_see_what_is_outside(hub: Hub) -> None:
    for path in ("/v1/exceptions", "/v1/meters?q=AREA", "/v1/todos", "/console/todos", "/console/", "/console/widgets/fleet?days=3",
                 "/v1/dashboard/events", f"/v1/meters/{OUT}-D0", "/v1/device-events", "/v1/audit", "/v1/prepaid/accounts"):  # fmt: skip
        answer = hub.ask("root", "GET", path)
        assert answer.status_code == 200, path
        assert OUT in answer.text or path == "/console/", path


@pytest.mark.parametrize("pattern", GETS)
def test_no_page_and_no_list_shows_anything_from_outside(hub: Hub, pattern: str) -> None:
    for path, _ in paths(pattern, IN):
        answer = hub.ask("ina", "GET", path)
        assert OUT.encode() not in answer.content, path
        assert answer.status_code != 500, path
    for path, asked in paths(pattern, OUT):
        if asked:
            answer = hub.ask("ina", "GET", path)
            assert answer.status_code >= 400, f"{path}: {answer.text[:200]}"
            assert OUT not in without(answer.text, asked), path


def test_what_is_inside_is_shown(hub: Hub) -> None:
    for path in ("/v1/exceptions", "/v1/meters?q=AREA", f"/v1/meters?region={IN}", "/v1/todos", "/console/todos", "/console/meters?q=AREA",
                 "/console/widgets/fleet?days=3", "/v1/dashboard/events", f"/v1/meters/{IN}-D0", "/v1/device-events", "/v1/audit",
                 f"/console/meters/{IN}-D0", f"/console/todos/{IN}-T0/card", "/v1/prepaid/accounts", f"/v1/intervals?device={IN}-D0",
                 f"/console/meters/{IN}-D0/reads.csv?channel=A%2B"):  # fmt: skip
        answer = hub.ask("ina", "GET", path)
        assert answer.status_code == 200, f"{path}: {answer.text[:300]}"
        assert IN in answer.text, path


WRITES = [(method, path) for method, path in doors(whole_app().routes) if method != "GET"]


@pytest.mark.parametrize(("method", "pattern"), WRITES)
def test_no_change_is_made_outside(hub: Hub, method: str, pattern: str) -> None:
    rule = policy.rule_of(f"{method} {pattern}")
    assert rule is not None
    if rule.permission == policy.OPEN or rule.permission == "tokens.own":
        pytest.skip("is about the one who asks")
    body = {"device": f"{OUT}-D0", "account": f"{OUT}-A0", "service_point": f"{OUT}-SP0", "ids": [f"{OUT}-T0"], "action": "complete"}
    for path, asked in list(paths(pattern, OUT))[:8]:
        answer = hub.ask("ina", method, path, body)
        assert answer.status_code >= 400, f"{path}: {answer.text[:200]}"
        assert OUT not in without(answer.text, [*asked, *body["ids"], *(str(value) for value in body.values())]), path


@pytest.mark.parametrize("name", BOUNDED)
def test_figures_are_those_of_the_area_alone(hub: Hub, name: str) -> None:
    area = scope.Within(((Area(region=IN), Area()),))
    inside, everything, only = widgets(hub.reader, area)[name], widgets(hub.reader, scope.EVERYWHERE)[name], hub.only[name]
    if name == "billing":  # what was delivered is not told apart
        only, everything = (replace(one, tiles=[tile for tile in one.tiles if tile.label != "delivered"]) for one in (only, everything))
        inside = replace(inside, tiles=list(inside.tiles))
    assert inside == only != everything


def test_sql_and_other_doors_of_the_whole_hub_say_why_they_stay_shut(hub: Hub) -> None:
    for method, path, said in (("POST", "/v1/sql", "SQL reaches every table"), ("GET", "/v1/master/export", "lists those of an area"),
                               ("GET", "/v1/subscribers", "whole hub")):  # fmt: skip
        answer = hub.ask("ina", method, path, {} if method == "POST" else None)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "bounded"), path
        assert said in answer.json()["detail"], path
