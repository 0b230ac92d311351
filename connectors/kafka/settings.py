"""How to reach a Kafka cluster and who we are there: one model, in the words of both client libraries."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

DEFAULT_BROKER: Final = "127.0.0.1:9092"
_ADDRESSES = re.compile(r"[^\s,]+:\d{1,5}(,[^\s,]+:\d{1,5})*", re.ASCII)

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


def _addresses(text: str) -> str:
    if not _ADDRESSES.fullmatch(text):
        raise ValueError(f"brokers are written host:port[,host:port…], not {text!r}")
    return text


Addresses = Annotated[str, AfterValidator(_addresses)]


class KafkaSecurity(BaseModel):
    """Transport and login. With OAUTHBEARER ``username`` and ``password`` are the client id and secret at ``token_url``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism | None = None
    username: str | None = None
    password: SecretStr | None = None
    token_url: str | None = None
    scope: str | None = None
    ca_file: Path | None = Field(default=None, description="Authorities to trust (PEM); without it those of the system")
    certificate_file: Path | None = Field(default=None, description="Our certificate (PEM), for mutual TLS")
    key_file: Path | None = None
    key_password: SecretStr | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sasl, tls = self.protocol.startswith("SASL"), self.protocol.endswith("SSL")
        if sasl != (self.mechanism is not None):
            raise ValueError("mechanism must be given with SASL_PLAINTEXT and SASL_SSL, and only then")
        if sasl and not (self.username and self.password):
            raise ValueError(f"username and password must be given with {self.mechanism}")
        if self.mechanism == "OAUTHBEARER" and not self.token_url:
            raise ValueError("token_url must be given with OAUTHBEARER")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if not tls and (self.ca_file or self.certificate_file):
            raise ValueError(f"certificates need protocol SSL or SASL_SSL, not {self.protocol}")
        return self

    @property
    def secret(self) -> str:
        """The password in clear, for the client libraries only."""
        return self.password.get_secret_value() if self.password else ""

    def librdkafka(self) -> dict[str, Any]:
        """As settings of confluent-kafka."""
        values: dict[str, Any] = {
            "security.protocol": self.protocol,
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
            "ssl.key.password": self.key_password.get_secret_value() if self.key_password else None,
            "sasl.mechanisms": self.mechanism,
        }
        if self.mechanism == "OAUTHBEARER":
            values |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": self.username,
                "sasl.oauthbearer.client.secret": self.secret,
                "sasl.oauthbearer.token.endpoint.url": self.token_url,
                "sasl.oauthbearer.scope": self.scope,
            }
        elif self.mechanism:
            values |= {"sasl.username": self.username, "sasl.password": self.secret}
        return {name: str(value) for name, value in values.items() if value is not None}

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context for aiokafka and Faust; None without TLS. Raises OSError where a file cannot be read."""
        if not self.protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.certificate_file:
            password = self.key_password.get_secret_value() if self.key_password else None
            context.load_cert_chain(str(self.certificate_file), str(self.key_file), password)
        return context

    def faust(self) -> dict[str, Any]:
        """As settings of a Faust app, which hands them to aiokafka."""
        if self.protocol == "PLAINTEXT":
            return {}
        from faust import auth

        context = self.ssl_context()
        if self.mechanism is None:
            return {"broker_credentials": auth.SSLCredentials(context)}
        if self.mechanism == "OAUTHBEARER":
            from connectors.kafka.oauth import TokenProvider

            provider = TokenProvider(self.token_url or "", self.username or "", self.secret, self.scope)
            return {"broker_credentials": auth.OAuthCredentials(oauth_cb=provider, ssl_context=context)}
        login = {"username": self.username, "password": self.secret, "mechanism": self.mechanism}
        return {"broker_credentials": auth.SASLCredentials(**login, ssl_context=context)}


class KafkaSettings(BaseModel):
    """A cluster and how to log in there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: Addresses = Field(default=DEFAULT_BROKER, description="host:port, joined by commas")
    security: KafkaSecurity = Field(default_factory=KafkaSecurity)

    def at(self, bootstrap: str | None) -> KafkaSettings:
        """The same login at other brokers; None changes nothing. Raises ValueError on anything but ``host:port[,…]``."""
        return self if bootstrap is None else self.model_copy(update={"bootstrap": _addresses(bootstrap)})

    def librdkafka(self) -> dict[str, Any]:
        """Connection settings of confluent-kafka, common to producers, consumers and the administrator."""
        return {"bootstrap.servers": self.bootstrap, **self.security.librdkafka()}

    def faust(self) -> dict[str, Any]:
        """Credentials as settings of a Faust app."""
        return self.security.faust()
