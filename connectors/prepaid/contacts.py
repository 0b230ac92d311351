"""Where customers are told: contacts set by the API, else those of the person behind the account in master data. Kept sealed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import uuid4

from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError

OWN: Final = "prepaid/"  # ids of persons that stand for a contact of one account


class Master(Protocol):
    """Master data, as far as it is asked here (``connectors.enterprise.service.MasterService``)."""

    def find(self, kind: str, id: str) -> dict[str, Any] | None:
        """An object with its attributes now."""
        ...

    def submit(self, objects: list[dict[str, Any]], message: str, *, source: str, user: str = "", strict: bool = False) -> list[Any]:
        """Submits objects."""
        ...


@dataclass(frozen=True, slots=True)
class Contact:
    """Ways to a customer; empty: none."""

    mail: str = ""
    phone: str = ""
    language: str = ""


class Contacts:
    """Contacts by account. Everything blocks."""

    def __init__(self, master: Master) -> None:
        self.master = master

    def of(self, account: str) -> Contact:
        """The contact of an account: its own, else that of the person who pays; empty where none is known."""
        person = self._attributes("person", OWN + account)
        if not (person.get("mail") or person.get("phone")):
            payer = self._attributes("subscription", account).get("account") or account
            behind = self._attributes("account", payer).get("person")
            person = self._attributes("person", behind) if behind else {}
        return Contact(*(str(person.get(name) or "") for name in ("mail", "phone", "language")))

    def put(self, account: str, mail: str | None, phone: str | None, language: str | None, user: str) -> None:
        """Sets the contact of an account. Raises Problem 422, 503."""
        given = {"mail": mail, "phone": phone, "language": language}
        line = {"kind": "person", "id": OWN + account, "action": "put", **{name: value for name, value in given.items() if value}}
        try:
            (outcome,) = self.master.submit([line], uuid4().hex, source="prepaid", user=user)
        except PublishError as error:
            raise ProblemError(503, "kafka-away", "Kafka does not take requests now; try again.", headers={"Retry-After": "5"}) from error
        if outcome.outcome == "refused":
            raise ProblemError(422, "refused", outcome.reason)

    def masked(self, account: str) -> dict[str, Any]:
        """What a clerk may see of a contact: that it is there, not what it is."""
        found = self.of(account)
        return {"mail": _masked(found.mail), "phone": _masked(found.phone), "language": found.language or None}

    def _attributes(self, kind: str, id: str) -> dict[str, Any]:
        found = self.master.find(kind, id)
        return {} if found is None else found["attributes"]


def _masked(text: str) -> str | None:
    if not text:
        return None
    name, at, host = text.partition("@")
    return f"{name[:1]}…@{host}" if at else f"…{text[-3:]}"
