"""What objects mean for others: the channel that a component is, with its states and accounts in time, and a subscription's record."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from streams.master.registry import Body, Registry
from streams.master.rules import Placement, placements
from streams.master.timeline import EVER, FOREVER, Bounds, Span, differences, filled, joined, outward, records, within

UNITY: Final = 1_000_000
_PLAIN: Final = ("direction", "seconds", "dials", "allow_negative", "check_channel")


class Use(NamedTuple):
    """What holds of a channel for a time."""

    state: str
    service_point: str
    account: str
    multiplier: int | None  # millionths
    unit: str | None


NOWHERE: Final = Use("uninstalled", "", "", None, None)


class Channel(NamedTuple):
    """A channel as derived: attributes that have no time, and its use in time, without what is uninstalled."""

    device: str
    channel: str
    unit: str | None  # last known, also where it is installed nowhere
    plain: dict[str, Any]
    uses: list[Span[Use]]

    def pack(self, version: int) -> bytes:
        """As state entry, with the version of the record it was told as."""
        uses = [[begin, end, list(use)] for begin, end, use in self.uses]
        return orjson.dumps([version, self.device, self.channel, self.unit, self.plain, uses], option=orjson.OPT_SORT_KEYS)

    @classmethod
    def unpack(cls, data: bytes) -> tuple[int, Channel]:
        """Version and channel of a state entry."""
        version, device, channel, unit, plain, uses = orjson.loads(data)
        return version, cls(device, channel, unit, plain, [(begin, end, Use(*use)) for begin, end, use in uses])


def channel_of(registry: Registry, component: str) -> Channel | None:
    """The channel a component is, None where there is no such component."""
    spans = registry.get(("component", component)).spans
    if not spans:
        return None
    first = spans[0][2]
    places = placements(registry, first["device"])
    uses: list[Span[Use]] = []
    zone = None
    for begin, end, body in spans:
        for place in places:
            low, high = max(begin, place.begin), min(end, place.end)
            if low < high:
                uses += _used(registry, body, place, low, high)
    for place in places:
        known = registry.get(("service_point", place.service_point)).spans
        zone = (known[-1][2].get("zone") if known else None) or zone
    last = spans[-1][2]
    plain = {**{name: last.get(name) for name in _PLAIN}, "zone": zone}
    return Channel(first["device"], first["channel"], last.get("unit"), plain, joined(uses))


def _used(registry: Registry, body: Body, place: Placement, begin: int, end: int) -> list[Span[Use]]:
    """The time of a component at one place, cut where the account changes."""
    scaled = body.get("multiplier") is not None or place.multiplier != UNITY
    multiplier = (body.get("multiplier") or UNITY) * place.multiplier // UNITY if scaled else None
    accounts: list[Span[str]] = []
    for subscription in registry.users(("service_point", place.service_point), "subscription"):
        for low, high, terms in within(registry.get(("subscription", subscription)).spans, begin, end):
            if place.service_point in terms["service_points"] and _fits(registry, body, place, terms):
                accounts.append((low, high, subscription))
    accounts.sort()
    return [
        (low, high, Use(place.state, place.service_point, account, multiplier, body.get("unit")))
        for low, high, account in within(filled(accounts, ""), begin, end)
    ]


def _fits(registry: Registry, body: Body, place: Placement, terms: Body) -> bool:
    """Whether a subscription is one for what the component measures."""
    wanted = terms.get("commodity")
    if wanted is None:
        return True
    spans = registry.get(("service_point", place.service_point)).spans
    measured = body.get("commodity") or (spans[-1][2].get("commodity") if spans else None)
    return measured is None or measured == wanted


def changes(old: Channel | None, new: Channel) -> list[Bounds]:
    """The spans in which a channel is other than before."""
    if old is None or old.plain != new.plain:
        return [(EVER, FOREVER)]
    return differences(filled(old.uses, NOWHERE), filled(new.uses, NOWHERE))


def master_channel(channel: Channel, changed: list[Bounds], version: int) -> dict[str, Any]:
    """The MasterChannel record. What stands outside the periods is what holds last."""
    last = channel.uses[-1][2] if channel.uses else NOWHERE
    periods = [{"from": outward(begin), "to": outward(end), **use._asdict()} for begin, end, use in channel.uses] or [
        {"from": None, "to": None, **NOWHERE._asdict()}
    ]
    return {
        "device": channel.device,
        "channel": channel.channel,
        **channel.plain,
        "service_point": last.service_point or None,
        "account": last.account or None,
        "unit": last.unit or channel.unit,
        "multiplier": last.multiplier,
        "periods": periods,
        "changed": records(changed),
        "version": version,
    }


def usage_subscription(id: str, version: int, spans: list[Span[Body]], changed: list[Bounds]) -> dict[str, Any]:
    """The UsageSubscription record."""
    names = ("commodity", "usage_group", "rate", "billing_cycle", "payment", "customer_class", "region", "zone")
    periods = [
        {
            "from": outward(begin), "to": outward(end), "account": body["account"], "service_points": body["service_points"],
            **{name: body.get(name) for name in names}, "attributes": body.get("attributes") or {},
        }
        for begin, end, body in spans
    ]  # fmt: skip
    return {"subscription": id, "version": version, "periods": periods, "changed": records(changed)}
