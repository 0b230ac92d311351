"""Master data as objects: which kinds there are, what can be said of each, and which names point at which other kind.

Attributes hold for a span of time; an object's spans in order are its whole truth. What is checked here concerns one object alone;
whether what it names exists and fits together is decided by the agent ``master``.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from schemas import quantity
from schemas.units import resolve

ACTIONS: Final = ("put", "patch", "end", "remove", "forget")
CHANNEL: Final = "channel"  # given whole, as a line of the plain format, instead of being made of objects
EVENTS: Final = ("remove", "install", "disconnect", "connect")  # in the order in which those of one second happen
_LARGEST_MULTIPLIER: Final = 1_000_000 * quantity.MICRO


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be printable text")
    return text


def _zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, LookupError):
        raise ValueError(f"{name[:40]!r} is not an IANA time zone such as Europe/Berlin") from None


def _unit(name: str) -> str:
    return resolve(name).name


def _micros(value: Any) -> Any:
    """A decimal number, as a number or as text, in millionths."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("must be a decimal number, written as text where it has a fraction")
    return quantity.parse(str(value))


def _multiplier(micros: int) -> int:
    if not 0 < micros <= _LARGEST_MULTIPLIER:
        raise ValueError("must be above 0, at most 1000000")
    return micros


def _divides_day(seconds: int) -> int:
    if seconds and 86_400 % seconds:
        raise ValueError(f"an interval of {seconds} seconds does not divide the day")
    return seconds


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_zone)]
Unit = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_unit)]
Micros = Annotated[int, BeforeValidator(_micros)]
Multiplier = Annotated[int, BeforeValidator(_micros), AfterValidator(_multiplier)]
Commodity = Literal["electricity", "gas", "water", "heat", "cooling", "steam", "other"]


class Thing(BaseModel):
    """What all kinds share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attributes: dict[Name, Annotated[str, Field(max_length=2000)]] | None = Field(default=None, description="whatever else is known of it")


class Person(Thing):
    """Who is behind accounts. Name, address, phone, mail and tax number are sealed before anyone but the hub's door sees them."""

    name: Name | None = None
    address: Name | None = None
    phone: Name | None = None
    mail: Name | None = None
    tax_id: Name | None = None
    language: Name | None = None
    role: Name | None = None
    sealed: str | None = Field(default=None, max_length=8000, description="the personal data as ciphertext; written by the hub")
    erased: bool | None = Field(default=None, description="the personal data were erased; written by the hub")


class Account(Thing):
    """Who pays."""

    person: Name | None = None
    customer_class: Name | None = Field(default=None, description="residential, commercial, industrial …")


class ServicePoint(Thing):
    """The place that is supplied."""

    zone: Zone | None = Field(default=None, description="IANA zone of its local days")
    commodity: Commodity | None = None
    region: Name | None = None
    grid_area: Name | None = None
    several: bool | None = Field(default=None, description="true: several devices may be installed at one time")


class Device(Thing):
    """A meter, by the id that reads come under."""

    serial: Name | None = None
    model: Name | None = None
    manufacturer: Name | None = None
    commodity: Commodity | None = None
    head_end: Name | None = None
    dcu: Name | None = Field(default=None, description="data concentrator or gateway through which it is reached")


class Configuration(Thing):
    """How a device is set up for a time."""

    device: Name
    type: Name | None = None
    firmware: Name | None = None


class Component(Thing):
    """A measuring component: one channel of a device."""

    device: Name
    channel: Name
    configuration: Name | None = None
    type: Literal["interval", "register", "tou", "check"] | None = None
    unit: Unit | None = None
    direction: Literal["none", "delivered", "received"] | None = None
    seconds: Annotated[int, Field(ge=0, le=86_400), AfterValidator(_divides_day)] | None = Field(
        default=None, description="interval length; 0: register"
    )
    multiplier: Multiplier | None = Field(default=None, description="of the register; kept in millionths")
    dials: Annotated[int, Field(ge=1, le=15)] | None = Field(default=None, description="integer digits")
    decimals: Annotated[int, Field(ge=0, le=9)] | None = None
    allow_negative: bool | None = None
    check_channel: Name | None = Field(default=None, description="register channel of the same device that the intervals must agree with")
    related: list[Name] | None = Field(default=None, max_length=20, description="other channels of the device")
    commodity: Commodity | None = None


