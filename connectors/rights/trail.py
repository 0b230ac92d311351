"""The audit as it is written: entries chained, sent to Kafka in order, and kept trying until Kafka has them."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from connectors.head_end.publish import PublishError, UnavailableError, Writer
from connectors.rights.chain import ANCHOR, BEGINS, Head
from connectors.rights.principal import Principal, current
from schemas.audit import chained
from schemas.codec import Codec
from schemas.identity import identity

TOPIC: Final = "audit.events"
WAITING: Final = 50_000  # entries that may wait for Kafka
BATCH: Final = 500
MOST_HEADS: Final = 100  # named by one entry
PLACE: Final = 0  # partition of the chains of hub processes: readers find each in its order
MOST: Final = 16_000  # characters of before and after
log = structlog.get_logger(__name__)


@dataclass
class Notes:
    """What the handlers of a request add to its entry."""

    before: Any = None
    after: Any = None
    reason: str = ""
    subject: str = ""
    command: str = ""
    detail: str = ""
    actor: str = ""


_NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def noting(notes: Notes) -> Iterator[None]:
    """What is called within adds to ``notes``."""
    token = _NOTES.set(notes)
    try:
        yield
    finally:
        _NOTES.reset(token)


def note(**more: Any) -> None:
    """Adds to the audit entry of the request in hand: before, after (what JSON can hold), reason, subject, command, detail, actor."""
    notes = _NOTES.get()
    if notes is not None:
        for name, value in more.items():
            setattr(notes, name, value)


@dataclass(frozen=True, slots=True, eq=False)
class Act:
    """An entry before it is chained."""

    action: str
    subject: str
    outcome: str
    who: Principal
    at: int  # UTC seconds
    actor: str = ""
    detail: str = ""
    reason: str = ""
    command: str = ""
    before: str = ""
    after: str = ""
    id: str = ""
    start: int | None = None  # UTC seconds of what it is about; None: as ``at``
    end: int | None = None
    bulk: str = ""
    approved_by: str = ""
    done: Future[None] = field(default_factory=Future, repr=False)


def as_text(value: Any) -> str:
    """A value as JSON text, cut where it is very long; nothing as nothing."""
    if value is None or value == "":
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()
    return text if len(text) <= MOST else orjson.dumps({"cut": text[:MOST]}).decode()


class Trail:
    """Writes one chain. ``run`` in a thread; ``tell`` may be called by any."""

    def __init__(
        self, writer: Writer, codec: Codec, folder: Path | None, *, clock: Callable[[], float] = time.time, topic: str = TOPIC
    ) -> None:
        self._writer, self._codec, self._clock, self._topic = writer, codec, clock, topic
        self._file = folder / "head.json" if folder else None
        self._waiting: queue.Queue[Act] = queue.Queue(WAITING)
        self._lost = 0
        self._lock = threading.Lock()
        self._writing, self._wake = threading.Lock(), threading.Event()
        self._left: list[Act] = []  # what Kafka did not take
        self._head: Head | None = None  # acknowledged
        self._before = self._kept()
        self._begin()

    def _begin(self) -> None:
        """A new chain, which will name the acknowledged end of the one before."""
        self._before = self._head or self._before
        self._name = f"hub-{int(self._clock())}-{uuid.uuid4().hex[:8]}"
        self._next, self._previous, self._opened = 1, "", False

    def _kept(self) -> Head | None:
        try:
            return Head(**orjson.loads(self._file.read_bytes())) if self._file else None
        except (OSError, ValueError, TypeError):
            return None

    @property
    def name(self) -> str:
        """The chain that is written now."""
        return self._name

    @property
    def head(self) -> Head | None:
        """The last entry that Kafka has."""
        return self._head

    def tell(self, action: str, subject: str, outcome: str, who: Principal | None = None, **more: Any) -> Future[None]:
        """Takes an entry; the future ends once Kafka has it. More: the other fields of Act."""
        act = Act(action, subject, outcome, who or current(), more.pop("at", None) or int(self._clock()), **more)
        try:
            self._waiting.put_nowait(act)
            self._wake.set()
        except queue.Full:
            with self._lock:
                self._lost += 1
            act.done.set_exception(UnavailableError("too many entries of the audit wait for Kafka"))
            log.error("an entry of the audit is lost: too many wait for Kafka", action=action, subject=subject, lost=self._lost)
        return act.done

    def write(self, action: str, subject: str, outcome: str, who: Principal | None = None, **more: Any) -> None:
        """Writes an entry, and all that wait before it, here and now. Raises PublishError where Kafka did not take it; it is dropped."""
        act = Act(action, subject, outcome, who or current(), more.pop("at", None) or int(self._clock()), **more)
        with self._writing:
            batch = [*self._left, *self._drain(WAITING), act]
            self._left = self._write(batch)
            if act in self._left:
                self._left.remove(act)
                raise UnavailableError("Kafka did not take the entry of the audit")

    def run(self, stop: threading.Event) -> None:
        """Writes until ``stop`` is set and nothing waits."""
        while not (stop.is_set() and not self._left and self._waiting.empty()):
            if not self._left:
                self._wake.wait(0.2)
                self._wake.clear()
            with self._writing:
                self._left = self._write([*self._left, *self._drain(max(0, BATCH - len(self._left)))])
            if self._left and stop.wait(1.0):
                log.error("entries of the audit could not be written before the end", entries=len(self._left) + self._waiting.qsize())
                return

    def _drain(self, most: int) -> list[Act]:
        found: list[Act] = []
        try:
            while len(found) < most:
                found.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        return found

    def _write(self, acts: list[Act]) -> list[Act]:
        """Chains and sends; those Kafka did not take, after which a new chain begins."""
        if not acts:
            return []
        if not self._opened:
            follows = asdict(self._before) if self._before else None
            hub, after = Principal("hub", "open"), as_text({"follows": follows})
            opening = Act(BEGINS, f"audit/{self._name}", "applied", hub, int(self._clock()), after=after)
            acts, self._opened = [opening, *acts], True
        sent = []
        for act in acts:
            entry = self._chained(act)
            try:
                record = self._codec.encode("AuditEvent", entry | {name: entry[name] * 1000 for name in ("at", "start", "end")})
                future = self._writer.write(self._topic, record, key=act.subject.encode(), partition=PLACE)
            except PublishError as error:
                future = Future()
                future.set_exception(error)
            sent.append((act, Head(self._name, entry["sequence"], entry["hash"]), future))
        failed, head = [], self._head
        for act, place, future in sent:
            try:
                future.result(self._writer.timeout + 5)
            except (PublishError, TimeoutError) as error:
                log.warning("an entry of the audit is written again", action=act.action, reason=str(error))
                failed.append(act)
            else:
                head = head if failed else place
        self._keep(head)
        for act, _, _ in sent:
            if act not in failed and not act.done.done():
                act.done.set_result(None)
        if failed:
            self._begin()
        return [act for act in failed if act.action != BEGINS]

    def _chained(self, act: Act) -> dict[str, Any]:
        who = act.who
        principal = f"{who.via}:{who.name}" + (f"#{who.credential}" if who.credential else "")
        body = {
            "id": act.id or identity("audit", self._name, self._next), "at": act.at, "actor": act.actor or who.name or "nobody",
            "action": act.action, "command": act.command, "subject": act.subject[:1000],
            "start": act.at if act.start is None else act.start, "end": act.at if act.end is None else act.end,
            "reason": act.reason[:1000], "outcome": act.outcome, "detail": act.detail[:2000], "before": act.before, "after": act.after,
            "bulk": act.bulk, "approved_by": act.approved_by, "principal": principal, "address": who.address[:200],
            "agent": who.agent[:300],
        }  # fmt: skip
        entry = chained(body, self._name, self._next, self._previous)
        self._next, self._previous = self._next + 1, entry["hash"]
        return entry

    def _keep(self, head: Head | None) -> None:
        if head is None or head == self._head:
            return
        self._head = head
        if self._file:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                part = self._file.with_suffix(".part")
                part.write_bytes(orjson.dumps(asdict(head)))
                part.replace(self._file)
            except OSError as error:
                log.warning("the head of the audit's chain could not be kept", reason=str(error))


def anchor(trail: Trail, reader: Any, known: Mapping[str, int]) -> dict[str, int]:
    """Names in this chain where others end, as far as the store tells; those at ``known`` ends are left out. The ends now."""
    what = "writer, max(sequence) AS last, argMax(hash, sequence) AS hash"
    rows = reader.rows(f"SELECT {what} FROM audit WHERE writer != '' GROUP BY writer ORDER BY writer", {})
    ends = {row["writer"]: int(row["last"]) for row in rows if row["writer"] != trail.name}
    heads = [
        {"writer": row["writer"], "sequence": int(row["last"]), "hash": row["hash"]}
        for row in rows
        if row["writer"] in ends and known.get(row["writer"]) != ends[row["writer"]]
    ]
    for first in range(0, len(heads), MOST_HEADS):
        after = orjson.dumps({"heads": heads[first : first + MOST_HEADS]}).decode()
        trail.tell(ANCHOR, f"audit/{trail.name}", "applied", Principal("hub", "open"), after=after)
    return ends


def redacted(body: bytes) -> Any:
    """A JSON body without its secrets, for the audit; None where it is something else."""
    try:
        return _clean(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


_SECRET: Final = frozenset(
    {"password", "old_password", "secret", "code", "token", "id_token", "access_token", "phone", "mail", "address", "tax_id", "name"}
)  # of logins, and of persons


def _clean(value: Any, depth: int = 0) -> Any:
    if depth > 8:
        return "…"
    if isinstance(value, Mapping):
        return {key: "•••" if key in _SECRET and isinstance(item, str) else _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value[:100]]
    return value
