"""What an installation decides by its environment: ``MDH_…``, nested with ``__``. Built once in entry points and passed on.

Examples: ``MDH_BROKER=kafka-1:9092,kafka-2:9092``, ``MDH_KAFKA__SECURITY__PROTOCOL=SASL_SSL``, ``MDH_LOG_LEVEL=debug``. Secrets may be
files of these names in the folder that ``MDH_SECRETS_DIR`` names. What the system *is* stands in topology.yaml instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from connectors.kafka.settings import Addresses, KafkaSettings
from mdh.errors import UsageError


class RegistrySettings(BaseModel):
    """A schema registry that speaks Confluent's API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://\S+$")
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None


class Settings(BaseSettings):
    """The settings of one process. Options of the command line stand above the environment."""

    model_config = SettingsConfigDict(env_prefix="MDH_", env_nested_delimiter="__", frozen=True, extra="forbid")

    data_dir: Path = Field(default=Path(".mdh"), description="Everything the embedded parts keep")
    broker: Addresses | None = Field(default=None, description="Kafka to use; none: the embedded broker")
    clickhouse: str | None = Field(default=None, description="DSN of the store; none: the embedded engine in data_dir")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="How to log in at the broker")
    registry: RegistrySettings | None = Field(default=None, description="Schema registry; none: the committed ids")
    person_key: Path | None = Field(
        default=None, description="File with the 32 bytes that wrap the keys of persons' data; none: one is made in data_dir"
    )
    person_keys: Path | None = Field(default=None, description="The file that holds the wrapped keys of persons; none: in data_dir")
    rights_mode: Literal["open", "enforced"] | None = Field(default=None, description="Instead of rights.mode of topology.yaml")
    oidc_secret: SecretStr | None = Field(default=None, description="Client secret at the identity provider; none: a public client")
    host: str = Field(default="127.0.0.1", description="Address the gateway listens on")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port of the gateway; 0: any free one")
    workers: int = Field(default=1, ge=1, le=256)
    metrics_port: int | None = Field(default=None, ge=1, le=65_535, description="Port at which a worker serves its metrics; none: nowhere")
    accept_gaps: bool = Field(default=False, description="Workers go on although records are gone from Kafka: an operator's decision")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


def load_settings(**given: Any) -> Settings:
    """The settings of the environment under those given (None: not given). Raises UsageError that names the variable or option."""
    chosen = {name: value for name, value in given.items() if value is not None}
    folder = os.environ.get("MDH_SECRETS_DIR")
    if folder and not Path(folder).is_dir():
        raise UsageError(f"MDH_SECRETS_DIR: {folder} is no folder")
    try:
        return Settings(**chosen, _secrets_dir=folder)  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"]]
        option = place and place[0] in chosen
        name = f"--{place[0].replace('_', '-')}" if option else "MDH_" + "__".join(place).upper()
        raise UsageError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
