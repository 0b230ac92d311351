"""Commands and events on a real hub: from the command line through Kafka, agents and sink into the audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mdh.commands.up import Hub
from tests.patience import eventually


def mdh(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mdh", *arguments, "--url", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def sql(url: str, statement: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in mdh(url, "sql", statement).stdout.splitlines()]


@pytest.mark.broker
def test_an_edit_and_an_outage_reach_the_store_and_the_audit(tmp_path: Path) -> None:
    rows = [f"m1,1,kWh,1800,2026-01-01T{hour:02d}:{minute}:00Z,{0 if hour == 5 else 1}" for hour in range(24) for minute in ("00", "30")]
    file = tmp_path / "reads.csv"
    file.write_text("\n".join(["device,channel,unit,seconds,start,value", *rows]) + "\n")
    span = ("--device", "m1", "--channel", "1", "--from", "2026-01-01T10:00:00Z", "--to", "2026-01-01T11:00:00Z")
    with Hub(tmp_path / "data") as hub:
        assert mdh(hub.url, "send", str(file), "--wait").returncode == 0
        done = mdh(hub.url, "command", "edit", *span, "--values", "2.5,", "--user", "clerk", "--reason", "seen")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["outcome"], answer["actor"]) == ("applied", "clerk")
        assert (answer["before"]["total"], answer["after"]["total"]) == ("46", "47.5")
        refused = mdh(hub.url, "command", "accept", *span, "--expect", "1")
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].startswith("mdh: refused: version conflict: expected 1")
        found = sql(hub.url, "SELECT value, condition_name, method FROM intervals WHERE start = '2026-01-01 10:00:00'")
        assert [(float(row["value"]), row["condition_name"], row["method"]) for row in found] == [(2.5, "user-edit", "manual")]
        events = [{"device": "m1", "kind": kind, "at": f"2026-01-01T0{hour}:00:00Z"} for kind, hour in (("outage", 5), ("restore", 6))]
        taken = httpx.post(f"{hub.url}/v1/events", json={"events": events}, timeout=120, trust_env=False)
        assert taken.status_code == 202
        question = {"ids": [taken.json()["id"]], "wait": 30}
        eventually(lambda: httpx.post(f"{hub.url}/v1/settle", json=question, timeout=120, trust_env=False).json()["waiting"] == 0)
        found = sql(hub.url, "SELECT count() AS n FROM intervals WHERE condition_name = 'outage' AND method = 'outage-zero'")
        assert int(found[0]["n"]) == 2
        audit = sql(hub.url, "SELECT action, outcome FROM audit WHERE device = 'm1' ORDER BY action")
        assert audit == [{"action": "accept", "outcome": "refused"}, {"action": "edit", "outcome": "applied"}]
        verified = mdh(hub.url, "audit", "verify", "--json")
        found = json.loads(verified.stdout)
        assert (verified.returncode, found["problems"], found["unchained"]) == (0, [], 0)
        assert found["chains"] == 2  # of the hub process, and of the partition of VEE that has m1