class Install(Thing):
    """Something that happens to a device at a service point at a moment."""

    device: Name
    service_point: Name
    event: Literal["install", "connect", "disconnect", "remove"]
    multiplier: Multiplier | None = Field(default=None, description="install: of transformers at the place; kept in millionths")
    disconnected: bool | None = Field(default=None, description="install: true where the device is installed and not connected")
    reading: dict[Name, Micros] | None = Field(default=None, max_length=100, description="channel → register reading, in millionths")
    reason: Name | None = None


class Subscription(Thing):
    """A usage subscription: who uses what at which service points, by which rules."""

    account: Name
    service_points: list[Name] = Field(max_length=10_000)
    commodity: Commodity | None = None
    usage_group: Name | None = Field(default=None, description="the rules its determinants are made by")
    rate: Name | None = None
    billing_cycle: Name | None = None
    payment: Literal["prepaid", "postpaid"] | None = None
    customer_class: Name | None = None
    region: Name | None = None
    zone: Zone | None = None


class Contract(Thing):
    """What was agreed with whom."""

    account: Name | None = None
    subscription: Name | None = None
    type: Name | None = None
    supplier: Name | None = None


KINDS: Final[dict[str, type[Thing]]] = {
    "person": Person,
    "account": Account,
    "service_point": ServicePoint,
    "device": Device,
    "configuration": Configuration,
    "component": Component,
    "install": Install,
    "subscription": Subscription,
    "contract": Contract,
}
"""Kinds in the order in which they can be loaded without anything having to wait."""
REFERENCES: Final[dict[str, dict[str, str]]] = {
    "account": {"person": "person"},
    "configuration": {"device": "device"},
    "component": {"device": "device", "configuration": "configuration"},
    "install": {"device": "device", "service_point": "service_point"},
    "subscription": {"account": "account", "service_points": "service_point"},
    "contract": {"account": "account", "subscription": "subscription"},
}
"""kind → attribute → the kind it names."""
PERSONAL: Final = ("name", "address", "phone", "mail", "tax_id")


@cache
def _partial(kind: str) -> type[BaseModel]:
    """The model of a kind with nothing required, for changes of some attributes."""
    fields: dict[str, Any] = {
        name: (Annotated[field.annotation, *field.metadata] | None if field.metadata else field.annotation | None, None)  # type: ignore[operator]
        for name, field in KINDS[kind].model_fields.items()
    }
    return create_model(f"Partial{KINDS[kind].__name__}", __config__=ConfigDict(extra="forbid"), **fields)


def checked(kind: str, attributes: dict[str, Any], *, partial: bool = False) -> dict[str, Any]:
    """The attributes of an object as the hub keeps them; with ``partial`` only those given, null for one that is taken away.

    Raises ValueError in words that name the attribute.
    """
    model = _partial(kind) if partial else KINDS[kind]
    try:
        return model.model_validate(attributes).model_dump(exclude_unset=partial, exclude_none=not partial)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(words(first, known=sorted(KINDS[kind].model_fields))) from None


def words(error: Any, known: list[str]) -> str:
    """A finding of pydantic in our words."""
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("function-", "constrained-")))[:80]
    if error["type"] == "extra_forbidden":
        return f"unknown attribute {place!r}; known are {', '.join(known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    said = error["msg"].removeprefix("Value error, ")
    return f"{place}: {said[0].lower()}{said[1:]}" if place else said


def named(kind: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    """What a body of a kind points at: (kind, id) each."""
    found: list[tuple[str, str]] = []
    for attribute, target in REFERENCES.get(kind, {}).items():
        value = body.get(attribute)
        if isinstance(value, list):
            found += [(target, one) for one in value]
        elif value is not None:
            found.append((target, value))
    return found
