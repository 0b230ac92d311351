"""The policy of every door: which permission a route or a command of ``mdh`` stands on. Where rights are enforced, the rest is refused.

A new route needs one line in ``ROUTES``, a new command one in ``COMMANDS``; tests walk both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.routing import compile_path

OPEN: Final = ""  # needs no login


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks for.

    ``places`` tell where the request names the thing it is about, each ``path|query|body:name:kind`` with kind device, service_point,
    account or region; rights that are bounded to an area are held against all that are given, and refused where none is. ``scoped``: the
    route itself shows no more than the area holds. ``audited`` None: if it changes something. ``people``: persons need persons.read too.
    ``whole``: why an area cannot be told here.
    """

    permission: str
    places: tuple[str, ...] = ()
    scoped: bool = False
    audited: bool | None = None
    people: bool = False
    whole: str = ""


def _at(permission: str, *places: str) -> Rule:
    return Rule(permission, places)


def _list(permission: str) -> Rule:
    return Rule(permission, scoped=True)


def _question(permission: str) -> Rule:
    return Rule(permission, audited=False)


_SQL: Final = "SQL reaches every table of the store, so it is not open to rights that are bounded to an area."
_EXPORT: Final = "An export is all master data there are; GET /v1/master/{kind} lists those of an area."
_DEVICE: Final = "path:id:device"
_MASTER: Final = Rule("master.read", ("path:id:master",), people=True)
_CHANGE: Final = Rule("master.write", ("path:id:master",), people=True)
_PREPAID: Final = _at("prepaid.read", "path:id:account")
_ADJUST: Final = _at("prepaid.adjust", "path:id:account")

