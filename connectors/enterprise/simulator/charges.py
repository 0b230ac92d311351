"""A prepaid month on its way to a CIS: told when it is over, confirmed, and told anew when its reads come late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from connectors.enterprise.simulator.customer import become_prepaid
from connectors.enterprise.simulator.hub import Hub, SimulationError

OPENING: Final = "200.00"
BACK: Final = timedelta(days=35)  # whatever the cycle day, the month of that day is over
QUARTER: Final = Decimal("0.125")  # kWh


@dataclass(frozen=True, slots=True)
class Charge:
    """What a CIS was told of a month."""

    id: str
    version: int
    replaces: str
    first: str
    total: Decimal
    changed: Decimal  # by its lines, against the version it replaces
    quantity: Decimal
    provisional: bool


class Cis(Protocol):
    """What a simulated CIS knows of charges, and how it says what it made of one."""

    hub: Hub
    system: str

    def charges(self, account: str) -> Sequence[Charge]:
        """All it was told of an account, in the order in which it came."""

    def accept(self, charge: Charge) -> None:
        """Says that it has taken a charge."""


def prepaid_month(cis: Cis, account: str, meter: str, channel: str, zone: str, today: datetime | None = None) -> dict[str, Any]:
    """From a prepaid month that is over to what the CIS has of it. What it was told, in order.

    The meter is there and reads of ``channel`` count for the account. Raises SimulationError at the first thing that is wrong.
    """
    now = (today or datetime.now(UTC)).astimezone(ZoneInfo(zone))
    first = (now - BACK).date()
    terms = {"opening": OPENING, "first_day": first.isoformat(), "zone": zone, "device": meter, "reason": "simulated"}
    become_prepaid(cis.hub, account, terms)
    cis.hub.say(f"{account}: prepaid from {first}")

    def newest() -> Charge | None:
        found = [one for one in cis.charges(account) if one.first == first.isoformat()]
        return max(found, key=lambda one: one.version, default=None)

    cis.hub.wait("what the month came to", newest)
    before = _confirmed(cis, account, newest)
    cis.hub.say(f"charge of the month: {before.total}, no reads yet, confirmed")
    quantity = _late_reads(cis.hub, meter, channel, zone, first)
    cis.hub.wait("the charge with its reads", lambda: (one := newest()) is not None and one.quantity == quantity)
    after = _confirmed(cis, account, newest)
    cis.hub.say(f"charge of the month: {after.total} with {after.quantity} kWh, it replaces {before.total}")
    told = {one.id: one for one in cis.charges(account) if one.first == first.isoformat()}
    for one in told.values():
        earlier = told[one.replaces].total if one.replaces else Decimal(0)
        if one.total - earlier != one.changed:
            raise SimulationError(f"charge {one.id}: its lines change {one.changed}, its total {one.total - earlier}")
    return {
        "account": account, "charges": [str(one.total) for one in told.values()], "quantity": str(after.quantity),
        "first": before.id, "last": after.id, "provisional": [before.provisional, after.provisional],
    }  # fmt: skip


def noted(cis: Cis, account: str, charge: Charge, state: str) -> bool:
    """Whether the hub has noted what was said of a charge."""
    params = {"kind": "prepaid-charge", "system": cis.system, "account": account, "state": state}
    return any(charge.id in str(row["detail"]) for row in cis.hub.get("/v1/conversations", params=params).json()["items"])


def _confirmed(cis: Cis, account: str, newest: Callable[[], Charge | None]) -> Charge:
    """The newest charge once the hub has noted that it was taken; one that is replaced meanwhile is left aside."""
    accepted = set[str]()

    def look() -> Charge | None:
        charge = newest()
        if charge is not None and charge.id not in accepted:
            accepted.add(charge.id)
            cis.accept(charge)
        return charge if charge is not None and noted(cis, account, charge, "CONFIRMED") else None

    found: Charge = cis.hub.wait("the hub to note that the charge was taken", look)
    return found


def _late_reads(hub: Hub, meter: str, channel: str, zone: str, day: date) -> Decimal:
    """A day of quarter hours, as its head end sends it weeks later; kWh."""
    start, end = (datetime.combine(at, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC) for at in (day, day + timedelta(days=1)))
    slots = int((end - start).total_seconds()) // 900
    values = [str(QUARTER)] * slots
    read = {"device": meter, "channel": channel, "unit": "kWh", "seconds": 900, "start": start.isoformat(), "values": values}
    hub.reads({"source": "simulated", "reads": [read]}, "simulated")
    return QUARTER * slots
