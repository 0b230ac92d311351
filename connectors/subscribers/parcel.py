"""What is delivered in one go, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from connectors.subscribers.objects import Unit, delivery_id


@dataclass(slots=True, eq=False)
class Parcel:
    """One delivery: items of one object from one partition, in order. ``first`` and ``last`` are offsets."""

    id: str
    subscriber: str
    object: str
    topic: str
    partition: int
    first: int
    last: int
    key: str  # of its records, empty: of several
    units: list[Unit]
    part: slice | None = None  # of the items of its only unit
    epoch: int = 0
    test: bool = False

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items in order."""
        found = self.units[0].items if len(self.units) == 1 else [item for unit in self.units for item in unit.items]
        return found if self.part is None else found[self.part]

    @property
    def at(self) -> int:
        """UTC milliseconds of its first record."""
        return self.units[0].at


def parcel_of(subscriber: str, units: list[Unit], epoch: int, *, part: slice | None = None, again: str = "", test: bool = False) -> Parcel:
    """The parcel of units of one object and partition (or of a part of one unit's items)."""
    first, last = units[0], units[-1]
    parcel = Parcel(
        "", subscriber, first.object, first.topic, first.partition, first.offset, last.offset, first.key, units, part, epoch, test
    )
    if any(unit.key != first.key for unit in units):
        parcel.key = ""
    items = parcel.items
    versions = [item["version"] if isinstance(item.get("version"), int) else 0 for item in items]
    parcel.id = delivery_id(subscriber, first.object, [item["id"] for item in items], versions, again)
    return parcel


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery that was taken: where, how many bytes, the receiver's status; ``left_out`` says which items its format cannot hold."""

    place: str
    bytes: int
    code: int = 0
    left_out: str = ""


class DeliveryError(Exception):
    """A delivery that was not taken."""

    def __init__(self, reason: str, code: int = 0, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.code, self.wait = reason, code, wait


class AwayError(DeliveryError):
    """Nobody takes anything there now: no answer, busy, not let in. Waiting may help, another delivery would fare no better."""


class BrokenError(DeliveryError):
    """The receiver answered with an error of its own; it may be about this delivery."""


class RefusedError(DeliveryError):
    """The receiver (or the format) cannot take this delivery as it is."""


class UnfitError(RefusedError):
    """Nothing of this delivery fits the format: trying again changes nothing."""


class Channel(Protocol):
    """A way to a receiver. Used by several threads of one subscriber."""

    kind: str

    def send(self, parcel: Parcel) -> Sent:
        """Delivers and returns once the receiver has it. Raises DeliveryError."""
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...
