"""Kinds of device events, and the codes of IEC 61968-9 that stand for them."""

from __future__ import annotations

from typing import Final

OUTAGE: Final = "outage"
RESTORE: Final = "restore"
KINDS: Final = (
    OUTAGE, RESTORE, "comm-outage", "comm-restore", "cover-removed", "low-battery", "clock-error", "clock-change", "reverse-energy",
    "demand-overload",
    "voltage-imbalance", "disconnected", "connected", "other",
)  # fmt: skip

# Names that head ends give to events, without case, blanks and signs. Others: `ingest.event_names` in topology.yaml
NAMES: Final = {
    "outage": OUTAGE, "poweroutage": OUTAGE, "powerfailure": OUTAGE, "powerdown": OUTAGE, "lastgasp": OUTAGE, "primarypowerdown": OUTAGE,
    "restore": RESTORE, "restoration": RESTORE, "powerrestore": RESTORE, "powerrestored": RESTORE, "powerrestoration": RESTORE,
    "powerup": RESTORE, "primarypowerup": RESTORE, "tamper": "cover-removed", "tamperdetected": "cover-removed",
    "tamperalert": "cover-removed", "coverremoved": "cover-removed", "coveropened": "cover-removed", "lowbattery": "low-battery",
    "batterylow": "low-battery", "clockerror": "clock-error", "clockset": "clock-change", "clockchange": "clock-change",
    "timechange": "clock-change", "timeadjusted": "clock-change", "reverserotation": "reverse-energy", "reverseenergy": "reverse-energy",
    "reverseflow": "reverse-energy", "demandoverload": "demand-overload", "voltageimbalance": "voltage-imbalance",
    "disconnected": "disconnected", "connected": "connected", "reconnected": "connected",
}  # fmt: skip


def kind_of_name(name: str) -> str:
    """The kind that a head end's name for an event stands for; ``other`` where nobody knows."""
    return NAMES.get("".join(c for c in name.lower() if c.isalnum()), "other")


# type.domain.subdomain.action of an EndDeviceEvent. A power failure of the communication module says nothing of the meter's supply.
CODES: Final = {
    "3.26.0.85": OUTAGE, "3.26.0.216": RESTORE, "26.26.0.85": "comm-outage", "26.26.0.216": "comm-restore",
    "3.12.29.212": "cover-removed", "3.2.22.150": "low-battery", "3.36.0.79": "clock-error", "3.36.0.24": "clock-change",
    "3.26.93.219": "reverse-energy",
    "3.8.0.177": "demand-overload", "3.26.38.98": "voltage-imbalance", "3.31.0.68": "disconnected", "3.31.0.42": "connected",
}  # fmt: skip
