"""Settings: the environment, options above it, secrets from files, one line for what is wrong; logins in both libraries' words."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from connectors.kafka.oauth import TokenProvider
from connectors.kafka.settings import KafkaSecurity, KafkaSettings
from mdh.errors import UsageError
from mdh.settings import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("MDH_"):
            monkeypatch.delenv(name)


def test_nothing_set_means_everything_embedded() -> None:
    settings = load_settings()
    assert (settings.broker, settings.clickhouse, settings.registry) == (None, None, None)
    assert settings.kafka.librdkafka() == {"bootstrap.servers": "127.0.0.1:9092", "security.protocol": "PLAINTEXT"}
    assert settings.kafka.faust() == {}


def test_the_environment_is_read_and_options_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDH_BROKER", "kafka-1:9092,kafka-2:9092")
    monkeypatch.setenv("MDH_PORT", "9000")
    monkeypatch.setenv("MDH_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("MDH_KAFKA__SECURITY__PROTOCOL", "SSL")
    settings = load_settings(port=9001, workers=None)
    assert (settings.port, settings.workers, settings.log_level) == (9001, 1, "debug")
    assert settings.kafka.at(settings.broker).librdkafka()["bootstrap.servers"] == "kafka-1:9092,kafka-2:9092"
    assert settings.kafka.security.protocol == "SSL"


def test_secrets_come_from_files_and_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mdh_clickhouse").write_text("clickhouse://u:p@store/db\n")
    monkeypatch.setenv("MDH_SECRETS_DIR", str(tmp_path))
    for name, value in {"PROTOCOL": "SASL_SSL", "MECHANISM": "PLAIN", "USERNAME": "hub", "PASSWORD": "very-secret"}.items():
        monkeypatch.setenv(f"MDH_KAFKA__SECURITY__{name}", value)
    settings = load_settings()
    assert settings.clickhouse == "clickhouse://u:p@store/db"
    assert "very-secret" not in repr(settings) + settings.model_dump_json()
    assert settings.kafka.librdkafka()["sasl.password"] == "very-secret"


@pytest.mark.parametrize(
    ("environment", "given", "message"),
    [
        ({"MDH_PORT": "eighty"}, {}, "MDH_PORT: Input should be a valid integer"),
        ({}, {"port": 70_000}, "--port: Input should be less than"),
        ({}, {"data_dir": 5}, "--data-dir: "),
        ({"MDH_BROKER": "nowhere"}, {}, "MDH_BROKER: brokers are written host:port"),
        ({"MDH_KAFKA__SECURITY__PROTOCOL": "TLS"}, {}, "MDH_KAFKA__SECURITY__PROTOCOL: Input should be 'PLAINTEXT'"),
        ({"MDH_KAFKA__SECURITY__PROTOCOL": "SASL_SSL"}, {}, "MDH_KAFKA__SECURITY: mechanism must be given"),
        ({"MDH_REGISTRY__URL": "ftp://x"}, {}, "MDH_REGISTRY__URL: String should match"),
        ({"MDH_LOG_LEVEL": "loud"}, {}, "MDH_LOG_LEVEL: Input should be 'debug'"),
        ({"MDH_SECRETS_DIR": "/nowhere/at/all"}, {}, "MDH_SECRETS_DIR: /nowhere/at/all is no folder"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], given: dict[str, Any], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        load_settings(**given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protocol": "PLAINTEXT", "mechanism": "PLAIN"}, "only then"),
        ({"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "u"}, "username and password"),
        ({"protocol": "SASL_SSL", "mechanism": "OAUTHBEARER", "username": "u", "password": "p"}, "token_url"),
        ({"protocol": "SSL", "certificate_file": "a.pem"}, "go together"),
        ({"protocol": "PLAINTEXT", "ca_file": "a.pem"}, "certificates need protocol SSL"),
        ({"protcol": "SSL"}, "Extra inputs"),
    ],
)
def test_logins_that_cannot_work_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KafkaSecurity(**values)


@pytest.mark.parametrize("bootstrap", ["", "host", "host:", "host:port", "a:1,", "a:1 b:2", "a:123456"])
def test_broker_addresses_are_checked(bootstrap: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        KafkaSettings(bootstrap=bootstrap)
    with pytest.raises(ValueError, match="host:port"):
        KafkaSettings().at(bootstrap)


SASL = {"username": "u", "password": "p"}


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_passwords_in_the_words_of_both_libraries(protocol: Any, mechanism: Any) -> None:
    security = KafkaSecurity(protocol=protocol, mechanism=mechanism, **SASL)
    assert security.librdkafka() == {
        "security.protocol": protocol, "sasl.mechanisms": mechanism, "sasl.username": "u", "sasl.password": "p",
    }  # fmt: skip
    credentials = security.faust()["broker_credentials"]
    assert (credentials.protocol.value, credentials.mechanism.value) == (protocol, mechanism)
    assert (credentials.username, credentials.password) == ("u", "p")
    assert (credentials.ssl_context is not None) == (protocol == "SASL_SSL")


def test_tls_alone_checks_the_broker() -> None:
    security = KafkaSecurity(protocol="SSL")
    context = security.faust()["broker_credentials"].context
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert security.librdkafka() == {"security.protocol": "SSL"}


def test_librdkafka_takes_what_is_rendered() -> None:
    from connectors.kafka.client import consumer, producer

    security = KafkaSecurity(protocol="SASL_SSL", mechanism="OAUTHBEARER", **SASL, token_url="https://127.0.0.1:9/token", scope="kafka")
    settings = KafkaSettings(bootstrap="127.0.0.1:9", security=security)
    assert producer(settings, "tx") is not None
    consumer(settings, "group").close()


class _Tokens(BaseHTTPRequestHandler):
    asked: list[tuple[str, dict[str, list[str]]]] = []  # noqa: RUF012
    answer: dict[str, Any] = {}  # noqa: RUF012

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.asked.append((self.headers["authorization"], form))
        self.send_response(200 if self.answer else 401)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, *arguments: Any) -> None:
        """Silent."""


@pytest.fixture
def token_server() -> Iterator[str]:
    _Tokens.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), _Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def test_tokens_are_fetched_once_and_again_shortly_before_they_end(token_server: str) -> None:
    provider = TokenProvider(token_server, "hub", "secret", "kafka")

    async def twice() -> list[str]:
        return [await provider.token(), await provider.token()]

    _Tokens.answer = {"access_token": "one", "expires_in": 3600}
    assert asyncio.run(twice()) == ["one", "one"]
    assert len(_Tokens.asked) == 1
    login, form = _Tokens.asked[0]
    assert login.startswith("Basic ")
    assert form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
    provider._ends = 0.0
    _Tokens.answer = {"access_token": "two", "expires_in": 3600}
    assert asyncio.run(twice()) == ["two", "two"]


def test_a_refused_token_is_an_error(token_server: str) -> None:
    import httpx

    _Tokens.answer = {}
    with pytest.raises(httpx.HTTPStatusError):
        asyncio.run(TokenProvider(token_server, "hub", "wrong").token())
