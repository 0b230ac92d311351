"""Subscribers: who gets which integration objects, filtered how, delivered through which channel."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from schemas.topology.base import Seconds, Section, network

ID: Final = r"^[a-z][a-z0-9-]{0,39}$"
MOST: Final = 200
OBJECTS: Final = (
    "final-intervals", "final-registers", "exceptions", "determinants", "daily-determinants", "usage-transactions", "usage-events",
    "prepaid-ledger", "prepaid-accounts", "prepaid-notices", "device-commands", "device-replies", "device-events", "audit", "todos",
)  # fmt: skip
FINALS_OF: Final = {
    "nem12": {"final-intervals"}, "nem13": {"final-registers"}, "mdus": {"final-intervals"}, "cim": {"final-intervals", "final-registers"},
}  # fmt: skip
"""Formats of final measurements → which of them they hold."""
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,7}", re.ASCII)
_REMOTE: Final = re.compile(r"/?[A-Za-z0-9._ -]{1,64}(/[A-Za-z0-9._ -]{1,64}){0,15}", re.ASCII)
_HOST: Final = re.compile(r"(?=.{1,253}$)(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)

ObjectName = Literal[
    "final-intervals", "final-registers", "exceptions", "determinants", "daily-determinants", "usage-transactions", "usage-events",
    "prepaid-ledger", "prepaid-accounts", "prepaid-notices", "device-commands", "device-replies", "device-events", "audit", "todos",
]  # fmt: skip


def _start(text: str) -> str:
    if text not in ("now", "earliest"):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"must be now, earliest or an ISO time such as 2026-01-01T00:00:00Z, not {text!r}") from None
        if moment.tzinfo is None and len(text) > 10:
            raise ValueError(f"{text!r} needs an offset, such as 2026-01-01T00:00:00Z")
    return text


def start_second(text: str) -> int | None:
    """UTC seconds of an ISO time or date (a date begins at midnight UTC); None for ``now`` and ``earliest``."""
    if text in ("now", "earliest"):
        return None
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"must be a host such as crm.example.com or *.example.com in lower case, not {text!r}")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is no URL") from None
    if (
        parts.scheme not in ("https", "http")
        or not parts.hostname
        or port == 0
        or len(text) > 2000
        or not text.isprintable()
        or " " in text
    ):
        raise ValueError(f"must be https://host/path, not {text!r}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("must hold no user, password or fragment: secrets are referred to by name")
    return text


def _folder(text: str) -> str:
    if not _FOLDER.fullmatch(text):
        raise ValueError(f"must be names of letters, digits, point, - and _ joined by /, below the outbox, not {text!r}")
    return text


def _remote(text: str) -> str:
    if not _REMOTE.fullmatch(text) or ".." in text.split("/"):
        raise ValueError(f"must be a plain path without .., not {text!r}")
    return text


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name, re.ASCII) or not value.isprintable() or not value.isascii():
            raise ValueError(f"{name!r}: names and values of headers are printable ASCII")
        if name.lower() in ("authorization", "host", "content-length", "content-type", "idempotency-key") or name.lower().startswith(
            "webhook-"
        ):
            raise ValueError(f"{name} is set by the hub")
    return headers


SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Patterns = Annotated[list[Pattern], Field(max_length=10_000)]
Url = Annotated[str, AfterValidator(_url)]
Folder = Annotated[str, AfterValidator(_folder)]
RemoteFolder = Annotated[str, AfterValidator(_remote)]
FileFormat = Literal["csv", "json", "ndjson", "parquet", "nem12", "nem13", "mdus", "cim"]


class Filter(Section):
    """What a subscriber wants of its objects. Each list that is given must match; a record without that field does not match.

    Values are exact, or patterns with ``*``.
    """

    account: Patterns = Field(default_factory=list)
    service_point: Patterns = Field(default_factory=list)
    device: Patterns = Field(default_factory=list)
    channel: Patterns = Field(default_factory=list)
    unit: Patterns = Field(default_factory=list, description="kWh, m3 …")
    commodity: list[Literal["electricity", "gas", "water", "heat"]] = Field(
        default_factory=list, description="By the unit, and by the medium of an OBIS code where the unit is one of several"
    )
    kind: Patterns = Field(default_factory=list, description="Kind of determinant, event, posting or notice")
    rule: Patterns = Field(default_factory=list, description="Of exceptions")
    severity: Patterns = Field(default_factory=list, description="Of exceptions and To-Dos")
    status: Patterns = Field(default_factory=list)
    region: Patterns = Field(default_factory=list, description="The record's own, one of delivery.regions, or its service point's")


class Retry(Section):
    """What happens to what a receiver does not take."""

    first: Seconds = Field(default=1, ge=1, le=3600, description="Pause before the second attempt; it doubles, half of it by chance")
    most: Seconds = Field(default=900, ge=1, le=86_400, description="The longest pause between two attempts")
    attempts: int = Field(
        default=12, ge=1, le=1000, description="Attempts at a delivery that the receiver answers with an error of its own (5xx)"
    )
    refusals: int = Field(default=3, ge=1, le=100, description="Attempts at a delivery that the receiver refuses as not valid (400, 422 …)")
    patience: Seconds = Field(
        default=7 * 86_400, ge=1, description="A receiver that is away (or refuses everybody) for so long suspends its subscriber"
    )


class Webhook(Section):
    """Signed HTTP POSTs."""

    kind: Literal["webhook"] = "webhook"
    url: Url
    secrets: list[SecretName] = Field(min_length=1, max_length=4, description="Names of signing secrets, newest first: all sign")
    token: SecretName | None = Field(default=None, description="Name of a secret sent as bearer token")
    authority: SecretName | None = Field(default=None, description="Name of a PEM file of authorities to trust instead of the system's")
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict, max_length=20)
    records: int = Field(default=100, ge=1, le=1000, description="Items of one request at most")
    parallel: int = Field(default=4, ge=1, le=32, description="Requests at a time; items of one key always follow each other")
    timeout: Seconds = Field(default=15, ge=1, le=120)


class Files(Section):
    """Files in a folder of the outbox: a batch each, with a manifest beside it."""

    kind: Literal["file"] = "file"
    folder: Folder = Field(description="Below the outbox")
    format: FileFormat = "ndjson"
    records: int = Field(default=50_000, ge=1, le=1_000_000, description="A batch is written when it has so many items …")
    every: Seconds = Field(default=900, ge=1, le=86_400, description="… or when its first item is so old")
    compress: Literal["none", "gzip"] = "none"


class Sftp(Section):
    """The same files on somebody else's SFTP server."""

    kind: Literal["sftp"] = "sftp"
    host: Annotated[str, AfterValidator(_host)]
    port: int = Field(default=22, ge=1, le=65_535)
    user: str = Field(min_length=1, max_length=64, pattern=r"^[^\s:/@]+$")
    key: SecretName | None = Field(default=None, description="Name of a private key (OpenSSH)")
    password: SecretName | None = Field(default=None, description="Name of a password, where the server takes no keys")
    host_key: str = Field(min_length=20, max_length=2000, description="The server's public key: `ssh-ed25519 AAAA…`")
    folder: RemoteFolder = "."
    format: FileFormat = "ndjson"
    records: int = Field(default=50_000, ge=1, le=1_000_000)
    every: Seconds = Field(default=900, ge=1, le=86_400)
    compress: Literal["none", "gzip"] = "none"
    timeout: Seconds = Field(default=60, ge=1, le=600)

    @model_validator(mode="after")
    def _login(self) -> Sftp:
        if (self.key is None) == (self.password is None):
            raise ValueError("give either key or password")
        return self


