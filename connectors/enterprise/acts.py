"""Acts on devices and service points as the objects they change: a swap, an installation, a move of accounts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from connectors.enterprise.objects import time_text
from connectors.enterprise.service import MasterService
from schemas import quantity

Readings = dict[str, Decimal]


class Act(BaseModel):
    """What all acts have."""

    model_config = ConfigDict(extra="forbid")

    at: datetime = Field(description="ISO time with offset at which it happened")
    reason: str | None = Field(default=None, max_length=200)

    def second(self) -> int:
        """UTC seconds. Raises ValueError without an offset."""
        if self.at.tzinfo is None:
            raise ValueError("at: a time needs an offset, such as 2026-03-29T00:00:00Z")
        return int(self.at.timestamp())


class Happening(Act):
    """A device is installed, connected, disconnected or removed."""

    service_point: str | None = Field(default=None, max_length=200, description="left out: where it is installed")
    multiplier: Decimal | None = Field(default=None, description="install: of transformers at the place")
    readings: Readings = Field(default_factory=dict, max_length=100, description="channel → register reading at that moment")


class Exchange(Act):
    """One device takes the place of another."""

    device: str = Field(max_length=200, description="the new device")
    attributes: dict[str, Any] = Field(default_factory=dict, description="of the new device: serial, model …")
    components: list[dict[str, Any]] | None = Field(default=None, max_length=100, description="left out: as the old device's")
    multiplier: Decimal | None = Field(default=None, description="of transformers at the place")
    removal_readings: Readings = Field(default_factory=dict, max_length=100)
    start_readings: Readings = Field(default_factory=dict, max_length=100)


class Reconfiguration(Act):
    """Attributes of a device's components, from a moment on."""

    configuration: str | None = Field(default=None, max_length=200, description="id of the configuration that holds from then on")
    attributes: dict[str, Any] = Field(default_factory=dict, description="of the configuration")
    components: dict[str, dict[str, Any]] = Field(default_factory=dict, max_length=100, description="channel → what changes")


class AccountChange(Act):
    """Another account uses a service point from a moment on: move-out and move-in in one act."""

    subscription: str | None = Field(default=None, max_length=200, description="the new one; left out: nobody moves in")
    account: str | None = Field(default=None, max_length=200)
    attributes: dict[str, Any] = Field(default_factory=dict, description="of the new subscription: usage_group, rate, payment …")


class UnknownError(Exception):
    """The act concerns something that is not there."""


def event_lines(service: MasterService, device: str, event: str, asked: Happening) -> list[dict[str, Any]]:
    """The install event of an act. Raises UnknownError where nobody knows at which service point."""
    point = asked.service_point or service.placed_at(device, asked.second())
    if point is None:
        raise UnknownError(f"device {device} is not installed at {time_text(asked.second())}: say at which service point")
    return [_event(device, point, event, asked, asked.multiplier, asked.readings)]


def exchange_lines(service: MasterService, device: str, asked: Exchange) -> list[dict[str, Any]]:
    """Removal of the old device, the new one with its components, its installation: all or none. Raises UnknownError."""
    point = service.placed_at(device, asked.second())
    if point is None:
        raise UnknownError(f"device {device} is not installed at {time_text(asked.second())}")
    parts = asked.components
    if parts is None:
        parts = [
            {name: value for name, value in body.items() if name != "configuration"} for _, body in service.of_device("component", device)
        ]
    lines = [_event(device, point, "remove", asked, None, asked.removal_readings)]
    lines.append({"kind": "device", "id": asked.device, **asked.attributes})
    for part in parts:
        own = {**part, "device": asked.device}
        id = own.pop("id", None) or f"{asked.device}/{own.get('channel')}"
        lines.append({"kind": "component", "id": id, **own})
    lines.append(_event(asked.device, point, "install", asked, asked.multiplier, asked.start_readings))
    return [{**line, "group": "exchange"} for line in lines]


def configuration_lines(service: MasterService, device: str, asked: Reconfiguration) -> list[dict[str, Any]]:
    """A configuration and the changes of components it brings, from a moment on. Raises UnknownError for a channel that is not there."""
    begin = time_text(asked.second())
    known = {body["channel"]: id for id, body in service.of_device("component", device)}
    lines: list[dict[str, Any]] = []
    if asked.configuration is not None:
        lines.append({"kind": "configuration", "id": asked.configuration, "device": device, "from": begin, **asked.attributes})
    for channel, change in asked.components.items():
        if channel not in known:
            raise UnknownError(f"device {device} has no component for channel {channel}")
        change = {**change, **({"configuration": asked.configuration} if asked.configuration else {})}
        lines.append({"kind": "component", "id": known[channel], "action": "patch", "from": begin, **change})
    return [{**line, "group": "configuration"} for line in lines]


def account_lines(service: MasterService, point: str, asked: AccountChange) -> list[dict[str, Any]]:
    """The end of the subscription that uses a service point, and the one that uses it from then on. Raises UnknownError."""
    begin = asked.second()
    lines: list[dict[str, Any]] = []
    for id, (_, until, body) in service.subscriptions_of(point, begin):
        if id == asked.subscription:
            continue
        points = [one for one in body["service_points"] if one != point]
        if points:
            lines.append({"kind": "subscription", "id": id, "action": "patch", "from": time_text(begin), "service_points": points})
        elif until < 0 or until > begin:
            lines.append({"kind": "subscription", "id": id, "action": "end", "at": time_text(begin)})
    if asked.subscription is not None:
        if asked.account is None:
            raise UnknownError("the new subscription needs its account")
        lines.append({"kind": "subscription", "id": asked.subscription, "account": asked.account, "service_points": [point],
                      "from": time_text(begin), **asked.attributes})  # fmt: skip
    if not lines:
        raise UnknownError(f"no subscription uses service point {point} at {time_text(begin)}")
    return [{**line, "group": "account"} for line in lines]


def _event(device: str, point: str, event: str, asked: Act, multiplier: Decimal | None, readings: Readings) -> dict[str, Any]:
    at = time_text(asked.second())
    found = {"kind": "install", "id": f"{device}/{event}/{at}", "device": device, "service_point": point, "event": event, "at": at,
             "multiplier": None if multiplier is None else str(multiplier), "reason": asked.reason,
             "reading": {channel: str(value) for channel, value in readings.items()} or None}  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def register_reads(device: str, at: int, readings: Readings, units: dict[str, str]) -> list[dict[str, Any]]:
    """Readings taken at an act, as reads of the plain JSON format."""
    moment = time_text(at)
    return [
        {"device": device, "channel": channel, "unit": units.get(channel, ""),
         "readings": [{"at": moment, "value": quantity.text_of(quantity.parse(str(value)))}]}
        for channel, value in readings.items()
    ]  # fmt: skip
