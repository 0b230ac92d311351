"""A running hub as a head end and a reporting tool see it: its HTTP interface."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from mdh.errors import UsageError

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_ASK_AT_ONCE: Final = 2_000
Progress = Callable[[int, int], None]  # complete, of


class HubAt:
    """The hub at an address. Every method raises UsageError with one line when the hub refuses or does not answer."""

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        here = urlsplit(self.url).hostname in _LOOPBACK  # not reached through a proxy
        self._client = httpx.Client(base_url=self.url, timeout=timeout, trust_env=not here)

    def __enter__(self) -> HubAt:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _ask(self, path: str, **what: Any) -> httpx.Response:
        try:
            answer = self._client.post(path, **what)
        except httpx.TransportError as error:
            raise UsageError(f"{self.url}: no hub answers there ({error})") from None
        if answer.is_error:
            raise UsageError(f"{self.url}{path}: {answer.status_code} {answer.text[:300]}")
        return answer

    def master(self, lines: Iterable[dict[str, Any]]) -> list[str]:
        """Sends master data; the ids to wait for. Raises UsageError if a line is refused."""
        body = "".join(json.dumps(line) + "\n" for line in lines)
        answer: dict[str, Any] = self._ask("/v1/master", content=body.encode()).json()
        if answer["errors"]:
            first = answer["errors"][0]
            raise UsageError(f"master data line {first['line']}: {first['message']}")
        ids: list[str] = answer["ids"]
        return ids

    def reads(self, data: bytes, *, source: str, name: str, key: str) -> str:
        """Sends one payload; its id."""
        where = {"source": source, "name": name}
        answer = self._ask("/v1/reads", content=data, params=where, headers={"Idempotency-Key": key})
        return str(answer.json()["id"])

    def settle(self, ids: Sequence[str], seconds: float, progress: Progress | None = None) -> dict[str, int]:
        """Waits until all payloads are decided and stored and the days they touch are closed; the sums of their counts."""
        deadline, counts = time.monotonic() + seconds, dict[str, int]()
        done, target = 0, 0
        for first in range(0, len(ids), _ASK_AT_ONCE):
            part = list(ids[first : first + _ASK_AT_ONCE])
            while True:
                answer: dict[str, Any] = self._ask("/v1/settle", json={"ids": part, "wait": 1}).json()
                if progress:
                    progress(done + answer["complete"], len(ids))
                if not answer["waiting"]:
                    break
                if time.monotonic() > deadline:
                    raise UsageError(f"{answer['waiting']} of {len(ids)} payloads are not decided after {seconds:.0f} s")
            done, target = done + len(part), answer["now"] + answer["quiet_seconds"]
            for name, count in answer["counts"].items():
                counts[name] = counts.get(name, 0) + count
        while True:
            answer = self._ask("/v1/settle", json={"ids": []}).json()
            if (answer["settled_tick"] or 0) >= target:
                return counts
            if time.monotonic() > deadline:
                raise UsageError(f"the days touched are not closed after {seconds:.0f} s")
            time.sleep(0.3)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query against the public views."""
        text = self._ask("/v1/sql", content=query.encode(), headers={"Content-Type": "text/plain"}).text
        return [json.loads(line) for line in text.splitlines() if line]
