"""The simulated head end against the prepaid engine: whatever answers do on their way, supply ends where the balance says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from connectors.enterprise.simulator.devices import FAULTS, Answer, Fleet, Manner, as_cim
from tests.prepaid.driver import Driver, second, settings

RULES = {"disconnection": {"grace": 0, "max_read_age": 90 * 86_400, "reconnect_above": "1", "retries": 3}, "provisional": "none"}


def command(id: str, action: str = "disconnect", device: str = "d1", expires: float = 1000.0) -> dict[str, object]:
    return {"id": id, "device": device, "action": action, "expires_at": expires}


def answers_of(manner: Manner, count: int = 400) -> tuple[Fleet, list[Answer]]:
    fleet = Fleet(manner)
    for number in range(count):
        assert fleet.take(command(f"c{number}", device=f"d{number}"), 0)
    return fleet, fleet.due(10_000)


def test_a_good_head_end_accepts_and_does_each_command_once() -> None:
    fleet, said = answers_of(Manner(delay=(1, 5)), 50)
    assert not fleet.take(command("c1"), 7)
    assert sorted((one.command, one.status) for one in said) == sorted((f"c{n}", s) for n in range(50) for s in ("accepted", "done"))
    assert all(1 <= one.at <= 5 for one in said if one.status == "done")
    assert (set(fleet.supplied.values()), fleet.counts["repeated"]) == ({False}, 1)


def test_faults_come_as_often_as_asked_and_the_same_seed_gives_the_same() -> None:
    manner = Manner(seed=7, lose=0.2, silent=0.1, duplicate=0.3, late=0.25, fail=0.1)
    fleet, said = answers_of(manner)
    assert answers_of(manner)[1] == said
    assert answers_of(Manner(seed=8, lose=0.2, silent=0.1, duplicate=0.3, late=0.25, fail=0.1))[1] != said
    for name in FAULTS:
        assert abs(fleet.counts[name] - 400 * getattr(manner, name) * (1 if name == "lose" else 0.8)) < 45, name
    outcomes = [one for one in said if one.status != "accepted"]
    assert len({one.command for one in outcomes}) < 400 - fleet.counts["lose"] + 1
    assert len(outcomes) > len({one.command for one in outcomes})
    assert sum(not on for on in fleet.supplied.values()) > len({one.command for one in outcomes if one.status == "done"})


def test_what_comes_too_late_to_the_meter_is_not_done() -> None:
    fleet = Fleet(Manner(delay=(30, 40)))
    fleet.take(command("c", expires=20), 0)
    assert [(one.status, one.code) for one in fleet.due(100)] == [("accepted", ""), ("failed", "expired")]
    assert fleet.supplied == {}


def test_a_late_answer_tells_when_it_happened() -> None:
    fleet = Fleet(Manner(delay=(1, 2), late=1.0, late_by=50, accepts=False))
    fleet.take(command("c", expires=20), 0)
    assert fleet.due(69) == []
    [said] = fleet.due(70)
    assert (said.status, said.at <= 2) == ("done", True)


def test_cim_has_a_form_for_each_answer() -> None:
    done = as_cim(Answer("c", "d1", "connect", "done", 60)).decode()
    assert "EndDeviceEvents" in done
    assert '"3.31.0.42"' in done
    failed = as_cim(Answer("c", "d1", "connect", "failed", 60, "relay", "the relay did not move")).decode()
    assert "FAILED" in failed
    assert "the relay did not move" in failed
    assert "OK" in as_cim(Answer("c", "d1", "connect", "accepted", 60)).decode()


@pytest.mark.parametrize("seed", range(12))
def test_supply_follows_the_balance_through_all_faults(seed: int) -> None:
    """Accounts run to zero and are paid again while answers are lost, late or doubled: in the end every relay is where it must be."""
    manner = Manner(seed, (1.0, 400.0), 600.0, lose=0.15, silent=0.15, duplicate=0.3, late=0.3, fail=0.1)
    driver, fleet = Driver(settings(**RULES), at="2026-03-02T09:00"), Fleet(manner)
    accounts = [f"a{number}" for number in range(12)]
    for number, account in enumerate(accounts):
        driver.ask("enrol", account, terms={"opening": "200", "from": "2026-03-01", "device": f"d{number}"})
    taken = 0

    def wait(until: int, step: int = 20) -> None:
        nonlocal taken
        while driver.now < until:
            driver.tick(driver.now + step)
            for one in driver.said["DeviceCommand"][taken:]:
                assert one["device"], "a command for no device"
                fleet.take(one, driver.now)
            taken = len(driver.said["DeviceCommand"])
            for answer in fleet.due(driver.now):
                about = {"device": answer.device, "at": answer.at, "code": answer.code, "detail": answer.detail}
                driver.reply(answer.status, answer.command, **about)

    for number, account in enumerate(accounts):
        driver.use("2026-03-01", "10", account, device=f"d{number}")
    wait(second("2026-03-02T10:00"))
    for round_ in range(3):
        for number, account in enumerate(accounts):
            driver.use(f"2026-03-0{2 + round_}", "900", account, device=f"d{number}")
        wait(second(f"2026-03-0{3 + round_}T00:20"))
        for account in accounts[::2]:
            owed = -int(driver.account(account)["balance"])
            driver.ask("topup", account, amount=owed + 20_000, reference=f"{account}/{round_}")
        wait(second(f"2026-03-0{3 + round_}T09:00"), 60)
    driver.check()
    assert {"lose", "silent", "duplicate", "late"} <= {name for name in fleet.counts if fleet.counts[name]}
    assert len({driver.account(account)["state"] for account in accounts}) > 1
    assert {"connect", "disconnect"} == {one["action"] for one in driver.said["DeviceCommand"]}
    for number, account in enumerate(accounts):
        stands, on = driver.account(account), fleet.supplied.get(f"d{number}", True)
        if Decimal(stands["balance"]) > 100:
            assert (stands["state"], on) == ("active", True), account
        elif stands["state"] == "disconnected":
            assert not on, account
        else:
            assert "disconnect" in stands["trouble"], (account, stands["state"])
