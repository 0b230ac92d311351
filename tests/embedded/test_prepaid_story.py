"""A prepaid customer on a real hub: Kafka, agents, store, HTTP and a head end with faults, from an empty balance to a payment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mdh.commands.up import Hub

ROOT = Path(__file__).resolve().parents[2]


def mdh(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mdh", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.broker
@pytest.mark.timeout(2700)
def test_a_customer_runs_to_zero_is_cut_off_pays_and_is_back(tmp_path: Path) -> None:
    topology = yaml.safe_load((ROOT / "topology.yaml").read_text())
    topology["prepaid"]["disconnection"] |= {"grace": "0s", "protected": [], "command_life": "20s", "reconnect_waits": ["5s"]}
    file = tmp_path / "topology.yaml"
    file.write_text(yaml.safe_dump(topology, sort_keys=False))
    with Hub(tmp_path / "data", topology=file) as hub:
        faults = ("--faults", "duplicate=1,late=0.3", "--late-by", "5", "--delay", "0.2-1", "--form", "cim")
        head_end = mdh("simulate", "--devices", "--url", hub.url, *faults)
        try:
            customer = mdh("simulate", "--customer", "--url", hub.url)
            said, why = customer.communicate(timeout=1800)
            assert customer.returncode == 0, why
        finally:
            head_end.send_signal(signal.SIGINT)
            counted, log = head_end.communicate(timeout=600)
        story, counts = json.loads(said.splitlines()[-1]), json.loads(counted.splitlines()[-1])
        assert head_end.returncode == 0, log
        told = story["notices"]
        assert [kind for kind in told if kind in ("balance.zero", "disconnected", "topup.posted", "reconnected")] == [
            "balance.zero", "disconnected", "topup.posted", "reconnected",
        ]  # fmt: skip
        assert story["balance"] == "20.00"
        assert (counts["meters"], counts["disconnected"]) == (1, 0)
        assert counts["done"] > counts["commands"] >= 2
        verified = mdh("prepaid", "verify", "--url", hub.url)
        assert (verified.communicate(timeout=600), verified.returncode)[1] == 0
