"""Names of the VEE rules and severities: used alike in exceptions, metrics, documentation, columns and scenarios."""

from __future__ import annotations

from typing import Final

VALIDATIONS: Final = (
    "consecutive-interval", "duplicate-imd", "final-measurement-replacement", "inactive-measurement", "interval-spike",
    "negative-consumption", "prolonged-estimation", "sum-check", "zero-consumption", "high-low", "missing-quantity",
    "unit-of-measure", "interval-size", "multiplier", "sibling-imd", "anomaly",
)  # fmt: skip
ESTIMATIONS: Final = (
    "interval-adjustment-from-scalar", "interval-interpolation", "scalar-estimation", "like-day-average",
    "scalar-proration", "profile",
)  # fmt: skip
# Raised before VEE proper: the read cannot be placed.
ADMISSIONS: Final = ("unknown-device", "future-read")

# Raised by usage of subscriptions: a check of a usage group, or a change behind the cut-off. Formulas that fail are named by their rule.
USAGE: Final = ("usage-high-low", "installed-device-check", "round-and-adjust", "settlement-cut-off")

RULES: Final = (*VALIDATIONS, *ESTIMATIONS, *ADMISSIONS)  # order is fixed: positions are bits in stored masks
BIT: Final = {name: 1 << position for position, name in enumerate(RULES)}

METHODS: Final = ("", *ESTIMATIONS, "outage-zero", "manual")  # order is fixed: positions travel in blocks
METHOD: Final = {name: position for position, name in enumerate(METHODS)}

SEVERITIES: Final = ("info", "issue", "terminate")
STATUSES: Final = ("open", "superseded", "resolved", "overridden")

ACTIONS: Final = ("re-vee", "edit", "accept", "estimate", "discard", "force")  # what can be ordered done with channel days
