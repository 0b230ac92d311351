"""Money under torment: workers are killed, stopped and suspended from the reads to the recharge, and every ledger is as if undisturbed.

The order in which usage and requests meet in the inbox may differ between two runs, and with it the order of postings; what must not differ
is what was posted in the end, and nothing may be there twice.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.enterprise.master import parse_master
from connectors.kafka.settings import KafkaSettings
from mdh.simulation.head_end import HeadEnd, Settings
from streams.prepaid.ledger import chain_hash
from tests.brokers import read_all
from tests.torment.chain import CODEC, Chain, Tormentor
from tests.torment.test_torment import send

ACTIONS = int(os.environ.get("MDH_TORMENT_ACTIONS", "5"))
METERS, DAYS = 24, 6
START = date(2025, 3, 24)
SETTINGS = Settings(meters=METERS, days=DAYS, seed=5, start=START, seconds=3600, zone="Europe/Madrid", chunk=6)
HOUR = 3600


@dataclass
class Books:
    """What a chain said of its prepaid accounts, checked posting by posting."""

    charged: Counter[tuple[str, str]] = field(default_factory=Counter)  # account and month → charges
    paid: Counter[str] = field(default_factory=Counter)
    balances: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # balance, debt, emergency credit
    causes: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # postings that requests led to
    connected: dict[str, str] = field(default_factory=dict)  # the last command of each account


def second_of(day: date, hour: int = 0) -> int:
    return (day - date(1970, 1, 1)).days * 86_400 + hour * HOUR


def ask(chain: Chain, action: str, account: str, id: str, run: str = "", **fields: Any) -> str:
    """Sends a request; the id to wait for. ``run`` tells sendings of one request apart."""
    blank = {"amount": None, "channel": "", "reference": "", "reason": "", "user": "clerk", "approver": "", "terms": ""}
    body = {"id": id, "account": account, "action": action, **blank, **fields}
    return chain.send("prepaid.requests", account, CODEC.encode("PrepaidRequest", body), f"{id}{run}")


def answer(chain: Chain, at: int) -> list[str]:
    """The head end does what it was told, and says so twice."""
    ids = []
    for command in said(chain, "device.commands"):
        reply = {"command": command["id"], "device": command["device"], "status": "done", "at": at, "code": "", "detail": ""}
        for run in ("", "/again"):
            id = f"reply/{command['id']}{run}"
            ids.append(chain.send("device.replies", command["device"], CODEC.encode("DeviceReply", reply), id))
    return ids


def story(chain: Chain, calm: Callable[[], None] = lambda: None) -> None:
    """Accounts, reads, days that pass until some are cut off, recharges that come more than once, a payment that bounces."""
    head_end = HeadEnd(SETTINGS)
    accounts = [f"A-{device}" for device in head_end.devices]
    chain.settle(chain.tick(second_of(START, 1)))
    ids = [
        chain.send("master.data", record["device"], CODEC.encode("MasterChannel", record), f"master-{number}")
        for number, record in enumerate(parse_master(b"\n".join(orjson.dumps(line) for line in head_end.master()))[0])
    ]
    terms = orjson.dumps({"from": str(START), "zone": SETTINGS.zone, "opening": 100, "arrears": 300}).decode()
    ids += [ask(chain, "enrol", account, f"enrol/{account}", terms=terms) for account in accounts]
    chain.settle(ids)
    chain.settle(send(chain, head_end, "first", postscript=False))
    for day in range(DAYS + 3):
        chain.settle(chain.tick(second_of(START + timedelta(days=day + 1), 13)))
        if day == 3:
            ids = []
            for run in ("", "/2", "/3"):
                ids += [ask(chain, "topup", a, f"top/{a}", run, amount=700 + n, reference=f"bank/{a}") for n, a in enumerate(accounts[::2])]
            chain.settle(ids)
            chain.settle([ask(chain, "reversal", account, f"back/{account}", reference=f"bank/{account}") for account in accounts[::4]])
    chain.settle(answer(chain, second_of(START + timedelta(days=DAYS + 3))))
    chain.settle([ask(chain, "topup", account, f"late/{account}", amount=50_000) for account in accounts])
    calm()
    chain.settle(answer(chain, second_of(START + timedelta(days=DAYS + 3))))
    chain.settle(chain.tick(second_of(START + timedelta(days=DAYS + 4), 13)))


def said(chain: Chain, topic: str) -> list[dict[str, Any]]:
    """All that was committed to a topic."""
    return [CODEC.decode(message.value()) for message in read_all(KafkaSettings(bootstrap=chain.bootstrap), topic)]


def books(chain: Chain) -> Books:
    """The books of a chain. Raises AssertionError where a ledger is not what it must be."""
    told = Books()
    sums: Counter[str] = Counter()
    last: dict[str, tuple[int, str]] = defaultdict(lambda: (0, ""))
    ids: set[str] = set()
    for posting in said(chain, "prepaid.ledger"):
        account, number, before = posting["account"], *last[posting["account"]]
        assert posting["id"] not in ids, f"posted twice: {posting}"
        ids.add(posting["id"])
        sums[posting["debit"]] -= posting["amount"]
        sums[posting["credit"]] += posting["amount"]
        assert posting["sequence"] == number + 1
        assert posting["previous"] == before
        assert posting["hash"] == chain_hash(before, posting)
        assert posting["balance"] == sums[f"customer:{account}"]
        last[account] = number + 1, posting["hash"]
        if posting["component"]:
            told.charged[account, posting["month"]] -= posting["change"]
        elif posting["kind"] in ("TOPUP", "REVERSAL", "MIGRATION_OPENING", "DEBT"):
            told.causes[account, posting["kind"], posting["cause"]] += posting["amount"]
    assert sum(sums.values()) == 0
    told.balances = {
        account: tuple(sign * sums[f"{kind}:{account}"] for kind, sign in (("customer", 1), ("debt", -1), ("emergency", -1)))  # type: ignore[misc]
        for account in last
    }
    notices = [notice["id"] for notice in said(chain, "prepaid.notices")]
    assert len(notices) == len(set(notices)), "a notice twice"
    proofs = said(chain, "prepaid.proofs")
    assert proofs
    assert all(proof["holds"] for proof in proofs)
    for account in said(chain, "prepaid.accounts"):
        told.connected[account["account"]] = account["state"]
    return told


@pytest.mark.torment
@pytest.mark.timeout(3600)
def test_killed_stopped_and_suspended_the_ledgers_end_as_if_undisturbed(tmp_path: Path) -> None:
    calm = Chain(tmp_path / "calm")
    worker = calm.worker(0)
    try:
        story(calm)
        expected = books(calm)
    finally:
        worker.terminate()
        worker.wait(120)
        calm.close()

    chain = Chain(tmp_path / "wild")
    tormentor = Tormentor(chain, ACTIONS, seed=int(os.environ.get("MDH_TORMENT_SEED", "3")), sink=False)
    try:
        story(chain, tormentor.calm)
    finally:
        tormentor.stop()
    found = books(chain)
    chain.close()

    print("torment:", dict(tormentor.done), len(found.balances), "accounts", sum(found.charged.values()), "charged")  # noqa: T201
    assert len(expected.balances) == METERS
    assert sum(expected.charged.values()) > 0
    assert "TOPUP" in {kind for _, kind, _ in expected.causes}
    assert found.causes == expected.causes
    assert found.charged == expected.charged
    assert set(found.connected.values()) <= {"active", "low"}, "all have paid, so all have supply"
    assert found.connected.keys() == expected.connected.keys()
    shutil.rmtree(tmp_path, ignore_errors=True)
