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
from streams.vee.rules.interval_interpolation import interval_interpolation
from streams.vee.rules.interval_spike import interval_spike
from streams.vee.rules.missing_quantity import missing_quantity
from streams.vee.rules.negative_consumption import negative_consumption
from streams.vee.rules.zero_consumption import zero_consumption

Validation = Callable[[DayBatch, Any], Findings]
Estimation = Callable[[DayBatch, Any, Any], None]  # batch, settings, rows it may change

VALIDATIONS: Final[dict[str, Validation]] = {
    "negative-consumption": negative_consumption,
    "interval-spike": interval_spike,
    "zero-consumption": zero_consumption,
    "missing-quantity": missing_quantity,
}
ESTIMATIONS: Final[dict[str, Estimation]] = {
    "interval-interpolation": interval_interpolation,
}
EVENTS: Final = ("duplicate-imd", "final-measurement-replacement")
