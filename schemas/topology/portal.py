"""How prepaid customers are told things, and their portal."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from schemas.topology.base import Seconds, Section
from schemas.topology.subscribers import Folder, Retry, SecretName, Url

NOTICES: Final = (
    "balance.low", "balance.zero", "disconnect.warning", "disconnected", "reconnected", "topup.posted", "topup.reversed", "command.failed",
    "hold", "released", "enrolled", "closed",
)  # fmt: skip
NoticeKind = Literal[
    "balance.low", "balance.zero", "disconnect.warning", "disconnected", "reconnected", "topup.posted", "topup.reversed", "command.failed",
    "hold", "released", "enrolled", "closed",
]  # fmt: skip
LANGUAGES: Final = ("en", "de")
Language = Literal["en", "de"]


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.path or parts.query or parts.fragment or parts.username:
        raise ValueError(f"must be an origin such as https://www.utility.example, not {text!r}")
    return text


Origin = Annotated[str, AfterValidator(_origin)]


class Mail(Section):
    """Messages by SMTP."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(default=587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = Field(default="starttls", description="none: for a relay on this machine")
    user: str | None = Field(default=None, max_length=200)
    password: SecretName | None = Field(default=None, description="Name of a secret")
    sender: str = Field(alias="from", pattern=r"^[^@\s<>]+@[^@\s<>]+$", max_length=200)
    timeout: Seconds = Field(default=20, ge=1, le=120)

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.user is not None and self.security == "none":
            raise ValueError("a password is not sent without encryption: use starttls or tls")
        return self


class Sms(Section):
    """Messages through an SMS gateway: a signed POST of ``{id, to, text}`` for each."""

    url: Url
    secrets: list[SecretName] = Field(min_length=1, max_length=4, description="Names of signing secrets, as of webhooks")
    token: SecretName | None = Field(default=None, description="Name of a secret sent as bearer token")
    timeout: Seconds = Field(default=15, ge=1, le=120)


class Messages(Section):
    """Ways to customers. Where there is none, notices are only in the portal and with subscribers."""

    mail: Mail | None = None
    sms: Sms | None = None
    folder: Folder | None = Field(default=None, description="Below the outbox: each message as a file, for trying things out")
    kinds: tuple[NoticeKind, ...] = Field(default=tuple(k for k in NOTICES if k != "command.failed"), description="Which notices are sent")
    sms_kinds: tuple[NoticeKind, ...] = Field(
        default=("balance.low", "balance.zero", "disconnect.warning", "disconnected", "reconnected"), description="Which go by SMS as well"
    )
    given_up_after: Seconds = Field(default=86_400, ge=60, description="A notice that nobody took by then is old news and marked as dead")
    retry: Retry = Field(default_factory=lambda: Retry(first=5, most=900, attempts=8, refusals=1))


class Payments(Section):
    """A payment provider's hosted page: customers go there to pay, a signed callback says that they have.

    ``demo`` is a page of the hub itself that takes any payment without money: for trying things out only.
    """

    kind: Literal["hosted", "demo"]
    url: Url | None = Field(default=None, description="hosted: where customers go to pay")
    secrets: list[SecretName] = Field(default_factory=list, max_length=4, description="hosted: names of secrets shared with the provider")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "hosted" and (self.url is None or not self.secrets):
            raise ValueError("a hosted provider needs url and secrets")
        if self.kind == "demo" and (self.url is not None or self.secrets):
            raise ValueError("the demo provider takes neither url nor secrets")
        return self


class Portal(Section):
    """The customers' portal under /portal."""

    enabled: bool = False
    title: str = Field(default="My energy", min_length=1, max_length=60)
    origin: Origin | None = Field(default=None, description="Where customers reach it, https://…; left out: as the request says")
    help: str = Field(default="", max_length=200, description="Whom to call, shown on every page")
    accent: str = Field(default="#0b5fa5", pattern=r"^#[0-9a-fA-F]{6}$", description="The utility's colour")
    embed: tuple[Origin, ...] = Field(default=(), description="Sites that may show the portal in a frame; needs https")
    language: Language = "en"
    payments: Payments | None = Field(default=None, description="Left out: no recharging in the portal")
    amounts: tuple[str, ...] = Field(default=("10", "20", "50"), max_length=6, description="Offered for recharging")
    session: Seconds = Field(default=1800, ge=60, le=86_400, description="Signed out after so long without a click")
    code_life: Seconds = Field(default=600, ge=60, le=3600, description="How long a sign-in code is good")
    codes_per_hour: int = Field(default=5, ge=1, le=100, description="Sign-in codes of one account")
    tries: int = Field(default=5, ge=1, le=20, description="Wrong entries until a code is void")

    @model_validator(mode="after")
    def _framed(self) -> Self:
        if self.embed and not (self.origin or "").startswith("https://"):
            raise ValueError("a portal inside other sites needs origin: https://…, or browsers drop its cookie")
        return self
