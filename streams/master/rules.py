"""What must fit together: references, events of a device in order, one subscription per service point and commodity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from schemas.master import EVENTS, named
from streams.master.registry import Body, Key, Registry
from streams.master.timeline import EVER, FOREVER, Bounds, Span, at, covers, within

_RANK: Final = {event: rank for rank, event in enumerate(EVENTS)}
MOMENT_FIXED: Final = {"component": ("device", "channel"), "configuration": ("device",), "install": ("device",)}


class RefusedError(Exception):
    """An item that cannot be applied as it is; the message says why."""


class MissingError(Exception):
    """An item that names something unknown, which may come later."""

    def __init__(self, target: Key) -> None:
        super().__init__(f"there is no {words(target)}")
        self.target = target


class Event(NamedTuple):
    """One install event of a device."""

    moment: int
    rank: int
    id: str
    body: Body


class Placement(NamedTuple):
    """A device at a service point for a time in one state."""

    begin: int
    end: int
    service_point: str
    state: str
    multiplier: int  # of the place, millionths


def words(key: Key) -> str:
    """An object in words: ``service point SP1``."""
    return f"{key[0].replace('_', ' ')} {key[1]}"


def moment(second: int) -> str:
    """A second as ISO time."""
    return "ever" if second == EVER else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def events_of(registry: Registry, device: str) -> list[Event]:
    """The install events of a device in the order in which they happened."""
    found = []
    for one in registry.users(("device", device), "install"):
        for begin, _, body in registry.get(("install", one)).spans:
            found.append(Event(begin, _RANK[body["event"]], one, body))
    return sorted(found, key=lambda event: event[:3])


def placements(registry: Registry, device: str) -> list[Placement]:
    """Where a device was when, in which state. Raises RefusedError where its events contradict each other."""
    found: list[Placement] = []
    place: Body | None = None
    since, state = EVER, ""
    for event in events_of(registry, device):
        kind, point = event.body["event"], event.body["service_point"]
        if kind == "install":
            if place is not None:
                raise RefusedError(
                    f"device {device} is installed at {place['service_point']} since {moment(since)}: it cannot be installed at {point} "
                    f"on {moment(event.moment)} before it is removed"
                )
            place, state = event.body, "disconnected" if event.body.get("disconnected") else "connected"
            since = event.moment
            continue
        if place is None or place["service_point"] != point:
            where = "not installed anywhere" if place is None else f"installed at {place['service_point']}"
            raise RefusedError(f"{kind} at {point} on {moment(event.moment)}: device {device} is {where} then")
        found.append(_placement(since, event.moment, place, state))
        since = event.moment
        if kind == "remove":
            place = None
        else:
            state = "connected" if kind == "connect" else "disconnected"
    if place is not None:
        found.append(_placement(since, FOREVER, place, state))
    return [one for one in found if one.end > one.begin]


def _placement(begin: int, end: int, place: Body, state: str) -> Placement:
    return Placement(begin, end, place["service_point"], state, place.get("multiplier") or 1_000_000)


def check_references(registry: Registry, key: Key, spans: Iterable[Span[Body]]) -> None:
    """Raises MissingError for the first thing named that does not exist, RefusedError for one that does not exist at that time."""
    for begin, end, body in spans:
        for target in named(key[0], body):
            thing = registry.get(target)
            if not thing.exists:
                raise MissingError(target)
            if key[0] == "install":
                if at(thing.spans, begin) is None:
                    raise RefusedError(f"{words(target)} does not exist at {moment(begin)}")
            elif not within(thing.spans, begin, end):
                raise RefusedError(f"{words(target)} does not exist between {moment(begin)} and {_until(end)}")


def _until(end: int) -> str:
    return "the end of time" if end == FOREVER else moment(end)


def check_identity(key: Key, spans: Iterable[Span[Body]]) -> None:
    """What an object is part of stays the same all the time."""
    for attribute in MOMENT_FIXED.get(key[0], ()):
        values = {body[attribute] for _, _, body in spans}
        if len(values) > 1:
            raise RefusedError(f"{words(key)} belongs to {attribute} {min(values)}; it cannot belong to {max(values)} at another time")


def check_component(registry: Registry, key: Key, spans: Iterable[Span[Body]]) -> None:
    """Two components are never the same channel of a device."""
    for _, _, body in spans:
        for other in registry.users(("device", body["device"]), "component"):
            if other != key[1] and registry.get(("component", other)).spans[0][2]["channel"] == body["channel"]:
                raise RefusedError(f"channel {body['channel']} of device {body['device']} is component {other}")


def check_install(registry: Registry, key: Key, spans: list[Span[Body]]) -> None:  # noqa: ARG001
    """The events of the devices fit together, and at one service point there is one device at a time unless it takes several."""
    for device in {body["device"] for _, _, body in spans}:
        check_device(registry, device)


def check_device(registry: Registry, device: str) -> None:
    """The events of one device fit together, among themselves and with those of other devices at its service points."""
    own = placements(registry, device)
    for point in sorted({one.service_point for one in own}):
        if any(body.get("several") for _, _, body in registry.get(("service_point", point)).spans):
            continue
        events = (registry.get(("install", one)).spans for one in registry.users(("service_point", point), "install"))
        for other in sorted({spans[0][2]["device"] for spans in events} - {device}):
            _check_apart(point, device, own, other, placements(registry, other))


def _check_apart(point: str, device: str, own: list[Placement], other: str, theirs: list[Placement]) -> None:
    for there in theirs:
        for here in own:
            if here.service_point == there.service_point == point and max(here.begin, there.begin) < min(here.end, there.end):
                raise RefusedError(
                    f"at service point {point} device {other} is installed from {moment(there.begin)} to {_until(there.end)}, "
                    f"device {device} would be from {moment(here.begin)}"
                )


def check_subscription(registry: Registry, key: Key, spans: Iterable[Span[Body]]) -> None:
    """At no time do two subscriptions use one service point for the same commodity."""
    for begin, end, body in spans:
        for point in body["service_points"]:
            for other in registry.users(("service_point", point), "subscription"):
                if other == key[1]:
                    continue
                for low, high, theirs in within(registry.get(("subscription", other)).spans, begin, end):
                    mine, its = body.get("commodity"), theirs.get("commodity")
                    if point in theirs["service_points"] and (mine is None or its is None or mine == its):
                        raise RefusedError(f"service point {point} is used by subscription {other} from {moment(low)} to {_until(high)}")


def check_end(registry: Registry, key: Key, end: int) -> None:
    """Nothing that uses an object reaches beyond its end, but what ends with it."""
    if key[0] == "device":
        for one in placements(registry, key[1]):
            if one.end > end:
                raise RefusedError(f"device {key[1]} is installed at {one.service_point} until {_until(one.end)}: remove it first")
        return
    if key[0] == "service_point":
        for device in sorted({registry.get(("install", i)).spans[0][2]["device"] for i in registry.users(key, "install")}):
            if any(one.end > end and one.service_point == key[1] for one in placements(registry, device)):
                raise RefusedError(f"device {device} is installed at service point {key[1]}: remove it first")
    for name in registry.all_users(key):
        kind, _, id = name.partition("/")
        if kind == "install":
            continue
        for begin, until, body in registry.get((kind, id)).spans:
            if until > end and key in named(kind, body):
                raise RefusedError(f"{words((kind, id))} uses it from {moment(begin)} to {_until(until)}: end that first")


Check = Callable[[Registry, Key, list[Span[Body]]], None]
CHECKS: Final[dict[str, Check]] = {
    "component": check_component,
    "install": check_install,
    "subscription": check_subscription,
}


def check(registry: Registry, key: Key, before: list[Span[Body]], spans: list[Span[Body]], touched: Bounds) -> None:
    """All that must hold of an object as it is now; ``touched`` is the span of time that was changed, ``before`` what was there.

    Raises MissingError or RefusedError.
    """
    check_identity(key, spans)
    check_references(registry, key, within(spans, *touched))
    if key[0] in CHECKS:
        CHECKS[key[0]](registry, key, spans)
    if key[0] == "install":
        for device in {body["device"] for _, _, body in before}:
            check_device(registry, device)
    if before and not covers(spans, before[0][0], before[-1][1]):
        check_end(registry, key, spans[-1][1] if spans else before[0][0])