ROUTES: Final[dict[str, Rule | str]] = {
    # open doors: health, documentation, login
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /docs": OPEN,
    "GET /openapi.json": OPEN,
    "GET /assets/docs/{rest:path}": OPEN,
    "GET /v1/session": OPEN,
    "POST /v1/session": OPEN,
    "DELETE /v1/session": OPEN,
    "GET /v1/session/first": OPEN,
    "POST /v1/session/first": OPEN,
    "GET /v1/session/reset": OPEN,
    "POST /v1/session/reset": OPEN,
    "GET /v1/session/oidc": OPEN,
    "GET /v1/session/oidc/callback": OPEN,
    "GET /portal": OPEN,  # customers of prepaid log in there by codes of their own
    "GET /portal/{rest:path}": OPEN,
    "POST /portal/{rest:path}": OPEN,
    "GET /metrics": "operations.read",
    "GET /v1/hub": "operations.read",
    # intake; payloads are many, and each leaves receipts of its own
    "POST /v1/reads": Rule("reads.send", audited=False),
    "POST /v1/events": Rule("reads.send", audited=False),
    "GET /v1/payloads/{id}": "reads.read",
    "POST /v1/settle": _question("reads.read"),
    # results
    "GET /v1/exceptions": _list("results.read"),
    "GET /v1/determinants": _list("results.read"),
    "GET /v1/intervals": _at("results.read", "query:device:device"),
    "GET /v1/usage": _list("results.read"),
    "POST /v1/sql": Rule("sql.query", audited=True, whole=_SQL),
    # commands
    "POST /v1/commands": _at("commands.order", "body:device:device"),
    "GET /v1/commands/{id}": _list("commands.read"),
    "POST /v1/commands/bulk": _list("commands.bulk"),
    "GET /v1/bulk-orders": _list("commands.read"),
    "GET /v1/bulk-orders/{id}": _list("commands.read"),
    "POST /v1/bulk-orders/{id}/approve": _list("commands.approve"),
    "POST /v1/bulk-orders/{id}/reject": _list("commands.approve"),
    "POST /v1/labels": _at("labels.write", "body:device:device"),
    # master data
    "POST /v1/master": "master.write",
    "POST /v1/master/objects": "master.write",
    "POST /v1/master/diff": "master.write",
    "GET /v1/master/messages/{message}": "master.read",
    "GET /v1/master/export": Rule("master.read", people=True, whole=_EXPORT),
    "GET /v1/master/{kind}": Rule("master.read", scoped=True, people=True),
    "GET /v1/master/{kind}/{id:path}": _MASTER,
    "PUT /v1/master/{kind}/{id:path}": _CHANGE,
    "PATCH /v1/master/{kind}/{id:path}": _CHANGE,
    "DELETE /v1/master/{kind}/{id:path}": _CHANGE,
    "DELETE /v1/master/person/{id:path}/data": "persons.erase",
    "POST /v1/master/{kind}/{id:path}/retire": _CHANGE,
    "POST /v1/master/device/{id:path}/exchange": _at("master.write", _DEVICE),
    "POST /v1/master/device/{id:path}/install": _at("master.write", _DEVICE),
    "POST /v1/master/device/{id:path}/connect": _at("master.write", _DEVICE),
    "POST /v1/master/device/{id:path}/disconnect": _at("master.write", _DEVICE),
    "POST /v1/master/device/{id:path}/remove": _at("master.write", _DEVICE),
    "POST /v1/master/device/{id:path}/configuration": _at("master.write", _DEVICE),
    "POST /v1/master/service_point/{id:path}/account": _at("master.write", "path:id:service_point"),
    # usage
    "POST /v1/usage-requests": _at("usage.request", "body:account:account"),
    "GET /v1/usage-requests/{id}": _list("results.read"),
    "POST /v1/determinants/{id}/used-on-bill": "usage.billed",
    "POST /v1/tou-events": "usage.events",
    # subscribers
    "GET /v1/subscribers": "subscribers.read",
    "POST /v1/subscribers": "subscribers.write",
    "GET /v1/subscribers/{id}": "subscribers.read",
    "PUT /v1/subscribers/{id}": "subscribers.write",
    "DELETE /v1/subscribers/{id}": "subscribers.write",
    "GET /v1/subscribers/{id}/history": "subscribers.read",
    "GET /v1/subscribers/{id}/deliveries": "subscribers.read",
    "POST /v1/subscribers/{id}/pause": "subscribers.write",
    "POST /v1/subscribers/{id}/resume": "subscribers.write",
    "POST /v1/subscribers/{id}/replay": "subscribers.replay",
    "POST /v1/subscribers/{id}/deliveries/{delivery}/resend": "subscribers.replay",
    "POST /v1/subscribers/{id}/test": "subscribers.test",
    "GET /v1/objects": _list("objects.read"),
    "GET /v1/objects/{name}": _list("objects.read"),
    "GET /v1/objects/{name}/schema": _list("objects.read"),
    "GET /v1/asyncapi": _list("objects.read"),
    # prepaid
    "GET /v1/prepaid/accounts": _list("prepaid.read"),
    "GET /v1/prepaid/accounts/{id}": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/balance": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/ledger": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/notices": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/debts": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/usage": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/statement": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/replay": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/commands/{command:path}": _PREPAID,
    "GET /v1/prepaid/accounts/{id}/contact": _at("persons.read", "path:id:account"),
    "PUT /v1/prepaid/accounts/{id}/contact": _at("master.write", "path:id:account"),
    "POST /v1/prepaid/accounts/{id}/topups": _at("prepaid.post", "path:id:account"),
    "POST /v1/prepaid/accounts/{id}/emergency-credit": _at("prepaid.post", "path:id:account"),
    "POST /v1/prepaid/accounts/{id}/topups/{ref}/reversal": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/adjustments": _ADJUST,
    "PUT /v1/prepaid/accounts/{id}/debts": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/hold": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/release": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/resume": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/commands": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/mode": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/close": _ADJUST,
    "POST /v1/prepaid/accounts/{id}/try": Rule("prepaid.read", ("path:id:account",), audited=False),
    "GET /v1/prepaid/requests/{id}": _list("prepaid.read"),
    "GET /v1/prepaid/commands/{command:path}": _list("prepaid.read"),
    "GET /v1/prepaid/adjustments": _list("prepaid.read"),
    "GET /v1/prepaid/adjustments/{order}": _list("prepaid.read"),
    "POST /v1/prepaid/adjustments/{order}/approve": _list("prepaid.approve"),
    "POST /v1/prepaid/adjustments/{order}/reject": _list("prepaid.approve"),
    "GET /v1/prepaid/tariffs": _list("prepaid.read"),
    "GET /v1/prepaid/verify": "prepaid.read",
    # To-Dos; the service itself keeps to the area of the one who asks, and asks for more where an act is about others
    "GET /v1/todos": _list("todos.read"),
    "GET /v1/todos/groups": _list("todos.read"),
    "GET /v1/todos/types": _list("todos.read"),
    "GET /v1/todos/stats": _list("todos.read"),
    "GET /v1/todos/{id}": _list("todos.read"),
    "POST /v1/todos": _at("todos.work", "body:device:device", "body:service_point:service_point", "body:account:account"),
    "POST /v1/todos/next": _list("todos.work"),
    "POST /v1/todos/undo": _list("todos.work"),
    "POST /v1/todos/bulk": _list("todos.bulk"),
    "POST /v1/todos/{id}/assign": _list("todos.work"),
    "POST /v1/todos/{id}/release": _list("todos.work"),
    "POST /v1/todos/{id}/forward": _list("todos.work"),
    "POST /v1/todos/{id}/comment": _list("todos.work"),
    "POST /v1/todos/{id}/complete": _list("todos.work"),
    "POST /v1/todos/{id}/reopen": _list("todos.work"),
    "POST /v1/todos/{id}/prioritise": _list("todos.assign"),
    "POST /v1/todos/{id}/resolve": _list("todos.work"),
    "GET /v1/todo-acts": _list("todos.read"),
    "GET /v1/todo-acts/{id}": _list("todos.read"),
    "POST /v1/todo-acts/{id}/approve": _list("todos.approve"),
    "POST /v1/todo-acts/{id}/reject": _list("todos.approve"),
    # other systems
    "GET /v1/sap": "sap.exchange",
    "GET /v1/sap/messages": "sap.exchange",
    "GET /v1/sap/messages/{id}": "sap.exchange",
    "GET /v1/sap/{service}": "sap.exchange",
    "POST /v1/sap/{service}": "sap.exchange",
    "POST /v1/ccb/sync": "master.write",
    "POST /v1/ccb/usage-requests": "usage.request",
    "PATCH /v1/ccb/usage-requests/{id}/lifecycle": "usage.billed",
    "GET /v1/ccb/usage-requests/{id}": "results.read",
    "PATCH /v1/ccb/charges/{id}/lifecycle": "usage.billed",
    "GET /v1/ccb/messages": "sap.exchange",
    "GET /v1/ccb/messages/{id}": "sap.exchange",
    "POST /v1/cim": "sap.exchange",
    "GET /v1/cim/messages": "sap.exchange",
    "GET /v1/cim/messages/{id}": "sap.exchange",
    "GET /v1/cim/controls/{id:path}": "sap.exchange",
    "GET /v1/conversations": "sap.exchange",
    "POST /v1/conversations/refused/retry": "operations.replay",
    "POST /v1/conversations/messages/{id}/resend": "operations.replay",
    "GET /v1/device-commands": _list("devices.read"),
    "POST /v1/device-replies": "devices.reply",
    # the console: pages over the same data; what they change goes through the routes above
    "GET /": OPEN,
    "GET /console": OPEN,
    "GET /console/login": OPEN,
    "GET /console/refused": OPEN,
    "GET /console/static/{name}": OPEN,
    "GET /console/": _list("dashboard.read"),
    "GET /console/widgets/{name}": _list("dashboard.read"),
    "GET /console/todos": _list("todos.read"),
    "GET /console/todos/{id}/card": _list("todos.read"),
    "GET /console/todo-acts": _list("todos.read"),
    "GET /console/meters": _list("results.read"),
    "GET /console/meters/{device}": _at("results.read", "path:device:device"),
    "GET /console/meters/{device}/reads.{kind}": _at("results.read", "path:device:device"),
    "GET /console/exceptions": _list("results.read"),
    "GET /console/determinants": _list("results.read"),
    "GET /console/usage": _list("results.read"),
    "GET /console/prepaid": _list("prepaid.read"),
    "GET /console/master": _list("master.read"),
    "GET /console/events": _list("devices.read"),
    "GET /console/audit": "audit.read",
    "GET /console/subscribers": "subscribers.read",
    "GET /console/rules": "rules.read",
    "GET /console/rules/in-force.yaml": "rules.read",
    "POST /console/rules/check": _question("rules.read"),
    "GET /console/operations": _list("operations.read"),
    "GET /console/users": "users.read",
    "GET /v1/local-times": _list("todos.read"),
    "GET /v1/dashboard": _list("dashboard.read"),
    "PUT /v1/dashboard": Rule("dashboard.write", scoped=True, audited=False),
    "GET /v1/dashboard/{widget}": _list("dashboard.read"),
    "GET /v1/meters": _list("results.read"),
    "GET /v1/meters/{device}": _at("results.read", "path:device:device"),
    "GET /v1/meters/{device}/curve": _at("results.read", "path:device:device"),
    "GET /v1/device-events": _list("devices.read"),
    "GET /v1/proposals": "rules.read",
    "POST /v1/proposals": "rules.propose",
    "GET /v1/proposals/{id}": "rules.read",
    "GET /v1/proposals/{id}/topology.yaml": "rules.read",
    "POST /v1/proposals/{id}/withdraw": "rules.propose",
    "GET /v1/dead-letters": _list("operations.read"),
    "POST /v1/dead-letters/replay": _list("operations.replay"),
    # users, tokens, audit
    "GET /v1/users": "users.read",
    "POST /v1/users": "users.write",
    "GET /v1/users/{name}": "users.read",
    "PATCH /v1/users/{name}": "users.write",
    "POST /v1/users/{name}/reset": "users.write",
    "PUT /v1/users/{name}/password": _list("tokens.own"),
    "POST /v1/users/{name}/grants": "users.write",
    "DELETE /v1/users/{name}/grants": "users.write",
    "POST /v1/users/{name}/disable": "users.write",
    "POST /v1/users/{name}/enable": "users.write",
    "GET /v1/roles": "users.read",
    "GET /v1/tokens": _list("tokens.own"),
    "POST /v1/tokens": _list("tokens.own"),
    "DELETE /v1/tokens/{id}": _list("tokens.own"),
    "GET /v1/audit": _list("audit.read"),
    "GET /v1/audit/export": Rule("audit.read", scoped=True, audited=True),
    "GET /v1/audit/head": "audit.read",
}

