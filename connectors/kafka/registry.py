"""A schema registry that speaks Confluent's API (Confluent, Karapace, Apicurio): registers all versions, learns their ids.

A topic with one record type has the subject ``<topic>-value``; one with several has ``<topic>-<full name>`` for each.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from schemas.compatibility import Versions
from schemas.topology import Topology
from schemas.topology.topics import RAW

_TYPE = "application/vnd.schemaregistry.v1+json"
COMPATIBILITY = "BACKWARD_TRANSITIVE"


class RegistryError(Exception):
    """The registry does not answer or refuses; one line."""


def subjects(topology: Topology) -> Iterator[tuple[str, str]]:
    """Each subject and the record type under it, in the order of the topology."""
    for topic, declared in topology.topics.items():
        types = [record for record in declared.records if record != RAW]
        for record in types:
            yield (f"{topic}-value" if len(types) == 1 else f"{topic}-org.meterdatahub.{record}"), record


class Registry:
    """A connection to a registry; use it in a ``with`` block. Every method raises RegistryError where it does not answer or refuses."""

    def __init__(
        self,
        url: str,
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        auth = (username, password or "") if username else None
        verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        self.url = url
        self._client = httpx.Client(base_url=url.rstrip("/"), auth=auth, verify=verify, timeout=15, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def _call(self, method: str, path: str, body: dict[str, Any]) -> Any:
        try:
            answer = self._client.request(method, path, content=json.dumps(body), headers={"content-type": _TYPE, "accept": _TYPE})
        except httpx.HTTPError as error:
            raise RegistryError(f"no schema registry answers at {self.url}: {error}") from None
        if answer.is_error:
            try:
                reason = str(answer.json()["message"])
            except (ValueError, KeyError, TypeError):
                reason = answer.reason_phrase
            raise RegistryError(f"{self.url}{path}: {answer.status_code} {reason}")
        return answer.json()

    def register(self, topology: Topology, versions: list[Versions]) -> dict[int, str]:
        """Registers every version under every subject, oldest first; the ids for :class:`schemas.codec.Codec`.

        Registering what is there already changes nothing, so this may run at every start.
        """
        kinds = {kind.name: kind for kind in versions}
        ids: dict[int, str] = {}
        for subject, record in subjects(topology):
            path = quote(subject, safe="")
            self._call("PUT", f"/config/{path}", {"compatibility": COMPATIBILITY})
            for number, schema in sorted(kinds[record].schemas.items()):
                answer = self._call("POST", f"/subjects/{path}/versions", {"schemaType": "AVRO", "schema": json.dumps(schema)})
                label = f"{record}.v{number}"
                if ids.setdefault(int(answer["id"]), label) != label:
                    raise RegistryError(f"{self.url}: gave {label} the id of {ids[int(answer['id'])]}")
        return ids

    def ids(self, topology: Topology, versions: list[Versions]) -> dict[int, str]:
        """The ids of all versions, all of which must be registered already."""
        kinds = {kind.name: kind for kind in versions}
        ids: dict[int, str] = {}
        for subject, record in subjects(topology):
            for number, schema in sorted(kinds[record].schemas.items()):
                answer = self._call("POST", f"/subjects/{quote(subject, safe='')}", {"schemaType": "AVRO", "schema": json.dumps(schema)})
                ids[int(answer["id"])] = f"{record}.v{number}"
        return ids
