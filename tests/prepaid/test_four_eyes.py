"""A large adjustment with two logins: each says who they are, and no name in a body stands for a person."""

from __future__ import annotations

from pathlib import Path

from connectors.kafka.mock import MockBroker
from connectors.prepaid.part import routes
from connectors.rights.chain import verify
from schemas.topology.rights import Grant, RightsSettings
from tests.prepaid.hub import running
from tests.rights.kit import World

ORDERS = "/v1/prepaid/adjustments"


def test_two_logins_are_needed_and_two_names_are_not_enough(tmp_path: Path) -> None:
    with running(tmp_path / "prepaid", four_eyes_above="10") as hub, MockBroker() as broker:
        hub.enrol("a1")
        world = World(broker, tmp_path / "rights", RightsSettings(mode="enforced"), routers=[routes(hub.part)])
        try:
            for name, role in {"sven": "supervisor", "cora": "customer-service"}.items():
                world.user(name, Grant(role=role))
            world.user("portal", Grant(role="integrator"), machine=True)
            world.user("boss", Grant(role="admin"))
            boss, sven, cora = world.logged_in("boss"), world.logged_in("sven"), world.logged_in("cora")
            path = "/v1/prepaid/accounts/a1/adjustments"
            body = {"amount": "40.00", "reason": "burst pipe", "user": "someone"}
            assert cora.post(path, json=body).status_code == 403

            asked = boss.post(path, json=body)
            assert (asked.status_code, asked.json()["user"]) == (202, "boss"), "a name in the body is nobody"
            order = asked.json()["id"]
            assert boss.post(f"{ORDERS}/{order}/approve", json={"user": "sven"}).json()["type"].endswith(":four-eyes")
            assert cora.post(f"{ORDERS}/{order}/approve", json={"user": "sven"}).status_code == 403
            assert [one["id"] for one in sven.get(ORDERS).json()["items"]] == [order]
            done = sven.post(f"{ORDERS}/{order}/approve", json={})
            assert (done.status_code, done.json()["decided_by"], done.json()["outcome"]["balance"]) == (200, "sven", "40.00")

            trusted = world.browser().post(path, json={**body, "user": "kim", "approver": "lee"}, headers=world.token("portal"))
            assert (trusted.status_code, trusted.json()["balance"]) == (201, "80.00"), "a system that may act for people names both"
        finally:
            world.close()
        entries = hub.store.query_arrow("SELECT * FROM audit").to_pylist()
        assert verify(entries).problems == []
        told = {row["outcome"]: (row["actor"], row["principal"], row["approved_by"]) for row in entries if row["bulk"] == order}
        assert {outcome: (actor, second) for outcome, (actor, _, second) in told.items()} == {
            "requested": ("boss", ""), "approved": ("sven", "sven"),
        }  # fmt: skip
        assert told["approved"][1].startswith("session:sven#")
