"""``mdh prepaid`` against a hub over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from mdh.cli import main
from tests.prepaid.hub import Hub, running, served
from tests.prepaid.test_api import days_of, used


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with (
        running(tmp_path_factory.mktemp("hub"), four_eyes_above="10") as found,
        served(found) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MDH_URL", url)
        used(found, "c1")
        yield found


class Told:
    """Runs a command; its status and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str]:
        self.patch.setattr("sys.argv", ["mdh", "prepaid", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        said = self.capsys.readouterr()
        return int(stop.value.code or 0), said.out + said.err


@pytest.fixture
def told(hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(capsys, monkeypatch)


def test_accounts_and_ledger_are_listed(told: Told) -> None:
    status, said = told("accounts", "--json")
    assert (status, [a["balance"] for a in orjson.loads(said)]) == (0, ["15.50"])
    assert "15.50 EUR" in told("accounts")[1]
    assert "no prepaid accounts" in told("accounts", "--state", "zero")[1]
    assert [p["kind"] for p in orjson.loads(told("ledger", "c1", "--json")[1])] == ["TOPUP", "ENERGY", "ENERGY"]
    assert "-3.60" in told("ledger", "c1")[1]
    assert orjson.loads(told("show", "c1")[1])["debts"] == []


def test_a_topup_is_told_and_repeated_without_harm(told: Told, hub: Hub) -> None:
    hub.enrol("c2")
    assert told("topup", "c2", "7.00", "--reference", "r1") == (0, "c2: 7.00 credited, balance 7.00, active\n")
    assert "known from before" in told("topup", "c2", "7.00", "--reference", "r1")[1]
    status, said = told("topup", "c2", "8.00", "--reference", "r1")
    assert (status, said.count("\n")) == (2, 1)
    assert told("topup", "nobody", "8.00", "--reference", "r1")[0] == 2
    assert hub.balance("c2") == "7.00"


def test_a_large_adjustment_is_approved_by_somebody_else(told: Told, hub: Hub) -> None:
    hub.enrol("c9")
    assert told("adjust", "c9", "1.00", "--reason", "goodwill", "--user", "ann")[1] == "c9: adjusted by 1.00, balance 1.00, active\n"
    said = told("adjust", "c9", "90.00", "--reason", "burst pipe", "--user", "ann", "--key", "k")[1]
    order = said.split()[-1]
    assert said == f"c9: waiting, order {order}\n"
    assert order in told("adjustments")[1]
    assert [one["user"] for one in orjson.loads(told("adjustments", "--json")[1])] == ["ann"]
    status, said = told("approve", order, "--user", "ann")
    assert (status, said.count("\n")) == (2, 1)
    assert told("approve", order, "--user", "bob") == (0, "c9: 90.00 approved by bob\n")
    assert told("approve", order, "--reject", "--user", "cid")[0] == 2
    assert "no adjustment waits" in told("adjustments")[1]
    assert hub.balance("c9") == "91.00"


def test_replay_explains_and_verify_proves(told: Told, hub: Hub) -> None:
    status, said = told("replay", "--account", "c1")
    assert status == 0
    assert "intervals d-c1 1.8.0: 12 kWh (24 regular)" in said
    assert said.splitlines()[-1] == "c1: 3 postings, balance 15.50 EUR"
    assert told("verify")[0] == 0
    hub.enrol("c3")
    hub.topup(account="c3")
    hub.store.command("ALTER TABLE prepaid_postings UPDATE change = 1 WHERE account = 'c3' SETTINGS mutations_sync = 1")
    status, said = told("verify", "--account", "c3")
    assert (status, "DOES NOT HOLD" in said) == (1, True)
    assert told("replay", "--account", "c3")[0] == 1
    assert told("replay", "--account", "nobody")[0] == 2


def test_another_tariff_is_tried(told: Told, hub: Hub, tmp_path: Path) -> None:
    hub.store.insert_arrow("determinant_days", days_of("c1", {"2026-03-02": 12_000_000}))
    file = tmp_path / "tariff.yaml"
    file.write_text('id: night\nversions:\n  - rate: "0.10"\n    fixed: "3.10"\n')
    words = ("try", "--tariff", str(file), "--account", "c1", "--from", "2026-03-02", "--to", "2026-03-02")
    found = orjson.loads(told(*words, "--json")[1])
    assert (found["asked"], found["own"], found["difference"]) == ("1.30", "3.60", "-2.30")
    assert "night" in told(*words)[1]
    file.write_text("id: [")
    assert told(*words)[0] == 2
    file.write_text("id: x\nversions: []\n")
    assert told(*words)[0] == 2
