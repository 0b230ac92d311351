"""Every folder under tests/scenarios: what arrives, and what must come of it."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.head_end.command_desk import KafkaCommandDesk
from connectors.head_end.documents import CommandRequest
from connectors.head_end.formats import Options, decode
from connectors.head_end.formats.events import decode_events
from mdh.commands.vee import Bench
from schemas.rules import RULES
from schemas.topology import load_topology
from schemas.topology.vee import VeeSettings

ROOT = Path(__file__).parent.parent / "scenarios"
CASES = sorted(path.parent for path in ROOT.glob("*/*/then"))


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "#"} for row in csv.DictReader(file)]


def arrive(bench: Bench, file: Path, zone: str | None) -> None:
    """One file of ``when``: commands, device events, or reads in any format."""
    if file.name.endswith(".commands.ndjson"):
        for number, line in enumerate(file.read_text().splitlines()):
            bench.take("Command", KafkaCommandDesk.record(CommandRequest.model_validate_json(line), f"{file.name}/{number}"))
    elif file.name.endswith(".events.json"):
        for number, event in enumerate(decode_events(file.read_bytes())):
            bench.take("DeviceEvent", {**event, "id": f"{file.name}/{number}", "payload": ""})
    elif file.suffix == ".tick":
        bench.take("Tick", {"at": int(datetime.fromisoformat(file.read_text().strip()).timestamp()), "close": False})
    else:
        decoded = decode(file.read_bytes(), Options(name=file.name, zone=zone))
        assert not decoded.problems
        bench.reads(decoded)


def outcome(case: Path) -> tuple[list[dict[str, str]], list[dict[str, str]], list[dict[str, str]]]:
    given: dict[str, Any] = yaml.safe_load((case / "given.yaml").read_text()) if (case / "given.yaml").exists() else {}
    topology = load_topology().model_copy(update={"vee": VeeSettings.model_validate(given.get("vee", {}))})
    bench = Bench(topology, given.get("zone"), insights=given.get("learning", False))
    if (case / "master.ndjson").exists():
        bench.master(case / "master.ndjson")
    for file in sorted((case / "when").iterdir()):
        arrive(bench, file, given.get("zone"))
    exceptions, finals = [], []
    for item in bench.finish(close=given.get("close", True)):
        if item["type"] == "exception":
            exceptions.append({k: str(v) for k, v in item.items() if k not in ("type", "detail")})
        else:
            finals += intervals(item)
    audit = [{name: body[name] for name in ("action", "channel", "actor", "reason", "outcome", "detail")} for body in bench.audit]
    return exceptions, finals, audit


def intervals(item: dict[str, Any]) -> list[dict[str, str]]:
    if "reads" in item:
        return [
            {"device": item["device"], "channel": item["channel"], "start": read["at"], "value": read["value"] or "",
             "condition": str(read["condition"]), "method": read.get("method", "")}
            for read in item["reads"]
        ]  # fmt: skip
    start = datetime.fromisoformat(item["start"])
    found = []
    for k, (value, condition) in enumerate(zip(item["values"], item["conditions"], strict=True)):
        at = (start + timedelta(seconds=k * item["interval_seconds"])).strftime("%Y-%m-%dT%H:%M:%SZ")
        method = [span["method"] for span in item["methods"] if span["start"] <= at < span["end"]]
        found.append(
            {"device": item["device"], "channel": item["channel"], "start": at, "value": value or "", "condition": str(condition),
             "method": method[0] if method else ""}
        )  # fmt: skip
    return found


def ordered(rows: list[dict[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted(row.items()) for row in rows)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_scenario(case: Path) -> None:
    exceptions, finals, audit = outcome(case)
    told = case / "then" / "audit.csv"
    assert audit == (lines(told) if told.exists() else [])
    assert ordered(exceptions) == ordered(lines(case / "then" / "exceptions.csv"))
    assert not (case / "then" / "finals.csv").exists() or ordered(finals) == ordered(lines(case / "then" / "finals.csv"))


def test_scenarios_are_named_after_rules() -> None:
    assert len(CASES) > 20
    assert {case.parent.name for case in CASES} <= {*RULES, "commands", "events", "groups"}
