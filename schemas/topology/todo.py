"""To-Dos in topology.yaml: what becomes one, who works on it, and by when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from schemas.topology.base import Seconds, Section
from schemas.topology.tou import DAY, HolidayCalendar, TimeOfDay, Weekdays, ZoneName

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
LOWEST: Final = 1
HIGHEST: Final = 10


class BusinessHours(Section):
    """When people work: deadlines count these hours only."""

    zone: ZoneName = "UTC"
    days: Weekdays = ("mon", "tue", "wed", "thu", "fri")
    start: TimeOfDay = Field(default=8 * 3600, alias="from")
    end: TimeOfDay = Field(default=17 * 3600, alias="to")
    holidays: HolidayCalendar | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.start < self.end <= DAY:
            raise ValueError("business hours end after they begin, on the same day")
        return self


class TodoType(Section):
    """A kind of To-Do: what raises it, its priority, who is to work on it, and how long that may take."""

    id: Name
    about: str = Field(min_length=1, description="One sentence for the people who work on it")
    rules: tuple[str, ...] = Field(default=(), description="Exceptions of these rules raise it; shell-like patterns")
    severities: tuple[Literal["info", "issue", "terminate"], ...] = ("issue", "terminate")
    scan: (
        Literal["silent-channels", "stuck-days", "waiting-determinants", "unanswered-commands", "failed-deliveries", "prepaid-trouble"]
        | None
    ) = Field(default=None, description="A search of the store that no event tells of")
    after: Seconds = Field(default=86_400, ge=60, description="scan: what is older than this")
    priority: int = Field(default=5, ge=LOWEST, le=HIGHEST, description="10 is the most urgent")
    role: Name = "clerk"
    assign_within: Seconds = Field(default=14_400, ge=60, description="Business time until somebody must have taken it")
    resolve_within: Seconds = Field(default=172_800, ge=60, description="Business time until it must be done")
    escalate_to: Name | None = "supervisor"
    together_above: int = Field(
        default=200, ge=1, description="More than this of one payload (or of one moment) are one To-Do per rule with a count"
    )

    def takes(self, rule: str, severity: str) -> bool:
        """Whether an exception raises it."""
        return severity in self.severities and any(fnmatchcase(rule, pattern) for pattern in self.rules)


class Route(Section):
    """Who works on some To-Dos instead of the role of their type; the first that matches counts. All that is said must match."""

    types: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    service_points: tuple[str, ...] = ()
    commodities: tuple[str, ...] = Field(default=(), description="Of master data, like the next two: known within a minute")
    regions: tuple[str, ...] = ()
    customer_classes: tuple[str, ...] = ()
    role: Name
    more_urgent: int = Field(default=0, ge=-9, le=9, description="Added to the priority")

    def matches(self, told: Mapping[str, Any]) -> bool:
        """Whether a To-Do (its fields) goes this way; patterns are shell-like."""
        asked = (
            (self.types, "type"), (self.severities, "severity"), (self.rules, "rule"), (self.devices, "device"),
            (self.service_points, "service_point"), (self.commodities, "commodity"), (self.regions, "region"),
            (self.customer_classes, "customer_class"),
        )  # fmt: skip
        return all(not patterns or any(fnmatchcase(str(told.get(name, "")), pattern) for pattern in patterns) for patterns, name in asked)


_TYPES: Final = (
    {
        "id": "validation",
        "about": "Reads failed a check: look at the curve, then accept, edit, estimate or discard",
        "rules": ["*"],
        "severities": ["issue"],
    },
    {
        "id": "unusable-reads",
        "about": "Reads that cannot be used as they are: unit, interval, unknown or removed meter",
        "rules": ["*"],
        "severities": ["terminate"],
        "priority": 7,
    },
    {
        "id": "silent-meter",
        "about": "No reads for a while: see communication, then send someone",
        "scan": "silent-channels",
        "after": "3d",
        "role": "operations",
    },
    {"id": "stuck-day", "about": "A day that is neither final nor missing after its time", "scan": "stuck-days", "after": "3d"},
    {
        "id": "waiting-determinant",
        "about": "A billing period held up by exceptions",
        "scan": "waiting-determinants",
        "after": "1d",
        "priority": 7,
    },
    {
        "id": "unanswered-command",
        "about": "A device command without an answer",
        "scan": "unanswered-commands",
        "after": "1h",
        "priority": 8,
        "role": "operations",
    },
    {
        "id": "failed-delivery",
        "about": "A subscriber does not take what it is sent",
        "scan": "failed-deliveries",
        "after": "1h",
        "role": "operations",
    },
    {
        "id": "prepaid-trouble",
        "about": "Supply of a prepaid customer could not be cut or restored",
        "scan": "prepaid-trouble",
        "after": "1m",
        "priority": 9,
    },
)


class TodoSettings(Section):
    """The To-Do engine."""

    hours: BusinessHours = Field(default_factory=BusinessHours)
    types: tuple[TodoType, ...] = Field(
        default_factory=lambda: tuple(TodoType.model_validate(kind) for kind in _TYPES), description="The first whose rules match counts"
    )
    routes: tuple[Route, ...] = ()
    bill_bands: tuple[Seconds, ...] = Field(
        default=(259_200, 86_400, 0), description="One more urgent for each of these spans before the billing period ends that is reached"
    )
    bulk_alone: int = Field(default=500, ge=1, description="More To-Dos than this in one act need the approval of a second person")
    undo_within: Seconds = Field(default=86_400, ge=0, description="How long an act can be undone")
    reopen_within: Seconds = Field(default=2_592_000, ge=0, description="How long a completed To-Do can be opened again")
    scan_every: Seconds = Field(default=3600, ge=10, description="How often the store is searched")

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for name, count in Counter(kind.id for kind in self.types).items():
            if count > 1:
                raise ValueError(f"type {name!r} is defined {count} times")
        return self

    def type_for(self, rule: str, severity: str) -> TodoType | None:
        """The type an exception raises; None: nobody has to act on it."""
        return next((kind for kind in self.types if kind.takes(rule, severity)), None)

    def type_of(self, id: str) -> TodoType | None:
        """The type of that name."""
        return next((kind for kind in self.types if kind.id == id), None)

    def wants(self, rule: str, severity: str) -> bool:
        """Whether an exception raises a To-Do."""
        return self.type_for(rule, severity) is not None
