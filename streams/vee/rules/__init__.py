"""The rules, one module per rule family. Each function looks at a whole batch and returns findings or changed values.

``VALIDATIONS`` look at the day as it stands and return :class:`~streams.vee.batch.Findings`; ``ESTIMATIONS`` write values, conditions and
methods into the batch and return nothing. Both are found by rule id, so a new rule is a module, a line here and a
settings model in ``schemas/topology/vee.py``. Rules that decide on reads before they reach a day (unit, interval length,
duplicates, replacement) are settings of admission and merging: see ``streams/vee/admission.py`` and ``merging.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streams.vee.batch import DayBatch, Findings
from streams.vee.rules.consecutive_interval import consecutive_interval
from streams.vee.rules.high_low import high_low
from streams.vee.rules.inactive_measurement import inactive_measurement
from streams.vee.rules.interval_adjustment_from_scalar import interval_adjustment_from_scalar
from streams.vee.rules.interval_interpolation import interval_interpolation
from streams.vee.rules.interval_size import interval_size
from streams.vee.rules.interval_spike import interval_spike
from streams.vee.rules.like_day_average import like_day_average
from streams.vee.rules.missing_quantity import missing_quantity
from streams.vee.rules.multiplier import multiplier
from streams.vee.rules.negative_consumption import negative_consumption
from streams.vee.rules.profile import profile
from streams.vee.rules.prolonged_estimation import prolonged_estimation
from streams.vee.rules.sum_check import sum_check
from streams.vee.rules.zero_consumption import zero_consumption

Validation = Callable[[DayBatch, Any], Findings | list[Findings]]
Estimation = Callable[[DayBatch, Any, Any], Findings | None]  # batch, settings, rows it may change; what could not be estimated

VALIDATIONS: Final[dict[str, Validation]] = {
    "interval-size": interval_size,
    "multiplier": multiplier,
    "inactive-measurement": inactive_measurement,
    "consecutive-interval": consecutive_interval,
    "high-low": high_low,
    "prolonged-estimation": prolonged_estimation,
    "negative-consumption": negative_consumption,
    "interval-spike": interval_spike,
    "zero-consumption": zero_consumption,
    "missing-quantity": missing_quantity,
    "sum-check": sum_check,
}
ESTIMATIONS: Final[dict[str, Estimation]] = {
    "interval-interpolation": interval_interpolation,
    "like-day-average": like_day_average,
    "profile": profile,
    "interval-adjustment-from-scalar": interval_adjustment_from_scalar,
}
EVENTS: Final = ("duplicate-imd", "final-measurement-replacement")
