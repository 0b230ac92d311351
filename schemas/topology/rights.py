"""Rights: who may do what where, how people log in, and how long that lasts."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.topology.base import Seconds, Section, network

PERMISSIONS: Final[dict[str, str]] = {
    "reads.send": "hand in meter reads and device events",
    "reads.read": "see what became of payloads",
    "results.read": "see exceptions, final reads, determinants and usage",
    "sql.query": "ask the store in SQL, across all areas",
    "commands.order": "order days checked, edited, estimated, accepted or discarded",
    "commands.read": "see what became of commands",
    "commands.bulk": "order many commands at once",
    "commands.approve": "approve or reject bulk orders of others",
    "labels.write": "say whether an anomaly was a fault",
    "master.read": "see master data",
    "master.write": "change master data",
    "persons.read": "see names and addresses",
    "persons.erase": "erase the data of a person",
    "usage.request": "ask for usage of a period",
    "usage.billed": "say what stands on a bill",
    "usage.events": "announce critical-peak events",
    "subscribers.read": "see subscribers and their deliveries",
    "subscribers.write": "register, change, pause and end subscribers",
    "subscribers.replay": "deliver again",
    "subscribers.test": "send samples",
    "objects.read": "see what can be subscribed to",
    "prepaid.read": "see prepaid accounts and their ledger",
    "prepaid.post": "top up",
    "prepaid.adjust": "adjust balances, enrol and end",
    "prepaid.approve": "approve adjustments of others",
    "devices.read": "see device commands and events",
    "devices.reply": "answer device commands, as a head end does",
    "sap.exchange": "exchange messages as a customer information system",
    "todos.read": "see To-Dos",
    "todos.work": "take, comment and complete To-Dos",
    "todos.assign": "assign To-Dos to others",
    "todos.bulk": "work on many To-Dos at once",
    "todos.approve": "approve bulk work of others",
    "dashboard.read": "see figures of the whole",
    "dashboard.write": "arrange dashboards",
    "rules.read": "see rules and time-of-use maps",
    "rules.propose": "propose changes of rules",
    "operations.read": "see topics, lag, health and metrics",
    "operations.replay": "replay dead letters",
    "users.read": "see users, roles and tokens",
    "users.write": "add, change and disable users and tokens of others",
    "tokens.own": "make and revoke API tokens for oneself",
    "audit.read": "search, export and verify the audit",
    "act-for": "name another user as the one who acts (machines that pass on what people do)",
    "console.use": "open the web console",
}
PermissionPattern = Annotated[str, Field(min_length=1, max_length=64)]
AreaPattern = Annotated[str, Field(min_length=1, max_length=100, description="exact, or a pattern with `*`")]
Signature = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
RoleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


def _known(pattern: str) -> str:
    families = {f"{name.partition('.')[0]}.*" for name in PERMISSIONS}
    if pattern != "*" and pattern not in PERMISSIONS and pattern not in families:
        raise ValueError(f"there is no permission {pattern!r} (docs/rights.md lists them)")
    return pattern


class Grant(Section):
    """A role, and where it holds."""

    role: RoleName
    utility: AreaPattern = "*"
    region: AreaPattern = "*"
    commodity: AreaPattern = "*"


class Role(Section):
    """What people of a role may do."""

    about: str = Field(default="", max_length=200)
    includes: list[RoleName] = Field(default_factory=list, description="Other roles whose permissions it has too")
    permissions: list[Annotated[PermissionPattern, AfterValidator(_known)]] = Field(
        default_factory=list, description="Permissions, or `word.*`, or `*` for all"
    )
    utility: AreaPattern = Field(default="*", description="Where its own permissions hold at most")
    region: AreaPattern = "*"
    commodity: AreaPattern = "*"


class ClaimRule(Section):
    """Which role a claim of the identity provider stands for."""

    claim: str = Field(min_length=1, max_length=200, description="Name of the claim, such as groups; points go into objects")
    value: str = Field(min_length=1, max_length=200, description="The value, or one of the list's")
    grant: Grant


class OidcSettings(Section):
    """Login at the utility's identity provider (OpenID Connect, authorisation code with PKCE)."""

    issuer: str = Field(pattern=r"^https?://[^\s?#]+$", max_length=500, description="As in its discovery document")
    client_id: str = Field(min_length=1, max_length=200)
    public_url: str = Field(pattern=r"^https?://[^\s?#]+[^\s?#/]$", max_length=500, description="The hub as browsers reach it")
    scopes: list[str] = Field(default_factory=lambda: ["openid", "profile"], max_length=20)
    algorithms: list[Signature] = Field(default=["RS256", "ES256"], min_length=1, description="Signatures of id tokens that are taken")
    name: str = Field(default="preferred_username", max_length=100, description="Claim that names a person here")
    realm: str = Field(default="idp", pattern=r"^[a-z][a-z0-9-]{0,39}$", description="Stands behind the names of these people: anna@idp")
    roles: list[ClaimRule] = Field(default_factory=list, max_length=200, description="Who matches none is refused")
    leeway: Seconds = Field(default=60, ge=0, le=300, description="By which clocks may differ")

    @model_validator(mode="after")
    def _safe(self) -> OidcSettings:
        host = self.issuer.split("/")[2].rsplit(":", 1)[0]
        if self.issuer.startswith("http:") and host not in ("localhost", "127.0.0.1", "[::1]"):
            raise ValueError("issuer: must be https")
        return self


