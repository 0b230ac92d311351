"""Conversations with customer information and billing systems: SAP, Oracle CC&B, and what speaks IEC 61968."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, model_validator

from schemas.events import KINDS
from schemas.topology.base import Seconds, Section


def _zone(name: str) -> str:
    if name and name not in available_timezones():
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin, not {name!r}")
    return name


Switch = Literal["disconnect", "connect"]
Rule = Literal["total", "tou"]
Status = Literal["actual", "estimated"]
Zone = Annotated[str, AfterValidator(_zone)]


class ReadingRule(Section):
    """Which read of the scheduled day answers a reading order."""

    which: Literal["earliest", "latest", "closest"] = Field(default="closest", description="Of the scheduled local day; closest to `at`")
    at: str = Field(default="24:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$", description="Wall-clock time `closest` means")
    tolerance: Seconds = Field(default=24 * 3600, ge=0, description="How far outside the day a read may lie where the day has none")
    estimate: bool = Field(default=True, description="Whether an estimated reading is given when time is up")
    wait: Seconds = Field(default=3 * 86_400, ge=0, description="Time after the scheduled day until it is up")


def _reasons() -> dict[str, ReadingRule]:
    return {
        "03": ReadingRule(which="latest", wait=86_400),  # move-out
        "06": ReadingRule(which="earliest", wait=86_400),  # move-in
        "08": ReadingRule(which="earliest", estimate=False),  # technical installation
        "09": ReadingRule(estimate=False),  # control reading
        "21": ReadingRule(which="earliest", estimate=False),  # billing-related installation
        "22": ReadingRule(which="latest", estimate=False),  # removal in a replacement
    }


class Told(Section):
    """How an event is told to SAP."""

    category: str = Field(min_length=1, max_length=20, description="CategoryCode")
    severity: str = Field(default="2", min_length=1, max_length=20, description="SeverityCode")


def _categories() -> dict[str, Switch]:
    return {"1": "disconnect", "2": "connect", "01": "disconnect", "02": "connect"}


def _rules() -> dict[str, Rule]:
    return {"": "total", "TOTAL": "total", "TOU": "tou"}


def _statuses() -> dict[Status, str]:
    return {"actual": "01", "estimated": "03"}


def _told() -> dict[str, Told]:
    return {
        "outage": Told(category="1", severity="3"),
        "restore": Told(category="2", severity="1"),
        "cover-removed": Told(category="3", severity="3"),
        "low-battery": Told(category="4"),
        "clock-error": Told(category="5"),
        "reverse-energy": Told(category="6"),
    }


class System(Section):
    """One CIS the hub talks with."""

    protocol: Literal["sap", "ccb", "cim"] = Field(description="Whose messages it speaks")
    url: str = Field(default="", pattern=r"^(https?://.*)?$", description="Where the hub's messages go; empty: they wait to be fetched")
    own: str = Field(default="MDH", min_length=1, max_length=60, description="The hub's name in message headers")
    name: str = Field(default="", max_length=60, description="The system's name in headers of messages to it")
    senders: list[str] = Field(default_factory=list, description="Names it may give itself in headers; none: any")
    zone: Zone = Field(default="", description="Zone of dates without one; empty: that of the whole")
    zones: dict[str, Zone] = Field(default_factory=dict, description="Its time zone codes as IANA zones")
    units: dict[str, str] = Field(default_factory=dict, description="Its unit codes as units, beside the common spellings")
    profiles: list[str] = Field(default_factory=lambda: ["2", "02"], description="Category codes of measurement tasks that are profiles")
    categories: dict[str, Switch] = Field(
        default_factory=_categories,
        description="Category codes of connection status changes",
    )
    rules: dict[str, Rule] = Field(default_factory=_rules, description="Calculation rules by code")
    statuses: dict[Status, str] = Field(default_factory=_statuses, description="MeterReadingTypeCode and type code of items")
    events: dict[str, Told] = Field(default_factory=_told, description="Which kinds of device events are told, and how")
    trouble: Told = Field(default=Told(category="1000", severity="3"), description="The event that tells what no confirmation can tell")
    charges: bool = Field(
        default=True, description="Whether it is told what prepaid accounts came to, month by month: those whose subscription came from it"
    )
    series: bool = Field(default=True, description="Whether profiles of its measurement tasks are sent")

    @model_validator(mode="after")
    def _known_events(self) -> System:
        strange = sorted(set(self.events) - set(KINDS))
        if strange:
            raise ValueError(f"events: {strange[0]!r} is none of {', '.join(KINDS)}")
        return self


def _systems() -> dict[str, System]:
    return {"sap": System(protocol="sap"), "ccb": System(protocol="ccb"), "cim": System(protocol="cim")}


class EnterpriseSettings(Section):
    """What the hub and its CIS expect of each other."""

    systems: dict[str, System] = Field(default_factory=_systems, description="The systems, by name")
    oldest: Seconds = Field(default=7 * 86_400, gt=0, description="A message made longer ago has expired")
    ahead: Seconds = Field(default=900, ge=0, description="How far a message's own time may lie in the future")
    remember: Seconds = Field(default=400 * 86_400, gt=0, description="How long ids of items are known again")
    keep_refused: Seconds = Field(
        default=30 * 86_400, gt=0, description="How long an item that was refused for what it found here can be tried again"
    )
    ask: Seconds = Field(default=60, gt=0, description="Time between two questions to the store for one thing")
    bulk_bytes: int = Field(default=512 * 1024 * 1024, ge=1024, description="Most bytes of a bulk")
    item_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="Most bytes of a message that is no bulk, and of an item")
    readings: ReadingRule = Field(default_factory=ReadingRule, description="Reading orders whose reason has no rule of its own")
    reasons: dict[str, ReadingRule] = Field(default_factory=_reasons, description="Rules by meter reading reason")
    connection_wait: Seconds = Field(default=6 * 3600, gt=0, description="Without a reply for so long, a connection change has failed")
    calculation_wait: Seconds = Field(default=3 * 86_400, ge=0, description="Time after a period's end until sums are given as they are")
    usage_wait: Seconds = Field(default=3 * 86_400, gt=0, description="Time after a period's end until a usage request times out")
    sync_wait: Seconds = Field(default=86_400, gt=0, description="How long a usage request waits for master data of its subscription")
    charge_wait: Seconds = Field(default=86_400, gt=0, description="Without a confirmation for so long, SAP is told a charge again")
    recheck: Seconds = Field(default=6 * 3600, gt=0, description="How often sent determinants are compared with the store")
    corrections: Seconds = Field(default=90 * 86_400, ge=0, description="How long after it was sent determinants are corrected")

    def rule(self, reason: str) -> ReadingRule:
        """The rule of a meter reading reason."""
        return self.reasons.get(reason, self.readings)

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What does not fit together: two systems of one protocol that take each other's messages."""
        claimed: dict[tuple[str, str], str] = {}
        for name, system in self.systems.items():
            for sender in system.senders or [""]:
                other = claimed.setdefault((system.protocol, sender), name)
                if other != name:
                    who = sender or "any sender"
                    yield ("systems", name, "senders"), f"{who} is taken by {other} already"
