"""Public standards of validation and estimation as groups. docs/presets.md tells where each number comes from and which are assumed."""

from __future__ import annotations

from typing import Any, Final

Rules = list[dict[str, Any]]

_TAKEN_IN: Final[Rules] = [
    {"id": "unit-of-measure"},
    {"id": "interval-size"},
    {"id": "multiplier", "severity": "issue"},
    {"id": "duplicate-imd", "severity": "info"},
    {"id": "inactive-measurement", "severity": "issue"},
    {"id": "negative-consumption", "severity": "issue"},
]
_EACH_WEEKDAY: Final = {"types": [["mon"], ["tue"], ["wed"], ["thu"], ["fri"], ["sat"], ["sun"]]}


def _standard(checks: Rules, fill: Rules, after: Rules) -> dict[str, Any]:
    """Groups in which what a person has set is filled and looked at as far as gaps go, and never validated against them again."""
    gaps: Rules = [{"id": "execute-group", "group": "fill"}, {"id": "missing-quantity", "severity": "issue"}]
    return {
        "groups": {
            "initial-load": {
                "rules": [
                    *_TAKEN_IN, *checks, {"id": "execute-group", "group": "fill"}, *after, {"id": "missing-quantity", "severity": "issue"},
                    {"id": "final-measurement-replacement"},
                ]
            },
            "fill": {"rules": fill},
            "manual-override": {"rules": gaps},
            "estimation": {"rules": gaps},
        },
        "roles": {"initial-load": "initial-load", "manual-override": "manual-override", "estimation": "estimation"},
    }  # fmt: skip


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "california": _standard(
        [{"id": "interval-spike", "severity": "issue", "tolerance_percent": 180, "min_intervals": 20, "floor": 1}],
        [
            {"id": "interval-interpolation", "max_gap": "2h"},
            {"id": "like-day-average", "min_days": 3, "max_days": 5},
            {"id": "interval-adjustment-from-scalar"},
        ],
        [
            {"id": "sum-check", "severity": "issue"},
            {"id": "zero-consumption", "severity": "info"},
            {"id": "high-low", "severity": "info", "high": 3.0, "low": 0.3, "history": ["last-year", "previous"]},
        ],
    ),
    "aemo": _standard(
        [{"id": "interval-spike", "severity": "info"}],
        [
            {"id": "interval-interpolation", "max_gap": "2h"},
            {"id": "like-day-average", "priority": "aemo", "window_days": 28, "min_days": 1, "max_days": 1},
            {"id": "interval-adjustment-from-scalar"},
        ],
        [{"id": "sum-check", "severity": "issue"}, {"id": "zero-consumption", "severity": "info"}],
    ),
    "gb": _standard(
        [{"id": "interval-spike", "severity": "info"}],
        [
            {"id": "interval-interpolation", "max_gap": "1h"},
            {
                "id": "like-day-average", "window_days": 31, "min_days": 1, "max_days": 4, "candidates": 4, "max_estimated_percent": 0,
                "day_types": _EACH_WEEKDAY,
            },
            {"id": "interval-adjustment-from-scalar"},
        ],
        [{"id": "sum-check", "severity": "issue"}, {"id": "zero-consumption", "severity": "info"}],
    ),
    "germany": _standard(
        [{"id": "interval-spike", "severity": "info"}],
        [
            {"id": "interval-interpolation", "max_gap": "45m", "one_sided": False},
            {
                "id": "like-day-average", "window_days": 7, "min_days": 1, "max_days": 1, "candidates": 1, "max_estimated_percent": 0,
                "day_types": _EACH_WEEKDAY,
            },
        ],
        [{"id": "sum-check", "severity": "issue"}],
    ),
}  # fmt: skip
