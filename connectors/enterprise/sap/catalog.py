"""The messages of messages.yaml as objects: fields, groups, services, and which root element belongs to which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml

HEADER: Final = "MessageHeader"
LOG: Final = "Log"
_MARKS: Final[dict[str, tuple[int, int | None]]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}


@dataclass(frozen=True, slots=True)
class Field:
    """An element: its name, type (a simple type or a group), and how often it stands; ``high`` None: any number."""

    name: str
    type: str
    low: int = 1
    high: int | None = 1

    @property
    def many(self) -> bool:
        """Whether it is a list."""
        return self.high is None


@dataclass(frozen=True, slots=True)
class Root:
    """One root element: a message with one payload, or a bulk of items, each with a header and one payload."""

    name: str
    service: str
    item: str | None  # element of each item; None: not a bulk
    payload: Field
    answer: bool  # a confirmation: payload and log

    @property
    def fields(self) -> tuple[Field, ...]:
        """What stands in one message beside (and in) its items: header, payload, log."""
        log = (Field(LOG, LOG),) if self.answer else ()
        return Field(HEADER, HEADER), self.payload, *log


@dataclass(frozen=True, slots=True)
class Service:
    """One enterprise service: ``to`` is who takes it, ``does`` what conversations know it as."""

    name: str
    to: Literal["hub", "sap"]
    does: str
    single: Root
    bulk: Root
    confirmation: Root | None
    bulk_confirmation: Root | None

    @property
    def roots(self) -> tuple[Root, ...]:
        """All its root elements."""
        return tuple(root for root in (self.single, self.bulk, self.confirmation, self.bulk_confirmation) if root)

    def taken_by(self, who: str) -> tuple[Root, ...]:
        """The root elements that ``who`` (hub or sap) takes: requests on one side, confirmations on the other."""
        return tuple(root for root in self.roots if (self.to == who) != root.answer)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything messages.yaml says."""

    namespace: str
    simple: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, tuple[Field, ...]]
    services: Mapping[str, Service]
    roots: Mapping[str, Root]

    def kind(self, does: str) -> Service:
        """The service that conversations know by this name. Raises KeyError."""
        return next(service for service in self.services.values() if service.does == does)


def confirmation_of(name: str) -> str:
    """The name of what confirms a request: its last ``Request`` read as ``Confirmation``."""
    head, _, tail = name.rpartition("Request")
    return f"{head}Confirmation{tail}"


@cache
def catalog() -> Catalog:
    """The catalogue. Raises ValueError where a field has no known type."""
    document = yaml.safe_load((Path(__file__).parent / "messages.yaml").read_text())
    groups = {name: tuple(_field(field, kind) for field, kind in fields.items()) for name, fields in document["groups"].items()}
    for name, fields in groups.items():
        for field in fields:
            if field.type not in groups and field.type not in document["simple"]:
                raise ValueError(f"{name}.{field.name} has no known type: {field.type}")
    answers = document["confirmations"]
    services = {name: _service(name, told, answers) for name, told in document["services"].items()}
    roots = {root.name: root for service in services.values() for root in service.roots}
    return Catalog(document["namespace"], document["simple"], groups, services, roots)


def _field(name: str, kind: str) -> Field:
    mark = kind[-1]
    if mark in _MARKS:
        return Field(name, kind[:-1], *_MARKS[mark])
    return Field(name, kind)


def _service(name: str, told: Mapping[str, Any], answers: Mapping[str, Any]) -> Service:
    payload = _field(*next(iter(told["payload"].items())))
    single = Root(name, name, None, payload, False)
    bulk = Root(told["bulk"], name, f"{name}Message", payload, False)
    if not told.get("confirmed"):
        return Service(name, told["to"], told["does"], single, bulk, None, None)
    answer = confirmation_of(name)
    given = answers.get(answer)
    confirmed = _field(*next(iter(given.items()))) if given else Field(payload.name, "Identified", 0, 1)
    return Service(
        name, told["to"], told["does"], single, bulk,
        Root(answer, name, None, confirmed, True),
        Root(confirmation_of(told["bulk"]), name, f"{answer}Message", confirmed, True),
    )  # fmt: skip
