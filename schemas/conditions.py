"""Condition codes: the quality of one measured value.

A condition is a six-digit integer, ordered: a higher code is a better value, and an aggregate takes the lowest of its parts.
Ranges carry the meaning (name, billable); codes inside a range tell how the value came about. All codes are multiples of
100, so that state may hold them in 16 bits.
Code 0 is reserved: nothing has been received yet and nothing is due. It is never shown to a reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOT_RECEIVED: Final = 0

INVALID: Final = 10_000  # received but unusable: overflow, test mode, rejected
MISSING: Final = 100_000  # due and never received
REPORTED_MISSING: Final = 110_000  # the source itself says there is no value
OUTAGE: Final = 200_000  # a power failure covered the interval
OUTAGE_TOLD: Final = 200_100  # the device told of it by events
EST_FLAT: Final = 310_000  # flat load from one side, profile, class average
EST_INTERPOLATED: Final = 360_000  # between two good neighbours
EST_LIKE_DAY: Final = 370_000
EST_SCALED: Final = 380_000  # scaled to a register difference
EXT_ESTIMATE: Final = 400_000  # estimated by the head end, a concentrator or another system
EXT_SUBSTITUTE: Final = 420_000
EXT_FINAL_SUBSTITUTE: Final = 430_000
SUSPECT: Final = 450_000  # failed a check and was kept
SUSPECT_DELIVERY: Final = 450_100  # stands out in the delivery it came with
REGULAR: Final = 500_000  # measured, passed validation
USER_EDIT: Final = 600_000
USER_ESTIMATE: Final = 610_000  # ordered by a person; hundreds say by which method (position in schemas.rules.METHODS)
SUPER: Final = 700_000  # verified: ordinary data never replaces it


@dataclass(frozen=True, slots=True)
class ConditionRange:
    """A named range of codes, both ends included."""

    name: str
    bottom: int
    top: int
    billable: bool

    def __contains__(self, code: int) -> bool:
        return self.bottom <= code <= self.top


RANGES: Final = (
    ConditionRange("invalid", 100, 99_999, False),
    ConditionRange("missing", 100_000, 199_999, False),
    ConditionRange("outage", 200_000, 299_999, True),
    ConditionRange("system-estimate-poor", 300_000, 349_999, True),
    ConditionRange("system-estimate-good", 350_000, 399_999, True),
    ConditionRange("external-estimate", 400_000, 449_999, True),
    ConditionRange("suspect", 450_000, 499_999, True),
    ConditionRange("regular", 500_000, 599_999, True),
    ConditionRange("user-edit", 600_000, 699_999, True),
    ConditionRange("super", 700_000, 799_999, True),
)

# Words accepted in the plain formats (CSV, JSON); a six-digit code is accepted too.
WORDS: Final = {
    "actual": REGULAR,
    "estimated": EXT_ESTIMATE,
    "missing": REPORTED_MISSING,
    "outage": OUTAGE,
    "edited": USER_EDIT,
}


def name_of(code: int) -> str:
    """The range name of a condition code; ``not-received`` for 0. Raises ValueError outside all ranges."""
    if code == NOT_RECEIVED:
        return "not-received"
    for band in RANGES:
        if code in band:
            return band.name
    raise ValueError(f"condition {code} lies in no range")


def parse(text: str) -> int:
    """A condition word or six-digit code as integer. Raises ValueError naming what is accepted."""
    word = text.strip().lower()
    if word in WORDS:
        return WORDS[word]
    if word.isascii() and word.isdigit() and len(word) == 6 and int(word) % 100 == 0 and 100 <= int(word) <= 799_900:
        return int(word)
    raise ValueError(f"condition {text!r} is none of {', '.join(WORDS)} nor a six-digit code in steps of 100")