class SessionSettings(Section):
    """Sessions of browsers."""

    lifetime: Seconds = Field(default=12 * 3600, ge=60, le=6 * 86_400, description="From login on, however busy")
    secure: bool = Field(default=False, description="Cookies over https only: true wherever people reach the hub by https")


class LoginSettings(Section):
    """Bounds on attempts to log in, per hub process."""

    per_address: int = Field(default=30, ge=1, le=10_000, description="Attempts a minute from one address")
    per_account: int = Field(default=10, ge=1, le=10_000, description="Attempts a minute at one account")
    lock_after: int = Field(default=5, ge=1, le=100, description="Failures in a row after which an account is locked")
    lock_first: Seconds = Field(default=30, ge=1, description="For how long first; it doubles with every further failure")
    lock_most: Seconds = Field(default=3600, ge=1)


def _role(about: str, permissions: str, *includes: str) -> Role:
    return Role(about=about, includes=list(includes), permissions=permissions.split())


def default_roles() -> dict[str, Role]:
    """The roles of a hub that declares none."""
    return {
        "admin": _role("Everything, users included", "*"),
        "operator": _role(
            "Keeps the hub running",
            "operations.* reads.* results.read subscribers.* objects.read devices.read todos.read dashboard.* sql.query rules.* "
            "commands.read tokens.own console.use",
        ),
        "clerk": _role(
            "Works exceptions off",
            "todos.read todos.work results.read reads.read commands.order commands.read labels.write master.read devices.read "
            "dashboard.* prepaid.read rules.read objects.read tokens.own console.use",
        ),
        "supervisor": _role(
            "Assigns work, works in bulk, approves",
            "todos.* commands.* prepaid.approve usage.request audit.read rules.propose",
            "clerk",
        ),
        "analyst": _role("Looks at data", "results.read sql.query dashboard.* rules.read objects.read tokens.own console.use"),
        "integrator": _role(
            "Another system: head end, customer information system, billing",
            "reads.* results.read master.read master.write usage.* subscribers.read objects.read sap.exchange devices.* prepaid.read "
            "prepaid.post prepaid.adjust commands.order commands.read act-for",
        ),
        "auditor": _role(
            "Sees who did what",
            "audit.read users.read results.read todos.read master.read commands.read subscribers.read prepaid.read rules.read console.use",
        ),
        "customer-service": _role(
            "Answers customers",
            "results.read master.read persons.read prepaid.read prepaid.post devices.read todos.read console.use",
        ),
    }


class RightsSettings(Section):
    """Who may do what."""

    mode: Literal["open", "enforced"] = Field(
        default="open", description="open: whoever reaches the hub may do everything (this machine only); enforced: login or token"
    )
    open_to_network: bool = Field(default=False, description="Lets an open hub listen on other addresses than those of this machine")
    open_metrics: bool = Field(default=True, description="/metrics without login, for Prometheus")
    roles: dict[RoleName, Role] = Field(default_factory=default_roles, description="All roles; left out: those of docs/rights.md")
    more_roles: dict[RoleName, Role] = Field(default_factory=dict, description="Roles beside those")
    session: SessionSettings = Field(default_factory=SessionSettings)
    login: LoginSettings = Field(default_factory=LoginSettings)
    oidc: OidcSettings | None = Field(default=None, description="The utility's identity provider")
    proxies: list[Annotated[str, AfterValidator(network)]] = Field(
        default_factory=list, description="Networks of reverse proxies whose X-Forwarded-For is believed"
    )
    first_link: Seconds = Field(default=3600, ge=60, le=86_400, description="How long the link to the first administrator works")

    @property
    def all_roles(self) -> dict[str, Role]:
        """Those of ``roles`` and ``more_roles``."""
        return {**self.roles, **self.more_roles}

    @model_validator(mode="after")
    def _roles_fit(self) -> RightsSettings:
        known = self.all_roles
        for name, role in known.items():
            for other in role.includes:
                if other not in known:
                    raise ValueError(f"roles: {name} includes {other}, which is no role")
            if name in _included(known, role.includes):
                raise ValueError(f"roles: {name} includes itself")
        for rule in self.oidc.roles if self.oidc else ():
            if rule.grant.role not in known:
                raise ValueError(f"oidc: {rule.grant.role} is no role")
        return self


def _included(known: dict[str, Role], names: list[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name in known:
            found.add(name)
            waiting += known[name].includes
    return found
