"""The documents of the prepaid API: amounts are decimal texts in the ledger's currency."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.topology.portal import Language

LABEL: Final = 255
Money = Annotated[str, Field(pattern=r"^\d{1,12}(\.\d{1,4})?$", description="decimal text in the currency", examples=["25.00"])]
SignedMoney = Annotated[str, Field(pattern=r"^-?\d{1,12}(\.\d{1,4})?$", description="decimal text in the currency", examples=["-3.50"])]
Label = Annotated[str, Field(max_length=LABEL)]


class Document(BaseModel):
    """What comes in: nothing unknown."""

    model_config = ConfigDict(extra="forbid")


class TopupRequest(Document):
    """A payment that was taken."""

    amount: Money
    channel: Label = Field(default="api", description="how it was paid: cash, card, bank, wallet …", examples=["card"])
    external_ref: Label | None = Field(
        default=None, description="the number of whoever took the payment; the key of the request where no Idempotency-Key is sent"
    )
    user: Label = ""


class ReversalRequest(Document):
    """A payment that bounced."""

    reason: Label = Field(default="", examples=["card refused by the bank"])
    user: Label = ""


class AdjustmentRequest(Document):
    """A correction by hand."""

    amount: SignedMoney
    reason: Label = Field(min_length=1, examples=["goodwill after an outage"])
    user: Label = Field(min_length=1)
    approver: Label = Field(default="", description="a second person who has agreed, told by who may act for others")


class UserRequest(Document):
    """Who asks, and why."""

    reason: Label = ""
    user: Label = ""


class HoldRequest(Document):
    """Supply is not cut while it lasts."""

    reason: Label = Field(min_length=1, examples=["medical device at home"])
    user: Label = ""


class DebtRequest(Document):
    """A debt to recover from the account; the same name adds to it."""

    amount: Money
    name: Label = Field(default="debt", examples=["arrears-2025"])
    per_day: Money | None = Field(default=None, description="taken each day; left out: as topology.yaml says")
    reason: Label = ""
    user: Label = ""


class CommandOrder(Document):
    """Something for the device of the account."""

    action: Literal["CONNECT", "DISCONNECT", "READ", "LOAD_LIMIT"]
    watts: int | None = Field(default=None, ge=0, description="LOAD_LIMIT: the limit")
    reason: Label = Field(default="", description="DISCONNECT needs one")
    user: Label = ""


class ModeRequest(Document):
    """Prepaid or postpaid from now on. Opening balance, arrears and the rest are for PREPAID."""

    mode: Literal["PREPAID", "POSTPAID"]
    opening: Money | None = Field(default=None, description="balance it begins with")
    arrears: Money | None = Field(default=None, description="what is owed: becomes a debt, not a negative balance")
    arrears_per_day: Money | None = None
    tariff: Label | None = Field(default=None, description="left out: by the rules of topology.yaml")
    rate: Label | None = Field(default=None, description="rate of the usage subscription, for these rules")
    load: str | None = Field(default=None, pattern=r"^\d{1,9}(\.\d{1,6})?$", description="sanctioned load, kW")
    zone: Label | None = Field(default=None, description="IANA zone of local days")
    service_point: Label | None = None
    device: Label | None = None
    first_day: date | None = Field(default=None, description="first local day that is charged; left out: tomorrow")
    reason: Label = ""
    user: Label = ""


class CloseRequest(Document):
    """Move-out: charged through a last day, then what is left is paid back."""

    last_day: date | None = Field(default=None, description="left out: today")
    reason: Label = ""
    user: Label = ""


class ContactRequest(Document):
    """Where a customer is told; kept sealed, as all personal data are. A field left out is removed."""

    mail: Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=200)] | None = None
    phone: Annotated[str, Field(pattern=r"^\+?[0-9 ()/-]{5,30}$")] | None = None
    language: Language | None = None
    user: Label = ""


class TryRequest(Document):
    """A tariff as topology.yaml has it, to be tried on past usage."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{
            "tariff": {"id": "flat", "versions": [{"rate": "0.25", "fixed": "5.00"}]}, "first": "2026-01-01", "last": "2026-01-31",
        }]},
    )  # fmt: skip

    tariff: dict[str, Any]
    first: date
    last: date


class Answer(BaseModel):
    """What comes out: fields may be added."""

    model_config = ConfigDict(extra="allow")


class OutcomeAnswer(Answer):
    """What became of a request; ``accepted``: not decided yet, ask again under its id."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{
            "id": "0f3a8e5d9c0b4b7e8a1d2c3b4a596877", "account": "a-1001", "action": "topup", "status": "posted", "detail": "",
            "at": "2026-11-24T10:00:00Z", "balance": "31.20", "state": "active", "posting": "77aa", "command": "",
        }]},
    )  # fmt: skip

    id: str
    status: Literal["posted", "done", "refused", "accepted"]
    account: str = ""
    action: str = ""
    at: datetime | None = None
    detail: str = ""
    balance: str | None = Field(default=None, description="after it")
    state: str = ""
    posting: str = Field(default="", description="id of its first posting")
    command: str = Field(default="", description="id of the device command it led to")


class OrderAnswer(Answer):
    """An adjustment that needs two people."""

    id: str
    state: Literal["waiting", "approved", "rejected"]
    account: str
    amount: str
    reason: str
    user: str = Field(description="who asked for it")
    decided_by: str = ""
    outcome: dict[str, Any] | None = Field(default=None, description="approve: what the engine made of it")


class BalanceAnswer(BaseModel):
    """A balance and what it means."""

    account: str
    amount: str
    currency: str
    as_of: datetime
    provisional: str = Field(description="part of the charges in it that may still change")
    days_left: int | None = Field(description="whole days at the usual pace; null: not known")
    daily: str = Field(description="mean charge of the last seven days")
    state: str
    level: str = Field(description="low: the threshold crossed last")
    debt: str
    emergency: str
    hold: str
    cut_from: datetime | None = Field(description="earliest moment supply may be cut; null: not in sight")


class ListAnswer(BaseModel):
    """A page of a list; ``next`` is the cursor of the page behind it."""

    items: list[dict[str, Any]]
    next: str | None = None
