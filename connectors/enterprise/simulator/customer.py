"""A prepaid customer on a running hub: the balance is used up, supply is cut, a payment brings it back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from connectors.enterprise.simulator.hub import Hub, SimulationError

ZONE: Final = "Europe/Berlin"
OPENING: Final = "2.00"
HOURLY: Final = "3"  # kWh: a day costs more than the opening balance by any tariff
PAYMENT: Final = Decimal(20)
NEVER: Final = "prepaid.disconnection of topology.yaml (grace, protected, enabled) keeps supply on"


def path_of(account: str) -> str:
    """Where an account is in the API."""
    return f"/v1/prepaid/accounts/{quote(account, safe='')}"


def become_prepaid(hub: Hub, account: str, terms: dict[str, str]) -> None:
    """Makes an account prepaid and waits until it is. Raises SimulationError."""
    path = path_of(account)
    answer = hub.client.post(f"{path}/mode", json={"mode": "PREPAID", **terms})
    if answer.status_code not in (200, 201, 202):
        raise SimulationError(f"POST {path}/mode was answered with {answer.status_code}: {answer.text[:500]}")
    hub.wait("the account", lambda: hub.client.get(path).status_code == 200)


class Customer:
    """One account with its meter."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub, self.account, self.meter = hub, f"A{name}", f"P{name}"
        self.path = path_of(self.account)

    def enrol(self, today: datetime) -> None:
        """A meter at a service point, and an account that begins the day before with a small balance."""
        line = {
            "service_point": f"SP-{self.meter}", "device": self.meter, "channel": "1.8.0", "unit": "kWh", "direction": "delivered",
            "seconds": 3600, "zone": ZONE, "account": self.account,
        }  # fmt: skip
        taken = self.hub.post("/v1/master", 200, json=line, headers={"Content-Type": "application/x-ndjson"}).json()
        if taken["errors"]:
            raise SimulationError(f"master data: {taken['errors'][0]['message']}")
        first = (today - timedelta(days=1)).date().isoformat()
        terms = {"opening": OPENING, "first_day": first, "zone": ZONE, "device": self.meter, "reason": "simulated"}
        become_prepaid(self.hub, self.account, terms)

    def use(self, today: datetime) -> None:
        """A day of hourly consumption, as the head end sends it."""
        start = datetime.combine(today.date() - timedelta(days=1), datetime.min.time(), today.tzinfo)
        end = datetime.combine(today.date(), datetime.min.time(), today.tzinfo)
        slots = int((end.astimezone(UTC) - start.astimezone(UTC)).total_seconds()) // 3600
        reads = {
            "device": self.meter, "channel": "1.8.0", "unit": "kWh", "seconds": 3600, "start": start.isoformat(),
            "values": [HOURLY] * slots,
        }  # fmt: skip
        self.hub.reads({"source": "simulated", "reads": [reads]}, "simulated")

    def stands(self) -> dict[str, Any]:
        """The account as it stands."""
        found: dict[str, Any] = self.hub.get(self.path).json()
        return found

    def in_state(self, *states: str) -> dict[str, Any] | None:
        """The account, once it is in one of the states."""
        found = self.stands()
        return found if found["state"] in states else None

    def told(self) -> list[str]:
        """Kinds of the notices so far."""
        return [one["kind"] for one in self.hub.get(f"{self.path}/notices", params={"limit": 1000}).json()["items"]]

    def commands(self, action: str, *statuses: str) -> list[dict[str, Any]]:
        """Commands to the meter, with these statuses; none: with any."""
        found = self.hub.get("/v1/device-commands", params={"device": self.meter, "action": action, "limit": 1000}).json()["items"]
        return [one for one in found if not statuses or one["status"] in statuses]


def to_zero_and_back(hub: Hub, name: str, now: datetime | None = None) -> dict[str, Any]:
    """From a small balance to none, to the cut and back by a payment; what was told and ordered on the way.

    Somebody must answer the commands meanwhile: a head end, or its simulator. Raises SimulationError at the first thing that does not come.
    """
    today = (now or datetime.now(UTC)).astimezone(ZoneInfo(ZONE))
    customer = Customer(hub, name)
    customer.enrol(today)
    hub.say(f"{customer.account}: prepaid, balance {OPENING}")
    customer.use(today)
    hub.wait("notice of the balance that is used up", lambda: "balance.zero" in customer.told())
    stands = customer.stands()
    hub.say(f"{customer.account}: balance {stands['balance']}, {stands['state']}, told {', '.join(customer.told())}")
    _cut_in_sight(hub, customer, stands)
    hub.wait("command to disconnect", lambda: customer.commands("disconnect"))
    hub.say(f"{customer.meter}: told to disconnect")
    hub.wait("acknowledgement of the disconnection (is a head end there?)", lambda: customer.in_state("disconnected"))
    hub.say(f"{customer.account}: disconnected")
    amount = PAYMENT - Decimal(customer.stands()["balance"])
    paid = {"amount": f"{amount:.2f}", "channel": "card", "external_ref": f"pay-{customer.account}"}
    answer = hub.client.post(f"{customer.path}/topups", json=paid)
    if answer.status_code not in (200, 201, 202):
        raise SimulationError(f"the payment was answered with {answer.status_code}: {answer.text[:500]}")
    hub.say(f"{customer.account}: {amount:.2f} paid")
    hub.wait("command to reconnect", lambda: customer.commands("connect"))
    hub.say(f"{customer.meter}: told to reconnect")
    hub.wait("acknowledgement of the reconnection", lambda: customer.in_state("active", "low"))
    hub.wait("notice of the reconnection", lambda: "reconnected" in customer.told())
    hub.say(f"{customer.account}: connected again")
    return {
        "account": customer.account, "meter": customer.meter, "notices": customer.told(), "balance": customer.stands()["balance"],
        "disconnects": len(customer.commands("disconnect")), "connects": len(customer.commands("connect")),
    }  # fmt: skip


def _cut_in_sight(hub: Hub, customer: Customer, stands: dict[str, Any]) -> None:
    """Raises SimulationError where the rules let nobody cut supply before patience ends."""
    if customer.commands("disconnect"):
        return
    if stands["cut_from"] is None:
        found = hub.wait("a moment from which supply may be cut", lambda: customer.commands("disconnect") or customer.stands()["cut_from"])
        stands = {**stands, "cut_from": found} if isinstance(found, str) else stands
    if stands["cut_from"] is not None:
        wait = datetime.fromisoformat(stands["cut_from"]).timestamp() - datetime.now(UTC).timestamp()
        if wait > hub.patience:
            raise SimulationError(f"{NEVER} until {stands['cut_from']}; for a trial: {{grace: 0s, protected: []}}")