class KafkaTopic(Section):
    """A topic. Without a name the subscriber reads the hub's own topics under its group; nothing is filtered then."""

    kind: Literal["kafka"] = "kafka"
    topic: str | None = Field(default=None, max_length=200, description="A topic of topology.yaml that `delivery` may write")
    format: Literal["json", "avro"] = "json"


Channel = Annotated[Webhook | Files | Sftp | KafkaTopic, Field(discriminator="kind")]


class Subscriber(Section):
    """One subscriber: what it wants, which part of it, and how it gets it."""

    about: str = Field(default="", max_length=500, description="One sentence: who this is")
    objects: list[ObjectName] = Field(min_length=1, max_length=len(OBJECTS), description="What it wants")
    filter: Filter = Field(default_factory=Filter)
    channel: Channel
    start: Annotated[str, AfterValidator(_start)] = Field(
        default="now", description="Where it begins when it is new: now, earliest (as far as Kafka keeps it) or an ISO time"
    )
    retry: Retry = Field(default_factory=Retry)

    @model_validator(mode="after")
    def _fits(self) -> Subscriber:
        if len(set(self.objects)) != len(self.objects):
            raise ValueError("objects: names one twice")
        channel = self.channel
        if isinstance(channel, Files | Sftp) and channel.format in FINALS_OF:
            held = FINALS_OF[channel.format]
            other = sorted(set(self.objects) - held)
            if other:
                raise ValueError(f"format {channel.format} holds {' and '.join(sorted(held))}, not {', '.join(other)}")
        if isinstance(channel, KafkaTopic) and channel.topic is None and self.filter != Filter():
            raise ValueError("filter: nothing is filtered on the hub's own topics: name a topic of its own")
        return self


class Region(Section):
    """A part of the network, by its service points."""

    service_points: Patterns = Field(min_length=1)


class DeliverySettings(Section):
    """Rules for all subscribers."""

    within_hub: bool = Field(default=True, description="`mdh hub` delivers; false: only `mdh deliver` does")
    networks: list[Annotated[str, AfterValidator(network)]] = Field(
        default_factory=list,
        description="Private networks that webhooks and SFTP may reach, such as 10.20.0.0/16; none: public addresses only",
    )
    hosts: list[Annotated[str, AfterValidator(_host)]] = Field(
        default_factory=list, description="Hosts that webhooks and SFTP may name, `*.example.com` for all below; none: any"
    )
    plain_http: bool = Field(default=False, description="Webhooks may use http:// inside delivery.networks")
    response_bytes: int = Field(default=65_536, ge=0, le=1_048_576, description="Of a receiver's answer that are read")
    regions: dict[str, Region] = Field(default_factory=dict, description="Regions for filters")


Subscribers = Annotated[dict[Annotated[str, Field(pattern=ID)], Subscriber], Field(max_length=MOST)]
