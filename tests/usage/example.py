"""Usage rules by example: a folder of YAML, one file per rule, run through the agent. docs/usage shows the same files."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

from schemas.conditions import MISSING, REGULAR, SUSPECT
from schemas.quantity import parse, text_of
from schemas.topology.usage import UsageSettings
from tests.determinants.kit import EPOCH, Hub, Row

FOLDER = Path(__file__).parent
MARKS = {"m": MISSING, "s": SUSPECT}
DIRECTIONS = {"none": 0, "delivered": 1, "received": 2}


def load(rule: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{rule}.yaml").read_text())
    return found


def run(example: dict[str, Any]) -> dict[str, Any]:
    """What came of it: usage in the order it was told, and exceptions still open. Without ticks the end counts as time having passed."""
    tables = {name: example[name] for name in ("tables", "profiles", "peaks") if name in example}
    group = {"id": "example", "accounts": ["A*"], "versions": [{"rules": example["rules"]}]}
    zone = example.get("zone", "UTC")
    hub = Hub(usage=UsageSettings.model_validate({"groups": [group], **tables}))
    if "subscription" in example:
        _subscribe(hub, zone, **example["subscription"])
    for step in example["steps"]:
        for what, said in step.items():
            if what == "reads":
                hub.give(*[_row(zone, **one) for one in said])
            elif what == "tick":
                hub.tick(_second(said))
            elif what == "event":
                _event(hub, **said)
            elif what == "install":
                _install(hub, **said)
    if not any("tick" in step for step in example["steps"]):
        hub.close()
    exceptions = {body["id"]: body for body in hub.exceptions}
    still = [f"{body['rule']} {body['severity']}: {body['detail']}" for body in exceptions.values() if body["status"] == "open"]
    return {"usage": [_told(body) for body in hub.usage_sent], **({"exceptions": still} if still else {})}


def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _row(zone: str, *, device: str, channel: str, unit: str = "kWh", direction: str = "delivered", point: str = "SP1", **more: Any) -> Row:
    about: dict[str, Any] = {
        "device": device, "channel": channel, "unit": unit, "direction": DIRECTIONS[direction], "service_point": point, "account": "A1",
        "zone": zone,
    }  # fmt: skip
    if "readings" in more:
        times, values = [_second(t) for t in more["readings"]], [parse(str(v)) for v in more["readings"].values()]
        codes = [more.get("condition", REGULAR)] * len(times)
        return Row(0, values, codes, seconds=0, times=times, dials=more.get("dials", 0), **about)
    values, codes = [], []
    for word in more["values"].split():
        amount, many = word.split("*")
        mark = amount[-1] if amount[-1] in MARKS else ""
        values += [parse(amount.strip("ms") or "0")] * int(many)
        codes += [MARKS.get(mark, REGULAR)] * int(many)
    day = (date.fromisoformat(str(more["day"])) - EPOCH).days
    return Row(day, values, codes, seconds=more.get("seconds", 3600), **about)


def _subscribe(hub: Hub, zone: str, **about: Any) -> None:
    since = _second(f"{about.pop('from')}T00:00:00Z")
    empty = dict.fromkeys(("commodity", "usage_group", "rate", "billing_cycle", "payment", "customer_class", "region"))
    period = {"from": since, "to": None, "account": "C1", "service_points": [], **empty, "zone": zone, "attributes": {}, **about}
    hub.send("UsageSubscription", {"subscription": "A1", "version": 1, "periods": [period], "changed": []})


def _install(hub: Hub, *, device: str, channel: str, **span: str) -> None:
    edges = [_second(f"{span[name]}T00:00:00Z") for name in ("from", "to")]
    periods = [{"from": edges[0], "to": edges[1], "state": "connected"}]
    hub.send("MasterChannel", {"device": device, "channel": channel, "check_channel": "", "periods": periods})


def _event(hub: Hub, *, tou: str, **span: str) -> None:
    start, end = (_second(span[name]) for name in ("from", "to"))
    body = {"id": "e1", "start": start, "end": end, "tou": tou, "use": "", "maps": [], "accounts": [], "cancelled": False, "user": ""}
    body["sequence"] = 1
    hub.send("TouEvent", body)


def _told(body: dict[str, Any]) -> dict[str, Any]:
    begin = body["period_start"].astimezone(UTC)
    quantities = {}
    for q in body["quantities"]:
        name = " ".join(filter(None, (q["name"], q["tou"], f"@{q['device']}" if q["device"] else "")))
        said = [text_of(int(q["quantity"] * 1_000_000)), q["unit"]]
        said += [f"at {q['moment'].astimezone(UTC):%Y-%m-%dT%H:%MZ}"] if q["moment"] else []
        said += ["(missing)"] if 0 < q["condition"] < 200_000 else []
        quantities[name] = " ".join(said)
    found = {"from": f"{begin:%Y-%m-%dT%H:%MZ}", "status": body["status"]}
    return {**found, **({"reason": body["reason"]} if body["reason"] else {}), **({"quantities": quantities} if quantities else {})}
