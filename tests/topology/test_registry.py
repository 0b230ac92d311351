"""The schema registry: every version under every subject, its ids in the codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from connectors.kafka.registry import COMPATIBILITY, Registry, RegistryError, subjects
from schemas.codec import Codec
from schemas.compatibility import Versions, read
from schemas.topology import load_topology

ROOT = Path(__file__).resolve().parent.parent.parent
TOPOLOGY = load_topology(ROOT / "topology.yaml")


class FakeRegistry:
    """As Confluent's: equal schemas have one id whatever the subject; what is registered keeps its id."""

    def __init__(self, first: int = 100_001) -> None:
        self.ids: dict[str, int] = {}
        self.subjects: dict[str, list[int]] = {}
        self.compatibility: dict[str, str] = {}
        self.first = first

    def __call__(self, request: httpx.Request) -> httpx.Response:
        parts = [unquote(part) for part in request.url.raw_path.decode().strip("/").split("/")]
        body: dict[str, Any] = json.loads(request.content)
        if request.method == "PUT":
            self.compatibility[parts[1]] = body["compatibility"]
            return httpx.Response(200, json=body)
        canonical = json.dumps(json.loads(body["schema"]), sort_keys=True)
        if len(parts) == 2:
            if canonical not in self.ids or self.ids[canonical] not in self.subjects.get(parts[1], []):
                return httpx.Response(404, json={"error_code": 40403, "message": "Schema not found"})
        else:
            number = self.ids.setdefault(canonical, self.first + len(self.ids))
            versions = self.subjects.setdefault(parts[1], [])
            if number not in versions:
                versions.append(number)
        return httpx.Response(200, json={"id": self.ids[canonical]})


def registry(answer: Any) -> Registry:
    return Registry("http://registry:8081/", "hub", "secret", transport=httpx.MockTransport(answer))


def test_subjects_tell_record_types_of_one_topic_apart() -> None:
    found = list(subjects(TOPOLOGY))
    assert ("hub.receipts-value", "Receipt") in found
    assert ("vee.inbox-org.meterdatahub.Tick", "Tick") in found
    assert len({subject for subject, _ in found}) == len(found)


def test_registering_twice_gives_the_same_ids_and_the_codec_uses_them() -> None:
    fake, versions = FakeRegistry(), read()[1]
    with registry(fake) as connection:
        ids = connection.register(TOPOLOGY, versions)
        assert connection.register(TOPOLOGY, versions) == ids == connection.ids(TOPOLOGY, versions)
    assert sorted(ids.values()) == sorted(Codec().ids.values())
    assert set(fake.compatibility.values()) == {COMPATIBILITY}
    assert set(fake.compatibility) == set(fake.subjects)
    codec = Codec(ids)
    data = codec.encode("Tick", {"at": 7, "close": False})
    assert int.from_bytes(data[1:5], "big") >= 100_001
    assert codec.decode(data)["at"] == 7


def test_older_versions_are_registered_first() -> None:
    fake = FakeRegistry()
    current = {kind.name: kind for kind in read()[1]}
    tick = current["Tick"].schemas[1]
    newer = {**tick, "fields": [*tick["fields"], {"name": "more", "type": "int", "default": 0}]}
    kinds = [Versions("Tick", {2: newer, 1: tick}), *(kind for name, kind in current.items() if name != "Tick")]
    with registry(fake) as connection:
        ids = connection.register(TOPOLOGY, kinds)
    labels = {label: number for number, label in ids.items()}
    assert fake.subjects["hub.ticks-value"] == [labels["Tick.v1"], labels["Tick.v2"]]
    assert labels["Tick.v1"] < labels["Tick.v2"]


def test_ids_of_what_was_never_registered_are_an_error() -> None:
    with registry(FakeRegistry()) as connection, pytest.raises(RegistryError, match="404 Schema not found"):
        connection.ids(TOPOLOGY, read()[1])


def test_a_registry_that_gives_one_id_twice_is_refused() -> None:
    with registry(lambda request: httpx.Response(200, json={"id": 5})) as connection, pytest.raises(RegistryError, match="the id of"):
        connection.register(TOPOLOGY, read()[1])


def test_refusals_and_silence_are_one_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(409, json={"error_code": 409, "message": "Schema being registered is incompatible"})

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def garble(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<html>")

    for answer, words in [(refuse, "409 Schema being"), (fail, "no schema registry answers at http://reg"), (garble, "502 Bad Gateway")]:
        with registry(answer) as connection, pytest.raises(RegistryError, match=words):
            connection.register(TOPOLOGY, read()[1])


def test_the_login_is_sent() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return FakeRegistry()(request)

    with registry(answer) as connection, pytest.raises(RegistryError):
        connection.ids(TOPOLOGY, read()[1])
    assert httpx.BasicAuth("hub", "secret")._auth_header == seen[0]


def test_the_codec_of_an_installation_has_the_ids_of_its_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    from connectors.kafka import registry as module
    from mdh.contracts import codec_of
    from mdh.errors import UsageError
    from mdh.settings import RegistrySettings, load_settings

    fake = FakeRegistry()
    client = httpx.Client
    monkeypatch.setattr(module.httpx, "Client", lambda **options: client(**options | {"transport": httpx.MockTransport(fake)}))
    settings = load_settings().model_copy(update={"registry": RegistrySettings(url="http://registry:8081")})
    with pytest.raises(UsageError, match="`mdh schemas register` registers what is missing"):
        codec_of(settings, TOPOLOGY)
    with module.Registry("http://registry:8081") as connection:
        ids = connection.register(TOPOLOGY, read()[1])
    assert codec_of(settings, TOPOLOGY).ids == ids
    assert codec_of(load_settings(), TOPOLOGY).ids == Codec().ids
