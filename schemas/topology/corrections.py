"""When determinants and usage that were sent are corrected, in topology.yaml: thresholds and cut-offs by effective date."""

from __future__ import annotations

from datetime import date
from typing import Final, Self

from pydantic import Field, model_validator

from schemas.topology.base import Micros, Section, check_dated
from schemas.units import resolve


class Threshold(Section):
    """From which difference on a correction is sent; the larger of both counts."""

    units: tuple[str, ...] = Field(default=(), description="None: all")
    absolute: Micros = Field(default=0, ge=0, description="In the determinant's own unit")
    percent: Micros = Field(default=0, ge=0, description="Of what was sent last: 0.5 is half a percent")


_USUAL: Final = tuple(Threshold.model_validate(one) for one in ({"units": ["kWh", "kvarh"], "absolute": "0.001"}, {"absolute": "0.000001"}))


class Terms(Section):
    """What holds for billing periods from a date on."""

    since: date | None = Field(
        default=None, alias="from", description="First local day of the billing periods; only the first may leave it out"
    )
    thresholds: tuple[Threshold, ...] = Field(default=_USUAL, description="The first that fits the unit counts")
    cut_off_months: int = Field(
        default=12,
        ge=1,
        le=36,
        description="Behind a period's end, or its first sending where that came later; then changes are refused and told as exceptions",
    )

    def of(self, unit: str) -> Threshold:
        """The thresholds of a unit."""
        fits = (t for t in self.thresholds if not t.units or resolve(unit) in [resolve(u) for u in t.units])
        return next(fits, Threshold())


class Corrections(Section):
    """When what was sent is corrected. A billing period has the version of its first local day."""

    versions: tuple[Terms, ...] = Field(default=(Terms(),), min_length=1, description="The first holds for all periods before the second")

    @model_validator(mode="after")
    def _dated(self) -> Self:
        check_dated([version.since for version in self.versions])
        return self

    def on(self, day: date) -> Terms:
        """The terms of a period that begins on a local day."""
        return next((v for v in reversed(self.versions) if v.since is None or v.since <= day), self.versions[0])