HERE: Final = "here"  # works on files and processes of this machine, whose owner may run it
KAFKA: Final = "kafka"  # works on the broker: Kafka's own login and access lists decide

COMMANDS: Final[dict[str, str]] = {
    "up": HERE,
    "demo": HERE,
    "decode": HERE,
    "vee": HERE,
    "doctor": HERE,
    "simulate": "reads.send",
    "bench": HERE,
    "worker": KAFKA,
    "hub": KAFKA,
    "deliver": KAFKA,
    "topology": KAFKA,
    "dlq": KAFKA,
    "schemas": HERE,
    "send": "reads.send",
    "sql": "sql.query",
    "master": "master.write",
    "master show": "master.read",
    "master export": "master.read",
    "subscribers": "subscribers.write",
    "subscribers ls": "subscribers.read",
    "subscribers show": "subscribers.read",
    "subscribers deliveries": "subscribers.read",
    "subscribers objects": "objects.read",
    "subscribers replay": "subscribers.replay",
    "subscribers resend": "subscribers.replay",
    "subscribers test": "subscribers.test",
    "command": "commands.order",
    "command bulk": "commands.bulk",
    "prepaid": "prepaid.adjust",
    "prepaid approve": "prepaid.approve",
    "todos": "todos.read",
    "users": "users.write",
    "users ls": "users.read",
    "users passwd": "tokens.own",
    "tokens": "tokens.own",
    "audit": "audit.read",
}


def rule_of(key: str) -> Rule | None:
    """The rule of ``METHOD /path/{pattern}``; None where there is none."""
    found = ROUTES.get(key)
    return Rule(found) if isinstance(found, str) else found


@lru_cache(maxsize=1)
def _compiled() -> list[tuple[str, re.Pattern[str], str]]:
    """Method, pattern and key of all routes, the most particular first."""
    keys = sorted(ROUTES, key=lambda key: (-len(re.sub(r"\{[^}]*\}", "", key)), ":path" in key, key.count("{")))
    return [(key.partition(" ")[0], compile_path(key.partition(" ")[2])[0], key) for key in keys]


def match(method: str, path: str) -> str | None:
    """The key of the route that a request means; HEAD is asked as GET. None: no such door."""
    method = "GET" if method == "HEAD" else method
    return next((key for wanted, pattern, key in _compiled() if wanted == method and pattern.match(path)), None)
