"""Finding a running hub: its address, its broker, and calls to it with errors in one line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mdh.errors import UsageError

if TYPE_CHECKING:
    import httpx

    from connectors.embedded.place import HubState
    from connectors.kafka.settings import KafkaSettings

DEFAULT_URL = "http://127.0.0.1:8080"
BUSY = frozenset({429, 502, 503, 504})


def data_folder(data_dir: Path | None) -> Path:
    """The data directory: the one given, else that of the environment, else ``.mdh``."""
    from mdh.settings import load_settings

    return load_settings(data_dir=data_dir).data_dir


def state_of(data_dir: Path | None) -> HubState | None:
    """What the hub that runs on a data directory says of itself; None if none runs there."""
    from connectors.embedded.place import read_state

    return read_state(data_folder(data_dir))


def hub_url(url: str | None, data_dir: Path | None = None) -> str:
    """The address of the hub: the one given, else ``MDH_URL``, else that of the data directory's hub, else the default port here."""
    if url or os.environ.get("MDH_URL"):
        return (url or os.environ["MDH_URL"]).rstrip("/")
    state = state_of(data_dir)
    return state.url if state else DEFAULT_URL


def kafka_of(broker: str | None, url: str | None, data_dir: Path | None) -> KafkaSettings:
    """How to reach the hub's Kafka: the one given, else the one that the hub at ``url`` uses, else ``MDH_BROKER``, else the one
    of the data directory's hub. Raises UsageError where none is known."""
    from mdh.settings import load_settings

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # a broker that is away is told in one line, by whoever asked for it
    settings = load_settings(broker=broker)
    if settings.broker and not url:
        return settings.kafka.at(settings.broker)
    if url and not broker:
        with HubClient(url) as hub:
            return settings.kafka.at(str(hub.get("/v1/hub")["broker"]))
    state = state_of(data_dir)
    if broker is None and state is None:
        raise UsageError("which Kafka? No hub runs on this data directory: give --broker, --url or --data-dir")
    return settings.kafka.at(broker or (state.broker if state else None))


def credentials(token: str | None = None) -> dict[str, str]:
    """Headers that say who asks: with the API token given, else that of ``MDH_TOKEN``; none without one."""
    held = (os.environ.get("MDH_TOKEN", "") if token is None else token).strip()
    return {"Authorization": f"Bearer {held}"} if held else {}


class HubClient:
    """Calls to a hub. Every failure is a UsageError that says what to do; a busy hub is asked again for ``patience`` seconds."""

    def __init__(self, url: str, patience: float = 120.0, token: str | None = None) -> None:
        """``token``: an API token; None: that of ``MDH_TOKEN`` or ``mdh --token``, if any."""
        import httpx

        self.url, self.patience, self._reached = url.rstrip("/"), patience, False
        host = httpx.URL(self.url).host if "://" in url else ""
        local = host in ("localhost", "::1") or host.startswith("127.")
        # A proxy of the environment is for the world outside, not for a hub on this machine
        headers = credentials(token)
        self._client = httpx.Client(timeout=httpx.Timeout(60.0, connect=5.0), trust_env=not local, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        """The JSON answer to a GET."""
        return self.call("GET", path).json()

    def call(self, method: str, path: str, *, accept: frozenset[int] = frozenset(), **options: Any) -> httpx.Response:
        """The answer, once it is a success or a status to ``accept``. Raises UsageError.

        What is called must be safe to call again: answers can get lost.
        """
        deadline = time.monotonic() + self.patience
        while True:
            try:
                answer = self._once(method, path, options)
            except UsageError:
                if not self._reached or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)  # it answered before: it is being started again
                continue
            self._reached = True
            if answer.is_success or answer.status_code in accept:
                return answer
            if answer.status_code not in BUSY or time.monotonic() > deadline:
                raise UsageError(reason_of(answer))
            time.sleep(_pause(answer.headers))

    def lines(self, method: str, path: str, content: Callable[[], Iterator[bytes]], **options: Any) -> Iterator[bytes]:
        """The lines of an answer that may be long in coming, as they come; ``content`` makes the body, which is sent piece by piece, and
        made anew for a busy hub. Raises UsageError."""
        import httpx

        deadline = time.monotonic() + self.patience
        while True:
            patient = httpx.Timeout(None, connect=5.0)
            request = self._client.build_request(method, f"{self.url}{path}", content=content(), timeout=patient, **options)
            with self._failing(), closing(self._client.send(request, stream=True)) as answer:
                if answer.is_success:
                    yield from _split(answer.iter_bytes())
                    return
                answer.read()
            if answer.status_code not in BUSY or time.monotonic() > deadline:
                raise UsageError(reason_of(answer))
            time.sleep(_pause(answer.headers))

    def _once(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        with self._failing():
            return self._client.request(method, f"{self.url}{path}", **options)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Says in one line why a hub cannot be called."""
        import httpx

        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise UsageError(f"--url {self.url}: write http://host:port or https://host:port") from None
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise UsageError(f"no hub answers at {self.url}: start one with `mdh up`, or name another with --url") from None
        except httpx.TransportError as error:
            raise UsageError(f"the hub at {self.url} broke off: {error or type(error).__name__}") from None


def _split(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of pieces; the texts in them may hold other characters that end lines."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def printable(text: str) -> str:
    """Text of somebody else that a terminal can show: what would drive it becomes visible escapes, line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def reason_of(answer: httpx.Response) -> str:
    """The detail of a problem document in one line, or what there is instead."""
    try:
        body = answer.json()
        reason = body.get("detail") or "; ".join(body.get("reasons", ())) or body.get("title")
    except (ValueError, AttributeError):
        reason = None
    return " ".join(str(reason).split()) if reason else f"the hub answered {answer.status_code}"


def _pause(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return min(float(text), 10.0) if text.isascii() and text.isdigit() else 1.0
