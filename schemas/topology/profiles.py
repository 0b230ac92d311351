"""Mapping profiles in topology.yaml: how the columns of somebody else's delimited file become reads."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.conditions import parse as parse_condition
from schemas.topology.base import Section

_DIRECTIVES: Final = "YymdbHIMSpfz"
DAY: Final = 86_400


def _time_format(text: str) -> str:
    if text in ("iso", "epoch"):
        return text
    for letter in re.findall(r"%(.?)", text):
        if not letter or letter not in _DIRECTIVES:
            raise ValueError(f"%{letter} is not one of {', '.join('%' + known for known in _DIRECTIVES)}")
    if "%Y" not in text and "%y" not in text:
        raise ValueError("must be iso, epoch or directives such as %Y-%m-%d %H:%M:%S")
    return text


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin, not {name!r}")
    return name


Direction = Literal["none", "delivered", "received"]


class ValueColumn(Section):
    """One column of values of a wide file: the channel it belongs to."""

    column: str
    channel: str = Field(min_length=1)
    unit: str | None = Field(default=None, description="Where it differs from the profile's")
    direction: Direction = "none"


class Profile(Section):
    """How columns of a foreign file map to ours. Column names are compared without regard to case and surrounding blanks.

    A long file has one ``value`` column and names its channel by a column or by ``channel``; a wide file lists ``values``.
    Each of device, channel, unit and interval length is either a column (``…_column``) or fixed.
    """

    about: str = ""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    header: list[str] | None = Field(default=None, description="The whole header line, where the used columns do not tell files apart")
    device_column: str | None = None
    device: str | None = Field(default=None, description="Of files of one device")
    channel_column: str | None = None
    channel: str | None = None
    unit_column: str | None = None
    unit: str | None = None
    value: str | None = Field(default=None, description="Column of the values of a long file")
    values: list[ValueColumn] = Field(default_factory=list, description="Columns of the values of a wide file")
    direction: Direction = "none"
    kind: Literal["interval", "register"] = Field(default="interval", description="register: cumulative readings")
    seconds_column: str | None = None
    seconds: int | None = Field(default=None, gt=0, le=DAY, description="Interval length")
    time: list[str] = Field(min_length=1, max_length=4, description="Columns of the time, joined with a blank")
    format: Annotated[str, AfterValidator(_time_format)] = Field(default="iso", description="iso, epoch, or directives of strptime")
    stamps: Literal["start", "end"] = Field(default="start", description="What of the interval its time is")
    zone: Annotated[str, AfterValidator(_zone)] | None = Field(default=None, description="Of times without offset; --zone wins")
    missing: list[str] = Field(default_factory=list, max_length=50, description="Words that mean no value, such as Null")
    condition_column: str | None = None
    conditions: dict[str, str] = Field(default_factory=dict, description="The file's codes to ours; others are read as ours")
    multiplier: Decimal | None = Field(default=None, gt=0, le=1_000_000, description="Sent along with the reads, not applied")

    @field_validator("conditions")
    @classmethod
    def _known_conditions(cls, mapping: dict[str, str]) -> dict[str, str]:
        for word in mapping.values():
            parse_condition(word)
        return mapping

    @field_validator("missing")
    @classmethod
    def _short_words(cls, words: list[str]) -> list[str]:
        if any(not 0 < len(word) <= 40 for word in words):
            raise ValueError("words must have 1 to 40 characters")
        return words

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for name in ("device", "channel", "unit", "seconds"):
            fixed, column = getattr(self, name), getattr(self, f"{name}_column")
            if fixed is not None and column is not None:
                raise ValueError(f"give either {name} or {name}_column, not both")
        if bool(self.value) == bool(self.values):
            raise ValueError("give either value (long file) or values (wide file)")
        if self.device is None and self.device_column is None:
            raise ValueError("device or device_column is needed")
        if self.value and self.channel is None and self.channel_column is None:
            raise ValueError("channel or channel_column is needed")
        if self.values and (self.channel or self.channel_column):
            raise ValueError("a wide file names its channels in values")
        if self.unit is None and self.unit_column is None and not (self.values and all(v.unit for v in self.values)):
            raise ValueError("unit or unit_column is needed")
        if self.kind == "interval" and self.seconds is None and self.seconds_column is None:
            raise ValueError("seconds or seconds_column is needed for intervals")
        if self.kind == "interval" and self.seconds is not None and DAY % self.seconds:
            raise ValueError(f"an interval of {self.seconds} seconds does not divide the day")
        if self.kind == "register" and self.stamps == "end":
            raise ValueError("stamps is about intervals; a register read is at its time")
        if self.decimal == self.delimiter:
            raise ValueError("decimal and delimiter cannot be the same")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns the profile needs."""
        named = [self.device_column, self.channel_column, self.unit_column, self.seconds_column, self.value]
        return [c for c in [*named, *self.time, *(v.column for v in self.values)] if c is not None]
